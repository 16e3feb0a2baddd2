//! Keys, values, and what may be done to them. Knows no HTTP.
//!
//! One map serves every read, whatever the mode. A write is a [`Command`] and goes through [`Store::submit`], the seam
//! between modes: they differ only in what has to happen before a command is applied to the map. In memory nothing has
//! to, so the outcome is there at once.

mod command;
mod key;
mod map;
mod value;

use std::sync::Arc;

pub use command::{Command, Outcome};
pub use key::{Key, KeyError, MAX_KEY_BYTES};
pub use map::Map;
pub use value::Value;

/// The store: the map that serves reads, and the way in for writes.
pub struct Store {
    map: Arc<Map>,
}

impl Store {
    /// A store that keeps its data in memory only.
    pub fn in_memory() -> Store {
        Store {
            map: Arc::new(Map::new()),
        }
    }

    /// The value of a key, if it has one. Sees every write that was answered before this call.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.map.get(key)
    }

    /// Commits a write and says what came of it.
    pub fn submit(&self, command: Command) -> Outcome {
        self.map.apply(command)
    }
}
