//! Numbers to which many threads add.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// The most shards. More threads than that share them, which costs time, not counts.
const MOST: usize = 64;

/// How many numbers of a shard fill a cache line, and the line next to it, which the processor may fetch along.
const LINE: usize = 16;

/// A fixed number of counters. Each shard has all of them; a thread adds to one shard.
pub struct Cells {
    cells: Box<[AtomicU64]>,
    count: usize,
    /// The distance between two shards, and how many there are: a power of two.
    stride: usize,
    shards: usize,
}

impl Cells {
    /// So many counters, all of them zero.
    pub fn new(count: usize) -> Cells {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // One more: the threads that count most are as many as there are cores, and a few others count as well.
        let shards = (cores + 1).next_power_of_two().min(MOST);
        let stride = count.next_multiple_of(LINE) + LINE;
        Cells {
            cells: (0..shards * stride).map(|_| AtomicU64::new(0)).collect(),
            count,
            stride,
            shards,
        }
    }

    /// Adds to one counter.
    pub fn add(&self, counter: usize, amount: u64) {
        debug_assert!(counter < self.count);
        let at = (shard() & (self.shards - 1)) * self.stride + counter;
        self.cells[at].fetch_add(amount, Ordering::Relaxed);
    }

    /// What all threads have added to one counter.
    pub fn sum(&self, counter: usize) -> u64 {
        debug_assert!(counter < self.count);
        let shards = self.cells.iter().skip(counter).step_by(self.stride);
        shards.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// The number of this thread: threads get them in turn, when they first count.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| match own.get() {
        usize::MAX => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            own.set(number);
            number
        }
        number => number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_threads_add_is_lost_or_counted_elsewhere() {
        let cells = Cells::new(3);
        thread::scope(|scope| {
            for _ in 0..2 * cells.shards {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        cells.add(0, 1);
                        cells.add(2, 5);
                    }
                });
            }
        });
        let threads = 2 * cells.shards as u64;
        assert_eq!(cells.sum(0), threads * 1000);
        assert_eq!(cells.sum(1), 0);
        assert_eq!(cells.sum(2), threads * 5000);
    }
}
