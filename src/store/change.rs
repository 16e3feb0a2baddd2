//! What commits change: as the log writes it down, and as those see it who watch.

use super::{Entry, Key, Revision};

/// One step of a commit. Steps with the same revision belong to the same commit.
#[derive(Clone, Debug)]
pub enum Change {
    /// The key has this entry from now on.
    Put(Entry),
    /// The same; only expiry and revision differ from the entry that it had.
    Touch(Entry),
    /// The key is gone.
    Remove {
        /// Which key.
        key: Key,
        /// That of the commit.
        revision: Revision,
        /// Why it is gone.
        cause: Cause,
    },
    /// All keys that begin with this prefix are gone. With an empty one, that says everything. With any other, a
    /// [`Change::Remove`] of each key follows.
    Clear {
        /// The prefix.
        prefix: Box<str>,
        /// That of the commit.
        revision: Revision,
    },
}

/// Why a key is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was deleted.
    Deleted,
    /// It has expired.
    Expired,
    /// A [`Change::Clear`] of its prefix has removed it, and says so.
    Cleared,
}

impl Change {
    /// The revision of its commit.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(entry) | Change::Touch(entry) => entry.revision(),
            Change::Remove { revision, .. } | Change::Clear { revision, .. } => *revision,
        }
    }

    /// Whether it says that a key has expired.
    pub(super) fn is_expiry(&self) -> bool {
        matches!(
            self,
            Change::Remove {
                cause: Cause::Expired,
                ..
            }
        )
    }

    /// About how many bytes of memory it keeps.
    pub(super) fn footprint(&self) -> u64 {
        let text = match self {
            Change::Put(entry) | Change::Touch(entry) => entry.record_bytes(),
            Change::Remove { key, .. } => key.as_str().len(),
            Change::Clear { prefix, .. } => prefix.len(),
        };
        // Its own, and what the allocator adds to its text.
        (text + size_of::<Change>() + 32) as u64
    }
}
