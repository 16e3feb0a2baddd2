//! Three ways to commit a write. In memory, a command takes effect in the map at once. With a working directory, it must be on disk
//! before ([`disk`]). In a cluster, etcd must have agreed on it ([`cluster`]).
//!
//! All decide commands (is the key there? is there room?) in commit order, against the state in which the command takes effect.

mod cluster;
mod disk;
mod queue;
mod stall;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Command, CommitError, Committed, Map, NotCurrent, Problem};

pub use cluster::{ClusterOptions, ClusterStatus, JoinError, Role};
pub use disk::{DiskOptions, Durability, OpenError};

pub(super) use cluster::Cluster;
use disk::Journal;

/// Called with the result of a command, and how long disk or etcd took over it.
type Completion = Box<dyn FnOnce(Result<Committed, CommitError>, Duration) + Send>;

/// Called when a read may begin, or must not.
type Start = Box<dyn FnOnce(Result<(), NotCurrent>) + Send>;

/// Called with replies that belong together.
type Deliver = dyn Fn(Vec<Reply>) + Send + Sync;

/// An answer of the store, on its way to whoever has asked.
pub struct Reply(Inner);

enum Inner {
    Write {
        done: Completion,
        result: Result<Committed, CommitError>,
        /// How long disk or etcd took.
        took: Duration,
    },
    Read {
        start: Start,
        result: Result<(), NotCurrent>,
    },
}

impl Reply {
    fn new(done: Completion, result: Result<Committed, CommitError>, took: Duration) -> Reply {
        Reply(Inner::Write { done, result, took })
    }

    /// The command was refused: nothing was written, nothing changed.
    fn refused(done: Completion) -> Reply {
        Reply::new(done, Err(CommitError::Unavailable), Duration::ZERO)
    }

    /// A read may begin, or must not.
    fn to_reader(start: Start, result: Result<(), NotCurrent>) -> Reply {
        Reply(Inner::Read { start, result })
    }

    /// Calls the closure of whoever has asked.
    pub fn deliver(self) {
        match self.0 {
            Inner::Write { done, result, took } => done(result, took),
            Inner::Read { start, result } => start(result),
        }
    }
}

/// Parts that have been loaded, by all stores of this process. Only whether it grows matters, to whoever supervises a start.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// A number that grows while a store is loaded.
pub(super) fn steps() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

/// Loading has got on.
fn step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// A command that waits to be committed.
struct Job {
    command: Command,
    done: Completion,
}

/// Commits commands to a map.
pub(super) struct Committer {
    map: Arc<Map>,
    way: Way,
}

/// How it does so.
enum Way {
    /// At once, on the thread that submits.
    Memory,
    /// On the journal thread.
    Disk(Journal),
    /// By way of etcd.
    Cluster(Cluster),
}

impl Committer {
    /// Commits to memory alone.
    pub(super) fn in_memory(map: Arc<Map>) -> Committer {
        let way = Way::Memory;
        Committer { map, way }
    }

    /// Opens a directory, loads its entries into the map, and commits to both. See [`super::Store::open`].
    pub(super) fn on_disk(
        directory: &Path,
        options: DiskOptions,
        map: Arc<Map>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Committer, OpenError> {
        let loaded = Arc::clone(&map);
        let journal = Journal::open(directory, options, loaded, deliver)?;
        let way = Way::Disk(journal);
        Ok(Committer { map, way })
    }

    /// Becomes a node of a cluster: loads what that has, and commits by way of it. See [`super::Store::join`].
    pub(super) fn in_cluster(
        options: ClusterOptions,
        map: Arc<Map>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Committer, JoinError> {
        let cluster = Cluster::join(options, Arc::clone(&map), deliver)?;
        let way = Way::Cluster(cluster);
        Ok(Committer { map, way })
    }

    pub(super) fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// Commits a command and calls `done` with the result. Never waits.
    pub(super) fn submit(
        &self,
        command: Command,
        done: impl FnOnce(Result<Committed, CommitError>, Duration) + Send + 'static,
    ) {
        match &self.way {
            Way::Memory => done(self.map.execute(command), Duration::ZERO),
            Way::Disk(journal) => journal.submit(command, Box::new(done)),
            Way::Cluster(cluster) => cluster.submit(command, Box::new(done)),
        }
    }

    /// Calls `start` when the map has everything that was committed before this call, anywhere.
    pub(super) fn catch_up(&self, start: impl FnOnce(Result<(), NotCurrent>) + Send + 'static) {
        match &self.way {
            Way::Memory | Way::Disk(_) => start(Ok(())),
            Way::Cluster(cluster) => cluster.catch_up(Box::new(start)),
        }
    }

    /// The cluster, where this is a node of one.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match &self.way {
            Way::Cluster(cluster) => Some(cluster),
            Way::Memory | Way::Disk(_) => None,
        }
    }

    /// Whether it is for this process to remove what has expired.
    pub(super) fn sweeps(&self) -> bool {
        self.cluster().is_none_or(Cluster::leads)
    }

    /// How many commands wait to be committed.
    pub(super) fn queued(&self) -> usize {
        match &self.way {
            Way::Memory => 0,
            Way::Disk(journal) => journal.queued(),
            Way::Cluster(cluster) => cluster.queued(),
        }
    }

    /// The problem with disk or etcd, if there is one.
    pub(super) fn problem(&self) -> Option<Problem> {
        match &self.way {
            Way::Memory => None,
            Way::Disk(journal) => journal.problem(),
            Way::Cluster(cluster) => cluster.problem(),
        }
    }

    /// Makes everything that was submitted durable, and takes no more.
    pub(super) fn close(&self) -> Result<(), CommitError> {
        match &self.way {
            Way::Memory => Ok(()),
            Way::Disk(journal) => journal.close(),
            Way::Cluster(cluster) => cluster.close(),
        }
    }
}
