//! The map itself as a keyspace.

use parking_lot::RwLockWriteGuard;

use super::Contents;
use crate::budget::Budget;
use crate::store::keyspace::Keyspace;
use crate::store::removed::Removed;
use crate::store::revision::Counter;
use crate::store::{Entry, Expiry};

/// The entries under their lock, for a command that takes effect at once.
pub(super) struct Locked<'a> {
    pub(super) contents: RwLockWriteGuard<'a, Contents>,
    pub(super) removed: Removed,
    pub(super) budget: &'a Budget,
}

impl Keyspace for Locked<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.contents.entries.get(key)
    }

    fn set(&mut self, entry: Entry) {
        self.removed
            .some
            .extend(self.contents.set(entry, self.budget));
    }

    fn touch(&mut self, entry: Entry) {
        self.set(entry);
    }

    fn remove(&mut self, key: &str) {
        self.removed
            .some
            .extend(self.contents.remove(key, self.budget));
    }

    fn clear(&mut self) {
        self.removed.all = Some(self.contents.clear(self.budget));
    }

    fn footprint(&self) -> u64 {
        self.contents.entries.footprint()
    }

    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry> {
        let expired = self.contents.entries.expired(now);
        expired.take(most).cloned().collect()
    }

    fn has_live(&self, now: Expiry) -> bool {
        self.contents.entries.count_live(now, usize::MAX) > Some(0)
    }

    fn live_with(&self, prefix: &str, now: Expiry) -> Vec<Entry> {
        let found = self.contents.entries.with_prefix(prefix);
        found.filter(|it| it.is_live(now)).cloned().collect()
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.contents.counter
    }

    /// It takes effect at the time at which it is decided.
    fn rely_on(&mut self, _: &str) {}
}
