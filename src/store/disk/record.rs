//! How an entry looks on disk: a byte of flags, the expiry if it has one, the text.

use super::super::{Entry, Expiry, Value};

/// The flag of a record that holds an expiry: milliseconds since 1970, 8 bytes, little-endian.
const EXPIRES: u8 = 1;

/// The flag of a record whose text is JSON other than a string.
const JSON: u8 = 2;

/// Writes an entry to the end of some bytes.
pub(super) fn encode(entry: &Entry, record: &mut Vec<u8>) {
    let text = entry.value.as_str().as_bytes();
    let kind = match entry.value {
        Value::Text(_) => 0,
        Value::Json(_) => JSON,
    };
    record.push(kind | if entry.expiry.is_some() { EXPIRES } else { 0 });
    if let Some(expiry) = entry.expiry {
        record.extend_from_slice(&expiry.millis().to_le_bytes());
    }
    record.extend_from_slice(text);
}

/// Reads a record; `None` if it is none.
pub(super) fn decode(record: &[u8]) -> Option<Entry> {
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
    let text = std::str::from_utf8(rest).ok()?;
    let value = if flags & JSON == 0 {
        Value::text(text)
    } else {
        Value::json(text)
    };
    Some(Entry { value, expiry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["x", "Nairobi 🌍", &"v".repeat(100_000)] {
            for expiry in [
                None,
                Some(Expiry::at_millis(0)),
                Some(Expiry::at_millis(u64::MAX)),
            ] {
                for value in [Value::text(text), Value::json(text)] {
                    let entry = Entry { value, expiry };
                    let mut record = Vec::new();
                    encode(&entry, &mut record);
                    assert_eq!(decode(&record), Some(entry));
                }
            }
        }
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for bytes in [&b""[..], b"\x04text", b"\x01short", b"\x00\xff"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
