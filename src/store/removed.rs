//! Frees removed entries: never under the lock, and large amounts on a thread of their own.

use std::sync::Arc;
use std::thread;

use crate::budget::Budget;
use crate::memory;

use super::Entry;
use super::index::Entries;
use super::map::MANY;

/// A clear of so many entries is freed on a thread of its own. Freeing takes about 0.1 µs an entry, so fewer delay the caller by a
/// millisecond at most.
pub(super) const FREE_ELSEWHERE: usize = 10_000;

/// The same in bytes of keys and values. Giving pages back to the system takes time too.
const FREE_ELSEWHERE_BYTES: usize = 16 << 20;

/// Removed entries, kept until the lock is released.
#[derive(Default)]
pub(super) struct Removed {
    pub(super) some: Vec<Entry>,
    pub(super) all: Vec<Arc<Entries>>,
}

impl Removed {
    /// Frees them. The lock must have been released.
    pub(super) fn free(self, budget: &Arc<Budget>) {
        let mut bytes = 0;
        if self.some.len() >= MANY {
            bytes += self.some.iter().map(Entry::bytes).sum::<usize>();
        }
        drop(self.some);
        if bytes > 0 {
            memory::freed(bytes);
        }
        for all in self.all {
            free_all(all, budget);
        }
    }
}

/// Frees the entries of a cleared map, unless a view still reads them. Then the view calls this again.
pub(super) fn free_all(all: Arc<Entries>, budget: &Arc<Budget>) {
    let Some(all) = Arc::into_inner(all) else {
        return;
    };
    let held = Held {
        bytes: all.footprint(),
        budget: Arc::clone(budget),
    };
    if all.len() >= FREE_ELSEWHERE || all.bytes() >= FREE_ELSEWHERE_BYTES {
        // If no thread can be started, the closure is dropped right here, and the entries with it.
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
