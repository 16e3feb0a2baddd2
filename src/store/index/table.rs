//! Finds entries by their keys: `HashMap`s, so many of them that none ever has to grow by much at once.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;

use xxhash_rust::xxh3::xxh3_64;

use super::slots::{Slot, Slots};
use crate::store::entry::Record;

/// How many parts there are. A map that is full is copied to one of twice its size, while everybody waits. Of ten
/// million entries a part has a few thousand, which takes half a millisecond.
const PARTS: usize = 4096;

/// A part that is so much emptier than it could be gives back what it does not need.
const SPARSE: usize = 8;

/// The numbers of entries by their keys.
pub(super) struct Table {
    parts: Box<[HashMap<Record, Slot>]>,
}

impl Default for Table {
    fn default() -> Table {
        // Keyed, so that nobody can choose keys that collide. Whoever chooses them all for one part makes that grow, no more.
        let hasher = RandomState::new();
        let part = || HashMap::with_hasher(hasher.clone());
        Table {
            parts: (0..PARTS).map(|_| part()).collect(),
        }
    }
}

impl Table {
    /// The number of the entry of a key.
    pub(super) fn find(&self, key: &str) -> Option<Slot> {
        self.parts[part_of(key)].get(key).copied()
    }

    /// Adds the number of an entry, which must not be there.
    pub(super) fn insert(&mut self, record: &Record, slot: Slot) {
        self.parts[part_of(record.key())].insert(record.clone(), slot);
    }

    /// Has the number of a key's entry belong to another record of that key from now on, and returns it.
    pub(super) fn replace(&mut self, record: &Record) -> Option<Slot> {
        let part = &mut self.parts[part_of(record.key())];
        let slot = part.remove(record.key())?;
        part.insert(record.clone(), slot);
        Some(slot)
    }

    /// Removes the number of a key's entry, and returns it.
    pub(super) fn remove(&mut self, key: &str) -> Option<Slot> {
        let part = &mut self.parts[part_of(key)];
        let slot = part.remove(key)?;
        if part.len() * SPARSE < part.capacity() {
            part.shrink_to(2 * part.len());
        }
        Some(slot)
    }

    /// Gives a key's entry another number.
    pub(super) fn renumber(&mut self, key: &str, to: Slot) {
        if let Some(slot) = self.parts[part_of(key)].get_mut(key) {
            *slot = to;
        }
    }

    /// Its parts, to be freed one after the other.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = HashMap<Record, Slot>> {
        self.parts.into_iter()
    }

    /// About how many bytes a part takes.
    pub(super) fn piece_bytes(part: &HashMap<Record, Slot>) -> usize {
        part.capacity() * size_of::<(Record, Slot)>()
    }

    /// Makes a table of all entries.
    pub(super) fn of(slots: &Slots) -> Table {
        let mut table = Table::default();
        // As many as the first part has, and half as many as the last.
        let fewest = slots.len() / PARTS * 2 / 3;
        for part in &mut table.parts {
            part.reserve(fewest);
        }
        for slot in 0..slots.len() as Slot {
            table.insert(slots[slot].record(), slot);
        }
        table
    }
}

/// The part that a key belongs to.
///
/// The last part gets twice as many as the first one, and those between them according to their place, so that they are
/// full one after the other, and not all at about the same time.
fn part_of(key: &str) -> usize {
    let even = xxh3_64(key.as_bytes()) >> 32;
    let rest = u64::from(u32::MAX) - even;
    // About the logarithm of 1 to 2, as a fraction of 2^32.
    let skewed = even + ((even * rest) >> 32) * 88 / 256;
    ((skewed * PARTS as u64) >> 32) as usize
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
        assert_eq!(table.find("77"), Some(77));
        assert_eq!(table.find("100000"), None);
        table.renumber("77", 78);
        assert_eq!(table.find("77"), Some(78));
        table.renumber("77", 77);
        let other = Entry::of("77", "w");
        assert_eq!(table.replace(other.record()), Some(77));
        assert_eq!(table.replace(Entry::of("x", "w").record()), None);
        for slot in 0..100_000 {
            let key = slots.key(slot);
            assert_eq!(table.find(key), Some(slot));
            assert_eq!(table.remove(key), Some(slot));
            assert_eq!(table.find(key), None);
        }
        assert_eq!(table.remove("0"), None);
        let left: usize = table.parts.iter().map(HashMap::capacity).sum();
        assert!(left < 100_000 / SPARSE, "{left}");
    }
}
