//! The latest changes, for those who watch: a part of the past that is bounded in bytes.
//!
//! Every commit appends to it, whether somebody watches or not, so appending must be cheap. Changes lie in chunks, and the oldest
//! chunk goes as a whole. Small entries are copied into the text of their chunk: to keep a pointer instead would keep their blocks of
//! memory allocated long after they were overwritten, and that costs more than a copy. Of large ones there is a pointer.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::change::{Cause, Change};
use super::{Entry, Expiry, HISTORY_BYTES, Interest, Revision};

/// The most changes of a chunk, unless a single commit has more.
const CHUNK: usize = 256;

/// A chunk takes this part of the whole at most.
const CHUNKS: u64 = 16;

/// Entries of up to so many bytes are copied.
const COPIED: usize = 1024;

/// The most changes that one look goes through, unless a single commit has more: some tens of microseconds.
const SEEN_AT_ONCE: usize = 4096;

/// What is known of the past of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The earliest revision behind which all changes are known.
    pub oldest: Revision,
    /// The revision of the state.
    pub latest: Revision,
    /// Revisions below this one that are not known may have been given by an earlier life of the store, which is lost.
    pub lost_below: Revision,
    /// How many bytes of memory the changes take.
    pub bytes: u64,
}

/// What has happened to some keys in some commits.
#[derive(Clone, Debug)]
pub struct Commits {
    /// In their order; all of them, for each of the commits.
    pub changes: Vec<Change>,
    /// The revision of the last commit; if there is none, that behind which they were looked for.
    pub to: Revision,
}

impl Commits {
    /// There are none behind this revision.
    pub(super) fn none(revision: Revision) -> Commits {
        Commits {
            changes: Vec::new(),
            to: revision,
        }
    }
}

/// Some changes, of whole commits.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    changes: Vec<Kept>,
    text: String,
    bytes: u64,
}

/// A change as it is kept.
#[derive(Clone, Debug)]
enum Kept {
    /// A put or a touch. The record is this part of the text of the chunk.
    Copied {
        start: u32,
        end: u32,
        expiry: Option<Expiry>,
        revision: Revision,
    },
    /// As it is.
    Whole(Change),
}

impl Kept {
    fn revision(&self) -> Revision {
        match self {
            Kept::Copied { revision, .. } => *revision,
            Kept::Whole(change) => change.revision(),
        }
    }
}

impl Chunk {
    /// Room for as much as another one has.
    fn like(other: &Chunk) -> Chunk {
        Chunk {
            changes: Vec::with_capacity(other.changes.len()),
            text: String::with_capacity(other.text.len()),
            bytes: 0,
        }
    }

    fn push(&mut self, change: &Change) {
        let kept = match change {
            Change::Put(entry) | Change::Touch(entry) if entry.record_bytes() <= COPIED => {
                let start = self.text.len() as u32;
                self.text.push_str(entry.record_text());
                Kept::Copied {
                    start,
                    end: self.text.len() as u32,
                    expiry: entry.expiry,
                    revision: entry.revision(),
                }
            }
            other => Kept::Whole(other.clone()),
        };
        self.bytes += change.footprint();
        self.changes.push(kept);
    }

    fn change(&self, kept: &Kept) -> Change {
        match kept {
            Kept::Copied {
                start,
                end,
                expiry,
                revision,
            } => {
                let record = &self.text[*start as usize..*end as usize];
                let entry = Entry::of_record(record, *expiry);
                Change::Put(entry.at(*revision))
            }
            Kept::Whole(change) => change.clone(),
        }
    }

    /// Whether a change is about one of these keys.
    fn concerns(&self, kept: &Kept, interest: &Interest) -> bool {
        match kept {
            Kept::Copied { start, end, .. } => {
                let record = &self.text[*start as usize..*end as usize];
                interest.contains(Entry::key_of_record(record))
            }
            Kept::Whole(change) => interest.covers(change),
        }
    }

    /// The changes from that one on.
    fn from(&self, first: usize) -> impl DoubleEndedIterator<Item = Change> {
        self.changes[first..].iter().map(|it| self.change(it))
    }

    /// The first one behind that revision.
    fn first_behind(&self, revision: Revision) -> usize {
        self.changes.partition_point(|it| it.revision() <= revision)
    }

    fn first(&self) -> Option<Revision> {
        self.changes.first().map(Kept::revision)
    }

    fn last(&self) -> Option<Revision> {
        self.changes.last().map(Kept::revision)
    }
}

/// The changes of the latest commits.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// It has more bytes only where one commit has.
    limit: u64,
    /// Full chunks, the oldest first. They do not change any more.
    full: VecDeque<Arc<Chunk>>,
    /// The latest chunk, which grows.
    open: Chunk,
    bytes: u64,
    /// All changes behind this revision are here. The state had it once.
    oldest: Revision,
}

impl Default for History {
    fn default() -> History {
        History::new(HISTORY_BYTES, 0)
    }
}

impl History {
    /// Begins behind this revision.
    pub(super) fn new(limit: u64, oldest: Revision) -> History {
        History {
            limit,
            full: VecDeque::new(),
            open: Chunk::default(),
            bytes: 0,
            oldest,
        }
    }

    /// Forgets everything before this revision, and begins behind it.
    pub(super) fn restart(&mut self, oldest: Revision) {
        *self = History::new(self.limit, oldest);
    }

    /// The earliest revision from which one can go on without a gap.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a change. [`History::close`] follows when its commit is whole.
    pub(super) fn push(&mut self, change: &Change) {
        if let Change::Remove {
            cause: Cause::Cleared,
            ..
        } = change
        {
            return;
        }
        let before = self.open.bytes;
        self.open.push(change);
        self.bytes += self.open.bytes - before;
    }

    /// The commits so far are whole. Returns what is forgotten for them, to be freed when no lock is held.
    pub(super) fn close(&mut self) -> Vec<Arc<Chunk>> {
        let mut forgotten = Vec::new(); // takes no memory as long as it is empty
        if self.open.changes.len() >= CHUNK || self.open.bytes > self.limit / CHUNKS {
            let next = Chunk::like(&self.open);
            let full = mem::replace(&mut self.open, next);
            if !full.changes.is_empty() {
                self.full.push_back(Arc::new(full));
            }
        }
        // The latest commit stays, whatever its size: somebody has to see it.
        let latest = usize::from(self.open.changes.is_empty());
        while self.bytes > self.limit && self.full.len() > latest {
            let Some(chunk) = self.full.pop_front() else {
                break;
            };
            self.bytes -= chunk.bytes;
            self.oldest = chunk.last().unwrap_or(self.oldest);
            forgotten.push(chunk);
        }
        forgotten
    }

    /// Forgets the commits behind a revision, as if they had never been.
    pub(super) fn take_back(&mut self, to: Revision) {
        let changes: Vec<Change> = self.iter().filter(|it| it.revision() <= to).collect();
        self.restart(self.oldest);
        for commit in changes.chunk_by(|a, b| a.revision() == b.revision()) {
            commit.iter().for_each(|change| self.push(change));
            drop(self.close());
        }
    }

    /// Whether the state had this revision, and all changes behind it are here.
    pub(super) fn covers(&self, revision: Revision) -> bool {
        let had = |chunk: &Chunk| {
            let place = chunk
                .changes
                .binary_search_by_key(&revision, Kept::revision);
            place.is_ok()
        };
        let begins_by = |chunk: &&Chunk| chunk.first().is_some_and(|it| it <= revision);
        revision == self.oldest
            || revision > self.oldest && self.chunks().rev().find(begins_by).is_some_and(had)
    }

    /// The changes of these keys in the next commits behind a revision, about so many. `None` if some have been forgotten.
    pub(super) fn after(
        &self,
        revision: Revision,
        interest: &Interest,
        about: usize,
    ) -> Option<Commits> {
        if revision < self.oldest {
            return None;
        }
        let behind = |chunk: &Arc<Chunk>| chunk.last().is_some_and(|last| last <= revision);
        let first = self.full.partition_point(behind);
        let mut found = Commits::none(revision);
        let mut seen = 0;
        for chunk in self.chunks().skip(first) {
            let start = chunk.first_behind(revision);
            for kept in &chunk.changes[start..] {
                if kept.revision() != found.to {
                    // The commits so far are whole.
                    if found.changes.len() >= about || seen >= SEEN_AT_ONCE {
                        return Some(found);
                    }
                    found.to = kept.revision();
                }
                seen += 1;
                if chunk.concerns(kept, interest) {
                    found.changes.push(chunk.change(kept));
                }
            }
        }
        Some(found)
    }

    /// All changes.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Change> {
        self.chunks().flat_map(|chunk| chunk.from(0))
    }

    /// The changes of the latest commits, of no more than so many bytes, and the revision behind which they begin.
    pub(super) fn latest(&self, mut bytes: u64) -> (Revision, Vec<Change>) {
        let mut changes: Vec<Change> = self.iter().collect();
        let mut start = changes.len();
        while let Some(change) = start.checked_sub(1).map(|it| &changes[it])
            && change.footprint() <= bytes
        {
            bytes -= change.footprint();
            start -= 1;
        }
        // No commit in part.
        let before = start.checked_sub(1).map(|it| changes[it].revision());
        let later = changes[start..].iter();
        start += later.take_while(|it| Some(it.revision()) == before).count();
        (before.unwrap_or(self.oldest), changes.split_off(start))
    }

    fn chunks(&self) -> impl DoubleEndedIterator<Item = &Chunk> {
        let full = self.full.iter().map(|chunk| &**chunk);
        full.chain([&self.open])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    fn put(revision: Revision) -> Change {
        Change::Put(Entry::of("k", &"v".repeat(100)).at(revision))
    }

    fn filled(limit: u64, revisions: impl IntoIterator<Item = Revision>) -> History {
        let mut history = History::new(limit, 100);
        for revision in revisions {
            history.push(&put(revision));
            drop(history.close());
        }
        history
    }

    fn after(history: &History, revision: Revision, about: usize) -> Option<Vec<Revision>> {
        let found = history.after(revision, &Interest::ALL, about)?;
        Some(found.changes.iter().map(Change::revision).collect())
    }

    #[test]
    fn it_goes_on_behind_any_revision_and_never_splits_a_commit() {
        let mut history = History::new(1 << 20, 100);
        assert_eq!(after(&history, 100, 10), Some(vec![]));
        for revision in 101..2000 {
            for _ in 0..revision % 3 + 1 {
                history.push(&put(revision));
            }
            assert!(history.close().is_empty());
        }
        assert_eq!(after(&history, 1998, 10), Some(vec![1999, 1999]));
        assert_eq!(after(&history, 1999, 10), Some(vec![]));
        let mut at = 100;
        while at < 1999 {
            let next = after(&history, at, 7).unwrap();
            assert_eq!(next[0], at + 1);
            at = *next.last().unwrap();
            let whole = next.iter().filter(|it| **it == at).count();
            assert_eq!(whole as u64, at % 3 + 1);
            assert!(next.len() < 7 + 3 || at == 1999);
        }
    }

    #[test]
    fn one_look_finds_what_it_looks_for_and_goes_no_further_than_it_may() {
        let mut history = History::new(1 << 30, 0);
        let commits = 3 * SEEN_AT_ONCE as u64;
        for revision in 1..=commits {
            let key = if revision % 1000 == 0 {
                "rare"
            } else {
                "usual"
            };
            history.push(&Change::Put(Entry::of(key, "v").at(revision)));
            drop(history.close());
        }
        let rare = Interest::Key(Key::try_from(&b"rare"[..]).unwrap());
        let (mut found, mut at) = (Vec::new(), 0);
        while at < commits {
            let some = history.after(at, &rare, 256).unwrap();
            assert!(some.to > at && some.to - at <= SEEN_AT_ONCE as u64);
            found.extend(some.changes.iter().map(Change::revision));
            at = some.to;
        }
        let expected: Vec<u64> = (1..=commits).filter(|it| it % 1000 == 0).collect();
        assert_eq!(found, expected);
        assert_eq!(history.after(commits, &rare, 256).unwrap().to, commits);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_bytes() {
        let history = filled(10_000, 101..1000);
        assert!(history.bytes() <= 10_000 && history.bytes() > 9_000);
        let oldest = history.oldest();
        assert!((900..999).contains(&oldest));
        assert_eq!(after(&history, oldest - 1, 10), None);
        assert_eq!(after(&history, oldest, 1), Some(vec![oldest + 1]));
        assert!(!history.covers(oldest - 1));
        assert!((oldest..1000).all(|it| history.covers(it)));
    }

    #[test]
    fn the_latest_commit_stays_however_large_it_is() {
        for limit in [0, 1, 500] {
            let mut history = filled(limit, 101..=110);
            for _ in 0..1000 {
                history.push(&put(111));
            }
            drop(history.close());
            assert_eq!(history.oldest(), 110);
            assert_eq!(after(&history, 110, 1).unwrap().len(), 1000);
            history.push(&put(112));
            drop(history.close());
            assert_eq!(history.oldest(), 111);
            assert_eq!(after(&history, 111, 1), Some(vec![112]));
        }
    }

    #[test]
    fn only_revisions_that_the_state_had_are_known() {
        let history = filled(1 << 20, [101, 5000, 5001]);
        for (revision, known) in [
            (99, false),
            (100, true),
            (101, true),
            (102, false),
            (4999, false),
            (5000, true),
            (5001, true),
            (5002, false),
        ] {
            assert_eq!(history.covers(revision), known, "{revision}");
        }
        assert!(History::new(0, 7).covers(7));
    }

    #[test]
    fn the_latest_commits_are_whole() {
        let mut history = History::new(1 << 20, 100);
        for revision in 101..=110 {
            history.push(&put(revision));
            history.push(&put(revision));
            drop(history.close());
        }
        let each = put(1).footprint();
        for (bytes, oldest, changes) in [
            (u64::MAX, 100, 20),
            (20 * each, 100, 20),
            (20 * each - 1, 101, 18),
            (3 * each, 109, 2),
            (each, 110, 0),
            (0, 110, 0),
        ] {
            let latest = history.latest(bytes);
            assert_eq!((latest.0, latest.1.len()), (oldest, changes), "{bytes}");
        }
        assert_eq!(History::new(0, 7).latest(0).0, 7);
    }

    #[test]
    fn commits_can_be_taken_back() {
        let mut history = filled(1 << 20, 101..=1000);
        history.take_back(1000);
        assert_eq!(after(&history, 999, 10), Some(vec![1000]));
        history.take_back(300);
        assert_eq!(after(&history, 299, 10), Some(vec![300]));
        let same = filled(1 << 20, 101..=300);
        assert_eq!(history.bytes(), same.bytes());
        history.push(&put(301));
        drop(history.close());
        history.take_back(0);
        assert_eq!(
            (after(&history, 100, 10), history.bytes()),
            (Some(vec![]), 0)
        );
    }

    #[test]
    fn entries_come_back_as_they_were_small_and_large() {
        let mut history = History::new(1 << 20, 100);
        let expiry = Some(Expiry::at_millis(77));
        let entries = [1, COPIED - 10, COPIED, 5 * COPIED].map(|length| {
            let entry = Entry::of("k", &"é".repeat(length / 2));
            entry.with_expiry(expiry).at(101)
        });
        for entry in &entries {
            history.push(&Change::Touch(entry.clone()));
        }
        let after = history.after(100, &Interest::ALL, 10).unwrap().changes;
        for (entry, change) in entries.iter().zip(&after) {
            let (Change::Put(kept) | Change::Touch(kept)) = change else {
                panic!("{change:?}");
            };
            assert!(kept == entry && kept.revision() == 101);
        }
        assert_eq!(after.len(), entries.len());
    }

    #[test]
    fn what_a_clear_has_removed_is_not_named() {
        let mut history = History::new(1 << 20, 100);
        let (prefix, revision) = ("a:".into(), 101);
        history.push(&Change::Clear { prefix, revision });
        history.push(&Change::Remove {
            key: Key::try_from(&b"a:1"[..]).unwrap(),
            revision,
            cause: Cause::Cleared,
        });
        assert_eq!(after(&history, 100, 10), Some(vec![101]));
    }
}
