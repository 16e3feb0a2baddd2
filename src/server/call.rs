//! A request together with the duty to answer it.

use std::fmt;
use std::io::{self, Read};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::door::{ClientId, Connection, Outgoing};
use super::id::RequestId;
use super::request::Head;
use super::response::{Headers, Response};
use super::slow::Slow;
use super::streams::Streams;
use super::traffic::Operation;
use super::{Fault, Handler, Service, Shared};

/// Bodies over this size are looked into by a worker of their own, since others would wait for that.
const LONG: usize = 256 * 1024;

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
    waited: Duration,
    /// When a worker got it, if slow requests are logged.
    begun: Option<Instant>,
    /// How long the disk took over it.
    disk: Duration,
}

/// Something to be dropped when a request has been answered: memory that is reserved for its body, say.
pub type Hold = Box<dyn Send>;

/// An unanswered request.
struct Open {
    request: Request,
    connection: Arc<dyn Connection>,
    turn: Turn,
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
    fn open(&self) -> &Open {
        self.open.as_ref().expect("the call is unanswered")
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
        let line = Line {
            client: turn.client(),
            head,
            status,
            id,
            service: &*shared.service,
        };
        log::debug!("{line} {took:?}");
        let slow = shared.slow.zip(self.begun).map(|(from, begun)| {
            Box::new(Slow {
                line: line.to_string(),
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

/// A request whose body is still with the client.
pub struct Upload {
    pub(super) call: Call,
    /// Bytes that the client announced, at most `limit`; `None` when it sends chunks.
    pub(super) declared: Option<u64>,
    /// The most bytes that the body may have.
    pub(super) limit: u64,
    /// What to do with the call once the body is there.
    pub(super) handler: Handler,
    /// Since when it is waited for.
    pub(super) since: Instant,
}

impl Upload {
    pub(super) fn start(self) {
        let connection = Arc::clone(&self.call.open().connection);
        connection.receive(self);
    }

    /// The most bytes to read: one byte over the limit tells that there are too many.
    pub fn most(&self) -> u64 {
        self.declared.unwrap_or(self.limit + 1)
    }

    /// Where the body comes from. tiny_http sends `100 Continue` at the first use, where the client waits for that.
    pub fn reader(&mut self) -> &mut dyn Read {
        #[expect(clippy::expect_used, reason = "an upload ends with its call")]
        let open = self.call.open.as_mut().expect("the call is unanswered");
        open.request.as_reader()
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
            self.call.open().turn.client()
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

    /// The body is there: runs the handler here and now, on a worker.
    pub fn complete(mut self, body: Vec<u8>, hold: Option<Hold>) {
        self.call.waited = self.since.elapsed();
        self.go_on(body, hold);
    }

    fn go_on(mut self, body: Vec<u8>, hold: Option<Hold>) {
        self.call.set_body(body, hold);
        (self.handler)(self.call);
    }

    /// The body is there: lets a worker run the handler, and holds something until the request is answered.
    pub fn resume(mut self, body: Vec<u8>, hold: Option<Hold>) {
        self.call.waited = self.since.elapsed();
        let pool = self.call.open().turn.shared.pool.clone();
        let is_long = body.len() > LONG;
        let work = move || self.go_on(body, hold);
        if is_long {
            pool.resume_long(work);
        } else {
            pool.resume(work);
        }
    }

    /// Answers that there is something wrong with it.
    pub fn refuse(mut self, fault: Fault) {
        self.call.waited = self.since.elapsed();
        self.call.refuse(fault);
    }
}

/// A request for the log. It quotes what the client sent, so that a client cannot write log lines.
struct Line<'a> {
    client: SocketAddr,
    head: Head<'a>,
    status: u16,
    id: RequestId<'a>,
    /// Knows whose request it is. Asked only for lines that are written.
    service: &'a dyn Service,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, path) = (self.head.method().as_str(), self.head.path());
        write!(
            f,
            "{} {} {path:?} {} id={}",
            self.client,
            method.escape_default(),
            self.status,
            self.id
        )?;
        match self.service.who(self.head) {
            Some(name) => write!(f, " token={name:?}"),
            None => Ok(()),
        }
    }
}
