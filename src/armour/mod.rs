//! The armour: what tiny_http needs to face the world.
//!
//! tiny_http is a good teacher of HTTP with threads, and trusts its clients. The armour stands on both sides of it, without a change
//! to it. In front, [`hooks`] accept every connection and receive every byte before tiny_http does, and [`inbound`] gives tiny_http
//! only what does it no harm: whole heads, rewritten so that no rule is left to break, and never a body. Behind, [`connection`] takes
//! the place of [`crate::server::Plain`]: it reads the bodies, and writes the answers, past tiny_http.
//!
//! | what tiny_http 0.12 does | what the armour does | shown by `tests/it` |
//! | --- | --- | --- |
//! | allocates the announced length of an unread body when a request is dropped, and dies of it | keeps bodies from it ([`inbound`]) | `hostile_lengths` |
//! | reads an unread body to its end before it goes on | the same; lets a refused client read why for five seconds ([`connection`]) | `hostile_lengths`, `guard` |
//! | reads bodies, and writes answers, as slowly as the client likes, on the thread that asks | one thread moves all that take long ([`transfer`]), at a minimum rate ([`pace`]), in memory that is reserved | `hostile_slow`, `hostile_overload` |
//! | takes a chunked body that breaks off for a whole one, and chunks that others read differently | reads chunks itself ([`chunks`]) | `http`, `legal` |
//! | closes the connection without a word over a byte above 127 | replaces such bytes ([`head`]) | `legal` |
//! | answers what it cannot read in a form of its own, or not at all | has each fault answered by the server, in its turn ([`inbound`]) | `legal` |
//! | waits for itself over a request line of HTTP/2 or 3 | answers 505 | `hostile_heads`, `guard` |
//! | answers an unknown `Expect` before earlier requests | answers 417 in its turn | `hostile_heads` |
//! | takes heads of any size, any number of headers | answers 414 or 431 | `hostile_heads`, `guard` |
//! | has no timeouts | answers 408 to what comes too slowly ([`connection`]), closes idle connections ([`guard`]) | `guard`, `hostile_slow` |
//! | parses requests ahead without end | holds the thread that reads back ([`connection`]) | `guard`, `http` |
//! | ends its accept loop at the first error | deals with errors itself ([`accept`]), starts another loop ([`acceptor`]) | `connections`, `hostile_descriptors` |
//! | has no limit on connections | limits them, evicts idle ones ([`accept`], [`limits`]) | `connections`, `hostile_descriptors` |
//! | forgets connections that come in a burst | wakes a thread for each ([`accept`]) | `connections` |
//! | tells a request's connection by the client's address only | names the connection in each request's target ([`head`]) | `connections` |
//!
//! # Threads
//!
//! | thread | how many | what it does |
//! | --- | --- | --- |
//! | `acceptor` | one | starts tiny_http's accept loop again when it has ended |
//! | `guard` | one | closes idle connections |
//! | `transfers` | one | reads long bodies, writes long answers, tells the server's streams of their sockets |
//!
//! A process can have one armoured server, since it can have one function `recv`.

mod accept;
mod acceptor;
mod body;
mod chunks;
mod connection;
mod guard;
mod head;
mod hooks;
mod inbound;
mod limits;
mod moving;
mod pace;
mod socket;
mod stream;
mod table;
mod transfer;
mod waiting;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tiny_http::Request;

pub use hooks::{check, prefer_throughput};
pub use limits::{most_connections, raise_descriptor_limit};

use accept::Gate;
use acceptor::Acceptor;
use head::connection_in;
use inbound::Sending;
use transfer::Transfers;

use crate::budget::Budget;
use crate::server::{Closing, Connection, Door, Intake, Monitor, Plain, Timeouts};

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
    pub fn new(
        max_connections: usize,
        timeouts: Timeouts,
        monitor: Arc<Monitor>,
        budget: Arc<Budget>,
    ) -> io::Result<Armour> {
        let transfers = Transfers::start(timeouts, Arc::clone(&monitor), budget)?;
        Ok(Armour {
            gate: Arc::new(Gate::new(max_connections, transfers, Arc::clone(&monitor))),
            monitor,
            timeouts,
        })
    }
}

impl Door for Armour {
    fn open(self: Arc<Self>, socket: TcpListener, intake: Intake) -> io::Result<()> {
        hooks::install(&self.gate)?;
        guard::start(Arc::clone(&self.gate), self.timeouts.idle)?;
        let acceptor = Acceptor {
            socket,
            gate: Arc::clone(&self.gate),
            monitor: Arc::clone(&self.monitor),
            intake,
        };
        acceptor.start()
    }

    fn connection(&self, request: &Request) -> Arc<dyn Connection> {
        let number = connection_in(request.url());
        match number.and_then(|number| self.gate.table.find(number)) {
            Some(connection) => connection,
            // It did not come through our hooks.
            None => Plain.connection(request),
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        Some(self.timeouts.idle)
    }

    fn close_idle(&self) -> bool {
        let idle = self.gate.table.select(|connection| {
            let doing = connection.doing().filter(|_| !connection.has_ended())?;
            let settled = doing.sending == Sending::Nothing && doing.silent >= SETTLED;
            settled.then_some(doing.silent)
        });
        for (connection, silent) in idle {
            if !connection.is_attended() && silent >= UNATTENDED {
                connection.shut_down(Closing::Drained);
            } else {
                connection.shut_down_if_idle(Closing::Drained);
            }
        }
        self.gate.table.len() == 0
    }
}
