//! What the transfer thread moves: a body that comes in, an answer that goes out.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::connection::Connection;
use super::pace::Pace;
use super::transfer::{Ending, Moved, Transfer};
use crate::budget::Reservation;
use crate::memory;
use crate::server::{Fault, Hold, Monitor, Outgoing, PIECE, Upload};

/// Memory for a body is reserved as it comes, in steps of so many bytes: what is only announced takes hardly any.
pub(super) const STEP: usize = 4 * 1024;

/// The longest body that is allocated before it has come.
const IN_ONE_PIECE: u64 = 1024 * 1024;

/// How much memory is reserved for each byte of a body: its own, and that of what is made of it.
const FOR_A_BYTE: usize = 2;

/// After a part of a long answer has been made, it pauses for this many times as long as that took, if others are served.
const LEFT_TO_OTHERS: u32 = 8;

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// A body that comes in, or a piece of it.
pub(super) struct IncomingBody {
    connection: Arc<Connection>,
    pace: Pace,
    upload: Upload,
    body: Vec<u8>,
    /// Memory for it, held until the request is answered.
    reserved: Reservation,
    /// Whether all of it is there.
    whole: bool,
    fault: Option<Fault>,
}

impl IncomingBody {
    pub(super) fn new(
        connection: Arc<Connection>,
        pace: Pace,
        upload: Upload,
        body: Vec<u8>,
        reserved: Reservation,
    ) -> IncomingBody {
        IncomingBody {
            connection,
            pace,
            upload,
            body,
            reserved,
            whole: false,
            fault: None,
        }
    }

    /// Receives until nothing more is there. Returns whether the body, or a piece of it, is there.
    fn receive(&mut self, scratch: &mut [MaybeUninit<u8>]) -> Result<bool, Fault> {
        loop {
            self.make_room(scratch.len())?;
            let (received, whole) = match self.connection.read_body(&mut self.body, scratch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return self.upload.check(Err(error), 0).map(|()| false),
                Ok(read) => read?,
            };
            self.pace.came(received as u64);
            self.upload.check_limit(self.body.len() as u64)?;
            self.reserve()?;
            // A short piece was all there was. What comes in the meantime is another turn.
            self.whole = whole;
            let there = whole || self.upload.is_in_pieces() && self.body.len() >= PIECE;
            if there || received < scratch.len() {
                return Ok(there);
            }
        }
    }

    /// Sees to it that so many bytes more have room. Where address space is limited there may be none, however much memory is free.
    fn make_room(&mut self, bytes: usize) -> Result<(), Fault> {
        let declared = self.upload.declared().unwrap_or(u64::MAX);
        let left = usize::try_from(declared).unwrap_or(usize::MAX) - self.body.len();
        // In one piece, so that it is not copied as it grows. Memory that is never written to costs nothing.
        let room = match declared <= IN_ONE_PIECE {
            true => self.body.try_reserve_exact(left),
            false => self.body.try_reserve(bytes.min(left)),
        };
        room.map_err(|_| Fault::Overloaded)
    }

    /// Sees to it that memory is reserved for what has come.
    fn reserve(&mut self) -> Result<(), Fault> {
        let needed = (self.body.len() * FOR_A_BYTE).next_multiple_of(STEP) as u64;
        let enough = self
            .reserved
            .grow(needed.saturating_sub(self.reserved.bytes()));
        enough.then_some(()).ok_or(Fault::Overloaded)
    }
}

impl Transfer for IncomingBody {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn event(&self) -> EventFlags {
        EventFlags::IN
    }

    fn pace(&mut self) -> &Pace {
        &self.pace
    }

    fn go_on(&mut self, scratch: &mut [MaybeUninit<u8>]) -> Moved {
        match self.receive(scratch) {
            Ok(false) => return Moved::Wait,
            Ok(true) => {}
            Err(fault) => self.fault = Some(fault),
        }
        Moved::End
    }

    fn end(self: Box<Self>, ending: Ending) {
        let fault = match ending {
            Ending::Own => self.fault,
            Ending::TooSlow => Some(Fault::TooSlow),
            Ending::Failed => Some(Fault::Internal),
        };
        memory::freed(self.body.len());
        match fault {
            Some(fault) => self.upload.refuse(fault),
            None if !self.whole => {
                let (connection, reserved) = (self.connection, self.reserved);
                self.upload.hand_over(self.body, move |upload| {
                    let transfers = Arc::clone(connection.transfers());
                    // Each piece has time of its own: the whole may take as long as it likes.
                    transfers.receive(connection, upload, Vec::new(), reserved);
                });
            }
            None => {
                let hold: Hold = Box::new(self.reserved);
                self.upload.resume(self.body, Some(hold));
            }
        }
    }
}

/// An answer that goes out.
pub(super) struct OutgoingAnswer {
    connection: Arc<Connection>,
    pace: Pace,
    outgoing: Outgoing,
    /// How many bytes the client's side has taken, as far as the kernel tells.
    acknowledged: Option<u64>,
    monitor: Arc<Monitor>,
    error: Option<io::Error>,
}

impl OutgoingAnswer {
    pub(super) fn new(
        connection: Arc<Connection>,
        pace: Pace,
        outgoing: Outgoing,
        monitor: Arc<Monitor>,
    ) -> OutgoingAnswer {
        OutgoingAnswer {
            acknowledged: connection.socket().acknowledged(),
            connection,
            pace,
            outgoing,
            monitor,
            error: None,
        }
    }

    /// Takes note of how much the client has taken meanwhile.
    fn look(&mut self) {
        let acknowledged = self.connection.socket().acknowledged();
        if let (Some(now), Some(before)) = (acknowledged, self.acknowledged) {
            self.pace.went(now - before);
        }
        self.acknowledged = acknowledged;
    }
}

impl Transfer for OutgoingAnswer {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn event(&self) -> EventFlags {
        EventFlags::OUT
    }

    fn pace(&mut self) -> &Pace {
        // Its event only comes when there is much room again.
        self.look();
        &self.pace
    }

    fn go_on(&mut self, _: &mut [MaybeUninit<u8>]) -> Moved {
        let (since, answered) = (Instant::now(), self.monitor.answered());
        let written = self
            .outgoing
            .message
            .write_to(&mut self.connection.socket());
        self.look();
        match written {
            Ok(true) => Moved::End,
            // Long answers, a listing of all keys say, take turns with the requests of others. Otherwise such an answer would take a
            // processor for itself until it is out.
            Ok(false) if self.monitor.answered() != answered => {
                Moved::Pause((since.elapsed() * LEFT_TO_OTHERS).min(LONGEST_PAUSE))
            }
            Ok(false) => Moved::Wait,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Moved::Wait,
            Err(error) => {
                self.error = Some(error);
                Moved::End
            }
        }
    }

    fn end(self: Box<Self>, ending: Ending) {
        let written = match ending {
            Ending::Own => self.error.map_or(Ok(()), Err),
            Ending::TooSlow => Err(io::ErrorKind::TimedOut.into()),
            Ending::Failed => Err(io::Error::other("a panic")), // what is out cannot be taken back
        };
        self.connection.finish(written, self.outgoing);
    }
}
