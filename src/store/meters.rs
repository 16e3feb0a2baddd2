//! What a store counts about itself, for whoever reports on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::CommitError;
use crate::metrics::{Buckets, Histogram};

/// Counts and states of a store. The threads that commit write them, and everybody may read them.
pub struct Meters {
    /// Commits, by how many writes each had.
    pub batches: Histogram,
    /// Syncs of the log, by how many nanoseconds each took.
    pub syncs: Histogram,
    /// Bytes of the log, back to the last snapshot.
    log_bytes: AtomicU64,
    /// Snapshots that were written, and those that failed.
    snapshots: [AtomicU64; 2],
    /// How long the last one took that was written, in nanoseconds, and when it was done, in milliseconds since 1970; 0 before the first.
    last_snapshot: [AtomicU64; 2],
    /// Keys that were removed since they had expired.
    expired: AtomicU64,
    /// Writes without an outcome, by the place of why in [`WORDS`].
    refused: [AtomicU64; WORDS.len()],
}

/// Words for each [`CommitError`].
const WORDS: [&str; 5] = [
    "unavailable",
    "disk_failed",
    "timed_out",
    "store_full",
    "too_large_for_cluster",
];

impl Default for Meters {
    fn default() -> Meters {
        Meters {
            batches: Histogram::new(Buckets::SIZES),
            syncs: Histogram::new(Buckets::DURATIONS),
            log_bytes: AtomicU64::new(0),
            snapshots: Default::default(),
            last_snapshot: Default::default(),
            expired: AtomicU64::new(0),
            refused: Default::default(),
        }
    }
}

impl Meters {
    /// Runs a sync of the log and counts it, whether it succeeds or not.
    pub(super) fn sync<T>(&self, sync: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = sync();
        self.syncs.observe(nanos(started.elapsed()));
        result
    }

    /// Bytes of the log, back to the last snapshot.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How many snapshots were written, and how many failed.
    pub fn snapshots(&self) -> [u64; 2] {
        [0, 1].map(|result| self.snapshots[result].load(Ordering::Relaxed))
    }

    /// How long the last snapshot took that was written, and when it was done, as the time since 1970. `None` before the first.
    pub fn last_snapshot(&self) -> Option<(Duration, Duration)> {
        let [took, at] = [0, 1].map(|it| self.last_snapshot[it].load(Ordering::Relaxed));
        (at > 0).then(|| (Duration::from_nanos(took), Duration::from_millis(at)))
    }

    /// A snapshot was written.
    pub(super) fn count_snapshot(&self, took: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        self.snapshots[0].fetch_add(1, Ordering::Relaxed);
        self.last_snapshot[0].store(nanos(took), Ordering::Relaxed);
        self.last_snapshot[1].store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A snapshot failed.
    pub(super) fn count_failed_snapshot(&self) {
        self.snapshots[1].fetch_add(1, Ordering::Relaxed);
    }

    /// How many keys were removed since they had expired.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    pub(super) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// How many writes have no outcome, by a word for why.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|it| it.load(Ordering::Relaxed));
        WORDS.into_iter().zip(counts)
    }

    pub(super) fn count_refused(&self, error: CommitError) {
        let word = match error {
            CommitError::Unavailable => 0,
            CommitError::DiskFailed => 1,
            CommitError::TimedOut => 2,
            CommitError::Full { .. } => 3,
            CommitError::TooLarge { .. } => 4,
        };
        self.refused[word].fetch_add(1, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_refusals_are_counted_by_kind() {
        let meters = Meters::default();
        assert_eq!(meters.last_snapshot(), None);
        meters.count_failed_snapshot();
        meters.count_snapshot(Duration::from_millis(7));
        assert_eq!(meters.snapshots(), [1, 1]);
        let (took, at) = meters.last_snapshot().unwrap();
        assert_eq!(took, Duration::from_millis(7));
        assert!(at > Duration::from_secs(1_700_000_000));
        meters.count_refused(CommitError::Full { limit: 1, used: 1 });
        meters.count_refused(CommitError::TimedOut);
        let refused: Vec<u64> = meters.refused().map(|(_, count)| count).collect();
        assert_eq!(refused, [0, 0, 1, 1, 0]);
    }
}
