//! What can be seen of a running server from outside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connections::Connections;

/// Counts and states of a server, for whoever reports on it. Made ahead of the server, since what answers its requests
/// reports too.
#[derive(Default)]
pub struct Monitor {
    connections: Arc<Connections>,
    /// Answers since the start, by the first digit of their status.
    answers: [AtomicU64; 6],
    draining: AtomicBool,
    /// When it was last looked which connections have ended. Held while looking.
    looked: Mutex<Option<Instant>>,
}

/// How often to look, at most, which connections have ended.
const LOOK: Duration = Duration::from_secs(1);

impl Monitor {
    /// How many connections are open; some may have ended in the last second. Looking asks the kernel about each of them,
    /// so that is done once a second at most.
    pub fn connections(&self) -> usize {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return self.connections.len();
        }
        *looked = Some(Instant::now());
        self.connections.prune()
    }

    /// How many requests have been answered with a status of that class: 2 for 200 to 299, and so on.
    pub fn answers(&self, class: usize) -> u64 {
        let count = self.answers.get(class);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many requests have been answered.
    pub(super) fn answered(&self) -> u64 {
        (0..self.answers.len())
            .map(|class| self.answers(class))
            .sum()
    }

    /// Whether the server has been told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn count_answer(&self, status: u16) {
        if let Some(count) = self.answers.get(usize::from(status / 100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn table(&self) -> &Arc<Connections> {
        &self.connections
    }
}
