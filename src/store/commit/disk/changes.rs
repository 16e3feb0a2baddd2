//! How changes look in a batch of the log, and entries in a block of a snapshot.
//!
//! A batch is a byte that is 1 if all entries before it are gone and 0 otherwise, then its changes, one for each key. A block is
//! only changes, all of which set an entry. A change is
//!
//! ```text
//! bytes  field
//!     1  flags: SET, TOUCHED or neither (the key is removed), EXPIRES, JSON
//!     2  length of the key
//!     n  key
//!     8  with EXPIRES: milliseconds since 1970
//!     4  with SET: length of the value
//!     n  with SET: value
//! ```
//!
//! Numbers are little-endian.

use crate::store::index::Loader;
use crate::store::keyspace::{Change, Changes};
use crate::store::{Entry, Expiry, Kind};

/// The key has this value from now on.
const SET: u8 = 1;
/// The key has another expiry from now on, or none.
const TOUCHED: u8 = 2;
/// The key expires.
const EXPIRES: u8 = 4;
/// The value is JSON, and not text.
const JSON: u8 = 8;

/// Appends a batch.
pub(super) fn encode(changes: &Changes, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(changes.cleared));
    for change in &changes.entries {
        match change {
            Change::Set(entry) => encode_entry(entry, bytes),
            Change::Touched(entry) => encode_key(TOUCHED, entry.key(), entry.expiry, bytes),
            Change::Removed(entry) => encode_key(0, entry.key(), None, bytes),
        }
    }
}

/// Appends an entry.
pub(super) fn encode_entry(entry: &Entry, bytes: &mut Vec<u8>) {
    let kind = match entry.kind() {
        Kind::Text => 0,
        Kind::Json => JSON,
    };
    encode_key(SET | kind, entry.key(), entry.expiry, bytes);
    let value = entry.value().as_bytes();
    // The longest value has 1 GiB.
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn encode_key(flags: u8, key: &str, expiry: Option<Expiry>, bytes: &mut Vec<u8>) {
    bytes.push(flags | if expiry.is_some() { EXPIRES } else { 0 });
    // The longest key has 1024 bytes.
    bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
    bytes.extend_from_slice(key.as_bytes());
    if let Some(expiry) = expiry {
        bytes.extend_from_slice(&expiry.millis().to_le_bytes());
    }
}

/// Carries out a batch. `None` if it is none; then it has been carried out in part.
pub(super) fn apply(batch: &[u8], entries: &mut Loader) -> Option<()> {
    let (cleared, mut rest) = batch.split_first()?;
    match cleared {
        0 => {}
        1 => *entries = Loader::default(),
        _ => return None,
    }
    while !rest.is_empty() {
        match take_change(&mut rest)? {
            Read::Set(entry) => entries.insert(entry),
            Read::Touched(key, expiry) => {
                let touched = entries.get(key)?.with_expiry(expiry);
                entries.insert(touched);
            }
            Read::Removed(key) => entries.remove(key),
        }
    }
    Some(())
}

/// Reads the entries of a block. `None` if there is anything else.
pub(super) fn read_entries(mut block: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !block.is_empty() {
        let Read::Set(entry) = take_change(&mut block)? else {
            return None;
        };
        entries.push(entry);
    }
    Some(entries)
}

/// A change as it was written.
enum Read<'a> {
    Set(Entry),
    Touched(&'a str, Option<Expiry>),
    Removed(&'a str),
}

fn take_change<'a>(bytes: &mut &'a [u8]) -> Option<Read<'a>> {
    let [flags] = take(bytes)?;
    let key = u16::from_le_bytes(take(bytes)?);
    let key = bytes.split_off(..usize::from(key))?;
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
            Entry::read(key, kind, value, expiry).map(Read::Set)
        }
        TOUCHED => Some(Read::Touched(str::from_utf8(key).ok()?, expiry)),
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
                    entries.push(entry(&"k".repeat(1024), kind, value, expiry));
                }
            }
        }
        entries.iter().for_each(|it| encode_entry(it, &mut block));
        assert_eq!(read_entries(&block), Some(entries));
        for length in [1, 5, 1030, block.len() - 1] {
            assert_eq!(read_entries(&block[..length]), None, "{length}");
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
                    Change::Set(text("b", "4")),
                    Change::Set(text("d", "5")),
                ]
                .into(),
                ..Changes::default()
            };
            let touched = old[2].with_expiry(Some(Expiry::at_millis(u64::MAX)));
            if !cleared {
                changes.entries.insert(Change::Touched(touched.clone()));
            }
            let mut bytes = Vec::new();
            encode(&changes, &mut bytes);
            let mut loader = Loader::from_blocks([old.to_vec()]);
            apply(&bytes, &mut loader).unwrap();
            let entries: Entries = loader.finish();
            assert_eq!(entries.get("a"), None);
            assert_eq!(entries.get("b"), Some(&text("b", "4")));
            assert_eq!(entries.get("c"), (!cleared).then_some(&touched));
            assert_eq!(entries.len(), if cleared { 2 } else { 3 });
            let short = &bytes[..bytes.len() - 1];
            assert_eq!(apply(short, &mut Loader::default()), None);
        }
        assert_eq!(apply(&[2], &mut Loader::default()), None);
        let unknown_key = [0, TOUCHED, 1, 0, b'k'];
        assert_eq!(apply(&unknown_key, &mut Loader::default()), None);
    }
}
