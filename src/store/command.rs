//! What may be done to the store, and what comes of it.

use super::{Key, Value};

/// A write. Commands take effect one after the other, each whole or not at all.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets a key's value; drops any expiry the key had.
    Put {
        /// The key to set.
        key: Key,
        /// Its value from now on.
        value: Value,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key to remove.
        key: Key,
    },
    /// Removes every key.
    Clear,
}

/// What came of a command, decided against the state that it was applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// There was no such key; nothing changed.
    NotFound,
}
