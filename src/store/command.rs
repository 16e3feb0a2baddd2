//! What may be done to the store, and what comes of it.

use super::state::State;
use super::{Entry, Expiry, Key, Value};

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
    /// Removes keys that have expired, a bounded number of them. Nobody can tell but by the space they took.
    Sweep,
}

/// What may be done to a key.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Sets its value, and its expiry or that it has none.
    Put {
        /// The key to set.
        key: Key,
        /// Its value from now on.
        value: Value,
        /// When it expires; `None` for never.
        expiry: Option<Expiry>,
    },
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

/// What came of a command, decided against the state that it took effect in.
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
    /// Carries the command out on some state: the map itself, or one that is staged for a commit.
    pub(super) fn execute(self, state: &mut impl State) -> Outcome {
        match self {
            Command::One(operation) => {
                if operation.execute(state) {
                    Outcome::Done
                } else {
                    Outcome::NotFound
                }
            }
            Command::Bulk(operations) => {
                let execute = |operation: Operation| operation.execute(state);
                Outcome::Each(operations.into_iter().map(execute).collect())
            }
            Command::Clear => {
                state.clear();
                Outcome::Done
            }
            Command::Sweep => {
                let expired = state.expired(SWEPT_AT_ONCE);
                let swept = expired.len();
                expired.into_iter().for_each(|key| state.remove(key));
                Outcome::Swept(swept)
            }
        }
    }

    /// About how many bytes it takes to write down. A touched value is written again: `stored` tells how long it is.
    pub(super) fn size(&self, stored: impl Fn(&Key) -> usize) -> usize {
        match self {
            Command::One(operation) => operation.size(&stored),
            Command::Bulk(operations) => operations.iter().map(|it| it.size(&stored)).sum(),
            Command::Clear | Command::Sweep => 0,
        }
    }
}

impl Operation {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put { key, .. }
            | Operation::Delete { key }
            | Operation::Touch { key, .. } => key,
        }
    }

    /// Carries the operation out. Returns whether the key was there, or has been put.
    fn execute(self, state: &mut impl State) -> bool {
        match self {
            Operation::Put { key, value, expiry } => {
                state.set(key, Entry { value, expiry });
                true
            }
            Operation::Delete { key } => {
                let found = state.get(&key).is_some_and(Entry::is_live);
                // Also where it has expired, and is still in the way.
                state.remove(key);
                found
            }
            Operation::Touch { key, expiry } => {
                let live = state.get(&key).filter(|entry| entry.is_live());
                let Some(value) = live.map(|entry| entry.value.clone()) else {
                    return false;
                };
                let expiry = Some(expiry);
                state.set(key, Entry { value, expiry });
                true
            }
        }
    }

    fn size(&self, stored: impl Fn(&Key) -> usize) -> usize {
        let value = match self {
            Operation::Put { value, .. } => value.as_str().len(),
            Operation::Delete { .. } => 0,
            Operation::Touch { key, .. } => stored(key),
        };
        self.key().as_str().len() + value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_counts_as_much_as_the_value_that_it_writes_again() {
        let key = Key::try_from(&b"key"[..]).unwrap();
        let put = Operation::Put {
            key: key.clone(),
            value: Value::text("value"),
            expiry: None,
        };
        let expiry = Expiry::at_millis(1);
        let touch = Operation::Touch { key, expiry };
        let size = |command: Command| command.size(|_| 1000);
        assert_eq!(size(Command::One(put.clone())), 8);
        assert_eq!(size(Command::One(touch.clone())), 1003);
        assert_eq!(size(Command::Bulk(vec![put, touch])), 1011);
    }
}
