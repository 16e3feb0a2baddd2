//! The requests of a connection that tiny_http has been given and no worker has taken up.

use std::collections::VecDeque;

use super::head::HEAD_BYTES;
use crate::server::{Fault, Payload};

/// The most requests that wait, and the most bytes of them. tiny_http makes 2 or 3 kB of each.
pub(super) const AHEAD: usize = 32;
pub(super) const AHEAD_BYTES: usize = HEAD_BYTES;

/// What tiny_http does not know of them, in their order.
#[derive(Default)]
pub(super) struct Waiting {
    queue: VecDeque<(Result<Payload, Fault>, usize)>,
    bytes: usize,
    /// How many there have been.
    requests: u64,
}

impl Waiting {
    /// A request of about so many bytes has been handed out: its body, or why it is refused.
    pub(super) fn push(&mut self, payload: Result<Payload, Fault>, bytes: usize) {
        self.queue.push_back((payload, bytes));
        self.bytes += bytes;
        self.requests += 1;
    }

    /// A worker takes the next one up.
    pub(super) fn next(&mut self) -> Option<Result<Payload, Fault>> {
        let (payload, bytes) = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(payload)
    }

    /// Whether no more may be handed out now.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= AHEAD || self.bytes >= AHEAD_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }
}
