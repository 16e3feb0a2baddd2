//! Reads that wait until the map has all that was committed before they came.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::commit::Start;

/// Reads that wait, by the record that they need.
#[derive(Default)]
pub(super) struct Readers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// etcd's revision of the last record that was carried out.
    at: i64,
    readers: BTreeMap<i64, Group>,
    /// When it was asked, at the earliest, how far the log was to which the map has come.
    current: Option<Instant>,
}

/// Those for whom it was asked together.
#[derive(Default)]
struct Group {
    asked: Option<Instant>,
    readers: Vec<Reader>,
}

/// A read that waits.
pub(super) struct Reader {
    pub(super) since: Instant,
    pub(super) start: Start,
}

impl Readers {
    /// The log went up to `needed` when it was asked. Returns those who need not wait any more.
    pub(super) fn wait_for(
        &self,
        needed: i64,
        asked: Instant,
        readers: Vec<Reader>,
    ) -> Vec<Reader> {
        let mut waiting = self.lock();
        if waiting.at >= needed {
            waiting.current = waiting.current.max(Some(asked));
            return readers;
        }
        let group = waiting.readers.entry(needed).or_default();
        group.asked = group.asked.max(Some(asked));
        group.readers.extend(readers);
        Vec::new()
    }

    /// The map is about to be replaced by an earlier one: no read may begin until it has come to a record.
    pub(super) fn hold(&self) {
        self.lock().at = -1;
    }

    /// The map has come to this record. Returns those who have waited for it.
    pub(super) fn come_to(&self, at: i64) -> Vec<Reader> {
        let mut waiting = self.lock();
        waiting.at = at;
        let mut released = Vec::new();
        while let Some(first) = waiting.readers.first_entry()
            && *first.key() <= at
        {
            let group = first.remove();
            waiting.current = waiting.current.max(group.asked);
            released.extend(group.readers);
        }
        released
    }

    /// Those who have waited for so long.
    pub(super) fn overdue(&self, patience: Duration) -> Vec<Reader> {
        let mut waiting = self.lock();
        let mut overdue = Vec::new();
        for group in waiting.readers.values_mut() {
            let late = |reader: &mut Reader| reader.since.elapsed() >= patience;
            overdue.extend(group.readers.extract_if(.., late));
        }
        // Where the map does not get on for hours, groups without readers must not pile up.
        let last = waiting.readers.last_key_value().map(|(needed, _)| *needed);
        waiting
            .readers
            .retain(|needed, group| !group.readers.is_empty() || Some(*needed) == last);
        overdue
    }

    /// When the map was known to have everything, the last time.
    pub(super) fn current(&self) -> Option<Instant> {
        self.lock().current
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
