use super::*;
use crate::store::keyspace::Changes;
use crate::store::removed::FREE_ELSEWHERE;
use crate::store::{Expiry, Operation, Outcome};

fn key(text: &str) -> Key {
    Key::try_from(text.as_bytes()).unwrap()
}

fn execute(map: &Map, command: Command) -> Outcome {
    map.execute(command).unwrap().outcome
}

fn put(map: &Map, name: &str, value: &str) -> Outcome {
    put_until(map, name, value, None)
}

fn put_until(map: &Map, name: &str, value: &str, expiry: Option<Expiry>) -> Outcome {
    let entry = Entry::of(name, value).with_expiry(expiry);
    execute(map, Command::from(Operation::Put(entry)))
}

fn all_live(map: &Map) -> Vec<Entry> {
    let contents = map.read();
    let entries = contents.entries.from(Bound::Unbounded);
    let live = entries.filter(|it| it.is_live(Expiry::now()));
    live.cloned().collect()
}

fn text(map: &Map, name: &str) -> Option<String> {
    Some(map.get(&key(name))?.value().to_owned())
}

#[test]
fn the_last_put_counts() {
    let map = Map::unlimited();
    assert_eq!(map.get(&key("a")), None);
    assert_eq!(put(&map, "a", "1"), Outcome::Done);
    assert_eq!(put(&map, "a", "2"), Outcome::Done);
    assert_eq!(text(&map, "a").as_deref(), Some("2"));
}

#[test]
fn a_delete_says_whether_the_key_was_there() {
    let map = Map::unlimited();
    put(&map, "a", "1");
    assert_eq!(
        execute(&map, Command::from(Operation::Delete { key: key("a") })),
        Outcome::Done
    );
    assert_eq!(
        execute(&map, Command::from(Operation::Delete { key: key("a") })),
        Outcome::NotFound
    );
    assert_eq!(map.get(&key("a")), None);
}

#[test]
fn clear_removes_every_key_of_a_small_map_and_of_a_large_one() {
    for entries in [3, FREE_ELSEWHERE + 1] {
        let map = Map::unlimited();
        for n in 0..entries {
            put(&map, &format!("k{n}"), "v");
        }
        assert_eq!(execute(&map, Command::Clear), Outcome::Done);
        assert_eq!((map.len(), map.bytes()), (0, 0));
        assert_eq!(map.read().entries.len(), 0);
    }
}

#[test]
fn a_value_that_was_read_outlives_its_key() {
    let map = Map::unlimited();
    put(&map, "a", "1");
    let read = map.get(&key("a"));
    execute(&map, Command::Clear);
    assert_eq!(read.unwrap().value(), "1");
}

#[test]
fn an_expired_key_is_gone_for_readers_and_swept_in_steps() {
    let map = Map::unlimited();
    let past = Some(Expiry::at_millis(1));
    for n in 0..1000 {
        put_until(&map, &format!("k{n}"), "v", past);
    }
    put(&map, "a", "1");
    assert_eq!(map.get(&key("k0")), None);
    assert_eq!(map.get_all(&[key("k1"), key("a")]).0[0], None);
    assert_eq!(map.len(), 1);
    assert_eq!(map.page("k", Bound::Unbounded, 10).entries, []);
    let mut swept = 0;
    while map.count_expired() {
        match execute(&map, Command::Sweep) {
            Outcome::Swept(keys) if (1..1000).contains(&keys) => swept += keys,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((swept, map.len(), map.bytes()), (1000, 1, 2));
    assert_eq!(map.read().entries.len(), 1);
}

#[test]
fn pages_hold_every_key_with_the_prefix_once() {
    let map = Map::unlimited();
    for n in 0..1000 {
        put(&map, &format!("k{n:03}"), "v");
        put(&map, &format!("l{n:03}"), "v");
    }
    for most in [1, 7, STEP, 5000] {
        let (mut listed, mut next) = (Vec::new(), None::<Entry>);
        loop {
            let from = next
                .as_ref()
                .map_or(Bound::Unbounded, |last| Bound::Excluded(last.key()));
            let page = map.page("k", from, most);
            assert!(page.entries.len() <= most);
            listed.extend(page.entries.iter().map(|it| it.key().to_owned()));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let expected: Vec<String> = (0..1000).map(|n| format!("k{n:03}")).collect();
        assert!(listed == expected, "{most} at once");
    }
    let after = |key| {
        let page = map.page("k", Bound::Excluded(key), 1);
        page.entries.first().map(|it| it.key().to_owned())
    };
    assert_eq!(after("k5").as_deref(), Some("k500"));
    assert_eq!(after("a").as_deref(), Some("k000"));
    assert_eq!(after("k999"), None);
    assert_eq!(after("z"), None);
}

#[test]
fn a_page_ends_behind_a_large_value() {
    let map = Map::unlimited();
    for n in 0..3 {
        put(&map, &format!("k{n}"), &"v".repeat(PAGE_BYTES / 2));
    }
    let page = map.page("k", Bound::Unbounded, 10);
    assert!(page.entries.iter().map(Entry::key).eq(["k0", "k1"]));
    assert_eq!(page.next.unwrap().key(), "k1");
}

#[test]
fn staged_changes_show_when_they_are_applied_and_not_before() {
    let map = Map::unlimited();
    put(&map, "a", "1");
    let (outcome, changes) = map.stage(|staged| {
        Command::Clear.execute(staged, Expiry::now());
        Command::from(Operation::Put(Entry::of("b", "2"))).execute(staged, Expiry::now())
    });
    assert_eq!(outcome.outcome, Outcome::Done);
    assert_eq!(text(&map, "a").as_deref(), Some("1"));
    assert_eq!(map.get(&key("b")), None);
    map.apply(changes).unwrap();
    assert_eq!(map.get(&key("a")), None);
    assert_eq!(text(&map, "b").as_deref(), Some("2"));
}

#[test]
fn keys_are_counted_while_others_read() {
    let map = Map::unlimited();
    put_until(&map, "a", "1", Some(Expiry::at_millis(1)));
    put(&map, "b", "2");
    // With the write lock these would wait for ever.
    let reading = map.read();
    assert_eq!(map.len(), 1);
    assert!(map.count_expired());
    drop(reading);
}

/// Stages commands that were decided before the deadline of `late`, which has passed.
fn decided_in_time(map: &Map) -> Changes {
    let past = Some(Expiry::at_millis(1000));
    put_until(map, "late", "1", past);
    put_until(map, "also", "1", Some(Expiry::at_millis(u64::MAX - 1)));
    put(map, "gone", "1");
    let touch = |name| Operation::Touch {
        key: key(name),
        expiry: Some(Expiry::at_millis(u64::MAX)),
    };
    let delete = Operation::Delete { key: key("gone") };
    let put = |name| Operation::Put(Entry::of(name, "2"));
    let then = Expiry::at_millis(999);
    let ((), changes) = map.stage(|staged| {
        for operation in [touch("late"), touch("also"), delete, put("new")] {
            let committed = Command::from(operation).execute(staged, then);
            assert_eq!(committed.outcome, Outcome::Done);
        }
    });
    changes
}

#[test]
fn what_relies_on_something_that_has_expired_is_not_applied() {
    let map = Map::unlimited();
    let changes = decided_in_time(&map);
    let before = map.revision();
    let Err(late) = map.apply(changes) else {
        panic!("it was applied");
    };
    assert_eq!((map.revision(), map.get(&key("new"))), (before, None));
    // The disk has it, and does not take the correction.
    map.apply_anyway(late);
    assert_eq!(text(&map, "late"), None);
    assert_eq!(text(&map, "gone"), None);
    assert_eq!(text(&map, "new").as_deref(), Some("2"));
    assert_eq!(map.revision(), before + 4);
    let touched = map.get(&key("also")).unwrap();
    assert_eq!(touched.expiry, Some(Expiry::at_millis(u64::MAX)));
}

#[test]
fn a_correction_makes_of_one_decision_the_other() {
    let map = Map::unlimited();
    let late = decided_in_time(&map);
    // What both have come to on disk is what the second one alone comes to in memory.
    let ((), wanted) = map.stage(|staged| {
        for operation in [
            Operation::Put(Entry::of("other", "3")),
            Operation::Touch {
                key: key("gone"),
                expiry: Some(Expiry::at_millis(u64::MAX)),
            },
        ] {
            Command::from(operation).execute(staged, Expiry::now());
        }
    });
    let correction = map.correct(&late, &wanted);
    let disk = Map::unlimited();
    decided_in_time(&disk);
    disk.apply_anyway(late);
    disk.apply(correction).unwrap();
    map.apply(wanted).unwrap();
    let all = |map: &Map| -> Vec<(Entry, Revision)> {
        let contents = map.read();
        let entries = contents.entries.from(Bound::Unbounded);
        entries.map(|it| (it.clone(), it.revision())).collect()
    };
    assert_eq!(all(&map), all(&disk));
    assert_eq!(all(&map).len(), 4);
}

#[test]
fn keys_with_a_prefix_are_counted() {
    let map = Map::unlimited();
    for n in 0..3000 {
        put(&map, &format!("k{n:04}"), "v");
    }
    put(&map, "k", "v");
    put(&map, "l", "v");
    put_until(&map, "k05", "v", Some(Expiry::at_millis(1)));
    for prefix in [
        "", "k", "k0", "k1", "k05", "k2999", "k3", "j", "l", "m", "k\u{7f}",
    ] {
        let entries = all_live(&map);
        let found = entries.iter().filter(|it| it.key().starts_with(prefix));
        assert_eq!(map.count(prefix), found.count(), "{prefix}");
    }
}

#[test]
fn a_commit_has_one_revision_and_the_next_a_larger_one() {
    let map = Map::at(1000, 0, Arc::new(Budget::new(u64::MAX)));
    let bulk = ["a", "b"].map(|it| (Operation::Put(Entry::of(it, "1")), None));
    let committed = map.execute(Command::Bulk(bulk.into())).unwrap();
    assert_eq!(committed.revision, 1001);
    let delete = Operation::Delete { key: key("c") };
    assert_eq!(map.execute(delete.into()).unwrap().revision, 1001);
    let (entries, revision) = map.get_all(&["a", "b", "c"].map(key));
    let revisions = entries.iter().flatten().map(Entry::revision);
    assert!(revisions.eq([1001, 1001]));
    assert_eq!((revision, map.revision()), (1001, 1001));
    assert_eq!(map.execute(Command::Clear).unwrap().revision, 1002);
    assert_eq!(map.execute(Command::Clear).unwrap().revision, 1002);
    // A clock that is set back has no say.
    map.load(
        Entries::default(),
        Counter {
            last: 2000,
            least: 1500,
        },
        History::default(),
    );
    assert_eq!(map.revision(), 2000);
    put(&map, "a", "1");
    assert_eq!(map.revision(), 2001);
}
