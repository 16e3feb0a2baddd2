//! What can be seen of a running server from outside.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::Fault;
use super::lanes::Lanes;
use super::traffic::{Operation, Traffic};
use crate::metrics::{Cells, Reading};

/// There are so many classes of status, with class 0, which has none.
const CLASSES: usize = 6;

/// Counts and states of a server, for whoever reports on it. Made before the server, since the service reports them.
pub struct Monitor {
    lanes: Arc<Lanes>,
    /// Open connections, as the door counts them.
    open: AtomicUsize,
    /// Connections that the door has let in, and that it has closed, by why.
    accepted: AtomicU64,
    closed: [AtomicU64; Closing::ALL.len()],
    /// Answers since the start, by the first digit of their status.
    answers: Cells,
    /// The same by operation and status.
    traffic: Traffic,
    /// Requests that the server has refused, by the place of the fault in [`Fault::ALL`].
    faults: [AtomicU64; Fault::ALL.len()],
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

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor {
            lanes: Arc::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            closed: Default::default(),
            answers: Cells::new(CLASSES),
            traffic: Traffic::default(),
            faults: Default::default(),
            draining: AtomicBool::new(false),
            shares_socket: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            endings: Default::default(),
        }
    }
}

impl Ending {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Slow => "slow",
            Ending::Behind => "behind",
            Ending::Unwanted => "unwanted",
            Ending::Gone => "gone",
            Ending::Drained => "drained",
        }
    }
}

/// Who or what closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The client, or we at its request, or because of a request that could not be read.
    Ended,
    /// Nothing had happened on it for too long.
    Idle,
    /// Its place was needed for a newcomer.
    Evicted,
    /// It was not served: tiny_http had forgotten it.
    Lost,
    /// Its client did not take an answer, or too slowly.
    Undelivered,
    /// Its client spoke TLS.
    Tls,
    /// Its client did not end it in time after its last answer.
    Lingering,
    /// The server was told to stop.
    Drained,
}

impl Closing {
    /// Every one of them.
    pub const ALL: [Closing; 8] = [
        Closing::Ended,
        Closing::Idle,
        Closing::Evicted,
        Closing::Lost,
        Closing::Undelivered,
        Closing::Tls,
        Closing::Lingering,
        Closing::Drained,
    ];

    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Closing::Ended => "ended",
            Closing::Idle => "idle",
            Closing::Evicted => "evicted",
            Closing::Lost => "lost",
            Closing::Undelivered => "undelivered",
            Closing::Tls => "tls",
            Closing::Lingering => "lingering",
            Closing::Drained => "drained",
        }
    }
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
        if class < CLASSES {
            self.answers.sum(class)
        } else {
            0
        }
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

    /// For the door: a connection was let in.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// For the door: a connection was closed.
    pub fn count_closed(&self, closing: Closing) {
        self.closed[closing as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were let in.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many connections were closed for that reason.
    pub fn closed(&self, closing: Closing) -> u64 {
        self.closed[closing as usize].load(Ordering::Relaxed)
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
        (0..CLASSES).map(|class| self.answers(class)).sum()
    }

    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// How many requests are under way, without the streams.
    pub fn in_flight(&self) -> usize {
        self.lanes.under_way().saturating_sub(self.streams())
    }

    /// How many answers an operation had, by status code, without those that it never had.
    pub fn codes(&self, operation: Operation) -> Vec<(u16, u64)> {
        self.traffic.codes(operation)
    }

    /// How long the answers of an operation took, in nanoseconds: from the time at which the request was read to that at which its answer was
    /// ready, without the time in which the client sent its body.
    pub fn durations(&self, operation: Operation) -> Reading {
        self.traffic.durations(operation)
    }

    /// How many requests the server has refused, by a word for why.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.faults.iter().map(|it| it.load(Ordering::Relaxed));
        Fault::ALL.into_iter().map(Fault::word).zip(counts)
    }

    pub(super) fn count_answer(&self, operation: Operation, status: u16, took: Duration) {
        let class = usize::from(status / 100);
        if class < CLASSES {
            self.answers.add(class, 1);
        }
        self.traffic.count(operation, status, took);
    }

    pub(super) fn count_fault(&self, fault: Fault) {
        let same = |it: &Fault| mem::discriminant(it) == mem::discriminant(&fault);
        if let Some(at) = Fault::ALL.iter().position(same) {
            self.faults[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }
}
