//! The byte order of keys, so that a listing can go on where it was.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::slots::{Slot, Slots};

/// The most entries in a run. With fewer there are more runs, which take space; with more, more entries have to be looked
/// at to find a place in a run, and each of them is somewhere else in memory.
const RUN: usize = 64;

/// The numbers of entries, in the byte order of their keys. They are in short sorted runs, which take a fourth of the
/// space of a set of the keys. A key is found by halving a run.
#[derive(Default)]
pub(super) struct Order {
    /// Each run by a lower bound of the keys in it, which are below the bound of the next run.
    runs: BTreeMap<Box<str>, Vec<Slot>>,
}

impl Order {
    /// The order of all entries.
    pub(super) fn of(slots: &Slots) -> Order {
        let mut sorted: Vec<Slot> = (0..slots.len() as Slot).collect();
        // They are sorted already where they come from the disk.
        sorted.sort_by(|a, b| slots.key(*a).cmp(slots.key(*b)));
        let runs = sorted.chunks(RUN);
        let runs = runs.map(|run| (slots.key(run[0]).into(), run.to_vec()));
        Order {
            runs: runs.collect(),
        }
    }

    /// Adds an entry with a key that is not there.
    pub(super) fn insert(&mut self, slot: Slot, slots: &Slots) {
        let key = slots.key(slot);
        let Some((_, run)) = self.runs.range_mut::<str, _>(up_to(key)).next_back() else {
            self.runs.insert("".into(), vec![slot]);
            return;
        };
        let at = run.partition_point(|it| slots.key(*it) < key);
        if run.len() < RUN {
            run.insert(at, slot);
            return;
        }
        let upper = if at == RUN {
            // Keys that come in order leave full runs behind.
            vec![slot]
        } else {
            let mut upper = run.split_off(RUN / 2);
            match at.checked_sub(RUN / 2) {
                Some(at) => upper.insert(at, slot),
                None => run.insert(at, slot),
            }
            upper
        };
        self.runs.insert(slots.key(upper[0]).into(), upper);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, slot: Slot, slots: &Slots) {
        let key = slots.key(slot);
        let mut runs = self.runs.range_mut::<str, _>(up_to(key));
        let Some((bound, run)) = runs.next_back() else {
            return;
        };
        if let Some(at) = position(run, key, slots) {
            run.remove(at);
        }
        let merged = match runs.next_back() {
            Some((_, before)) if before.len() + run.len() <= RUN / 2 => {
                before.append(run);
                true
            }
            _ => run.is_empty(),
        };
        if merged {
            let bound = bound.clone();
            self.runs.remove(&bound);
        }
    }

    /// Gives an entry another number. It still has the one that it had.
    pub(super) fn renumber(&mut self, from: Slot, to: Slot, slots: &Slots) {
        let key = slots.key(from);
        if let Some((_, run)) = self.runs.range_mut::<str, _>(up_to(key)).next_back()
            && let Some(at) = position(run, key, slots)
        {
            run[at] = to;
        }
    }

    /// The entries from a bound on.
    pub(super) fn from<'a>(
        &'a self,
        from: Bound<&str>,
        slots: &'a Slots,
    ) -> impl Iterator<Item = Slot> {
        let (mut first, mut skipped) = (Bound::Unbounded, 0);
        if let Bound::Included(key) | Bound::Excluded(key) = from
            && let Some((bound, run)) = self.runs.range::<str, _>(up_to(key)).next_back()
        {
            first = Bound::Included(&**bound);
            let after = matches!(from, Bound::Excluded(_));
            skipped = run.partition_point(|slot| {
                let it = slots.key(*slot);
                it < key || after && it == key
            });
        }
        let runs = self.runs.range::<str, _>((first, Bound::Unbounded));
        runs.flat_map(|(_, run)| run).skip(skipped).copied()
    }
}

/// The bounds of runs that a key may be in or behind.
fn up_to(key: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// Where a key is in a run.
fn position(run: &[Slot], key: &str, slots: &Slots) -> Option<usize> {
    run.binary_search_by(|it| slots.key(*it).cmp(key)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;

    fn assert_sound(order: &Order, slots: &Slots) {
        let listed: Vec<&str> = order
            .from(Bound::Unbounded, slots)
            .map(|slot| slots.key(slot))
            .collect();
        assert!(listed.is_sorted_by(|a, b| a < b));
        for (bound, run) in &order.runs {
            assert!((1..=RUN).contains(&run.len()));
            assert!(&**bound <= slots.key(run[0]));
        }
    }

    #[test]
    fn keys_come_in_byte_order_however_they_were_put() {
        let numbers = 0..20 * RUN;
        let ascending: Vec<usize> = numbers.clone().collect();
        let descending: Vec<usize> = numbers.clone().rev().collect();
        // Steps of a prime are as good as random.
        let scattered: Vec<usize> = numbers.map(|n| n * 7919 % (20 * RUN)).collect();
        for put in [&ascending, &descending, &scattered] {
            for removed in [&ascending, &descending, &scattered] {
                let (mut slots, mut order) = (Slots::default(), Order::default());
                let mut slot_of = vec![0; put.len()];
                for &n in put {
                    slot_of[n] = slots.push(Entry::of(&format!("k{n:06}"), "v"));
                    order.insert(slot_of[n], &slots);
                }
                assert_sound(&order, &slots);
                assert!(
                    order
                        .from(Bound::Unbounded, &slots)
                        .eq(slot_of.iter().copied())
                );
                let full = put.len().div_ceil(RUN);
                assert!(
                    order.runs.len()
                        <= if put[0] == 0 && put[1] == 1 {
                            full
                        } else {
                            2 * full
                        }
                );
                for &n in &removed[..19 * RUN] {
                    order.remove(slot_of[n], &slots);
                }
                assert_sound(&order, &slots);
                assert_eq!(order.from(Bound::Unbounded, &slots).count(), RUN);
                assert!(order.runs.len() <= 8, "{}", order.runs.len());
                for &n in &removed[19 * RUN..] {
                    order.remove(slot_of[n], &slots);
                }
                assert!(order.runs.is_empty());
            }
        }
    }

    #[test]
    fn it_goes_on_from_any_bound() {
        let mut slots = Slots::default();
        for n in 0..2 * RUN {
            slots.push(Entry::of(&format!("k{:06}", 2 * n), "v"));
        }
        let mut order = Order::of(&slots);
        let first = |from: Bound<&str>, order: &Order| {
            let first = order.from(from, &slots).next();
            first.map(|slot| slots.key(slot).to_owned())
        };
        for n in 0..2 * RUN - 1 {
            let (key, next) = (format!("k{:06}", 2 * n), format!("k{:06}", 2 * n + 2));
            let between = format!("k{:06}", 2 * n + 1);
            assert_eq!(first(Bound::Included(&key), &order), Some(key.clone()));
            for from in [
                Bound::Excluded(&*key),
                Bound::Included(&between),
                Bound::Excluded(&between),
            ] {
                assert_eq!(first(from, &order), Some(next.clone()));
            }
        }
        assert_eq!(first(Bound::Included("j"), &order), Some("k000000".into()));
        assert_eq!(first(Bound::Included("l"), &order), None);
        order.renumber(5, 6, &slots);
        assert_eq!(
            first(Bound::Included("k000010"), &order),
            Some("k000012".into())
        );
    }
}
