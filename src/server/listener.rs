//! From tiny_http to the pool: opens the listening socket, and moves requests.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, listen, shutdown, sockopt};

use super::Shared;
use super::call::Turn;
use super::lanes::Incoming;
use super::pool::contain_panic;

/// The most requests in one message to the pool. More would save little, and keep the other workers from helping.
const BATCH: usize = 16;

/// How many times the listener lets others run before it sleeps until there is a request. Others may be about to hand one over, and
/// waking the listener costs them more than this.
const YIELDS: u32 = 8;

/// Connections that the kernel keeps until they are accepted. It cuts this to `net.core.somaxconn`, 4096 as a rule.
const BACKLOG: i32 = 4096;

/// How long a server that stops waits for tiny_http to accept the clients that have connected already.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Opens the listening socket.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    listen(&socket, BACKLOG)?;
    adopt(&socket)?;
    Ok(socket)
}

/// Prepares a listening socket, also one that somebody else has opened.
pub fn adopt(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    // Accepted sockets inherit it. Without it, the second half of a large answer can wait for 40 ms.
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(())
}

/// Where the requests of tiny_http go.
#[derive(Clone)]
pub struct Intake(pub(super) Arc<Shared>);

impl Intake {
    /// Moves requests from tiny_http's queue to the pool: all that are there, up to [`BATCH`], in one message. Returns when tiny_http
    /// reports an error, or after [`tiny_http::Server::unblock`] where `retired` is set.
    pub fn listen(&self, server: &tiny_http::Server, retired: &AtomicBool) -> io::Error {
        loop {
            if retired.load(Ordering::Acquire) {
                return io::ErrorKind::NotFound.into();
            }
            let mut batch = Vec::with_capacity(BATCH);
            let mut next = server.try_recv();
            for _ in 0..YIELDS {
                if !matches!(next, Ok(None)) {
                    break;
                }
                thread::yield_now();
                next = server.try_recv();
            }
            // `try_recv` may just have taken the message that wakes a retired listener.
            if matches!(next, Ok(None)) && !retired.load(Ordering::Acquire) {
                next = server.recv().map(Some);
            }
            let ended = loop {
                match next {
                    Ok(Some(request)) => batch.push(request),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                if batch.len() == BATCH {
                    break None;
                }
                next = server.try_recv();
            };
            self.begin(batch);
            if let Some(error) = ended {
                return error;
            }
        }
    }

    fn begin(&self, requests: Vec<tiny_http::Request>) {
        let shared = &self.0;
        let arrived = Instant::now(); // once for all of them: most batches are read in microseconds
        let incoming = requests.into_iter().map(|request| Incoming {
            connection: shared.door.connection(&request),
            request,
            arrived,
        });
        let entered = shared.lanes.enter(incoming.collect());
        if let Err(too_many) = shared.pool.begin(entered) {
            for (incoming, client) in too_many {
                let turn = Turn::new(shared, client);
                contain_panic(|| shared.turn_away(incoming, turn));
            }
        }
    }
}

/// Stops taking connections: once tiny_http has accepted those that wait, its accept loop ends, and the kernel refuses newcomers.
pub(super) fn stop_listening(socket: &TcpListener) {
    let last_call = Instant::now() + LAST_CALL;
    while readable(socket, Duration::ZERO) && Instant::now() < last_call {
        thread::sleep(Duration::from_millis(1));
    }
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        log::error!("cannot stop listening: {error}");
    }
}

/// Whether there is something to read or to accept, or an error to report, before the time is up.
pub fn readable(socket: &impl AsFd, within: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: within.subsec_nanos().into(),
    };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout));
    ready.is_ok_and(|ready| ready > 0)
}
