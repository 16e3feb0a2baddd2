//! Commits writes by way of etcd, so that several nodes have the same map.
//!
//! etcd holds a log, not the table. A *record* is a batch of commands, and one put of one key. etcd keeps all versions of
//! that key in one order, and its watch tells every node of each: that is the log. Every node carries out the same commands in the same order with the
//! same code ([`replica`]), and so has the same entries, revisions and events. Outcomes are decided there, as a record is carried out; the node that has made
//! the record then answers its clients.
//!
//! ```text
//! submit ─► queue ─► lane ─── put ───► etcd ─── watch ───► follower ─► replica ─► map
//!                                                             └─► answers
//! read ──► readers ─► barrier ─ how far is the log? ─► etcd
//!             └── when the map has come so far: the read begins
//! ```
//!
//! # What is in etcd
//!
//! ```text
//! <prefix>log               the last record. Each put of it is the next one
//! <prefix>snap/head         the latest snapshot: where in the log, how many chunks
//! <prefix>snap/<R>-<id>/<i> its chunks
//! <prefix>node/<id>         a node that lives: its name, and its clock, each second; under a lease
//! <prefix>leader            the node that does what one has to do, under the same lease
//! <prefix>barrier           put with the question how far the log is, where etcd is too old to be asked without
//! ```
//!
//! # Writes
//!
//! A put that has failed may have happened. So the [`lane`] puts the same record again until it has been seen in the log. It may then be
//! there twice. Each has the node's number and its own, and what a node has carried out once it skips. Clients that have waited ten
//! seconds are told that it is not known, see [`super::stall`]. What etcd refuses has not happened, and is answered so.
//!
//! One record is under way at a time, and the next one waits a little for as many commands: what etcd does for a record hardly depends on how
//! many it has.
//!
//! # Time
//!
//! A record has the time of the node that made it, and takes effect at the highest time of all records so far. So commands expire the same
//! keys on all nodes, whatever their clocks say. A node whose clock is far ahead takes no writes ([`clocks`]). Readers go by the clock of their own node.
//! The revision of a commit follows from that time and from the revisions before it. Removing what has expired is a record as well, made by the node
//! that leads. It names the keys: of those that expire at the same time, every node knows another order.
//!
//! # Reads
//!
//! A read that must see every write that was answered anywhere waits for a [`barrier`]: etcd is asked how far the log is, once for
//! all reads that wait, and they begin when the map has come so far.
//!
//! # Snapshots
//!
//! When the log has become long, the node that leads writes the entries, as they are at one record, in chunks, then the head, which
//! makes them count, and then has etcd forget the records before ([`snapshot`]). A node that starts, or that has fallen behind so far,
//! loads the snapshot and goes on behind it. Leading is for efficiency only: two that think they lead do no harm, since the head is replaced
//! only if it is the one that was read before. Chunks that do not belong to a whole snapshot are deleted with the next one.
//!
//! If somebody else compacts etcd, records that no snapshot has may be forgotten. Then the node that leads, which has carried them out, writes a snapshot.
//! A node that lacks them waits for it. If etcd was restored from a backup, or the log deleted, a node finds that its last record is not there
//! any more, and goes back to the snapshot.
//!
//! # etcd's faults
//!
//! Old versions repeat events of a watch, lose some, or answer how far the log is from an old state. A repeated record is skipped. A lost one is noticed, since
//! the version of the key grows by one with each put; the node then loads everything again. And an etcd that may give old answers is asked by a write, see
//! [`barrier`].

mod barrier;
mod clocks;
mod follower;
mod keeper;
mod lane;
mod readers;
mod record;
mod replica;
mod shared;
mod snapshot;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use rustix::rand::{GetRandomFlags, getrandom};

use super::queue::Queue;
use super::stall::{Stall, UnderWay, Words};
use super::{Completion, Reply, Start};
use crate::etcd::{Credentials, Error, Etcd, TlsFiles};
use crate::store::{Command, CommitError, Map, Problem};
use barrier::Barrier;
use follower::Follower;
use keeper::Keeper;
use lane::Lane;
use readers::{Reader, Readers};
use replica::Replica;
use shared::{Keys, Shared};

pub use keeper::{ClusterStatus, Role};

/// The most bytes of keys and values of one command. etcd takes requests of 1.5 MiB, and other commands may be in the same record.
pub(super) const MOST_BYTES: usize = (1 << 20) + crate::store::MAX_KEY_BYTES;

/// What an operation takes in a record besides that, and how much of it a command has room for: some thousand operations.
const OPERATION_BYTES: usize = 28;
const OPERATIONS_BYTES: usize = 96 << 10;

/// Pause between two attempts to reach etcd at a start, and how often the log says so.
const RETRY: Duration = Duration::from_millis(250);
const REPORT: Duration = Duration::from_secs(5);

/// How often it is looked, at a start, whether everything is there.
const LOOK: Duration = Duration::from_millis(5);

/// What the log says about an etcd that does not answer.
const WORDS: Words = Words {
    stalled: "etcd has not agreed on a write",
    refused: "writes are refused until it does",
    over: "etcd agrees on writes again",
};

/// How to be a node of a cluster.
pub struct ClusterOptions {
    /// Where etcd is, such as `http://127.0.0.1:2379`; one or several of its members.
    pub endpoints: Vec<String>,
    /// What all keys in etcd begin with.
    pub prefix: String,
    /// Who etcd is to take this for.
    pub credentials: Option<Credentials>,
    /// Who vouches for etcd, and for this.
    pub tls: TlsFiles,
    /// What this node is called, for those who look.
    pub name: String,
    /// How many bytes of changes are kept for those who watch.
    pub history: u64,
    /// A snapshot is made when the log behind the last one has so many bytes, or later if the data is larger.
    pub snapshot_after: u64,
}

/// Why a node cannot join.
#[derive(Debug)]
pub enum JoinError {
    /// A file for TLS is not as it should be.
    Tls(String),
    /// etcd refuses what is asked of it.
    Etcd(Error),
    /// What is in etcd was written by a version that this one does not know.
    Unknown(String),
    /// There is no thread to be had.
    Io(std::io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Tls(error) => write!(f, "TLS to etcd: {error}"),
            JoinError::Etcd(error) => write!(f, "--cluster: {error}"),
            JoinError::Unknown(key) => write!(
                f,
                "--cluster: {key} in etcd was not written by this version of threadkv; choose another --cluster-prefix or upgrade"
            ),
            JoinError::Io(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// A node of a cluster.
pub(in crate::store) struct Cluster {
    queue: Queue,
    reads: Sender<Reader>,
    shared: Arc<Shared>,
}

impl Cluster {
    /// Loads what the cluster has, waiting for etcd if need be, and starts the threads.
    pub(super) fn join(
        options: ClusterOptions,
        map: Arc<Map>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Cluster, JoinError> {
        let ClusterOptions {
            endpoints,
            prefix,
            credentials,
            tls,
            name,
            history,
            snapshot_after,
        } = options;
        let under_way = Arc::new(UnderWay::new(WORDS));
        let shared = Arc::new(Shared {
            etcd: Etcd::new(endpoints, credentials, &tls).map_err(JoinError::Tls)?,
            keys: Keys::with_prefix(&prefix),
            producer: random(),
            name,
            replica: Mutex::new(Replica::new(Arc::clone(&map), history)),
            map,
            readers: Readers::default(),
            under_way: Arc::clone(&under_way),
            deliver: Arc::new(deliver),
            broken: AtomicBool::new(false),
            full: AtomicBool::new(false),
            ahead: AtomicBool::new(false),
            status: Mutex::default(),
            lease: Mutex::default(),
            leaving: AtomicBool::new(false),
        });
        let asks_by_writing = await_etcd(&shared, || barrier::must_write(&shared.etcd))?;
        await_etcd(&shared, || snapshot::load(&shared, false))?;
        let (queue, work) = Queue::new(&under_way);
        let (reads, readers) = unbounded();
        let stall = Stall {
            under_way,
            jobs: work.jobs.clone(),
            deliver: Arc::clone(&shared.deliver),
        };
        stall.start().map_err(JoinError::Io)?;
        let of = || Arc::clone(&shared);
        let (follower, lane) = (Follower::new(of()), Lane::new(of()));
        let mut keeper = Keeper::new(of(), snapshot_after);
        // Before there are writes.
        if let Err(error) = keeper.compare_clocks() {
            log::debug!("the other nodes' clocks are not known: {error}");
        }
        let barrier = Barrier::new(of(), readers, asks_by_writing);
        start("follower", move || follower.run())?;
        start("barrier", move || barrier.run())?;
        start("keeper", move || keeper.run())?;
        start("lane", move || work.run(|jobs| lane.run(jobs)))?;
        let cluster = Cluster {
            queue,
            reads,
            shared,
        };
        cluster.await_all()?;
        Ok(cluster)
    }

    /// Waits until the map has everything that is in the log.
    fn await_all(&self) -> Result<(), JoinError> {
        let mut reported = Instant::now();
        while !self.shared.is_current() {
            if self.shared.broken.load(Ordering::Acquire) {
                return Err(JoinError::Unknown(self.shared.keys.log.clone()));
            }
            if reported.elapsed() >= REPORT {
                log::warn!("the log in etcd has not been read to its end yet");
                reported = Instant::now();
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(super) fn submit(&self, command: Command, done: Completion) {
        let operations = command.operations() * OPERATION_BYTES;
        if command.size() + operations.saturating_sub(OPERATIONS_BYTES) > MOST_BYTES {
            let limit = MOST_BYTES as u64;
            return done(Err(CommitError::TooLarge { limit }), Duration::ZERO);
        }
        let shared = &self.shared;
        if shared.broken.load(Ordering::Acquire) || shared.ahead.load(Ordering::Acquire) {
            return done(Err(CommitError::Unavailable), Duration::ZERO);
        }
        self.queue.submit(command, done);
    }

    /// Calls `start` when the map has everything that was committed before this call, on any node.
    pub(super) fn catch_up(&self, start: Start) {
        let since = Instant::now();
        let reader = Reader { since, start };
        let _ = self.reads.send(reader); // the thread stays as long as this does
    }

    /// How many commands wait to be put into the log.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// For how long the map may have been without something that was committed. `None` if it has never had everything.
    pub(in crate::store) fn age(&self) -> Option<Duration> {
        self.shared.readers.current().map(|it| it.elapsed())
    }

    /// What it knows about the cluster.
    pub(in crate::store) fn status(&self) -> ClusterStatus {
        let mut status = self.shared.status().clone();
        if !self.shared.is_current() {
            status.role = Role::NoQuorum;
        }
        status
    }

    /// Whether this node does what one of them has to do.
    pub(super) fn leads(&self) -> bool {
        self.shared.status().role == Role::Leader
    }

    /// The worst known problem.
    pub(super) fn problem(&self) -> Option<Problem> {
        let shared = &self.shared;
        if shared.broken.load(Ordering::Acquire) {
            Some(Problem::Outdated)
        } else if !shared.is_current() || shared.under_way.is_stalled() {
            Some(Problem::NoQuorum)
        } else if shared.ahead.load(Ordering::Acquire) {
            Some(Problem::ClockAhead)
        } else if shared.full.load(Ordering::Acquire) {
            Some(Problem::EtcdFull)
        } else {
            None
        }
    }

    /// Has everything that was submitted committed, and takes no more.
    pub(super) fn close(&self) -> Result<(), CommitError> {
        let closed = self.queue.close();
        self.shared.leave();
        closed
    }
}

/// Does something at a start, again and again while etcd cannot be reached.
fn await_etcd<T>(
    shared: &Shared,
    attempt: impl Fn() -> Result<T, JoinError>,
) -> Result<T, JoinError> {
    let mut reported: Option<Instant> = None;
    loop {
        let error = match attempt() {
            Err(JoinError::Etcd(error @ Error::Unknown(_))) => error,
            result => return result,
        };
        if reported.is_none_or(|it| it.elapsed() >= REPORT) {
            log::warn!("waiting for etcd: {}: {error}", shared.etcd.endpoint());
            reported = Some(Instant::now());
        }
        thread::sleep(RETRY);
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), JoinError> {
    let thread = thread::Builder::new().name(name.into());
    thread.spawn(work).map(drop).map_err(JoinError::Io)
}

fn random() -> u64 {
    let mut random = [0; 8];
    let filled = getrandom(&mut random, GetRandomFlags::empty());
    match filled {
        Ok(8) => u64::from_le_bytes(random),
        // Nodes that start at different times differ all the same.
        _ => crate::store::revision::at_start(),
    }
}
