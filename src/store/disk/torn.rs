//! Tells a file that a crash has torn from one that is damaged.
//!
//! A file of batches, written one after the other, may end in one that was written in part when the process or the machine
//! went down. Nobody was told that it was done, so it is left out. But a byte that has gone bad further up looks much the
//! same, and then the rest are batches that were answered. So these are told apart: a torn batch is the last one and
//! breaks off, or lacks whole sectors, while nothing whole comes behind it. Anything else is damage.
//!
//! Files may be made longer ahead of time, with zeros. A batch ends in a byte that is not zero.

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What a file of batches looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Whole batches, then nothing but zeros.
    Whole,
    /// The last batch breaks off. The batches before it take up so many bytes.
    Torn { whole: usize },
    /// The last batch lacks sectors, but has its end.
    TornWithin { whole: usize },
    /// Something else.
    Damaged,
}

/// Where a batch ceases to be one.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) at: usize,
}

/// Looks through the bytes of a file. `batch` is to return the length of the batch that bytes begin with; each begins with
/// the byte `first`.
pub(super) fn look(
    bytes: &[u8],
    first: u8,
    mut batch: impl FnMut(&[u8]) -> Result<usize, Broken>,
) -> Look {
    let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[..written];
    let mut whole = 0;
    let broken = loop {
        if whole == written {
            return Look::Whole;
        }
        match batch(&bytes[whole..]) {
            Ok(length) => whole += length,
            Err(broken) => break broken,
        }
    };
    let breaks_off = whole + broken.at == written;
    let mut begins_anywhere =
        |bytes: &[u8]| (0..bytes.len()).any(|at| bytes[at] == first && batch(&bytes[at..]).is_ok());
    if begins_anywhere(&bytes[whole + 1..]) {
        Look::Damaged
    } else if breaks_off {
        Look::Torn { whole }
    } else if lacks_sector(bytes, whole, written) {
        Look::TornWithin { whole }
    } else {
        Look::Damaged
    }
}

/// Whether a sector of the file that should hold a part of the range is empty.
fn lacks_sector(bytes: &[u8], from: usize, to: usize) -> bool {
    let first = from.next_multiple_of(SECTOR);
    (first..to)
        .step_by(SECTOR)
        .any(|at| bytes[at..to.min(at + SECTOR)].iter().all(|byte| *byte == 0))
}

/// Reads one field after the other.
pub(super) struct Fields<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let field = self.bytes[self.at..].first_chunk().ok_or(Broken {
            at: self.bytes.len(),
        })?;
        self.at += N;
        Ok(*field)
    }

    pub(super) fn skip(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let rest = &self.bytes[self.at..];
        let field = rest.get(..length).ok_or(Broken {
            at: self.bytes.len(),
        })?;
        self.at += length;
        Ok(field)
    }

    pub(super) fn peek(&self) -> Result<u8, Broken> {
        self.bytes.get(self.at).copied().ok_or(Broken {
            at: self.bytes.len(),
        })
    }

    pub(super) fn tag(&mut self, tag: u8) -> Result<(), Broken> {
        if self.peek()? != tag {
            return Err(Broken { at: self.at });
        }
        self.at += 1;
        Ok(())
    }
}
