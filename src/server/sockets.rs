//! The sockets of clients, seen from outside tiny_http, which keeps them to itself.
//!
//! A request only tells the address of its client. The list of [`Connections`] tells which descriptor that is, and
//! the kernel what state it is in. tiny_http closes its descriptors whenever it likes, so a number may have come to
//! mean something else since: whoever acts on one takes a duplicate first, and looks whose connection it is.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, getpeername, shutdown};

/// The state of a TCP connection that neither side has begun to close.
const ESTABLISHED: u8 = 1;

/// The connections that were accepted, by their client's address, which no two of them share.
#[derive(Default)]
pub(super) struct Connections {
    /// One of the descriptors of each. May list some that have ended since. No other lock is taken under it.
    open: Mutex<HashMap<SocketAddr, RawFd>>,
}

impl Connections {
    /// A connection has been accepted.
    pub(super) fn insert(&self, peer: SocketAddr, fd: RawFd) {
        self.lock().insert(peer, fd);
    }

    /// How many connections there are at most.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Forgets those that have ended; returns how many are left. Asks the kernel once for each.
    pub(super) fn prune(&self) -> usize {
        let mut open = self.lock();
        open.retain(|client, fd| peer(*fd) == Some(*client));
        open.len()
    }

    /// Whether the client is still connected.
    pub(super) fn contains(&self, client: &SocketAddr) -> bool {
        self.lock()
            .get(client)
            .is_some_and(|fd| peer(*fd) == Some(*client))
    }

    /// Takes hold of a client's connection, if it is still there.
    pub(super) fn hold(&self, client: SocketAddr) -> Option<Connection> {
        let fd = *self.lock().get(&client)?;
        Connection::hold(fd, client)
    }

    /// Takes hold of all connections.
    pub(super) fn hold_all(&self) -> Vec<(SocketAddr, Connection)> {
        let open: Vec<_> = self
            .lock()
            .iter()
            .map(|(client, fd)| (*client, *fd))
            .collect();
        open.into_iter()
            .filter_map(|(client, fd)| Some((client, Connection::hold(fd, client)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, RawFd>> {
        // No code under this lock panics half way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client at the other end of a descriptor.
pub(super) fn peer(fd: RawFd) -> Option<SocketAddr> {
    SocketAddr::try_from(getpeername(borrow(fd)).ok()??).ok()
}

/// Whether anybody reads what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The client has not sent anything yet.
    Never,
    /// Something has been there to read for so long.
    For(Duration),
    /// All has been read, or the connection is gone.
    Read,
}

/// Looks whether anybody reads from a client's connection.
pub(super) fn unread(fd: RawFd, client: SocketAddr) -> Unread {
    let socket = borrow(fd);
    let (Ok(info), Ok(bytes)) = (tcp_info(socket), rustix::io::ioctl_fionread(socket)) else {
        return Unread::Read;
    };
    if peer(fd) != Some(client) {
        return Unread::Read;
    }
    // What has come in may also be the end of the stream.
    if bytes > 0 || info.tcpi_state != ESTABLISHED {
        return Unread::For(Duration::from_millis(info.tcpi_last_data_recv.into()));
    }
    if info.tcpi_bytes_received > 0 {
        Unread::Read
    } else {
        Unread::Never
    }
}

/// Whether there is something to read, or to accept, or an error to report, before the time is up.
pub(super) fn readable(fd: RawFd, within: Duration) -> bool {
    let fd = borrow(fd);
    let timeout = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: within.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// A connection, held by a descriptor of our own, so that it stays the same one whatever its owner does.
pub(super) struct Connection(OwnedFd);

impl Connection {
    fn hold(fd: RawFd, client: SocketAddr) -> Option<Connection> {
        let held = rustix::io::fcntl_dupfd_cloexec(borrow(fd), 0).ok()?;
        (peer(held.as_raw_fd()) == Some(client)).then_some(Connection(held))
    }

    /// Whether the client has begun to close the connection, or has closed it.
    pub(super) fn is_ending(&self) -> bool {
        tcp_info(self.0.as_fd()).map_or(true, |info| info.tcpi_state != ESTABLISHED)
    }

    /// Ends it in both directions; threads that wait for it wake up, and read the end of the stream.
    pub(super) fn shut_down(&self) {
        let _ = shutdown(&self.0, Shutdown::Both); // fails if the client was faster
    }

    /// Tells the client that nothing more is to come.
    pub(super) fn shut_down_write(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// How long the client has been idle: since it last sent something, or since it connected, if it never did. `None`
    /// while it is owed an answer, because it has sent something since the last one: a part of a request, say.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let info = tcp_info(self.0.as_fd()).ok()?;
        // Both ages are in milliseconds, in steps of up to 10, and start with the connection. So a part of a request
        // that came right behind an answer goes unnoticed.
        let answered =
            info.tcpi_bytes_sent > 0 && info.tcpi_last_data_recv >= info.tcpi_last_data_sent;
        let owed = info.tcpi_bytes_received > 0 && !answered;
        (!owed).then(|| Duration::from_millis(info.tcpi_last_data_recv.into()))
    }

    /// Lets reads and writes wait no longer than that. Holds for everybody who uses the connection.
    pub(super) fn limit_waiting(&self, time: Duration) {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        let _ = set_socket_timeout(&self.0, Timeout::Recv, Some(time));
        let _ = set_socket_timeout(&self.0, Timeout::Send, Some(time));
    }
}

impl io::Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl io::Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(
            &self.0,
            bytes,
            rustix::net::SendFlags::NOSIGNAL,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor by its number, for as long as one question to the kernel takes.
#[expect(unsafe_code)]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the number is one that the kernel has given out, so it is not -1. If it was closed since, the kernel says
    // EBADF; if it means something else by now, whoever asked finds out by comparing the client.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// What the kernel knows of a TCP socket.
#[expect(unsafe_code)]
fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to where `info` is; what it leaves alone is zero, and zeros are
    // valid for this struct of integers.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;

    fn accepted() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        (client, accepted, peer)
    }

    #[test]
    fn a_connection_is_found_by_its_client_and_can_be_ended() {
        let (mut client, accepted, peer) = accepted();
        let connections = Connections::default();
        connections.insert(peer, accepted.as_raw_fd());
        let connection = connections.hold(peer).unwrap();
        (&connection).write_all(b"hello").unwrap();
        connection.shut_down();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_number_that_has_come_to_mean_something_else_is_not_the_connection() {
        let (_client, first, gone) = accepted();
        let connections = Connections::default();
        let number = first.as_raw_fd();
        connections.insert(gone, number);
        drop(first);
        // The kernel gives out the lowest free number, but other tests run beside this one.
        let (_client, second, _) = accepted();
        let second = second.into_raw_fd();
        connections.insert(gone, second);
        assert!(connections.hold(gone).is_none());
        assert!(!connections.contains(&gone));
        assert_eq!(connections.prune(), 0);
    }

    #[test]
    fn it_can_be_told_whether_anybody_reads() {
        let (mut client, mut accepted, peer) = accepted();
        let look = |accepted: &TcpStream| unread(accepted.as_raw_fd(), peer);
        assert_eq!(look(&accepted), Unread::Never);
        client.write_all(b"x").unwrap();
        assert!(matches!(look(&accepted), Unread::For(_)));
        accepted.read_exact(&mut [0]).unwrap();
        assert_eq!(look(&accepted), Unread::Read);
        drop(client);
        assert!(matches!(look(&accepted), Unread::For(_)));
    }
}
