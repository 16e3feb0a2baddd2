//! One connection: what its client sends, what it is owed, and how its bodies and answers are moved.
//!
//! Three kinds of threads meet here. tiny_http's thread reads heads and waits while it must not read on. Workers take requests up and
//! write answers. The transfer thread moves what takes long.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::hooks::borrow;
use super::inbound::{Inbound, Sending};
use super::socket::{self, DirectWriter, Held};
use super::transfer::Transfers;
use super::waiting::{AHEAD, AHEAD_BYTES};
use crate::memory;
use crate::server::Closing;

/// How long a client may send on after its last answer: the rest of a refused body, say, while it reads why it was refused.
const FAREWELL: Duration = Duration::from_secs(5);

/// The most clients that may do so at a time; others are closed at once. Each takes a descriptor.
const FAREWELLS: usize = 256;

/// How much later than that the guard closes the connection.
const LATE: Duration = Duration::from_secs(1);

/// About what tiny_http and we allocate for a connection.
const BYTES: usize = 16 * 1024;

/// A connection that was accepted and has not been closed.
pub(super) struct Connection {
    pub(super) client: SocketAddr,
    /// The descriptor that it was accepted as. tiny_http writes to it, and duplicates it to read. It stays open as long as a request of
    /// the connection, or its writer, is there.
    fd: RawFd,
    /// The kernel's name for the socket.
    pub(super) cookie: u64,
    pub(super) accepted: Instant,
    /// Whether a thread has come to read from it.
    attended: AtomicBool,
    /// Whether all reads from it return the end of the stream. Changed under the lock.
    ended: AtomicBool,
    /// Why we have closed it, if we have.
    closing: OnceLock<Closing>,
    /// Held for as long as it takes to look at some bytes. No other lock is taken under it.
    progress: Mutex<Progress>,
    /// Notified when tiny_http's thread, which is held back, may go on.
    changed: Condvar,
    transfers: Arc<Transfers>,
}

struct Progress {
    inbound: Inbound,
    /// How many requests have been answered.
    answered: u64,
    /// Whether tiny_http's thread is held back.
    waits: bool,
    /// Since when the client is sending what it is sending.
    since: Instant,
    /// When the client last sent something or was answered.
    last: Instant,
    farewell: Option<Farewell>,
    /// Since when its requests do not count any more.
    voided: Option<Instant>,
    /// Whether tiny_http is done with the half that reads, and with the half that writes.
    closed: [bool; 2],
}

/// A client that has got its last answer and may send on, held so that it gets to read the answer.
struct Farewell {
    held: Held,
    transfers: Arc<Transfers>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.transfers.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a client is doing.
pub(super) struct Doing {
    pub(super) sending: Sending,
    /// How long ago it last sent something or was answered.
    pub(super) silent: Duration,
    /// Whether it has never sent a request.
    pub(super) is_new: bool,
}

impl Connection {
    /// A connection that has just been accepted.
    pub(super) fn new(
        client: SocketAddr,
        fd: RawFd,
        cookie: u64,
        transfers: &Arc<Transfers>,
    ) -> Connection {
        let now = Instant::now();
        Connection {
            client,
            fd,
            cookie,
            accepted: now,
            attended: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            closing: OnceLock::new(),
            progress: Mutex::new(Progress {
                inbound: Inbound::new(cookie, &transfers.budget),
                answered: 0,
                waits: false,
                since: now,
                last: now,
                farewell: None,
                voided: None,
                closed: [false; 2],
            }),
            changed: Condvar::new(),
            transfers: Arc::clone(transfers),
        }
    }

    /// A thread has come to read from it.
    pub(super) fn attend(&self) {
        self.attended.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn end(&self, progress: &Progress) {
        self.ended.store(true, Ordering::Release);
        if progress.waits {
            self.changed.notify_all();
        }
    }

    /// Makes all reads return the end of the stream, and requests that have been read not count any more.
    fn void(&self, progress: &mut Progress) {
        progress.voided.get_or_insert_with(Instant::now);
        self.end(progress);
    }

    /// Whether it should be closed by now: tiny_http's thread may be waiting for bytes that never come.
    pub(super) fn lingers(&self) -> bool {
        let voided = self.lock().voided;
        voided.is_some_and(|voided| voided.elapsed() > FAREWELL + LATE)
    }

    /// What the client is doing; `None` while a request of it is under way.
    pub(super) fn doing(&self) -> Option<Doing> {
        let progress = self.lock();
        (progress.owed() == 0).then(|| Doing {
            sending: progress.inbound.sending(),
            silent: progress.last.elapsed(),
            is_new: progress.inbound.requests() == 0,
        })
    }

    /// A request has been answered.
    fn count_answer(&self) {
        let mut progress = self.lock();
        progress.answered += 1;
        progress.last = Instant::now();
        self.wake(&progress);
    }

    /// Wakes tiny_http's thread if it may go on. Not for each answer: only when half of what was too much has been answered.
    fn wake(&self, progress: &Progress) {
        let goes_on = progress.inbound.is_ready() || progress.owed() == 0;
        if progress.waits && (goes_on || !progress.holds_back(AHEAD / 2)) {
            self.changed.notify_all();
        }
    }

    /// Says that nothing more comes, and lets the client send on for a while, unless too many others do, or there is no descriptor of our
    /// own to hold it by: tiny_http's may come to mean another connection.
    fn farewell(&self) -> Option<Farewell> {
        let held = self.hold().filter(Held::is_own)?;
        held.shut_down_write();
        let transfers = Arc::clone(&self.transfers);
        let others = transfers.farewells.fetch_add(1, Ordering::Relaxed);
        let farewell = Farewell { held, transfers };
        (others < FAREWELLS).then_some(farewell)
    }

    /// Holds the socket, if it is still open.
    pub(super) fn hold(&self) -> Option<Held> {
        Held::new(self.fd, self.cookie)
    }

    /// The way to the client, for whoever has a request of the connection, or its writer.
    pub(super) fn socket(&self) -> DirectWriter<'_> {
        DirectWriter::new(borrow(self.fd))
    }

    /// Closes the connection: tiny_http's thread reads the end of the stream, and lets go of it. The first reason counts.
    pub(super) fn shut_down(&self, closing: Closing) {
        let _ = self.closing.set(closing);
        self.void(&mut self.lock());
        if let Some(held) = self.hold() {
            held.shut_down();
        }
    }

    /// The same, unless the client has begun a request meanwhile: its bytes may be unread, or just have been read.
    pub(super) fn shut_down_if_idle(&self, closing: Closing) {
        if socket::has_unread(self.fd) {
            return;
        }
        let mut progress = self.lock();
        if progress.owed() > 0 || progress.inbound.sending() != Sending::Nothing {
            return;
        }
        // Under the lock: what is read from now on was sent to a connection that was closing.
        let _ = self.closing.set(closing);
        self.void(&mut progress);
        drop(progress);
        self.shut_down(closing);
    }

    /// Why it has been closed.
    pub(super) fn closing(&self) -> Closing {
        self.closing.get().copied().unwrap_or(Closing::Ended)
    }

    pub(super) fn transfers(&self) -> &Arc<Transfers> {
        &self.transfers
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing under this lock panics half way through a change.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// How many requests have not been answered.
    fn owed(&self) -> u64 {
        self.inbound.requests().saturating_sub(self.answered)
    }

    /// Whether tiny_http must not read on: others read a body, or a refused request is to be answered, or so many requests are waiting,
    /// or so many bytes of them.
    fn holds_back(&self, requests: usize) -> bool {
        let owed = self.owed();
        self.inbound.is_in_body()
            || owed >= requests as u64
            || owed > 0 && (self.inbound.has_ended() || self.inbound.waiting_bytes() >= AHEAD_BYTES)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        memory::freed(BYTES);
    }
}

mod reading;
mod serving;
#[cfg(test)]
mod tests;
