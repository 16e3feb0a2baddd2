//! Keys and values, and the commands that change them. Knows no HTTP.
//!
//! ```text
//! Arc<Store> ── Map ── RwLock ── Entries ── HashMap: key to entry
//!      │                               └── the same keys in order, and by deadline
//!      └── Committer: memory, disk or etcd
//! ```
//!
//! The workers share the store as an `Arc`. One [`map`], behind an `RwLock`, serves every read, whatever the mode. A write is a
//! [`Command`] and goes through [`Store::submit`]. The modes differ only in what must happen before a command takes effect in the
//! map, see [`commit`]. What the lock guards is in [`index`].

mod audience;
mod change;
mod command;
mod commit;
mod entry;
mod footprint;
mod frozen;
mod history;
mod index;
mod interest;
mod key;
mod keyspace;
mod listing;
mod map;
mod meters;
mod removed;
mod revision;
mod sweeper;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use change::{Cause, Change};
pub use command::{Command, MAX_OPERATIONS, Operation, Outcome};
pub use commit::{
    ClusterOptions, ClusterStatus, DiskOptions, Durability, JoinError, OpenError, Reply, Role,
};
pub use entry::{Entry, Expiry, Kind};
pub use history::{Commits, Past};
pub use interest::Interest;
pub use key::{Key, KeyError, MAX_KEY_BYTES};
pub use listing::Listing;
pub use map::Counted;
pub use meters::Meters;
pub use revision::{Committed, Condition, Revision, Revisions, Unmet, When};

use crate::budget::Budget;

use commit::{Cluster, Committer};
use frozen::Frozen;
use map::Map;
use sweeper::Sweeper;

/// The store: the map that serves reads, and the way in for writes.
pub struct Store {
    committer: Arc<Committer>,
    _sweeper: Sweeper,
}

/// A number that grows while a store of this process is loaded: blocks and batches. Whoever supervises a start sees that it gets on.
pub fn loading_steps() -> u64 {
    commit::steps()
}

/// How many bytes of history a store has as a rule.
pub const HISTORY_BYTES: u64 = 16 << 20;

/// How much a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Keys that have not expired.
    pub keys: usize,
    /// Bytes of all keys and values, also of expired ones that were not swept yet.
    pub bytes: usize,
}

/// Why a write has no outcome. Reads go on in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The write was refused and has not taken effect: the disk is full, hangs, or has failed.
    Unavailable,
    /// The disk failed over this write. It has not taken effect, but the disk may have kept it, so it may show up after a restart.
    /// After a failed sync of the log no more writes are taken until then.
    DiskFailed,
    /// The disk hangs over this write, which may or may not take effect.
    TimedOut,
    /// The command has more bytes than a cluster can agree on. Nothing has changed.
    TooLarge {
        /// The most that it may have.
        limit: u64,
    },
    /// The data would take more memory than it may. Nothing has changed. What does not grow the data is taken.
    Full {
        /// How many bytes the data may take.
        limit: u64,
        /// How many it takes.
        used: u64,
    },
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommitError::Unavailable => "the store cannot be written to",
            CommitError::DiskFailed => {
                "the disk failed; the write may or may not be there after a restart"
            }
            CommitError::TimedOut => {
                "the store did not answer in time; the write may or may not have happened"
            }
            CommitError::TooLarge { .. } => "too large for a cluster",
            CommitError::Full { .. } => "store is full",
        })
    }
}

/// A node of a cluster cannot tell whether it has everything that was committed, so a read could miss something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCurrent;

impl fmt::Display for NotCurrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node cannot tell whether it is current")
    }
}

impl std::error::Error for NotCurrent {}

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A sync failed. It is unknown which bytes are on disk, so nothing is written until the process is restarted.
    Failed,
    /// The disk has not finished a write in ten seconds. Writes are refused until it does.
    Stalled,
    /// The disk refused the last write; it may be full. Each new write is tried.
    Refusing,
    /// Snapshots fail, so the log grows.
    NoSnapshots,
    /// etcd does not answer, or its members do not agree.
    NoQuorum,
    /// etcd has no room for writes.
    EtcdFull,
    /// The clock is far ahead of the other nodes'. Writes are refused until it is not.
    ClockAhead,
    /// A newer version has written something into etcd that this one does not know.
    Outdated,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::Failed => {
                "the disk has failed; writes are refused until the server is restarted"
            }
            Problem::Stalled => "the disk does not end a write; writes are refused until it does",
            Problem::Refusing => "the disk does not take writes, it may be full",
            Problem::NoSnapshots => "snapshots cannot be written, so the log grows",
            Problem::NoQuorum => "etcd does not answer, or has no quorum; nothing can be read or written until it does",
            Problem::EtcdFull => "etcd has no room, writes are refused",
            Problem::ClockAhead => {
                "the clock is far ahead of the other nodes'; writes are refused until it is set right"
            }
            Problem::Outdated => "a newer version has written to etcd what this one does not know; upgrade this node",
        })
    }
}

impl std::error::Error for CommitError {}

impl Store {
    /// A store that keeps its data in memory only, within a budget, and so many bytes of history beside it. Fails where there is no thread to
    /// be had.
    pub fn in_memory(history: u64, budget: Arc<Budget>) -> io::Result<Store> {
        let map = Map::at(revision::at_start(), history, budget);
        Store::with(Committer::in_memory(Arc::new(map)))
    }

    /// Opens the store in a directory, creating it if there is none, and loads it.
    ///
    /// Entries are loaded even if they take more than the budget.
    ///
    /// `deliver` is called on threads of the store, with the replies to each batch, and must not wait; it has
    /// [`Reply::deliver`] called for each, on another thread.
    pub fn open(
        directory: &Path,
        options: DiskOptions,
        budget: Arc<Budget>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Store, OpenError> {
        let map = Arc::new(Map::new(budget));
        let committer = Committer::on_disk(directory, options, map, deliver)?;
        let budget = committer.map().budget();
        let (used, limit) = (budget.stored(), budget.data_limit());
        if used > limit {
            log::warn!(
                "the data in {} takes {used} bytes of memory, and --max-memory leaves {limit} for data: \
                 only writes that do not make it grow are taken",
                directory.display()
            );
        }
        Store::with(committer)
            .map_err(|error| OpenError::Io("start a thread for", directory.into(), error))
    }

    /// Becomes a node of a cluster, whose entries are kept in etcd and in the memory of each node. Waits until etcd can be reached and everything
    /// is loaded. `deliver` as for [`Store::open`].
    pub fn join(
        options: ClusterOptions,
        budget: Arc<Budget>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Store, JoinError> {
        let map = Arc::new(Map::new(budget));
        let committer = Committer::in_cluster(options, map, deliver)?;
        Store::with(committer).map_err(JoinError::Io)
    }

    fn with(committer: Committer) -> io::Result<Store> {
        let committer = Arc::new(committer);
        let sweeper = Sweeper::start(Arc::clone(&committer))?;
        Ok(Store {
            committer,
            _sweeper: sweeper,
        })
    }

    /// The entry of a key, if it has one. Sees every write that was answered before this call, as all reads do.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        self.committer.map().get(key)
    }

    /// The entries of several keys, as they are at one moment, and the revision of the store then.
    pub fn get_all(&self, keys: &[Key]) -> (Vec<Option<Entry>>, Revision) {
        self.committer.map().get_all(keys)
    }

    /// The revision of the last commit that readers see.
    pub fn revision(&self) -> Revision {
        self.committer.map().revision()
    }

    /// What is known of the past.
    pub fn past(&self) -> Past {
        self.committer.map().past()
    }

    /// Whether one can go on from a revision: the state had it, and all changes behind it are known.
    pub fn remembers(&self, revision: Revision) -> bool {
        self.committer.map().remembers(revision)
    }

    /// What has happened to these keys in the next commits behind a revision. It looks at some thousand changes, and returns some
    /// hundreds. `None` if commits behind the revision have been forgotten.
    pub fn commits_after(&self, revision: Revision, interest: &Interest) -> Option<Commits> {
        self.committer.map().commits_after(revision, interest)
    }

    /// Has `listener` called after commits, on the threads that make them, while [`Store::set_watched`] says so. It must not wait. For the
    /// first call only.
    pub fn on_commit(&self, listener: impl Fn() + Send + Sync + 'static) {
        let audience = self.committer.map().audience();
        audience.set_listener(Box::new(listener));
    }

    /// The listener knows everything up to this revision. What is behind it is not forgotten so soon.
    pub fn set_told(&self, revision: Revision) {
        self.committer.map().audience().set_told(revision);
    }

    /// Whether to call the listener. Who says yes, and then reads the revision, is told of all commits behind that.
    pub fn set_watched(&self, watched: bool) {
        self.committer.map().audience().set_listens(watched);
    }

    /// How many keys there are that begin with `prefix`. Takes about a millisecond for a million of them.
    pub fn count(&self, prefix: &str) -> usize {
        self.committer.map().count(prefix)
    }

    /// The entries of keys that begin with `prefix`, those behind `after` if it is given, in byte order of the keys.
    ///
    /// They are fetched as the iterator goes on, some at a time, so that nobody waits for a long listing. It holds all
    /// keys that are there from its beginning to its end; those put or removed meanwhile it may hold or not. Each is live when the
    /// iterator returns it.
    pub fn list(&self, prefix: String, after: Option<String>) -> Listing {
        Listing::of(self.committer.map(), prefix, after)
    }

    /// The entries of keys that begin with `prefix`, as they are now, and the revision of that. They are fetched as the iterator goes on,
    /// while others write; for each key that they change before the iterator gets there, the old entry is kept. Some may have
    /// expired.
    pub fn copy(&self, prefix: &str) -> (impl Iterator<Item = Entry> + Send + use<>, Revision) {
        let frozen = Frozen::of_prefix(self.committer.map(), prefix);
        let revision = frozen.revision();
        (frozen, revision)
    }

    /// The same, and how many of them are live now.
    pub fn counted_copy(
        &self,
        prefix: &str,
    ) -> (
        impl Iterator<Item = Entry> + Send + use<>,
        Revision,
        Counted,
    ) {
        let (frozen, counted) = Frozen::counted(self.committer.map(), prefix);
        let revision = frozen.revision();
        (frozen, revision, counted)
    }

    /// How much the store holds.
    pub fn size(&self) -> Size {
        Size {
            keys: self.committer.map().len(),
            bytes: self.committer.map().bytes(),
        }
    }

    /// How much memory the data may take, and takes.
    pub fn budget(&self) -> &Arc<Budget> {
        self.committer.map().budget()
    }

    /// What the store counts about itself.
    pub fn meters(&self) -> &Meters {
        self.committer.map().meters()
    }

    /// How many writes wait to be committed.
    pub fn queued(&self) -> usize {
        self.committer.queued()
    }

    /// For how many milliseconds the key is overdue that should have been the first to be removed since it has expired; 0 if there is none.
    pub fn expiry_lag(&self) -> u64 {
        self.committer.map().expiry_lag()
    }

    /// The worst known problem of the store.
    pub fn problem(&self) -> Option<Problem> {
        self.committer.problem()
    }

    /// Commits a write and calls `done` with the result, and how long the disk took: at once in memory, later and on another thread with a
    /// disk. Never waits.
    pub fn submit(
        &self,
        command: Command,
        done: impl FnOnce(Result<Committed, CommitError>, Duration) + Send + 'static,
    ) {
        let map = Arc::clone(self.committer.map());
        self.committer.submit(command, move |result, disk| {
            if let Err(error) = &result {
                map.meters().count_refused(*error);
            }
            done(result, disk);
        });
    }

    /// Calls `start` once reads see every write that was answered before this call, by any node: at once, unless this is a node of a
    /// cluster; later and on another thread there. It gets an error where that cannot be known.
    pub fn catch_up(&self, start: impl FnOnce(Result<(), NotCurrent>) + Send + 'static) {
        self.committer.catch_up(start);
    }

    /// Whether this is a node of a cluster.
    pub fn is_in_cluster(&self) -> bool {
        self.committer.cluster().is_some()
    }

    /// What is known of the cluster, where this is a node of one.
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.committer.cluster().map(Cluster::status)
    }

    /// For how long reads may miss what other nodes have committed, where this is a node of a cluster.
    pub fn age(&self) -> Option<Duration> {
        self.committer.cluster()?.age()
    }

    /// Makes everything that was submitted durable. Nothing can be submitted any more. Gives up with
    /// [`CommitError::TimedOut`] after 15 seconds.
    pub fn close(&self) -> Result<(), CommitError> {
        self.committer.close()
    }
}

#[cfg(test)]
mod tests;
