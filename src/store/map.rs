//! The map that serves every read: an `RwLock` around `HashMap`s and what keeps keys in order, see [`super::index`].
//!
//! Under the lock only pointers and numbers move: a read clones a pointer, a write swaps one. Text is formatted, and big things are
//! freed, after the lock was given back.

mod batch;
mod locked;
mod views;

use std::mem;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::budget::Budget;

use super::audience::Audience;
use super::command::SWEPT_AT_ONCE;
use super::entry::Record;
use super::frozen::View;
use super::history::{Commits, History, Past};
use super::index::Entries;
use super::meters::Meters;
use super::removed::{self, Removed};
use super::revision;
use super::revision::Counter;
use super::{Command, CommitError, Committed, Entry, Expiry, Interest, Key, Revision};
pub use views::Counted;

use locked::Locked;

/// How many keys are looked at under one taking of the lock, where there may be many: some tens of microseconds.
const STEP: usize = 256;

/// A page of a listing ends behind so many bytes of keys and values. Its entries stay in memory until they are sent, also if they are
/// replaced meanwhile, and a client may read as slowly as it likes.
const PAGE_BYTES: usize = 1 << 20;

/// After so many operations (up to a millisecond at ten million keys) the lock is handed to a waiting thread. Otherwise this thread
/// could take it again before a waiting one has woken up.
pub(super) const MANY: usize = 64;

/// How many keys that have expired are counted under one taking of the lock, about a tenth of a millisecond's worth.
const COUNTED_AT_ONCE: usize = 10_000;

/// Keys and their entries.
pub(super) struct Map {
    /// Bounds the memory of the entries. Each writer reports their footprint before it unlocks, so the last report is right.
    budget: Arc<Budget>,
    /// Held for one lookup or one batch of changes, and never while anything waits. The only locks that are taken under it are
    /// those of views, and the one of the count of passed deadlines.
    contents: RwLock<Contents>,
    /// Those who want to know of commits.
    audience: Audience,
    meters: Arc<Meters>,
}

/// The data under the lock: the entries, and the views of earlier states.
#[derive(Default)]
struct Contents {
    entries: Entries,
    /// Views of the entries as they were earlier, see [`super::frozen`]. As a rule none, and seldom more than one.
    views: Vec<Arc<Mutex<View>>>,
    /// The revision of the entries.
    counter: Counter,
    /// The commits that have led to it.
    history: History,
}

impl Contents {
    /// Sets the entry of its key, and returns the one that the key had.
    fn set(&mut self, entry: Entry, budget: &Budget) -> Option<Entry> {
        let record = (!self.views.is_empty()).then(|| entry.record().clone());
        let old = self.entries.insert(entry);
        if let Some(record) = record {
            self.keep(&record, old.as_ref(), budget);
        }
        old
    }

    /// Removes the entry of a key, and returns it.
    fn remove(&mut self, key: &str, budget: &Budget) -> Option<Entry> {
        let old = self.entries.remove(key);
        if let Some(old) = &old {
            self.keep(old.record(), Some(old), budget);
        }
        old
    }

    /// Removes all entries, and returns them. [`super::removed::free_all`] lets go of them.
    fn clear(&mut self, budget: &Budget) -> Arc<Entries> {
        let all = Arc::new(mem::take(&mut self.entries));
        budget.hold(all.footprint());
        for view in &self.views {
            View::lock(view).keep_all(&all);
        }
        all
    }

    /// Gives the old entry of a key to the views.
    fn keep(&self, record: &Record, old: Option<&Entry>, budget: &Budget) {
        for view in &self.views {
            View::lock(view).keep(record, old, budget);
        }
    }
}

impl Map {
    /// An empty map, which may take so much.
    pub(super) fn new(budget: Arc<Budget>) -> Map {
        Map {
            budget,
            contents: RwLock::default(),
            audience: Audience::default(),
            meters: Arc::default(),
        }
    }

    /// The same with a revision, and so many bytes of history from there on.
    pub(super) fn at(revision: Revision, history: u64, budget: Arc<Budget>) -> Map {
        let map = Map::new(budget);
        let counter = Counter {
            last: revision,
            least: revision,
        };
        let history = History::new(history, revision);
        map.load(Entries::default(), counter, history);
        map
    }

    /// A map without a limit.
    #[cfg(test)]
    pub(super) fn unlimited() -> Map {
        Map::new(Arc::new(Budget::new(u64::MAX)))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The entry of a key, if it has one.
    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.entry_of(key.as_str())
    }

    /// The same for a key that is known to be one.
    pub(super) fn entry_of(&self, key: &str) -> Option<Entry> {
        let contents = self.read();
        let entry = contents.entries.get(key);
        // Readers take the time before they unlock, writers after they lock. So if a reader saw an entry expired, each later writer
        // sees that too, and no touch brings the entry back.
        let live = |entry: &&Entry| entry.expiry.is_none_or(|it| it > Expiry::now());
        entry.filter(live).cloned()
    }

    /// The revision of the last commit.
    pub(super) fn revision(&self) -> Revision {
        self.read().counter.last
    }

    /// The entries of several keys, as they are at one moment, and the revision then.
    pub(super) fn get_all(&self, keys: &[Key]) -> (Vec<Option<Entry>>, Revision) {
        let contents = self.read();
        let now = Expiry::now();
        let live = |key: &Key| {
            let entry = contents.entries.get(key.as_str());
            entry.filter(|entry| entry.is_live(now)).cloned()
        };
        let entries = keys.iter().map(live).collect();
        (entries, contents.counter.last)
    }

    /// How many live keys there are that begin with `prefix`.
    pub(super) fn count(&self, prefix: &str) -> usize {
        if prefix.is_empty() {
            return self.len();
        }
        let contents = self.read();
        contents.entries.count(prefix, Expiry::now())
    }

    /// The entries of the next keys that begin with `prefix`, in byte order; and where to go on, if there may be more.
    /// No more than `most`, and no more than are to be had in one short look.
    pub(super) fn page(&self, prefix: &str, from: Bound<&str>, most: usize) -> Page {
        let from = match from {
            Bound::Included(key) | Bound::Excluded(key) if key >= prefix => from,
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        let contents = self.read();
        let now = Expiry::now();
        let mut found = contents.entries.from(from);
        for _ in 0..STEP.min(most) {
            let next = found.next();
            page.next = next.filter(|it| it.key().starts_with(prefix)).cloned();
            let Some(entry) = &page.next else {
                break;
            };
            page.entries.push(entry.clone());
            bytes += entry.bytes();
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        drop(found);
        drop(contents);
        page.entries.retain(|entry| entry.is_live(now));
        page
    }

    /// The number of live keys.
    pub(super) fn len(&self) -> usize {
        loop {
            let contents = self.read();
            if let Some(live) = contents.entries.count_live(Expiry::now(), COUNTED_AT_ONCE) {
                return live;
            }
            // So many have expired since the sweeper last looked. Writers get their turn.
            RwLockReadGuard::unlock_fair(contents);
        }
    }

    /// Counts some of the keys that have expired, so that [`Map::len`] need not. Returns whether there is anything for a
    /// sweep to remove.
    pub(super) fn count_expired(&self) -> bool {
        let entries = &self.read().entries;
        entries.count_live(Expiry::now(), COUNTED_AT_ONCE) != Some(entries.len())
    }

    /// Keys that have expired, for a sweep, of so many bytes.
    pub(super) fn expired(&self, mut bytes: usize) -> Vec<Key> {
        let contents = self.read();
        let expired = contents.entries.to_sweep(Expiry::now(), SWEPT_AT_ONCE);
        let keys = expired.map_while(|entry| {
            bytes = bytes.checked_sub(entry.key().len())?;
            Key::try_from(entry.key().as_bytes()).ok()
        });
        keys.collect()
    }

    /// How many bytes keys and values hold.
    pub(super) fn bytes(&self) -> usize {
        self.read().entries.bytes()
    }

    /// Carries out a command if there is room for it, in one step for all readers.
    pub(super) fn execute(&self, command: Command) -> Result<Committed, CommitError> {
        let long = command.operations() >= MANY;
        let (most, limit) = (command.grows_at_most(), self.budget.data_limit());
        let sweeps = matches!(command, Command::Sweep);
        let result = self.change(long, |locked| {
            command.check_room(locked, most, limit)?;
            Ok(command.execute(locked, Expiry::now()))
        });
        if !sweeps && result.is_ok() {
            self.meters.batches.observe(1);
        }
        result
    }

    /// Carries out commands, in one step for all readers, at the time `now`, where the data may take so many bytes. What comes of that depends on
    /// nothing else but the entries, so it is the same on every node of a cluster.
    pub(super) fn execute_all(
        &self,
        commands: &[Command],
        now: Expiry,
        limit: u64,
    ) -> Vec<Result<Committed, CommitError>> {
        self.meters.batches.observe(commands.len() as u64);
        self.change(true, |locked| {
            locked.contents.counter.least = revision::at_millis(now.millis());
            let execute = |command: &Command| {
                command.check_room(locked, command.grows_at_most(), limit)?;
                Ok(command.execute(locked, now))
            };
            commands.iter().map(execute).collect()
        })
    }

    /// Changes the entries. After a long change, others get their turn first.
    fn change<T>(&self, long: bool, change: impl FnOnce(&mut Locked<'_>) -> T) -> T {
        let mut locked = Locked {
            contents: self.write(),
            removed: Removed::default(),
            budget: &self.budget,
            meters: &self.meters,
        };
        let result = change(&mut locked);
        let Locked {
            mut contents,
            removed,
            ..
        } = locked;
        let forgotten = contents.history.close(self.audience.forgettable());
        self.report(&contents);
        if long {
            RwLockWriteGuard::unlock_fair(contents);
        } else {
            drop(contents);
        }
        self.audience.tell();
        drop(forgotten);
        removed.free(&self.budget);
        result
    }

    /// Reports the footprint of the entries to the budget.
    fn report(&self, contents: &Contents) {
        self.budget.set_stored(contents.entries.footprint());
    }

    /// Replaces everything, as a store is loaded.
    pub(super) fn load(&self, loaded: Entries, counter: Counter, history: History) {
        let mut contents = self.write();
        // Views go on with the entries as they were.
        let old = contents.clear(&self.budget);
        contents.entries = loaded;
        contents.counter = counter;
        contents.history = history;
        self.report(&contents);
        drop(contents);
        self.audience.tell();
        removed::free_all(old, &self.budget);
    }

    /// What is known of the past.
    pub(super) fn past(&self) -> Past {
        let Contents {
            counter, history, ..
        } = &*self.read();
        Past {
            oldest: history.oldest(),
            latest: counter.last,
            lost_below: counter.least,
            bytes: history.bytes(),
        }
    }

    /// The latest changes, as they are now.
    pub(super) fn history(&self) -> History {
        self.read().history.clone()
    }

    /// Whether one can go on from a revision: the state had it, and all changes behind it are known.
    pub(super) fn remembers(&self, revision: Revision) -> bool {
        let contents = self.read();
        revision == contents.counter.last || contents.history.covers(revision)
    }

    /// See [`History::after`].
    pub(super) fn commits_after(&self, revision: Revision, interest: &Interest) -> Option<Commits> {
        let contents = self.read();
        if revision >= contents.counter.last {
            return Some(Commits::none(revision));
        }
        contents.history.after(revision, interest, STEP)
    }

    /// See [`super::Store::expiry_lag`].
    pub(super) fn expiry_lag(&self) -> u64 {
        let first = self.read().entries.first_deadline();
        first.map_or(0, |first| {
            Expiry::now().millis().saturating_sub(first.millis())
        })
    }

    pub(super) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    // A panic unlocks. No code under the lock can panic half way through a change.
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write()
    }
}

/// A part of a listing.
#[derive(Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The last one that was looked at, if there may be more behind it.
    pub(super) next: Option<Entry>,
}

#[cfg(test)]
mod tests;
