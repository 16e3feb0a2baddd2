//! The map itself as a keyspace.

use parking_lot::RwLockWriteGuard;

use super::Contents;
use crate::budget::Budget;
use crate::store::change::{Cause, Change};
use crate::store::keyspace::{self, Keyspace};
use crate::store::meters::Meters;
use crate::store::removed::Removed;
use crate::store::revision::Counter;
use crate::store::{Entry, Expiry, Revision};

/// The entries under their lock, for a command that takes effect at once.
pub(super) struct Locked<'a> {
    pub(super) contents: RwLockWriteGuard<'a, Contents>,
    pub(super) removed: Removed,
    pub(super) budget: &'a Budget,
    pub(super) meters: &'a Meters,
}

impl Locked<'_> {
    fn note(&mut self, change: &Change) {
        self.contents.history.push(change);
        if change.is_expiry() {
            self.meters.count_expired();
        }
    }

    fn note_gone(&mut self, old: &Entry, revision: Revision, cause: Cause) {
        if let Some(gone) = keyspace::gone(old, revision, cause) {
            self.note(&gone);
        }
    }
}

impl Keyspace for Locked<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.contents.entries.get(key)
    }

    fn set(&mut self, entry: Entry, now: Expiry) {
        let revision = entry.revision();
        let put = Change::Put(entry.clone());
        let old = self.contents.set(entry, self.budget);
        if let Some(old) = old {
            if !old.is_live(now) {
                self.note_gone(&old, revision, Cause::Expired);
            }
            self.removed.some.push(old);
        }
        self.note(&put);
    }

    fn touch(&mut self, entry: Entry) {
        self.note(&Change::Touch(entry.clone()));
        let old = self.contents.set(entry, self.budget);
        self.removed.some.extend(old);
    }

    fn remove(&mut self, key: &str, revision: Revision, cause: Cause) {
        if let Some(old) = self.contents.remove(key, self.budget) {
            self.note_gone(&old, revision, cause);
            self.removed.some.push(old);
        }
    }

    fn clear(&mut self, revision: Revision) {
        let all = self.contents.clear(self.budget);
        self.removed.all.push(all);
        self.note_clear("", revision);
    }

    fn note_clear(&mut self, prefix: &str, revision: Revision) {
        let prefix = prefix.into();
        self.note(&Change::Clear { prefix, revision });
    }

    fn footprint(&self) -> u64 {
        self.contents.entries.footprint()
    }

    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry> {
        let expired = self.contents.entries.to_sweep(now, most);
        expired.cloned().collect()
    }

    fn clears(&self, now: Expiry) -> bool {
        self.contents.entries.count_live(now, usize::MAX) > Some(0)
    }

    fn with_prefix(&self, prefix: &str) -> Vec<Entry> {
        self.contents.entries.with_prefix(prefix).cloned().collect()
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.contents.counter
    }

    /// It takes effect at the time at which it is decided.
    fn rely_on(&mut self, _: &str) {}
}
