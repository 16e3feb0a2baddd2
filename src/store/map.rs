//! The map that serves every read: `RwLock<HashMap>`.
//!
//! Under the lock only pointers move: a read clones one, a write swaps one. Text is formatted, and big things are
//! freed, after the lock was given back.

use std::mem;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use super::entries::Entries;
use super::state::{Changes, Staged, State};
use super::{Command, Entry, Key, Outcome};

/// From so many entries on, what a clear removed is freed on a thread of its own: freeing takes about 0.1 µs an entry,
/// so less than this holds nobody up for long.
const FREE_ELSEWHERE: usize = 10_000;

/// How many keys are looked at under one taking of the lock, where there may be many: some tens of microseconds.
const STEP: usize = 256;

/// Keys and their entries.
#[derive(Default)]
pub(super) struct Map {
    /// Held for one lookup or one batch of changes, and never while anything waits. No other lock is taken under it.
    entries: RwLock<Entries>,
}

impl Map {
    /// An empty map.
    pub(super) fn new() -> Map {
        Map::default()
    }

    /// The entry of a key, if it has one.
    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        let entry = self.read().get(key).cloned();
        entry.filter(Entry::is_live)
    }

    /// The entries of several keys, as they are at one moment.
    pub(super) fn get_all(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        let entries = self.read();
        let entries: Vec<_> = keys.iter().map(|key| entries.get(key).cloned()).collect();
        entries
            .into_iter()
            .map(|entry| entry.filter(Entry::is_live))
            .collect()
    }

    /// The next keys that begin with `prefix`, in byte order, and their entries; and where to go on, if there may be more.
    /// No more than `most`, and no more than are to be had in one short look.
    pub(super) fn page(&self, prefix: &str, from: Bound<&str>, most: usize) -> Page {
        let from = match from {
            Bound::Included(key) | Bound::Excluded(key) if key >= prefix => from,
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let entries = self.read();
        let mut keys = entries.keys_from(from);
        for _ in 0..STEP.min(most) {
            let Some(key) = keys.next().filter(|key| key.as_str().starts_with(prefix)) else {
                page.next = None;
                break;
            };
            let entry = entries.get(key).cloned();
            page.entries.extend(entry.map(|entry| (key.clone(), entry)));
            page.next = Some(key.clone());
        }
        drop(keys);
        drop(entries);
        page.entries.retain(|(_, entry)| entry.is_live());
        page
    }

    /// How many bytes the value of a key has; 0 without one.
    pub(super) fn value_bytes(&self, key: &Key) -> usize {
        let entries = self.read();
        entries
            .get(key)
            .map_or(0, |entry| entry.value.as_str().len())
    }

    /// How many keys there are, without those that have expired. Of the latter the sweeper has usually left next to none;
    /// a million of them take some milliseconds to count.
    pub(super) fn len(&self) -> usize {
        let entries = self.read();
        entries.len() - entries.expired().count()
    }

    /// How many bytes keys and values hold.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes()
    }

    /// Whether there is anything for a sweep to remove.
    pub(super) fn has_expired(&self) -> bool {
        self.read().expired().next().is_some()
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

/// A part of a listing.
#[derive(Default)]
pub(super) struct Page {
    pub(super) entries: Vec<(Key, Entry)>,
    /// The last key that was looked at, if there may be more behind it.
    pub(super) next: Option<Key>,
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

    fn expired(&self, most: usize) -> Vec<Key> {
        let expired = self.entries.expired();
        expired.take(most).cloned().collect()
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
    use crate::store::{Expiry, Operation, Value};

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn put(map: &Map, name: &str, value: &str) -> Outcome {
        put_until(map, name, value, None)
    }

    fn put_until(map: &Map, name: &str, value: &str, expiry: Option<Expiry>) -> Outcome {
        map.execute(Command::One(Operation::Put {
            key: key(name),
            value: Value::text(value),
            expiry,
        }))
    }

    fn text(map: &Map, name: &str) -> Option<String> {
        Some(map.get(&key(name))?.value.as_str().to_owned())
    }

    #[test]
    fn the_last_put_counts() {
        let map = Map::new();
        assert_eq!(map.get(&key("a")), None);
        assert_eq!(put(&map, "a", "1"), Outcome::Done);
        assert_eq!(put(&map, "a", "2"), Outcome::Done);
        assert_eq!(text(&map, "a").as_deref(), Some("2"));
    }

    #[test]
    fn a_delete_says_whether_the_key_was_there() {
        let map = Map::new();
        put(&map, "a", "1");
        assert_eq!(
            map.execute(Command::One(Operation::Delete { key: key("a") })),
            Outcome::Done
        );
        assert_eq!(
            map.execute(Command::One(Operation::Delete { key: key("a") })),
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
            assert_eq!((map.read().len(), map.len(), map.bytes()), (0, 0, 0));
        }
    }

    #[test]
    fn a_value_that_was_read_outlives_its_key() {
        let map = Map::new();
        put(&map, "a", "1");
        let read = map.get(&key("a"));
        map.execute(Command::Clear);
        assert_eq!(read.unwrap().value, Value::text("1"));
    }

    #[test]
    fn an_expired_key_is_gone_for_readers_and_swept_in_steps() {
        let map = Map::new();
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
        while map.has_expired() {
            match map.execute(Command::Sweep) {
                Outcome::Swept(keys) if (1..1000).contains(&keys) => swept += keys,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((swept, map.read().len(), map.bytes()), (1000, 1, 2));
    }

    #[test]
    fn pages_hold_every_key_with_the_prefix_once() {
        let map = Map::new();
        for n in 0..1000 {
            put(&map, &format!("k{n:03}"), "v");
            put(&map, &format!("l{n:03}"), "v");
        }
        for most in [1, 7, STEP, 5000] {
            let (mut listed, mut next) = (Vec::new(), None::<Key>);
            loop {
                let from = next
                    .as_ref()
                    .map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
                let page = map.page("k", from, most);
                assert!(page.entries.len() <= most);
                listed.extend(
                    page.entries
                        .into_iter()
                        .map(|(key, _)| key.as_str().to_owned()),
                );
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            let expected: Vec<String> = (0..1000).map(|n| format!("k{n:03}")).collect();
            assert!(listed == expected, "{most} at once");
        }
        let after = |key| {
            map.page("k", Bound::Excluded(key), 1)
                .entries
                .first()
                .map(|it| it.0.clone())
        };
        assert_eq!(after("k5"), Some(key("k500")));
        assert_eq!(after("a"), Some(key("k000")));
        assert_eq!(after("k999"), None);
        assert_eq!(after("z"), None);
    }

    #[test]
    fn staged_changes_show_when_they_are_applied_and_not_before() {
        let map = Map::new();
        put(&map, "a", "1");
        let (outcome, changes) = map.stage(|staged| {
            Command::Clear.execute(staged);
            let value = Value::text("2");
            Command::One(Operation::Put {
                key: key("b"),
                value,
                expiry: None,
            })
            .execute(staged)
        });
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(text(&map, "a").as_deref(), Some("1"));
        assert_eq!(map.get(&key("b")), None);
        map.apply(changes);
        assert_eq!(map.get(&key("a")), None);
        assert_eq!(text(&map, "b").as_deref(), Some("2"));
    }
}
