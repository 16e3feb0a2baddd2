//! Frames: what the log and snapshots are made of.
//!
//! ```text
//! offset  bytes  field
//!      0      1  mark, 255
//!      1      1  tag, see [`Tag`]
//!      2      8  length of the body
//!     10      8  number: which batch of the log, or which block of the snapshot
//!     18      8  checksum of the body, as it is stored
//!     26      8  checksum of the 26 bytes above
//!     34      n  body, each bit of it inverted
//!   34+n      1  mark, 255
//! ```
//!
//! Numbers are little-endian. Checksums are xxh3 with the store's id as the seed, so a frame of another store does not match.
//!
//! A power cut can leave any sector of what was being written unwritten, which is to say zero, or behind the end of the file.
//! Reading has to tell such a *torn* frame from a *damaged* one, in which a byte of an answered write has gone bad. These rules
//! make that certain:
//!
//! * A head never crosses the border of a sector: it is whole or zero. A head that does not match its checksum is damaged,
//!   and the length in one that does can be trusted.
//! * No sector of a written frame is zero. Bodies hold keys and values, which are UTF-8 and so never contain the byte 255;
//!   inverted, they never contain 0. (The few bytes of numbers between them are no sector.) So a frame with a sector of zeros is torn, and any other frame that does not match its checksum is damaged.
//! * The last byte of a frame is not zero, and no single bit makes it so. So a frame that ends in a zero is torn, whatever the
//!   disk's sectors are: the process was killed, or the disk was full, in the middle of a write.
//! * No value looks like a frame: the upper bytes of a head's numbers are 0, and no inverted text has a 0.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a disk writes whole or not at all. Disks with larger sectors write several of these at once.
const SECTOR: usize = 512;

const MARK: u8 = 255;

/// Bytes of a frame before its body.
pub(super) const HEAD: usize = 34;

/// Where the checksum of the head is.
const HEAD_SUM: usize = 26;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// The beginning of a file of the log. Its number is that of the file's first batch.
    Log = 1,
    /// The same as [`Tag::Batch`], without revisions, as version 3 wrote it.
    Batch3 = 2,
    /// The end of a file of the log. Its number is that of the next file.
    Seal = 3,
    /// The beginning of a snapshot. Its number is that of the first batch that the snapshot does not hold.
    Snapshot = 4,
    /// The same as [`Tag::Block`], without revisions, as version 3 wrote it.
    Block3 = 5,
    /// The end of a snapshot. Its number is that of the blocks.
    End = 6,
    /// The same as [`Tag::Batch`], with the last change of each key only, as version 4 wrote it.
    Batch4 = 7,
    /// Entries of a snapshot. Blocks are numbered from 0 on.
    Block = 8,
    /// Changes that were committed together. Batches are numbered from 0 on.
    Batch = 9,
    /// Earlier changes, in a snapshot. Numbered from 0 on.
    History = 10,
}

impl Tag {
    const ALL: [Tag; 10] = [
        Tag::Log,
        Tag::Batch3,
        Tag::Seal,
        Tag::Snapshot,
        Tag::Block3,
        Tag::End,
        Tag::Batch4,
        Tag::Block,
        Tag::Batch,
        Tag::History,
    ];
}

/// Appends a frame to `bytes`, which are to be written to their file at `offset`. `body` appends the body.
pub(super) fn append(
    bytes: &mut Vec<u8>,
    offset: u64,
    id: u64,
    (tag, number): (Tag, u64),
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = head_at(offset + bytes.len() as u64) - offset;
    let start = start as usize; // within `bytes`, or a little behind
    bytes.resize(start + HEAD, 0);
    body(bytes);
    let (head, body) = bytes[start..].split_at_mut(HEAD);
    invert(body);
    head[0] = MARK;
    head[1] = tag as u8;
    head[2..10].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[10..18].copy_from_slice(&number.to_le_bytes());
    head[18..HEAD_SUM].copy_from_slice(&xxh3_64_with_seed(body, id).to_le_bytes());
    let sum = xxh3_64_with_seed(&head[..HEAD_SUM], id);
    head[HEAD_SUM..].copy_from_slice(&sum.to_le_bytes());
    bytes.push(MARK);
}

/// Where the next head is, behind a frame that ends at `offset`: there, or in the next sector if it would cross the border.
pub(super) fn head_at(offset: u64) -> u64 {
    let sector = SECTOR as u64;
    if sector - offset % sector < HEAD as u64 {
        offset.next_multiple_of(sector)
    } else {
        offset
    }
}

/// Inverts bits, which turns a body into what is stored, and back.
pub(super) fn invert(body: &mut [u8]) {
    for byte in body {
        *byte = !*byte;
    }
}

/// Why there is no whole frame at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nothing was written here, or in a part of the frame.
    Unwritten,
    /// Something was written, and has changed since.
    Damaged,
}

/// The head of a frame, which matches its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) tag: Tag,
    pub(super) number: u64,
    /// Bytes of the body.
    pub(super) length: u64,
    body_sum: u64,
}

impl FrameHead {
    /// Reads the head that bytes begin with; bytes that are missing count as zero.
    pub(super) fn read(bytes: &[u8], id: u64) -> Result<FrameHead, Flaw> {
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return Err(Flaw::Unwritten);
        };
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if number(HEAD_SUM) != xxh3_64_with_seed(&head[..HEAD_SUM], id) || head[0] != MARK {
            return Err(if is_zero(head) {
                Flaw::Unwritten
            } else {
                Flaw::Damaged
            });
        }
        let tag = Tag::ALL.into_iter().find(|tag| *tag as u8 == head[1]);
        Ok(FrameHead {
            tag: tag.ok_or(Flaw::Damaged)?,
            number: number(10),
            length: number(2),
            body_sum: number(18),
        })
    }

    /// Where the frame ends whose head is at `offset`.
    pub(super) fn end(&self, offset: u64) -> u64 {
        offset
            .saturating_add(self.length)
            .saturating_add(HEAD as u64 + 1)
    }

    /// Whether this is the body that belongs to the head, with the mark behind it.
    pub(super) fn matches(&self, body_and_mark: &[u8], id: u64) -> bool {
        let Some((mark, body)) = body_and_mark.split_last() else {
            return false;
        };
        *mark == MARK && xxh3_64_with_seed(body, id) == self.body_sum
    }
}

/// A whole frame of a file.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) head: FrameHead,
    /// Where its body is in the file, inverted.
    pub(super) body: std::ops::Range<usize>,
}

impl Frame {
    /// Reads the frame of a file whose head is at `at`.
    pub(super) fn read(file: &[u8], at: u64, id: u64) -> Result<Frame, Flaw> {
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(file.len());
        let head = FrameHead::read(&file[start..], id).map_err(|flaw| {
            let behind = file.get(start + HEAD..).unwrap_or_default();
            // A head with nothing behind it, not even its mark, was not written to its end.
            if is_zero(behind) {
                Flaw::Unwritten
            } else {
                flaw
            }
        })?;
        let end = usize::try_from(head.end(at)).unwrap_or(usize::MAX);
        let body = start + HEAD..end - 1;
        let Some(stored) = file.get(body.start..end) else {
            return Err(Flaw::Unwritten);
        };
        if head.matches(stored, id) {
            return Ok(Frame { head, body });
        }
        // Its end is not there, or the part of it in some sector.
        if file[end - 1] == 0 {
            return Err(Flaw::Unwritten);
        }
        let mut from = start;
        while from < end {
            let to = (from + 1).next_multiple_of(SECTOR).min(end);
            if is_zero(&file[from..to]) {
                return Err(Flaw::Unwritten);
            }
            from = to;
        }
        Err(Flaw::Damaged)
    }

    /// Where the frame ends.
    pub(super) fn end(&self) -> u64 {
        self.body.end as u64 + 1
    }
}

/// The whole frames that begin anywhere behind `from`, also inside of others, as far as `id` can tell.
pub(super) fn all_behind(file: &[u8], from: usize, id: u64) -> impl Iterator<Item = Frame> {
    let marks = (from.min(file.len())..file.len()).filter(|at| file[*at] == MARK);
    marks.filter_map(move |at| Frame::read(file, at as u64, id).ok())
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 7;

    fn frame_at(offset: u64, body: &[u8]) -> Vec<u8> {
        let mut file = vec![0; offset as usize];
        append(&mut file, 0, ID, (Tag::Batch, 5), |bytes| {
            bytes.extend_from_slice(body);
        });
        file
    }

    #[test]
    fn what_is_framed_is_read_again_wherever_it_is() {
        for offset in [0, 1, 477, 478, 479, 511, 512] {
            for length in [0, 1, 400, 512, 5000] {
                let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
                let mut file = frame_at(offset, &body);
                let at = head_at(offset);
                assert!(at % 512 + HEAD as u64 <= 512, "{offset}");
                let frame = Frame::read(&file, at, ID).unwrap();
                assert_eq!((frame.head.tag, frame.head.number), (Tag::Batch, 5));
                assert_eq!(frame.end(), file.len() as u64);
                invert(&mut file[frame.body.clone()]);
                assert_eq!(file[frame.body], body);
                assert_eq!(
                    Frame::read(&file, at, ID + 1).err(),
                    Some(Flaw::Damaged),
                    "a frame of another store"
                );
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_damage_also_in_a_value_of_zeros() {
        for body in [vec![0; 3000], b"text".repeat(700)] {
            let file = frame_at(500, &body);
            let at = head_at(500);
            for byte in at as usize..file.len() {
                for bit in 0..8 {
                    let mut flipped = file.clone();
                    flipped[byte] ^= 1 << bit;
                    let flaw = Frame::read(&flipped, at, ID).err();
                    assert_eq!(flaw, Some(Flaw::Damaged), "byte {byte} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn any_set_of_sectors_that_is_missing_is_unwritten() {
        // A few bytes of the first sector, two whole ones, and the mark alone in the last.
        let file = frame_at(400, &[b'v'; 512 * 3 - 400 - HEAD]);
        assert_eq!(file.len() % 512, 1);
        for missing in 1..16_u32 {
            let mut torn = file.clone();
            for sector in (0..4).filter(|sector| missing & 1 << sector != 0) {
                let end = torn.len().min((sector + 1) * 512);
                torn[sector * 512..end].fill(0);
            }
            let flaw = Frame::read(&torn, 400, ID).err();
            assert_eq!(flaw, Some(Flaw::Unwritten), "{missing:b}");
        }
    }

    #[test]
    fn what_breaks_off_anywhere_is_unwritten_with_and_without_zeros_behind() {
        let file = frame_at(400, &b"text".repeat(300));
        for length in 400..file.len() {
            let mut torn = file[..length].to_vec();
            for _ in 0..2 {
                let flaw = Frame::read(&torn, 400, ID).err();
                assert_eq!(flaw, Some(Flaw::Unwritten), "{length}");
                torn.resize(file.len() + 5000, 0);
            }
        }
    }
}
