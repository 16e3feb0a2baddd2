//! How an entry looks on disk: a byte of flags, the expiry if it has one, the text.

use super::super::{Entry, Expiry, Value};

/// The flag of a record that holds an expiry: milliseconds since 1970, 8 bytes, little-endian.
const EXPIRES: u8 = 1;

pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let text = entry.value.as_str().as_bytes();
    let mut record = Vec::with_capacity(9 + text.len());
    match entry.expiry {
        None => record.push(0),
        Some(expiry) => {
            record.push(EXPIRES);
            record.extend_from_slice(&expiry.millis().to_le_bytes());
        }
    }
    record.extend_from_slice(text);
    record
}

/// Reads a record; `None` if it is none.
pub(super) fn decode(record: &[u8]) -> Option<Entry> {
    let (flags, rest) = record.split_first()?;
    let (expiry, text) = match *flags {
        0 => (None, rest),
        EXPIRES => {
            let (millis, text) = rest.split_first_chunk()?;
            (Some(Expiry::at_millis(u64::from_le_bytes(*millis))), text)
        }
        _ => return None,
    };
    Some(Entry {
        value: Value::text(std::str::from_utf8(text).ok()?),
        expiry,
    })
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
                let entry = Entry {
                    value: Value::text(text),
                    expiry,
                };
                assert_eq!(decode(&encode(&entry)), Some(entry));
            }
        }
    }

    #[test]
    fn what_is_no_record_is_not_read() {
        for bytes in [&b""[..], b"\x02text", b"\x01short", b"\x00\xff"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
