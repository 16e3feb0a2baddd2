//! The byte order of keys, so that a listing can go on where it was.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::slots::{Slot, Slots};

/// The most entries in a run. With fewer there are more runs, which take space; with more, adding one moves more bytes.
const RUN: usize = 128;

/// The numbers of entries, in the byte order of their keys. They are in short sorted runs, which take a third of the space of
/// a set of the keys.
#[derive(Default)]
pub(super) struct Order {
    /// Each run by a lower bound of the keys in it, which are below the bound of the next run.
    runs: BTreeMap<Box<str>, Run>,
}

/// Entries that follow each other.
#[derive(Default)]
pub(super) struct Run {
    /// So many bytes all keys have in common with the bound.
    shared: usize,
    items: Vec<Item>,
}

struct Item {
    /// The next four bytes of the key. Going by them, a place is found without looking at most of the keys around it, each
    /// of which is somewhere else in memory.
    mark: u32,
    slot: Slot,
}

impl Order {
    /// The order of all entries.
    pub(super) fn of(slots: &Slots) -> Order {
        let mut sorted: Vec<Slot> = (0..slots.len() as Slot).collect();
        // They are sorted already where they come from the disk.
        sorted.sort_by(|a, b| slots.key(*a).cmp(slots.key(*b)));
        let runs = sorted.chunks(RUN).map(|run| {
            let items = run.iter().map(|slot| Item {
                mark: 0,
                slot: *slot,
            });
            Run::of(items.collect(), slots)
        });
        Order {
            runs: runs.collect(),
        }
    }

    /// Its runs, to be freed one after the other.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = (Box<str>, Run)> {
        self.runs.into_iter()
    }

    /// About how many bytes a run takes.
    pub(super) fn piece_bytes((bound, run): &(Box<str>, Run)) -> usize {
        bound.len() + run.items.capacity() * size_of::<Item>()
    }

    /// Adds an entry with a key that is not there.
    pub(super) fn insert(&mut self, slot: Slot, slots: &Slots) {
        let key = slots.key(slot);
        let Some((bound, run)) = self.runs.range_mut::<str, _>(up_to(key)).next_back() else {
            self.runs
                .entry("".into())
                .or_default()
                .insert("", 0, slot, slots);
            return;
        };
        let (Ok(at) | Err(at)) = run.place(bound, key, slots);
        if run.items.len() < RUN {
            run.insert(bound, at, slot, slots);
            return;
        }
        let mut upper = if at == RUN {
            // Keys that come in order leave full runs behind.
            Vec::new()
        } else {
            run.items.split_off(RUN / 2)
        };
        match at.checked_sub(run.items.len()) {
            Some(at) => upper.insert(at, Item { mark: 0, slot }),
            None => run.insert(bound, at, slot, slots),
        }
        run.set_marks(bound, slots);
        let (bound, upper) = Run::of(upper, slots);
        self.runs.insert(bound, upper);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, slot: Slot, slots: &Slots) {
        let key = slots.key(slot);
        let mut runs = self.runs.range_mut::<str, _>(up_to(key));
        let Some((bound, run)) = runs.next_back() else {
            return;
        };
        if let Ok(at) = run.place(bound, key, slots) {
            run.items.remove(at);
        }
        let merged = match runs.next_back() {
            Some((bound, before)) if before.items.len() + run.items.len() <= RUN / 2 => {
                before.items.append(&mut run.items);
                before.set_marks(bound, slots);
                true
            }
            _ => run.items.is_empty(),
        };
        if merged {
            let bound = bound.clone();
            self.runs.remove(&bound);
        }
    }

    /// Gives an entry another number. It still has the one that it had.
    pub(super) fn renumber(&mut self, from: Slot, to: Slot, slots: &Slots) {
        let key = slots.key(from);
        if let Some((bound, run)) = self.runs.range_mut::<str, _>(up_to(key)).next_back()
            && let Ok(at) = run.place(bound, key, slots)
        {
            run.items[at].slot = to;
        }
    }

    /// How many entries there are from `from` on and before `to`. It visits a hundredth of them.
    pub(super) fn count(&self, from: &str, to: &str, slots: &Slots) -> usize {
        let first = self.runs.range::<str, _>(up_to(from)).next_back();
        let skipped = first.map_or(0, |(bound, run)| {
            let (Ok(at) | Err(at)) = run.place(bound, from, slots);
            at
        });
        let first = first.map_or(Bound::Unbounded, |(bound, _)| Bound::Included(&**bound));
        let (mut all, mut last) = (0, None);
        for run in self.runs.range::<str, _>((first, Bound::Excluded(to))) {
            all += run.1.items.len();
            last = Some(run);
        }
        let behind = last.map_or(0, |(bound, run)| {
            let (Ok(at) | Err(at)) = run.place(bound, to, slots);
            run.items.len() - at
        });
        all - skipped - behind
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
            skipped = match run.place(bound, key, slots) {
                Ok(at) => at + usize::from(matches!(from, Bound::Excluded(_))),
                Err(at) => at,
            };
        }
        let runs = self.runs.range::<str, _>((first, Bound::Unbounded));
        let items = runs.flat_map(|(_, run)| &run.items).skip(skipped);
        items.map(|item| item.slot)
    }
}

impl Run {
    /// A run of entries that are in order, and its bound. There must be one at least.
    fn of(items: Vec<Item>, slots: &Slots) -> (Box<str>, Run) {
        let bound = slots.key(items[0].slot);
        let mut run = Run { shared: 0, items };
        run.set_marks(bound, slots);
        (bound.into(), run)
    }

    /// Where a key is, or would be; it is not below the bound.
    fn place(&self, bound: &str, key: &str, slots: &Slots) -> Result<usize, usize> {
        if shared(bound, key) < self.shared {
            // It differs from the bound where the others do not, and so is above them.
            return Err(self.items.len());
        }
        let mark = mark(key, self.shared);
        self.items.binary_search_by(|item| {
            let marks = item.mark.cmp(&mark);
            marks.then_with(|| slots.key(item.slot).cmp(key))
        })
    }

    /// Adds an entry at its place.
    fn insert(&mut self, bound: &str, at: usize, slot: Slot, slots: &Slots) {
        let key = slots.key(slot);
        let mark = mark(key, self.shared);
        self.items.insert(at, Item { mark, slot });
        if self.items.len() == 1 || shared(bound, key) < self.shared {
            self.set_marks(bound, slots);
        }
    }

    /// Finds out what the keys have in common with the bound, and what comes next.
    fn set_marks(&mut self, bound: &str, slots: &Slots) {
        // Those between the bound and the last have as much in common with the bound as the last at least.
        let last = self.items.last();
        self.shared = last.map_or(0, |last| shared(bound, slots.key(last.slot)));
        for item in &mut self.items {
            item.mark = mark(slots.key(item.slot), self.shared);
        }
    }
}

/// How many bytes two keys have in common at their beginning.
fn shared(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// Four bytes of a key, which compare as they do. Behind its end there are zeros, which no key has.
fn mark(key: &str, from: usize) -> u32 {
    let mut bytes = [0; 4];
    let rest = key.as_bytes().get(from..).unwrap_or_default();
    let length = rest.len().min(4);
    bytes[..length].copy_from_slice(&rest[..length]);
    u32::from_be_bytes(bytes)
}

/// The bounds of runs that a key may be in or behind.
fn up_to(key: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(key))
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
            assert!((1..=RUN).contains(&run.items.len()));
            assert!(&**bound <= slots.key(run.items[0].slot));
            for item in &run.items {
                let key = slots.key(item.slot);
                assert!(key.starts_with(&bound[..run.shared]));
                assert_eq!(item.mark, mark(key, run.shared));
            }
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
