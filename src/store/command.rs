//! What may be done to the store, and what comes of it.

use super::state::State;
use super::{Entry, Expiry, Key, Value};

/// A write. Commands take effect one after the other, each whole or not at all.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets a key's value, and its expiry or that it has none.
    Put {
        /// The key to set.
        key: Key,
        /// Its value from now on.
        value: Value,
        /// When it expires; `None` for never.
        expiry: Option<Expiry>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key to remove.
        key: Key,
    },
    /// Removes every key.
    Clear,
}

/// What came of a command, decided against the state that it took effect in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// There was no such key; nothing changed.
    NotFound,
}

impl Command {
    /// Carries the command out on some state: the map itself, or one that is staged for a commit.
    pub(super) fn execute(self, state: &mut impl State) -> Outcome {
        match self {
            Command::Put { key, value, expiry } => {
                state.set(key, Entry { value, expiry });
                Outcome::Done
            }
            Command::Delete { key } => {
                let found = state.get(&key).is_some_and(Entry::is_live);
                // Also where it has expired, and is still in the way.
                state.remove(key);
                if found {
                    Outcome::Done
                } else {
                    Outcome::NotFound
                }
            }
            Command::Clear => {
                state.clear();
                Outcome::Done
            }
        }
    }

    /// About how many bytes it takes to write down.
    pub(super) fn size(&self) -> usize {
        match self {
            Command::Put { key, value, .. } => key.as_str().len() + value.as_str().len(),
            Command::Delete { key } => key.as_str().len(),
            Command::Clear => 0,
        }
    }
}
