//! Commands that change the store, and their outcomes.

use std::collections::HashMap;

use super::change::Cause;
use super::keyspace::Keyspace;
use super::revision::Revisions;
use super::{CommitError, Committed, Entry, Expiry, Key, Revision, Unmet, When};

/// A [`Command::Bulk`] should not have more operations. Readers wait while it is applied, about a microsecond an operation.
pub const MAX_OPERATIONS: usize = 100_000;

/// The most keys that one [`Command::Sweep`] removes. Readers wait for it, about a microsecond a key.
pub(super) const SWEPT_AT_ONCE: usize = 256;

/// A write. Commands take effect one after the other, each whole or not at all.
#[derive(Clone, Debug)]
pub enum Command {
    /// One operation on one key, if its condition is met. A touch of a key that is not there finds nothing, whatever its condition.
    One(Operation, When),
    /// Several, in order, as one step, if all conditions are met. These are judged before any of the operations happens.
    Bulk(Vec<(Operation, When)>),
    /// Removes every key.
    Clear,
    /// Removes every key that begins with this. Readers wait for it, about a microsecond a key.
    DeletePrefix(String),
    /// Removes a bounded number of expired keys. Readers see no difference; those who watch learn of it, and it frees memory.
    Sweep,
    /// Removes those of these keys that have expired. Nodes of a cluster must all remove the same, and [`Command::Sweep`] is free to choose.
    SweepKeys(Vec<Key>),
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
        /// When it expires from now on; `None` for never.
        expiry: Option<Expiry>,
    },
    /// Changes nothing. It is there for its condition.
    Check {
        /// The key that the condition is about.
        key: Key,
    },
}

/// The outcome of a command, decided against the state in which the command took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// There was no such key; nothing changed.
    NotFound,
    /// These conditions were not met, in the order of the operations; nothing changed.
    ConditionFailed(Vec<Unmet>),
    /// For each operation of a bulk command whether its key was there, or has been put. A check is always true.
    Each(Vec<bool>),
    /// How many live keys a [`Command::DeletePrefix`] has removed.
    Deleted(usize),
    /// How many keys were swept.
    Swept(usize),
}

/// What an operation has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It has changed its key.
    Changed,
    /// It had nothing to change, and that is well.
    Unchanged,
    /// Its key was not there.
    NotFound,
}

impl Command {
    /// About how many operations it carries out, as a measure of time.
    pub(super) fn operations(&self) -> usize {
        match self {
            Command::Bulk(operations) => operations.len(),
            Command::One(..) | Command::Clear => 1,
            // Of a prefix it is not known.
            Command::Sweep | Command::DeletePrefix(_) => SWEPT_AT_ONCE,
            Command::SweepKeys(keys) => keys.len(),
        }
    }

    /// Carries the command out on a keyspace: the map itself, or one that is staged for a commit. `now` decides which entries have
    /// expired. It is the same for all commands of a batch.
    pub(super) fn execute(&self, keys: &mut impl Keyspace, now: Expiry) -> Committed {
        let revision = keys.next_revision();
        let (outcome, changed) = self.carry_out(keys, now, revision);
        if changed {
            keys.set_revision(revision);
        }
        Committed {
            outcome,
            revision: keys.revision(),
        }
    }

    /// Carries it out at that revision. Returns whether it has changed anything that a reader may see.
    fn carry_out(
        &self,
        keys: &mut impl Keyspace,
        now: Expiry,
        revision: Revision,
    ) -> (Outcome, bool) {
        match self {
            Command::One(operation, when) => {
                if when.is_some()
                    && let Some(failed) = operation.refused(when, keys, now)
                {
                    return (failed, false);
                }
                match operation.execute(keys, now, revision) {
                    Effect::Changed => (Outcome::Done, true),
                    Effect::Unchanged => (Outcome::Done, false),
                    Effect::NotFound => (Outcome::NotFound, false),
                }
            }
            Command::Bulk(operations) => {
                let all = operations.iter().enumerate();
                let unmet = |(index, (operation, when)): (_, &(Operation, When))| {
                    operation.unmet(index, when, keys, now)
                };
                let unmet: Vec<Unmet> = all.filter_map(unmet).collect();
                if !unmet.is_empty() {
                    return (Outcome::ConditionFailed(unmet), false);
                }
                let mut changed = false;
                let execute = |(operation, _): &(Operation, When)| {
                    let effect = operation.execute(keys, now, revision);
                    changed |= effect == Effect::Changed;
                    effect != Effect::NotFound
                };
                let found = operations.iter().map(execute).collect();
                (Outcome::Each(found), changed)
            }
            Command::Clear => {
                // What has expired only is left to the sweeps.
                let changed = keys.clears(now);
                if changed {
                    keys.clear(revision);
                }
                (Outcome::Done, changed)
            }
            Command::DeletePrefix(prefix) => {
                let found = keys.with_prefix(prefix);
                let live = found.iter().filter(|entry| entry.is_live(now)).count();
                // What has expired only is left to the sweeps.
                if live > 0 {
                    keys.note_clear(prefix, revision);
                    for entry in &found {
                        keys.rely_on_live(entry.key(), now);
                        keys.remove(entry.key(), revision, Cause::Cleared);
                    }
                }
                (Outcome::Deleted(live), live > 0)
            }
            Command::Sweep => {
                let expired = keys.expired(SWEPT_AT_ONCE, now);
                for entry in &expired {
                    keys.remove(entry.key(), revision, Cause::Expired);
                }
                (Outcome::Swept(expired.len()), !expired.is_empty())
            }
            Command::SweepKeys(chosen) => {
                let mut swept = 0;
                for key in chosen {
                    let entry = keys.get(key.as_str());
                    if entry.is_some_and(|it| !it.is_live(now)) {
                        keys.remove(key.as_str(), revision, Cause::Expired);
                        swept += 1;
                    }
                }
                (Outcome::Swept(swept), swept > 0)
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
            Operation::Delete { .. } | Operation::Touch { .. } | Operation::Check { .. } => 0,
        };
        self.all_operations().map(growth).sum()
    }

    /// How many bytes of memory it adds, or removes.
    fn growth(&self, keys: &impl Keyspace) -> i64 {
        // Of several operations on a key the last one counts.
        let mut after = HashMap::new();
        for operation in self.all_operations() {
            match operation {
                Operation::Put(entry) => after.insert(entry.key(), Some(entry)),
                Operation::Delete { key } => after.insert(key.as_str(), None),
                Operation::Touch { .. } | Operation::Check { .. } => None,
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

    fn all_operations(&self) -> impl Iterator<Item = &Operation> {
        let (one, several) = match self {
            Command::One(operation, _) => (Some(operation), &[][..]),
            Command::Bulk(operations) => (None, &operations[..]),
            Command::Clear | Command::DeletePrefix(_) | Command::Sweep | Command::SweepKeys(_) => {
                (None, &[][..])
            }
        };
        one.into_iter().chain(several.iter().map(|(it, _)| it))
    }

    /// About how many bytes it takes to write down.
    pub(super) fn size(&self) -> usize {
        let conditions = match self {
            Command::One(_, when) => condition_size(when),
            Command::Bulk(operations) => operations.iter().map(|it| condition_size(&it.1)).sum(),
            Command::DeletePrefix(prefix) => prefix.len(),
            Command::Clear | Command::Sweep | Command::SweepKeys(_) => 0,
        };
        let operations = self.all_operations().map(Operation::size);
        conditions + operations.sum::<usize>()
    }

    /// Whether a client asks only to remove keys. Such a command may use the reserve of a full disk.
    pub(super) fn makes_room(&self) -> bool {
        match self {
            Command::One(..) | Command::Bulk(_) => self
                .all_operations()
                .all(|it| matches!(it, Operation::Delete { .. })),
            Command::Clear | Command::DeletePrefix(_) => true,
            Command::Sweep | Command::SweepKeys(_) => false,
        }
    }
}

/// About how many bytes it takes to write down a condition.
fn condition_size(when: &When) -> usize {
    let Some(condition) = when else {
        return 0;
    };
    let revisions = [&condition.if_match, &condition.if_none_match];
    let listed = revisions.map(|it| match it {
        Some(Revisions::Listed(listed)) => listed.len() * size_of::<Revision>(),
        Some(Revisions::Any) | None => 0,
    });
    listed.iter().sum()
}

impl From<Operation> for Command {
    /// That operation alone, without a condition.
    fn from(operation: Operation) -> Command {
        Command::One(operation, None)
    }
}

impl Operation {
    fn key(&self) -> &str {
        match self {
            Operation::Put(entry) => entry.key(),
            Operation::Delete { key } | Operation::Touch { key, .. } | Operation::Check { key } => {
                key.as_str()
            }
        }
    }

    /// The outcome of a single operation that must not happen. Only with a condition.
    fn refused(&self, when: &When, keys: &mut impl Keyspace, now: Expiry) -> Option<Outcome> {
        let unmet = self.unmet(0, when, keys, now)?;
        let missing = unmet.revision.is_none() && matches!(self, Operation::Touch { .. });
        Some(match missing {
            true => Outcome::NotFound,
            false => Outcome::ConditionFailed(vec![unmet]),
        })
    }

    /// Whether its condition is not met, and why.
    fn unmet(
        &self,
        index: usize,
        when: &When,
        keys: &mut impl Keyspace,
        now: Expiry,
    ) -> Option<Unmet> {
        let condition = when.as_deref()?;
        let live = keys.get(self.key()).filter(|entry| entry.is_live(now));
        let (met, revision) = (condition.is_met(live), live.map(Entry::revision));
        if live.is_some_and(|entry| entry.expiry.is_some()) {
            keys.rely_on(self.key());
        }
        // A key that is there, or one that was given, follows the rules.
        let key = (!met).then(|| Key::try_from(self.key().as_bytes()).ok())??;
        Some(Unmet {
            index,
            key,
            revision,
        })
    }

    /// Carries the operation out at that revision.
    fn execute(&self, keys: &mut impl Keyspace, now: Expiry, revision: Revision) -> Effect {
        match self {
            Operation::Put(entry) => {
                keys.set(entry.clone().at(revision), now);
                Effect::Changed
            }
            Operation::Delete { key } => {
                // One that has expired is left to the sweeps.
                if !keys.rely_on_live(key.as_str(), now) {
                    return Effect::NotFound;
                }
                keys.remove(key.as_str(), revision, Cause::Deleted);
                Effect::Changed
            }
            Operation::Touch { key, expiry } => {
                if !keys.rely_on_live(key.as_str(), now) {
                    return Effect::NotFound;
                }
                let live = keys.get(key.as_str());
                if let Some(touched) = live.map(|entry| entry.with_expiry(*expiry).at(revision)) {
                    keys.touch(touched);
                }
                Effect::Changed
            }
            Operation::Check { .. } => Effect::Unchanged,
        }
    }

    fn size(&self) -> usize {
        match self {
            Operation::Put(entry) => entry.bytes(),
            _ => self.key().len(),
        }
    }
}
