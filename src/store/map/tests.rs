use super::*;
use crate::store::removed::FREE_ELSEWHERE;
use crate::store::{Expiry, Operation};

fn key(text: &str) -> Key {
    Key::try_from(text.as_bytes()).unwrap()
}

fn execute(map: &Map, command: Command) -> Outcome {
    map.execute(command).unwrap()
}

fn put(map: &Map, name: &str, value: &str) -> Outcome {
    put_until(map, name, value, None)
}

fn put_until(map: &Map, name: &str, value: &str, expiry: Option<Expiry>) -> Outcome {
    let entry = Entry::of(name, value).with_expiry(expiry);
    execute(map, Command::One(Operation::Put(entry)))
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
        execute(&map, Command::One(Operation::Delete { key: key("a") })),
        Outcome::Done
    );
    assert_eq!(
        execute(&map, Command::One(Operation::Delete { key: key("a") })),
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
    assert_eq!(map.get_all(&[key("k1"), key("a")])[0], None);
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
        Command::One(Operation::Put(Entry::of("b", "2"))).execute(staged, Expiry::now())
    });
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(text(&map, "a").as_deref(), Some("1"));
    assert_eq!(map.get(&key("b")), None);
    map.apply(changes);
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

#[test]
fn a_touch_that_is_applied_behind_the_deadline_has_no_effect() {
    let map = Map::unlimited();
    let past = Some(Expiry::at_millis(1000));
    put_until(&map, "late", "1", past);
    put_until(&map, "put:again", "1", past);
    put_until(&map, "in:time", "1", Some(Expiry::at_millis(u64::MAX - 1)));
    let touch = |name| {
        let expiry = Expiry::at_millis(u64::MAX);
        let key = key(name);
        Command::One(Operation::Touch { key, expiry })
    };
    // Decided before the deadline.
    let then = Expiry::at_millis(999);
    let ((), changes) = map.stage(|staged| {
        for name in ["late", "put:again", "in:time"] {
            assert_eq!(touch(name).execute(staged, then), Outcome::Done);
        }
        Command::One(Operation::Put(Entry::of("put:again", "2"))).execute(staged, then);
    });
    let late = map.apply(changes);
    assert!(late.iter().map(Entry::key).eq(["late", "put:again"]));
    assert_eq!(text(&map, "late"), None);
    assert_eq!(text(&map, "put:again").as_deref(), Some("2"));
    let touched = map.get(&key("in:time")).unwrap();
    assert_eq!(touched.expiry, Some(Expiry::at_millis(u64::MAX)));
}
