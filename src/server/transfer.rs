//! Transfer threads: everything that takes as long as the client likes.
//!
//! Bodies that are still with the client, answers too large for a socket to take at once, and requests that are
//! refused while their body is still coming. A bounded set of threads moves them, so that the workers of the pool
//! never wait for a client.

use std::io::{self, Read, Write};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tiny_http::Request;

use super::call::Call;
use super::connections::Client;
use super::pool::guard;
use super::request::Head;
use super::response::{Message, Response};
use super::sockets::Held;
use super::{Fault, Handler, Monitor, Shared};

/// How many transfers go on at the same time.
pub(super) const THREADS: usize = 32;

/// Space for a body is made up to here at once, beyond it as the bytes come: a client that only announces a large body
/// shall not cost the memory for one.
const PREALLOCATED: u64 = 64 * 1024;

/// How much of a refused body is read and thrown away, so that a client that sends first and reads later gets to read
/// the answer. Also the most that is left to tiny_http to throw away, for which it allocates as much in one piece.
const DISCARDED: u64 = 64 * 1024 * 1024;

/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(5);

/// How many times as long as a part of a long answer has taken others have for themselves before the next one.
const LEFT_TO_OTHERS: u32 = 8;

/// No longer than this, however long it has taken: it may have been the client.
const LONGEST_TURN: Duration = Duration::from_millis(5);

/// Something that waits for a client.
pub(super) enum Transfer {
    /// Read the body, then have the pool go on with the call.
    Receive {
        /// The request, whose body is [`super::request::Framing::Coming`].
        call: Call,
        /// Bytes that the client announced, at most `limit`; `None` when it sends chunks.
        declared: Option<u64>,
        /// The most bytes the body may have.
        limit: u64,
        /// What to do with the call.
        handler: Handler,
    },
    /// Write a large answer, or the rest of one.
    Send {
        /// The answer.
        message: Message,
        /// The way to the client.
        writer: Box<dyn Write + Send>,
        /// The client.
        client: Client,
    },
    /// Answer a request whose body is still coming and is not wanted, and close the connection.
    Refuse {
        /// The request.
        request: Request,
        /// Its client.
        client: Client,
        /// The answer.
        response: Response,
    },
    /// Get rid of a request without an answer: its connection has ended, or is about to.
    ThrowAway(Request),
}

/// The way to the transfer threads.
pub(super) struct Transfers {
    queue: Sender<Transfer>,
}

/// The other end of their queue.
pub(super) struct Queue(Receiver<Transfer>);

impl Transfers {
    /// A queue. It is unbounded, so that sending to it never waits; what is in it, apart from what is thrown away,
    /// belongs to a connection each.
    pub(super) fn new() -> (Transfers, Queue) {
        let (queue, receiver) = unbounded();
        (Transfers { queue }, Queue(receiver))
    }

    pub(super) fn send(&self, transfer: Transfer) {
        // Fails only when all transfer threads are gone, and they stay until the process ends.
        let _ = self.queue.send(transfer);
    }
}

/// Starts the transfer threads.
pub(super) fn start(queue: &Queue, shared: &Arc<Shared>) -> io::Result<()> {
    for n in 0..THREADS {
        let (queue, shared) = (queue.0.clone(), Arc::clone(shared));
        let transfer = move || {
            queue
                .iter()
                .for_each(|transfer| guard(|| shared.carry_out(transfer)))
        };
        thread::Builder::new()
            .name(format!("transfer-{n}"))
            .spawn(transfer)?;
    }
    Ok(())
}

impl Shared {
    fn carry_out(self: &Arc<Self>, transfer: Transfer) {
        match transfer {
            Transfer::Receive {
                call,
                declared,
                limit,
                handler,
            } => {
                self.receive(call, declared, limit, handler);
            }
            Transfer::Send {
                mut message,
                mut writer,
                client,
            } => {
                let mut courtesy = Courtesy::new(&self.monitor);
                let written = loop {
                    match message.write_to(&mut writer) {
                        Ok(true) => break Ok(()),
                        Ok(false) => courtesy.give_way(),
                        // Each attempt waits as long as the socket's own limit says.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => break Err(error),
                    }
                };
                if let Err(error) = written {
                    log::debug!("{}: the answer was not taken: {error}", client.address);
                }
                drop(writer);
                if message.ends_with_connection
                    && let Some(held) = self.connections.hold(client)
                {
                    held.shut_down_write();
                }
                self.done(client);
            }
            Transfer::Refuse {
                request,
                client,
                response,
            } => {
                self.refuse_and_close(request, client, response);
            }
            Transfer::ThrowAway(request) => throw_away(request),
        }
    }

    fn receive(
        self: &Arc<Self>,
        mut call: Call,
        declared: Option<u64>,
        limit: u64,
        handler: Handler,
    ) {
        let Some(request) = call.request_mut() else {
            return;
        };
        let mut body = Vec::with_capacity(declared.unwrap_or(0).min(PREALLOCATED) as usize);
        // One byte over the limit tells that there are more; a declared length is never exceeded.
        let read = request
            .as_reader()
            .take(declared.unwrap_or(limit + 1))
            .read_to_end(&mut body);
        let length = body.len() as u64;
        let fault = match (read, declared) {
            (Ok(_), Some(declared)) if length < declared => {
                Fault::Malformed("the body ended early")
            }
            (Ok(_), None) if length > limit => Fault::TooLarge { limit },
            // The decoder of chunks takes the end of the stream for the end of the body.
            (Ok(_), None)
                if self
                    .connections
                    .hold(call.client)
                    .is_none_or(|it| it.is_ending()) =>
            {
                Fault::Malformed("the body ended early")
            }
            (Ok(_), _) => {
                let call = call.has_body(body);
                return self.pool.resume(move || handler(call));
            }
            (Err(error), None) if error.kind() == io::ErrorKind::InvalidInput => {
                Fault::Malformed("a bad chunk")
            }
            (Err(error), _) => {
                log::debug!("{}: the body did not arrive: {error}", call.client.address);
                Fault::Malformed("the body did not arrive")
            }
        };
        let response = self.service.refuse(call.head(), fault);
        call.answer(response);
    }

    /// Answers a request whose body was not read to its end, and closes the connection: where the next request starts
    /// is not known, or is not worth the reading.
    fn refuse_and_close(&self, request: Request, client: Client, response: Response) {
        // First of all, so that nothing that was read from this connection ahead is taken for a request.
        self.connections.begin_closing(client);
        if let Some(held) = self.connections.hold(client) {
            // All answers before this one have been written, so the socket can be written to past tiny_http.
            let mut message = Message::new(Head::of(&request), response, true);
            held.limit_waiting(DISCARDING);
            let written = loop {
                match message.write_to(&mut &held) {
                    Ok(false) => {}
                    other => break other,
                }
            };
            if written.is_ok() {
                held.shut_down_write();
                discard(&held);
            }
            held.shut_down();
        }
        let void = self.connections.closed(client);
        throw_away(request);
        void.into_iter().for_each(throw_away);
    }
}

/// Long answers, a listing of all keys say, take turns with the requests of others: while there are any, most of the time
/// is left to them. Otherwise such an answer would take a processor for itself until it is out.
struct Courtesy<'a> {
    monitor: &'a Monitor,
    /// When the part began that is being made and written.
    since: Instant,
    /// How many requests had been answered then.
    answered: u64,
}

impl Courtesy<'_> {
    fn new(monitor: &Monitor) -> Courtesy<'_> {
        Courtesy {
            monitor,
            since: Instant::now(),
            answered: monitor.answered(),
        }
    }

    /// To be called between two parts.
    fn give_way(&mut self) {
        if self.monitor.answered() != self.answered {
            thread::sleep((self.since.elapsed() * LEFT_TO_OTHERS).min(LONGEST_TURN));
        }
        *self = Courtesy::new(self.monitor);
    }
}

/// Gets rid of a request of a connection that has ended; waits for it to end, if it has not.
fn throw_away(request: Request) {
    // As tiny_http understood it, whatever we make of the head.
    if request.body_length().unwrap_or(0) as u64 > DISCARDED {
        // It would allocate the whole length at once to read the rest, and the process would die of it. So the request
        // stays, with its thread.
        mem::forget(request);
    } else {
        // Takes its body along, and says nothing, unlike dropping the request.
        drop(request.into_writer());
    }
}

/// Reads what the client still sends, up to a limit, and throws it away.
fn discard(mut connection: &Held) {
    let (started, mut buffer, mut discarded) = (Instant::now(), [0; 16 * 1024], 0);
    while discarded < DISCARDED && started.elapsed() < DISCARDING {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => discarded += bytes as u64,
        }
    }
}
