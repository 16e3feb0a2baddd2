//! Everything that takes as long as the client likes.
//!
//! Bodies that are still with the client, answers too large for a socket to take at once, and requests that are
//! refused while their body is still coming. Threads of their own move them, so that the workers of the pool never wait
//! for a client: a bounded set for each of the three, so that one kind leaves the others alone. Each has a deadline, and
//! bodies and answers a minimum rate. Who finds no place is turned away at once.

use std::io::{self, Read, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::Request;

use crate::memory;

use super::call::Call;
use super::connections::Client;
use super::crew::{Crew, Place};
use super::expanse::Expanse;
use super::listener::WRITING;
use super::pace::Pace;
use super::request::Head;
use super::response::Message;
use super::sockets::Held;
use super::{Fault, Handler, Monitor, Shared, receive};

/// How many bodies come in at the same time, and how many answers go out. A thread takes some 20 kB.
const BODIES: usize = 256;
const ANSWERS: usize = 256;

/// How many clients at a time are waited for until they have read why they are refused.
const REFUSALS: usize = 64;

/// Space for a body is made up to here at once, beyond it as the bytes come: a client that only announces a large body
/// shall not cost the memory for one. A worker tries to read bodies up to this size itself.
const PREALLOCATED: u64 = 64 * 1024;

/// How much memory all bodies that are coming may take together. A single one may always have what its limit says.
const BODY_BYTES: u64 = 1 << 30;

/// How much of a body is read before it is looked whether there is memory for more.
const PIECE: u64 = 256 * 1024;

/// How much of a refused body is read and thrown away, so that a client that sends first and reads later gets to read
/// the answer. Also the most that is left to tiny_http to throw away, for which it allocates as much in one piece.
const DISCARDED: u64 = 64 * 1024 * 1024;

/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(5);

/// How often a thread that waits for a client looks whether that is too slow.
const LOOK: Duration = Duration::from_millis(250);

/// In how many steps a body is skipped at most. A step takes less than a tenth of a microsecond.
const STEPS: usize = 1 << 22;

/// How many times as long as a part of a long answer has taken others have for themselves before the next one.
const LEFT_TO_OTHERS: u32 = 8;

/// No longer than this, however long it has taken: it may have been the client.
const LONGEST_TURN: Duration = Duration::from_millis(5);

/// The threads that wait for clients.
pub(super) struct Transfers {
    bodies: Arc<Crew>,
    /// Bytes of the bodies that are coming.
    body_bytes: AtomicU64,
    pub(super) answers: Arc<Crew>,
    refusals: Arc<Crew>,
}

impl Transfers {
    pub(super) fn new() -> Transfers {
        Transfers {
            bodies: Crew::new("transfer-in", BODIES),
            body_bytes: AtomicU64::new(0),
            answers: Crew::new("transfer-out", ANSWERS),
            refusals: Crew::new("refuse", REFUSALS),
        }
    }
}

/// A request whose body is [`super::request::Framing::Coming`].
pub(super) struct Upload {
    pub(super) call: Call,
    /// Bytes that the client announced, at most `limit`; `None` when it sends chunks.
    pub(super) declared: Option<u64>,
    /// The most bytes the body may have.
    pub(super) limit: u64,
    /// What to do with the call.
    pub(super) handler: Handler,
}

impl Shared {
    /// Reads a body, and has the pool go on with the call. For workers: what has come already is read here and now.
    pub(super) fn receive(&'static self, mut upload: Upload) {
        let mut body = Vec::new();
        if let Some(length) = upload.declared
            && length <= PREALLOCATED
            // A client that waits for the word to send has not sent anything.
            && !upload.call.head().expects_continue()
            && let Some(request) = upload.call.request_mut()
        {
            body.reserve_exact(length as usize);
            let _ = receive::at_hand(|| request.as_reader().take(length).read_to_end(&mut body));
            if body.len() as u64 == length {
                return (upload.handler)(upload.call.has_body(body));
            }
        }
        match self.transfers.bodies.place() {
            Some(place) => {
                place.give(move || self.receive_in_time(upload, body));
            }
            None => {
                let response = self.service.refuse(upload.call.head(), Fault::Overloaded);
                upload.call.answer(response);
            }
        }
    }

    /// Reads a body, of which the beginning is there.
    fn receive_in_time(&'static self, upload: Upload, mut body: Vec<u8>) {
        let Upload {
            mut call,
            declared,
            limit,
            handler,
        } = upload;
        let Some(request) = call.request_mut() else {
            return;
        };
        body.reserve(declared.unwrap_or(0).min(PREALLOCATED) as usize);
        // One byte over the limit tells that there are more; a declared length is never exceeded.
        let left = declared.unwrap_or(limit + 1) - body.len() as u64;
        let (read, ended) = receive::paced(Pace::new(self.patience), || {
            read_within(
                &self.transfers.body_bytes,
                request.as_reader(),
                left,
                &mut body,
            )
        });
        let length = body.len() as u64;
        let fault = match (read, declared) {
            (Ok(_), Some(declared)) if length < declared => {
                Fault::Malformed("the body ended early")
            }
            (Ok(_), None) if length > limit => Fault::TooLarge { limit },
            // The decoder of chunks takes the end of the stream for the end of the body.
            (Ok(_), None) if ended => Fault::Malformed("the body ended early"),
            (Ok(_), _) => {
                let call = call.has_body(body);
                return self.pool.resume(move || handler(call));
            }
            (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => return call.give_up(),
            (Err(error), _) if error.kind() == io::ErrorKind::OutOfMemory => Fault::Overloaded,
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

    /// Writes a large answer, or the rest of one, as the client takes it.
    pub(super) fn send(
        &'static self,
        place: Place,
        message: Message,
        writer: Box<dyn Write + Send>,
        client: Client,
    ) {
        place.give(move || {
            let sent = catch_unwind(AssertUnwindSafe(|| {
                self.send_in_time(message, writer, client)
            }));
            match sent {
                Ok(Ok(())) => self.done(client),
                Ok(Err(error)) => {
                    log::debug!("{}: the answer was not taken: {error}", client.address);
                    if let Some(held) = self.connections.hold(client) {
                        held.forget_unsent();
                    }
                    self.abandon(client, None);
                }
                // By whoever makes the answer as it goes out. What is out cannot be taken back.
                Err(_) => self.abandon(client, None),
            }
        });
    }

    fn send_in_time(
        &self,
        mut message: Message,
        writer: Box<dyn Write + Send>,
        client: Client,
    ) -> io::Result<()> {
        let Some(held) = self.connections.hold(client) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        held.limit_sending(LOOK);
        let mut courtesy = Courtesy::new(&self.monitor);
        let mut writer = Outflow {
            writer,
            taken: held.taken(),
            held: &held,
            pace: Pace::new(self.patience),
        };
        while !message.write_to(&mut writer)? {
            courtesy.give_way();
        }
        held.limit_sending(WRITING);
        if message.ends_with_connection {
            held.shut_down_write();
        }
        Ok(())
    }

    /// Ends a connection in the middle of a request: this one, or one of which nothing is left any more.
    pub(super) fn abandon(&self, client: Client, request: Option<Request>) {
        self.connections.end(client);
        if let Some(held) = self.connections.hold(client) {
            held.shut_down();
        }
        // Before those behind it, whose writers wait until it is gone.
        request.into_iter().for_each(throw_away);
        let void = self.connections.closed(client);
        void.into_iter().for_each(throw_away);
    }

    /// Answers a request whose body was not read to its end, and closes the connection: where the next request starts
    /// is not known, or is not worth the reading.
    pub(super) fn refuse(&'static self, request: Request, client: Client, message: Message) {
        // First of all, so that nothing that was read from this connection ahead is taken for a request.
        self.connections.begin_closing(client);
        let Some(place) = self.transfers.refusals.place() else {
            return self.refuse_and_close(request, client, message, Duration::ZERO);
        };
        place.give(move || self.refuse_and_close(request, client, message, DISCARDING));
    }

    fn refuse_and_close(
        &self,
        request: Request,
        client: Client,
        mut message: Message,
        patience: Duration,
    ) {
        if let Some(held) = self.connections.hold(client) {
            // All answers before this one have been written, so the socket can be written to past tiny_http. As a rule it
            // takes an error at once.
            held.limit_sending(patience.max(WRITING));
            let written = loop {
                match message.write_to(&mut &held) {
                    Ok(false) => {}
                    other => break other,
                }
            };
            if written.is_ok() {
                held.shut_down_write();
                discard(&held, patience);
            }
        }
        self.abandon(client, Some(request));
    }
}

/// Reads up to `left` bytes, as long as all who do so have no more than [`BODY_BYTES`]; else there is an error of the kind
/// `OutOfMemory`.
fn read_within(
    used: &AtomicU64,
    reader: &mut dyn Read,
    mut left: u64,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    /// What one body has of it.
    struct Share<'a>(&'a AtomicU64, u64);
    impl Drop for Share<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(self.1, Ordering::Relaxed);
            memory::freed(self.1 as usize);
        }
    }
    let mut share = Share(used, 0);
    while left > 0 {
        let piece = left.min(PIECE);
        let others = used.fetch_add(piece, Ordering::Relaxed) - share.1;
        share.1 += piece;
        if others > 0 && others + share.1 > BODY_BYTES {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let read = reader.take(piece).read_to_end(body)? as u64;
        left -= read;
        if read < piece {
            break;
        }
    }
    Ok(())
}

/// The way to a client that must keep up.
struct Outflow<'a> {
    writer: Box<dyn Write + Send>,
    held: &'a Held,
    /// How many bytes the client's side has taken, as far as the kernel tells.
    taken: Option<u64>,
    pace: Pace,
}

impl Outflow<'_> {
    /// So many bytes have gone into the socket.
    fn look(&mut self, written: usize) -> io::Result<()> {
        let taken = self.held.taken();
        let went = match (taken, self.taken) {
            (Some(now), Some(before)) => now - before,
            _ => written as u64,
        };
        self.taken = taken;
        self.pace.went(went);
        if self.pace.left().is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Write for Outflow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.writer.write(bytes) {
                Ok(written) => {
                    self.look(written)?;
                    return Ok(written);
                }
                // Each attempt waits as long as the socket's own limit says.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.look(0)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.writer.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.look(0)?,
                other => return other,
            }
        }
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

/// Gets rid of a request of a connection that has ended, without waiting for anybody.
pub(super) fn throw_away(mut request: Request) {
    // As tiny_http understood it, whatever we make of the head.
    if request.body_length().unwrap_or(0) as u64 > DISCARDED && !skip_body(&mut request) {
        // It would allocate the whole length at once to read the rest, and the process would die of it. So the request
        // stays, with its thread and its descriptors.
        log::warn!("a request with a huge body keeps a thread until the server stops");
        return mem::forget(request);
    }
    let chunked = Head::of(&request).header("Transfer-Encoding").is_some();
    if chunked {
        // What has been read of it already, tiny_http would take for the next request.
        let _ = receive::at_end(|| io::copy(request.as_reader(), &mut io::sink()));
    }
    // Takes its body along, and says nothing, unlike dropping the request.
    drop(request.into_writer());
}

/// Has tiny_http believe that all of the body has been read. It counts down what is left, and so has nothing left to read
/// when it is done with the request. Says whether that was possible.
fn skip_body(request: &mut Request) -> bool {
    let length = request.body_length().unwrap_or(0);
    let Some(mut expanse) = Expanse::new() else {
        return false;
    };
    let nowhere = expanse.as_slice();
    if length / nowhere.len() > STEPS {
        return false;
    }
    receive::pretended(|| {
        let (body, mut left) = (request.as_reader(), length);
        // There may be less left than that. Where the request asks for an upgrade, there is no end at all.
        while left > 0 {
            let most = left.min(nowhere.len());
            match body.read(&mut nowhere[..most]) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => left -= bytes,
            }
        }
    });
    true
}

/// Reads what the client still sends, up to a limit, and throws it away.
fn discard(mut connection: &Held, patience: Duration) {
    let (deadline, mut buffer, mut discarded) = (Instant::now() + patience, [0; 16 * 1024], 0);
    while discarded < DISCARDED {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !connection.is_readable(left) {
            return;
        }
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => discarded += bytes as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_so_much_memory_together_and_one_may_have_more() {
        let (used, mut body) = (AtomicU64::new(0), Vec::new());
        let mut read = |left: u64| read_within(&used, &mut io::repeat(1), left, &mut body);
        read(3 * PIECE + 1).unwrap();
        assert_eq!(used.load(Ordering::Relaxed), 0);
        used.store(BODY_BYTES - PIECE, Ordering::Relaxed);
        read(PIECE).unwrap();
        let error = read(PIECE + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(used.load(Ordering::Relaxed), BODY_BYTES - PIECE);
        assert_eq!(body.len() as u64, 3 * PIECE + 1 + PIECE + PIECE);
    }
}
