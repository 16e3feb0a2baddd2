//! A request whose body is being read.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use super::Fault;
use super::admission::Handler;
use super::call::{Call, Hold};
use super::pieces::{Piece, Taken};

/// Bodies over this size are looked into by a worker of their own, since others would wait for that.
const LONG: usize = 256 * 1024;

/// A request whose body is still with the client.
pub struct Upload {
    call: Call,
    /// Bytes that the client announced, at most `limit`; `None` when it sends chunks.
    declared: Option<u64>,
    /// The most bytes that the body may have.
    limit: u64,
    /// What to do with the call once the body is there.
    handler: Handler,
    /// How many bytes have been handed over in pieces.
    handed_over: u64,
    /// Since when it is waited for.
    since: Instant,
}

impl Upload {
    pub(super) fn new(call: Call, declared: Option<u64>, limit: u64, handler: Handler) -> Upload {
        Upload {
            call,
            declared,
            limit,
            handler,
            handed_over: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn start(self) {
        let connection = Arc::clone(&self.call.open().connection);
        connection.receive(self);
    }

    /// Whether the body is handed over as it comes, in pieces of [`PIECE`] bytes.
    ///
    /// [`PIECE`]: super::PIECE
    pub fn is_in_pieces(&self) -> bool {
        matches!(self.handler, Handler::Pieces(_))
    }

    /// The most bytes to read: one byte over the limit tells that there are too many.
    pub fn most(&self) -> u64 {
        self.declared.unwrap_or(self.limit.saturating_add(1))
    }

    /// Where the body comes from. tiny_http sends `100 Continue` at the first use, where the client waits for that.
    pub fn reader(&mut self) -> &mut dyn Read {
        self.call.open_mut().reader()
    }

    /// Whether the body is there, after `length` bytes of it have been read and the reading ended like that.
    pub fn check(&self, read: io::Result<()>, length: u64) -> Result<(), Fault> {
        let Err(error) = read else {
            return match self.declared {
                Some(declared) if length < declared => {
                    Err(Fault::Malformed("the body ended early"))
                }
                _ => self.check_limit(length),
            };
        };
        log::debug!(
            "{}: the body did not arrive: {error}",
            self.call.open().client()
        );
        Err(match error.kind() {
            io::ErrorKind::InvalidInput if self.declared.is_none() => {
                Fault::Malformed("a bad chunk")
            }
            _ => Fault::Malformed("the body did not arrive"),
        })
    }

    /// Whether a body may have so many bytes.
    pub fn check_limit(&self, length: u64) -> Result<(), Fault> {
        let limit = self.limit;
        (length <= limit)
            .then_some(())
            .ok_or(Fault::TooLarge { limit })
    }

    /// How many bytes the client announced; `None` when it sends chunks.
    pub fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// How many bytes have been handed over in pieces.
    pub fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// The body is there: runs the handler here and now, on a worker.
    pub fn complete(mut self, body: Vec<u8>, hold: Option<Hold>) {
        self.call.waited = self.since.elapsed();
        self.go_on(body, hold);
    }

    fn go_on(self, body: Vec<u8>, hold: Option<Hold>) {
        let Upload {
            mut call, handler, ..
        } = self;
        call.set_body(body, hold);
        handler.run(call);
    }

    /// The body is there: lets a worker run the handler, and holds something until the request is answered.
    pub fn resume(mut self, body: Vec<u8>, hold: Option<Hold>) {
        self.call.waited = self.since.elapsed();
        let pool = self.call.open().pool().clone();
        let is_long = body.len() > LONG;
        let work = move || self.go_on(body, hold);
        if is_long {
            pool.resume_long(work);
        } else {
            pool.resume(work);
        }
    }

    /// A piece of the body is there, and not the last one: lets a thread take it, and calls `go_on` when it is time to read the next one, on
    /// any thread. What `go_on` has is held until then, or until the request is answered.
    pub fn hand_over(self, piece: Vec<u8>, go_on: impl FnOnce(Upload) + Send + 'static) {
        let pool = self.call.open().pool().clone();
        pool.resume_long(move || {
            let Upload {
                call,
                declared,
                limit,
                handler,
                handed_over,
                since,
            } = self;
            let Handler::Pieces(pieces) = handler else {
                return call.refuse(Fault::Internal); // asked for pieces of what is to be whole
            };
            let handed_over = handed_over + piece.len() as u64;
            let done = move |taken| match taken {
                Taken::More(pieces) => go_on(Upload {
                    call,
                    declared,
                    limit,
                    handler: Handler::Pieces(pieces),
                    handed_over,
                    since,
                }),
                Taken::Answer(response) => call.answer(response),
            };
            let piece = Piece {
                bytes: piece,
                is_last: false,
            };
            pieces.take(piece, Box::new(done));
        });
    }

    /// Lets a worker read on.
    pub fn read_on(self) {
        let pool = self.call.open().pool().clone();
        pool.resume(move || self.start());
    }

    /// Answers that there is something wrong with it.
    pub fn refuse(mut self, fault: Fault) {
        self.call.waited = self.since.elapsed();
        self.call.refuse(fault);
    }
}

#[cfg(test)]
mod tests;
