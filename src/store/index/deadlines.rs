//! When entries expire: soonest first, and how many have.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use super::slots::Slot;
use crate::store::Expiry;

/// The entries that expire.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Soonest first.
    set: BTreeSet<(Expiry, Slot)>,
    /// Behind a lock of its own, so that readers of the map can go on counting. It is locked only under the lock of the map.
    count: Mutex<Count>,
}

/// How many deadlines have passed, as far as they have been counted. So nobody has to count millions anew.
#[derive(Default)]
struct Count {
    /// How many deadlines there are up to `to`.
    passed: usize,
    /// The last deadline that has been counted.
    to: Option<(Expiry, Slot)>,
}

impl Deadlines {
    /// The deadlines of entries.
    pub(super) fn of(deadlines: impl Iterator<Item = (Expiry, Slot)>) -> Deadlines {
        Deadlines {
            set: deadlines.collect(),
            ..Deadlines::default()
        }
    }

    /// Adds the deadline of an entry.
    pub(super) fn insert(&mut self, expiry: Expiry, slot: Slot) {
        let new = self.set.insert((expiry, slot));
        let count = self.count.get_mut().unwrap_or_else(PoisonError::into_inner);
        count.passed += usize::from(new && Some((expiry, slot)) <= count.to);
    }

    /// Removes the deadline of an entry.
    pub(super) fn remove(&mut self, expiry: Expiry, slot: Slot) {
        let old = self.set.remove(&(expiry, slot));
        let count = self.count.get_mut().unwrap_or_else(PoisonError::into_inner);
        count.passed -= usize::from(old && Some((expiry, slot)) <= count.to);
    }

    /// The entries whose deadline has come at the time `now`, soonest first.
    pub(super) fn passed(&self, now: Expiry) -> impl Iterator<Item = Slot> {
        let deadlines = self.set.iter();
        deadlines
            .take_while(move |(expiry, _)| *expiry <= now)
            .map(|(_, slot)| *slot)
    }

    /// The first of all deadlines.
    pub(super) fn first(&self) -> Option<Expiry> {
        self.set.first().map(|(expiry, _)| *expiry)
    }

    /// How many have passed at the time `now`; `None` if there were so many more than the last time that this has counted only `most` of them.
    pub(super) fn count_passed(&self, now: Expiry, most: usize) -> Option<usize> {
        // Behind all of this millisecond: no entry has this number.
        let now = (now, Slot::MAX);
        // Nothing under this lock panics.
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.to > Some(now) {
            // The clock has been set back.
            *count = Count::default();
        }
        let from = count.to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut new = self.set.range((from, Bound::Included(now)));
        let (found, last) = new
            .by_ref()
            .take(most)
            .fold((0, None), |(found, _), it| (found + 1, Some(*it)));
        count.passed += found;
        if new.next().is_some() {
            count.to = last.or(count.to);
            return None;
        }
        count.to = Some(now);
        Some(count.passed)
    }

    /// All deadlines, to be freed one after the other.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = (Expiry, Slot)> {
        self.set.into_iter()
    }

    /// All deadlines.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Expiry, Slot)> {
        self.set.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Expiry {
        Expiry::at_millis(millis)
    }

    #[test]
    fn those_that_have_passed_are_counted_in_steps() {
        let deadlines = (1..=1000).map(|n| (at(n / 300), n as Slot));
        let mut deadlines = Deadlines::of(deadlines.chain([(at(u64::MAX), 0)]));
        let mut steps = 0;
        let counted = loop {
            steps += 1;
            if let Some(counted) = deadlines.count_passed(at(1000), 100) {
                break counted;
            }
        };
        assert_eq!((counted, steps), (1000, 10));
        // What changes behind the count, and ahead of it.
        deadlines.remove(at(3), 900);
        deadlines.remove(at(3), 900);
        deadlines.insert(at(300), 5000);
        deadlines.insert(at(300), 5001);
        deadlines.insert(at(300), 5001);
        deadlines.insert(at(u64::MAX - 1), 5002);
        assert_eq!(deadlines.count_passed(at(1000), 1), Some(1001));
        assert_eq!(deadlines.passed(at(1000)).count(), 1001);
    }

    #[test]
    fn a_clock_that_is_set_back_brings_entries_back() {
        let mut deadlines = Deadlines::of([(at(1), 0), (at(u64::MAX - 1), 1)].into_iter());
        *deadlines.count.get_mut().unwrap() = Count {
            passed: 2,
            to: Some((at(u64::MAX), 1)),
        };
        assert_eq!(deadlines.count_passed(at(1000), 10), Some(1));
    }
}
