//! The sockets of clients, seen from outside tiny_http, which keeps them to itself.
//!
//! tiny_http closes its descriptors whenever it likes, so a number may have come to mean another socket since it was noted. The
//! kernel gives each socket a cookie that no other socket ever has: whoever acts on a descriptor compares that first.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::hooks::{borrow, bytes_acked};
use crate::server::readable;

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

    /// Sets how long a write waits for room in the socket, for everybody who uses the connection.
    pub(super) fn set_send_timeout(&self, time: Duration) {
        let _ = sockopt::set_socket_timeout(self, Timeout::Send, Some(time));
    }

    /// How many bytes the client's kernel has acknowledged; `None` if ours does not tell.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        bytes_acked(self.as_fd())
    }

    /// Whether there is something to read before the time is up.
    pub(super) fn is_readable(&self, within: Duration) -> bool {
        readable(self, within)
    }
}

impl io::Read for &Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self, buffer)?)
    }
}

impl io::Write for &Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
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
        (&held).write_all(b"hello").unwrap();
        held.shut_down();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
