//! How a batch of changes looks in the log: a byte that says whether everything before it is gone, then for each key its
//! length (2 bytes), itself, the length of its record (4 bytes; 0 where the key is removed), and the record.
//!
//! It says what came of the commands, not what they were, so that it may be carried out on entries that have seen some of
//! it already. All numbers are little-endian.

use super::super::Key;
use super::super::entries::Entries;
use super::super::state::Changes;
use super::record;
use super::torn::{Broken, Fields};

/// Writes changes to the end of some bytes.
pub(super) fn encode(changes: &Changes, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(changes.cleared));
    for change in &changes.entries {
        let key = change.key().as_bytes();
        // A key has 1024 bytes at most, and a value 1 GiB.
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        bytes.extend_from_slice(key);
        let length_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        if let Some(entry) = change.entry() {
            record::encode(entry, bytes);
            let length = (bytes.len() - length_at - 4) as u32;
            bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Carries out what was written. `None` if it is no batch; then it has been carried out in part.
pub(super) fn apply(bytes: &[u8], entries: &mut Entries) -> Option<()> {
    let mut fields = Fields { bytes, at: 0 };
    match fields.take().ok()? {
        [0] => {}
        [1] => *entries = Entries::default(),
        _ => return None,
    }
    while fields.at < bytes.len() {
        let (key, record) = change(&mut fields).ok()?;
        let key = Key::try_from(key).ok()?;
        if record.is_empty() {
            entries.remove(key.as_str());
        } else {
            entries.insert(record::decode(&key, record)?);
        }
    }
    Some(())
}

fn change<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], &'a [u8]), Broken> {
    let key = u16::from_le_bytes(fields.take()?);
    let key = fields.skip(usize::from(key))?;
    let record = u32::from_le_bytes(fields.take()?);
    Ok((key, fields.skip(record as usize)?))
}

#[cfg(test)]
mod tests {
    use super::super::super::state::Change;
    use super::super::super::{Entry, Expiry, Kind};
    use super::*;

    fn entry(key: &str, json: &str) -> Entry {
        let key = Key::try_from(key.as_bytes()).unwrap();
        let expiry = Some(Expiry::at_millis(u64::MAX));
        Entry::new(&key, Kind::Json, json.as_bytes(), expiry).unwrap()
    }

    #[test]
    fn what_is_written_is_carried_out_once_or_twice() {
        let old = ["a", "b", "c"].map(|key| entry(key, "1"));
        for cleared in [false, true] {
            let changes = Changes {
                cleared,
                entries: [
                    Change::Removed(old[0].clone()),
                    Change::Set(entry("b", "4")),
                ]
                .into(),
            };
            let mut bytes = Vec::new();
            encode(&changes, &mut bytes);
            let mut entries = Entries::from_iter(old.clone());
            for _ in 0..2 {
                apply(&bytes, &mut entries).unwrap();
                assert_eq!(entries.get("a"), None);
                assert_eq!(entries.get("b"), Some(&entry("b", "4")));
                assert_eq!(entries.get("c").is_none(), cleared);
            }
            let short = &bytes[..bytes.len() - 1];
            assert_eq!(apply(short, &mut entries), None);
        }
        assert_eq!(apply(&[2], &mut Entries::default()), None);
    }
}
