//! The armour: what tiny_http needs to face the world.
//!
//! tiny_http is a good teacher of HTTP with threads, and trusts its clients. The armour stands on both sides of it, without a change
//! to it: in front, it sees every connection and every byte before tiny_http does ([`hooks`]); behind, it takes the place of
//! [`crate::server::Plain`] and reads and writes what takes long.
//!
//! | what tiny_http 0.12 does | what the armour does | shown by `tests/it` |
//! | --- | --- | --- |
//! | allocates the announced length of an unread body when a request is dropped, and dies of it | shortens absurd lengths ([`follow`]), skips bodies ([`discard`]) | `hostile_lengths` |
//! | reads an unread body to its end before it goes on | ends the stream, and lets the client read why for five seconds ([`connection`]) | `hostile_lengths`, `guard` |
//! | reads bodies, and writes answers, as slowly as the client likes, on the thread that asks | moves both on bounded sets of threads ([`transfer`], [`crew`]) at a minimum rate ([`pace`]) | `hostile_slow`, `hostile_overload` |
//! | ends its accept loop at the first error | deals with errors itself ([`accept`]), starts another loop ([`acceptor`]) | `connections`, `hostile_descriptors` |
//! | has no limit on connections | limits them, evicts idle ones ([`accept`], [`limits`]) | `connections`, `hostile_descriptors` |
//! | has no timeouts | closes idle connections and heads that do not end ([`guard`]) | `guard`, `hostile_slow` |
//! | takes heads of any size, any number of headers | ends them ([`follow`]) | `hostile_heads`, `guard` |
//! | parses requests ahead without end | holds the thread that reads back ([`connection`]) | `guard`, `http` |
//! | forgets connections that come in a burst | wakes a thread for each ([`accept`]) | `connections` |
//! | takes a chunked body that breaks off for a whole one | notices the end of the stream ([`transfer`]) | `http` |
//! | waits for itself over a request line of HTTP/2 or 3 | ends the connection ([`follow`]) | `hostile_heads`, `guard` |
//! | answers an unknown `Expect` before earlier requests | ends the connection where that would happen ([`follow`]) | `hostile_heads` |
//!
//! # Threads
//!
//! | thread | how many | what it does |
//! | --- | --- | --- |
//! | `acceptor` | one | starts tiny_http's accept loop again when it has ended |
//! | `guard` | one | closes connections on which too little happens |
//! | `transfer-in` | 256 at most | reads bodies that are not there yet |
//! | `transfer-out` | 256 at most | writes answers that are too large for a socket |
//!
//! A process can have one armoured server, since it can have one function `recv`.

mod accept;
mod acceptor;
mod connection;
mod crew;
mod discard;
mod follow;
mod guard;
mod hooks;
mod limits;
mod pace;
mod reading;
mod socket;
mod table;
mod transfer;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tiny_http::Request;

pub use hooks::{check, prefer_throughput};
pub use limits::{most_connections, raise_descriptor_limit};

use accept::Gate;
use acceptor::Acceptor;
use connection::WRITING;
use discard::leak_if_huge;
use follow::Sending;
use transfer::Transfers;

use crate::server::{
    Connection, Door, Intake, Message, Monitor, Outgoing, Plain, Timeouts, Turn, Upload,
};

/// How long a connection must have been silent to be closed when the server drains: time enough for a request that has just been sent
/// to come out of the socket.
const SETTLED: Duration = Duration::from_millis(100);

/// When the server drains, a connection that no thread has read from for so long is given up: there may be no thread for it.
const UNATTENDED: Duration = Duration::from_secs(2);

/// The door of a server that faces the world.
pub struct Armour {
    gate: Arc<Gate>,
    monitor: Arc<Monitor>,
    timeouts: Timeouts,
}

impl Armour {
    /// Lets in `max_connections` at a time, further ones wait in the kernel's queue.
    pub fn new(max_connections: usize, timeouts: Timeouts, monitor: Arc<Monitor>) -> Armour {
        let transfers = Arc::new(Transfers::new(timeouts, Arc::clone(&monitor)));
        Armour {
            gate: Arc::new(Gate::new(max_connections, transfers, Arc::clone(&monitor))),
            monitor,
            timeouts,
        }
    }
}

impl Door for Armour {
    fn open(self: Arc<Self>, socket: TcpListener, intake: Intake) -> io::Result<()> {
        hooks::install(&self.gate)?;
        // Accepted sockets inherit it. It keeps a worker from waiting for a client that does not read.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(WRITING))?;
        guard::start(Arc::clone(&self.gate), self.timeouts)?;
        let acceptor = Acceptor {
            socket,
            gate: Arc::clone(&self.gate),
            monitor: Arc::clone(&self.monitor),
            intake,
        };
        acceptor.start()
    }

    fn connection(&self, request: &Request) -> Arc<dyn Connection> {
        let connection = request.remote_addr().and_then(|it| self.gate.table.of(it));
        match connection {
            Some(connection) => connection,
            None => Arc::new(Unhooked),
        }
    }

    fn close_idle(&self) -> bool {
        let idle = self.gate.table.select(|connection| {
            let doing = connection.doing().filter(|_| !connection.has_ended())?;
            let settled = doing.sending == Sending::Nothing && doing.silent >= SETTLED;
            settled.then_some(doing.silent)
        });
        for (connection, silent) in idle {
            if !connection.is_attended() && silent >= UNATTENDED {
                connection.shut_down();
            } else {
                connection.shut_down_if_idle();
            }
        }
        self.gate.table.len() == 0
    }
}

/// A connection that did not come through our hooks.
struct Unhooked;

impl Connection for Unhooked {
    fn take(&self, request: Request) -> Option<Request> {
        leak_if_huge(request)
    }

    fn receive(self: Arc<Self>, upload: Upload) {
        Arc::new(Plain).receive(upload);
    }

    fn write(self: Arc<Self>, outgoing: Outgoing) {
        Arc::new(Plain).write(outgoing);
    }

    fn reserve(self: Arc<Self>) -> Option<Box<dyn FnOnce(Outgoing) + Send>> {
        Arc::new(Plain).reserve()
    }

    fn refuse(self: Arc<Self>, request: Request, message: Message, turn: Turn) {
        Arc::new(Plain).refuse(request, message, turn);
    }
}
