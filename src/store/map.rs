//! The map that serves every read: `RwLock<HashMap>`.
//!
//! Under the lock only pointers move: a read clones one, a write swaps one. Text is formatted, and big things are
//! freed, after the lock was given back.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use super::{Command, Key, Outcome, Value};

/// From so many entries on, what `Clear` removed is freed on a thread of its own: freeing takes about 0.1 µs an entry,
/// so less than this holds nobody up for long.
const FREE_ELSEWHERE: usize = 10_000;

type Entries = HashMap<Key, Value>;

/// Keys and their values.
#[derive(Default)]
pub struct Map {
    /// Held for one lookup or one change, and never while anything waits. No other lock is taken under it.
    entries: RwLock<Entries>,
}

impl Map {
    /// An empty map.
    pub fn new() -> Map {
        Map::default()
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.read().get(key).cloned()
    }

    /// Carries out a command, in one step for all readers.
    pub fn apply(&self, command: Command) -> Outcome {
        // What a command replaces or removes is handed out of the locked part, to be freed after it.
        match command {
            Command::Put { key, value } => {
                let _replaced = self.write().insert(key, value);
                Outcome::Done
            }
            Command::Delete { key } => {
                let removed = self.write().remove(&key);
                if removed.is_some() {
                    Outcome::Done
                } else {
                    Outcome::NotFound
                }
            }
            Command::Clear => {
                let removed = std::mem::take(&mut *self.write());
                if removed.len() >= FREE_ELSEWHERE {
                    // Without a thread to be had, the closure is dropped, and with it the entries, right here.
                    let _ = thread::Builder::new()
                        .name("reclaim".into())
                        .spawn(move || drop(removed));
                }
                Outcome::Done
            }
        }
    }

    // A poisoned lock is taken all the same: no code under it can panic half way through a change.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn put(map: &Map, name: &str, value: &str) -> Outcome {
        map.apply(Command::Put {
            key: key(name),
            value: Value::text(value),
        })
    }

    #[test]
    fn the_last_put_counts() {
        let map = Map::new();
        assert_eq!(map.get(&key("a")), None);
        assert_eq!(put(&map, "a", "1"), Outcome::Done);
        assert_eq!(put(&map, "a", "2"), Outcome::Done);
        assert_eq!(map.get(&key("a")), Some(Value::text("2")));
    }

    #[test]
    fn a_delete_says_whether_the_key_was_there() {
        let map = Map::new();
        put(&map, "a", "1");
        assert_eq!(map.apply(Command::Delete { key: key("a") }), Outcome::Done);
        assert_eq!(
            map.apply(Command::Delete { key: key("a") }),
            Outcome::NotFound
        );
        assert_eq!(map.get(&key("a")), None);
    }

    #[test]
    fn clear_removes_every_key_of_a_small_map_and_of_a_large_one() {
        for entries in [3, FREE_ELSEWHERE + 1] {
            let map = Map::new();
            for n in 0..entries {
                put(&map, &format!("k{n}"), "v");
            }
            assert_eq!(map.apply(Command::Clear), Outcome::Done);
            assert!(map.read().is_empty());
        }
    }

    #[test]
    fn a_value_that_was_read_outlives_its_key() {
        let map = Map::new();
        put(&map, "a", "1");
        let read = map.get(&key("a"));
        map.apply(Command::Clear);
        assert_eq!(read, Some(Value::text("1")));
    }
}
