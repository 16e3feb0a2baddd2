//! How a response looks on the wire.
//!
//! Written here and not by tiny_http's own `Response`, because the server decides what happens to the connection
//! afterwards, and because a head and a small body go out in one write.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

use arcstr::Substr;

use super::id::RequestId;
use super::request::Head;
use super::response::{Body, Headers, Response, Stream};
use super::streams::Subscription;

/// Bodies up to this size are copied behind the head, so that both go out in one write.
const COPIED: usize = 16 * 1024;

/// A response to one request, ready to be written.
pub struct Message {
    /// The status code.
    pub status: u16,
    /// What goes out next: the head and a small body at first, then parts of a stream.
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
    /// What goes out after them.
    rest: Rest,
    /// Whether the end of the connection is what tells the client where the body ends.
    pub ends_with_connection: bool,
}

enum Rest {
    Nothing,
    /// A body that was not copied.
    Whole(Whole),
    /// More parts, which go out in chunks if the client knows these.
    Stream {
        stream: Box<dyn Stream>,
        chunked: bool,
    },
    /// What happens from now on, until the connection ends.
    Endless(Box<dyn Subscription>),
}

/// A body that is all there.
enum Whole {
    Static(&'static str),
    Owned(Vec<u8>),
    Shared(Substr),
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Whole::Static(text) => text.as_bytes(),
            Whole::Owned(bytes) => bytes,
            Whole::Shared(text) => text.as_bytes(),
        }
    }
}

impl Message {
    /// Puts a response into the form that the client of `head` needs. `close` announces the end of the connection.
    pub fn new(
        head: Head<'_>,
        response: Response,
        headers: &Headers,
        id: RequestId<'_>,
        close: bool,
    ) -> Message {
        let (first, rest) = match response.body {
            Body::Static(text) => (Whole::Static(text), Rest::Nothing),
            Body::Owned(bytes) => (Whole::Owned(bytes), Rest::Nothing),
            Body::Shared(text) => (Whole::Shared(text), Rest::Nothing),
            Body::Endless(subscription) => (Whole::Static(""), Rest::Endless(subscription)),
            Body::Stream(mut stream) => {
                let (mut first, mut more) = (Vec::new(), true);
                while more && first.len() <= COPIED {
                    more = stream.next_part(&mut first);
                }
                let chunked = !head.is_http_1_0();
                let rest = if more {
                    Rest::Stream { stream, chunked }
                } else {
                    Rest::Nothing
                };
                (Whole::Owned(first), rest)
            }
        };
        let length = match rest {
            Rest::Stream { .. } | Rest::Endless(_) => None,
            _ => Some(first.len()),
        };
        let has_body = *head.method() != tiny_http::Method::Head;
        let ends_with_connection =
            has_body && matches!(rest, Rest::Stream { chunked: false, .. } | Rest::Endless(_));
        let copied = first.len() <= COPIED || length.is_none();
        let mut bytes = Vec::with_capacity(320 + if copied { first.len() } else { 0 });
        // Writing to a Vec cannot fail.
        let _ = write!(
            bytes,
            "HTTP/1.1 {} {}\r\n",
            response.status,
            reason(response.status)
        );
        bytes.extend_from_slice(b"Server: threadkv\r\n");
        // Values are what others have put there: no browser shall take one for a page or a script.
        bytes.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
        if let Some(content_type) = response.content_type {
            let _ = write!(bytes, "Content-Type: {content_type}\r\n");
        }
        write_date(&mut bytes);
        id.write_to(&mut bytes);
        for (name, value) in response.headers.iter().chain(headers) {
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
        if close || ends_with_connection {
            bytes.extend_from_slice(b"Connection: close\r\n");
        } else if head.is_http_1_0() {
            bytes.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        match length {
            _ if response.content_type.is_none() => bytes.extend_from_slice(b"\r\n"),
            Some(length) => _ = write!(bytes, "Content-Length: {length}\r\n\r\n"),
            None if head.is_http_1_0() || matches!(rest, Rest::Endless(_)) => {
                bytes.extend_from_slice(b"\r\n")
            }
            None => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
        }
        let mut message = Message {
            status: response.status,
            bytes,
            written: 0,
            rest,
            ends_with_connection,
        };
        if !has_body {
            message.rest = Rest::Nothing;
        } else if let Rest::Stream { chunked: true, .. } = message.rest {
            write_chunk(&mut message.bytes, &first);
        } else if copied {
            message.bytes.extend_from_slice(&first);
        } else {
            message.rest = Rest::Whole(first);
        }
        message
    }

    /// Whether it has no end.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self.rest, Rest::Endless(_))
    }

    /// Takes the subscription of one without an end. What is left is its head.
    pub(super) fn take_subscription(&mut self) -> Option<Box<dyn Subscription>> {
        match mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Endless(subscription) => Some(subscription),
            rest => {
                self.rest = rest;
                None
            }
        }
    }

    /// Takes the bytes that come next.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        mem::take(&mut self.bytes)
    }

    /// Writes all of it.
    pub fn write_all(&mut self, writer: &mut dyn Write) -> io::Result<()> {
        while !self.write_to(writer)? {}
        Ok(())
    }

    /// Whether more than so many bytes go out.
    pub fn is_longer_than(&self, bytes: usize) -> bool {
        let rest = match &self.rest {
            Rest::Nothing => 0,
            Rest::Whole(body) => body.len(),
            Rest::Stream { .. } | Rest::Endless(_) => return true,
        };
        self.bytes.len() + rest > bytes
    }

    /// Writes what has not been written yet, but of a stream one part. Returns whether that was all. After an error that
    /// says to wait, it can be called again and goes on.
    pub fn write_to(&mut self, writer: &mut dyn Write) -> io::Result<bool> {
        write_from(&self.bytes, &mut self.written, writer)?;
        match &mut self.rest {
            Rest::Nothing | Rest::Endless(_) => {}
            Rest::Whole(body) => {
                // The head is out, and the body counts from its end.
                let mut written = self.written - self.bytes.len();
                let result = write_from(body, &mut written, writer);
                self.written = self.bytes.len() + written;
                result?;
            }
            Rest::Stream { stream, chunked } => {
                let mut part = Vec::new();
                let (more, chunked) = (stream.next_part(&mut part), *chunked);
                (self.bytes, self.written) = (Vec::with_capacity(part.len() + 32), 0);
                if !chunked {
                    self.bytes = part;
                } else if !part.is_empty() {
                    write_chunk(&mut self.bytes, &part);
                }
                if !more {
                    self.rest = Rest::Nothing;
                    if chunked {
                        self.bytes.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                return Ok(false);
            }
        }
        writer.flush()?;
        Ok(true)
    }
}

/// Writes bytes from `written` on, and counts on.
fn write_from(bytes: &[u8], written: &mut usize, writer: &mut dyn Write) -> io::Result<()> {
    while let Some(left) = bytes.get(*written..).filter(|left| !left.is_empty()) {
        match writer.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => *written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_chunk(out: &mut Vec<u8>, part: &[u8]) {
    let _ = write!(out, "{:x}\r\n", part.len()); // to a Vec, cannot fail
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

/// Writes the Date header. It changes once a second, and is made once a second and thread.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static LINE: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    LINE.with_borrow_mut(|(made, line)| {
        if *made != now {
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
            *line = format!("Date: {date}\r\n").into_bytes();
            *made = now;
        }
        out.extend_from_slice(line);
    });
}

/// The reason phrase of the status codes in use.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
