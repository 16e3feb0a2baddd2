//! How often a value was how large.

use std::sync::atomic::{AtomicU64, Ordering};

/// The upper bounds of the buckets of a histogram, ascending. Values above the last one have a bucket of their own.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// In the unit in which values are counted.
    pub bounds: &'static [u64],
    /// How many of them make the unit in which the metric is written: 10^9 for nanoseconds that are written as seconds.
    pub unit: f64,
}

impl Buckets {
    /// Durations in nanoseconds, from 100 µs to 10 s. Most answers take less, and what takes longer is a fault.
    pub const DURATIONS: Buckets = Buckets {
        bounds: &[
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            25_000_000,
            50_000_000,
            100_000_000,
            250_000_000,
            500_000_000,
            1_000_000_000,
            2_500_000_000,
            5_000_000_000,
            10_000_000_000,
        ],
        unit: 1e9,
    };

    /// Small whole numbers.
    pub const SIZES: Buckets = Buckets {
        bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
        unit: 1.0,
    };

    /// How many counters a histogram with these buckets needs: one a bucket, and the sum.
    pub const fn cells(self) -> usize {
        self.bounds.len() + 2
    }

    /// The bucket of a value.
    pub fn of(self, value: u64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }
}

/// A histogram to which one thread at a time adds. For those to which all workers add, see [`super::Cells`].
pub struct Histogram {
    buckets: Buckets,
    /// One count a bucket.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram has counted.
pub struct Reading {
    /// The buckets.
    pub buckets: Buckets,
    /// How many values fell into each bucket, and into no smaller one.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new(buckets: Buckets) -> Histogram {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0));
        Histogram {
            buckets,
            counts: counts.collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        self.counts[self.buckets.of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What has been counted so far.
    pub fn read(&self) -> Reading {
        let counts = self.counts.iter();
        Reading {
            buckets: self.buckets,
            counts: counts.map(|it| it.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Reading {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::new(Buckets::SIZES);
        for value in [0, 1, 2, 3, 4, 1024, 1025, 1 << 40] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((read.count(), read.sum), (8, 2059 + (1 << 40)));
    }

    #[test]
    fn bounds_ascend() {
        for buckets in [Buckets::DURATIONS, Buckets::SIZES] {
            assert!(buckets.bounds.is_sorted());
            assert_eq!(buckets.cells(), buckets.bounds.len() + 2);
        }
    }
}
