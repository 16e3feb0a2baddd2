//! Stands between tiny_http and what clients send.
//!
//! tiny_http reads without limits: heads of any size, and request after request, whether or not the earlier ones have been
//! answered. Nothing of this can be set from outside, but all that it reads comes from one function of the C library,
//! `recv`, and that a program may define itself, as [`super::accept`] does with another. Ours
//!
//! * follows the bytes ([`super::follow`]), and ends a connection whose head has no end, or that would lock tiny_http up;
//! * holds a connection's thread back while its client has many requests waiting, so that more of them stay in the
//!   client's own buffers;
//! * knows for [`super::guard`] what each client is in the middle of sending, and since when;
//! * lets whoever reads a body say how long that may take.
//!
//! `shutdown`, which tiny_http calls before it closes a descriptor, tells when a number is about to mean something else.
//! Other sockets of the process are read and shut down as ever.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use libc::{c_int, c_void, size_t, ssize_t};

use super::accept;
use super::clock::{self, Tick};
use super::follow::{Follower, HEAD_BYTES, Sending};
use super::pace::Pace;
use super::sockets;

/// The most requests of one client that wait for the one under way. tiny_http parses 1 KiB at a time, so there can be some
/// more. Each takes 2 or 3 kB.
const WAITING: u64 = 32;

/// The most bytes of such requests.
const WAITING_BYTES: usize = HEAD_BYTES;

/// How long a thread that is held back sleeps at most before it looks for itself whether it may go on.
const HELD_BACK: Duration = Duration::from_millis(100);

/// Takes the place of the C library's `recv` in this program; see there for what it does.
///
/// # Safety
///
/// As the C library's: `buffer` has space for `length` bytes.
#[expect(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn recv(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let from_kernel = |flags: c_int| {
        let (no_address, no_size) = (
            std::ptr::null_mut::<c_void>(),
            std::ptr::null_mut::<c_void>(),
        );
        // SAFETY: the caller's arguments, handed on as they are.
        let received = unsafe {
            libc::syscall(
                libc::SYS_recvfrom,
                socket,
                buffer,
                length,
                flags,
                no_address,
                no_size,
            )
        };
        received as ssize_t
    };
    let manner = MANNER.get();
    match manner {
        Manner::Pretended => return length as ssize_t,
        Manner::AtEnd => return 0,
        _ => {}
    }
    let from_client = |inflow: &Inflow| {
        if inflow.has_ended() {
            return 0;
        }
        let received = match manner {
            Manner::AtHand => from_kernel(flags | libc::MSG_DONTWAIT),
            Manner::Paced { pace, .. } => {
                receive_paced(socket, pace, || from_kernel(flags | libc::MSG_DONTWAIT))
            }
            Manner::Waiting | Manner::Pretended | Manner::AtEnd => {
                inflow.hold_back();
                from_kernel(flags)
            }
        };
        if received <= 0 {
            return received;
        }
        // SAFETY: the kernel has written so many bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), received as usize) };
        inflow.follow(bytes) as ssize_t
    };
    // There is nothing in here that panics; if there were, it must not reach a caller that expects C.
    let received = catch_unwind(AssertUnwindSafe(|| with_inflow(socket, from_client)))
        .unwrap_or(Some(0))
        .unwrap_or_else(|| from_kernel(flags));
    if received == 0
        && let Manner::Paced { pace, .. } = MANNER.get()
    {
        MANNER.set(Manner::Paced { pace, ended: true });
    }
    received
}

/// Takes the place of the C library's `shutdown`.
#[expect(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn shutdown(socket: c_int, how: c_int) -> c_int {
    if how == libc::SHUT_RD
        && let Some(inflow) = place(socket).and_then(|place| lock(place).take())
    {
        inflow.end();
    }
    // SAFETY: two numbers.
    unsafe { libc::syscall(libc::SYS_shutdown, socket, how) as c_int }
}

/// Receives what comes in time. Without waiting first, since most of a body is there when it is read.
#[expect(unsafe_code)]
fn receive_paced(socket: RawFd, mut pace: Pace, from_kernel: impl Fn() -> ssize_t) -> ssize_t {
    loop {
        let received = from_kernel();
        if received >= 0 {
            pace.came(received as u64);
            MANNER.set(Manner::Paced { pace, ended: false });
            return received;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
            return received;
        }
        let left = pace.left();
        if left.is_zero() {
            // SAFETY: the place of this thread's error number, which is always there.
            unsafe { *libc::__errno_location() = libc::ETIMEDOUT };
            return -1;
        }
        sockets::readable(socket, left);
    }
}

/// How a thread reads from clients.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Heads and small bodies, for as long as it takes: tiny_http's own threads.
    Waiting,
    /// Only what is there already.
    AtHand,
    /// A body that must keep up.
    Paced {
        pace: Pace,
        /// Whether the end of the stream has been read.
        ended: bool,
    },
    /// Not at all: as if as much had come as was asked for.
    Pretended,
    /// Not at all: as if the client had sent all that it ever will.
    AtEnd,
}

thread_local! {
    static MANNER: Cell<Manner> = const { Cell::new(Manner::Waiting) };
}

/// Reads what is there already; an error of the kind `WouldBlock` says that more is to come.
pub(super) fn at_hand<T>(read: impl FnOnce() -> T) -> T {
    in_manner(Manner::AtHand, read)
}

/// Reads as it comes, if it keeps that pace; else there is an error of the kind `TimedOut`. Says also whether the client
/// has been found to send nothing any more.
pub(super) fn paced<T>(pace: Pace, read: impl FnOnce() -> T) -> (T, bool) {
    in_manner(Manner::Paced { pace, ended: false }, || {
        let read = read();
        (
            read,
            matches!(MANNER.get(), Manner::Paced { ended: true, .. }),
        )
    })
}

/// Does not read from the client; every buffer counts as filled, with what was in it before.
pub(super) fn pretended<T>(read: impl FnOnce() -> T) -> T {
    in_manner(Manner::Pretended, read)
}

/// Reads what is in tiny_http's buffers, and then the end of the stream.
pub(super) fn at_end<T>(read: impl FnOnce() -> T) -> T {
    in_manner(Manner::AtEnd, read)
}

fn in_manner<T>(manner: Manner, read: impl FnOnce() -> T) -> T {
    /// Also when reading panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            MANNER.set(Manner::Waiting);
        }
    }
    MANNER.set(manner);
    let _reset = Reset;
    read()
}

/// What one client sends.
pub(super) struct Inflow {
    /// Held for as long as it takes to look at some bytes; no other lock is taken under it.
    state: Mutex<State>,
    /// Whether a thread has come to read.
    attended: AtomicBool,
    /// Nothing more of it counts.
    ended: AtomicBool,
    /// Requests that have come out of tiny_http, or are about to.
    requests: AtomicU64,
    /// How many of them had been answered when the thread that reads looked last.
    known_answered: AtomicU64,
    /// Bytes read since all that had come before was known to be answered.
    ahead: AtomicUsize,
    /// What workers take note of.
    answers: Answers,
}

/// On a cache line of its own: reading goes on on one processor while others answer.
#[repr(align(64))]
struct Answers {
    /// How many requests have been answered.
    count: AtomicU64,
    /// Whether the thread that reads is held back.
    holds: AtomicBool,
    /// That thread.
    held_back: Mutex<Option<Thread>>,
}

struct State {
    follower: Follower,
    /// Since when the client is in the middle of what it is sending.
    since: Tick,
    /// When something came last.
    last: Tick,
}

/// What a client is doing, as far as it can be told from what it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    pub(super) sending: Sending,
    /// Since when.
    pub(super) since: Tick,
    /// When something came last; when it connected, if nothing has.
    pub(super) last: Tick,
    /// Whether it has requests that have not been answered.
    pub(super) waits: bool,
    /// Whether it has not had any request yet.
    pub(super) is_new: bool,
}

impl Inflow {
    pub(super) fn new() -> Arc<Inflow> {
        let now = clock::now();
        Arc::new(Inflow {
            state: Mutex::new(State {
                follower: Follower::new(),
                since: now,
                last: now,
            }),
            attended: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            known_answered: AtomicU64::new(0),
            ahead: AtomicUsize::new(0),
            answers: Answers {
                count: AtomicU64::new(0),
                holds: AtomicBool::new(false),
                held_back: Mutex::new(None),
            },
        })
    }

    /// Whether a thread has come to read from the connection.
    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }

    /// A request has been answered.
    pub(super) fn answered(&self) {
        self.answers.count.fetch_add(1, Ordering::SeqCst);
        if self.answers.holds.load(Ordering::SeqCst) && !self.is_ahead(WAITING / 2) {
            self.wake();
        }
    }

    /// Nothing more is to be read: whoever tries reads the end of the stream.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn doing(&self) -> Doing {
        let state = lock(&self.state);
        Doing {
            sending: state.follower.sending(),
            since: state.since,
            last: state.last,
            waits: self.waiting() > 0,
            is_new: state.follower.requests() == 0,
        }
    }

    /// Whether nothing more is read from it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many requests have not been answered.
    fn waiting(&self) -> u64 {
        let answered = self.answers.count.load(Ordering::SeqCst);
        self.requests
            .load(Ordering::SeqCst)
            .saturating_sub(answered)
    }

    /// Whether so many requests are waiting, or so many bytes of them, that no more should be read.
    fn is_ahead(&self, requests: u64) -> bool {
        let waiting = self.waiting();
        waiting >= requests || waiting > 0 && self.ahead.load(Ordering::Relaxed) >= WAITING_BYTES
    }

    /// Waits while too many requests are waiting. Whoever goes on does so with some more in one go.
    fn hold_back(&self) {
        // Going by what is known, which is more than are waiting, but costs nothing to look at.
        let requests = self.requests.load(Ordering::Relaxed);
        if requests.saturating_sub(self.known_answered.load(Ordering::Relaxed)) < WAITING
            && self.ahead.load(Ordering::Relaxed) < WAITING_BYTES
        {
            return;
        }
        if self.is_ahead(WAITING) {
            *lock(&self.answers.held_back) = Some(thread::current());
            self.answers.holds.store(true, Ordering::SeqCst);
            while self.is_ahead(WAITING / 2) && !self.has_ended() {
                thread::park_timeout(HELD_BACK);
            }
            self.answers.holds.store(false, Ordering::SeqCst);
        }
        let waiting = self.waiting();
        self.known_answered
            .store(requests - waiting.min(requests), Ordering::Relaxed);
        if waiting == 0 {
            self.ahead.store(0, Ordering::Relaxed);
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.answers.held_back) {
            thread.unpark();
        }
    }

    /// Takes note of what has been received. Returns how much of it may be used.
    fn follow(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let (sending, requests) = (state.follower.sending(), state.follower.requests());
        // Workers write there, so it is only looked at where it matters.
        let answered = || self.answers.count.load(Ordering::SeqCst);
        let usable = state.follower.follow(bytes, answered);
        state.last = clock::now();
        let went_on = matches!(
            (sending, state.follower.sending()),
            (Sending::Head, Sending::Head) | (Sending::SmallBody { .. }, Sending::SmallBody { .. })
        );
        if !went_on || state.follower.requests() != requests {
            state.since = state.last;
        }
        let ahead = self.ahead.load(Ordering::Relaxed);
        self.ahead.store(ahead + bytes.len(), Ordering::Relaxed);
        self.requests
            .store(state.follower.requests(), Ordering::Release);
        if usable < bytes.len() {
            self.ended.store(true, Ordering::SeqCst);
        }
        usable
    }
}

/// What comes in by a descriptor; `None` until it has been read from, and when it is not a client's.
type Place = Mutex<Option<Arc<Inflow>>>;

const PLACES: usize = 1024;

/// By descriptor. As many at a time as are needed, and no more than a million: beyond it nobody is looked after.
static TABLE: [OnceLock<Box<[Place]>>; PLACES] = [const { OnceLock::new() }; PLACES];

fn place(socket: RawFd) -> Option<&'static Place> {
    let number = usize::try_from(socket).ok()?;
    let some = TABLE.get(number / PLACES)?;
    let some = some.get_or_init(|| (0..PLACES).map(|_| Mutex::new(None)).collect());
    some.get(number % PLACES)
}

/// What comes in by a descriptor, if it is a client's.
fn find(socket: RawFd) -> Option<Arc<Inflow>> {
    let mut place = lock(place(socket)?);
    if place.is_none() {
        let inflow = accept::connections()?.inflow(socket)?;
        inflow.attended.store(true, Ordering::Relaxed);
        *place = Some(inflow);
    }
    place.clone()
}

thread_local! {
    /// What this thread has read from last. It still means the same as long as it has not ended, which it has when the
    /// descriptor is closed.
    static LATEST: RefCell<Option<(RawFd, Arc<Inflow>)>> = const { RefCell::new(None) };
}

/// Does something with what comes in by a descriptor; `None` if it is not a client's.
fn with_inflow<T>(socket: RawFd, read: impl FnOnce(&Inflow) -> T) -> Option<T> {
    LATEST.with_borrow_mut(|latest| {
        if !latest
            .as_ref()
            .is_some_and(|(number, inflow)| *number == socket && !inflow.has_ended())
        {
            *latest = find(socket).map(|inflow| (socket, inflow));
        }
        latest.as_ref().map(|(_, inflow)| read(inflow))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
