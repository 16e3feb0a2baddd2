//! The entries of a store, and the orders in which they can be found: by key, by byte order, by deadline.
//!
//! An entry is one block of memory, which a list without gaps holds a pointer to ([`slots`](super::slots)). The indexes know
//! entries by their numbers in that list: hash maps ([`table`](super::table)), runs sorted by key
//! ([`order`](super::order)) and the [`deadlines`](super::deadlines). Next to the block, an entry takes some 60 bytes, and
//! some 35 more if it expires.
//!
//! All of it is made of small parts, so that there is none that takes long to grow, to shrink or to change, however many
//! entries there are.

use std::ops::Bound;

use crate::memory;

use super::deadlines::Deadlines;
use super::order::Order;
use super::slots::{Slot, Slots};
use super::table::Table;
use crate::store::{Entry, Expiry, Key};

/// Entries, one a key. Everything in here is kept in step by [`Entries::insert`] and [`Entries::remove`].
#[derive(Default)]
pub(in crate::store) struct Entries {
    slots: Slots,
    table: Table,
    order: Order,
    deadlines: Deadlines,
    /// Bytes of all keys and values.
    bytes: usize,
    /// Bytes of memory that all of it takes, see [`crate::store::footprint`].
    footprint: u64,
}

impl Entries {
    /// The entry of a key; also one that has expired.
    pub(in crate::store) fn get(&self, key: &str) -> Option<&Entry> {
        let slot = self.table.find(key)?;
        Some(&self.slots[slot])
    }

    /// Sets the entry of its key, and returns the one that the key had.
    pub(in crate::store) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let expiry = entry.expiry;
        self.bytes += entry.bytes();
        self.footprint += entry.footprint();
        if let Some(slot) = self.table.replace(entry.record()) {
            let old = self.slots.replace(slot, entry);
            self.bytes -= old.bytes();
            self.footprint -= old.footprint();
            if old.expiry != expiry {
                self.set_deadline(slot, old.expiry, expiry);
            }
            return Some(old);
        }
        let slot = self.slots.push(entry);
        self.table.insert(self.slots[slot].record(), slot);
        self.order.insert(slot, &self.slots);
        self.set_deadline(slot, None, expiry);
        None
    }

    /// Removes the entry of a key, and returns it.
    pub(in crate::store) fn remove(&mut self, key: &str) -> Option<Entry> {
        let slot = self.table.remove(key)?;
        self.order.remove(slot, &self.slots);
        self.set_deadline(slot, self.slots[slot].expiry, None);
        let last = (self.slots.len() - 1) as Slot;
        if slot != last {
            // It is going to be where the removed one was.
            self.table.renumber(self.slots.key(last), slot);
            self.order.renumber(last, slot, &self.slots);
            let expiry = self.slots[last].expiry;
            self.set_deadline(last, expiry, None);
            self.set_deadline(slot, None, expiry);
        }
        let old = self.slots.swap_remove(slot)?;
        self.bytes -= old.bytes();
        self.footprint -= old.footprint();
        Some(old)
    }

    /// Frees everything bit by bit, so that nobody has to wait for it.
    pub(in crate::store) fn free(self) {
        memory::free_all(self.deadlines.into_pieces(), size_of_val);
        memory::free_all(self.table.into_pieces(), Table::piece_bytes);
        memory::free_all(self.order.into_pieces(), Order::piece_bytes);
        // Now nothing else refers to the entries.
        memory::free_all(self.slots.into_pieces(), Entry::bytes);
    }

    fn set_deadline(&mut self, slot: Slot, from: Option<Expiry>, to: Option<Expiry>) {
        if let Some(expiry) = from {
            self.deadlines.remove(expiry, slot);
        }
        if let Some(expiry) = to {
            self.deadlines.insert(expiry, slot);
        }
    }

    /// How many there are that have not expired at the time `now`, and the bytes of their keys and values.
    pub(in crate::store) fn live(&self, now: Expiry) -> (usize, usize) {
        let (keys, bytes) = self.expired(now).fold((0, 0), |(keys, bytes), entry| {
            (keys + 1, bytes + entry.bytes())
        });
        (self.len() - keys, self.bytes - bytes)
    }

    /// How many there are that have not expired at the time `now`; `None` if that takes another call, since more than `most` have
    /// expired since the last one.
    pub(in crate::store) fn count_live(&self, now: Expiry, most: usize) -> Option<usize> {
        let expired = self.deadlines.count_passed(now, most)?;
        Some(self.len() - expired)
    }

    /// How many there are, those that have expired and are still here included.
    pub(in crate::store) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of all keys and values.
    pub(in crate::store) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that all of it takes.
    pub(in crate::store) fn footprint(&self) -> u64 {
        self.footprint
    }

    /// The deadline that is the next one to pass, or has passed first.
    pub(in crate::store) fn first_deadline(&self) -> Option<Expiry> {
        self.deadlines.first()
    }

    /// Those whose deadline has come at the time `now`, soonest first.
    pub(in crate::store) fn expired(&self, now: Expiry) -> impl Iterator<Item = &Entry> {
        self.deadlines.passed(now).map(|slot| &self.slots[slot])
    }

    /// Up to `most` of them in the order for a sweep: first those with the highest numbers, last one first. When the last one is removed, no
    /// other has to take its place, which is about half of the work.
    pub(in crate::store) fn to_sweep(
        &self,
        now: Expiry,
        most: usize,
    ) -> impl Iterator<Item = &Entry> {
        let end = self.slots.len() as Slot;
        let last = (0..end).rev().take(most);
        let last = last.take_while(|slot| !self.slots[*slot].is_live(now));
        let start = end - last.count() as Slot;
        let others = self.deadlines.passed(now).filter(move |it| *it < start);
        let slots = (start..end).rev().chain(others);
        slots.take(most).map(|slot| &self.slots[slot])
    }

    /// How many keys there are that begin with `prefix` and have not expired at the time `now`.
    pub(in crate::store) fn count(&self, prefix: &str, now: Expiry) -> usize {
        let behind = Key::behind_all(prefix);
        let all = self.order.count(prefix, &behind, &self.slots);
        let expired = self.expired(now);
        all - expired.filter(|it| it.key().starts_with(prefix)).count()
    }

    /// Those whose keys begin with `prefix`, in byte order.
    pub(in crate::store) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        let found = self.from(Bound::Included(prefix));
        found.take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// Those from a key on, in byte order.
    pub(in crate::store) fn from(&self, from: Bound<&str>) -> impl Iterator<Item = &Entry> {
        let slots = self.order.from(from, &self.slots);
        slots.map(|slot| &self.slots[slot])
    }
}

/// Entries while a store is loaded: found by key, but in no order yet. The orders are made when all entries are there, which
/// takes much less time than keeping them in step.
#[derive(Default)]
pub(in crate::store) struct Loader {
    slots: Slots,
    table: Table,
}

impl Loader {
    /// Entries that come in blocks. No key may come twice.
    pub(in crate::store) fn from_blocks(blocks: impl IntoIterator<Item = Vec<Entry>>) -> Loader {
        let mut slots = Slots::default();
        for entry in blocks.into_iter().flatten() {
            slots.push(entry);
        }
        let table = Table::of(&slots);
        Loader { slots, table }
    }

    /// The entry of a key.
    pub(in crate::store) fn get(&self, key: &str) -> Option<&Entry> {
        let slot = self.table.find(key)?;
        Some(&self.slots[slot])
    }

    /// Sets the entry of its key.
    pub(in crate::store) fn insert(&mut self, entry: Entry) {
        if let Some(slot) = self.table.replace(entry.record()) {
            self.slots.replace(slot, entry);
        } else {
            let slot = self.slots.push(entry);
            self.table.insert(self.slots[slot].record(), slot);
        }
    }

    /// Removes the entry of a key, if there is one.
    pub(in crate::store) fn remove(&mut self, key: &str) {
        let Some(slot) = self.table.remove(key) else {
            return;
        };
        let last = (self.slots.len() - 1) as Slot;
        if slot != last {
            self.table.renumber(self.slots.key(last), slot);
        }
        self.slots.swap_remove(slot);
    }

    /// Makes the orders.
    pub(in crate::store) fn finish(self) -> Entries {
        let Loader { slots, table } = self;
        let (mut deadlines, mut bytes, mut footprint) = (Vec::new(), 0, 0);
        for slot in 0..slots.len() as Slot {
            let entry = &slots[slot];
            bytes += entry.bytes();
            footprint += entry.footprint();
            deadlines.extend(entry.expiry.map(|expiry| (expiry, slot)));
        }
        Entries {
            table,
            order: Order::of(&slots),
            deadlines: Deadlines::of(deadlines.into_iter()),
            slots,
            bytes,
            footprint,
        }
    }
}

#[cfg(test)]
impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Entries {
        Loader::from_blocks([entries.into_iter().collect()]).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, text: &str, expiry: Option<u64>) -> Entry {
        Entry::of(key, text).with_expiry(expiry.map(Expiry::at_millis))
    }

    /// Compares the indexes and totals with the entries.
    fn assert_in_step(entries: &Entries) {
        let slots = || 0..entries.len() as Slot;
        let mut sorted: Vec<Slot> = slots().collect();
        sorted.sort_by_key(|slot| entries.slots.key(*slot));
        assert!(sorted.is_sorted_by(|a, b| entries.slots.key(*a) < entries.slots.key(*b)));
        let order = entries.order.from(Bound::Unbounded, &entries.slots);
        assert!(order.eq(sorted));
        for slot in slots() {
            let entry = &entries.slots[slot];
            assert!(std::ptr::eq(entries.get(entry.key()).unwrap(), entry));
        }
        let deadline = |slot| Some((entries.slots[slot].expiry?, slot));
        let mut deadlines: Vec<_> = slots().filter_map(deadline).collect();
        deadlines.sort();
        assert!(entries.deadlines.iter().eq(deadlines));
        let bytes: usize = slots().map(|slot| entries.slots[slot].bytes()).sum();
        assert_eq!(entries.bytes, bytes);
        let footprint: u64 = slots().map(|slot| entries.slots[slot].footprint()).sum();
        assert_eq!(entries.footprint, footprint);
    }

    #[test]
    fn the_indexes_stay_in_step() {
        let mut entries = Entries::default();
        // Every way from no entry, one that never expires and two that do, to each of them.
        let states = [None, Some(None), Some(Some(5)), Some(Some(7))];
        for from in states {
            for to in states {
                entries.insert(entry("other", "text", Some(6)));
                for (n, state) in [from, to].into_iter().enumerate() {
                    match state {
                        Some(expiry) => entries.insert(entry("a", &"v".repeat(n), expiry)),
                        None => entries.remove("a"),
                    };
                    assert_in_step(&entries);
                }
                assert_eq!(entries.len(), 1 + usize::from(to.is_some()));
            }
        }
        assert_in_step(&Entries::from_iter([
            entry("b", "1", None),
            entry("a", "2", Some(3)),
        ]));
    }

    #[test]
    fn what_is_loaded_is_in_step_however_it_came() {
        let mut loader = Loader::from_blocks([vec![entry("b", "1", None), entry("a", "2", None)]]);
        loader.insert(entry("c", "3", Some(4)));
        loader.insert(entry("a", "5", Some(4)));
        loader.remove("b");
        loader.remove("b");
        assert_eq!(loader.get("b"), None);
        loader.insert(entry("0", "6", None));
        loader.remove("0");
        let entries = loader.finish();
        assert_in_step(&entries);
        let all: Vec<&Entry> = entries.from(Bound::Unbounded).collect();
        let expected = [entry("a", "5", Some(4)), entry("c", "3", Some(4))];
        assert!(all.into_iter().eq(&expected));
    }

    #[test]
    fn the_indexes_stay_in_step_whichever_is_removed() {
        let mut entries = Entries::default();
        for n in 0..200 {
            entries.insert(entry(&format!("k{n}"), "v", (n % 3 == 0).then_some(n)));
        }
        for n in 0..200 {
            // Steps of a prime are as good as random.
            let key = format!("k{}", n * 73 % 200);
            assert_eq!(entries.remove(&key).unwrap().key(), key);
            assert_eq!(entries.remove(&key), None);
            assert_in_step(&entries);
        }
        assert_eq!((entries.len(), entries.bytes()), (0, 0));
    }

    #[test]
    fn expired_ones_come_soonest_first() {
        let mut entries = Entries::default();
        entries.insert(entry("late", "v", Some(u64::MAX)));
        entries.insert(entry("a", "v", Some(3)));
        entries.insert(entry("b", "v", Some(2)));
        entries.insert(entry("never", "v", None));
        let now = Expiry::at_millis(3);
        assert!(entries.expired(now).map(Entry::key).eq(["b", "a"]));
        assert_eq!(entries.live(now), (2, 11));
        assert_eq!(entries.count_live(now, 1), None);
        assert_eq!(entries.count_live(now, 1), Some(2));
    }

    #[test]
    fn a_sweep_takes_each_once_and_begins_at_the_end() {
        let mut entries = Entries::default();
        entries.insert(entry("soon", "v", Some(2)));
        entries.insert(entry("never", "v", None));
        entries.insert(entry("sooner", "v", Some(1)));
        entries.insert(entry("later", "v", Some(9)));
        let sweep = |entries: &Entries, now| {
            let keys = entries.to_sweep(Expiry::at_millis(now), 2000);
            keys.map(|it| it.key().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(sweep(&entries, 5), ["sooner", "soon"]);
        assert_eq!(sweep(&entries, 9), ["later", "sooner", "soon"]);
        entries.remove("never");
        assert_eq!(sweep(&entries, 9), ["sooner", "later", "soon"]);
        for n in 0..1000 {
            entries.insert(entry(&n.to_string(), "v", Some(n)));
        }
        let mut keys = sweep(&entries, 5000);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 1003);
        assert_eq!(entries.to_sweep(Expiry::at_millis(5000), 7).count(), 7);
    }

    #[test]
    fn keys_come_in_byte_order() {
        let entries: Entries = ["b", "a", "B", "a.", "a0"]
            .map(|text| entry(text, "v", None))
            .into_iter()
            .collect();
        let from = |bound| {
            let keys = entries.from(bound).map(Entry::key);
            keys.collect::<Vec<_>>()
        };
        assert_eq!(from(Bound::Unbounded), ["B", "a", "a.", "a0", "b"]);
        assert_eq!(from(Bound::Excluded("a")), ["a.", "a0", "b"]);
        assert_eq!(from(Bound::Included("a-not-there")), ["a.", "a0", "b"]);
    }
}
