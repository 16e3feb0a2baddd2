//! The sockets of clients, seen from outside tiny_http, which keeps them to itself.
//!
//! The kernel tells what state a descriptor is in. tiny_http closes its descriptors whenever it likes, so a number may
//! have come to mean something else since it was noted: whoever asks compares the client afterwards, and whoever acts
//! takes a duplicate first, and looks whose connection it is.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, getpeername, shutdown};

/// The state of a TCP connection that neither side has begun to close.
const ESTABLISHED: u8 = 1;

/// The client at the other end of a descriptor.
pub(super) fn peer(fd: RawFd) -> Option<SocketAddr> {
    if fd < 0 {
        return None;
    }
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

/// What tells a socket from all others that there have been; `None` if the descriptor is no socket.
pub(super) fn cookie(fd: RawFd) -> Option<u64> {
    if fd < 0 {
        return None;
    }
    rustix::net::sockopt::socket_cookie(borrow(fd)).ok()
}

/// Closes a descriptor that nobody else knows of.
#[expect(unsafe_code)]
pub(super) fn close(fd: RawFd) {
    // SAFETY: it has just been made, and is given to nobody.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Ends a connection in both directions.
pub(super) fn shut_down(fd: RawFd) {
    let _ = shutdown(borrow(fd), Shutdown::Both); // fails if the client was faster
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

/// What a client has sent before it began to close, and nobody has read for so long, will not be read.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// What can be told about the requests on a connection without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// The client is owed an answer, because it has sent something since the last one: a part of a request, say.
    Owed,
    /// It is probably not owed an answer: the last thing that it sent and the last answer are so close together that
    /// the kernel's clock does not tell which came first. So long ago.
    Unclear(Duration),
    /// It is not, and has sent nothing for so long.
    Idle(Duration),
    /// It has not sent anything yet, and connected so long ago.
    New(Duration),
    /// It is no longer there.
    Gone,
}

/// Looks whether a client's connection is idle.
pub(super) fn activity(fd: RawFd, client: SocketAddr) -> Activity {
    let socket = borrow(fd);
    let (Ok(info), Ok(unread)) = (tcp_info(socket), rustix::io::ioctl_fionread(socket)) else {
        return Activity::Gone;
    };
    if peer(fd) != Some(client) {
        return Activity::Gone;
    }
    // Both are ages in milliseconds, in steps of up to 10, and start with the connection.
    let (received, sent) = (info.tcpi_last_data_recv, info.tcpi_last_data_sent);
    let silent = Duration::from_millis(received.into());
    if unread > 0 && (info.tcpi_state == ESTABLISHED || silent < GIVEN_UP) {
        Activity::Owed
    } else if info.tcpi_bytes_received == 0 && info.tcpi_state == ESTABLISHED {
        Activity::New(silent)
    } else if info.tcpi_state != ESTABLISHED {
        // Who closes waits for an answer no longer, or sends the rest of a request no more.
        Activity::Idle(silent)
    } else if info.tcpi_bytes_sent == 0 || received < sent {
        Activity::Owed
    } else if received == sent {
        Activity::Unclear(silent)
    } else {
        Activity::Idle(silent)
    }
}

/// A connection, held by a descriptor of our own, so that it stays the same one whatever its owner does.
pub(super) struct Held(Descriptor);

enum Descriptor {
    Own(OwnedFd),
    /// The one that tiny_http has, where there is no descriptor left to duplicate it. It stays open as long as a request of
    /// the connection, or its writer, is there, as it is for most who hold one. For the others it may come to mean
    /// the connection of another client, which is then closed instead.
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
    /// Takes hold of a client's connection, if that is what the number still means.
    pub(super) fn new(fd: RawFd, client: SocketAddr) -> Option<Held> {
        if fd < 0 {
            return None;
        }
        let held = Held(match rustix::io::fcntl_dupfd_cloexec(borrow(fd), 0) {
            Ok(own) => Descriptor::Own(own),
            Err(Errno::MFILE | Errno::NFILE | Errno::INVAL) => Descriptor::Lent(borrow(fd)),
            Err(_) => return None,
        });
        (peer(held.as_fd().as_raw_fd()) == Some(client)).then_some(held)
    }

    /// Ends it in both directions; threads that wait for it wake up, and read the end of the stream.
    pub(super) fn shut_down(&self) {
        let _ = shutdown(self.as_fd(), Shutdown::Both); // fails if the client was faster
    }

    /// Has what the client has not taken yet forgotten as the connection ends. Otherwise the kernel would keep it for minutes,
    /// up to some megabytes.
    pub(super) fn forget_unsent(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }

    /// Tells the client that nothing more is to come.
    pub(super) fn shut_down_write(&self) {
        let _ = shutdown(self.as_fd(), Shutdown::Write);
    }

    /// Lets writes wait no longer than that. Holds for everybody who uses the connection.
    pub(super) fn limit_sending(&self, time: Duration) {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        let _ = set_socket_timeout(self.as_fd(), Timeout::Send, Some(time));
    }

    /// How many bytes the other side has taken, its program or its kernel.
    pub(super) fn taken(&self) -> Option<u64> {
        let info = tcp_info(self.as_fd()).ok()?;
        Some(info.tcpi_bytes_acked)
    }

    /// Whether there is something to read before the time is up.
    pub(super) fn is_readable(&self, within: Duration) -> bool {
        readable(self.as_fd().as_raw_fd(), within)
    }
}

impl io::Read for &Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.as_fd(), buffer)?)
    }
}

impl io::Write for &Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(
            self.as_fd(),
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

/// Whether the kernel tells about connections all that is asked here.
pub(super) fn are_described(socket: &impl AsFd) -> bool {
    tcp_info(socket.as_fd()).is_ok()
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
    // What came last to this struct of all that is used. Older kernels, and those that only pretend to be one, say less.
    if (size as usize) < offset_of!(libc::tcp_info, tcpi_bytes_sent) + size_of::<u64>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: as above.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn accepted() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        (client, accepted, peer)
    }

    #[test]
    fn a_connection_can_be_held_and_ended() {
        let (mut client, accepted, peer) = accepted();
        let held = Held::new(accepted.as_raw_fd(), peer).unwrap();
        (&held).write_all(b"hello").unwrap();
        held.shut_down();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_number_that_means_something_else_is_not_the_connection() {
        let (_client, connection, peer) = accepted();
        let other = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(Held::new(connection.as_raw_fd(), other).is_none());
        assert_eq!(activity(connection.as_raw_fd(), other), Activity::Gone);
        assert!(Held::new(-1, peer).is_none());
    }

    #[test]
    fn a_client_is_owed_an_answer_from_what_it_sends_until_that_is_answered() {
        let (mut client, mut accepted, peer) = accepted();
        let look = |accepted: &TcpStream| activity(accepted.as_raw_fd(), peer);
        assert!(matches!(look(&accepted), Activity::New(_)));
        client.write_all(b"request").unwrap();
        assert_eq!(look(&accepted), Activity::Owed);
        accepted.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(look(&accepted), Activity::Owed);
        accepted.write_all(b"answer").unwrap();
        assert!(matches!(
            look(&accepted),
            Activity::Unclear(_) | Activity::Idle(_)
        ));
        client.read_exact(&mut [0; 6]).unwrap();
        drop(client);
        assert!(matches!(look(&accepted), Activity::Idle(_)));
    }

    #[test]
    fn only_tcp_is_described() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(are_described(&tcp));
        assert!(!are_described(
            &std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
        ));
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
