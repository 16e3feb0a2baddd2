//! Commands are carried out on a keyspace: on the entries themselves, or on changes to them that wait to be committed.

use std::collections::HashMap;

use super::change::{Cause, Change};
use super::entry::Record;
use super::index::Entries;
use super::revision::Counter;
use super::{Entry, Expiry, Key, Revision};

/// Something that commands can be carried out on.
pub(super) trait Keyspace {
    /// The entry of a key; also one that has expired.
    fn get(&self, key: &str) -> Option<&Entry>;
    /// Sets the entry of its key. If that had one that has expired at the time `now`, it is noted that it has.
    fn set(&mut self, entry: Entry, now: Expiry);
    /// Sets the entry of a key that is there, of which only expiry and revision have changed.
    fn touch(&mut self, entry: Entry);
    fn remove(&mut self, key: &str, revision: Revision, cause: Cause);
    /// Removes all.
    fn clear(&mut self, revision: Revision);
    /// Notes that all keys with that prefix are about to be removed.
    fn note_clear(&mut self, prefix: &str, revision: Revision);
    /// How many bytes of memory all entries take, see [`super::footprint`].
    fn footprint(&self) -> u64;
    /// Up to so many entries that have expired at the time `now`.
    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry>;
    /// Whether a clear changes anything: whether there is an entry that has not expired at the time `now`.
    fn clears(&self, now: Expiry) -> bool;
    /// The entries of keys that begin with `prefix`; also those that have expired.
    fn with_prefix(&self, prefix: &str) -> Vec<Entry>;
    /// The revisions that have been given, and are given next.
    fn counter(&mut self) -> &mut Counter;
    /// Says that a decision relies on the entry of this key being live.
    fn rely_on(&mut self, key: &str);

    /// Whether a key has an entry that is live at the time `now`. If so, the decision relies on it.
    fn rely_on_live(&mut self, key: &str, now: Expiry) -> bool {
        match self.get(key) {
            Some(entry) if entry.is_live(now) => {
                if entry.expiry.is_some() {
                    self.rely_on(key);
                }
                true
            }
            _ => false,
        }
    }
    /// The revision of the last commit.
    fn revision(&mut self) -> Revision {
        self.counter().last
    }
    /// The one of the next.
    fn next_revision(&mut self) -> Revision {
        self.counter().next()
    }
    /// There was a commit with this one.
    fn set_revision(&mut self, revision: Revision) {
        self.counter().last = revision;
    }
}

/// Changes on top of entries that stay as they are until these changes are committed. Each command sees what those
/// before it have staged.
///
/// The footprint is that of the entries with the changes. So commands of a batch are judged as if those before them had been applied.
/// The next batch is staged only when this one has been applied or dropped: no growth is counted twice, and none is overlooked.
pub(super) struct Staged<'a> {
    base: &'a Entries,
    /// Whether nothing of the base is left.
    cleared: bool,
    /// What the keys that have changed, or changed since the clear, have now.
    latest: HashMap<Record, Option<Entry>>,
    changes: Changes,
    footprint: u64,
    counter: Counter,
    /// Whether a clear counts as one also where there is nothing left to clear.
    pub(super) clears_anyway: bool,
}

/// The changes of a batch of commands.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order in which they happen.
    pub(super) list: Vec<Change>,
    /// The revision of the last commit before these changes.
    pub(super) before: Revision,
    /// The same with them.
    pub(super) revision: Revision,
    /// Entries that have a deadline, and on which some decision relies: they were found live, and touched, deleted, or named in
    /// a condition. Where a deadline passes before the changes are applied, readers see the key gone in between. Then
    /// everything must be decided again: a key that was gone comes back by a put only, and no condition finds it there.
    pub(super) relied: Vec<Entry>,
    /// Whether they take the place of the batch before them, which was written down and never happened.
    pub(super) corrects: bool,
}

impl Changes {
    /// Whether everything is cleared by them.
    pub(super) fn clear(&self) -> bool {
        let all =
            |change: &Change| matches!(change, Change::Clear { prefix, .. } if prefix.is_empty());
        self.list.iter().any(all)
    }

    /// Whether some key is gone by them.
    pub(super) fn remove(&self) -> bool {
        let removes = |it: &Change| matches!(it, Change::Remove { .. } | Change::Clear { .. });
        self.list.iter().any(removes)
    }
}

impl<'a> Staged<'a> {
    pub(super) fn on(base: &'a Entries, counter: Counter) -> Staged<'a> {
        Staged {
            base,
            cleared: false,
            latest: HashMap::new(),
            changes: Changes {
                before: counter.last,
                ..Changes::default()
            },
            footprint: base.footprint(),
            counter,
            clears_anyway: false,
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        Changes {
            revision: self.counter.last,
            ..self.changes
        }
    }

    /// What the base still has of a key.
    fn in_base(&self, key: &str) -> Option<&'a Entry> {
        self.base.get(key).filter(|_| !self.cleared)
    }

    /// Stages an entry. The look-up is cheap: `apply` looks up the same key later and finds it in the cache.
    fn stage(&mut self, entry: Entry) {
        let old = self.get(entry.key()).map_or(0, Entry::footprint);
        self.footprint = self.footprint - old + entry.footprint();
        self.latest.insert(entry.record().clone(), Some(entry));
    }
}

impl Keyspace for Staged<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        match self.latest.get(key) {
            Some(latest) => latest.as_ref(),
            None => self.in_base(key),
        }
    }

    fn set(&mut self, entry: Entry, now: Expiry) {
        let (key, revision) = (entry.key(), entry.revision());
        let dead = self.get(key).filter(|old| !old.is_live(now));
        if let Some(old) = dead {
            let gone = gone(old, revision, Cause::Expired);
            self.changes.list.extend(gone);
        }
        self.changes.list.push(Change::Put(entry.clone()));
        self.stage(entry);
    }

    fn touch(&mut self, entry: Entry) {
        self.changes.list.push(Change::Touch(entry.clone()));
        self.stage(entry);
    }

    fn remove(&mut self, key: &str, revision: Revision, cause: Cause) {
        let Some(old) = self.get(key) else {
            return;
        };
        let (record, footprint) = (old.record().clone(), old.footprint());
        let gone = gone(old, revision, cause);
        self.changes.list.extend(gone);
        self.footprint -= footprint;
        self.latest.insert(record, None);
    }

    fn clear(&mut self, revision: Revision) {
        self.note_clear("", revision);
        self.cleared = true;
        self.latest = HashMap::new();
        self.footprint = 0;
    }

    fn note_clear(&mut self, prefix: &str, revision: Revision) {
        let prefix = prefix.into();
        self.changes.list.push(Change::Clear { prefix, revision });
    }

    fn footprint(&self) -> u64 {
        self.footprint
    }

    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry> {
        // Some of those may be gone by what is staged.
        let enough = most + self.latest.len();
        let base = (!self.cleared).then(|| self.base.to_sweep(now, enough));
        let base = base.into_iter().flatten();
        let unchanged = base.filter(|entry| !self.latest.contains_key(entry.key()));
        let changed = self.latest.values().flatten();
        let all = unchanged.chain(changed.filter(|entry| !entry.is_live(now)));
        all.take(most).cloned().collect()
    }

    fn clears(&self, now: Expiry) -> bool {
        let changed = self.latest.values().flatten();
        if self.clears_anyway || changed.into_iter().any(|entry| entry.is_live(now)) {
            return true;
        }
        if self.cleared {
            return false;
        }
        // Those that are still live in the base have been removed.
        let removed = self.latest.keys().filter_map(|it| self.base.get(it.key()));
        let removed = removed.filter(|entry| entry.is_live(now)).count();
        self.base.count_live(now, usize::MAX) > Some(removed)
    }

    fn with_prefix(&self, prefix: &str) -> Vec<Entry> {
        let base = (!self.cleared).then(|| self.base.with_prefix(prefix));
        let base = base.into_iter().flatten();
        let unchanged = base.filter(|entry| !self.latest.contains_key(entry.key()));
        let changed = self.latest.values().flatten();
        let changed = changed.filter(|entry| entry.key().starts_with(prefix));
        unchanged.chain(changed).cloned().collect()
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }

    fn rely_on(&mut self, key: &str) {
        // What this batch has put nobody has seen yet, live or not.
        if !self.latest.contains_key(key) {
            let base = self.in_base(key);
            let expires = base.filter(|entry| entry.expiry.is_some());
            self.changes.relied.extend(expires.cloned());
        }
    }
}

/// That an entry is gone. The key of an entry follows the rules of keys.
pub(super) fn gone(entry: &Entry, revision: Revision, cause: Cause) -> Option<Change> {
    let key = Key::try_from(entry.key().as_bytes()).ok()?;
    Some(Change::Remove {
        key,
        revision,
        cause,
    })
}

#[cfg(test)]
mod tests;
