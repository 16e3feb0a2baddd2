//! Keeps tiny_http accepting.
//!
//! Its accept loop ends for good when it cannot start a thread for a connection; the gate keeps all other causes from it. The acceptor
//! thread looks each second whether the loop still has its descriptor, and if not starts another one on the same listening socket.
//! Connections that were accepted before still send their requests to the queue of the old `tiny_http::Server`, so each `Server` has a
//! listener thread of its own, which stays as long as any connection of that time.

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use tiny_http::Server as TinyHttp;

use super::accept::Gate;
use super::socket::cookie;
use crate::server::{Intake, Monitor};

/// Pause between two looks at the accept loop.
const LOOK: Duration = Duration::from_secs(1);

/// Pause before another accept loop is started.
const RETRY: Duration = Duration::from_millis(100);

/// A `tiny_http::Server`, and the connections that may still send it requests.
struct Generation {
    server: Arc<TinyHttp>,
    /// The descriptor that its accept loop has, and closes as it ends.
    socket: RawFd,
    retired: Arc<AtomicBool>,
    /// The cookies of connections: of those that were there before it; once it has ended, of those that it has let in.
    connections: HashSet<u64>,
}

/// Sees to it that connections are accepted.
pub(super) struct Acceptor {
    pub(super) socket: TcpListener,
    pub(super) gate: Arc<Gate>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) intake: Intake,
}

impl Acceptor {
    /// Starts accepting; from then on a thread of its own keeps it up.
    pub(super) fn start(self) -> io::Result<()> {
        let first = self.accept()?;
        thread::Builder::new()
            .name("acceptor".into())
            .spawn(move || self.keep_accepting(first))?;
        Ok(())
    }

    fn keep_accepting(&self, mut current: Generation) {
        let ours = cookie(self.socket.as_raw_fd());
        let mut old: Vec<Generation> = Vec::new();
        loop {
            thread::sleep(LOOK);
            if self.monitor.is_draining() {
                return;
            }
            if ours.is_some() && cookie(current.socket) != ours {
                log::warn!(
                    "tiny_http has stopped accepting connections; accepting connections again"
                );
                // Connections that are there now and were not before have been let in by it.
                current.connections = &self.connections() - &current.connections;
                old.push(std::mem::replace(&mut current, self.accept_again()));
            }
            self.retire(&mut old);
        }
    }

    fn accept_again(&self) -> Generation {
        loop {
            thread::sleep(RETRY);
            match self.accept() {
                Ok(next) => return next,
                Err(error) => log::error!("cannot accept connections, trying again: {error}"),
            }
        }
    }

    /// Starts tiny_http on the listening socket, and a thread that listens to it.
    fn accept(&self) -> io::Result<Generation> {
        let retired = Arc::new(AtomicBool::new(false));
        // The thread comes first, so that whoever is accepted finds somebody listening.
        let (give, given) = bounded::<Arc<TinyHttp>>(1);
        let (intake, until) = (self.intake.clone(), Arc::clone(&retired));
        let listen = move || {
            let Ok(server) = given.recv() else {
                return;
            };
            while !until.load(Ordering::Acquire) {
                // An error says that accepting has ended. Connections that are open still send their requests.
                let error = intake.listen(&server, &until);
                log::debug!("a listener: {error}");
            }
        };
        let listener = thread::Builder::new().name("listener".into());
        listener.spawn(listen)?;
        let socket = self.socket.try_clone()?;
        let number = socket.as_raw_fd();
        self.gate.stand_at(number);
        let connections = self.connections();
        // It panics where it cannot start its threads.
        let server = catch_unwind(AssertUnwindSafe(|| TinyHttp::from_listener(socket, None)))
            .map_err(|_| io::Error::other("no thread for it"))?
            .map_err(io::Error::other)?;
        let server = Arc::new(server);
        let _ = give.send(Arc::clone(&server)); // has room for one
        Ok(Generation {
            server,
            socket: number,
            retired,
            connections,
        })
    }

    /// Lets go of listeners whose connections are all gone.
    fn retire(&self, old: &mut Vec<Generation>) {
        if old.is_empty() {
            return;
        }
        let open = self.connections();
        old.retain(|generation| {
            let needed = !generation.connections.is_disjoint(&open);
            if !needed {
                generation.retired.store(true, Ordering::Release);
                generation.server.unblock();
            }
            needed
        });
    }

    fn connections(&self) -> HashSet<u64> {
        let all = self.gate.table.select(|connection| Some(connection.cookie));
        all.into_iter().map(|(_, cookie)| cookie).collect()
    }
}
