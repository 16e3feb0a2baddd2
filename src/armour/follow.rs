//! Follows the bytes of a connection as tiny_http reads them, and knows what they are: heads, bodies, chunks.
//!
//! tiny_http takes a head of any size, parses ahead without end, locks itself up for good over a request line of HTTP/2, and allocates
//! memory for bodies of any announced length. So the follower looks at all bytes before tiny_http gets them. It goes by the rules of
//! tiny_http, also where these are not those of the RFC: if it read differently, it could end the connection of an honest client. It
//! need not recognise what tiny_http refuses by itself, since tiny_http closes the connection then.

use crate::server::READ_BY_TINY_HTTP;

/// The most bytes of a request line with its headers. Other servers allow 8 to 64 KiB.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// The most headers. tiny_http makes 150 bytes of one that has four.
const HEADERS: usize = 256;

const VERTICAL_TAB: u8 = 0x0b;

/// The most digits of a `Content-Length`, leading zeros aside: twelve announce a terabyte, and what is left of more digits is still beyond
/// any limit. Further ones are replaced
/// by spaces, so that the request gets its error as any other that is too large, and [`super::discard`] can skip its body.
const LENGTH_DIGITS: usize = 12;

/// The most bytes of the line before a chunk, which says how long it is. It may have extensions, which nobody uses.
const CHUNK_LINE_BYTES: usize = 4 * 1024;

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A part of a request line or a header.
    Head,
    /// A part of a body of known length, or of a chunk.
    Data { left: u64, then: After, came: u64 },
    /// A part of the line that says how long a chunk is.
    ChunkLine,
    /// A part of the line end behind a chunk.
    ChunkEnd { came: usize, then: After },
    /// Nothing that tiny_http may have: whoever reads the body stops here, and tiny_http would take the rest for a head.
    Beyond,
}

impl At {
    fn data(left: u64, then: After) -> At {
        At::Data {
            left,
            then,
            came: 0,
        }
    }
}

/// What comes behind data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The next head. With this body, tiny_http hands its request out.
    HandedOut,
    /// The next head. The request was handed out before.
    NextHead,
    /// Another chunk.
    NextChunk,
}

/// What is known of a head so far.
#[derive(Default)]
struct HeadSoFar {
    bytes: usize,
    headers: usize,
    has_request_line: bool,
    /// The first `Content-Length`, if there is any, and its number, if it is one.
    length: Option<Option<u64>>,
    has_encoding: bool,
    expects_continue: bool,
    /// Whether tiny_http answers it by itself, at once: it expects something else.
    expects_more: bool,
    upgrades: Option<bool>,
}

/// What the next byte of a header line belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    /// The value of a `Content-Length` that has so many digits so far, leading zeros aside.
    Length {
        digits: usize,
    },
    /// Another value.
    Other,
}

/// Follows one connection.
pub(super) struct Follower {
    at: At,
    head: HeadSoFar,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    field: Field,
    /// Requests that tiny_http has been given whole, as far as it waits for them, and hands out.
    requests: u64,
}

/// What a client is in the middle of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Nothing, or what is read by others than tiny_http.
    Nothing,
    /// A head.
    Head,
    /// A body that tiny_http reads, of which so many bytes have come.
    SmallBody { came: u64 },
}

impl Sending {
    /// Whether this goes on with what the other began.
    pub(super) fn is_same_kind(self, other: Sending) -> bool {
        matches!(
            (self, other),
            (Sending::Head, Sending::Head) | (Sending::SmallBody { .. }, Sending::SmallBody { .. })
        )
    }
}

impl Follower {
    pub(super) fn new() -> Follower {
        Follower {
            at: At::Head,
            head: HeadSoFar::default(),
            line: Vec::new(),
            field: Field::Name,
            requests: 0,
        }
    }

    /// How many requests have come out of tiny_http, or are about to.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn sending(&self) -> Sending {
        match self.at {
            At::Head if self.head.bytes > 0 => Sending::Head,
            At::Data {
                then: After::HandedOut,
                came,
                ..
            } => Sending::SmallBody { came },
            _ => Sending::Nothing,
        }
    }

    /// Looks at what has been received, when so many requests have been answered. Returns how much of it tiny_http may have: if it is not
    /// all, nothing may follow.
    pub(super) fn follow(&mut self, received: &mut [u8], answered: u64) -> usize {
        let mut at = 0;
        while at < received.len() {
            let rest = &mut received[at..];
            let taken = match self.at {
                At::Head => self.head_line(rest, answered),
                At::ChunkLine => self.chunk_line(rest),
                At::ChunkEnd { came, then } => Some(self.chunk_end(came, then, rest[0])),
                At::Beyond => None,
                At::Data { left, then, came } => Some(self.data(left, then, came, rest.len())),
            };
            let Some(taken) = taken else {
                return at;
            };
            at += taken;
        }
        received.len()
    }

    /// Takes a line, or the part of it that is there. `None` if it must not go on.
    fn head_line(&mut self, rest: &mut [u8], answered: u64) -> Option<usize> {
        let (taken, whole) = self.line_end(rest);
        self.head.bytes += taken;
        if self.head.bytes > HEAD_BYTES {
            return None;
        }
        if self.head.has_request_line {
            self.shorten_length(&mut rest[..taken]);
        }
        if !whole {
            self.line.extend_from_slice(&rest[..taken]);
            return Some(taken);
        }
        self.field = Field::Name;
        let joined;
        let line = if self.line.is_empty() {
            &rest[..taken]
        } else {
            self.line.extend_from_slice(&rest[..taken]);
            joined = std::mem::take(&mut self.line);
            &joined
        };
        let line = &line[..line.len() - 2];
        // tiny_http takes it for a space, the rules for headers here do not.
        if line.contains(&VERTICAL_TAB) {
            return None;
        }
        if !self.head.has_request_line {
            // Of this tiny_http would wait for itself.
            if is_too_new(line) {
                return None;
            }
            self.head.has_request_line = true;
        } else if line.is_empty() {
            self.end_head(answered)?;
        } else {
            self.head.headers += 1;
            if self.head.headers > HEADERS {
                return None;
            }
            self.head.note(line);
        }
        Some(taken)
    }

    /// Replaces the digits of a `Content-Length` that are too many, in the next part of a header line.
    fn shorten_length(&mut self, part: &mut [u8]) {
        let mut value = 0;
        if self.field == Field::Name {
            let Some(colon) = part.iter().position(|&byte| byte == b':') else {
                return;
            };
            let joined;
            let name = match self.line.is_empty() {
                true => &part[..colon],
                false => {
                    joined = [&self.line, &part[..colon]].concat();
                    &joined
                }
            };
            self.field = match name.trim_ascii().eq_ignore_ascii_case(b"Content-Length") {
                true => Field::Length { digits: 0 },
                false => Field::Other,
            };
            value = colon + 1;
        }
        let Field::Length { digits } = &mut self.field else {
            return;
        };
        for byte in part[value..]
            .iter_mut()
            .filter(|byte| byte.is_ascii_digit())
        {
            *digits += usize::from(*digits > 0 || *byte != b'0');
            if *digits > LENGTH_DIGITS {
                *byte = b' ';
            }
        }
    }

    fn end_head(&mut self, answered: u64) -> Option<()> {
        let head = std::mem::take(&mut self.head);
        if head.expects_more && self.requests > answered {
            // The answer would overtake those to the requests before it.
            return None;
        }
        let length = head.length.flatten().unwrap_or(0);
        let waits =
            length <= READ_BY_TINY_HTTP && !head.expects_continue && head.upgrades != Some(true);
        self.at = if head.has_encoding {
            self.requests += 1;
            At::ChunkLine
        } else if length == 0 {
            self.requests += 1;
            At::Head
        } else if waits {
            At::data(length, After::HandedOut)
        } else {
            self.requests += 1;
            At::data(length, After::NextHead)
        };
        Some(())
    }

    fn data(&mut self, left: u64, then: After, came: u64, available: usize) -> usize {
        let taken = left.min(available as u64);
        self.at = match then {
            _ if taken < left => At::Data {
                left: left - taken,
                then,
                came: came + taken,
            },
            After::NextChunk => At::ChunkEnd { came: 0, then },
            After::NextHead => At::Head,
            After::HandedOut => {
                self.requests += 1;
                At::Head
            }
        };
        taken as usize
    }

    /// Takes the line before a chunk, or the part of it that is there. `None` if it is too long.
    fn chunk_line(&mut self, rest: &[u8]) -> Option<usize> {
        let (taken, whole) = self.line_end(rest);
        self.line.extend_from_slice(&rest[..taken]);
        if self.line.len() > CHUNK_LINE_BYTES {
            return None;
        }
        if whole {
            let line = std::mem::take(&mut self.line);
            let line = &line[..line.len() - 2];
            let size = line.split(|&b| b == b';').next();
            let size = size.and_then(|size| std::str::from_utf8(size).ok());
            let size = size.and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
            self.at = match size {
                _ if line.contains(&b'\r') => At::Beyond,
                None => At::Beyond,
                Some(0) => At::ChunkEnd {
                    came: 0,
                    then: After::NextHead,
                },
                Some(size) => At::data(size, After::NextChunk),
            };
        }
        Some(taken)
    }

    fn chunk_end(&mut self, came: usize, then: After, byte: u8) -> usize {
        self.at = match (byte == b"\r\n"[came], came, then) {
            (false, ..) => At::Beyond,
            (true, 0, _) => At::ChunkEnd { came: 1, then },
            (true, _, After::NextHead) => At::Head,
            (true, ..) => At::ChunkLine,
        };
        1
    }

    /// Where the line ends, and whether that is in here. A line feed ends it only behind a carriage return.
    fn line_end(&self, rest: &[u8]) -> (usize, bool) {
        let mut from = 0;
        while let Some(feed) = rest[from..].iter().position(|&byte| byte == b'\n') {
            let feed = from + feed;
            let before = feed.checked_sub(1).map(|at| rest[at]);
            if before.or(self.line.last().copied()) == Some(b'\r') {
                return (feed + 1, true);
            }
            from = feed + 1;
        }
        (rest.len(), false)
    }
}

impl HeadSoFar {
    /// Takes note of a header, if it says where the body is.
    fn note(&mut self, line: &[u8]) {
        // Few headers begin with these, and looking at the others would cost time.
        if !matches!(line[0], b'C' | b'c' | b'E' | b'e' | b'T' | b't')
            && !line[0].is_ascii_whitespace()
        {
            return;
        }
        let Some((name, value)) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.trim().split_once(':'))
        else {
            return;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("Content-Length") {
            self.length.get_or_insert_with(|| value.parse().ok());
        } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
            self.has_encoding = true;
        } else if name.eq_ignore_ascii_case("Expect") {
            self.expects_continue = true;
            self.expects_more |= !value.eq_ignore_ascii_case("100-continue");
        } else if name.eq_ignore_ascii_case("Connection") {
            let upgrades = value.to_ascii_lowercase().contains("upgrade");
            self.upgrades.get_or_insert(upgrades);
        }
    }
}

/// Whether a request line asks for a version above HTTP/1.1 that tiny_http has heard of.
fn is_too_new(line: &[u8]) -> bool {
    // Nearly all lines are like this, and the rest takes longer.
    if line.ends_with(b" HTTP/1.1") && line.iter().filter(|&&byte| byte == b' ').count() == 2 {
        return false;
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return false;
    };
    let version = line.trim().split(' ').nth(2);
    matches!(version, Some("HTTP/2.0" | "HTTP/3.0"))
}

#[cfg(test)]
mod tests;
