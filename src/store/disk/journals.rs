//! Looks for damage in the journals of the database before it is opened.
//!
//! fjall ends its replay of a journal at the first thing that it cannot read, and cuts the rest off. After a crash this
//! is right, but a byte that has gone bad further up looks the same to it. So the journals are read here first, and told
//! apart as [`super::torn`] does. With damage, the store stays as it is.
//!
//! The format is fjall 3's: a batch is a start (tag 1, number of items, sequence number), its items (tag 2) or clears
//! (tag 4), and an end (tag 3, xxh3 of the items, four magic bytes). Files are made longer ahead of time, with zeros.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::torn::{self, Broken, Fields, Look};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";

/// Reads all journals in a directory of fjall's. Returns the first that is damaged. A batch that a power cut has torn
/// in a way that fjall would not recognise is cut off.
pub(super) fn damaged_journal(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut journals = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let id = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.extend(id.map(|id| (id, path)));
        }
    }
    journals.sort_unstable();
    let last = journals.len().saturating_sub(1);
    for (n, (_, path)) in journals.into_iter().enumerate() {
        let bytes = fs::read(&path)?;
        match torn::look(&bytes, START, batch) {
            Look::Whole => {}
            Look::Torn { .. } if n == last => {}
            Look::TornWithin { whole } if n == last => {
                log::warn!(
                    "{}: cut off a batch that was written in part",
                    path.display()
                );
                let file = fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(whole as u64)?;
                file.sync_all()?;
            }
            Look::Torn { .. } | Look::TornWithin { .. } | Look::Damaged => return Ok(Some(path)),
        }
    }
    Ok(None)
}

/// The length of the batch that the bytes begin with.
fn batch(bytes: &[u8]) -> Result<usize, Broken> {
    let mut fields = Fields { bytes, at: 0 };
    fields.tag(START)?;
    let items = u32::from_le_bytes(fields.take()?);
    let _sequence_number: [u8; 8] = fields.take()?;
    let mut hash = Xxh3::new();
    for _ in 0..items {
        let start = fields.at;
        if fields.peek()? == CLEAR {
            fields.skip(9)?;
        } else {
            fields.tag(ITEM)?;
            let [_value_type, compression] = fields.take()?;
            let _keyspace: [u8; 8] = fields.take()?;
            let key = u16::from_le_bytes(fields.take()?);
            let value: [u8; 4] = fields.take()?;
            let stored: [u8; 4] = fields.take()?;
            if compression != 0 || value != stored {
                return Err(Broken { at: start });
            }
            fields.skip(usize::from(key) + u32::from_le_bytes(stored) as usize)?;
        }
        hash.update(&bytes[start..fields.at]);
    }
    let end = fields.at;
    fields.tag(END)?;
    let expected = u64::from_le_bytes(fields.take()?);
    let magic: [u8; 4] = fields.take()?;
    if magic != MAGIC || hash.digest() != expected {
        return Err(Broken { at: end });
    }
    Ok(fields.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes: &[u8]) -> Look {
        torn::look(bytes, START, batch)
    }

    fn batch_of(values: &[Vec<u8>]) -> Vec<u8> {
        let mut items = Vec::new();
        for value in values {
            items.extend([ITEM, 0, 0]);
            items.extend(1u64.to_le_bytes());
            items.extend(3u16.to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend(b"key");
            items.extend(value);
        }
        let mut hash = Xxh3::new();
        hash.update(&items);
        let mut batch = vec![START];
        batch.extend((values.len() as u32).to_le_bytes());
        batch.extend(7u64.to_le_bytes());
        batch.extend(&items);
        batch.push(END);
        batch.extend(hash.digest().to_le_bytes());
        batch.extend(MAGIC);
        batch
    }

    fn journal() -> (Vec<u8>, usize) {
        let mut bytes = batch_of(&[b"one".to_vec(), b"two".to_vec()]);
        let last = bytes.len();
        bytes.extend(batch_of(&[vec![b'v'; 2000], vec![b'w'; 3000]]));
        (bytes, last)
    }

    fn with_zeros(bytes: &[u8]) -> Vec<u8> {
        [bytes, &[0; 5000]].concat()
    }

    #[test]
    fn whole_batches_are_whole_with_and_without_space_behind_them() {
        assert_eq!(look(&[]), Look::Whole);
        assert_eq!(look(&journal().0), Look::Whole);
        assert_eq!(look(&with_zeros(&journal().0)), Look::Whole);
    }

    #[test]
    fn a_last_batch_that_breaks_off_anywhere_is_torn() {
        let (bytes, last) = journal();
        for end in last + 1..bytes.len() {
            assert_eq!(look(&bytes[..end]), Look::Torn { whole: last }, "{end}");
            assert_eq!(
                look(&with_zeros(&bytes[..end])),
                Look::Torn { whole: last },
                "{end} and zeros"
            );
        }
    }

    #[test]
    fn a_last_batch_that_lacks_a_sector_is_torn() {
        let (mut bytes, last) = journal();
        bytes[1024..1536].fill(0);
        assert_eq!(look(&with_zeros(&bytes)), Look::TornWithin { whole: last });
        // With another batch behind it, it had been whole once.
        bytes.extend(batch_of(&[b"later".to_vec()]));
        assert_eq!(look(&with_zeros(&bytes)), Look::Damaged);
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let (bytes, _) = journal();
        for at in 0..bytes.len() {
            for bit in [0, 3, 7] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let look = look(&with_zeros(&flipped));
                // A length in the last batch may have come to point beyond its end, which looks torn.
                let lengths_of_last = at >= journal().1;
                // The sequence number is no part of what is summed up.
                assert!(
                    look == Look::Damaged
                        || lengths_of_last && matches!(look, Look::Torn { .. })
                        || sequence_number(at),
                    "byte {at} bit {bit}: {look:?}"
                );
            }
        }
    }

    fn sequence_number(at: usize) -> bool {
        let last = journal().1;
        (5..13).contains(&at) || (last + 5..last + 13).contains(&at)
    }
}
