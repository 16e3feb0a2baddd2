//! How an entry looks on disk: a byte of flags, the expiry if it has one, the text.

use super::super::{Entry, Expiry, Key, Kind};

/// The flag of a record that holds an expiry: milliseconds since 1970, 8 bytes, little-endian.
const EXPIRES: u8 = 1;

/// The flag of a record whose text is JSON other than a string.
const JSON: u8 = 2;

/// Writes an entry to the end of some bytes.
pub(super) fn encode(entry: &Entry, record: &mut Vec<u8>) {
    let kind = match entry.kind() {
        Kind::Text => 0,
        Kind::Json => JSON,
    };
    record.push(kind | if entry.expiry.is_some() { EXPIRES } else { 0 });
    if let Some(expiry) = entry.expiry {
        record.extend_from_slice(&expiry.millis().to_le_bytes());
    }
    record.extend_from_slice(entry.value().as_bytes());
}

/// Reads the record of a key; `None` if it is none.
pub(super) fn decode(key: &Key, record: &[u8]) -> Option<Entry> {
    let (&flags, mut rest) = record.split_first()?;
    if flags & !(EXPIRES | JSON) != 0 {
        return None;
    }
    let mut expiry = None;
    if flags & EXPIRES != 0 {
        let (millis, text) = rest.split_first_chunk()?;
        expiry = Some(Expiry::at_millis(u64::from_le_bytes(*millis)));
        rest = text;
    }
    let kind = if flags & JSON == 0 {
        Kind::Text
    } else {
        Kind::Json
    };
    Entry::new(key, kind, rest, expiry).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::try_from(&b"key"[..]).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["x", "Nairobi 🌍", &"v".repeat(100_000)] {
            for expiry in [
                None,
                Some(Expiry::at_millis(0)),
                Some(Expiry::at_millis(u64::MAX)),
            ] {
                for kind in [Kind::Text, Kind::Json] {
                    let entry = Entry::new(&key(), kind, text.as_bytes(), expiry).unwrap();
                    let mut record = Vec::new();
                    encode(&entry, &mut record);
                    assert_eq!(decode(&key(), &record), Some(entry));
                }
            }
        }
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for bytes in [&b""[..], b"\x04text", b"\x01short", b"\x00\xff"] {
            assert_eq!(decode(&key(), bytes), None, "{bytes:?}");
        }
    }
}
