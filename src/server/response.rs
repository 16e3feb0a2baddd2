//! Responses, and how they look on the wire.
//!
//! Written here and not by tiny_http's own `Response`, because the caller decides what happens to the connection
//! afterwards, and because a head and a small body go out in one write.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::request::Head;

/// Bodies up to this size are copied behind the head, so that both go out in one write.
const COPIED: usize = 16 * 1024;

/// An answer, before it is known whom it goes to.
pub struct Response {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

/// The body of a response.
#[derive(Clone)]
pub enum Body {
    /// Text known when the program was compiled.
    Static(&'static str),
    /// Bytes made for this answer.
    Owned(Vec<u8>),
    /// Bytes shared with the store.
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        match self {
            Body::Static(text) => text.as_bytes(),
            Body::Owned(bytes) => bytes,
            Body::Shared(bytes) => (**bytes).as_ref(),
        }
    }
}

impl Response {
    /// A response with a body of that type.
    pub fn new(status: u16, content_type: &'static str, body: Body) -> Response {
        Response {
            status,
            content_type,
            headers: Vec::new(),
            body,
        }
    }

    /// The same with one more header. The value is the caller's own, never the client's text.
    pub fn with_header(mut self, name: &'static str, value: String) -> Response {
        self.headers.push((name, value));
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// A response to one request, ready to be written.
pub(super) struct Message {
    /// Head, and body if that is small.
    start: Vec<u8>,
    /// The body, where it was not copied.
    rest: Option<Body>,
    /// How many bytes have been written.
    written: usize,
}

impl Message {
    /// Puts a response into the form that the client of `head` needs. `close` announces the end of the connection.
    pub(super) fn new(head: Head<'_>, response: Response, close: bool) -> Message {
        let body = response.body.as_ref();
        let copied = if body.len() <= COPIED { body.len() } else { 0 };
        let mut start = Vec::with_capacity(256 + copied);
        // Writing to a Vec cannot fail.
        let _ = write!(
            start,
            "HTTP/1.1 {} {}\r\n",
            response.status,
            reason(response.status)
        );
        let _ = write!(
            start,
            "Server: threadkv\r\nContent-Type: {}\r\n",
            response.content_type
        );
        write_date(&mut start);
        for (name, value) in &response.headers {
            let _ = write!(start, "{name}: {value}\r\n");
        }
        if close {
            start.extend_from_slice(b"Connection: close\r\n");
        } else if head.is_http_1_0() {
            start.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        let _ = write!(start, "Content-Length: {}\r\n\r\n", body.len());
        if *head.method() == tiny_http::Method::Head {
            return Message {
                start,
                rest: None,
                written: 0,
            };
        }
        if copied == body.len() {
            start.extend_from_slice(body);
            return Message {
                start,
                rest: None,
                written: 0,
            };
        }
        Message {
            start,
            rest: Some(response.body),
            written: 0,
        }
    }

    /// How many bytes go out.
    pub(super) fn len(&self) -> usize {
        self.start.len() + self.rest.as_ref().map_or(0, |body| body.as_ref().len())
    }

    /// Writes what has not been written yet. After an error that says to wait, it can be called again and goes on.
    pub(super) fn write_to(&mut self, writer: &mut dyn Write) -> io::Result<()> {
        while self.written < self.len() {
            let body = self.rest.as_ref().map_or(&[][..], Body::as_ref);
            let left = match self.start.get(self.written..) {
                Some(start) if !start.is_empty() => start,
                _ => &body[self.written - self.start.len()..],
            };
            match writer.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        writer.flush()
    }
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
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}
