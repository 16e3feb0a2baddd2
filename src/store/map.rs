//! The map that serves every read: `RwLock<HashMap>`.
//!
//! Under the lock only pointers move: a read clones one, a write swaps one. Text is formatted, and big things are
//! freed, after the lock was given back.

use std::mem;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use super::state::{Changes, Entries, Staged, State};
use super::{Command, Entry, Key, Outcome, Value};

/// From so many entries on, what a clear removed is freed on a thread of its own: freeing takes about 0.1 µs an entry,
/// so less than this holds nobody up for long.
const FREE_ELSEWHERE: usize = 10_000;

/// Keys and their entries.
#[derive(Default)]
pub struct Map {
    /// Held for one lookup or one batch of changes, and never while anything waits. No other lock is taken under it.
    entries: RwLock<Entries>,
}

impl Map {
    /// An empty map.
    pub fn new() -> Map {
        Map::default()
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &Key) -> Option<Value> {
        let entry = self.read().get(key).cloned();
        entry.filter(Entry::is_live).map(|entry| entry.value)
    }

    /// Carries out a command, in one step for all readers.
    pub(super) fn execute(&self, command: Command) -> Outcome {
        let mut locked = Locked {
            entries: self.write(),
            removed: Removed::default(),
        };
        let outcome = command.execute(&mut locked);
        let Locked { entries, removed } = locked;
        drop(entries);
        removed.free();
        outcome
    }

    /// Carries out commands without letting anybody see it: what they amount to is for [`Map::apply`], once it has been
    /// committed. `commands` must be the only thing that changes the map until then.
    pub(super) fn stage<T>(&self, commands: impl FnOnce(&mut Staged<'_>) -> T) -> (T, Changes) {
        let entries = self.read();
        let mut staged = Staged::on(&entries);
        let result = commands(&mut staged);
        (result, staged.into_changes())
    }

    /// Makes changes visible, in one step for all readers.
    pub(super) fn apply(&self, changes: Changes) {
        let mut removed = Removed::default();
        let mut entries = self.write();
        if changes.cleared {
            removed.all = mem::take(&mut *entries);
        }
        for (key, change) in changes.entries {
            let gone = match change {
                Some(entry) => entries.insert(key, entry),
                None => entries.remove(&key),
            };
            removed.some.extend(gone);
        }
        drop(entries);
        removed.free();
    }

    /// Replaces everything, as a store is loaded.
    pub(super) fn load(&self, loaded: Entries) {
        *self.write() = loaded;
    }

    // A poisoned lock is taken all the same: no code under it can panic half way through a change.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries under their lock, for a command that takes effect at once.
struct Locked<'a> {
    entries: RwLockWriteGuard<'a, Entries>,
    removed: Removed,
}

impl State for Locked<'_> {
    fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    fn set(&mut self, key: Key, entry: Entry) {
        self.removed.some.extend(self.entries.insert(key, entry));
    }

    fn remove(&mut self, key: Key) {
        self.removed.some.extend(self.entries.remove(&key));
    }

    fn clear(&mut self) {
        self.removed.all = mem::take(&mut *self.entries);
    }
}

/// What changes have removed, kept until the lock has been given back.
#[derive(Default)]
struct Removed {
    some: Vec<Entry>,
    all: Entries,
}

impl Removed {
    fn free(self) {
        if self.all.len() >= FREE_ELSEWHERE {
            // Without a thread to be had, the closure is dropped, and with it the entries, right here.
            let _ = thread::Builder::new()
                .name("reclaim".into())
                .spawn(move || drop(self));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expiry;

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn put(map: &Map, name: &str, value: &str) -> Outcome {
        map.execute(Command::Put {
            key: key(name),
            value: Value::text(value),
            expiry: None,
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
        assert_eq!(
            map.execute(Command::Delete { key: key("a") }),
            Outcome::Done
        );
        assert_eq!(
            map.execute(Command::Delete { key: key("a") }),
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
            assert_eq!(map.execute(Command::Clear), Outcome::Done);
            assert!(map.read().is_empty());
        }
    }

    #[test]
    fn a_value_that_was_read_outlives_its_key() {
        let map = Map::new();
        put(&map, "a", "1");
        let read = map.get(&key("a"));
        map.execute(Command::Clear);
        assert_eq!(read, Some(Value::text("1")));
    }

    #[test]
    fn an_expired_key_is_gone_for_readers() {
        let map = Map::new();
        let value = Value::text("1");
        map.execute(Command::Put {
            key: key("a"),
            value,
            expiry: Some(Expiry::at_millis(1)),
        });
        assert_eq!(map.get(&key("a")), None);
    }

    #[test]
    fn staged_changes_show_when_they_are_applied_and_not_before() {
        let map = Map::new();
        put(&map, "a", "1");
        let (outcome, changes) = map.stage(|staged| {
            Command::Clear.execute(staged);
            let value = Value::text("2");
            Command::Put {
                key: key("b"),
                value,
                expiry: None,
            }
            .execute(staged)
        });
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(map.get(&key("a")), Some(Value::text("1")));
        assert_eq!(map.get(&key("b")), None);
        map.apply(changes);
        assert_eq!(map.get(&key("a")), None);
        assert_eq!(map.get(&key("b")), Some(Value::text("2")));
    }
}
