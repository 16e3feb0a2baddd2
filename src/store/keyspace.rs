//! Commands are carried out on a keyspace: on the entries themselves, or on changes to them that wait to be committed.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use super::index::Entries;
use super::revision::Counter;
use super::{Entry, Expiry, Revision};

/// Something that commands can be carried out on.
pub(super) trait Keyspace {
    /// The entry of a key; also one that has expired.
    fn get(&self, key: &str) -> Option<&Entry>;
    /// Sets the entry of its key.
    fn set(&mut self, entry: Entry);
    /// Sets the entry of a key that is there, of which only expiry and revision have changed.
    fn touch(&mut self, entry: Entry);
    fn remove(&mut self, key: &str);
    fn clear(&mut self);
    /// How many bytes of memory all entries take, see [`super::footprint`].
    fn footprint(&self) -> u64;
    /// Up to so many entries that have expired at the time `now`.
    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry>;
    /// Whether there is an entry that has not expired at the time `now`.
    fn has_live(&self, now: Expiry) -> bool;
    /// The entries of keys that begin with `prefix`, and have not expired at the time `now`.
    fn live_with(&self, prefix: &str, now: Expiry) -> Vec<Entry>;
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
/// before it have staged, and of several changes to a key only the last is kept.
///
/// The footprint is that of the entries with the changes. So commands of a batch are judged as if those before them had been applied.
/// The next batch is staged only when this one has been applied or dropped: no growth is counted twice, and none is overlooked.
pub(super) struct Staged<'a> {
    base: &'a Entries,
    changes: Changes,
    footprint: u64,
    counter: Counter,
}

/// The net changes of a batch of commands.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// All earlier entries are removed.
    pub(super) cleared: bool,
    /// Then these keys change.
    pub(super) entries: HashSet<Change>,
    /// The revision of the last commit before these changes, and of the last one with them. They may differ where no key changes: one
    /// was put and deleted again.
    pub(super) before: Revision,
    pub(super) revision: Revision,
    /// Entries that have a deadline, and on which some decision relies: they were found live, and touched, deleted, or named in
    /// a condition. Where a deadline passes before the changes are applied, readers see the key gone in between. Then
    /// everything must be decided again: a key that was gone comes back by a put only, and no condition finds it there.
    pub(super) relied: Vec<Entry>,
}

/// A change of one key. A set holds at most one for each key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The key has this entry from now on.
    Set(Entry),
    /// The key has this entry from now on. Only expiry and revision differ from the old one.
    Touched(Entry),
    /// The key had this entry, which is removed.
    Removed(Entry),
}

impl Change {
    pub(super) fn key(&self) -> &str {
        let (Change::Set(entry) | Change::Touched(entry) | Change::Removed(entry)) = self;
        entry.key()
    }

    /// The entry from now on, if there is one.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match self {
            Change::Set(entry) | Change::Touched(entry) => Some(entry),
            Change::Removed(_) => None,
        }
    }
}

impl Borrow<str> for Change {
    fn borrow(&self) -> &str {
        self.key()
    }
}

impl Hash for Change {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Change {
    fn eq(&self, other: &Change) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Change {}

impl Changes {
    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        !self.cleared && self.entries.is_empty() && self.revision == self.before
    }
}

impl<'a> Staged<'a> {
    pub(super) fn on(base: &'a Entries, counter: Counter) -> Staged<'a> {
        Staged {
            base,
            changes: Changes {
                before: counter.last,
                ..Changes::default()
            },
            footprint: base.footprint(),
            counter,
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        Changes {
            revision: self.counter.last,
            ..self.changes
        }
    }

    /// Counts the footprint of a change. This look-up is cheap: `apply` looks up the same key later and finds it in the cache.
    fn count(&mut self, key: &str, new: Option<&Entry>) {
        let old = self.get(key).map_or(0, Entry::footprint);
        self.footprint = self.footprint - old + new.map_or(0, Entry::footprint);
    }
}

impl Keyspace for Staged<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        match self.changes.entries.get(key) {
            Some(change) => change.entry(),
            None if self.changes.cleared => None,
            None => self.base.get(key),
        }
    }

    fn set(&mut self, entry: Entry) {
        self.count(entry.key(), Some(&entry));
        self.changes.entries.replace(Change::Set(entry));
    }

    fn touch(&mut self, entry: Entry) {
        self.count(entry.key(), Some(&entry));
        let change = match self.changes.entries.get(entry.key()) {
            // The value is new as well.
            Some(Change::Set(_)) => Change::Set(entry),
            _ => Change::Touched(entry),
        };
        self.changes.entries.replace(change);
    }

    fn remove(&mut self, key: &str) {
        self.count(key, None);
        let base = self.base.get(key).filter(|_| !self.changes.cleared);
        match base {
            Some(entry) => {
                let removed = Change::Removed(entry.clone());
                self.changes.entries.replace(removed);
            }
            None => {
                self.changes.entries.remove(key);
            }
        }
    }

    fn clear(&mut self) {
        self.changes.cleared = true;
        self.changes.entries = HashSet::new();
        self.footprint = 0;
    }

    fn footprint(&self) -> u64 {
        self.footprint
    }

    fn expired(&self, most: usize, now: Expiry) -> Vec<Entry> {
        if self.changes.cleared {
            return Vec::new();
        }
        // Keys with staged changes are left to the next sweep.
        let expired = self.base.expired(now);
        let unchanged = expired.filter(|entry| !self.changes.entries.contains(entry.key()));
        unchanged.take(most).cloned().collect()
    }

    fn has_live(&self, now: Expiry) -> bool {
        let staged = &self.changes.entries;
        let live = |entry: &&Entry| entry.is_live(now);
        if staged
            .iter()
            .any(|it| it.entry().is_some_and(|it| it.is_live(now)))
        {
            return true;
        }
        if self.changes.cleared {
            return false;
        }
        // Those that are still live in the base have been removed.
        let removed = staged.iter().filter_map(|it| self.base.get(it.key()));
        let removed = removed.filter(live).count();
        self.base.count_live(now, usize::MAX) > Some(removed)
    }

    fn live_with(&self, prefix: &str, now: Expiry) -> Vec<Entry> {
        let staged = &self.changes.entries;
        let base = (!self.changes.cleared).then(|| self.base.with_prefix(prefix));
        let base = base.into_iter().flatten();
        let unchanged = base.filter(|entry| !staged.contains(entry.key()));
        let changed = staged.iter().filter_map(Change::entry);
        let changed = changed.filter(|entry| entry.key().starts_with(prefix));
        let all = unchanged.chain(changed);
        all.filter(|entry| entry.is_live(now)).cloned().collect()
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }

    fn rely_on(&mut self, key: &str) {
        // What this batch has put nobody has seen yet, live or not.
        if !self.changes.cleared && !self.changes.entries.contains(key) {
            let base = self.base.get(key);
            let expires = base.filter(|entry| entry.expiry.is_some());
            self.changes.relied.extend(expires.cloned());
        }
    }
}

#[cfg(test)]
mod tests;
