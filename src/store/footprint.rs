//! How much memory an entry takes, which is more than its key and its value hold.
//!
//! ```text
//! bytes  for
//!   n    the block: two words of the shared pointer, two bytes of the record's head, key, value. The allocator adds a word and
//!        rounds up to 16, and makes nothing smaller than 32
//!  24    the slot: a pointer to the block, the expiry, and the revision
//!  28    the table: 17 in each place of the hash map, of which about six in ten are taken
//!  12    the order: 8 in each place of a run, of which about three in four are taken, and the run itself
//!  35    the deadline, if it expires: 16 in each place of a tree, of which about six in eleven are taken
//! ```
//!
//! The parts that are averages depend on the order in which keys come and on their number. The whole is within 15 % of what the
//! resident size grows by: `tests/it/footprint.rs` measures it. What is kept for a while after it was removed is not data:
//! what a snapshot has yet to write and what is being freed is held ([`crate::budget::Budget::hold`]); what somebody still reads, and
//! what the allocator has not given back, is not counted.

use super::Entry;

/// The allocator puts a word in front of each block and rounds up.
const ALLOCATOR_WORD: u64 = 8;
const ALLOCATOR_STEP: u64 = 16;
const SMALLEST_BLOCK: u64 = 32;

/// Length and reference count, in front of the text.
const SHARED_POINTER: u64 = 16;

/// Slot, table and order.
const INDEXES: u64 = 24 + 28 + 12;

/// The place of an entry among the deadlines.
const DEADLINE: u64 = 35;

impl Entry {
    /// How many bytes of memory it takes in a store.
    pub(super) fn footprint(&self) -> u64 {
        let deadline = self.expiry.map_or(0, |_| DEADLINE);
        self.footprint_without_deadline() + deadline
    }

    /// The same as if it never expired.
    pub(super) fn footprint_without_deadline(&self) -> u64 {
        let block = SHARED_POINTER + self.record_bytes() as u64 + ALLOCATOR_WORD;
        block.next_multiple_of(ALLOCATOR_STEP).max(SMALLEST_BLOCK) + INDEXES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expiry;

    #[test]
    fn it_grows_with_key_value_and_deadline() {
        let small = Entry::of("k", "");
        assert_eq!(small.footprint(), 32 + INDEXES);
        // 16 + 2 + 16 + 100 + 8, rounded up.
        let usual = Entry::of(&"k".repeat(16), &"v".repeat(100));
        assert_eq!(usual.footprint(), 144 + INDEXES);
        let expires = usual.with_expiry(Some(Expiry::at_millis(1)));
        assert_eq!(expires.footprint(), usual.footprint() + DEADLINE);
        assert_eq!(
            expires.footprint_without_deadline(),
            usual.footprint_without_deadline()
        );
    }
}
