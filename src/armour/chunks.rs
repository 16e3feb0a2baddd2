//! Bodies in chunks (RFC 9112 section 7.1), read strictly: where two readers could disagree, there is an error.

use super::head::HEAD_BYTES;
use crate::server::Fault;

/// The most bytes of the line before a chunk, which says how long it is. It may have extensions, which nobody uses.
const LINE_BYTES: usize = 4 * 1024;

const BAD: Fault = Fault::Malformed("a bad chunk");

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A digit of the size of a chunk, or what ends it.
    Size { digits: usize, size: u64 },
    /// A part of an extension.
    Extension { size: u64 },
    /// The line feed behind the size.
    SizeEnd { size: u64 },
    /// A part of a chunk.
    Data { left: u64 },
    /// The carriage return or the line feed behind a chunk.
    DataEnd { feed: bool },
    /// A part of a trailer, or of the empty line that ends them.
    Trailer { is_empty: bool, feed: bool },
    /// Nothing of this body.
    End,
}

/// Reads one body. Trailers are dropped: nothing here makes use of them.
pub(super) struct Chunks {
    at: At,
    /// Bytes of this line, or of all trailers.
    line: usize,
}

const NEXT: At = At::Size { digits: 0, size: 0 };

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { at: NEXT, line: 0 }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    /// Reads on, and appends what belongs to the body. Returns how many bytes it took: all, unless the body has ended.
    pub(super) fn read(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != At::End {
            let rest = &bytes[taken..];
            if let At::Data { left } = self.at {
                let piece = left.min(rest.len() as u64) as usize;
                body.extend_from_slice(&rest[..piece]);
                self.at = match left - piece as u64 {
                    0 => At::DataEnd { feed: false },
                    left => At::Data { left },
                };
                taken += piece;
                continue;
            }
            self.at = self.next(rest[0])?;
            taken += 1;
        }
        Ok(taken)
    }

    /// What comes behind this byte, which is not one of a chunk.
    fn next(&mut self, byte: u8) -> Result<At, Fault> {
        self.line += 1;
        Ok(match (self.at, byte) {
            (At::Trailer { .. }, _) if self.line > HEAD_BYTES => return Err(Fault::LongHead),
            (At::Size { .. } | At::Extension { .. }, _) if self.line > LINE_BYTES => {
                return Err(BAD);
            }
            (At::Size { digits: 1.., size }, b'\r') => At::SizeEnd { size },
            (At::Size { digits: 1.., size }, b';') => At::Extension { size },
            (At::Size { digits, size }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BAD)?;
                let size = size.checked_mul(16).ok_or(BAD)? + u64::from(digit);
                At::Size {
                    digits: digits + 1,
                    size,
                }
            }
            (At::Extension { size }, b'\r') => At::SizeEnd { size },
            (at @ At::Extension { .. }, b'\t' | b' '..=b'~' | 0x80..) => at,
            (At::SizeEnd { size }, b'\n') => {
                self.line = 0;
                match size {
                    0 => At::Trailer {
                        is_empty: true,
                        feed: false,
                    },
                    left => At::Data { left },
                }
            }
            (At::DataEnd { feed: false }, b'\r') => At::DataEnd { feed: true },
            (At::DataEnd { feed: true }, b'\n') => {
                self.line = 0;
                NEXT
            }
            (
                At::Trailer {
                    is_empty,
                    feed: false,
                },
                b'\r',
            ) => At::Trailer {
                is_empty,
                feed: true,
            },
            (
                At::Trailer {
                    is_empty: true,
                    feed: true,
                },
                b'\n',
            ) => At::End,
            (At::Trailer { feed: true, .. }, b'\n') => At::Trailer {
                is_empty: true,
                feed: false,
            },
            (At::Trailer { feed: false, .. }, b'\t' | b' '..=b'~' | 0x80..) => At::Trailer {
                is_empty: false,
                feed: false,
            },
            _ => return Err(BAD),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and what is left behind it, whatever pieces it comes in.
    fn read(stream: &str) -> Result<(String, usize), Fault> {
        let outcome = |piece: usize| {
            let (mut chunks, mut body, mut taken) = (Chunks::new(), Vec::new(), 0);
            for piece in stream.as_bytes().chunks(piece) {
                taken += chunks.read(piece, &mut body)?;
            }
            let body = String::from_utf8(body).unwrap();
            match chunks.has_ended() {
                true => Ok((body, stream.len() - taken)),
                false => Err(Fault::Malformed("no end")),
            }
        };
        let whole = outcome(stream.len());
        for piece in [1, 2, 3, 7] {
            assert_eq!(outcome(piece), whole, "in pieces of {piece}: {stream:?}");
        }
        whole
    }

    #[test]
    fn chunks_are_put_together_and_trailers_dropped() {
        for (stream, body, left) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            (
                "5\r\nhello\r\n00b;x=\"y\"\r\n, and more.\r\n0\r\n\r\nGET",
                "hello, and more.",
                3,
            ),
            ("0\r\n\r\n", "", 0),
            ("000;a\r\nA: b\r\nC: d\r\n\r\nG", "", 1),
            ("1\r\n\r\r\n1\r\n\n\r\n0\r\nX:\r\n\r\n", "\r\n", 0),
        ] {
            assert_eq!(read(stream), Ok((body.to_owned(), left)), "{stream:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "zz\r\n",
            "-1\r\n",
            "+5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "\r\n",
            ";a\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5;a\nb\r\nhello\r\n",
            "5;a\0b\r\nhello\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "5\r\nhello5\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(read(bad), Err(BAD), "{bad:?}");
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(LINE_BYTES));
        assert_eq!(read(&long), Err(BAD));
        let long = format!("0\r\n{}\r\n", "A: b\r\n".repeat(HEAD_BYTES / 6 + 1));
        assert_eq!(read(&long), Err(Fault::LongHead));
    }
}
