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

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
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
    if manner == Manner::Pretended {
        return length as ssize_t;
    }
    let Some(inflow) = find(socket) else {
        return from_kernel(flags);
    };
    if inflow.has_ended() {
        return 0;
    }
    let received = match manner {
        Manner::Waiting => {
            inflow.hold_back();
            from_kernel(flags)
        }
        Manner::AtHand => from_kernel(flags | libc::MSG_DONTWAIT),
        Manner::Paced(pace) => {
            let paced = receive_paced(socket, pace, || from_kernel(flags | libc::MSG_DONTWAIT));
            MANNER.set(Manner::Paced(paced.1));
            paced.0
        }
        Manner::Pretended => 0,
    };
    if received <= 0 {
        return received;
    }
    // SAFETY: the kernel has written so many bytes there.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), received as usize) };
    inflow.follow(bytes) as ssize_t
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
fn receive_paced(
    socket: RawFd,
    mut pace: Pace,
    from_kernel: impl Fn() -> ssize_t,
) -> (ssize_t, Pace) {
    loop {
        let received = from_kernel();
        if received >= 0 {
            pace.came(received as u64);
            return (received, pace);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
            return (received, pace);
        }
        let left = pace.left();
        if left.is_zero() {
            // SAFETY: the place of this thread's error number, which is always there.
            unsafe { *libc::__errno_location() = libc::ETIMEDOUT };
            return (-1, pace);
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
    Paced(Pace),
    /// Not at all: as if as much had come as was asked for.
    Pretended,
}

thread_local! {
    static MANNER: Cell<Manner> = const { Cell::new(Manner::Waiting) };
}

/// Reads what is there already; an error of the kind `WouldBlock` says that more is to come.
pub(super) fn at_hand<T>(read: impl FnOnce() -> T) -> T {
    in_manner(Manner::AtHand, read)
}

/// Reads as it comes, if it keeps that pace; else there is an error of the kind `TimedOut`.
pub(super) fn paced<T>(pace: Pace, read: impl FnOnce() -> T) -> T {
    in_manner(Manner::Paced(pace), read)
}

/// Does not read from the client; every buffer counts as filled, with what was in it before.
pub(super) fn pretended<T>(read: impl FnOnce() -> T) -> T {
    in_manner(Manner::Pretended, read)
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
    /// Requests that have come out of tiny_http, or are about to.
    requests: AtomicU64,
    /// Those of them that have been answered.
    answered: AtomicU64,
    /// Bytes read since all that had come before was answered.
    ahead: AtomicUsize,
    /// Nothing more of it counts.
    ended: AtomicBool,
    /// The thread that is held back, if any is.
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
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            ahead: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            held_back: Mutex::new(None),
        })
    }

    /// Whether a thread has come to read from the connection.
    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }

    /// A request has been answered.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.wake();
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
        }
    }

    /// Whether nothing more is read from it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many requests have not been answered.
    fn waiting(&self) -> u64 {
        let answered = self.answered.load(Ordering::SeqCst);
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
        if !self.is_ahead(WAITING) {
            return;
        }
        *lock(&self.held_back) = Some(thread::current());
        while self.is_ahead(WAITING / 2) && !self.has_ended() {
            thread::park_timeout(HELD_BACK);
        }
        *lock(&self.held_back) = None;
    }

    fn wake(&self) {
        // Is locked by the thread that it holds back for a moment only, and by nobody else.
        if let Some(thread) = &*lock(&self.held_back)
            && (!self.is_ahead(WAITING / 2) || self.has_ended())
        {
            thread.unpark();
        }
    }

    /// Takes note of what has been received. Returns how much of it may be used.
    fn follow(&self, bytes: &[u8]) -> usize {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let (sending, requests) = (state.follower.sending(), state.follower.requests());
        let usable = state.follower.follow(bytes);
        state.last = clock::now();
        let went_on = matches!(
            (sending, state.follower.sending()),
            (Sending::Head, Sending::Head) | (Sending::SmallBody { .. }, Sending::SmallBody { .. })
        );
        if !went_on || state.follower.requests() != requests {
            state.since = state.last;
        }
        if self.waiting() == 0 {
            self.ahead.store(0, Ordering::Relaxed);
        }
        self.ahead.fetch_add(bytes.len(), Ordering::Relaxed);
        self.requests
            .store(state.follower.requests(), Ordering::SeqCst);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
