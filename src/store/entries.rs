//! The entries of a store, and the orders in which they can be found: by key, by byte order, by deadline.

use std::collections::hash_map::{self, HashMap};
use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;

use super::{Entry, Expiry, Key};

/// Keys and their entries. Everything in here is kept in step by [`Entries::insert`] and [`Entries::remove`].
#[derive(Default)]
pub(super) struct Entries {
    entries: HashMap<Key, Entry>,
    /// All keys, in byte order, so that a listing can go on where it was.
    keys: BTreeSet<Key>,
    /// The keys that expire, soonest first.
    deadlines: BTreeSet<(Expiry, Key)>,
    /// Bytes of all keys and values.
    bytes: usize,
}

impl Entries {
    /// The entry of a key; also one that has expired.
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Sets a key's entry, and returns the one that it had.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        self.bytes += entry.value.as_str().len();
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(mut slot) => {
                let expiry = entry.expiry;
                let old = slot.insert(entry);
                self.bytes -= old.value.as_str().len();
                if old.expiry != expiry {
                    let key = slot.key();
                    if let Some(expiry) = old.expiry {
                        self.deadlines.remove(&(expiry, key.clone()));
                    }
                    self.deadlines
                        .extend(expiry.map(|expiry| (expiry, key.clone())));
                }
                Some(old)
            }
            hash_map::Entry::Vacant(slot) => {
                let key = slot.key();
                self.bytes += key.as_str().len();
                self.keys.insert(key.clone());
                self.deadlines
                    .extend(entry.expiry.map(|expiry| (expiry, key.clone())));
                slot.insert(entry);
                None
            }
        }
    }

    /// Removes a key, and returns the entry that it had.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let (key, old) = self.entries.remove_entry(key)?;
        self.bytes -= key.as_str().len() + old.value.as_str().len();
        self.keys.remove(&key);
        if let Some(expiry) = old.expiry {
            self.deadlines.remove(&(expiry, key));
        }
        Some(old)
    }

    /// How many there are that have not expired, and the bytes of their keys and values.
    pub(super) fn live(&self) -> (usize, usize) {
        let bytes = |key: &Key| key.as_str().len() + self.entries[key].value.as_str().len();
        let (keys, expired) = self
            .expired()
            .fold((0, 0), |(keys, sum), key| (keys + 1, sum + bytes(key)));
        (self.len() - keys, self.bytes - expired)
    }

    /// How many there are, those that have expired and are still here included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those of which the deadline has come, soonest first.
    pub(super) fn expired(&self) -> impl Iterator<Item = &Key> {
        let now = Expiry::now();
        let deadlines = self.deadlines.iter();
        deadlines
            .take_while(move |(expiry, _)| *expiry <= now)
            .map(|(_, key)| key)
    }

    /// Keys in byte order, from a bound on.
    pub(super) fn keys_from<'a>(&'a self, from: Bound<&'a str>) -> btree_set::Range<'a, Key> {
        self.keys.range::<str, _>((from, Bound::Unbounded))
    }
}

/// From entries that are in the order of their keys, as they are on disk, this makes full nodes of a tree, which take
/// half the space of those that grow.
impl FromIterator<(Key, Entry)> for Entries {
    fn from_iter<I: IntoIterator<Item = (Key, Entry)>>(entries: I) -> Entries {
        let mut made = Entries::default();
        let (mut keys, mut deadlines) = (Vec::new(), Vec::new());
        for (key, entry) in entries {
            made.bytes += key.as_str().len() + entry.value.as_str().len();
            keys.push(key.clone());
            deadlines.extend(entry.expiry.map(|expiry| (expiry, key.clone())));
            made.entries.insert(key, entry);
        }
        made.keys = keys.into_iter().collect();
        made.deadlines = deadlines.into_iter().collect();
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn entry(text: &str, expiry: Option<u64>) -> Entry {
        Entry {
            value: Value::text(text),
            expiry: expiry.map(Expiry::at_millis),
        }
    }

    /// What the indexes and totals should be, made anew.
    fn assert_in_step(entries: &Entries) {
        let keys: BTreeSet<Key> = entries.entries.keys().cloned().collect();
        assert_eq!(entries.keys, keys);
        let deadline = |(key, entry): (&Key, &Entry)| Some((entry.expiry?, key.clone()));
        let deadlines: BTreeSet<_> = entries.entries.iter().filter_map(deadline).collect();
        assert_eq!(entries.deadlines, deadlines);
        let size = |(key, entry): (&Key, &Entry)| key.as_str().len() + entry.value.as_str().len();
        assert_eq!(
            entries.bytes,
            entries.entries.iter().map(size).sum::<usize>()
        );
    }

    #[test]
    fn the_indexes_stay_in_step() {
        let mut entries = Entries::default();
        // Every way from no entry, one that never expires and two that do, to each of them.
        let states = [None, Some(None), Some(Some(5)), Some(Some(7))];
        for from in states {
            for to in states {
                entries.insert(key("other"), entry("text", Some(6)));
                for (n, state) in [from, to].into_iter().enumerate() {
                    match state {
                        Some(expiry) => entries.insert(key("a"), entry(&"v".repeat(n), expiry)),
                        None => entries.remove(&key("a")),
                    };
                    assert_in_step(&entries);
                }
                assert_eq!(entries.len(), 1 + usize::from(to.is_some()));
            }
        }
        assert_in_step(&Entries::from_iter([
            (key("a"), entry("1", None)),
            (key("b"), entry("2", Some(3))),
        ]));
    }

    #[test]
    fn expired_ones_come_soonest_first() {
        let mut entries = Entries::default();
        entries.insert(key("late"), entry("v", Some(u64::MAX)));
        entries.insert(key("a"), entry("v", Some(3)));
        entries.insert(key("b"), entry("v", Some(2)));
        entries.insert(key("never"), entry("v", None));
        assert!(entries.expired().eq([&key("b"), &key("a")]));
    }

    #[test]
    fn keys_come_in_byte_order() {
        let entries: Entries = ["b", "a", "B", "a.", "a0"]
            .map(|text| (key(text), entry("v", None)))
            .into_iter()
            .collect();
        let from = |bound| {
            let keys = entries.keys_from(bound).map(Key::as_str);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(from(Bound::Unbounded), ["B", "a", "a.", "a0", "b"]);
        assert_eq!(from(Bound::Excluded("a")), ["a.", "a0", "b"]);
        assert_eq!(from(Bound::Included("a-not-there")), ["a.", "a0", "b"]);
    }
}
