//! Bodies and answers that take as long as the client likes.
//!
//! Threads of their own move them, so that workers never wait for a client: a bounded set for each of the two, so that one kind leaves
//! the other alone. Each transfer has a deadline and a minimum rate. A request that finds no thread is turned away at once.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Connection, WRITING};
use super::crew::Crew;
use super::pace::Pace;
use super::reading::{Reading, in_manner};
use super::socket::Held;
use crate::memory;
use crate::server::{Fault, Monitor, Outgoing, Timeouts, Upload};

/// The most bodies that come in, and the most answers that go out, at a time. A thread takes some 20 kB.
const BODIES: usize = 256;
const ANSWERS: usize = 256;

/// Memory for a body is allocated up to here at once, beyond it as the bytes come: a client that only announces a large body
/// shall not cost the memory for one. A worker tries to read bodies up to this size itself.
const PREALLOCATED: u64 = 64 * 1024;

/// The most bytes of all bodies that are coming. A single one may always have what its limit says.
const BODY_BYTES: u64 = 1 << 30;

/// Bytes of a body that are read before looking whether there is memory for more.
const PIECE: u64 = 256 * 1024;

/// How long a write of a transfer thread waits for room in the socket before the thread looks whether the client is too slow.
const LOOK: Duration = Duration::from_millis(250);

/// After a part of a long answer has been written, the thread rests this many times as long as that took, if others are served.
const LEFT_TO_OTHERS: u32 = 8;

/// The longest such rest: what took long may have been the client.
const LONGEST_REST: Duration = Duration::from_millis(5);

/// The threads that wait for clients, and what they have in common.
pub(super) struct Transfers {
    pub(super) timeouts: Timeouts,
    monitor: Arc<Monitor>,
    bodies: Arc<Crew>,
    answers: Arc<Crew>,
    /// Bytes of the bodies that are coming.
    body_bytes: AtomicU64,
    /// Refused clients that may send on for a while.
    pub(super) farewells: AtomicUsize,
}

impl Transfers {
    pub(super) fn new(timeouts: Timeouts, monitor: Arc<Monitor>) -> Transfers {
        Transfers {
            timeouts,
            monitor,
            bodies: Crew::new("transfer-in", BODIES),
            answers: Crew::new("transfer-out", ANSWERS),
            body_bytes: AtomicU64::new(0),
            farewells: AtomicUsize::new(0),
        }
    }
}

/// Reads a body. A worker reads what has come already here and now, and leaves the rest to a thread.
pub(super) fn receive(transfers: &Arc<Transfers>, connection: Arc<Connection>, mut upload: Upload) {
    let mut body = Vec::new();
    if let Some(length) = upload.declared()
        && length <= PREALLOCATED
        // A client that waits for `100 Continue` has not sent anything.
        && !upload.head().expects_continue()
    {
        body.reserve_exact(length as usize);
        let at_hand = Reading::AtHand(Arc::clone(&connection));
        let _ = in_manner(at_hand, || {
            upload.reader().take(length).read_to_end(&mut body)
        });
        if body.len() as u64 == length {
            return upload.complete(body);
        }
    }
    match transfers.bodies.place() {
        Some(place) => {
            let transfers = Arc::clone(transfers);
            place.give(move || receive_in_time(&transfers, connection, upload, body));
        }
        None => upload.refuse(Fault::Overloaded),
    }
}

/// Reads a body of which the beginning is there.
fn receive_in_time(
    transfers: &Transfers,
    connection: Arc<Connection>,
    mut upload: Upload,
    mut body: Vec<u8>,
) {
    body.reserve(upload.declared().unwrap_or(0).min(PREALLOCATED) as usize);
    let left = upload.most() - body.len() as u64;
    let reading = Reading::Paced {
        connection: Arc::clone(&connection),
        pace: Pace::new(transfers.timeouts),
        ended: false,
    };
    let (read, reading) = in_manner(reading, || {
        read_within(&transfers.body_bytes, upload.reader(), left, &mut body)
    });
    // tiny_http's decoder of chunks takes the end of the stream for the end of the body, and gives errors another kind.
    let (ended, timed_out) = match reading {
        Some(Reading::Paced { pace, ended, .. }) => (ended, pace.left().is_zero()),
        _ => (false, false),
    };
    match read {
        Err(_) if timed_out => {
            if let Some((request, turn)) = upload.into_request() {
                connection.abandon(Some(request));
                drop(turn);
            }
        }
        Ok(()) if ended => upload.refuse(Fault::Malformed("the body ended early")),
        read => match upload.check(read, body.len() as u64) {
            Ok(()) => upload.resume(body),
            Err(fault) => upload.refuse(fault),
        },
    }
}

/// Reads up to `left` bytes, as long as all bodies have no more than [`BODY_BYTES`] together; else there is an error of the kind
/// `OutOfMemory`.
fn read_within(
    used: &AtomicU64,
    reader: &mut dyn Read,
    mut left: u64,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    /// This body's share of the bytes.
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

/// Reserves a thread for a large answer, or for the rest of one.
pub(super) fn reserve(
    transfers: &Arc<Transfers>,
    connection: Arc<Connection>,
) -> Option<Box<dyn FnOnce(Outgoing) + Send>> {
    let (place, transfers) = (transfers.answers.place()?, Arc::clone(transfers));
    Some(Box::new(move |outgoing| {
        place.give(move || {
            let Outgoing {
                mut message,
                writer,
                turn,
            } = outgoing;
            // What makes the answer as it goes out may panic. What is out cannot be taken back.
            let sent = catch_unwind(AssertUnwindSafe(|| {
                let pace = Pace::new(transfers.timeouts);
                send(&connection, &mut message, writer, pace, &transfers.monitor)
            }));
            let sent = sent.unwrap_or_else(|_| Err(io::Error::other("a panic")));
            connection.finish(sent, turn);
        });
    }))
}

/// Writes an answer as the client takes it.
fn send(
    connection: &Connection,
    message: &mut crate::server::Message,
    writer: Box<dyn Write + Send>,
    pace: Pace,
    monitor: &Monitor,
) -> io::Result<()> {
    let held = connection.hold().ok_or(io::ErrorKind::NotConnected)?;
    held.set_send_timeout(LOOK);
    let mut writer = Outflow {
        writer,
        acknowledged: held.acknowledged(),
        held: &held,
        pace,
    };
    loop {
        let (since, answered) = (Instant::now(), monitor.answered());
        if message.write_to(&mut writer)? {
            break;
        }
        // Long answers, a listing of all keys say, take turns with the requests of others. Otherwise such an answer would take a
        // processor for itself until it is out.
        if monitor.answered() != answered {
            thread::sleep((since.elapsed() * LEFT_TO_OTHERS).min(LONGEST_REST));
        }
    }
    held.set_send_timeout(WRITING);
    if message.ends_with_connection {
        held.shut_down_write();
    }
    Ok(())
}

/// The way to a client that must keep up.
struct Outflow<'a> {
    writer: Box<dyn Write + Send>,
    held: &'a Held,
    /// How many bytes the client's side has taken, as far as the kernel tells.
    acknowledged: Option<u64>,
    pace: Pace,
}

impl Outflow<'_> {
    /// So many bytes have gone into the socket.
    fn look(&mut self, written: usize) -> io::Result<()> {
        let acknowledged = self.held.acknowledged();
        let went = match (acknowledged, self.acknowledged) {
            (Some(now), Some(before)) => now - before,
            _ => written as u64,
        };
        self.acknowledged = acknowledged;
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
                // Each attempt waits as long as the socket's send timeout says.
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
