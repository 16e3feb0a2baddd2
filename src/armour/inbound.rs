//! What comes in on one connection: heads for tiny_http, and bodies, which go past it.
//!
//! tiny_http's thread asks for bytes. It gets whole heads only, rewritten by [`super::head`], each once its request may be handed out: a
//! short body is waited for first, so that nobody else has to. A longer body is read by whoever answers the request, and tiny_http gets
//! nothing more until that is done.
//!
//! What breaks the rules is handed out as well, as a request that has its [`Fault`] with it. So it gets its answer in its turn, behind
//! the requests before it, and in the form of the API that it was for.

use std::mem::{self, MaybeUninit};
use std::sync::Arc;

use super::body::BodyReader;
use super::head::{Announced, HEAD_BYTES, find_end, origin, rewrite, stand_in};
use super::waiting::Waiting;
use crate::budget::{Budget, Reservation};
use crate::server::{Fault, Framing, Hold, Payload};

/// Bodies up to this size are there when their request is handed out, unless the client waits for the word to send it.
pub(super) const SHORT_BODY: u64 = 64 * 1024;

/// Empty lines before a head that are overlooked (RFC 9112 section 2.2). Some clients send one behind a body.
const EMPTY_LINES: usize = 8;

/// An empty buffer with more room than this is let go of: most connections are idle most of the time.
const KEPT: usize = 2 * 1024;

/// Memory that is reserved at a time for what is not complete, in bytes.
const STEP: usize = 16 * 1024;

/// For so many bytes no memory is reserved.
const UNRESERVED: usize = 4 * 1024;

/// The first bytes of a client that speaks TLS: a handshake, of a version 3.x.
const TLS: [u8; 2] = [0x16, 3];

/// What the next byte is.
enum At {
    /// A part of a head.
    Head,
    /// A part of a short body, whose head waits until it is there.
    ShortBody { head: Vec<u8>, length: usize },
    /// A part of a body that is read by whoever answers its request.
    Body(BodyReader),
    /// Nothing that counts.
    End,
}

/// What a client is in the middle of sending, as far as it is not read by whoever answers the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Nothing,
    Head,
    /// A short body, of which so many bytes have come.
    ShortBody(u64),
}

/// Sorts what comes in on one connection.
pub(super) struct Inbound {
    /// What the requests are marked with, see [`origin`].
    origin: String,
    at: At,
    /// What has been received and is not complete.
    pending: Vec<u8>,
    /// How many bytes of a head have been looked through for its end, and how many empty lines came before it.
    searched: usize,
    empty_lines: usize,
    /// Whether what is pending was left because too many requests wait.
    stopped: bool,
    /// Heads for tiny_http.
    ready: Vec<u8>,
    /// How many bytes of them it has been given.
    given: usize,
    waiting: Waiting,
    expects_continue: bool,
    speaks_tls: bool,
    budget: Arc<Budget>,
    /// Memory for `pending`.
    reserved: Option<Reservation>,
}

impl Inbound {
    pub(super) fn new(connection: u64, budget: &Arc<Budget>) -> Inbound {
        Inbound {
            origin: origin(connection),
            at: At::Head,
            pending: Vec::new(),
            searched: 0,
            empty_lines: 0,
            stopped: false,
            ready: Vec::new(),
            given: 0,
            waiting: Waiting::default(),
            expects_continue: false,
            speaks_tls: false,
            budget: Arc::clone(budget),
            reserved: None,
        }
    }

    /// The requests that wait for a worker.
    pub(super) fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    /// How many requests there have been so far, refused ones included.
    pub(super) fn requests(&self) -> u64 {
        self.waiting.requests()
    }

    /// How much memory requests take that wait for a worker.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.bytes()
    }

    pub(super) fn sending(&self) -> Sending {
        match &self.at {
            At::Head if !self.pending.is_empty() => Sending::Head,
            At::ShortBody { .. } => Sending::ShortBody(self.pending.len() as u64),
            _ => Sending::Nothing,
        }
    }

    /// Whether a body is to be read by whoever answers its request.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.at, At::Body(_))
    }

    /// Whether nothing that comes from now on counts.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// Whether requests that have been received were left alone, because too many wait.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped && matches!(self.at, At::Head)
    }

    /// Whether the client has begun with TLS, so that no answer would be understood.
    pub(super) fn speaks_tls(&self) -> bool {
        self.speaks_tls
    }

    /// How many bytes are missing of a short body.
    pub(super) fn missing(&self) -> usize {
        let At::ShortBody { length, .. } = &self.at else {
            return 0;
        };
        length - self.pending.len()
    }

    /// Whether there is something to give.
    pub(super) fn is_ready(&self) -> bool {
        self.given < self.ready.len()
    }

    /// Moves bytes for tiny_http to its buffer, as many as are ready and have room. Returns how many.
    pub(super) fn give(&mut self, buffer: &mut [MaybeUninit<u8>]) -> usize {
        let left = &self.ready[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].write_copy_of_slice(&left[..count]);
        self.given += count;
        if self.given == self.ready.len() {
            clear(&mut self.ready);
            self.given = 0;
        }
        count
    }

    /// Takes what has been received from the client; nothing, to go on with what had to wait.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        if self.pending.is_empty() {
            let taken = self.sort(bytes);
            self.pending.extend_from_slice(&bytes[taken..]);
        } else {
            let mut pending = mem::take(&mut self.pending);
            pending.extend_from_slice(bytes);
            let taken = self.sort(&pending);
            pending.drain(..taken);
            if pending.is_empty() {
                clear(&mut pending);
            }
            self.pending = pending;
        }
        self.reserve();
    }

    /// Sees to it that memory is reserved for what is not complete.
    fn reserve(&mut self) {
        if self.has_ended() {
            self.pending = Vec::new();
        }
        // The beginning of a long body is about to be taken from here.
        if self.pending.len() <= UNRESERVED || self.is_in_body() {
            self.reserved = None;
            return;
        }
        let steps = self.pending.len().next_multiple_of(STEP) as u64;
        let enough = match &mut self.reserved {
            Some(reserved) if reserved.bytes() >= steps => true,
            Some(reserved) => reserved.grow(steps - reserved.bytes()),
            None => {
                self.reserved = self.budget.reserve(steps);
                self.reserved.is_some()
            }
        };
        if !enough {
            self.refuse(Fault::Overloaded);
        }
    }

    /// Reserves memory for a short body that is whole.
    fn hold(&self, length: usize) -> Result<Option<Hold>, Fault> {
        if length <= UNRESERVED {
            return Ok(None);
        }
        let reserved = self.budget.reserve(length as u64);
        Ok(Some(Box::new(reserved.ok_or(Fault::Overloaded)?)))
    }

    /// The client will send no more.
    pub(super) fn end(&mut self) {
        match self.sending() {
            Sending::Nothing => self.at = At::End,
            _ => self.refuse(Fault::Malformed("the request ended early")),
        }
    }

    /// Refuses the request that is coming, and takes no other.
    pub(super) fn refuse(&mut self, fault: Fault) {
        let pending = mem::take(&mut self.pending);
        self.refuse_head(&pending, fault);
    }

    fn refuse_head(&mut self, head: &[u8], fault: Fault) {
        match mem::replace(&mut self.at, At::End) {
            At::ShortBody { head, .. } => self.ready.extend_from_slice(&head),
            At::Head => stand_in(head, &self.origin, &mut self.ready),
            At::Body(_) | At::End => return,
        }
        self.waiting.push(Err(fault), 0);
        self.reserved = None;
    }

    /// Whether the client waits for the word to send the body. It is given once.
    pub(super) fn take_expectation(&mut self) -> bool {
        mem::take(&mut self.expects_continue)
    }

    /// The most bytes to receive of a body.
    pub(super) fn most(&self) -> usize {
        let At::Body(rest) = &self.at else {
            return usize::MAX;
        };
        rest.most()
    }

    /// Appends to a body what has been received of it: what was received with the head, and `bytes`. Returns whether it is whole.
    pub(super) fn read_body(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<bool, Fault> {
        let joined;
        let bytes = if self.pending.is_empty() {
            bytes
        } else {
            self.pending.extend_from_slice(bytes);
            joined = mem::take(&mut self.pending);
            &joined
        };
        let read = match &mut self.at {
            At::Body(rest) => rest.read(bytes, body),
            _ => Err(Fault::Malformed("the connection has ended")),
        };
        match read {
            Ok((taken, true)) => {
                self.at = At::Head;
                self.receive(&bytes[taken..]);
                Ok(true)
            }
            Ok((_, false)) => Ok(false),
            Err(fault) => {
                self.at = At::End;
                Err(fault)
            }
        }
    }

    /// Hands out what is complete. Returns how many bytes that took; they count from the beginning of a head or a short body.
    fn sort(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            self.stopped = !rest.is_empty() && self.waiting.is_full();
            match &mut self.at {
                At::Head if rest.is_empty() || self.stopped => return taken,
                At::Head => match self.sort_head(rest) {
                    Ok(0) => return taken,
                    Ok(more) => taken += more,
                    Err(fault) => {
                        self.refuse_head(rest, fault);
                        return bytes.len();
                    }
                },
                At::ShortBody { length, .. } if rest.len() < *length => return taken,
                At::ShortBody { head, length } => {
                    let (head, length) = (mem::take(head), *length);
                    self.at = At::Head;
                    self.ready.extend_from_slice(&head);
                    self.reserved = None;
                    let hold = self.hold(length);
                    if hold.is_err() {
                        self.at = At::End;
                    }
                    let payload = hold.map(|hold| Payload::Here(rest[..length].to_vec(), hold));
                    self.waiting.push(payload, head.len() + length);
                    taken += length;
                }
                At::Body(_) => return taken,
                At::End => return bytes.len(),
            }
        }
    }

    /// Takes an empty line or a head. Returns how many bytes that took: none, if there is no whole one.
    fn sort_head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if bytes.starts_with(&TLS[..bytes.len().min(2)]) {
            if bytes.len() > 1 {
                (self.at, self.speaks_tls) = (At::End, true);
            }
            return Ok(0);
        }
        if bytes.starts_with(b"\r\n") {
            (self.searched, self.empty_lines) = (0, self.empty_lines + 1);
            return match self.empty_lines {
                0..=EMPTY_LINES => Ok(2),
                _ => Err(Fault::Malformed("too many empty lines")),
            };
        }
        let end = find_end(bytes, &mut self.searched)?;
        if end.unwrap_or(bytes.len()) > HEAD_BYTES {
            return Err(match bytes[..HEAD_BYTES].contains(&b'\n') {
                true => Fault::LongHead,
                false => Fault::LongTarget,
            });
        }
        let Some(end) = end else {
            return Ok(0);
        };
        (self.searched, self.empty_lines) = (0, 0);
        let before = self.ready.len();
        let Announced {
            framing,
            expects_continue,
        } = rewrite(&bytes[..end], &self.origin, &mut self.ready)?;
        match framing {
            Err(fault) => {
                self.at = At::End;
                self.waiting.push(Err(fault), 0);
            }
            Ok(Framing::Length(0)) => self.waiting.push(Ok(Payload::Here(Vec::new(), None)), end),
            Ok(Framing::Length(length)) if length <= SHORT_BODY && !expects_continue => {
                self.at = At::ShortBody {
                    head: self.ready.split_off(before),
                    length: length as usize,
                };
            }
            Ok(framing) => {
                self.expects_continue = expects_continue;
                self.at = At::Body(BodyReader::new(framing));
                let declared = match framing {
                    Framing::Length(length) => Some(length),
                    Framing::Chunked => None,
                };
                self.waiting.push(Ok(Payload::Coming { declared }), end);
            }
        }
        Ok(end)
    }
}

/// Empties a buffer. It keeps its room if that is little.
fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        buffer.shrink_to(0);
    }
}

#[cfg(test)]
mod tests;
