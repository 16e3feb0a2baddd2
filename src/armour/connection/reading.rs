//! What tiny_http's thread does: it reads heads, and waits while it must not read on.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Connection, FAREWELL, Progress};
use crate::armour::hooks::borrow;
use crate::armour::inbound::Sending;
use crate::armour::waiting::AHEAD;
use crate::armour::{pace, socket};
use crate::server::{Closing, Fault, Timeouts, readable};

impl Connection {
    /// Reads for tiny_http's thread, from its descriptor: fills a part of `buffer`, and returns how much; 0 at the end of the stream. Holds
    /// the thread back while others read a body, and while too many requests wait, so that more stay in the client's own buffers.
    pub(in crate::armour) fn read(
        &self,
        fd: RawFd,
        buffer: &mut [MaybeUninit<u8>],
    ) -> io::Result<usize> {
        let mut progress = self.lock();
        loop {
            if self.has_ended() {
                return Ok(0);
            }
            let given = progress.inbound.give(buffer);
            if given > 0 {
                return Ok(given);
            }
            if progress.holds_back(AHEAD) {
                progress = self.wait(progress);
                continue;
            }
            if progress.inbound.has_ended() {
                self.end(&progress);
                return Ok(0);
            }
            if progress.inbound.has_stopped() {
                progress.inbound.receive(&[]);
                progress.since = Instant::now();
                continue;
            }
            let (missing, late) = (
                progress.inbound.missing(),
                progress.late_in(&self.transfers.timeouts),
            );
            drop(progress);
            if late.is_some_and(|time| !readable(&borrow(fd), time)) {
                progress = self.lock();
                progress.inbound.refuse(Fault::TooSlow);
                continue;
            }
            // A short body is received in one piece, whatever size the buffer has.
            let mut larger = Vec::new();
            let received = if missing > buffer.len() {
                larger.reserve_exact(missing);
                socket::receive(fd, larger.spare_capacity_mut())?
            } else {
                socket::receive(fd, buffer)?
            };
            progress = self.follow(received);
        }
    }

    /// Holds tiny_http's thread back until something has changed.
    fn wait<'a>(&self, mut progress: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
        progress.waits = true;
        let progress = self.changed.wait(progress);
        let mut progress = progress.unwrap_or_else(PoisonError::into_inner);
        progress.waits = false;
        progress
    }

    /// Notes what has been received; nothing, if the client has ended its side.
    pub(super) fn follow(&self, received: &[u8]) -> MutexGuard<'_, Progress> {
        let kind = |sending: Sending| mem::discriminant(&sending);
        let mut progress = self.lock();
        let inbound = &mut progress.inbound;
        let before = (kind(inbound.sending()), inbound.requests());
        match received.is_empty() {
            true => inbound.end(),
            false => inbound.receive(received),
        }
        let after = (kind(inbound.sending()), inbound.requests());
        let speaks_tls = inbound.speaks_tls();
        progress.last = Instant::now();
        // Something else is being sent since then.
        if after != before {
            progress.since = progress.last;
        }
        if speaks_tls {
            drop(progress);
            socket::log_tls(self.client);
            self.shut_down(Closing::Tls);
            progress = self.lock();
        }
        progress
    }

    /// tiny_http is about to close one of its two descriptors. Returns whether that was the second one.
    ///
    /// Its thread, which closes the half that reads, has nothing else to do. So it waits for the answers that are still owed. Then the
    /// client may send on for a while, until it closes its side: what arrived at a closed socket would make the kernel reset the
    /// connection, and take back what the client has not read yet (RFC 9112 section 9.6).
    pub(in crate::armour) fn close_half(&self, reads: bool) -> bool {
        let mut progress = self.lock();
        while reads && progress.owed() > 0 && !self.has_ended() {
            progress = self.wait(progress);
        }
        let farewell = match progress.farewell.take_if(|_| reads) {
            None if reads && !self.has_ended() && !self.transfers.monitor.is_draining() => {
                self.farewell()
            }
            farewell => farewell,
        };
        self.end(&progress);
        if let Some(farewell) = farewell {
            drop(progress);
            farewell.held.discard(FAREWELL);
            drop(farewell);
            progress = self.lock();
        }
        progress.closed[usize::from(reads)] = true;
        progress.closed == [true; 2]
    }
}

impl Progress {
    /// How long the client may take until more of what it is sending has come; `None` if it is sending nothing.
    fn late_in(&self, timeouts: &Timeouts) -> Option<Duration> {
        let allowed = match self.inbound.sending() {
            Sending::Nothing => return None,
            Sending::Head => timeouts.head,
            Sending::ShortBody(came) => pace::allowed(timeouts, came),
        };
        Some(allowed.saturating_sub(self.since.elapsed()))
    }
}
