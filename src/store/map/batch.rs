//! Batches: commands that are decided first, and take effect later.

use std::collections::BTreeSet;
use std::mem;

use parking_lot::RwLockWriteGuard;

use super::{Contents, Map};
use crate::store::change::{Cause, Change};
use crate::store::keyspace::{Changes, Staged};
use crate::store::removed::Removed;
use crate::store::{Entry, Expiry, Key};

impl Map {
    /// Carries out commands on a staged copy. Readers do not see the changes until [`Map::apply`] gets them. Nothing else may change the
    /// map in between.
    pub(in crate::store) fn stage<T>(
        &self,
        commands: impl FnOnce(&mut Staged<'_>) -> T,
    ) -> (T, Changes) {
        let contents = self.read();
        let mut staged = Staged::on(&contents.entries, contents.counter);
        let result = commands(&mut staged);
        (result, staged.into_changes())
    }

    /// Makes changes visible, in one step for all readers. Where something that they rely on has expired meanwhile, see
    /// [`Changes::relied`], nothing changes, and the changes are returned.
    pub(in crate::store) fn apply(&self, changes: Changes) -> Result<(), Changes> {
        let contents = self.write();
        // Writers take the time after they lock, see `entry_of`.
        if !changes.relied.is_empty() {
            let now = Expiry::now();
            if !changes.relied.iter().all(|entry| entry.is_live(now)) {
                return Err(changes);
            }
        }
        self.apply_to(contents, changes);
        Ok(())
    }

    /// What turns the map with these changes into the map with others that were decided in their place.
    pub(in crate::store) fn correct(&self, made: &Changes, wanted: &Changes) -> Changes {
        let contents = self.read();
        // First back to what was there. After a clear, which both have, that does not matter.
        let keys = made.list.iter().filter_map(|change| match change {
            Change::Put(entry) | Change::Touch(entry) => Some(entry.key()),
            Change::Remove { key, .. } => Some(key.as_str()),
            Change::Clear { .. } => None,
        });
        let keys: BTreeSet<&str> = keys.collect();
        let back = keys.into_iter().filter_map(|key| {
            if let Some(entry) = contents.entries.get(key) {
                return Some(Change::Put(entry.clone()));
            }
            Some(Change::Remove {
                key: Key::try_from(key.as_bytes()).ok()?,
                revision: made.before,
                cause: Cause::Cleared,
            })
        });
        // A touch may have to change the value back as well.
        let wanted_list = wanted.list.iter().map(|change| match change {
            Change::Touch(entry) => Change::Put(entry.clone()),
            other => other.clone(),
        });
        Changes {
            list: back.chain(wanted_list).collect(),
            before: made.before,
            revision: wanted.revision,
            relied: Vec::new(),
            corrects: true,
        }
    }

    /// The same as [`Map::apply`] whatever has expired meanwhile; but what is gone stays gone, unless it was put.
    pub(in crate::store) fn apply_anyway(&self, mut changes: Changes) {
        let contents = self.write();
        let now = Expiry::now();
        let relied = mem::take(&mut changes.relied).into_iter();
        let late: Vec<Entry> = relied.filter(|entry| !entry.is_live(now)).collect();
        let brings_back = |change: &Change| match change {
            // What was put meanwhile has another value.
            Change::Touch(touched) => late.iter().any(|it| it.is_same_value(touched)),
            _ => false,
        };
        changes.list.retain(|change| !brings_back(change));
        self.apply_to(contents, changes);
    }

    fn apply_to(&self, mut contents: RwLockWriteGuard<'_, Contents>, changes: Changes) {
        let mut removed = Removed::default();
        for change in changes.list {
            match &change {
                Change::Put(entry) | Change::Touch(entry) => {
                    let old = contents.set(entry.clone(), &self.budget);
                    removed.some.extend(old);
                }
                Change::Remove { key, .. } => {
                    let old = contents.remove(key.as_str(), &self.budget);
                    removed.some.extend(old);
                }
                Change::Clear { prefix, .. } if prefix.is_empty() => {
                    removed.all.push(contents.clear(&self.budget));
                }
                Change::Clear { .. } => {}
            }
            contents.history.push(&change);
            if change.is_expiry() {
                self.meters.count_expired();
            }
        }
        contents.counter.last = changes.revision;
        let forgotten = contents.history.close(self.audience.forgettable());
        self.report(&contents);
        // A batch may be long, and its thread may be back for the next one at once.
        RwLockWriteGuard::unlock_fair(contents);
        self.audience.tell();
        drop(forgotten);
        removed.free(&self.budget);
    }
}
