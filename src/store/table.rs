//! Finds entries by the hash of their key: a hash table in so many parts that none ever has to grow by much at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::slots::{Slot, Slots};

/// How many parts there are. A table that is full is copied to one of twice its size, while everybody waits. Of ten
/// million entries a part has a few thousand, which takes half a millisecond.
const PARTS: usize = 4096;

/// A part that is so much emptier than it could be gives back what it does not need.
const SPARSE: usize = 8;

/// The numbers of entries by their keys.
pub(super) struct Table {
    /// Keyed, so that nobody can choose keys that collide.
    hasher: RandomState,
    parts: Box<[HashTable<Slot>]>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
        }
    }
}

impl Table {
    /// The hash of a key, for the other methods.
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The number of the entry of a key.
    pub(super) fn find(&self, hash: u64, key: &str, slots: &Slots) -> Option<Slot> {
        let part = &self.parts[part_of(hash)];
        part.find(hash, |slot| slots.key(*slot) == key).copied()
    }

    /// Adds an entry with a key that is not there.
    pub(super) fn insert(&mut self, hash: u64, slot: Slot, slots: &Slots) {
        let hasher = |slot: &Slot| self.hasher.hash_one(slots.key(*slot));
        self.parts[part_of(hash)].insert_unique(hash, slot, hasher);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, hash: u64, slot: Slot, slots: &Slots) {
        let part = &mut self.parts[part_of(hash)];
        if let Ok(found) = part.find_entry(hash, |it| *it == slot) {
            found.remove();
            if part.len() * SPARSE < part.capacity() {
                let hasher = |slot: &Slot| self.hasher.hash_one(slots.key(*slot));
                part.shrink_to(2 * part.len(), hasher);
            }
        }
    }

    /// Gives an entry another number.
    pub(super) fn renumber(&mut self, hash: u64, from: Slot, to: Slot) {
        let part = &mut self.parts[part_of(hash)];
        if let Some(slot) = part.find_mut(hash, |it| *it == from) {
            *slot = to;
        }
    }

    /// Makes a table of all entries.
    pub(super) fn of(slots: &Slots) -> Table {
        let mut table = Table::default();
        // As many as the first part has, and half as many as the last.
        let fewest = slots.len() / PARTS * 2 / 3;
        for part in &mut table.parts {
            part.reserve(fewest, |_| 0); // there is none yet to be hashed
        }
        for slot in 0..slots.len() as Slot {
            let hash = table.hash(slots.key(slot));
            table.insert(hash, slot, slots);
        }
        table
    }
}

/// The part that a hash belongs to. Within a part, its lowest and its highest bits count.
///
/// The last part gets twice as many as the first one, and those between them according to their place, so that they are
/// full one after the other, and not all at about the same time.
fn part_of(hash: u64) -> usize {
    let even = hash >> 20 & u64::from(u32::MAX);
    let rest = u64::from(u32::MAX) - even;
    // About the logarithm of 1 to 2, as a fraction of 2^32.
    let skewed = even + (even * rest >> 32) * 88 / 256;
    (skewed * PARTS as u64 >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;

    #[test]
    fn entries_are_found_by_their_keys_and_parts_shrink_with_them() {
        let mut slots = Slots::default();
        for n in 0..100_000 {
            slots.push(Entry::of(&n.to_string(), "v"));
        }
        let mut table = Table::of(&slots);
        let find = |table: &Table, key: &str| table.find(table.hash(key), key, &slots);
        assert_eq!(find(&table, "77"), Some(77));
        assert_eq!(find(&table, "100000"), None);
        table.renumber(table.hash("77"), 77, 78);
        assert_eq!(find(&table, "77"), None);
        table.renumber(table.hash("77"), 78, 77);
        for slot in 0..100_000 {
            let key = slots.key(slot);
            assert_eq!(find(&table, key), Some(slot));
            table.remove(table.hash(key), slot, &slots);
            assert_eq!(find(&table, key), None);
        }
        let left: usize = table.parts.iter().map(HashTable::capacity).sum();
        assert!(left < 100_000 / SPARSE, "{left}");
    }
}
