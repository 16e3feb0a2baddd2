//! What workers and the transfer thread do: they take requests up, read their bodies, and write answers.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use tiny_http::Request;

use super::Connection;
use crate::armour::stream::StreamSocket;
use crate::armour::{moving, socket};
use crate::server::{
    self, ClientId, Closing, Fault, Message, Outgoing, Payload, Sink, Streams, Turn, Upload,
};

/// The word to send a body (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The transfer thread writes answers that are longer than this, in bytes: a worker would keep others waiting.
const LONG_ANSWER: usize = 64 * 1024;

impl Connection {
    /// Receives what has come of a body, without waiting, and appends it. Returns how many bytes were received, and whether the body is
    /// whole; an error of the kind `WouldBlock` says that nothing has come. `scratch` is room for what is received.
    pub(in crate::armour) fn read_body(
        &self,
        body: &mut Vec<u8>,
        scratch: &mut [MaybeUninit<u8>],
    ) -> io::Result<Result<(usize, bool), Fault>> {
        let most = self.lock().inbound.most().min(scratch.len());
        let received = socket::receive_at_hand(self.fd, &mut scratch[..most])?;
        if received.is_empty() {
            return Ok(Err(Fault::Malformed("the body ended early")));
        }
        Ok(self.add_to_body(received, body))
    }

    /// Appends to a body what has been received. Returns how many bytes that were, and whether the body is whole.
    fn add_to_body(&self, received: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Fault> {
        let mut progress = self.lock();
        let whole = progress.inbound.read_body(received, body)?;
        progress.last = Instant::now();
        progress.since = progress.last;
        self.wake(&progress);
        Ok((received.len(), whole))
    }

    /// An answer has been written, or will not be.
    pub(in crate::armour) fn finish(&self, written: io::Result<()>, outgoing: Outgoing) {
        match written {
            Ok(()) => {
                if outgoing.message.ends_with_connection {
                    self.socket().shut_down_write();
                    // What the client has sent behind it gets no answer, so it must not happen (RFC 9112, 9.6).
                    match self.transfers.monitor.is_draining() {
                        true => self.shut_down(Closing::Drained),
                        false => self.void(&mut self.lock()),
                    }
                }
                drop(outgoing.writer);
                self.count_answer();
            }
            Err(error) => {
                let client = self.client;
                log::debug!("{client}: the client did not take the answer: {error}");
                if let Some(held) = self.hold() {
                    held.forget_unsent();
                }
                drop(outgoing.writer);
                self.shut_down(Closing::Undelivered);
            }
        }
        drop(outgoing.turn);
    }
}

impl server::Connection for Connection {
    fn client(&self) -> ClientId {
        ClientId {
            address: self.client,
            connection: self.cookie,
        }
    }

    fn begin(&self, _: &mut Request) -> Option<Result<Payload, Fault>> {
        let mut progress = self.lock();
        if progress.voided.is_some() {
            return None;
        }
        let payload = progress.inbound.waiting().next();
        self.wake(&progress);
        payload
    }

    fn receive(self: Arc<Self>, upload: Upload) {
        let mut body = Vec::new();
        let there = self.add_to_body(&[], &mut body);
        let whole = there.and_then(|(_, whole)| {
            upload.check_limit(body.len() as u64)?;
            Ok(whole)
        });
        match whole {
            Ok(true) => return upload.complete(body, None),
            Ok(false) => {}
            Err(fault) => return upload.refuse(fault),
        }
        let Some(reserved) = self.transfers.budget.reserve(moving::STEP as u64) else {
            return upload.refuse(Fault::Overloaded);
        };
        let expects_continue = self.lock().inbound.take_expectation();
        if expects_continue && self.socket().write_all(CONTINUE).is_err() {
            return upload.refuse(Fault::TooSlow);
        }
        let transfers = Arc::clone(&self.transfers);
        transfers.receive(self, upload, body, reserved);
    }

    fn write(self: Arc<Self>, mut outgoing: Outgoing) {
        if !outgoing.message.is_longer_than(LONG_ANSWER) {
            match outgoing.message.write_all(&mut self.socket()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return self.finish(written, outgoing),
            }
        }
        let transfers = Arc::clone(&self.transfers);
        transfers.send(self, outgoing);
    }

    fn stream(
        self: Arc<Self>,
        outgoing: Outgoing,
        number: u64,
        streams: &Streams,
    ) -> Box<dyn Sink> {
        let transfers = Arc::clone(&self.transfers);
        Box::new(StreamSocket::new(
            self, outgoing, number, transfers, streams,
        ))
    }

    fn refuse(self: Arc<Self>, request: Request, mut message: Message, turn: Turn) {
        // As a rule the socket takes it at once.
        let told = message.write_all(&mut self.socket()).is_ok();
        match told.then(|| self.farewell()).flatten() {
            Some(farewell) => {
                let mut progress = self.lock();
                progress.farewell = Some(farewell).filter(|_| !progress.closed[1]);
                self.void(&mut progress);
            }
            None => self.shut_down(Closing::Ended),
        }
        // Now tiny_http's thread gets to read the end of the stream, and lets go of the connection.
        drop(request.into_writer());
        drop(turn);
    }
}
