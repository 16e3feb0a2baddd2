//! What is missing of a body.

use super::chunks::Chunks;
use crate::server::{Fault, Framing};

/// A body that is being read.
pub(super) enum BodyReader {
    /// Of which so many bytes are missing.
    Bytes(u64),
    /// In chunks.
    Chunks(Chunks),
}

impl BodyReader {
    pub(super) fn new(framing: Framing) -> BodyReader {
        match framing {
            Framing::Length(length) => BodyReader::Bytes(length),
            Framing::Chunked => BodyReader::Chunks(Chunks::new()),
        }
    }

    /// The most bytes to receive, so that none behind the body is received; chunks do not tell.
    pub(super) fn most(&self) -> usize {
        match self {
            BodyReader::Bytes(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            BodyReader::Chunks(_) => usize::MAX,
        }
    }

    /// Appends what belongs to the body. Returns how many bytes it took, and whether the body is whole: then the rest of the bytes is
    /// something else.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<(usize, bool), Fault> {
        match self {
            BodyReader::Bytes(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                body.extend_from_slice(&bytes[..taken]);
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            BodyReader::Chunks(chunks) => {
                let taken = chunks.read(bytes, body)?;
                Ok((taken, chunks.has_ended()))
            }
        }
    }
}
