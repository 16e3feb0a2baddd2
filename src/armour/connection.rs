//! One connection: what its client sends, what it is owed, and how its bodies and answers are moved.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tiny_http::Request;

use super::discard::{discard, throw_away};
use super::follow::{Follower, HEAD_BYTES, Sending};
use super::socket::{self, Held};
use super::transfer::{self, Transfers};
use crate::memory;
use crate::server::{self, Message, Outgoing, Turn, Upload};

/// The most requests of one client that wait for the one under way. tiny_http parses 1 KiB at a time, so there can be some more. Each
/// takes 2 or 3 kB.
const AHEAD: u64 = 32;

/// The most bytes of such requests.
const AHEAD_BYTES: usize = HEAD_BYTES;

/// How long a write to a client waits for room in the socket before the writer does something else.
pub(super) const WRITING: Duration = Duration::from_millis(10);

/// How long a refused client may send the rest of its body, and read why it was refused.
const FAREWELL: Duration = Duration::from_secs(5);

/// The most refused clients that may do so at a time; others are closed at once. Each takes a descriptor.
const FAREWELLS: usize = 256;

/// How much later than that the guard closes the connection.
const LATE: Duration = Duration::from_secs(1);

/// About what tiny_http and we allocate for a connection.
const BYTES: usize = 16 * 1024;

/// A connection that was accepted and has not been closed.
pub(super) struct Connection {
    pub(super) client: SocketAddr,
    /// The descriptor that it was accepted as. tiny_http writes to it, and duplicates it to read.
    fd: RawFd,
    /// The kernel's name for the socket.
    pub(super) cookie: u64,
    pub(super) accepted: Instant,
    /// Whether a thread has come to read from it.
    attended: AtomicBool,
    /// Whether all reads from it return the end of the stream.
    ended: AtomicBool,
    /// Whether requests that were read from it do not count any more.
    void: AtomicBool,
    /// Whether so many requests are waiting, or so many bytes of them, that no more should be read.
    is_ahead: AtomicBool,
    /// Held for as long as it takes to look at some bytes. No other lock is taken under it.
    progress: Mutex<Progress>,
    /// Notified when a thread that is held back may read again.
    answered: Condvar,
    transfers: Arc<Transfers>,
}

struct Progress {
    follower: Follower,
    /// How many requests have been answered.
    answered: u64,
    /// Bytes read since the client was last owed nothing.
    ahead: usize,
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

/// A client that was refused while its body was still coming, held so that it gets to read the answer.
struct Farewell {
    held: Held,
    transfers: Arc<Transfers>,
}

impl Farewell {
    /// `None` if there are too many already, or if the descriptor may come to mean another connection.
    fn new(held: Held, transfers: &Arc<Transfers>) -> Option<Farewell> {
        let others = transfers.farewells.fetch_add(1, Ordering::Relaxed);
        let transfers = Arc::clone(transfers);
        let farewell = Farewell { held, transfers };
        (others < FAREWELLS && farewell.held.is_own()).then_some(farewell)
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.transfers.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a client is doing.
pub(super) struct Doing {
    pub(super) sending: Sending,
    /// For how long.
    pub(super) since: Duration,
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
            void: AtomicBool::new(false),
            is_ahead: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                follower: Follower::new(),
                answered: 0,
                ahead: 0,
                since: now,
                last: now,
                farewell: None,
                voided: None,
                closed: [false; 2],
            }),
            answered: Condvar::new(),
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

    /// Makes all reads return the end of the stream.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(self.lock());
        self.answered.notify_all();
    }

    /// Ends it, and makes requests that have been read from it not count any more.
    fn void(&self) {
        self.void.store(true, Ordering::SeqCst);
        self.lock().voided.get_or_insert_with(Instant::now);
        self.end();
    }

    /// Whether it should be closed by now: tiny_http's thread may be waiting for bytes that never come.
    pub(super) fn lingers(&self) -> bool {
        let voided = self.lock().voided;
        voided.is_some_and(|voided| voided.elapsed() > FAREWELL + LATE)
    }

    fn is_void(&self) -> bool {
        self.void.load(Ordering::SeqCst)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// What the client is doing; `None` while a request of it is under way.
    pub(super) fn doing(&self) -> Option<Doing> {
        let progress = self.lock();
        (progress.owed() == 0).then(|| Doing {
            sending: progress.follower.sending(),
            since: progress.since.elapsed(),
            silent: progress.last.elapsed(),
            is_new: progress.follower.requests() == 0,
        })
    }

    /// Holds the thread that reads back while too many requests of the client are waiting, so that more of them stay in the client's
    /// own buffers.
    pub(super) fn before_reading(&self) {
        if !self.is_ahead.load(Ordering::Relaxed) {
            return;
        }
        let wait = |_: &mut Progress| self.is_ahead.load(Ordering::Relaxed) && !self.has_ended();
        drop(self.answered.wait_while(self.lock(), wait));
    }

    /// Notes what has been received. Returns how much of it may be used.
    pub(super) fn follow(&self, bytes: &mut [u8]) -> usize {
        let mut progress = self.lock();
        let progress = &mut *progress;
        let before = (progress.follower.sending(), progress.follower.requests());
        let usable = progress.follower.follow(bytes, progress.answered);
        progress.last = Instant::now();
        let goes_on = before.0.is_same_kind(progress.follower.sending());
        if !goes_on || progress.follower.requests() != before.1 {
            progress.since = progress.last;
        }
        progress.ahead += bytes.len();
        if progress.is_ahead(AHEAD) {
            self.is_ahead.store(true, Ordering::Relaxed);
        }
        if usable < bytes.len() {
            self.ended.store(true, Ordering::SeqCst);
        }
        usable
    }

    /// A request has been answered.
    pub(super) fn count_answer(&self) {
        let mut progress = self.lock();
        progress.answered += 1;
        progress.last = Instant::now();
        if progress.owed() == 0 {
            progress.ahead = 0;
        }
        if self.is_ahead.load(Ordering::Relaxed) && !progress.is_ahead(AHEAD / 2) {
            self.is_ahead.store(false, Ordering::Relaxed);
            self.answered.notify_all();
        }
    }

    /// Holds the socket, if it is still open.
    pub(super) fn hold(&self) -> Option<Held> {
        Held::new(self.fd, self.cookie)
    }

    /// Closes the connection: tiny_http's thread reads the end of the stream, and lets go of it.
    pub(super) fn shut_down(&self) {
        self.void();
        if let Some(held) = self.hold() {
            held.shut_down();
        }
    }

    /// The same, unless the client has begun a request meanwhile: its bytes may be unread, or just have been read.
    pub(super) fn shut_down_if_idle(&self) {
        if socket::has_unread(self.fd) {
            return;
        }
        let progress = self.lock();
        if progress.owed() > 0 || progress.follower.sending() != Sending::Nothing {
            return;
        }
        // Under the lock: what is read from now on was sent to a connection that was closing.
        self.void.store(true, Ordering::SeqCst);
        drop(progress);
        self.shut_down();
    }

    /// tiny_http is about to close one of its two descriptors. Returns whether that was the second one.
    ///
    /// A client that was refused may send on for a while first. tiny_http's thread, which closes the half that reads, has nothing else
    /// to do.
    pub(super) fn close_half(&self, reads: bool) -> bool {
        self.end();
        let mut progress = self.lock();
        if let Some(farewell) = progress.farewell.take_if(|_| reads) {
            drop(progress);
            discard(&farewell.held, FAREWELL);
            drop(farewell);
            progress = self.lock();
        }
        progress.closed[usize::from(reads)] = true;
        progress.closed == [true; 2]
    }

    /// Ends the connection in the middle of a request.
    pub(super) fn abandon(&self, request: Option<Request>) {
        self.shut_down();
        request.into_iter().for_each(throw_away);
    }

    /// A write by a worker or by a transfer thread has ended.
    pub(super) fn finish(&self, written: io::Result<()>, turn: Turn) {
        match written {
            Ok(()) => self.count_answer(),
            Err(error) => {
                log::debug!(
                    "{}: the client did not take the answer: {error}",
                    self.client
                );
                if let Some(held) = self.hold() {
                    held.forget_unsent();
                }
                self.abandon(None);
            }
        }
        drop(turn);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing under this lock panics half way through a change.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// How many requests have not been answered.
    fn owed(&self) -> u64 {
        self.follower.requests().saturating_sub(self.answered)
    }

    /// Whether so many requests are waiting, or so many bytes of them, that no more should be read.
    fn is_ahead(&self, requests: u64) -> bool {
        let owed = self.owed();
        owed >= requests || owed > 0 && self.ahead >= AHEAD_BYTES
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        memory::freed(BYTES);
    }
}

impl server::Connection for Connection {
    fn take(&self, request: Request) -> Option<Request> {
        if self.is_void() {
            throw_away(request);
            return None;
        }
        Some(request)
    }

    fn receive(self: Arc<Self>, upload: Upload) {
        transfer::receive(&Arc::clone(&self.transfers), self, upload);
    }

    fn write(self: Arc<Self>, mut outgoing: Outgoing) {
        match outgoing.message.write_all(&mut outgoing.writer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match Arc::clone(&self).reserve() {
                    Some(write) => write(outgoing),
                    // The client has a part of the answer, so nothing else can be said.
                    None => {
                        drop(outgoing.writer);
                        self.finish(Err(error), outgoing.turn);
                    }
                }
            }
            written => {
                drop(outgoing.writer);
                self.finish(written, outgoing.turn);
            }
        }
    }

    fn reserve(self: Arc<Self>) -> Option<Box<dyn FnOnce(Outgoing) + Send>> {
        let transfers = Arc::clone(&self.transfers);
        transfer::reserve(&transfers, self)
    }

    fn refuse(self: Arc<Self>, request: Request, mut message: Message, turn: Turn) {
        // All answers before this one have been written, so it may go past tiny_http. As a rule the socket takes it at once.
        let held = self.hold();
        let told = held.filter(|mut held| message.write_all(&mut held).is_ok());
        let farewell = told.and_then(|held| {
            held.shut_down_write();
            Farewell::new(held, &self.transfers)
        });
        match farewell {
            Some(farewell) => {
                let mut progress = self.lock();
                progress.farewell = Some(farewell).filter(|_| !progress.closed[1]);
                drop(progress);
                self.void();
            }
            None => self.shut_down(),
        }
        // Now tiny_http's thread gets to read the end of the stream, and lets go of the connection.
        throw_away(request);
        drop(turn);
    }
}

#[cfg(test)]
mod tests;
