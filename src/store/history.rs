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

/// What nobody has looked at yet stays, also where that makes the history so much larger.
const UNSEEN: u64 = 256 << 20;

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

    /// The commits so far are whole. Returns what is forgotten for them, to be freed when no lock is held; as a rule nothing behind
    /// `forgettable`.
    pub(super) fn close(&mut self, forgettable: Revision) -> Vec<Arc<Chunk>> {
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
            let over = self.bytes - self.limit > UNSEEN;
            let seen = |chunk: &mut Arc<Chunk>| over || chunk.last() <= Some(forgettable);
            let Some(chunk) = self.full.pop_front_if(seen) else {
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
            drop(self.close(Revision::MAX));
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
mod tests;
