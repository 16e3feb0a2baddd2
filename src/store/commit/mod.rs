//! Two ways to commit a write. In memory, a command takes effect in the map at once. With a working directory, it must be on disk
//! before ([`disk`]).
//!
//! Both decide commands (is the key there? is there room?) in commit order, against the state in which the command takes effect.

mod disk;
mod stall;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Command, CommitError, Committed, Map, Problem};

pub(super) use disk::steps;
pub use disk::{DiskOptions, Durability, OpenError};

use disk::Journal;

/// Called with the result of a command, and how long the disk took over it.
type Completion = Box<dyn FnOnce(Result<Committed, CommitError>, Duration) + Send>;

/// Called with the replies to a batch.
type Deliver = dyn Fn(Vec<Reply>) + Send + Sync;

/// The result of a command, on its way to the submitter.
pub struct Reply {
    done: Completion,
    result: Result<Committed, CommitError>,
    /// How long the disk took.
    disk: Duration,
}

impl Reply {
    /// The command was refused: nothing was written, nothing changed.
    fn refused(done: Completion) -> Reply {
        Reply {
            done,
            result: Err(CommitError::Unavailable),
            disk: Duration::ZERO,
        }
    }

    /// Calls the submitter's closure.
    pub fn deliver(self) {
        (self.done)(self.result, self.disk);
    }
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
        }
    }

    /// How many commands wait to be committed.
    pub(super) fn queued(&self) -> usize {
        match &self.way {
            Way::Memory => 0,
            Way::Disk(journal) => journal.queued(),
        }
    }

    /// The problem with the disk, if there is one.
    pub(super) fn problem(&self) -> Option<Problem> {
        match &self.way {
            Way::Memory => None,
            Way::Disk(journal) => journal.problem(),
        }
    }

    /// Makes everything that was submitted durable, and takes no more.
    pub(super) fn close(&self) -> Result<(), CommitError> {
        match &self.way {
            Way::Memory => Ok(()),
            Way::Disk(journal) => journal.close(),
        }
    }
}
