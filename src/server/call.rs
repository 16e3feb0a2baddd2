//! A request together with the duty to answer it.

use std::io::Read;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::door::{ClientId, Connection, Outgoing};
use super::id::RequestId;
use super::line::Line;
use super::pool::Pool;
use super::request::Head;
use super::response::{Headers, Response};
use super::slow::Slow;
use super::streams::Streams;
use super::traffic::Operation;
use super::{Fault, Shared};

/// A connection's turn, held by the request under way. When it is dropped, the next request of the connection is up.
pub struct Turn {
    shared: Arc<Shared>,
    client: ClientId,
    /// What is logged when its request turns out to be slow.
    slow: Option<Box<Slow>>,
}

impl Turn {
    pub(super) fn new(shared: &Arc<Shared>, client: ClientId) -> Turn {
        Turn {
            shared: Arc::clone(shared),
            client,
            slow: None,
        }
    }

    /// The client's address.
    pub fn client(&self) -> SocketAddr {
        self.client.address
    }

    fn streams(&self) -> Streams {
        self.shared.streams.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(slow) = self.slow.take() {
            slow.end();
        }
        if let Some(next) = self.shared.lanes.leave(self.client.connection) {
            let turn = Turn::new(&self.shared, self.client);
            let shared = Arc::clone(&self.shared);
            self.shared.pool.resume(move || shared.serve(next, turn));
        }
    }
}

/// A request, its body, and the duty to answer it. Any thread may answer it, at any time. A call that is dropped without an answer,
/// by a panic say, answers 500.
pub struct Call {
    /// `None` once it has been answered.
    open: Option<Open>,
    /// Whether the body has been read to its end, so that the connection can go on.
    body_read: bool,
    body: Vec<u8>,
    /// What is held for the body until the request is answered.
    hold: Option<Hold>,
    /// Headers of the answer, whichever it is.
    headers: Headers,
    operation: Operation,
    /// When its head had been read.
    arrived: Instant,
    /// For how long its body has been waited for.
    pub(super) waited: Duration,
    /// When a worker got it, if slow requests are logged.
    begun: Option<Instant>,
    /// How long the disk took over it.
    disk: Duration,
}

/// Something to be dropped when a request has been answered: memory that is reserved for its body, say.
pub type Hold = Box<dyn Send>;

/// An unanswered request.
pub(super) struct Open {
    request: Request,
    pub(super) connection: Arc<dyn Connection>,
    turn: Turn,
}

impl Open {
    /// Where its body comes from.
    pub(super) fn reader(&mut self) -> &mut dyn Read {
        self.request.as_reader()
    }

    pub(super) fn client(&self) -> SocketAddr {
        self.turn.client()
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.turn.shared.pool
    }
}

impl Call {
    pub(super) fn new(
        request: Request,
        connection: Arc<dyn Connection>,
        turn: Turn,
        arrived: Instant,
    ) -> Call {
        let begun = turn.shared.slow.map(|_| Instant::now());
        Call {
            open: Some(Open {
                request,
                connection,
                turn,
            }),
            body_read: false,
            body: Vec::new(),
            hold: None,
            headers: Headers::new(),
            operation: Operation::UNKNOWN,
            arrived,
            waited: Duration::ZERO,
            begun,
            disk: Duration::ZERO,
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "taken by `send` only, which ends the call"
    )]
    pub(super) fn open(&self) -> &Open {
        self.open.as_ref().expect("the call is unanswered")
    }

    #[expect(clippy::expect_used, reason = "as above")]
    pub(super) fn open_mut(&mut self) -> &mut Open {
        self.open.as_mut().expect("the call is unanswered")
    }

    /// The head of the request.
    pub fn head(&self) -> Head<'_> {
        Head::of(&self.open().request)
    }

    /// Takes the body, whole; empty from then on.
    pub fn take_body(&mut self) -> Vec<u8> {
        mem::take(&mut self.body)
    }

    pub(super) fn body_len(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn set_body(&mut self, body: Vec<u8>, hold: Option<Hold>) {
        (self.body, self.hold) = (body, hold);
        self.body_read = true;
    }

    pub(super) fn set_operation(&mut self, operation: Operation) {
        self.operation = operation;
    }

    /// Says how long the disk took over it, for the log of slow requests.
    pub fn note_disk(&mut self, time: Duration) {
        self.disk = time;
    }

    /// Adds headers to the answer, whichever it is.
    pub(super) fn add_headers(&mut self, headers: Headers) {
        self.headers.extend(headers);
    }

    /// Sends the answer, and lets the connection's next request come up.
    pub fn answer(mut self, response: Response) {
        self.send(response);
    }

    pub(super) fn refuse(self, fault: Fault) {
        let shared = &self.open().turn.shared;
        shared.monitor.count_fault(fault);
        let response = shared.service.refuse(self.head(), fault);
        self.answer(response);
    }

    fn send(&mut self, response: Response) {
        let Some(Open {
            request,
            connection,
            mut turn,
        }) = self.open.take()
        else {
            return;
        };
        let (head, shared) = (Head::of(&request), &turn.shared);
        let (keeps_alive, asks) = head.keeps_alive();
        let close = !self.body_read
            || shared.monitor.is_draining()
            || !keeps_alive
            || response.is_endless();
        if !close && asks {
            self.headers.extend(shared.keep_alive.clone());
        }
        let id = RequestId::of(head);
        let mut message = shared.message(head, response, &self.headers, id, close);
        let (status, answered) = (message.status, Instant::now());
        let took = (answered - self.arrived).saturating_sub(self.waited);
        shared.monitor.count_answer(self.operation, status, took);
        let line = (shared.slow.is_some() || log::log_enabled!(log::Level::Debug))
            .then(|| Line::new(turn.client(), head, status, id, &*shared.service));
        if let Some(line) = &line {
            line.log(took);
        }
        let slow = shared.slow.zip(self.begun).zip(line);
        let slow = slow.map(|((from, begun), line)| {
            Box::new(Slow {
                line,
                from,
                arrived: self.arrived,
                begun,
                answered,
                body: self.waited,
                disk: self.disk,
            })
        });
        // A stream takes as long as the client likes.
        turn.slow = slow.filter(|_| !message.is_endless());
        if !self.body_read {
            return connection.refuse(request, message, turn);
        }
        let subscription = message.take_subscription();
        let streams = turn.streams();
        let outgoing = Outgoing {
            message,
            // Drops the rest of the request. Its body has been read, so nobody waits for the client.
            writer: request.into_writer(),
            turn,
        };
        match subscription {
            Some(subscription) => streams.begin(connection, outgoing, subscription),
            None => connection.write(outgoing),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            let Shared {
                service, monitor, ..
            } = &*open.turn.shared;
            monitor.count_fault(Fault::Internal);
            let response = service.refuse(Head::of(&open.request), Fault::Internal);
            self.send(response);
        }
    }
}
