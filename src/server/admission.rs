//! What a service says about a request when it has seen the head: how much of a body it wants, and what is to be done with it.

use super::call::Call;
use super::pieces::{Piece, Pieces, Taken};
use super::response::{Headers, Response};

/// What is to be done with a request once its body is there.
pub struct Admission {
    /// The most bytes the body may have.
    pub(super) body_limit: u64,
    pub(super) handler: Handler,
    /// What the answer carries from here on, whichever it is.
    pub(super) headers: Headers,
}

/// Called when a request may be answered, or with an answer in its place.
pub type GoOn = Box<dyn FnOnce(Result<(), Response>) + Send>;

/// Answers a request, at once or later.
pub(super) enum Handler {
    /// With its whole body. Runs on a worker, and must not wait, neither for the client nor for a disk.
    Whole(Box<dyn FnOnce(Call) + Send>),
    /// Takes the body as it comes.
    Pieces(Box<dyn Pieces>),
}

impl Admission {
    /// Has the body read, up to that many bytes, and then `handler` run with the whole request.
    pub fn new(body_limit: u64, handler: impl FnOnce(Call) + Send + 'static) -> Admission {
        Admission {
            body_limit,
            handler: Handler::Whole(Box::new(handler)),
            headers: Headers::new(),
        }
    }

    /// Has the body handed over piece by piece, however long it is.
    pub fn in_pieces(pieces: impl Pieces + 'static) -> Admission {
        Admission {
            body_limit: u64::MAX,
            handler: Handler::Pieces(Box::new(pieces)),
            headers: Headers::new(),
        }
    }

    /// The same, once `wait` says so, on any thread; or it has the request answered without its handler. For requests whose body is taken
    /// whole.
    pub fn after(mut self, wait: impl FnOnce(GoOn) + Send + 'static) -> Admission {
        self.handler = match self.handler {
            Handler::Whole(handler) => Handler::Whole(Box::new(move |call| {
                wait(Box::new(move |result| match result {
                    Ok(()) => handler(call),
                    Err(response) => call.answer(response),
                }));
            })),
            pieces => pieces,
        };
        self
    }

    /// The same, and the answer carries these headers, whichever it is.
    pub fn with_headers(mut self, headers: Headers) -> Admission {
        self.headers.extend(headers);
        self
    }
}

impl Handler {
    /// Runs it for a request with its whole body, or what is left of it.
    pub(super) fn run(self, mut call: Call) {
        match self {
            Handler::Whole(handler) => handler(call),
            Handler::Pieces(pieces) => {
                let piece = Piece {
                    bytes: call.take_body(),
                    is_last: true,
                };
                let done = move |taken| {
                    // One that wants more than there is has no answer: dropping the call answers 500.
                    if let Taken::Answer(response) = taken {
                        call.answer(response);
                    }
                };
                pieces.take(piece, Box::new(done));
            }
        }
    }
}
