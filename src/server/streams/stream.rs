//! One stream.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Sink, Subscription, Text};

/// One stream: its client, and what that has not taken yet.
pub(super) struct Stream {
    pub(super) sink: Box<dyn Sink>,
    pub(super) subscription: Box<dyn Subscription>,
    /// What it has not taken yet; of the first text, from that byte on.
    pub(super) pending: VecDeque<Text>,
    pub(super) written: usize,
    /// When it last got a text.
    pub(super) sent: Instant,
    /// How many bytes the client had taken, and since when it is that many.
    pub(super) taken: (u64, Instant),
    /// How many it will have taken when it has everything that the sink got.
    pub(super) total: u64,
    /// Whether the client has said that it sends no more.
    pub(super) half_closed: bool,
}

impl Stream {
    pub(super) fn new(sink: Box<dyn Sink>, subscription: Box<dyn Subscription>) -> Stream {
        let (now, taken) = (Instant::now(), sink.taken().unwrap_or(0));
        Stream {
            sink,
            subscription,
            pending: VecDeque::new(),
            written: 0,
            sent: now,
            taken: (taken, now),
            total: taken,
            half_closed: false,
        }
    }

    /// Sends a text behind what is pending. Returns whether nothing is pending any more.
    pub(super) fn give(&mut self, text: &Text) -> io::Result<bool> {
        self.sent = Instant::now();
        self.pending.push_back(Arc::clone(text));
        self.write()
    }

    /// Writes what is pending. Returns whether that was all.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        while let Some(text) = self.pending.front() {
            match self.sink.write(&text[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.total += bytes as u64;
                    self.written += bytes;
                    if self.written == text.len() {
                        self.pending.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// For how long the client has taken nothing, as of the looks before, while there was something for it. A client that has vanished takes
    /// nothing, and only its kernel could say so.
    pub(super) fn stalled(&mut self, now: Instant) -> Duration {
        if self.pending.is_empty() && self.taken.0 >= self.total {
            // It had everything at the last look, and nothing was sent since: the system need not be asked.
            self.taken.1 = now;
            return Duration::ZERO;
        }
        let taken = self.count_taken();
        let has_all = self.pending.is_empty() && taken >= self.total;
        if has_all || taken != self.taken.0 {
            self.taken = (taken, now);
        }
        now - self.taken.1
    }

    pub(super) fn count_taken(&self) -> u64 {
        self.sink.taken().unwrap_or(self.total)
    }
}
