//! The door: what stands between the server and its clients.
//!
//! tiny_http reads heads; everything that then deals with a socket goes through two traits. [`Plain`] implements them as a first
//! lesson would: it reads and writes on the worker, and waits for the client as long as that takes. The `armour` module implements
//! them for a server that faces the world.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use tiny_http::Request;

use super::call::{Turn, Upload};
use super::listener::Intake;
use super::message::Message;

/// How long clients may take. The options set it; a door enforces it, but [`Plain`] does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Closes a connection on which nothing has happened for so long.
    pub idle: Duration,
    /// The longest time for a request head, from its first byte on.
    pub head: Duration,
    /// The longest time for one body or one answer.
    pub transfer: Duration,
    /// The average rate that a body or an answer must keep, in bytes a second; 0 for none.
    pub min_rate: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            idle: Duration::from_secs(75),
            head: Duration::from_secs(10),
            transfer: Duration::from_secs(300),
            min_rate: 1024,
        }
    }
}

/// Lets clients in.
pub trait Door: Send + Sync + 'static {
    /// Starts tiny_http on the listening socket, and threads that hand its requests to `intake`.
    fn open(self: Arc<Self>, socket: TcpListener, intake: Intake) -> io::Result<()>;

    /// The connection of a request.
    fn connection(&self, request: &Request) -> Arc<dyn Connection>;

    /// Closes idle connections, for a server that drains. Returns whether no connection is left that may be sending a request.
    fn close_idle(&self) -> bool;
}

/// The connection of a request: reads its body and writes its answer.
pub trait Connection: Send + Sync {
    /// Gives a request back that is up to be answered. `None` if the connection has ended, and the request with it.
    fn take(&self, request: Request) -> Option<Request>;

    /// Reads a body that is not in memory yet, and lets the upload go on.
    fn receive(self: Arc<Self>, upload: Upload);

    /// Writes a small answer. Called on a worker.
    fn write(self: Arc<Self>, outgoing: Outgoing);

    /// Reserves a writer for a large answer. `None` if too many are under way.
    fn reserve(self: Arc<Self>) -> Option<Box<dyn FnOnce(Outgoing) + Send>>;

    /// Answers a request whose body has not been read to its end, and closes the connection.
    fn refuse(self: Arc<Self>, request: Request, message: Message, turn: Turn);
}

/// An answer on its way.
pub struct Outgoing {
    /// The bytes to write.
    pub message: Message,
    /// Where to write them.
    pub writer: Box<dyn Write + Send>,
    /// Held until they are written.
    pub turn: Turn,
}

/// The door of a first lesson: no limits, no timeouts. A slow client keeps a worker busy.
pub struct Plain;

impl Door for Plain {
    fn open(self: Arc<Self>, socket: TcpListener, intake: Intake) -> io::Result<()> {
        let server = tiny_http::Server::from_listener(socket, None).map_err(io::Error::other)?;
        let listen = move || {
            let never = AtomicBool::new(false);
            loop {
                // Also when tiny_http accepts no more: connections that are open still send their requests to this queue.
                let error = intake.listen(&server, &never);
                log::debug!("tiny_http accepts no more connections: {error}");
            }
        };
        thread::Builder::new()
            .name("listener".into())
            .spawn(listen)?;
        Ok(())
    }

    fn connection(&self, _: &Request) -> Arc<dyn Connection> {
        Arc::new(Plain)
    }

    fn close_idle(&self) -> bool {
        true // tiny_http does not show them
    }
}

impl Connection for Plain {
    fn take(&self, request: Request) -> Option<Request> {
        Some(request)
    }

    fn receive(self: Arc<Self>, mut upload: Upload) {
        let (most, mut body) = (upload.most(), Vec::new());
        let read = upload.reader().take(most).read_to_end(&mut body);
        match upload.check(read.map(drop), body.len() as u64) {
            Ok(()) => upload.complete(body),
            Err(fault) => upload.refuse(fault),
        }
    }

    fn write(self: Arc<Self>, outgoing: Outgoing) {
        let Outgoing {
            mut message,
            mut writer,
            turn,
        } = outgoing;
        if let Err(error) = message.write_all(&mut writer) {
            log::debug!(
                "{}: the client did not take the answer: {error}",
                turn.client()
            );
        }
        // The writer first: the next answer of this connection waits for it.
        drop(writer);
        drop(turn);
    }

    fn reserve(self: Arc<Self>) -> Option<Box<dyn FnOnce(Outgoing) + Send>> {
        Some(Box::new(move |outgoing| self.write(outgoing)))
    }

    fn refuse(self: Arc<Self>, request: Request, message: Message, turn: Turn) {
        // tiny_http reads the rest of the body first.
        let writer = request.into_writer();
        self.write(Outgoing {
            message,
            writer,
            turn,
        });
    }
}
