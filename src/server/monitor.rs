//! What can be seen of a running server from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::connections::Connections;

/// Counts and states of a server, for whoever reports on it. Made ahead of the server, since what answers its requests
/// reports too.
#[derive(Default)]
pub struct Monitor {
    connections: Arc<Connections>,
    /// Answers since the start, by the first digit of their status.
    answers: [AtomicU64; 6],
    draining: AtomicBool,
}

impl Monitor {
    /// How many connections are open.
    pub fn connections(&self) -> usize {
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
