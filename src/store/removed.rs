//! What was removed from the map, and how it is freed: never under the lock, and large amounts on a thread of their own.

use std::sync::Arc;
use std::thread;

use crate::budget::Budget;
use crate::memory;

use super::Entry;
use super::index::Entries;
use super::map::MANY;

/// From so many entries on, what a clear removed is freed on a thread of its own: freeing takes about 0.1 µs an entry,
/// so less than this holds nobody up for long.
pub(super) const FREE_ELSEWHERE: usize = 10_000;

/// The same in bytes of keys and values, which may be given back to the system at once.
const FREE_ELSEWHERE_BYTES: usize = 16 << 20;

/// What changes have removed, kept until the lock has been given back.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) some: Vec<Entry>,
    pub(super) all: Option<Arc<Entries>>,
}

impl Removed {
    /// Frees it. Nobody waits for a lock meanwhile.
    pub(super) fn free(self, budget: &Arc<Budget>) {
        let mut bytes = 0;
        if self.some.len() >= MANY {
            bytes += self.some.iter().map(Entry::bytes).sum::<usize>();
        }
        drop(self.some);
        if bytes > 0 {
            memory::freed(bytes);
        }
        if let Some(all) = self.all {
            free_all(all, budget);
        }
    }
}

/// Frees what a clear has removed, unless somebody still reads it.
pub(super) fn free_all(all: Arc<Entries>, budget: &Arc<Budget>) {
    let Some(all) = Arc::into_inner(all) else {
        return;
    };
    let held = Held {
        bytes: all.footprint(),
        budget: Arc::clone(budget),
    };
    if all.len() >= FREE_ELSEWHERE || all.bytes() >= FREE_ELSEWHERE_BYTES {
        // Without a thread to be had, the closure is dropped, and with it the entries, right here.
        let _ = thread::Builder::new()
            .name("reclaim".into())
            .spawn(move || {
                all.free();
                drop(held);
            });
    } else {
        let bytes = all.bytes();
        drop(all);
        memory::freed(bytes);
        drop(held);
    }
}

/// Bytes that are held, see [`Budget::hold`], until this is dropped.
struct Held {
    bytes: u64,
    budget: Arc<Budget>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.let_go(self.bytes);
    }
}
