//! The gate: stands between tiny_http's accept loop and the kernel.
//!
//! That loop takes whatever comes, ends for good at the first error, and hands connections to threads that can forget some of them.
//! The gate
//!
//! * keeps to `--max-connections`: further clients wait in the kernel's queue, and the connections that have been idle longest are
//!   closed for them;
//! * deals with errors itself, running out of descriptors most of all, and reports none while the server serves;
//! * wakes a thread for each connection that tiny_http has forgotten.
//!
//! tiny_http gives a connection to an idle thread, if it counts one, and else to a new thread. It goes on counting an idle thread
//! until that has woken up, and gives it further connections meanwhile. These then wait until the first one ends, which may be never.
//! A forgotten connection only needs a thread that comes by, and tiny_http's threads take the next connection when they are done. So
//! the gate gives tiny_http a stand-in: a connection that has ended already. The thread that gets it looks after the forgotten one.

use std::cmp::Reverse;
use std::io;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_int;

use super::connection::{Connection, Doing};
use super::hooks::{borrow, close, peer};
use super::inbound::Sending;
use super::socket::cookie;
use super::table::Table;
use super::transfer::Transfers;
use crate::server::{Closing, Monitor, readable};

/// Pause between retries after `EMFILE` or at the connection limit.
const RETRY: Duration = Duration::from_millis(20);

/// How often it is looked whether a server stops that leaves its socket to others. Nothing else ends the wait for a connection then.
const LOOK: Duration = Duration::from_secs(1);

/// A connection must have been idle for so long to be closed for a newcomer.
const IDLE: Duration = Duration::from_secs(1);

/// The same for a connection that has never been used: its client may still be busy connecting others.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// At most this fraction of all connections is evicted per pass: one in so many.
const EVICTED: usize = 100;

/// A new connection from which no thread has read for so long counts as forgotten. Waking a thread takes far less. Also the pause
/// between two looks for them.
const FORGOTTEN: Duration = Duration::from_millis(20);

/// The most stand-ins per look. Each takes two descriptors while it lasts.
const STAND_INS: usize = 32;

/// A connection that is still forgotten after so long is closed, so that its client knows.
const LOST: Duration = Duration::from_secs(10);

/// What tiny_http's accept loop is given.
pub(super) enum Accepted {
    /// What the kernel answered: a connection, or -1 and an error.
    FromKernel(c_int),
    /// A connection without a client, for the thread that it gets.
    StandIn(RawFd),
}

/// Lets clients in.
pub(super) struct Gate {
    /// The descriptor that tiny_http accepts on now. Held to read or to replace it.
    listener: Mutex<Option<RawFd>>,
    max_connections: usize,
    pub(super) table: Table,
    transfers: Arc<Transfers>,
    monitor: Arc<Monitor>,
    /// Held by the accept thread, while it waits for clients too; by the acceptor only when no accept loop runs.
    newcomers: Mutex<Newcomers>,
}

impl Gate {
    pub(super) fn new(
        max_connections: usize,
        transfers: Arc<Transfers>,
        monitor: Arc<Monitor>,
    ) -> Gate {
        Gate {
            listener: Mutex::new(None),
            max_connections,
            table: Table::new(Arc::clone(&monitor)),
            transfers,
            monitor,
            newcomers: Mutex::default(),
        }
    }

    /// From now on, tiny_http accepts on this descriptor. If it did so on another one, that has come to its end, and its threads with
    /// it: connections that have none by now would wait for one for good.
    pub(super) fn stand_at(&self, listener: RawFd) {
        let mut newcomers = self.newcomers();
        for newcomer in newcomers.waiting.drain(..) {
            if !newcomer.is_attended() {
                newcomer.shut_down(Closing::Lost);
            }
            // tiny_http may have dropped it without a word.
            if newcomer.hold().is_none() {
                self.table.remove(&newcomer);
            }
        }
        *newcomers = Newcomers::default();
        *self.listener() = Some(listener);
    }

    pub(super) fn is_at(&self, listener: c_int) -> bool {
        *self.listener() == Some(listener)
    }

    fn listener(&self) -> MutexGuard<'_, Option<RawFd>> {
        let listener = self.listener.lock();
        listener.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next connection that tiny_http may have.
    pub(super) fn accept(&self, listener: RawFd, from_kernel: impl Fn() -> c_int) -> Accepted {
        let mut newcomers = self.newcomers();
        loop {
            if newcomers.any_forgotten() {
                match stand_in() {
                    Ok(stand_in) => return Accepted::StandIn(stand_in),
                    Err(error) => log::error!("cannot wake a connection's thread: {error}"),
                }
            }
            if self.monitor.shares_socket() {
                while self.monitor.is_draining() {
                    thread::park(); // until the process ends: others accept what comes now
                }
                if !readable(&borrow(listener), LOOK) || self.monitor.is_draining() {
                    continue;
                }
            }
            if !self.monitor.is_draining() && self.table.len() >= self.max_connections {
                if readable(&borrow(listener), Duration::ZERO) {
                    self.evict();
                }
                thread::sleep(RETRY);
                continue;
            }
            // With nobody to look after, accepting may wait as long as it likes.
            if !newcomers.waiting.is_empty() && !readable(&borrow(listener), FORGOTTEN) {
                continue;
            }
            let accepted = from_kernel();
            if accepted >= 0 {
                match self.admit(accepted) {
                    Some(connection) => newcomers.add(connection),
                    None => {
                        close(accepted);
                        continue;
                    }
                }
                return Accepted::FromKernel(accepted);
            }
            let error = io::Error::last_os_error();
            if self.monitor.is_draining() || error.kind() == io::ErrorKind::Interrupted {
                return Accepted::FromKernel(accepted); // the caller looks at the error, which is still there
            }
            log::warn!("cannot accept a connection, trying again: {error}");
            thread::sleep(RETRY);
        }
    }

    /// Enters a connection in the table; `None` if it is to be closed at once.
    fn admit(&self, accepted: RawFd) -> Option<Arc<Connection>> {
        // One that has been reset already would keep its descriptors until a thread looks at it.
        let (client, cookie) = (peer(accepted)?, cookie(accepted)?);
        let connection = Connection::new(client, accepted, cookie, &self.transfers);
        let connection = Arc::new(connection);
        self.table.insert(&connection);
        Some(connection)
    }

    /// Closes connections that have been idle longest, for clients that wait.
    fn evict(&self) {
        let idle_for = |connection: &Connection| {
            let Doing {
                sending,
                silent,
                is_new,
                ..
            } = connection.doing().filter(|_| !connection.has_ended())?;
            let least = if is_new { FIRST_REQUEST } else { IDLE };
            (sending == Sending::Nothing && silent >= least).then_some(silent)
        };
        let mut idle = self.table.select(idle_for);
        idle.sort_by_key(|(_, idle_for)| Reverse(*idle_for));
        for (connection, _) in idle.iter().take((self.max_connections / EVICTED).max(1)) {
            connection.shut_down_if_idle(Closing::Evicted);
        }
    }

    fn newcomers(&self) -> MutexGuard<'_, Newcomers> {
        let newcomers = self.newcomers.lock();
        newcomers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// New connections, until a thread has read from them.
#[derive(Default)]
struct Newcomers {
    waiting: Vec<Arc<Connection>>,
    /// How many stand-ins are still to be given, after a look that found so many connections forgotten.
    owed: usize,
    /// When they were looked at last.
    looked: Option<Instant>,
}

impl Newcomers {
    fn add(&mut self, connection: Arc<Connection>) {
        self.waiting.push(connection);
        self.looked.get_or_insert_with(Instant::now);
    }

    /// Whether a connection is forgotten. It counts as taken care of from then on, until the next look.
    fn any_forgotten(&mut self) -> bool {
        if self.owed == 0 && self.looked.is_some_and(|it| it.elapsed() >= FORGOTTEN) {
            self.look();
        }
        let any = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        any
    }

    fn look(&mut self) {
        let mut forgotten = 0;
        self.waiting.retain(|newcomer| {
            let age = newcomer.accepted.elapsed();
            if age >= LOST && !newcomer.is_attended() {
                newcomer.shut_down(Closing::Lost);
            }
            forgotten += usize::from(age >= FORGOTTEN && !newcomer.is_attended());
            !newcomer.is_attended() && age < LOST
        });
        self.owed = forgotten.min(STAND_INS);
        self.looked = (!self.waiting.is_empty()).then(Instant::now);
    }
}

/// A connection that has ended before it began.
fn stand_in() -> io::Result<RawFd> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.into_raw_fd())
}
