//! The simple path: requests come in, workers answer them, answers go out. Knows nothing of keys: a [`Service`] answers.
//!
//! # Threads
//!
//! | thread | how many | what it moves |
//! | --- | --- | --- |
//! | tiny_http's accept loop | one | connections from the kernel to threads |
//! | tiny_http's own | one a connection | bytes to requests |
//! | `listener` | one | requests from tiny_http's queue to the pool's, in batches |
//! | `worker-N` | `--workers` | requests to answers |
//! | `worker-long` | one | the same for requests with long bodies |
//! | `streams` | one | what happens to all who listen |
//!
//! A request goes through the files in this order: `listener`, `lanes` (one request of a connection at a time), `pool`, [`Service`]
//! (which is not here), `call` (the duty to answer), `upload` and `pieces` (the body), `message` (bytes on the wire), `door` (who reads and writes them). An answer without
//! an end goes on in `streams`. This module wires them. With the plain door that is all there is; the armour behind the other door has threads of its own.

mod admission;
mod call;
mod door;
mod fault;
mod id;
mod lanes;
mod line;
mod listener;
mod message;
mod monitor;
mod pieces;
mod pool;
mod request;
mod response;
mod slow;
mod streams;
mod traffic;
mod upload;

use std::borrow::Cow;
use std::io;
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

pub use admission::{Admission, GoOn};
pub use call::{Call, Hold, Turn};
pub use door::{ClientId, Connection, Door, Outgoing, Payload, Plain, Timeouts};
pub use fault::Fault;
pub use id::RequestId;
pub use listener::{Intake, adopt, bind, readable};
pub use message::Message;
pub use monitor::{Closing, Ending, Monitor};
pub use pieces::{Done, PIECE, Piece, Pieces, Taken};
pub use pool::{Pool, Tasks, contain_panic};
pub use request::{Framing, Head, path_and_query};
pub use response::{Body, Headers, Response, Stream};
pub use streams::{Bell, Next, Publisher, Sink, Streams, Subscription, Text};
pub use tiny_http::Method;
pub use traffic::Operation;
pub use upload::Upload;

use lanes::{Incoming, Lanes};

/// How often draining looks whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// What the answer to a request carries, whichever it is.
    fn headers(&self, head: Head<'_>) -> Headers;

    /// Looks at the head of a request, before its body is read, and says what is to be done with it, or refuses it. Also says what the
    /// request asks for, so that it is counted as that.
    fn admit(&self, head: Head<'_>) -> (Operation, Result<Admission, Response>);

    /// Whose request it is, for the log: the name of its token.
    fn who(&self, head: Head<'_>) -> Option<String>;

    /// The answer to a request that the server itself cannot let through.
    fn refuse(&self, head: Head<'_>, fault: Fault) -> Response;
}

/// What the threads of the server share.
pub(crate) struct Shared {
    service: Box<dyn Service>,
    door: Arc<dyn Door>,
    lanes: Arc<Lanes>,
    monitor: Arc<Monitor>,
    pool: Pool,
    streams: Streams,
    /// Requests that take so long are logged.
    slow: Option<Duration>,
    /// What clients are told that ask for the connection to stay open.
    keep_alive: Option<(&'static str, Cow<'static, str>)>,
}

/// A running server.
pub struct Server {
    socket: TcpListener,
    shared: Arc<Shared>,
}

/// What [`Server::start`] needs.
pub struct Parts {
    /// The listening socket, from [`bind`].
    pub socket: TcpListener,
    /// How many workers the pool has.
    pub workers: usize,
    /// Lets clients in, reads from them and writes to them.
    pub door: Arc<dyn Door>,
    /// Answers the requests.
    pub service: Box<dyn Service>,
    /// Counts what the server does.
    pub monitor: Arc<Monitor>,
    /// Requests that take so long are logged; `None` for none.
    pub slow_log: Option<Duration>,
    /// Both ends of the pool's queues.
    pub pool: (Pool, Tasks),
    /// What is rung when there is something for the streams, and who says what that is.
    pub streams: (Receiver<()>, Arc<dyn Publisher>),
}

impl Server {
    /// Starts all threads, and then accepts connections.
    pub fn start(parts: Parts) -> io::Result<Server> {
        let (pool, tasks) = parts.pool;
        let (rung, publisher) = parts.streams;
        let streams = Streams::start(rung, publisher, Arc::clone(&parts.monitor))?;
        let shared = Arc::new(Shared {
            service: parts.service,
            door: Arc::clone(&parts.door),
            lanes: Arc::clone(parts.monitor.lanes()),
            monitor: parts.monitor,
            pool,
            streams,
            slow: parts.slow_log,
            keep_alive: parts.door.idle_timeout().map(keep_alive),
        });
        pool::start(parts.workers, &tasks, &shared)?;
        let socket = parts.socket.try_clone()?;
        parts.door.open(parts.socket, Intake(Arc::clone(&shared)))?;
        Ok(Server { socket, shared })
    }

    /// Stops taking connections, lets the requests under way finish, and closes connections as they fall idle.
    /// Returns how many requests were still under way when the time was up.
    pub fn drain(self, time: Duration) -> usize {
        let deadline = Instant::now() + time;
        self.shared.monitor.begin_draining();
        self.shared.streams.drain();
        if !self.shared.monitor.shares_socket() {
            listener::stop_listening(&self.socket);
        }
        loop {
            let quiet = self.shared.door.close_idle();
            let under_way = self.shared.lanes.under_way();
            if quiet && under_way == 0 || Instant::now() >= deadline {
                return under_way;
            }
            thread::sleep(DRAIN_TICK);
        }
    }
}

impl Shared {
    /// A request has reached a worker.
    fn serve(&self, incoming: Incoming, turn: Turn) {
        let Some((mut call, payload)) = self.begin(incoming, turn) else {
            return;
        };
        let coming = match payload {
            Ok(Payload::Here(body, hold)) => {
                call.set_body(body, hold);
                None
            }
            Ok(Payload::Coming { declared }) => Some(declared),
            Err(fault) => return call.refuse(fault),
        };
        let (operation, admitted) = self.service.admit(call.head());
        call.set_operation(operation);
        let Admission {
            body_limit: limit,
            handler,
            headers,
        } = match admitted {
            Ok(admission) => admission,
            Err(response) => return call.answer(response),
        };
        call.add_headers(headers);
        if (coming.is_some() || call.body_len() > 0) && call.head().is_encoded() {
            return call.refuse(Fault::Encoded);
        }
        match coming {
            None if call.body_len() <= limit => handler.run(call),
            Some(declared) if declared.unwrap_or(0) <= limit => {
                Upload::new(call, declared, limit, handler).start()
            }
            _ => call.refuse(Fault::TooLarge { limit }),
        }
    }

    /// There are too many requests before this one.
    fn turn_away(&self, incoming: Incoming, turn: Turn) {
        let Some((mut call, payload)) = self.begin(incoming, turn) else {
            return;
        };
        if let Ok(Payload::Here(body, hold)) = payload {
            call.set_body(body, hold);
        }
        call.refuse(Fault::Overloaded);
    }

    /// Makes a call of a request, which is answered from then on, whatever happens. `None` if its connection has ended.
    fn begin(&self, incoming: Incoming, turn: Turn) -> Option<(Call, Result<Payload, Fault>)> {
        let Incoming {
            mut request,
            connection,
            arrived,
        } = incoming;
        let Some(payload) = connection.begin(&mut request) else {
            drop(request.into_writer()); // tiny_http would answer a request that is dropped
            return None;
        };
        let mut call = Call::new(request, connection, turn, arrived);
        call.add_headers(self.service.headers(call.head()));
        Some((call, payload))
    }

    /// Puts a response into the form that the client needs. If making it panics, that is what the client is told.
    fn message(
        &self,
        head: Head<'_>,
        response: Response,
        headers: &Headers,
        id: RequestId<'_>,
        close: bool,
    ) -> Message {
        catch_unwind(AssertUnwindSafe(|| {
            Message::new(head, response, headers, id, close)
        }))
        .unwrap_or_else(|_| {
            let failed = self.service.refuse(head, Fault::Internal);
            Message::new(head, failed, headers, id, close)
        })
    }
}

/// The header that says how long an idle connection stays open. A second less than that, or a tenth, so that no request is sent in the
/// moment in which the connection is closed (RFC 2068 section 19.7.1.1 has the header, and clients obey it).
fn keep_alive(idle: Duration) -> (&'static str, Cow<'static, str>) {
    let time = idle.saturating_sub((idle / 10).max(Duration::from_secs(1)));
    ("Keep-Alive", format!("timeout={}", time.as_secs()).into())
}

/// Logs every panic in one line, instead of a message and a backtrace on stderr.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        match thread.name() {
            Some(name) => log::error!("panic in thread {name} at {place}: {message}"),
            // Our threads have names. A panic in one of tiny_http's costs one connection.
            None => log::debug!("panic in a thread of tiny_http at {place}: {message}"),
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::never;
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

    /// Has nothing to say.
    struct Silent;

    impl Publisher for Silent {
        fn publish(&self, _: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64> {
            Vec::new()
        }

        fn next(&self, _: u64) -> Next {
            Next::Wait
        }

        fn quiet(&self, _: u64) -> Option<Text> {
            None
        }

        fn unwanted(&self) -> Vec<u64> {
            Vec::new()
        }
    }

    /// Answers in ways that the real APIs should not.
    struct Troublesome(Pool);

    impl Service for Troublesome {
        fn headers(&self, _: Head<'_>) -> Headers {
            Headers::new()
        }

        fn admit(&self, head: Head<'_>) -> (Operation, Result<Admission, Response>) {
            let pool = self.0.clone();
            let admitted = match head.path() {
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
            };
            (Operation::UNKNOWN, admitted)
        }

        fn who(&self, _: Head<'_>) -> Option<String> {
            None
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

    #[test]
    fn a_panic_costs_one_request_and_an_answer_may_come_later() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let (pool, tasks) = Pool::new();
        let parts = Parts {
            socket,
            workers: 1,
            door: Arc::new(Plain),
            service: Box::new(Troublesome(pool.clone())),
            slow_log: None,
            pool: (pool, tasks),
            streams: (never(), Arc::new(Silent)),
            monitor: Arc::default(),
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
