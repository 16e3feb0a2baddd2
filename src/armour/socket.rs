//! The sockets of clients, seen from outside tiny_http, which keeps them to itself.
//!
//! tiny_http closes its descriptors whenever it likes, so a number may have come to mean another socket since it was noted. The
//! kernel gives each socket a cookie that no other socket ever has: whoever acts on a descriptor compares that first.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use super::hooks::{borrow, bytes_acked};
use crate::server::readable;

/// The most bytes of a refused body that are read and thrown away, so that a client that sends first and reads later gets to read the
/// answer.
const DISCARDED: u64 = 64 * 1024 * 1024;

/// How often the log says that a client spoke TLS.
const TLS_LOGGED: Duration = Duration::from_secs(60);

/// The kernel's name for a socket, which no other socket ever has; `None` if the descriptor is no socket.
pub(super) fn cookie(fd: RawFd) -> Option<u64> {
    sockopt::socket_cookie(borrow(fd)).ok()
}

/// Whether the client has sent bytes that nobody has read.
pub(super) fn has_unread(fd: RawFd) -> bool {
    rustix::io::ioctl_fionread(borrow(fd)).is_ok_and(|bytes| bytes > 0)
}

/// A connection, held by a descriptor of our own, so that it stays the same one whatever tiny_http closes.
pub(super) struct Held(Descriptor);

enum Descriptor {
    Own(OwnedFd),
    /// tiny_http's descriptor, where there is none left to duplicate it. It stays open as long as a request of the connection, or its
    /// writer, is there, as it is for most who hold one.
    Lent(BorrowedFd<'static>),
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Descriptor::Own(fd) => fd.as_fd(),
            Descriptor::Lent(fd) => *fd,
        }
    }
}

impl Held {
    /// Holds a socket, if the descriptor still means the one with that cookie.
    pub(super) fn new(fd: RawFd, expected: u64) -> Option<Held> {
        let held = Held(match rustix::io::fcntl_dupfd_cloexec(borrow(fd), 0) {
            Ok(own) => Descriptor::Own(own),
            Err(Errno::MFILE | Errno::NFILE | Errno::INVAL) => Descriptor::Lent(borrow(fd)),
            Err(_) => return None,
        });
        (cookie(held.as_fd().as_raw_fd()) == Some(expected)).then_some(held)
    }

    /// Whether it stays this connection whatever tiny_http closes.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.0, Descriptor::Own(_))
    }

    /// Ends the connection in both directions. Threads that wait for it read the end of the stream.
    pub(super) fn shut_down(&self) {
        let _ = shutdown(self, Shutdown::Both); // fails if the client was faster
    }

    /// Tells the client that nothing more comes.
    pub(super) fn shut_down_write(&self) {
        let _ = shutdown(self, Shutdown::Write);
    }

    /// Makes the kernel drop unsent bytes as the connection ends. It would keep up to some megabytes for minutes.
    pub(super) fn forget_unsent(&self) {
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    /// Reads what the client still sends, up to a limit, and throws it away.
    pub(super) fn discard(&self, time: Duration) {
        let (deadline, mut buffer, mut discarded) = (Instant::now() + time, [0; 16 * 1024], 0);
        while discarded < DISCARDED {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !readable(self, left) {
                return;
            }
            match rustix::io::read(self, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => discarded += bytes as u64,
            }
        }
    }
}

/// Receives from a socket, and waits for that.
pub(super) fn receive(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<&[u8]> {
    let ((received, _), _) = recv(borrow(fd), buffer, RecvFlags::empty())?;
    Ok(received)
}

/// Receives what has come already. If that is nothing, there is an error of the kind `WouldBlock`.
pub(super) fn receive_at_hand(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<&[u8]> {
    let ((received, _), _) = recv(borrow(fd), buffer, RecvFlags::DONTWAIT)?;
    Ok(received)
}

/// The way to a client, past tiny_http: a write takes what the socket has room for, and never waits. If there is none, there is an error
/// of the kind `WouldBlock`.
pub(super) struct DirectWriter<'a>(BorrowedFd<'a>);

impl<'a> DirectWriter<'a> {
    pub(super) fn new(socket: BorrowedFd<'a>) -> DirectWriter<'a> {
        DirectWriter(socket)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn shut_down_write(&self) {
        let _ = shutdown(self.0, Shutdown::Write);
    }

    /// How many bytes the client's kernel has acknowledged; `None` if ours does not tell.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        bytes_acked(self.0)
    }
}

impl AsFd for DirectWriter<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl Write for DirectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(
            self.0,
            bytes,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs that a client spoke TLS, as it does for an `https://` by mistake. Once a minute at most: nobody shall fill the log.
pub(super) fn log_tls(client: SocketAddr) {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|it| it.elapsed() >= TLS_LOGGED) {
        *logged = Some(Instant::now());
        log::info!("{client}: closed, since it speaks TLS: use http:// or put a proxy in front");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_held_and_ended_and_no_other_is_taken_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let accepted = connection.as_raw_fd();
        assert!(!has_unread(accepted));
        let cookie = cookie(accepted).unwrap();
        assert!(Held::new(accepted, cookie + 1).is_none());
        let held = Held::new(accepted, cookie).unwrap();
        DirectWriter::new(held.as_fd()).write_all(b"hello").unwrap();
        held.shut_down();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
