//! Commands that change the store, and their outcomes.

use std::collections::{HashMap, HashSet};
use std::slice;

use super::keyspace::Keyspace;
use super::{CommitError, Entry, Expiry, Key};

/// A [`Command::Bulk`] should not have more operations. Readers wait while it is applied, about a microsecond an operation.
pub const MAX_OPERATIONS: usize = 100_000;

/// The most keys that one [`Command::Sweep`] removes. Readers wait for it, about a microsecond a key.
pub(super) const SWEPT_AT_ONCE: usize = 256;

/// A write. Commands take effect one after the other, each whole or not at all.
#[derive(Clone, Debug)]
pub enum Command {
    /// One operation on one key.
    One(Operation),
    /// Several, in order, as one step.
    Bulk(Vec<Operation>),
    /// Removes every key.
    Clear,
    /// Removes a bounded number of expired keys. Readers see no difference; it frees their memory.
    Sweep,
}

/// A change to one key.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Sets its value, and its expiry or that it has none.
    Put(Entry),
    /// Removes it, if it is there.
    Delete {
        /// The key to remove.
        key: Key,
    },
    /// Sets its expiry, if it is there, and leaves its value alone.
    Touch {
        /// The key to touch.
        key: Key,
        /// When it expires from now on.
        expiry: Expiry,
    },
}

/// The outcome of a command, decided against the state in which the command took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// There was no such key; nothing changed.
    NotFound,
    /// For each operation of a bulk command whether its key was there, or has been put.
    Each(Vec<bool>),
    /// How many keys were swept.
    Swept(usize),
}

impl Command {
    /// About how many operations it carries out, as a measure of time.
    pub(super) fn operations(&self) -> usize {
        match self {
            Command::Bulk(operations) => operations.len(),
            Command::One(_) | Command::Clear => 1,
            Command::Sweep => SWEPT_AT_ONCE,
        }
    }

    /// Carries the command out on a keyspace: the map itself, or one that is staged for a commit. `now` decides which entries have
    /// expired. It is the same for all commands of a batch.
    pub(super) fn execute(&self, keys: &mut impl Keyspace, now: Expiry) -> Outcome {
        match self {
            Command::One(operation) => {
                if operation.execute(keys, now) {
                    Outcome::Done
                } else {
                    Outcome::NotFound
                }
            }
            Command::Bulk(operations) => {
                let execute = |operation: &Operation| operation.execute(keys, now);
                Outcome::Each(operations.iter().map(execute).collect())
            }
            Command::Clear => {
                keys.clear();
                Outcome::Done
            }
            Command::Sweep => {
                let expired = keys.expired(SWEPT_AT_ONCE, now);
                let swept = expired.len();
                expired.iter().for_each(|entry| keys.remove(entry.key()));
                Outcome::Swept(swept)
            }
        }
    }

    /// Whether there is room for it where the data may take `limit` bytes. `most` is what it adds at most, see
    /// [`Command::grows_at_most`].
    ///
    /// The command is judged whole. Only puts can be refused, and only if the keys that they set take more memory than before: a new
    /// key counts with all that it needs, a key that is there with its value only. So what does not grow goes on in a full store, and in
    /// one that is over the limit because it was opened with a smaller one. The deadline that a touch adds is counted, but never judged.
    pub(super) fn check_room(
        &self,
        keys: &impl Keyspace,
        most: u64,
        limit: u64,
    ) -> Result<(), CommitError> {
        let used = keys.footprint();
        // Nearly always. Otherwise keys have to be looked up.
        if used + most <= limit {
            return Ok(());
        }
        let growth = self.growth(keys);
        if growth <= 0 || used + growth.unsigned_abs() <= limit {
            return Ok(());
        }
        Err(CommitError::Full { limit, used })
    }

    /// How many bytes of memory it adds at most.
    pub(super) fn grows_at_most(&self) -> u64 {
        let growth = |operation: &Operation| match operation {
            Operation::Put(entry) => entry.footprint(),
            Operation::Delete { .. } | Operation::Touch { .. } => 0,
        };
        self.all_operations().iter().map(growth).sum()
    }

    /// How many bytes of memory it adds, or removes.
    fn growth(&self, keys: &impl Keyspace) -> i64 {
        // Of several operations on a key the last one counts.
        let mut after = HashMap::new();
        for operation in self.all_operations() {
            match operation {
                Operation::Put(entry) => after.insert(entry.key(), Some(entry)),
                Operation::Delete { key } => after.insert(key.as_str(), None),
                Operation::Touch { .. } => None,
            };
        }
        let growth = |(key, new): (&str, Option<&Entry>)| {
            let (old, new) = match (keys.get(key), new) {
                (Some(old), Some(new)) => (
                    old.footprint_without_deadline(),
                    new.footprint_without_deadline(),
                ),
                (old, new) => (
                    old.map_or(0, Entry::footprint),
                    new.map_or(0, Entry::footprint),
                ),
            };
            new as i64 - old as i64
        };
        after.into_iter().map(growth).sum()
    }

    /// Changes the outcome of touches that came too late, see [`Changes::touched`](super::keyspace::Changes::touched): they found
    /// nothing. `late` are the keys. A put makes its key live, so touches behind it in the batch are not late. Returns whether
    /// anything has changed.
    pub(super) fn touch_nothing(&self, late: &mut HashSet<String>, outcome: &mut Outcome) -> bool {
        let before = outcome.clone();
        for (n, operation) in self.all_operations().iter().enumerate() {
            match operation {
                Operation::Put(entry) => {
                    late.remove(entry.key());
                }
                Operation::Touch { key, .. } if late.contains(key.as_str()) => match outcome {
                    Outcome::Each(found) => found[n] = false,
                    _ => *outcome = Outcome::NotFound,
                },
                Operation::Touch { .. } | Operation::Delete { .. } => {}
            }
        }
        *outcome != before
    }

    fn all_operations(&self) -> &[Operation] {
        match self {
            Command::One(operation) => slice::from_ref(operation),
            Command::Bulk(operations) => operations,
            Command::Clear | Command::Sweep => &[],
        }
    }

    /// About how many bytes it takes to write down.
    pub(super) fn size(&self) -> usize {
        self.all_operations().iter().map(Operation::size).sum()
    }

    /// Whether a client asks only to remove keys. Such a command may use the reserve of a full disk.
    pub(super) fn makes_room(&self) -> bool {
        let deletes = |operation: &Operation| matches!(operation, Operation::Delete { .. });
        match self {
            Command::One(operation) => deletes(operation),
            Command::Bulk(operations) => operations.iter().all(deletes),
            Command::Clear => true,
            Command::Sweep => false,
        }
    }
}

impl Operation {
    /// Carries the operation out. Returns whether the key was there, or has been put.
    fn execute(&self, keys: &mut impl Keyspace, now: Expiry) -> bool {
        match self {
            Operation::Put(entry) => {
                keys.set(entry.clone());
                true
            }
            Operation::Delete { key } => {
                let found = keys
                    .get(key.as_str())
                    .is_some_and(|entry| entry.is_live(now));
                // Also where it has expired, and is still in the way.
                keys.remove(key.as_str());
                found
            }
            Operation::Touch { key, expiry } => {
                let live = keys.get(key.as_str()).filter(|entry| entry.is_live(now));
                let Some(touched) = live.map(|entry| entry.with_expiry(Some(*expiry))) else {
                    return false;
                };
                keys.touch(touched);
                true
            }
        }
    }

    fn size(&self) -> usize {
        match self {
            Operation::Put(entry) => entry.bytes(),
            Operation::Delete { key } | Operation::Touch { key, .. } => key.as_str().len(),
        }
    }
}
