//! Stands between tiny_http's accept loop and the kernel.
//!
//! That loop takes whatever comes, ends for good at the first error, and hands connections to a set of threads that
//! can forget some of them. Nothing of this can be set from outside, but the loop gets its connections from one
//! function of the C library, `accept4`, and that a program may define itself. Ours
//!
//! * takes no more than `--max-connections`: further clients wait in the kernel's queue, and the connections that have
//!   been idle longest are closed for them;
//! * deals with errors itself, running out of descriptors most of all, and never reports one while the server serves;
//! * sees to it that every connection gets a thread (see [`Newcomers`]);
//! * keeps the list of [`Connections`] for whoever needs to know.
//!
//! Other sockets of the process are accepted as ever.

use std::cmp::Reverse;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, sockaddr, socklen_t};

use super::Shared;
use super::clock::Tick;
use super::connections::Connections;
use super::follow::Sending;
use super::receive::{Doing, Inflow};
use super::sockets::{self, Held, Unread, peer};
use super::transfer::throw_away;

/// How long to wait before looking again for room or for descriptors.
const RETRY: Duration = Duration::from_millis(20);

/// How long a connection must have been idle before it is closed to make room for a newcomer.
const IDLE: Duration = Duration::from_secs(1);

/// The same for a connection that has never been used: its client may still be busy connecting others.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// The part of all connections that may be closed for newcomers at a time.
const EVICTED: usize = 100;

/// How long a request may lie unread in the socket of a new connection before the connection counts as forgotten.
/// Waking a thread takes far less, and the kernel counts this time in steps of up to 10 ms.
const UNREAD: Duration = Duration::from_millis(10);

/// How often to look after new connections, at most, and how small a part of the time may go into looking.
const LOOK: Duration = Duration::from_millis(2);
const LOOKING: u32 = 50;

/// After so long, a connection counts as forgotten even if there seem to be threads enough.
const LONG: Duration = Duration::from_millis(200);

/// The most stand-ins between two looks. Each takes two descriptors while it lasts.
const STAND_INS: usize = 32;

/// After so long, whatever was tried for it has not helped, and the client had better know.
const LOST: Duration = Duration::from_secs(10);

/// The pause between looks grows up to this while nothing changes: clients that connect and say nothing are many.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long an earlier connection from the same address and port may take to end. Nobody is accepted meanwhile.
const EARLIER: Duration = Duration::from_millis(1);

/// Threads that start after the gate has counted: tiny_http's accept loop, its listener, and the acceptor.
const LATER_THREADS: usize = 3;

/// The gate of the one server that a process can have.
static GATE: OnceLock<Arc<Gate>> = OnceLock::new();

/// Takes the place of the C library's `accept4` in this program; see there for what it does.
///
/// # Safety
///
/// As the C library's: `address` and `length` are null, or point to that much space.
#[expect(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    listener: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let from_kernel = || {
        // SAFETY: the caller's arguments, handed on as they are.
        unsafe { libc::syscall(libc::SYS_accept4, listener, address, length, flags) as c_int }
    };
    match GATE.get() {
        Some(gate) if gate.is_at(listener) => match gate.next(listener, from_kernel) {
            Next::Accepted(connection) => connection,
            Next::Stand(stand_in) => {
                // SAFETY: as above. The caller wants some address, and our own is a valid one.
                unsafe { libc::getsockname(listener, address, length) };
                stand_in
            }
        },
        _ => from_kernel(),
    }
}

/// The connections of the server, if there is one.
pub(super) fn connections() -> Option<&'static Connections> {
    GATE.get().map(|gate| &*gate.shared.connections)
}

/// What tiny_http is given.
enum Next {
    /// What the kernel answered: a connection, or -1 and an error.
    Accepted(c_int),
    /// A connection without a client, for the sake of the thread that it gets.
    Stand(RawFd),
}

/// Lets clients in.
pub(super) struct Gate {
    /// The descriptor that tiny_http accepts on now.
    listener: AtomicI32,
    max_connections: usize,
    shared: &'static Shared,
    /// Held by the accept thread, while it waits for clients too; by the acceptor only when no accept loop runs.
    newcomers: Mutex<Newcomers>,
}

impl Gate {
    /// Puts the gate in place, before tiny_http starts its threads. There can be one server in a process.
    pub(super) fn install(
        max_connections: usize,
        shared: &'static Shared,
    ) -> io::Result<Arc<Gate>> {
        let gate = Arc::new(Gate {
            listener: AtomicI32::new(-1),
            max_connections,
            shared,
            newcomers: Mutex::new(Newcomers {
                own_threads: threads() + LATER_THREADS,
                ..Newcomers::default()
            }),
        });
        GATE.set(Arc::clone(&gate))
            .map_err(|_| io::Error::other("another server runs in this process"))?;
        Ok(gate)
    }

    /// From now on, tiny_http accepts on this descriptor. If it did so on another one, that has come to its end.
    pub(super) fn stand_at(&self, listener: RawFd) {
        self.newcomers().give_up();
        self.listener.store(listener, Ordering::Release);
    }

    fn newcomers(&self) -> MutexGuard<'_, Newcomers> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_at(&self, listener: c_int) -> bool {
        self.listener.load(Ordering::Acquire) == listener
    }

    /// Waits for the next connection that tiny_http may have.
    fn next(&self, listener: RawFd, from_kernel: impl Fn() -> c_int) -> Next {
        let mut newcomers = self.newcomers();
        loop {
            if newcomers.any_forgotten(&self.shared.connections) {
                match stand_in() {
                    Ok(stand_in) => return Next::Stand(stand_in),
                    Err(error) => log::error!("cannot wake a connection's thread: {error}"),
                }
            }
            if self.is_full() {
                if sockets::readable(listener, Duration::ZERO) {
                    self.evict();
                }
                thread::sleep(newcomers.next_look().map_or(RETRY, |look| RETRY.min(look)));
                continue;
            }
            // With nobody to look after, accepting may wait as long as it likes.
            if newcomers
                .next_look()
                .is_some_and(|look| !sockets::readable(listener, look))
            {
                continue;
            }
            let accepted = from_kernel();
            if accepted >= 0 {
                let Some(peer) = peer(accepted) else {
                    // It has been reset already. tiny_http would keep its descriptors until a thread looks at it.
                    sockets::close(accepted);
                    continue;
                };
                if !self.await_end_of_earlier(&peer) {
                    sockets::close(accepted);
                    continue;
                }
                let (inflow, void) = self.shared.connections.insert(peer, accepted);
                void.into_iter().for_each(throw_away);
                newcomers.add(peer, accepted, inflow);
                return Next::Accepted(accepted);
            }
            let error = io::Error::last_os_error();
            if self.shared.is_draining() || error.kind() == io::ErrorKind::Interrupted {
                return Next::Accepted(accepted); // the caller looks at the error, which is still there
            }
            log::warn!("cannot accept a connection, trying again: {error}");
            thread::sleep(RETRY);
        }
    }

    /// A request only tells its client's address. Where a client that has broken off comes back from the same port, a
    /// request of its earlier connection could be answered on the new one. So the earlier one must have ended first. Says
    /// whether it has, soon enough.
    fn await_end_of_earlier(&self, client: &SocketAddr) -> bool {
        let deadline = Instant::now() + EARLIER;
        while self.shared.connections.has_earlier(client) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(EARLIER / 10);
        }
        true
    }

    /// Whether there are as many connections as allowed.
    fn is_full(&self) -> bool {
        let (connections, most) = (&self.shared.connections, self.max_connections);
        !self.shared.is_draining() && connections.len() >= most && connections.prune() >= most
    }

    /// Closes connections that have been idle longest, for the sake of clients that wait.
    fn evict(&self) {
        let idle_for = |doing: Doing, rested: Tick| {
            let least = if doing.is_new { FIRST_REQUEST } else { IDLE };
            let idle_for = doing.last.max(rested).ago();
            let idle = doing.sending == Sending::Nothing && !doing.waits;
            (idle && idle_for >= least).then_some(idle_for)
        };
        let mut idle = self.shared.connections.select(idle_for);
        idle.sort_by_key(|(_, idle_for)| Reverse(*idle_for));
        for (listed, _) in idle.iter().take((self.max_connections / EVICTED).max(1)) {
            listed.close_unless_unread();
        }
    }
}

/// New connections, until a thread has been seen to read from them.
///
/// tiny_http gives a connection to an idle thread, if it counts one, and else to a new thread. It goes on counting an
/// idle thread until that has woken up, and gives it further connections meanwhile; these then wait until the first
/// one ends, which may be never. All a forgotten connection needs is a thread that comes by: tiny_http's threads take
/// the next one when they are done. So tiny_http is given a connection that has ended already, and the thread which
/// that gets looks after the forgotten one.
#[derive(Default)]
struct Newcomers {
    waiting: Vec<Newcomer>,
    /// How many stand-ins are still to be given, after a look that found so many connections forgotten.
    owed: usize,
    /// When to look again.
    due: Option<Instant>,
    /// Looking costs time for each new connection, and shall not cost much of it: not before then, whatever comes in.
    not_before: Option<Instant>,
    /// How long to wait then, if nothing has come in: longer each time.
    pause: Duration,
    /// How many threads the process has that are not tiny_http's for connections.
    own_threads: usize,
}

/// A connection that no thread has been seen to read from.
struct Newcomer {
    client: SocketAddr,
    fd: RawFd,
    /// What tells whether the descriptor still means this connection, also once its client has gone.
    cookie: Option<u64>,
    inflow: Arc<Inflow>,
    accepted: Instant,
}

impl Newcomer {
    /// Whether a thread should have come to read from it.
    fn unread(&self) -> Unread {
        if self.inflow.is_attended() {
            return Unread::Read;
        }
        match sockets::unread(self.fd, self.client) {
            // Its client has reset it. Its descriptors are there until a thread has come.
            Unread::Read if self.cookie.is_some() && sockets::cookie(self.fd) == self.cookie => {
                Unread::For(self.accepted.elapsed())
            }
            unread => unread,
        }
    }
}

impl Newcomers {
    fn add(&mut self, client: SocketAddr, fd: RawFd, inflow: Arc<Inflow>) {
        self.waiting.push(Newcomer {
            client,
            fd,
            cookie: sockets::cookie(fd),
            inflow,
            accepted: Instant::now(),
        });
        self.pause = LOOK;
        let soon = Some(Instant::now() + LOOK).max(self.not_before);
        self.due = if self.due.is_some() {
            self.due.min(soon)
        } else {
            soon
        };
    }

    /// The accept loop that has let them in has ended, and its set of threads with it. Those that have no thread by now would
    /// wait for one for good. Their descriptors stay until the last thread of that set has ended.
    fn give_up(&mut self) {
        for newcomer in self.waiting.drain(..) {
            if !newcomer.inflow.is_attended()
                && let Some(held) = Held::new(newcomer.fd, newcomer.client)
            {
                held.shut_down();
            }
        }
        *self = Newcomers {
            own_threads: self.own_threads,
            ..Newcomers::default()
        };
    }

    /// Whether a connection is known to be forgotten; counts as taken care of from then on.
    fn any_forgotten(&mut self, connections: &Connections) -> bool {
        let started = Instant::now();
        if self.owed == 0 && self.due.is_some_and(|due| started >= due) {
            self.look(connections);
            let ended = Instant::now();
            self.not_before = Some(ended + (ended - started) * LOOKING);
            let pause = if self.owed > 0 { UNREAD } else { self.pause };
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            let due = Some(ended + pause).max(self.not_before);
            self.due = due.filter(|_| !self.waiting.is_empty());
        }
        let any = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        any
    }

    fn look(&mut self, connections: &Connections) {
        let (mut unread, mut long) = (0, 0);
        self.waiting.retain(|newcomer| match newcomer.unread() {
            Unread::Never => true,
            // Its thread will not come, whatever was tried.
            Unread::For(time) if time >= LOST => {
                sockets::shut_down(newcomer.fd);
                false
            }
            Unread::For(time) => {
                self.pause = LOOK; // it is not over yet
                unread += usize::from(time >= UNREAD);
                long += usize::from(time >= LONG);
                true
            }
            Unread::Read => false,
        });
        if unread > 0 {
            // Where there is a thread for each connection, all they need is processor time.
            let threads = threads().saturating_sub(self.own_threads);
            let missing = connections.prune().saturating_sub(threads);
            self.owed = unread.min(missing.max(long)).min(STAND_INS);
        }
    }

    /// How long there is nothing to look after; `None` when there is no new connection.
    fn next_look(&self) -> Option<Duration> {
        self.due
            .map(|due| due.saturating_duration_since(Instant::now()))
    }
}

/// How many threads the process has: the directory that lists them has a link for each, and two as every directory.
fn threads() -> usize {
    std::fs::metadata("/proc/self/task")
        .map_or(0, |task| task.st_nlink().saturating_sub(2) as usize)
}

/// A connection that has ended before it began.
fn stand_in() -> io::Result<RawFd> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.into_raw_fd())
}
