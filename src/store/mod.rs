//! Keys, values, and what may be done to them. Knows no HTTP.
//!
//! One map serves every read, whatever the mode. A write is a [`Command`] and goes through [`Store::submit`], the seam
//! between modes: they differ only in what has to happen before a command takes effect in the map. In memory nothing has
//! to; with a working directory it must be on disk, see `disk`.

mod command;
mod disk;
mod entry;
mod key;
mod map;
mod state;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use command::{Command, Outcome};
pub use disk::{Answer, Durability, OpenError};
pub use entry::{Entry, Expiry, Value};
pub use key::{Key, KeyError, MAX_KEY_BYTES};
pub use map::Map;

use disk::Journal;

/// The store: the map that serves reads, and the way in for writes.
pub struct Store {
    map: Arc<Map>,
    /// What commits writes; without it they take effect at once.
    journal: Option<Journal>,
}

/// The store cannot take writes: a write to the disk has failed. Reads go on.
///
/// The write that failed has not taken effect. It stays that way until the process is restarted: once a disk has failed
/// to make something durable, nothing tells what it did with what it was given before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store cannot be written to")
    }
}

impl std::error::Error for Unavailable {}

impl Store {
    /// A store that keeps its data in memory only.
    pub fn in_memory() -> Store {
        Store {
            map: Arc::new(Map::new()),
            journal: None,
        }
    }

    /// Opens the store in a directory, creating it if there is none, and loads it.
    ///
    /// `deliver` is called on the thread that commits, with the answers of each batch, and must not wait; it has
    /// [`Answer::deliver`] called for each, on another thread.
    pub fn open(
        directory: &Path,
        durability: Durability,
        deliver: impl Fn(Vec<Answer>) + Send + 'static,
    ) -> Result<Store, OpenError> {
        let map = Arc::new(Map::new());
        let journal = Journal::open(directory, durability, Arc::clone(&map), deliver)?;
        Ok(Store {
            map,
            journal: Some(journal),
        })
    }

    /// The value of a key, if it has one. Sees every write that was answered before this call.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.map.get(key)
    }

    /// Commits a write, and calls `done` with what came of it: now, where nothing has to be waited for, or later, on
    /// another thread. Never waits itself.
    pub fn submit(
        &self,
        command: Command,
        done: impl FnOnce(Result<Outcome, Unavailable>) + Send + 'static,
    ) {
        match &self.journal {
            None => done(Ok(self.map.execute(command))),
            Some(journal) => journal.submit(command, Box::new(done)),
        }
    }

    /// Makes everything that was submitted durable. Nothing can be submitted any more.
    pub fn close(&self) -> Result<(), Unavailable> {
        self.journal.as_ref().map_or(Ok(()), Journal::close)
    }
}
