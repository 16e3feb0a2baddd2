//! The door: what stands between the server and its clients.
//!
//! tiny_http reads heads; everything that then deals with a socket goes through two traits. [`Plain`] implements them as a first
//! lesson would: it reads and writes on the worker, and waits for the client as long as that takes. The `armour` module implements
//! them for a server that faces the world.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tiny_http::Request;

use super::Fault;
use super::call::{Hold, Turn};
use super::listener::Intake;
use super::message::Message;
use super::pieces::PIECE;
use super::request::{Framing, Head};
use super::streams::{Sink, Streams};
use super::upload::Upload;

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

    /// How long a connection may be idle before it is closed; `None` for as long as it likes.
    fn idle_timeout(&self) -> Option<Duration>;

    /// Closes idle connections, for a server that drains. Returns whether no connection is left that may be sending a request.
    fn close_idle(&self) -> bool;
}

/// The connection of a request: reads its body and writes its answer.
pub trait Connection: Send + Sync {
    /// Which connection it is.
    fn client(&self) -> ClientId;

    /// A request is up to be answered: says where its body is, or what is wrong with it. `None` if the connection has ended, so that
    /// nobody would read the answer.
    fn begin(&self, request: &mut Request) -> Option<Result<Payload, Fault>>;

    /// Reads a body that is not in memory yet, and lets the upload go on.
    fn receive(self: Arc<Self>, upload: Upload);

    /// Writes an answer. Called on a worker.
    fn write(self: Arc<Self>, outgoing: Outgoing);

    /// Takes texts to the client from now on: those of the stream with that number. The message has no bytes left.
    fn stream(self: Arc<Self>, outgoing: Outgoing, number: u64, streams: &Streams)
    -> Box<dyn Sink>;

    /// Answers a request whose body has not been read to its end, and closes the connection.
    fn refuse(self: Arc<Self>, request: Request, message: Message, turn: Turn);
}

/// Whose connection it is, and which.
#[derive(Clone, Copy, Debug)]
pub struct ClientId {
    /// The client's address. One that knows two addresses of the server can have a connection to each from the same address and port.
    pub address: SocketAddr,
    /// A number of the connection. Those that have the same take turns as if they were one.
    pub connection: u64,
}

/// The body of a request.
pub enum Payload {
    /// Here it is; empty if there is none. With what is held for it until the request is answered.
    Here(Vec<u8>, Option<Hold>),
    /// Still with the client: reading it takes as long as the client likes.
    Coming {
        /// How many bytes the client announced; `None` when it sends chunks.
        declared: Option<u64>,
    },
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

    fn connection(&self, request: &Request) -> Arc<dyn Connection> {
        // Only a UNIX socket has no address, and we listen on none.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = request.remote_addr().copied().unwrap_or(nowhere);
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        Arc::new(PlainConnection(ClientId {
            address,
            connection: hasher.finish(),
        }))
    }

    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    fn close_idle(&self) -> bool {
        true // tiny_http does not show them
    }
}

/// A connection behind the plain door.
struct PlainConnection(ClientId);

impl Connection for PlainConnection {
    fn client(&self) -> ClientId {
        self.0
    }

    fn begin(&self, request: &mut Request) -> Option<Result<Payload, Fault>> {
        let framing = Head::of(request).framing();
        Some(framing.map(|framing| match framing {
            Framing::Length(length) if Head::of(request).has_been_read(length) => {
                let mut body = Vec::with_capacity(length as usize);
                if length > 0 {
                    let _ = request.as_reader().read_to_end(&mut body); // from memory, cannot fail
                }
                Payload::Here(body, None)
            }
            Framing::Length(length) => Payload::Coming {
                declared: Some(length),
            },
            Framing::Chunked => Payload::Coming { declared: None },
        }))
    }

    fn receive(self: Arc<Self>, mut upload: Upload) {
        let (mut most, mut body) = (upload.most(), Vec::new());
        if upload.is_in_pieces() {
            most = PIECE as u64;
        }
        let read = upload.reader().take(most).read_to_end(&mut body);
        // tiny_http's reader ends where the body ends. One that ends with a whole piece has an empty one behind it.
        if upload.is_in_pieces() && read.is_ok() && body.len() == PIECE {
            return upload.hand_over(body, Upload::read_on);
        }
        let length = upload.handed_over() + body.len() as u64;
        match upload.check(read.map(drop), length) {
            Ok(()) => upload.complete(body, None),
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

    fn stream(
        self: Arc<Self>,
        outgoing: Outgoing,
        number: u64,
        streams: &Streams,
    ) -> Box<dyn Sink> {
        let (texts, given) = bounded(1);
        let streams = streams.clone();
        let write = move || write_texts(outgoing, &given, number, &streams);
        // Where there is no thread, nobody takes the texts, and the stream ends.
        let _ = thread::Builder::new().name("stream".into()).spawn(write);
        Box::new(PlainSink(texts))
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

/// Takes texts to a thread that writes them, and waits for the client in doing so.
struct PlainSink(Sender<Vec<u8>>);

impl Sink for PlainSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(TrySendError::Full(_)) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TrySendError::Disconnected(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn taken(&self) -> Option<u64> {
        None
    }

    fn end(self: Box<Self>, _: io::Result<()>) {} // the thread ends when it has written all
}

/// Writes texts until there are no more, or the client is gone.
fn write_texts(outgoing: Outgoing, given: &Receiver<Vec<u8>>, number: u64, streams: &Streams) {
    let Outgoing {
        mut writer, turn, ..
    } = outgoing;
    for text in given {
        let written = writer.write_all(&text).and_then(|()| writer.flush());
        if written.is_err() {
            streams.gone(number);
            break;
        }
        streams.has_room(number);
    }
    drop(writer);
    drop(turn);
}
