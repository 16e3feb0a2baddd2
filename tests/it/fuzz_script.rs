//! What clients send in a fuzzing test: requests in which something has been changed, and noise.

use std::fmt;

use arbtest::arbitrary::{Result, Unstructured};

/// Requests as they should be; each `~` stands for what is too long to write down.
const REQUESTS: &[&str] = &[
    "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "PUT /kv/%61 HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3000\r\n\r\n~",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3e8;x=y\r\n~\r\n0\r\n\r\n",
    "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "DELETE /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /api/v1/kv?limit=3&prefix=a&after=a&with_ttl=true HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PUT /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n{\"value\":{\"a\":[1,2.5,\"\\u00e9\"]},\"ttl\":60}",
    "GET /api/v1/kv/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abc\r\n\r\n",
    "GET /api/v1/kv/big HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /api/v1/kv/a/ttl HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /api/v1/kv/a/touch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{\"ttl\":60}",
    "POST /api/v1/kv/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Length: 56\r\n\r\n{\"operations\":[{\"key\":\"a\",\"value\":1,\"ttl\":6},{\"key\":\"b\"}]",
    "POST /api/v1/kv/bulk/get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{\"keys\":[\"a\",\"b\"]}",
    "POST /api/v1/kv/bulk/delete HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{\"keys\":[\"a\",\"b\"]}\r\n0\r\n\r\n",
    "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /kv/a HTTP/2.0\r\n\r\n",
];

/// What has broken servers before.
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ": ",
    ";",
    ",",
    "/",
    "?",
    "%",
    "%00",
    "%zz",
    "..",
    "\u{7f}",
    "é",
    "0\r\n\r\n",
    "[[[[[[[[",
    "\"",
    "\\u",
    "{",
    "}",
];

/// The same, as lines of a head.
const LINES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: 2000",
    "Content-Length: 99999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: upgrade",
    ":",
    "X:",
    "X: \0",
    " folded",
    "Host",
    "",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
];

/// The same, as numbers: lengths of bodies and chunks, times, limits, statuses, and versions.
const NUMBERS: &[&str] = &[
    "",
    "0",
    "00",
    "-1",
    "+5",
    "5.",
    "9",
    "2",
    "3",
    "1024",
    "1025",
    "65536",
    "70000000",
    "1000000000",
    "99999999999999",
    "18446744073709551615",
    "ffffffffffffffff",
    "fffffffffffffffff",
    "1e9",
];

/// What a client sends, in pieces, and how it goes on then.
#[derive(Clone)]
pub struct Script {
    pub pieces: Vec<Vec<u8>>,
    /// Whether it waits for the answers, having said that nothing more will come, or is gone.
    pub stays: bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.stays { "stays: " } else { "leaves: " })?;
        for piece in &self.pieces {
            write!(f, "\"{:.1000}\" ", piece.escape_ascii().to_string())?;
        }
        Ok(())
    }
}

/// Some requests, mangled and in pieces; sometimes noise.
pub fn script(u: &mut Unstructured<'_>) -> Result<Script> {
    let mut bytes = Vec::new();
    if u.ratio(1, 13)? {
        let length = u.int_in_range(0..=300)?.min(u.len());
        bytes.extend(u.bytes(length)?);
    } else {
        for _ in 0..u.int_in_range(1..=5)? {
            bytes.extend(u.choose(REQUESTS)?.replace('~', &"v".repeat(3000)).bytes());
        }
        for _ in 0..u.int_in_range(0..=4)? {
            mangle(u, &mut bytes)?;
        }
    }
    let mut pieces = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        let cut = u.int_in_range(0..=bytes.len())?;
        pieces.push(bytes.drain(..cut).collect());
    }
    pieces.push(bytes);
    let stays = u.ratio(7, 10)?;
    Ok(Script { pieces, stays })
}

/// Changes something.
fn mangle(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let length = bytes.len();
    if length == 0 {
        return Ok(());
    }
    let at = u.choose_index(length)?;
    match u.int_in_range(0..=6)? {
        0 => bytes[at] = u.arbitrary()?,
        1 => drop(bytes.splice(at..at, u.choose(TOKENS)?.bytes())),
        // In the place of one of the numbers.
        2 => {
            let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
            let starts = (0..length).filter(|&at| is_digit(at) && (at == 0 || !is_digit(at - 1)));
            let starts: Vec<usize> = starts.collect();
            if !starts.is_empty() {
                let start = *u.choose(&starts)?;
                let end = (start..).find(|&at| !is_digit(at)).unwrap_or(length);
                bytes.splice(start..end, u.choose(NUMBERS)?.bytes());
            }
        }
        // Before one of the lines.
        3 => {
            let starts = (0..length).filter(|&at| at == 0 || bytes[at - 1] == b'\n');
            let start = *u.choose(&starts.collect::<Vec<usize>>())?;
            let line = format!("{}\r\n", u.choose(LINES)?);
            bytes.splice(start..start, line.bytes());
        }
        4 => {
            let end = length.min(at + u.int_in_range(1..=199)?);
            let part = bytes[at..end].repeat(u.int_in_range(1..=49)?);
            bytes.splice(at..at, part);
        }
        5 => drop(bytes.drain(at..length.min(at + u.int_in_range(1..=19)?))),
        _ => bytes.truncate(at),
    }
    Ok(())
}

impl Script {
    fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// Whether it may leave something behind that tiny_http does not let go of: announces bytes by the gigabyte.
    pub fn is_absurd(&self) -> bool {
        let bytes = self.bytes();
        bytes
            .windows(8)
            .any(|digits| digits.iter().all(u8::is_ascii_digit))
    }

    pub fn contains(&self, text: &str) -> bool {
        let bytes = self.bytes().to_ascii_lowercase();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }
}
