//! Sockets and threads: accepts, queues, reads bodies, writes answers, survives what clients do, drains at the end.
//! Knows nothing of keys: each request goes to a [`Service`].
//!
//! # Threads
//!
//! | thread | how many | what it moves |
//! | --- | --- | --- |
//! | tiny_http's own | one a connection | bytes to requests |
//! | `listener` | one, rarely more | requests from tiny_http's queue to the pool's, in batches |
//! | `worker-N` | `--workers` | requests to answers; never waits for a client or a disk |
//! | `transfer-in` | 256 at most | bodies that are not there yet |
//! | `transfer-out` | 256 at most | answers too large for a socket |
//! | `refuse` | 64 at most | errors to clients that are still sending a body |
//! | `guard` | one | nothing: it closes connections on which too little happens |
//! | tiny_http's accept loop | one | connections from the kernel, as `accept` lets them in |
//! | `acceptor` | one | starts that again when it has ended |
//!
//! What is special about tiny_http, and why things are done from outside it, stands where it is done: `connections`
//! (answers in order), `accept` and `listener` (the accept loop), `receive` (what it reads), `transfer` (bodies),
//! `sockets` (its sockets).

mod accept;
mod call;
mod clock;
mod connections;
mod crew;
mod expanse;
mod follow;
mod guard;
mod limits;
mod listener;
mod monitor;
mod pace;
mod panics;
mod pool;
mod receive;
mod request;
mod response;
mod scheduling;
mod sockets;
mod transfer;

use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tiny_http::Request;

pub use call::Call;
pub use limits::{most_connections, raise_descriptor_limit};
pub use listener::{AcceptEnded, bind};
pub use monitor::Monitor;
pub use pace::Patience;
pub use panics::report_panics;
pub use pool::{Pool, Tasks, contain_panic};
pub use request::Head;
pub use response::{Body, Headers, Response, Stream};
pub use scheduling::prefer_throughput;
pub use tiny_http::Method;

use accept::Gate;
use connections::{Client, Connections, Listed};
use listener::Acceptor;
use request::Framing;
use response::Message;
use sockets::{Activity, Held};
use transfer::{Transfers, Upload};

/// How long a connection must have been idle to be closed when the server drains: time enough for a request that has
/// just been sent to come out of the socket and through tiny_http.
const SETTLED: Duration = Duration::from_millis(100);

/// The same where it is not clear whether a request has been sent since the last answer.
const UNCLEAR: Duration = Duration::from_secs(1);

/// How often draining looks whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// What the answer to a request carries, whichever it is.
    fn headers(&self, head: Head<'_>) -> Headers;

    /// Looks at the head of a request, before its body is read, and says what is to be done with it, or refuses it.
    fn admit(&self, head: Head<'_>) -> Result<Admission, Response>;

    /// The answer to a request that the server itself cannot let through.
    fn refuse(&self, head: Head<'_>, fault: Fault) -> Response;
}

/// What is to be done with a request once its body is there.
pub struct Admission {
    /// The most bytes the body may have.
    body_limit: u64,
    handler: Handler,
    /// What the answer carries from here on, whichever it is.
    headers: Headers,
}

/// Answers a request, at once or later. Runs on a worker, and must not wait, neither for the client nor for a disk.
type Handler = Box<dyn FnOnce(Call) + Send>;

impl Admission {
    /// Has the body read, up to that many bytes, and then `handler` run with the whole request.
    pub fn new(body_limit: u64, handler: impl FnOnce(Call) + Send + 'static) -> Admission {
        Admission {
            body_limit,
            handler: Box::new(handler),
            headers: Headers::new(),
        }
    }

    /// The same, and the answer carries these headers, whichever it is.
    pub fn with_headers(mut self, headers: Headers) -> Admission {
        self.headers.extend(headers);
        self
    }
}

/// Why the server does not let a request through, or could not finish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be told where the request ends; the text says why.
    Malformed(&'static str),
    /// Its body has more bytes than the limit.
    TooLarge {
        /// The most bytes that were allowed.
        limit: u64,
    },
    /// There is too much to do already.
    Overloaded,
    /// Answering it failed by a fault of our own.
    Internal,
}

/// What the threads of the server share, for as long as the process lives: nobody has to count who still uses it.
struct Shared {
    service: Box<dyn Service>,
    connections: Arc<Connections>,
    monitor: Arc<Monitor>,
    pool: Pool,
    transfers: Transfers,
    patience: Patience,
}

/// A running server.
pub struct Server {
    socket: TcpListener,
    shared: &'static Shared,
}

/// What [`Server::start`] needs.
pub struct Parts {
    /// The listening socket, from [`bind`].
    pub socket: TcpListener,
    /// How many workers the pool has.
    pub workers: usize,
    /// How many connections may be open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// How long clients may take.
    pub patience: Patience,
    /// What answers the requests.
    pub service: Box<dyn Service>,
    /// By which the server can be watched.
    pub monitor: Arc<Monitor>,
    /// Both ends of the pool's queue.
    pub pool: (Pool, Tasks),
    /// Both ends of the channel by which the acceptor learns that accepting has ended.
    pub accept_ended: (AcceptEnded, Receiver<String>),
}

impl Server {
    /// Starts all threads, and then accepts connections.
    pub fn start(parts: Parts) -> io::Result<Server> {
        let (pool, tasks) = parts.pool;
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            service: parts.service,
            connections: Arc::clone(parts.monitor.table()),
            monitor: parts.monitor,
            pool,
            transfers: Transfers::new(),
            patience: parts.patience,
        }));
        pool::start(parts.workers, &tasks, shared)?;
        if sockets::are_described(&parts.socket) {
            guard::start(shared)?;
        } else {
            log::warn!(
                "the kernel does not describe connections (TCP_INFO): idle and slow ones are not closed"
            );
        }
        let socket = parts.socket.try_clone()?;
        let (ended, endings) = parts.accept_ended;
        let gate = Gate::install(parts.max_connections, shared)?;
        let acceptor = Acceptor {
            socket: parts.socket,
            gate,
            ended,
            endings,
            shared,
        };
        acceptor.start()?;
        Ok(Server { socket, shared })
    }

    /// Stops taking connections, lets the requests under way finish, and closes connections as they fall idle.
    /// Returns how many requests were still under way when the time was up.
    pub fn drain(self, time: Duration) -> usize {
        let deadline = Instant::now() + time;
        self.shared.monitor.begin_draining();
        listener::stop_listening(&self.socket);
        loop {
            let quiet = self.shared.close_idle();
            let under_way = self.shared.connections.under_way();
            if quiet && under_way == 0 || Instant::now() >= deadline {
                return under_way;
            }
            thread::sleep(DRAIN_TICK);
        }
    }
}

impl Shared {
    /// A request has reached a worker.
    fn serve(&'static self, request: Request, client: Client) {
        // From here on it is answered, whatever happens.
        let mut call = Call::new(request, client, self);
        call.add_headers(self.service.headers(call.head()));
        let framing = match call.head().framing() {
            Ok(framing) => framing,
            Err(what) => {
                let response = self.service.refuse(call.head(), Fault::Malformed(what));
                return call.answer(response);
            }
        };
        if framing == Framing::Here {
            let body = call.request_mut().map(body_at_hand).unwrap_or_default();
            call = call.has_body(body);
        }
        let Admission {
            body_limit: limit,
            handler,
            headers,
        } = match self.service.admit(call.head()) {
            Ok(admission) => admission,
            Err(response) => return call.answer(response),
        };
        call.add_headers(headers);
        match framing {
            Framing::Here if call.body_len() <= limit => handler(call),
            Framing::Coming { declared } if declared.unwrap_or(0) <= limit => {
                self.receive(Upload {
                    call,
                    declared,
                    limit,
                    handler,
                });
            }
            _ => {
                let response = self.service.refuse(call.head(), Fault::TooLarge { limit });
                call.answer(response);
            }
        }
    }

    /// There are too many requests before this one.
    fn turn_away(&'static self, request: Request, client: Client) {
        let mut call = Call::new(request, client, self);
        call.add_headers(self.service.headers(call.head()));
        if call.head().framing() == Ok(Framing::Here) {
            call = call.has_body(Vec::new());
        }
        let response = self.service.refuse(call.head(), Fault::Overloaded);
        call.answer(response);
    }

    /// Puts a response into the form that the client needs. If making it panics, that is what the client is told.
    fn message(
        &self,
        head: Head<'_>,
        response: Response,
        headers: &Headers,
        close: bool,
    ) -> Message {
        catch_unwind(AssertUnwindSafe(|| {
            Message::new(head, response, headers, close)
        }))
        .unwrap_or_else(|_| {
            let failed = self.service.refuse(head, Fault::Internal);
            Message::new(head, failed, headers, close)
        })
    }

    /// A request has been answered: the next one of its connection is up.
    fn done(&'static self, client: Client) {
        if let Some(next) = self.connections.leave(client) {
            self.pool.resume(move || self.serve(next, client));
        }
    }

    fn is_draining(&self) -> bool {
        self.monitor.is_draining()
    }

    /// Closes idle connections. Says whether none is left that may be sending a request.
    fn close_idle(&self) -> bool {
        let mut quiet = true;
        for Listed { client, fd, busy } in self.connections.list() {
            let idle = match sockets::activity(fd, client.address) {
                Activity::Gone if !busy => continue,
                // When it has been answered, the client may send another one: look once more.
                _ if busy => false,
                Activity::Gone | Activity::Owed => false,
                Activity::Idle(time) | Activity::New(time) => time >= SETTLED,
                Activity::Unclear(time) => time >= UNCLEAR,
            };
            match Held::new(fd, client.address) {
                Some(held) if idle => held.shut_down(),
                // Also where there is no descriptor to hold it by.
                _ => quiet = false,
            }
        }
        quiet
    }
}

/// The body of a request that is [`Framing::Here`].
fn body_at_hand(request: &mut Request) -> Vec<u8> {
    let length = request.body_length().unwrap_or(0);
    let mut body = Vec::with_capacity(length);
    if length > 0 {
        let _ = request.as_reader().read_to_end(&mut body); // from memory, cannot fail
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    const TEXT: &str = "text/plain";

    /// Panics after so many parts.
    struct Panics(usize);

    impl Stream for Panics {
        fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
            self.0 = self.0.checked_sub(1).expect("no more parts");
            out.extend_from_slice(&[b'p'; 10_000]);
            true
        }
    }

    /// Answers in ways that the real APIs should not.
    struct Troublesome(Pool);

    impl Service for Troublesome {
        fn headers(&self, _: Head<'_>) -> Headers {
            Headers::new()
        }

        fn admit(&self, head: Head<'_>) -> Result<Admission, Response> {
            let pool = self.0.clone();
            match head.path() {
                "/panic-early" => panic!("before the body"),
                "/panic" => Ok(Admission::new(10_000, |_| panic!("with the body"))),
                "/drop" => Ok(Admission::new(10_000, drop)),
                "/panic-in-first-part" => Ok(Admission::new(10_000, |call| {
                    call.answer(Response::new(200, TEXT, Body::Stream(Box::new(Panics(0)))));
                })),
                "/panic-in-later-part" => Ok(Admission::new(10_000, |call| {
                    call.answer(Response::new(200, TEXT, Body::Stream(Box::new(Panics(9)))));
                })),
                _ => Ok(Admission::new(10_000, move |mut call: Call| {
                    let body = call.take_body();
                    let later = move || call.answer(Response::new(200, TEXT, Body::Owned(body)));
                    thread::spawn(move || pool.resume(later));
                })),
            }
        }

        fn refuse(&self, _: Head<'_>, fault: Fault) -> Response {
            Response::new(
                if fault == Fault::Internal { 500 } else { 400 },
                TEXT,
                Body::Static("refused"),
            )
        }
    }

    fn send(address: SocketAddr, path: &str, length: usize) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        let head =
            format!("PUT {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&vec![b'v'; length]).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// One test for all of it, since a process can have one server.
    #[test]
    fn a_panic_costs_one_request_and_an_answer_may_come_later() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let (pool, tasks) = Pool::new();
        let parts = Parts {
            socket,
            workers: 1,
            max_connections: 100,
            patience: Patience::default(),
            service: Box::new(Troublesome(pool.clone())),
            pool: (pool, tasks),
            monitor: Arc::default(),
            accept_ended: AcceptEnded::new(),
        };
        let server = Server::start(parts).unwrap();
        // Bodies at hand and bodies that are not; more panics than there are workers.
        for length in [5, 5000] {
            for path in ["/panic", "/drop", "/panic-early", "/panic-in-first-part"] {
                let answer = send(address, path, length);
                assert!(answer.starts_with("HTTP/1.1 500 "), "{path}: {answer}");
            }
            // What is out cannot be taken back, but it does not look like the end.
            let answer = send(address, "/panic-in-later-part", length);
            assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n"));
            let answer = send(address, "/later", length);
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&"v".repeat(length)));
        }
        assert_eq!(server.drain(Duration::from_secs(10)), 0);
        assert!(TcpStream::connect(address).is_err());
    }
}
