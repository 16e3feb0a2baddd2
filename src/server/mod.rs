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
//! | `transfer-N` | 32 | large bodies in, large answers out; waits for clients |
//! | tiny_http's accept loop | one | connections from the kernel, as [`accept`] lets them in |
//! | `acceptor` | one | starts that again when it has ended |
//!
//! What is special about tiny_http, and why things are done from outside it, stands where it is done: [`lanes`] (answers
//! in order), [`accept`] and [`listener`] (the accept loop), [`transfer`] (bodies), [`sockets`] (its sockets).

mod accept;
mod call;
mod lanes;
mod limits;
mod listener;
mod panics;
mod pool;
mod request;
mod response;
mod sockets;
mod transfer;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tiny_http::Request;

pub use call::Call;
pub use limits::{most_connections, raise_descriptor_limit};
pub use listener::{AcceptEnded, bind};
pub use panics::report_panics;
pub use pool::{Pool, Tasks, guard};
pub use request::Head;
pub use response::{Body, Response};
pub use tiny_http::Method;

use accept::Gate;
use lanes::Lanes;
use listener::Acceptor;
use pool::Task;
use request::Framing;
use sockets::Connections;
use transfer::{Transfer, Transfers};

/// How long a connection must have been idle to be closed when the server drains: time enough for a request that has
/// just been sent to come out of the socket and through tiny_http.
const SETTLED: Duration = Duration::from_millis(100);

/// How often draining looks whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// What answers requests.
pub trait Service: Send + Sync + 'static {
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
}

/// Answers a request, at once or later. Runs on a worker, and must not wait, neither for the client nor for a disk.
type Handler = Box<dyn FnOnce(Call) + Send>;

impl Admission {
    /// Has the body read, up to that many bytes, and then `handler` run with the whole request.
    pub fn new(body_limit: u64, handler: impl FnOnce(Call) + Send + 'static) -> Admission {
        Admission {
            body_limit,
            handler: Box::new(handler),
        }
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
    /// Answering it failed by a fault of our own.
    Internal,
}

/// What the threads of the server share.
struct Shared {
    service: Arc<dyn Service>,
    connections: Connections,
    lanes: Lanes,
    pool: Pool,
    transfers: Transfers,
    draining: AtomicBool,
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
    /// How many connections may be open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// What answers the requests.
    pub service: Arc<dyn Service>,
    /// Both ends of the pool's queue.
    pub pool: (Pool, Tasks),
    /// Both ends of the channel by which the acceptor learns that accepting has ended.
    pub accept_ended: (AcceptEnded, Receiver<String>),
}

impl Server {
    /// Starts all threads, and then accepts connections.
    pub fn start(parts: Parts) -> io::Result<Server> {
        let (pool, tasks) = parts.pool;
        let (transfers, transfer_queue) = Transfers::new(parts.max_connections);
        let shared = Arc::new(Shared {
            service: parts.service,
            connections: Connections::default(),
            lanes: Lanes::default(),
            pool,
            transfers,
            draining: AtomicBool::new(false),
        });
        pool::start(parts.workers, &tasks, &shared)?;
        transfer::start(&transfer_queue, &shared)?;
        let socket = parts.socket.try_clone()?;
        let (ended, endings) = parts.accept_ended;
        let gate = Gate::install(parts.max_connections, Arc::clone(&shared))?;
        let acceptor = Acceptor {
            socket: parts.socket,
            gate,
            ended,
            endings,
            shared: Arc::clone(&shared),
        };
        acceptor.start()?;
        Ok(Server { socket, shared })
    }

    /// Stops taking connections, lets the requests under way finish, and closes connections as they fall idle.
    /// Returns how many requests were still under way when the time was up.
    pub fn drain(self, time: Duration) -> usize {
        let deadline = Instant::now() + time;
        self.shared.draining.store(true, Ordering::Release);
        listener::stop_listening(&self.socket);
        loop {
            let quiet = self.shared.close_idle();
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
    fn serve(self: &Arc<Self>, mut request: Request) {
        let head = Head::of(&request);
        let Some(peer) = head.peer() else { return };
        let framing = match head.framing() {
            Ok(framing) => framing,
            Err(what) => {
                let response = self.service.refuse(head, Fault::Malformed(what));
                return self.transfers.send(Transfer::Refuse {
                    request,
                    peer,
                    response,
                });
            }
        };
        let refused = match self.service.admit(head) {
            Err(response) => response,
            Ok(Admission {
                body_limit: limit,
                handler,
            }) => match framing {
                Framing::Coming { declared } if declared.unwrap_or(0) <= limit => {
                    return self.transfers.send(Transfer::Receive {
                        request,
                        peer,
                        declared,
                        limit,
                        handler,
                    });
                }
                Framing::Here if request.body_length().unwrap_or(0) as u64 <= limit => {
                    let body = body_at_hand(&mut request);
                    return handler(Call::new(request, body, peer, self));
                }
                _ => self.service.refuse(head, Fault::TooLarge { limit }),
            },
        };
        match framing {
            Framing::Here => Call::new(request, Vec::new(), peer, self).answer(refused),
            Framing::Coming { .. } => self.transfers.send(Transfer::Refuse {
                request,
                peer,
                response: refused,
            }),
        }
    }

    /// A request has been answered: the next one of its connection is up.
    fn done(&self, peer: SocketAddr) {
        if let Some(next) = self.lanes.leave(peer) {
            self.pool.send(Task::Requests(vec![next]));
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Closes idle connections. Says whether none is left that may be sending a request.
    fn close_idle(&self) -> bool {
        let mut quiet = true;
        for (peer, connection) in self.connections.hold_all() {
            if self.lanes.is_busy(&peer) {
                continue;
            }
            match connection.idle_for() {
                Some(idle_for) if idle_for >= SETTLED => connection.shut_down(),
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
