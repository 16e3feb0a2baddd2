//! How changes look in a batch of the log, and entries in a block of a snapshot.
//!
//! A batch is a byte that is 1 if all entries before it are gone and 0 otherwise, then the revision of its last commit (8 bytes), then its
//! changes, one for each key. A block is only changes, all of which set an entry. A change is
//!
//! ```text
//! bytes  field
//!     1  flags: SET, TOUCHED or neither (the key is removed), EXPIRES, JSON
//!     2  length of the key
//!     n  key
//!     8  with SET and TOUCHED: revision
//!     8  with EXPIRES: milliseconds since 1970
//!     4  with SET: length of the value
//!     n  with SET: value
//! ```
//!
//! Numbers are little-endian. Version 3 wrote the same without the revisions. Everything in there has one and the same revision, which
//! [`super::directory`] knows.

use crate::store::index::Loader;
use crate::store::keyspace::{Change, Changes};
use crate::store::{Entry, Expiry, Kind, Revision};

/// The key has this value from now on.
const SET: u8 = 1;
/// The key has another expiry from now on, or none.
const TOUCHED: u8 = 2;
/// The key expires.
const EXPIRES: u8 = 4;
/// The value is JSON, and not text.
const JSON: u8 = 8;

/// Where revisions are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Version 3 wrote it: all have this one.
    Before(Revision),
    /// They are written down.
    Now,
}

impl Form {
    fn take_revision(self, bytes: &mut &[u8]) -> Option<Revision> {
        Some(match self {
            Form::Before(revision) => revision,
            Form::Now => u64::from_le_bytes(take(bytes)?),
        })
    }
}

/// Appends a batch.
pub(super) fn encode(changes: &Changes, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(changes.cleared));
    bytes.extend_from_slice(&changes.revision.to_le_bytes());
    for change in &changes.entries {
        match change {
            Change::Set(entry) => encode_entry(entry, bytes),
            Change::Touched(entry) => encode_head(TOUCHED, entry, bytes),
            Change::Removed(entry) => encode_key(0, entry.key(), bytes),
        }
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
    encode_key(flags | expires, entry.key(), bytes);
    bytes.extend_from_slice(&entry.revision().to_le_bytes());
    if let Some(expiry) = entry.expiry {
        bytes.extend_from_slice(&expiry.millis().to_le_bytes());
    }
}

fn encode_key(flags: u8, key: &str, bytes: &mut Vec<u8>) {
    bytes.push(flags);
    // The longest key has 1024 bytes.
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(key.as_bytes());
}

/// Carries out a batch, and returns its revision. `None` if it is none; then it has been carried out in part.
pub(super) fn apply(batch: &[u8], form: Form, entries: &mut Loader) -> Option<Revision> {
    let (cleared, mut rest) = batch.split_first()?;
    let revision = form.take_revision(&mut rest)?;
    match cleared {
        0 => {}
        1 => *entries = Loader::default(),
        _ => return None,
    }
    while !rest.is_empty() {
        match take_change(&mut rest, form)? {
            Read::Set(entry) => entries.insert(entry),
            Read::Touched(key, expiry, revision) => {
                let touched = entries.get(key)?.with_expiry(expiry);
                entries.insert(touched.at(revision));
            }
            Read::Removed(key) => entries.remove(key),
        }
    }
    Some(revision)
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
    Removed(&'a str),
}

fn take_change<'a>(bytes: &mut &'a [u8], form: Form) -> Option<Read<'a>> {
    let [flags] = take(bytes)?;
    let key = u16::from_le_bytes(take(bytes)?);
    let key = bytes.split_off(..usize::from(key))?;
    let revision = match flags & (SET | TOUCHED) {
        0 => 0,
        _ => form.take_revision(bytes)?,
    };
    let expiry = match flags & EXPIRES {
        0 => None,
        _ => Some(Expiry::at_millis(u64::from_le_bytes(take(bytes)?))),
    };
    let kind = match flags & JSON {
        0 => Kind::Text,
        _ => Kind::Json,
    };
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
        0 => Some(Read::Removed(str::from_utf8(key).ok()?)),
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    bytes.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;
    use crate::store::index::Entries;

    fn entry(key: &str, kind: Kind, value: &str, expiry: Option<u64>) -> Entry {
        let key = Key::try_from(key.as_bytes()).unwrap();
        let expiry = expiry.map(Expiry::at_millis);
        Entry::new(&key, kind, value.as_bytes(), expiry).unwrap()
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let (mut entries, mut block) = (Vec::new(), Vec::new());
        for value in ["", "x", "Nairobi 🌍\0", &"v".repeat(100_000)] {
            for expiry in [None, Some(0), Some(u64::MAX)] {
                for kind in [Kind::Text, Kind::Json] {
                    let entry = entry(&"k".repeat(1024), kind, value, expiry);
                    entries.push(entry.at((1 << 53) - 1 - entries.len() as u64));
                }
            }
        }
        entries.iter().for_each(|it| encode_entry(it, &mut block));
        let read = read_entries(&block, Form::Now).unwrap();
        let revisions =
            |entries: &[Entry]| -> Vec<Revision> { entries.iter().map(Entry::revision).collect() };
        assert_eq!(revisions(&read), revisions(&entries));
        assert_eq!(read, entries);
        for length in [1, 5, 1030, 1040, block.len() - 1] {
            let read = read_entries(&block[..length], Form::Now);
            assert_eq!(read, None, "{length}");
        }
    }

    #[test]
    fn a_batch_is_carried_out_as_it_was_written() {
        let text = |key, value| entry(key, Kind::Text, value, None);
        let old = ["a", "b", "c"].map(|key| text(key, "1"));
        for cleared in [false, true] {
            let mut changes = Changes {
                cleared,
                entries: [
                    Change::Removed(old[0].clone()),
                    Change::Set(text("b", "4").at(8)),
                    Change::Set(text("d", "5").at(9)),
                ]
                .into(),
                revision: 10,
                ..Changes::default()
            };
            let touched = old[2].with_expiry(Some(Expiry::at_millis(u64::MAX)));
            let touched = touched.at(7);
            if !cleared {
                changes.entries.insert(Change::Touched(touched.clone()));
            }
            let mut bytes = Vec::new();
            encode(&changes, &mut bytes);
            let mut loader = Loader::from_blocks([old.to_vec()]);
            assert_eq!(apply(&bytes, Form::Now, &mut loader), Some(10));
            let entries: Entries = loader.finish();
            assert_eq!(entries.get("a"), None);
            assert_eq!(entries.get("b"), Some(&text("b", "4")));
            assert_eq!(entries.get("c"), (!cleared).then_some(&touched));
            assert_eq!(entries.len(), if cleared { 2 } else { 3 });
            let revision = |key| entries.get(key).map(Entry::revision);
            let expected = [Some(8), (!cleared).then_some(7), Some(9)];
            assert_eq!(["b", "c", "d"].map(revision), expected);
            let short = &bytes[..bytes.len() - 1];
            assert_eq!(apply(short, Form::Now, &mut Loader::default()), None);
        }
        assert_eq!(apply(&[2], Form::Before(1), &mut Loader::default()), None);
        let unknown_key = [0, TOUCHED, 1, 0, b'k'];
        let applied = apply(&unknown_key, Form::Before(1), &mut Loader::default());
        assert_eq!(applied, None);
    }

    #[test]
    fn what_version_3_wrote_gets_the_revision_that_is_given() {
        let mut loader = Loader::default();
        let batch = [
            &[1, SET, 1, 0, b'k', 1, 0, 0, 0, b'v'][..],
            &[TOUCHED | EXPIRES, 1, 0, b'k'],
            &[9; 8],
        ];
        assert_eq!(
            apply(&batch.concat(), Form::Before(77), &mut loader),
            Some(77)
        );
        let expires =
            Entry::of("k", "v").with_expiry(Some(Expiry::at_millis(0x0909_0909_0909_0909)));
        assert_eq!(loader.get("k"), Some(&expires));
        assert_eq!(loader.get("k").map(Entry::revision), Some(77));
        let block = [SET, 1, 0, b'k', 1, 0, 0, 0, b'v'];
        let read = read_entries(&block, Form::Before(78)).unwrap();
        assert_eq!(read, [Entry::of("k", "v")]);
        assert_eq!(read[0].revision(), 78);
    }
}
