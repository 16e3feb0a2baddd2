//! Where entries are kept: a list without gaps, in which each has a number of four bytes. The indexes hold these numbers,
//! which takes them half the space of pointers, and lets an entry be replaced without any index being told.

use std::mem;
use std::ops::Index;

use crate::store::Entry;

/// The number of an entry, until it is removed, or moved to where another was removed.
pub(super) type Slot = u32;

/// Entries that are allocated at once, 96 KiB of them. They are never moved to make room for more, which would take long
/// where there are many.
const CHUNK: usize = 4096;

/// Entries by their numbers, which are those below [`Slots::len`].
#[derive(Default)]
pub(super) struct Slots {
    /// All are full but the last, and none is empty.
    chunks: Vec<Vec<Entry>>,
}

impl Slots {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        let last = self.chunks.last();
        last.map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// The key of an entry.
    pub(super) fn key(&self, slot: Slot) -> &str {
        self[slot].key()
    }

    /// Adds an entry, and returns its number.
    pub(super) fn push(&mut self, entry: Entry) -> Slot {
        let len = self.len();
        // Four billion of the smallest entries take half a terabyte.
        assert!(len < Slot::MAX as usize, "too many entries");
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(entry);
                self.chunks.push(chunk);
            }
        }
        len as Slot
    }

    /// All entries, to be freed one after the other.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Entry> {
        self.chunks.into_iter().flatten()
    }

    /// Puts another entry in the place of one, and returns that.
    pub(super) fn replace(&mut self, slot: Slot, entry: Entry) -> Entry {
        let slot = slot as usize;
        mem::replace(&mut self.chunks[slot / CHUNK][slot % CHUNK], entry)
    }

    /// Removes an entry, and returns it. The last one takes its place.
    pub(super) fn swap_remove(&mut self, slot: Slot) -> Option<Entry> {
        let last = self.len().checked_sub(1)?;
        let chunk = self.chunks.last_mut()?;
        let entry = chunk.pop()?;
        if chunk.is_empty() {
            self.chunks.pop();
        }
        Some(if slot as usize == last {
            entry
        } else {
            self.replace(slot, entry)
        })
    }
}

impl Index<Slot> for Slots {
    type Output = Entry;

    fn index(&self, slot: Slot) -> &Entry {
        let slot = slot as usize;
        &self.chunks[slot / CHUNK][slot % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps_and_what_is_removed_leaves_no_space() {
        let mut slots = Slots::default();
        let entries = 2 * CHUNK + 2;
        for n in 0..entries {
            let pushed = slots.push(Entry::of(&n.to_string(), "v"));
            assert_eq!((pushed as usize, slots.len()), (n, n + 1));
        }
        for last in (0..entries).rev() {
            let first = slots[0].clone();
            let expected = slots[last as Slot].clone();
            assert_eq!(slots.swap_remove(0), Some(first));
            assert_eq!(slots.len(), last);
            assert_eq!(slots.chunks.len(), last.div_ceil(CHUNK));
            if last > 0 {
                assert_eq!(slots[0], expected);
            }
        }
        assert_eq!(slots.swap_remove(0), None);
    }
}
