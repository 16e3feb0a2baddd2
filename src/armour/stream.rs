//! Takes a stream to its client: writes what the socket has room for, and never waits.
//!
//! The thread of the transfers, which asks the kernel about sockets anyway, says when there is room again, and when a client is gone. It
//! moves nothing for streams.

use std::io::{self, Write};
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use rustix::net::sockopt;

use super::connection::Connection;
use super::transfer::Transfers;
use crate::server::{Outgoing, Sink, Streams};

/// How much the kernel keeps of a stream that its client does not read, about. By itself it would take some megabytes, for each client.
const SEND_BUFFER: usize = 64 * 1024;

/// What the kernel is asked to tell of: each change once.
const EVENTS: EventFlags = EventFlags::OUT
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// The socket of a stream.
pub(super) struct StreamSocket {
    connection: Arc<Connection>,
    outgoing: Outgoing,
    transfers: Arc<Transfers>,
}

impl StreamSocket {
    /// The stream with that number begins.
    pub(super) fn new(
        connection: Arc<Connection>,
        outgoing: Outgoing,
        number: u64,
        transfers: Arc<Transfers>,
        streams: &Streams,
    ) -> StreamSocket {
        let _ = sockopt::set_socket_send_buffer_size(connection.socket(), SEND_BUFFER); // in vain at worst
        if let Err(error) =
            transfers.listen_to_stream(&connection.socket(), number, EVENTS, streams)
        {
            log::error!("cannot wait for a client: {error}");
            streams.gone(number);
        }
        StreamSocket {
            connection,
            outgoing,
            transfers,
        }
    }
}

impl Sink for StreamSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.socket().write(bytes)
    }

    fn taken(&self) -> Option<u64> {
        self.connection.socket().acknowledged()
    }

    fn end(self: Box<Self>, written: io::Result<()>) {
        self.transfers.forget_stream(&self.connection.socket());
        self.connection.finish(written, self.outgoing);
    }
}

/// Tells the streams what the kernel says about one of them.
pub(super) fn tell(streams: &Streams, number: u64, events: EventFlags) {
    if events.intersects(EventFlags::ERR | EventFlags::HUP) {
        streams.gone(number);
    } else if events.contains(EventFlags::RDHUP) {
        streams.half_closed(number);
    }
    if events.contains(EventFlags::OUT) {
        streams.has_room(number);
    }
}
