use super::*;
use crate::store::Key;

fn put(revision: Revision) -> Change {
    Change::Put(Entry::of("k", &"v".repeat(100)).at(revision))
}

fn filled(limit: u64, revisions: impl IntoIterator<Item = Revision>) -> History {
    let mut history = History::new(limit, 100);
    for revision in revisions {
        history.push(&put(revision));
        drop(history.close(Revision::MAX));
    }
    history
}

fn after(history: &History, revision: Revision, about: usize) -> Option<Vec<Revision>> {
    let found = history.after(revision, &Interest::ALL, about)?;
    Some(found.changes.iter().map(Change::revision).collect())
}

#[test]
fn it_goes_on_behind_any_revision_and_never_splits_a_commit() {
    let mut history = History::new(1 << 20, 100);
    assert_eq!(after(&history, 100, 10), Some(vec![]));
    for revision in 101..2000 {
        for _ in 0..revision % 3 + 1 {
            history.push(&put(revision));
        }
        assert!(history.close(Revision::MAX).is_empty());
    }
    assert_eq!(after(&history, 1998, 10), Some(vec![1999, 1999]));
    assert_eq!(after(&history, 1999, 10), Some(vec![]));
    let mut at = 100;
    while at < 1999 {
        let next = after(&history, at, 7).unwrap();
        assert_eq!(next[0], at + 1);
        at = *next.last().unwrap();
        let whole = next.iter().filter(|it| **it == at).count();
        assert_eq!(whole as u64, at % 3 + 1);
        assert!(next.len() < 7 + 3 || at == 1999);
    }
}

#[test]
fn one_look_finds_what_it_looks_for_and_goes_no_further_than_it_may() {
    let mut history = History::new(1 << 30, 0);
    let commits = 3 * SEEN_AT_ONCE as u64;
    for revision in 1..=commits {
        let key = if revision % 1000 == 0 {
            "rare"
        } else {
            "usual"
        };
        history.push(&Change::Put(Entry::of(key, "v").at(revision)));
        drop(history.close(Revision::MAX));
    }
    let rare = Interest::Key(Key::try_from(&b"rare"[..]).unwrap());
    let (mut found, mut at) = (Vec::new(), 0);
    while at < commits {
        let some = history.after(at, &rare, 256).unwrap();
        assert!(some.to > at && some.to - at <= SEEN_AT_ONCE as u64);
        found.extend(some.changes.iter().map(Change::revision));
        at = some.to;
    }
    let expected: Vec<u64> = (1..=commits).filter(|it| it % 1000 == 0).collect();
    assert_eq!(found, expected);
    assert_eq!(history.after(commits, &rare, 256).unwrap().to, commits);
}

#[test]
fn the_oldest_go_when_there_are_too_many_bytes() {
    let history = filled(10_000, 101..1000);
    assert!(history.bytes() <= 10_000 && history.bytes() > 9_000);
    let oldest = history.oldest();
    assert!((900..999).contains(&oldest));
    assert_eq!(after(&history, oldest - 1, 10), None);
    assert_eq!(after(&history, oldest, 1), Some(vec![oldest + 1]));
    assert!(!history.covers(oldest - 1));
    assert!((oldest..1000).all(|it| history.covers(it)));
}

#[test]
fn the_latest_commit_stays_however_large_it_is() {
    for limit in [0, 1, 500] {
        let mut history = filled(limit, 101..=110);
        for _ in 0..1000 {
            history.push(&put(111));
        }
        drop(history.close(Revision::MAX));
        assert_eq!(history.oldest(), 110);
        assert_eq!(after(&history, 110, 1).unwrap().len(), 1000);
        history.push(&put(112));
        drop(history.close(Revision::MAX));
        assert_eq!(history.oldest(), 111);
        assert_eq!(after(&history, 111, 1), Some(vec![112]));
    }
}

#[test]
fn what_has_not_been_looked_at_stays_until_it_is_far_too_much() {
    let mut history = History::new(1000, 100);
    for revision in 101..=200 {
        history.push(&put(revision));
        drop(history.close(150));
    }
    assert_eq!(history.oldest(), 150);
    drop(history.close(200));
    assert!(history.oldest() > 190);
    let large = "v".repeat(UNSEEN as usize / 4);
    for revision in 201..=210 {
        history.push(&Change::Put(Entry::of("k", &large).at(revision)));
        drop(history.close(200));
    }
    assert!(history.oldest() > 200 && history.bytes() < UNSEEN + UNSEEN / 2);
}

#[test]
fn only_revisions_that_the_state_had_are_known() {
    let history = filled(1 << 20, [101, 5000, 5001]);
    for (revision, known) in [
        (99, false),
        (100, true),
        (101, true),
        (102, false),
        (4999, false),
        (5000, true),
        (5001, true),
        (5002, false),
    ] {
        assert_eq!(history.covers(revision), known, "{revision}");
    }
    assert!(History::new(0, 7).covers(7));
}

#[test]
fn the_latest_commits_are_whole() {
    let mut history = History::new(1 << 20, 100);
    for revision in 101..=110 {
        history.push(&put(revision));
        history.push(&put(revision));
        drop(history.close(Revision::MAX));
    }
    let each = put(1).footprint();
    for (bytes, oldest, changes) in [
        (u64::MAX, 100, 20),
        (20 * each, 100, 20),
        (20 * each - 1, 101, 18),
        (3 * each, 109, 2),
        (each, 110, 0),
        (0, 110, 0),
    ] {
        let latest = history.latest(bytes);
        assert_eq!((latest.0, latest.1.len()), (oldest, changes), "{bytes}");
    }
    assert_eq!(History::new(0, 7).latest(0).0, 7);
}

#[test]
fn commits_can_be_taken_back() {
    let mut history = filled(1 << 20, 101..=1000);
    history.take_back(1000);
    assert_eq!(after(&history, 999, 10), Some(vec![1000]));
    history.take_back(300);
    assert_eq!(after(&history, 299, 10), Some(vec![300]));
    let same = filled(1 << 20, 101..=300);
    assert_eq!(history.bytes(), same.bytes());
    history.push(&put(301));
    drop(history.close(Revision::MAX));
    history.take_back(0);
    assert_eq!(
        (after(&history, 100, 10), history.bytes()),
        (Some(vec![]), 0)
    );
}

#[test]
fn entries_come_back_as_they_were_small_and_large() {
    let mut history = History::new(1 << 20, 100);
    let expiry = Some(Expiry::at_millis(77));
    let entries = [1, COPIED - 10, COPIED, 5 * COPIED].map(|length| {
        let entry = Entry::of("k", &"é".repeat(length / 2));
        entry.with_expiry(expiry).at(101)
    });
    for entry in &entries {
        history.push(&Change::Touch(entry.clone()));
    }
    let after = history.after(100, &Interest::ALL, 10).unwrap().changes;
    for (entry, change) in entries.iter().zip(&after) {
        let (Change::Put(kept) | Change::Touch(kept)) = change else {
            panic!("{change:?}");
        };
        assert!(kept == entry && kept.revision() == 101);
    }
    assert_eq!(after.len(), entries.len());
}

#[test]
fn what_a_clear_has_removed_is_not_named() {
    let mut history = History::new(1 << 20, 100);
    let (prefix, revision) = ("a:".into(), 101);
    history.push(&Change::Clear { prefix, revision });
    history.push(&Change::Remove {
        key: Key::try_from(&b"a:1"[..]).unwrap(),
        revision,
        cause: Cause::Cleared,
    });
    assert_eq!(after(&history, 100, 10), Some(vec![101]));
}
