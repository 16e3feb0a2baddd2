//! The three functions of the C library that this program defines itself: `accept4`, `recv` and `shutdown`.
//!
//! tiny_http accepts and reads without limits, and nothing of that can be set from outside. But std gets connections from `accept4`,
//! bytes from `recv`, and ends a connection by `shutdown`, and a program may define these symbols: the linker then binds std's calls
//! to them. Ours ask the armour first. Sockets that are not the server's are treated as ever.
//!
//! This would silently stop if std or a C library called something else one day. So [`check`] tries it at start.
//!
//! All `unsafe` code of the armour is in this file.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::mem::{MaybeUninit, offset_of};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use rustix::net::{RecvFlags, getpeername};

use super::accept::{Accepted, Gate};
use super::connection::Connection;
use super::socket::cookie;

/// The gate of the one server that a process can have.
static GATE: OnceLock<Arc<Gate>> = OnceLock::new();

/// Whether std has called each of the three.
static CALLED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
const NAMES: [&str; 3] = ["accept4", "recv", "shutdown"];

fn note_call(which: usize) {
    // Reading first: a line of the cache that nobody writes to costs nothing.
    if !CALLED[which].load(Ordering::Relaxed) {
        CALLED[which].store(true, Ordering::Relaxed);
    }
}

/// Puts the gate in place, before tiny_http starts its threads.
pub(super) fn install(gate: &Arc<Gate>) -> io::Result<()> {
    GATE.set(Arc::clone(gate))
        .map_err(|_| io::Error::other("another server runs in this process"))
}

/// Checks by a connection to this very process that std calls the functions here. An error says what is not protected.
pub fn check() -> Result<(), String> {
    let connect = || -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (mut accepted, _) = listener.accept()?;
        client.write_all(b"x")?;
        accepted.read_exact(&mut [0])?;
        accepted.shutdown(std::net::Shutdown::Both)
    };
    connect().map_err(|error| format!("no connection to this process: {error}"))?;
    let called = NAMES.iter().zip(&CALLED);
    let not_called = called.filter(|(_, called)| !called.load(Ordering::Relaxed));
    let names: Vec<&str> = not_called.map(|(name, _)| *name).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(format!("std does not call our {}", names.join(", ")))
}

/// Takes the place of the C library's `accept4`.
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
    note_call(0);
    let from_kernel = || {
        // SAFETY: the caller's arguments, handed on as they are.
        unsafe { libc::syscall(libc::SYS_accept4, listener, address, length, flags) as c_int }
    };
    match GATE.get() {
        Some(gate) if gate.is_at(listener) => match gate.accept(listener, from_kernel) {
            Accepted::FromKernel(result) => result,
            Accepted::StandIn(descriptor) => {
                // SAFETY: as above. The caller wants some address, and our own is a valid one.
                unsafe { libc::getsockname(listener, address, length) };
                descriptor
            }
        },
        _ => from_kernel(),
    }
}

/// Takes the place of the C library's `recv`.
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
    note_call(1);
    // SAFETY: the caller's buffer has that much space, and nobody else uses it during the call.
    let space = || unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) };
    let from_client = |connection: &Connection| connection.read(socket, space());
    let receive = || {
        with_latest(socket, from_client).unwrap_or_else(|| {
            let flags = RecvFlags::from_bits_retain(flags.cast_unsigned());
            Ok(rustix::net::recv(borrow(socket), space(), flags)?.1)
        })
    };
    // Nothing in here panics; if something did, it must not reach a caller that expects C.
    let received = catch_unwind(AssertUnwindSafe(receive)).unwrap_or(Ok(0));
    received.map_or_else(
        |error| {
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            // SAFETY: the place of this thread's error number, which is always there.
            unsafe { *libc::__errno_location() = number };
            -1
        },
        |received| received as ssize_t,
    )
}

/// Takes the place of the C library's `shutdown`. tiny_http calls it just before it closes a descriptor: the half that reads with
/// `SHUT_RD`, and the half that writes, once no request of the connection is left, with `SHUT_WR`.
#[expect(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn shutdown(socket: c_int, how: c_int) -> c_int {
    note_call(2);
    let end = || {
        if let (Some(gate), Some(connection)) = (GATE.get(), find(socket))
            && connection.close_half(how == libc::SHUT_RD)
        {
            gate.table.remove(&connection);
        }
    };
    let _ = catch_unwind(AssertUnwindSafe(end)); // as above
    // SAFETY: two numbers.
    unsafe { libc::syscall(libc::SYS_shutdown, socket, how) as c_int }
}

thread_local! {
    /// The connection that this thread of tiny_http has read from last.
    static LATEST: RefCell<Option<(RawFd, Arc<Connection>)>> = const { RefCell::new(None) };
}

/// Reads for a thread of tiny_http; `None` if it does not read from a client's connection.
fn with_latest<T>(socket: RawFd, read: impl FnOnce(&Connection) -> T) -> Option<T> {
    LATEST.with_borrow_mut(|latest| {
        // Until a connection has ended, its descriptors are open, and mean no other.
        let is_latest = |(number, connection): &(RawFd, Arc<Connection>)| {
            *number == socket && !connection.has_ended()
        };
        if !latest.as_ref().is_some_and(is_latest) {
            *latest = find(socket).map(|connection| (socket, connection));
            if let Some((_, connection)) = latest {
                connection.attend();
            }
        }
        latest.as_ref().map(|(_, connection)| read(connection))
    })
}

/// The connection of a descriptor, if it is a client's.
fn find(socket: RawFd) -> Option<Arc<Connection>> {
    GATE.get()?.table.find(cookie(socket)?)
}

/// The client at the other end of a descriptor; `None` if the connection has been reset.
pub(super) fn peer(fd: RawFd) -> Option<SocketAddr> {
    SocketAddr::try_from(getpeername(borrow(fd)).ok()??).ok()
}

/// Closes a descriptor that nobody else knows of.
#[expect(unsafe_code)]
pub(super) fn close(fd: RawFd) {
    // SAFETY: it has just been made, and is given to nobody.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// A descriptor by its number, for as long as one question to the kernel takes.
#[expect(unsafe_code)]
pub(super) fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: all numbers here come from the kernel, so none is -1. If it was closed since, the kernel says EBADF; if it means
    // another socket by now, its cookie differs.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// How many bytes the client's kernel has acknowledged; `None` where ours does not tell (before Linux 4.2).
#[expect(unsafe_code)]
pub(super) fn bytes_acked(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to where `info` is. What it leaves alone is zero, and zeros are valid for this
    // struct of integers.
    let (result, info) = unsafe {
        let option = libc::TCP_INFO;
        let place = info.as_mut_ptr().cast();
        let fd = socket.as_raw_fd();
        let result = libc::getsockopt(fd, libc::IPPROTO_TCP, option, place, &raw mut size);
        (result, info.assume_init())
    };
    let known = offset_of!(libc::tcp_info, tcpi_bytes_acked) + size_of::<u64>();
    (result == 0 && size as usize >= known).then_some(info.tcpi_bytes_acked)
}

/// Tells the kernel that a thread which wakes another one goes on until it waits itself, in this process from now on.
///
/// A request passes through four threads, and most of its processor time goes into waking them. Where each thread finishes what it is
/// at before the next one runs, the next one finds more to do, and is woken less often.
#[expect(unsafe_code)]
pub fn prefer_throughput() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters, and 0 is this thread, from which those it starts inherit.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
        let error = io::Error::last_os_error();
        log::debug!("cannot set the scheduling class: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn std_calls_the_functions_here() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn only_tcp_tells_what_was_acknowledged() {
        use std::os::fd::AsFd;
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(bytes_acked(tcp.as_fd()), Some(0));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(bytes_acked(udp.as_fd()), None);
    }
}
