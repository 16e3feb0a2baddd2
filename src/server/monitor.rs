//! What can be seen of a running server from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::lanes::Lanes;

/// Counts and states of a server, for whoever reports on it. Made before the server, since the service reports them.
#[derive(Default)]
pub struct Monitor {
    lanes: Arc<Lanes>,
    /// Open connections, as the door counts them.
    open: AtomicUsize,
    /// Answers since the start, by the first digit of their status.
    answers: [AtomicU64; 6],
    draining: AtomicBool,
    /// Whether others have the listening socket too, and go on with it.
    shares_socket: AtomicBool,
    /// Streams that are open.
    streams: AtomicUsize,
    /// Streams that have ended, by why.
    endings: [AtomicU64; Ending::ALL.len()],
}

/// Why a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its client took nothing for too long.
    Slow,
    /// Its client was so far behind that the publisher could not go on.
    Behind,
    /// The publisher did not want it any more.
    Unwanted,
    /// Its client was gone.
    Gone,
    /// The server was told to stop.
    Drained,
}

impl Ending {
    /// Every one of them.
    pub const ALL: [Ending; 5] = [
        Ending::Slow,
        Ending::Behind,
        Ending::Unwanted,
        Ending::Gone,
        Ending::Drained,
    ];
}

impl Monitor {
    /// How many connections are open. A server with the plain door knows only of those with a request under way.
    pub fn connections(&self) -> usize {
        self.open
            .load(Ordering::Relaxed)
            .max(self.lanes.under_way())
    }

    /// How many requests have been answered with a status of that class: 2 for 200 to 299, and so on.
    pub fn answers(&self, class: usize) -> u64 {
        let count = self.answers.get(class);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Whether the server has been told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the listening socket is left as it is when the server stops, since others have it too. Connections that have not been
    /// accepted by then are theirs.
    pub fn shares_socket(&self) -> bool {
        self.shares_socket.load(Ordering::Relaxed)
    }

    /// The listening socket is one of systemd's, say. To be called before the server is started.
    pub fn share_socket(&self) {
        self.shares_socket.store(true, Ordering::Relaxed);
    }

    /// For the door: so many connections are open.
    pub fn set_open(&self, connections: usize) {
        self.open.store(connections, Ordering::Relaxed);
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// How many streams have ended for that reason.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.endings[ending as usize].load(Ordering::Relaxed)
    }

    pub(super) fn set_streams(&self, streams: usize) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    pub(super) fn count_ending(&self, ending: Ending) {
        self.endings[ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests have been answered.
    pub fn answered(&self) -> u64 {
        (0..self.answers.len())
            .map(|class| self.answers(class))
            .sum()
    }

    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn count_answer(&self, status: u16) {
        if let Some(count) = self.answers.get(usize::from(status / 100)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }
}
