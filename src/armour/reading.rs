//! How a thread reads a body: what it does here decides what `recv` gives it meanwhile (see [`super::hooks`]).

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::connection::Connection;
use super::hooks::borrow;
use super::pace::Pace;
use crate::server::readable;

/// How this thread reads from a connection.
pub(super) enum Reading {
    /// Only what has come already: then there is an error of the kind `WouldBlock`.
    AtHand(Arc<Connection>),
    /// As it comes, at that pace; a body that is too slow gets an error of the kind `TimedOut`.
    Paced {
        connection: Arc<Connection>,
        pace: Pace,
        /// Whether the client has been found to send nothing any more.
        ended: bool,
    },
    /// Not at all: pretends that as much came as was asked for.
    Pretended,
    /// Not at all: pretends that the client has sent all that it ever will.
    AtEnd,
}

thread_local! {
    /// `None` for tiny_http's own threads.
    static READING: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// Runs `read` with a manner of reading. Returns what came of both.
pub(super) fn in_manner<T>(reading: Reading, read: impl FnOnce() -> T) -> (T, Option<Reading>) {
    /// Also when reading panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            READING.take();
        }
    }
    READING.set(Some(reading));
    let _reset = Reset;
    let result = read();
    (result, READING.take())
}

/// Receives for a thread that reads a body; `None` if this is none. `follow` notes what came, and says how much of it may be used.
pub(super) fn receive(
    socket: RawFd,
    length: usize,
    from_kernel: &impl Fn(i32) -> io::Result<usize>,
    follow: &impl Fn(&Connection, usize) -> usize,
) -> Option<io::Result<usize>> {
    READING.with_borrow_mut(|reading| {
        Some(match reading.as_mut()? {
            Reading::Pretended => Ok(length),
            Reading::AtEnd => Ok(0),
            Reading::AtHand(connection) if connection.has_ended() => Ok(0),
            Reading::AtHand(connection) => {
                from_kernel(libc::MSG_DONTWAIT).map(|received| follow(connection, received))
            }
            Reading::Paced {
                connection,
                pace,
                ended,
            } => {
                let received = receive_paced(socket, connection, pace, from_kernel);
                let received = received.map(|received| follow(connection, received));
                *ended |= matches!(received, Ok(0));
                received
            }
        })
    })
}

/// Receives what comes in time. Without waiting first, since most of a body is there when it is read.
fn receive_paced(
    socket: RawFd,
    connection: &Connection,
    pace: &mut Pace,
    from_kernel: &impl Fn(i32) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        if connection.has_ended() {
            return Ok(0);
        }
        match from_kernel(libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(received) => {
                pace.came(received as u64);
                return Ok(received);
            }
            error => return error,
        }
        let left = pace.left();
        if left.is_zero() {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        readable(&borrow(socket), left);
    }
}
