//! Counts the memory that clients can make the server use, against `--max-memory`.
//!
//! There are three kinds:
//!
//! * **Data**: keys, values and indexes. The data may take seven eighths of the limit. So a full store still has room for bodies:
//!   deletes and overwrites get through.
//! * **Held**: entries that are not data any more and are still in memory, because a snapshot has yet to write them or because a
//!   cleared store takes a moment to free.
//! * **Bodies** of requests under way. They may take whatever data and held entries leave free of the whole limit. So clients that
//!   replace values faster than a snapshot writes them have to wait. A body that is the only one may always come, so that a large
//!   value can be overwritten in a full store.
//!
//! But for that one body, the sum stays below the limit, because the data grows only by what was a body before: when a body becomes data, the sum stays the
//! same. Until its request is answered, it is even counted twice, which errs on the safe side.
//!
//! The [`Budget`] knows neither HTTP nor the store. The store reports data and held entries. Whoever reads a body reserves memory first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The part of the limit that is kept for bodies: an eighth.
const FOR_BODIES: u64 = 8;

/// Counts the memory that the data and the bodies under way take. All figures are bytes.
///
/// The counters stand for themselves: no other memory depends on their order, so `Relaxed` is enough.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    /// What the data takes. Only the store writes it.
    stored: AtomicU64,
    /// What is not data any more and is still in memory.
    held: AtomicU64,
    /// What all [`Reservation`]s have together.
    under_way: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes, of which nothing is taken.
    pub fn new(limit: u64) -> Budget {
        Budget {
            limit,
            stored: AtomicU64::new(0),
            held: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
        }
    }

    /// What the data and the bodies under way may take together.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What the data may take.
    pub fn data_limit(&self) -> u64 {
        self.limit - self.limit / FOR_BODIES
    }

    /// What the data takes, as of the last commit.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Says what the data takes. The store calls it after each commit; after a start it may be more than the limit.
    pub fn set_stored(&self, bytes: u64) {
        self.stored.store(bytes, Ordering::Relaxed);
    }

    /// What is not data any more and is still in memory.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Says that so much is not data any more and stays in memory for now.
    pub fn hold(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says that so much of it has been freed.
    pub fn let_go(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What bodies under way have reserved.
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Reserves memory for a body; `None` if the data and other bodies do not leave so much free.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.take(bytes, 0).then(|| Reservation {
            budget: Arc::clone(self),
            bytes,
        })
    }

    /// Adds to what is under way, if so much is free, or if all that is under way belongs to the same body.
    fn take(&self, bytes: u64, own: u64) -> bool {
        let taken = self.stored().saturating_add(self.held());
        let free_at_most = self.limit.saturating_sub(taken);
        let more = |taken: u64| {
            let sum = taken.checked_add(bytes)?;
            (sum <= free_at_most || taken == own).then_some(sum)
        };
        self.under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }
}

/// Memory that is reserved for a body, and given back when this is dropped. It belongs to a request until the request is answered.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// How many bytes are reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves so many bytes more. Returns whether they were free; if not, nothing has changed.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes, self.bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget
            .under_way
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn bodies_get_what_the_data_leaves_free_and_give_it_back() {
        let budget = Arc::new(Budget::new(800));
        assert_eq!((budget.limit(), budget.data_limit()), (800, 700));
        budget.set_stored(500);
        let mut first = budget.reserve(200).unwrap();
        let second = budget.reserve(40).unwrap();
        assert!(budget.reserve(61).is_none());
        assert!(!first.grow(61));
        assert_eq!(budget.under_way(), 240);
        assert!(first.grow(60));
        assert_eq!((first.bytes(), budget.under_way()), (260, 300));
        assert!(budget.reserve(1).is_none());
        drop(first);
        assert_eq!(budget.under_way(), 40);
        drop(second);
        assert_eq!(budget.under_way(), 0);
    }

    #[test]
    fn bodies_have_room_where_the_data_is_full_and_one_where_it_is_over_the_limit() {
        let budget = Arc::new(Budget::new(800));
        budget.set_stored(budget.data_limit());
        let first = budget.reserve(50).unwrap();
        assert!(budget.reserve(50).is_some());
        assert!(budget.reserve(51).is_none());
        budget.hold(30);
        assert!(budget.reserve(21).is_none());
        assert!(budget.reserve(20).is_some());
        budget.let_go(30);
        drop(first);
        // The only one there is.
        budget.set_stored(801);
        let mut only = budget.reserve(1000).unwrap();
        assert!(only.grow(1000));
        assert!(budget.reserve(1).is_none());
        assert!(budget.reserve(0).is_none());
    }

    #[test]
    fn no_sum_overflows() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let first = budget.reserve(u64::MAX).unwrap();
        assert!(budget.reserve(1).is_none());
        assert_eq!(first.bytes(), u64::MAX);
    }

    #[test]
    fn threads_that_race_never_reserve_more_than_the_limit() {
        let budget = Arc::new(Budget::new(1000));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let reserved = budget.reserve(300);
                        assert!(budget.under_way() <= 1000);
                        drop(reserved);
                    }
                });
            }
        });
        assert_eq!(budget.under_way(), 0);
    }
}
