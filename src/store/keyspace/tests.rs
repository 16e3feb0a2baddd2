use super::*;
use crate::store::{Command, Condition, Key, Operation, Outcome, Revisions, Unmet, When};

/// The time at which commands are carried out.
const NOW: u64 = 10;

fn key(text: &str) -> Key {
    Key::try_from(text.as_bytes()).unwrap()
}

fn execute(command: Command, keys: &mut impl Keyspace) -> Outcome {
    command.execute(keys, Expiry::at_millis(NOW)).outcome
}

/// Stages on entries that have come so far.
fn stage(base: &Entries) -> Staged<'_> {
    let counter = Counter { last: 50, least: 0 };
    Staged::on(base, counter)
}

fn expiring(key: &str, millis: u64) -> Entry {
    Entry::of(key, "1").with_expiry(Some(Expiry::at_millis(millis)))
}

/// Keys and what has become of them, by key.
fn changed(staged: Staged<'_>) -> Vec<(String, Option<Entry>)> {
    let latest = staged.latest.into_iter();
    let mut changed: Vec<_> = latest
        .map(|(record, entry)| (record.key().to_owned(), entry))
        .collect();
    changed.sort_by(|a, b| a.0.cmp(&b.0));
    changed
}

/// What is written down: of each change its letter, its key or prefix, and its revision.
fn listed_changes(changes: &Changes) -> Vec<String> {
    let describe = |change: &Change| match change {
        Change::Put(entry) => format!("put {} {}", entry.key(), entry.revision()),
        Change::Touch(entry) => format!("touch {} {}", entry.key(), entry.revision()),
        Change::Remove {
            key,
            revision,
            cause,
        } => format!("{cause:?} {} {revision}", key.as_str()),
        Change::Clear { prefix, revision } => format!("clear {prefix} {revision}"),
    };
    changes.list.iter().map(describe).collect()
}

#[test]
fn commands_of_a_batch_see_each_other_and_the_base_stays() {
    let base = Entries::from_iter([Entry::of("a", "1"), Entry::of("b", "2")]);
    let mut staged = stage(&base);
    let delete = |name| Command::from(Operation::Delete { key: key(name) });
    let put = |name, text| Command::from(Operation::Put(Entry::of(name, text)));
    assert_eq!(execute(delete("a"), &mut staged), Outcome::Done);
    assert_eq!(execute(delete("a"), &mut staged), Outcome::NotFound);
    assert_eq!(execute(put("c", "3"), &mut staged), Outcome::Done);
    assert_eq!(execute(delete("c"), &mut staged), Outcome::Done);
    assert_eq!(execute(put("b", "4"), &mut staged), Outcome::Done);
    assert_eq!(execute(put("b", "5"), &mut staged), Outcome::Done);
    assert!(!staged.changes.clear());
    let expected = [
        ("a".into(), None),
        ("b".into(), Some(Entry::of("b", "5"))),
        ("c".into(), None),
    ];
    assert_eq!(changed(staged), expected);
    assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
}

#[test]
fn after_a_clear_only_what_came_later_counts() {
    let base = Entries::from_iter([Entry::of("a", "1")]);
    let mut staged = stage(&base);
    staged.set(Entry::of("b", "2"), Expiry::at_millis(NOW));
    execute(Command::Clear, &mut staged);
    assert!(staged.get("a").is_none() && staged.get("b").is_none());
    assert_eq!(
        execute(
            Command::from(Operation::Delete { key: key("a") }),
            &mut staged
        ),
        Outcome::NotFound
    );
    staged.set(Entry::of("c", "3"), Expiry::at_millis(NOW));
    assert!(staged.changes.clear());
    let expected = [("c".into(), Some(Entry::of("c", "3")))];
    assert_eq!(changed(staged), expected);
}

#[test]
fn what_has_expired_counts_as_not_there() {
    let base = Entries::from_iter([expiring("a", 1)]);
    let mut staged = stage(&base);
    assert_eq!(
        execute(
            Command::from(Operation::Delete { key: key("a") }),
            &mut staged
        ),
        Outcome::NotFound
    );
    assert_eq!(changed(staged), []);
}

#[test]
fn a_sweep_removes_what_has_expired_and_nothing_else() {
    let base = Entries::from_iter([
        expiring("a", 1),
        expiring("b", 1),
        expiring("c", u64::MAX),
        Entry::of("d", "1"),
    ]);
    let mut staged = stage(&base);
    staged.set(Entry::of("b", "2"), Expiry::at_millis(NOW));
    assert_eq!(execute(Command::Sweep, &mut staged), Outcome::Swept(1));
    let expected = [("a".into(), None), ("b".into(), Some(Entry::of("b", "2")))];
    assert_eq!(changed(staged), expected);

    let mut cleared = stage(&base);
    cleared.clear(51);
    assert_eq!(execute(Command::Sweep, &mut cleared), Outcome::Swept(0));

    let many = (0..600).map(|n| expiring(&n.to_string(), 1));
    let many = Entries::from_iter(many);
    let mut staged = stage(&many);
    let mut sweep = || execute(Command::Sweep, &mut staged);
    let swept = [256, 256, 88, 0].map(Outcome::Swept);
    assert_eq!([sweep(), sweep(), sweep(), sweep()], swept);
}

#[test]
fn operations_of_a_bulk_see_those_before_them() {
    let base = Entries::from_iter([Entry::of("a", "1")]);
    let mut staged = stage(&base);
    let expiry = Some(Expiry::at_millis(u64::MAX));
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry,
    };
    let delete = |name| Operation::Delete { key: key(name) };
    let bulk = [touch("a"), touch("b"), delete("a"), delete("a"), touch("a")];
    let bulk = bulk.map(|it| (it, None)).into();
    assert_eq!(
        execute(Command::Bulk(bulk), &mut staged),
        Outcome::Each(vec![true, false, true, false, false])
    );
    assert_eq!(changed(staged), [("a".into(), None)]);

    let mut staged = stage(&base);
    assert_eq!(
        execute(Command::from(touch("a")), &mut staged),
        Outcome::Done
    );
    assert_eq!(
        execute(Command::from(touch("b")), &mut staged),
        Outcome::NotFound
    );
    let touched = expiring("a", u64::MAX);
    assert_eq!(changed(staged), [("a".into(), Some(touched))]);
    assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
}

#[test]
fn what_decisions_rely_on_is_noted() {
    let base = Entries::from_iter([
        expiring("checked", NOW + 1),
        expiring("deleted", NOW + 1),
        expiring("gone", NOW),
        Entry::of("never", "1"),
        expiring("prefix:a", NOW + 1),
        expiring("put", NOW + 1),
        expiring("touched", NOW + 1),
    ]);
    let mut staged = stage(&base);
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry: Some(Expiry::at_millis(u64::MAX)),
    };
    let put = |name| Operation::Put(expiring(name, NOW + 5));
    let delete = |name| Operation::Delete { key: key(name) };
    for operation in [
        put("put"),
        touch("put"),
        touch("gone"),
        touch("never"),
        touch("touched"),
        touch("touched"),
        delete("deleted"),
        delete("deleted"),
        delete("gone"),
    ] {
        execute(operation.into(), &mut staged);
    }
    let check = Operation::Check {
        key: key("checked"),
    };
    execute(Command::One(check, listed(&[1])), &mut staged);
    execute(Command::DeletePrefix("prefix:".into()), &mut staged);
    let relied = staged.into_changes().relied;
    let keys = relied.iter().map(Entry::key);
    assert!(keys.eq(["touched", "deleted", "checked", "prefix:a"]));
}

fn listed(revisions: &[Revision]) -> When {
    Condition {
        if_match: Some(Revisions::Listed(revisions.into())),
        if_none_match: None,
    }
    .when()
}

fn missing() -> When {
    Condition {
        if_match: None,
        if_none_match: Some(Revisions::Any),
    }
    .when()
}

fn put(name: &str, text: &str) -> Operation {
    Operation::Put(Entry::of(name, text))
}

fn failed(index: usize, name: &str, revision: Option<Revision>) -> Unmet {
    Unmet {
        index,
        key: key(name),
        revision,
    }
}

#[test]
fn conditions_see_what_the_batch_has_done_before() {
    let base = Entries::from_iter([Entry::of("a", "1").at(7), expiring("old", NOW).at(8)]);
    let mut staged = stage(&base);
    let mut run = |operation, when| {
        let command = Command::One(operation, when);
        let committed = command.execute(&mut staged, Expiry::at_millis(NOW));
        (committed.outcome, committed.revision)
    };
    let delete = |name| Operation::Delete { key: key(name) };
    let check = |name| Operation::Check { key: key(name) };
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry: None,
    };
    let refused = |name, revision| Outcome::ConditionFailed(vec![failed(0, name, revision)]);
    // Of two with the same revision one wins.
    assert_eq!(run(put("a", "2"), listed(&[7])), (Outcome::Done, 51));
    assert_eq!(
        run(put("a", "3"), listed(&[7])),
        (refused("a", Some(51)), 51)
    );
    assert_eq!(
        run(delete("a"), listed(&[7, 9])),
        (refused("a", Some(51)), 51)
    );
    assert_eq!(run(touch("a"), listed(&[51])), (Outcome::Done, 52));
    assert_eq!(run(check("a"), listed(&[52])), (Outcome::Done, 52));
    assert_eq!(run(delete("a"), listed(&[52])), (Outcome::Done, 53));
    assert_eq!(run(delete("a"), listed(&[52])), (refused("a", None), 53));
    assert_eq!(run(delete("a"), None), (Outcome::NotFound, 53));
    assert_eq!(run(touch("a"), listed(&[52])), (Outcome::NotFound, 53));
    // Expired is not there.
    assert_eq!(
        run(put("old", "2"), listed(&[8])),
        (refused("old", None), 53)
    );
    assert_eq!(run(put("old", "2"), missing()), (Outcome::Done, 54));
    assert_eq!(
        run(put("old", "3"), missing()),
        (refused("old", Some(54)), 54)
    );
    let changes = staged.into_changes();
    assert_eq!((changes.before, changes.revision), (50, 54));
}

#[test]
fn a_bulk_happens_whole_or_not_at_all_and_at_one_revision() {
    let base = Entries::from_iter([Entry::of("a", "1").at(7), Entry::of("b", "1").at(8)]);
    let mut staged = stage(&base);
    let mut run = |operations: Vec<(Operation, When)>| {
        let committed = Command::Bulk(operations).execute(&mut staged, Expiry::at_millis(NOW));
        (committed.outcome, committed.revision)
    };
    let check = |name| Operation::Check { key: key(name) };
    let delete = |name| Operation::Delete { key: key(name) };
    let refused = run(vec![
        (put("a", "2"), listed(&[7])),
        (put("b", "2"), listed(&[7])),
        (check("c"), listed(&[7])),
        (put("d", "2"), None),
    ]);
    let unmet = vec![failed(1, "b", Some(8)), failed(2, "c", None)];
    assert_eq!(refused, (Outcome::ConditionFailed(unmet), 50));
    // All conditions are about the state before.
    let done = run(vec![
        (put("a", "2"), listed(&[7])),
        (put("a", "3"), listed(&[7])),
        (delete("b"), listed(&[8])),
        (put("c", "2"), missing()),
        (check("c"), missing()),
        (delete("d"), None),
    ]);
    let each = vec![true, true, true, true, true, false];
    assert_eq!(done, (Outcome::Each(each), 51));
    let nothing = run(vec![(check("a"), listed(&[51])), (delete("d"), None)]);
    assert_eq!(nothing, (Outcome::Each(vec![true, false]), 51));
    assert_eq!(staged.get("a").map(Entry::revision), Some(51));
    assert_eq!(staged.get("c").map(Entry::revision), Some(51));
    assert_eq!(staged.get("a").map(Entry::value), Some("3"));
}

#[test]
fn what_changes_nothing_has_no_revision() {
    let base = Entries::from_iter([
        expiring("a:old", NOW),
        Entry::of("b:1", "1"),
        Entry::of("b:2", "1"),
    ]);
    let mut staged = stage(&base);
    let mut run = |command: Command| {
        let committed = command.execute(&mut staged, Expiry::at_millis(NOW));
        (committed.outcome, committed.revision)
    };
    let prefix = |prefix: &str| Command::DeletePrefix(prefix.into());
    assert_eq!(run(prefix("a:")), (Outcome::Deleted(0), 50));
    assert_eq!(run(put("b:3", "1").into()), (Outcome::Done, 51));
    let delete = Operation::Delete { key: key("b:1") };
    assert_eq!(run(delete.into()), (Outcome::Done, 52));
    assert_eq!(run(prefix("b:")), (Outcome::Deleted(2), 53));
    assert_eq!(run(prefix("b:")), (Outcome::Deleted(0), 53));
    // Only what has expired is left.
    assert_eq!(run(Command::Clear), (Outcome::Done, 53));
    // That it has is a change for those who watch; once.
    assert_eq!(run(Command::Sweep), (Outcome::Swept(1), 54));
    assert_eq!(run(Command::Sweep), (Outcome::Swept(0), 54));
    assert_eq!(run(put("c", "1").into()), (Outcome::Done, 55));
    assert_eq!(run(Command::Clear), (Outcome::Done, 56));
    assert_eq!(run(Command::Clear), (Outcome::Done, 56));
    let changes = staged.into_changes();
    let expected = [
        "put b:3 51",
        "Deleted b:1 52",
        "clear b: 53",
        "Cleared b:2 53",
        "Cleared b:3 53",
        "Expired a:old 54",
        "put c 55",
        "clear  56",
    ];
    assert_eq!(listed_changes(&changes), expected);
}

#[test]
fn every_change_of_a_batch_is_listed_also_where_another_follows() {
    let base = Entries::from_iter([expiring("old", NOW), Entry::of("a", "1")]);
    let mut staged = stage(&base);
    let touch = Operation::Touch {
        key: key("a"),
        expiry: None,
    };
    let delete = |name| Operation::Delete { key: key(name) };
    for operation in [
        put("a", "2"),
        touch,
        delete("a"),
        delete("a"),
        delete("old"),
        put("old", "2"),
    ] {
        execute(operation.into(), &mut staged);
    }
    let expected = [
        "put a 51",
        "touch a 52",
        "Deleted a 53",
        "Expired old 54",
        "put old 54",
    ];
    assert_eq!(listed_changes(&staged.into_changes()), expected);
}
