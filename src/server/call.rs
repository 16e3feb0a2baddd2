//! A request together with the duty to answer it.

use std::fmt;
use std::io;
use std::mem;
use std::time::Instant;

use log::Level;
use tiny_http::Request;

use super::connections::Client;
use super::request::Head;
use super::response::{Headers, Message, Response};
use super::{Fault, Shared};

/// Answers up to this size are written by the worker that made them, as far as the socket takes them without waiting
/// for long. The rest, and larger ones, are written by a transfer thread.
const WRITTEN_BY_WORKER: usize = 64 * 1024;

/// A request, its body, and the duty to answer it. It may be answered on any thread, at any time. One that is dropped
/// without an answer, by a panic say, answers 500.
pub struct Call {
    /// `None` once it has been answered.
    request: Option<Request>,
    pub(super) client: Client,
    /// Whether the body has been read to its end, so that the connection can go on.
    pub(super) body_read: bool,
    body: Vec<u8>,
    /// What the answer carries, whichever it is.
    headers: Headers,
    /// When it reached a worker, if that is going to be logged.
    received: Option<Instant>,
    pub(super) shared: &'static Shared,
}

impl Call {
    pub(super) fn new(request: Request, client: Client, shared: &'static Shared) -> Call {
        Call {
            request: Some(request),
            client,
            body_read: false,
            body: Vec::new(),
            headers: Headers::new(),
            received: log::log_enabled!(Level::Debug).then(Instant::now),
            shared,
        }
    }

    /// The head of the request.
    pub fn head(&self) -> Head<'_> {
        #[expect(
            clippy::expect_used,
            reason = "taken by `answer` and `drop` only, which end the call"
        )]
        Head::of(self.request.as_ref().expect("the call is unanswered"))
    }

    /// Takes the body, whole; empty from then on.
    pub fn take_body(&mut self) -> Vec<u8> {
        mem::take(&mut self.body)
    }

    pub(super) fn body_len(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn request_mut(&mut self) -> Option<&mut Request> {
        self.request.as_mut()
    }

    pub(super) fn has_body(mut self, body: Vec<u8>) -> Call {
        self.body = body;
        self.body_read = true;
        self
    }

    /// Has the answer, whichever it is, carry these headers too.
    pub(super) fn add_headers(&mut self, headers: Headers) {
        self.headers.extend(headers);
    }

    /// Sends the answer, and lets the connection's next request come up.
    pub fn answer(mut self, response: Response) {
        self.send(response);
    }

    fn send(&mut self, response: Response) {
        let Some(request) = self.request.take() else {
            return;
        };
        let (client, shared) = (self.client, self.shared);
        let head = Head::of(&request);
        let close = !self.body_read || shared.is_draining() || !head.keeps_alive();
        let mut message = shared.message(head, response, &self.headers, close);
        if !self.body_read {
            self.report(head, message.status);
            return shared.refuse(request, client, message);
        }
        let mut place = None;
        if message.is_longer_than(WRITTEN_BY_WORKER) {
            place = shared.transfers.answers.place();
            if place.is_none() {
                let overloaded = shared.service.refuse(head, Fault::Overloaded);
                message = Message::new(head, overloaded, &self.headers, close);
            }
        }
        self.report(head, message.status);
        // Drops the rest of the request. Its body has been read, so that waits for nobody.
        let mut writer = request.into_writer();
        if let Some(place) = place {
            return shared.send(place, message, writer, client);
        }
        match message.write_to(&mut writer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match shared.transfers.answers.place() {
                    Some(place) => shared.send(place, message, writer, client),
                    // It has a part of the answer, so that nothing else can be said.
                    None => {
                        drop(writer);
                        shared.abandon(client, None);
                    }
                }
                return;
            }
            Err(error) => log::debug!("{}: the answer was not taken: {error}", client.address),
            Ok(_) => {}
        }
        drop(writer);
        shared.done(client);
    }

    fn report(&self, head: Head<'_>, status: u16) {
        self.shared.monitor.count_answer(status);
        if let Some(received) = self.received {
            let (client, took) = (self.client.address, received.elapsed());
            log::debug!("{client} {} {status} {took:?}", Line(head));
        }
    }

    /// Ends the connection instead of answering.
    pub(super) fn give_up(mut self) {
        if let Some(request) = self.request.take() {
            log::debug!(
                "{} {} closed: its body took too long",
                self.client.address,
                Line(Head::of(&request))
            );
            self.shared.abandon(self.client, Some(request));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            let response = self
                .shared
                .service
                .refuse(Head::of(request), Fault::Internal);
            self.send(response);
        }
    }
}

/// A request line for the log: what the client sent is quoted, so that it cannot write log lines.
struct Line<'a>(Head<'a>);

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
