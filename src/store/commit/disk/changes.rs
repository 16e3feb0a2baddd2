//! How changes look in a batch of the log, and entries in a block of a snapshot.
//!
//! A batch is a byte that is 1 if it takes the place of the batch before it, which never happened, and 0 otherwise; then the revision before it
//! and the one behind it (8 bytes each), then its changes in their order. A block is only changes, all of which set an entry.
//! A change is
//!
//! ```text
//! bytes  field
//!     1  flags: SET, TOUCHED, CLEARED or none of these (the key is removed); EXPIRES, JSON; and why it is removed: EXPIRED, BY_CLEAR
//!     2  length of the key, or with CLEARED of the prefix
//!     n  key, or prefix
//!     8  revision
//!     8  with EXPIRES: milliseconds since 1970
//!     4  with SET: length of the value
//!     n  with SET: value
//! ```
//!
//! Numbers are little-endian. A clear without a prefix removes everything; with one, the removal of each key follows.
//!
//! Version 4 kept only the last change of each key, and no order. Its batch has a byte that is 1 if all entries before it are gone,
//! and the revision behind it, and what is removed has no revision. Version 3 wrote the same without any revisions. Everything in
//! there has one and the same, which [`super::directory`] knows.

use crate::store::change::{Cause, Change};
use crate::store::history::History;
use crate::store::index::Loader;
use crate::store::keyspace::Changes;
use crate::store::{Entry, Expiry, Key, Kind, Revision};

/// The key has this value from now on.
const SET: u8 = 1;
/// The key has another expiry from now on, or none.
const TOUCHED: u8 = 2;
/// The key expires.
const EXPIRES: u8 = 4;
/// The value is JSON, and not text.
const JSON: u8 = 8;
/// Removed since it has expired.
const EXPIRED: u8 = 16;
/// Removed by a clear that stands before it.
const BY_CLEAR: u8 = 32;
/// Everything with this prefix is removed.
const CLEARED: u8 = 64;

/// Which version wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Version 3: all have this revision.
    V3(Revision),
    V4,
    Now,
}

impl Form {
    fn take_revision(self, bytes: &mut &[u8]) -> Option<Revision> {
        Some(match self {
            Form::V3(revision) => revision,
            Form::V4 | Form::Now => take_number(bytes)?,
        })
    }
}

/// Appends a batch.
pub(super) fn encode(changes: &Changes, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(changes.corrects));
    bytes.extend_from_slice(&changes.before.to_le_bytes());
    bytes.extend_from_slice(&changes.revision.to_le_bytes());
    for change in &changes.list {
        match change {
            Change::Touch(entry) => encode_head(TOUCHED, entry, bytes),
            other => encode_whole(other, bytes),
        }
    }
}

/// Appends a change, in a form that does not need what was there before.
pub(super) fn encode_whole(change: &Change, bytes: &mut Vec<u8>) {
    match change {
        Change::Put(entry) | Change::Touch(entry) => encode_entry(entry, bytes),
        Change::Remove {
            key,
            revision,
            cause,
        } => {
            let cause = match cause {
                Cause::Deleted => 0,
                Cause::Expired => EXPIRED,
                Cause::Cleared => BY_CLEAR,
            };
            encode_key(cause, key.as_str(), *revision, bytes);
        }
        Change::Clear { prefix, revision } => encode_key(CLEARED, prefix, *revision, bytes),
    }
}

/// Appends an entry.
pub(super) fn encode_entry(entry: &Entry, bytes: &mut Vec<u8>) {
    let kind = match entry.kind() {
        Kind::Text => 0,
        Kind::Json => JSON,
    };
    encode_head(SET | kind, entry, bytes);
    let value = entry.value().as_bytes();
    // The longest value has 1 GiB.
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Appends all of an entry but its value.
fn encode_head(flags: u8, entry: &Entry, bytes: &mut Vec<u8>) {
    let expires = if entry.expiry.is_some() { EXPIRES } else { 0 };
    encode_key(flags | expires, entry.key(), entry.revision(), bytes);
    if let Some(expiry) = entry.expiry {
        bytes.extend_from_slice(&expiry.millis().to_le_bytes());
    }
}

fn encode_key(flags: u8, key: &str, revision: Revision, bytes: &mut Vec<u8>) {
    bytes.push(flags);
    // The longest key has 1024 bytes, and a prefix that is longer has none.
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&revision.to_le_bytes());
}

/// A store while it is loaded.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) entries: Loader,
    /// The revision of the last batch.
    pub(super) last: Revision,
    pub(super) history: History,
}

impl Loading {
    /// An empty store, which had this revision, and may have so many bytes of history.
    pub(super) fn begin(history_bytes: u64, last: Revision) -> Loading {
        Loading {
            entries: Loader::default(),
            last,
            history: History::new(history_bytes, last),
        }
    }

    /// Carries out a batch. `None` if it is none; then it has been carried out in part.
    pub(super) fn apply(&mut self, mut batch: &[u8], form: Form) -> Option<()> {
        let [kind] = take(&mut batch)?;
        if kind > 1 {
            return None;
        }
        if let Form::V3(_) | Form::V4 = form {
            return self.apply_earlier(kind == 1, batch, form);
        }
        let before = take_number(&mut batch)?;
        let revision = take_number(&mut batch)?;
        if kind == 1 {
            self.history.take_back(before);
        }
        while !batch.is_empty() {
            let change = take_change(&mut batch, form)?.into_change(&self.entries)?;
            self.carry_out(&change);
            // A correction begins with what was there before.
            if change.revision() > before {
                self.history.push(&change);
            }
        }
        drop(self.history.close(Revision::MAX));
        self.last = match kind {
            1 => revision,
            _ => self.last.max(revision),
        };
        Some(())
    }

    /// The same for a batch that does not say how it has come about.
    fn apply_earlier(&mut self, cleared: bool, mut batch: &[u8], form: Form) -> Option<()> {
        let revision = form.take_revision(&mut batch)?;
        if cleared {
            self.entries = Loader::default();
        }
        while !batch.is_empty() {
            let change = take_change(&mut batch, form)?.into_change(&self.entries)?;
            self.carry_out(&change);
        }
        self.last = self.last.max(revision);
        self.history.restart(self.last);
        Some(())
    }

    fn carry_out(&mut self, change: &Change) {
        match change {
            Change::Put(entry) | Change::Touch(entry) => self.entries.insert(entry.clone()),
            Change::Remove { key, .. } => self.entries.remove(key.as_str()),
            Change::Clear { prefix, .. } if prefix.is_empty() => self.entries = Loader::default(),
            Change::Clear { .. } => {}
        }
    }
}

/// Reads changes that were written whole, see [`encode_whole`]. `None` if there is anything else.
pub(super) fn read_changes(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let (mut changes, nothing) = (Vec::new(), Loader::default());
    while !bytes.is_empty() {
        changes.push(take_change(&mut bytes, Form::Now)?.into_change(&nothing)?);
    }
    Some(changes)
}

/// Reads the entries of a block. `None` if there is anything else.
pub(super) fn read_entries(mut block: &[u8], form: Form) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !block.is_empty() {
        let Read::Set(entry) = take_change(&mut block, form)? else {
            return None;
        };
        entries.push(entry);
    }
    Some(entries)
}

/// A change as it was written.
enum Read<'a> {
    Set(Entry),
    Touched(&'a str, Option<Expiry>, Revision),
    Removed(Key, Revision, Cause),
    Cleared(&'a str, Revision),
}

impl Read<'_> {
    /// The change of these entries; `None` if one of them is missing.
    fn into_change(self, entries: &Loader) -> Option<Change> {
        Some(match self {
            Read::Set(entry) => Change::Put(entry),
            Read::Touched(key, expiry, revision) => {
                let touched = entries.get(key)?.with_expiry(expiry);
                Change::Touch(touched.at(revision))
            }
            Read::Removed(key, revision, cause) => Change::Remove {
                key,
                revision,
                cause,
            },
            Read::Cleared(prefix, revision) => Change::Clear {
                prefix: prefix.into(),
                revision,
            },
        })
    }
}

fn take_change<'a>(bytes: &mut &'a [u8], form: Form) -> Option<Read<'a>> {
    let [flags] = take(bytes)?;
    let key = u16::from_le_bytes(take(bytes)?);
    let key = bytes.split_off(..usize::from(key))?;
    let revision = match (form, flags & (SET | TOUCHED)) {
        // What is removed had none.
        (Form::V4, 0) => 0,
        _ => form.take_revision(bytes)?,
    };
    let expiry = match flags & EXPIRES {
        0 => None,
        _ => Some(Expiry::at_millis(take_number(bytes)?)),
    };
    let kind = match flags & JSON {
        0 => Kind::Text,
        _ => Kind::Json,
    };
    let removed = |cause| Some(Read::Removed(Key::try_from(key).ok()?, revision, cause));
    match flags & !(EXPIRES | JSON) {
        SET => {
            let value = u32::from_le_bytes(take(bytes)?);
            let value = bytes.split_off(..value as usize)?;
            let entry = Entry::read(key, kind, value, expiry)?;
            Some(Read::Set(entry.at(revision)))
        }
        TOUCHED => {
            let key = str::from_utf8(key).ok()?;
            Some(Read::Touched(key, expiry, revision))
        }
        0 => removed(Cause::Deleted),
        EXPIRED => removed(Cause::Expired),
        BY_CLEAR => removed(Cause::Cleared),
        CLEARED => Some(Read::Cleared(str::from_utf8(key).ok()?, revision)),
        _ => None,
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    bytes.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
