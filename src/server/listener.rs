//! From tiny_http to the pool, and what keeps tiny_http accepting.
//!
//! The accept loop of tiny_http ends for good when it cannot start a thread for a connection; all other causes are kept
//! from it by [`super::accept`]. The acceptor thread starts another one then, on the same listening socket. Connections
//! that were accepted before still send their requests to the queue of the old `tiny_http::Server`, so each `Server` has
//! a listener thread of its own, which stays as long as any connection of that time.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::net::{Shutdown, listen, shutdown, sockopt};
use tiny_http::Server as TinyHttp;

use super::accept::Gate;
use super::connections::Client;
use super::pool::contain_panic;
use super::transfer::throw_away;
use super::{Shared, sockets};

/// The most requests in one message to the pool. More would save little, and keep the other workers from helping.
const BATCH: usize = 16;

/// How many times the listener lets others run before it sleeps until there is a request. They may be about to hand one
/// over, and waking it costs them more than this.
const YIELDS: u32 = 8;

/// Connections that the kernel keeps until they are accepted; it cuts this to net.core.somaxconn, 4096 as a rule.
const BACKLOG: i32 = 4096;

/// How long a write to a client waits for room in the socket before whoever writes does something else. Connections
/// with room take far less.
pub(super) const WRITING: Duration = Duration::from_millis(10);

/// How long clients that have connected already may take to be accepted when the server stops.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How often the acceptor looks for listeners whose connections are gone.
const TIDYING: Duration = Duration::from_secs(1);

/// How long an accept loop may take to end after it has been said to.
const ENDING: Duration = Duration::from_secs(1);

/// How long the acceptor waits before it starts another accept loop, and before it tries again.
const RETRY: Duration = Duration::from_millis(100);

/// Opens the listening socket.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    listen(&socket, BACKLOG)?;
    // Accepted sockets inherit it. Without it, the second half of a large answer can wait for 40 ms.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // This too. It keeps a worker from waiting for a client that does not read.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(WRITING))?;
    Ok(socket)
}

/// Tells the acceptor that an accept loop has ended. Cheap to clone.
#[derive(Clone)]
pub struct AcceptEnded(Sender<String>);

impl AcceptEnded {
    /// A channel for that, made ahead of the server since the panic hook needs it.
    pub fn new() -> (AcceptEnded, Receiver<String>) {
        let (sender, receiver) = unbounded();
        (AcceptEnded(sender), receiver)
    }

    /// Reports it, with the reason.
    pub fn report(&self, reason: String) {
        let _ = self.0.send(reason); // nobody listens any more during shutdown
    }
}

/// A `tiny_http::Server`, and the connections that it may still have to listen to.
struct Generation {
    server: Arc<TinyHttp>,
    /// The descriptor that its accept loop has, and closes as it ends.
    socket: RawFd,
    retired: Arc<AtomicBool>,
    /// Those who were there before it; once it has ended, those whom it has let in.
    clients: HashSet<Client>,
}

/// The thread that sees to it that connections are accepted.
pub(super) struct Acceptor {
    pub(super) socket: TcpListener,
    pub(super) gate: Arc<Gate>,
    pub(super) ended: AcceptEnded,
    pub(super) endings: Receiver<String>,
    pub(super) shared: &'static Shared,
}

impl Acceptor {
    /// Starts accepting; from then on a thread of its own keeps it up.
    pub(super) fn start(self) -> io::Result<()> {
        let first = self.accept()?;
        thread::Builder::new()
            .name("acceptor".into())
            .spawn(move || self.keep_accepting(first))?;
        Ok(())
    }

    fn keep_accepting(&self, mut current: Generation) {
        let mut old: Vec<Generation> = Vec::new();
        loop {
            let reason = match self.endings.recv_timeout(TIDYING) {
                Ok(reason) => Some(reason),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.shared.is_draining() {
                return;
            }
            // Where threads are short, those who begin to accept end one after the other, and each is reported.
            while self.endings.try_recv().is_ok() {}
            if self.has_ended(&current, reason.is_some()) {
                let reason = reason.as_deref().unwrap_or("it ended");
                log::warn!("accepting connections again, after: {reason}");
                // Who is there now and was not before has been let in by it.
                current.clients = &self.clients() - &current.clients;
                old.push(std::mem::replace(&mut current, self.accept_again()));
            }
            self.tidy(&mut old);
        }
    }

    /// Whether an accept loop has ended, or is about to if that has been reported. The report may be about an earlier one, and
    /// two that accept at the same time would take clients from each other.
    fn has_ended(&self, generation: &Generation, reported: bool) -> bool {
        let Some(ours) = sockets::cookie(self.socket.as_raw_fd()) else {
            return reported; // the kernel does not tell
        };
        let deadline = Instant::now() + if reported { ENDING } else { Duration::ZERO };
        while sockets::cookie(generation.socket) == Some(ours) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(ENDING / 1000);
        }
        true
    }

    fn accept_again(&self) -> Generation {
        loop {
            thread::sleep(RETRY);
            match self.accept() {
                Ok(next) => return next,
                Err(error) => log::error!("cannot accept connections, trying again: {error}"),
            }
        }
    }

    /// Has tiny_http accept on the listening socket, and listens to what comes of it.
    fn accept(&self) -> io::Result<Generation> {
        let retired = Arc::new(AtomicBool::new(false));
        // Before anybody is accepted, so that whoever is finds somebody listening.
        let (give, given) = bounded::<Arc<TinyHttp>>(1);
        let (ended, shared, until) = (self.ended.clone(), self.shared, Arc::clone(&retired));
        let listen = move || {
            if let Ok(server) = given.recv() {
                listen_to(&server, &until, &ended, shared);
            }
        };
        let listener = thread::Builder::new().name("listener".into());
        listener.spawn(listen)?;
        let socket = self.socket.try_clone()?;
        let number = socket.as_raw_fd();
        self.gate.stand_at(number);
        let clients = self.clients();
        // It panics where it cannot start its threads.
        let server = catch_unwind(AssertUnwindSafe(|| TinyHttp::from_listener(socket, None)))
            .map_err(|_| io::Error::other("no thread for it"))?
            .map_err(io::Error::other)?;
        let server = Arc::new(server);
        let _ = give.send(Arc::clone(&server)); // has room for one
        Ok(Generation {
            server,
            socket: number,
            retired,
            clients,
        })
    }

    /// Lets go of listeners whose connections are all gone.
    fn tidy(&self, old: &mut Vec<Generation>) {
        if old.is_empty() {
            return;
        }
        self.shared.connections.prune();
        let clients = self.clients();
        old.retain(|generation| {
            let needed = !generation.clients.is_disjoint(&clients);
            if !needed {
                generation.retired.store(true, Ordering::Release);
                generation.server.unblock();
            }
            needed
        });
    }

    fn clients(&self) -> HashSet<Client> {
        self.shared
            .connections
            .list()
            .into_iter()
            .map(|listed| listed.client)
            .collect()
    }
}

/// Moves requests from a server of tiny_http to the pool: all that are there, up to [`BATCH`], in one message.
fn listen_to(
    server: &TinyHttp,
    retired: &AtomicBool,
    ended: &AcceptEnded,
    shared: &'static Shared,
) {
    while !retired.load(Ordering::Acquire) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut next = server.try_recv();
        for _ in 0..YIELDS {
            if !matches!(next, Ok(None)) {
                break;
            }
            thread::yield_now();
            next = server.try_recv();
        }
        // What wakes a listener that is retired may have been taken just now.
        if matches!(next, Ok(None)) && !retired.load(Ordering::Acquire) {
            next = server.recv().map(Some);
        }
        loop {
            match next {
                Ok(Some(request)) => batch.push(request),
                Ok(None) => break,
                // The accept loop has ended with this; unless it is the word to look whether we are retired.
                Err(error) => {
                    if !retired.load(Ordering::Acquire) {
                        ended.report(error.to_string());
                    }
                    break;
                }
            }
            if batch.len() == BATCH {
                break;
            }
            next = server.try_recv();
        }
        let entered = shared.connections.enter(batch);
        entered.void.into_iter().for_each(throw_away);
        if let Err(too_many) = shared.pool.begin(entered.now) {
            for (request, client) in too_many {
                contain_panic(|| shared.turn_away(request, client));
            }
        }
    }
}

/// Stops taking connections: once those that wait have been accepted, the accept loop ends, and the kernel refuses
/// newcomers.
pub(super) fn stop_listening(socket: &TcpListener) {
    let last_call = Instant::now() + LAST_CALL;
    while sockets::readable(socket.as_raw_fd(), Duration::ZERO) && Instant::now() < last_call {
        thread::sleep(Duration::from_millis(1));
    }
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        log::error!("cannot stop listening: {error}");
    }
}
