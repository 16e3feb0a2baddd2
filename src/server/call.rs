//! A request together with the duty to answer it.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tiny_http::Request;

use super::request::Head;
use super::response::{Message, Response};
use super::transfer::Transfer;
use super::{Fault, Shared};

/// Answers up to this size are written by the worker that made them: a socket takes that much without waiting for the
/// client to read. Larger ones are written by a transfer thread.
const WRITTEN_BY_WORKER: usize = 64 * 1024;

/// A request, its body, and the duty to answer it. It may be answered on any thread, at any time. One that is dropped
/// without an answer, by a panic say, answers 500.
pub struct Call {
    /// `None` once it has been answered.
    request: Option<Request>,
    body: Vec<u8>,
    peer: SocketAddr,
    received: Instant,
    shared: Arc<Shared>,
}

impl Call {
    pub(super) fn new(
        request: Request,
        body: Vec<u8>,
        peer: SocketAddr,
        shared: &Arc<Shared>,
    ) -> Call {
        Call {
            request: Some(request),
            body,
            peer,
            received: Instant::now(),
            shared: Arc::clone(shared),
        }
    }

    /// The head of the request; `None` is never seen from outside, where a call is unanswered.
    pub fn head(&self) -> Option<Head<'_>> {
        self.request.as_ref().map(Head::of)
    }

    /// Takes the body, whole; empty from then on.
    pub fn take_body(&mut self) -> Vec<u8> {
        mem::take(&mut self.body)
    }

    /// Sends the answer, and lets the connection's next request come up.
    pub fn answer(mut self, response: Response) {
        self.send(response);
    }

    fn send(&mut self, response: Response) {
        let Some(request) = self.request.take() else {
            return;
        };
        let head = Head::of(&request);
        log::debug!(
            "{} {} {} {:?}",
            self.peer,
            Line(head),
            response.status(),
            self.received.elapsed()
        );
        let close = self.shared.is_draining() || !head.keeps_alive();
        let message = Message::new(head, response, close);
        // Drops the rest of the request. Its body has been read, so that waits for nobody.
        let mut writer = request.into_writer();
        if message.len() > WRITTEN_BY_WORKER {
            self.shared.transfers.send(Transfer::Send {
                message,
                writer,
                peer: self.peer,
            });
            return;
        }
        if let Err(error) = message.write_to(&mut writer) {
            log::debug!("{}: the answer was not taken: {error}", self.peer);
        }
        drop(writer);
        self.shared.done(self.peer);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(head) = self.head() {
            let response = self.shared.service.refuse(head, Fault::Internal);
            self.send(response);
        }
    }
}

/// A request line for the log: what the client sent is quoted, so that it cannot write log lines.
pub(super) struct Line<'a>(pub(super) Head<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?}",
            self.0.method().as_str().escape_default(),
            self.0.path()
        )
    }
}
