//! The guard: looks at all connections again and again, and closes those on which too little happens.
//!
//! Bodies and answers that are under way are looked after by the threads that move them ([`super::transfer`]). What is
//! left are connections without a request: idle ones, heads that do not come to their end, and the small bodies that
//! tiny_http reads itself. Looking takes no system call, only closing does.

use std::io;
use std::thread;
use std::time::Instant;

use super::Shared;
use super::clock::{self, TICK, Tick};
use super::follow::Sending;
use super::pace::Patience;
use super::receive::Doing;
use super::sockets::Held;

/// Starts the guard.
pub(super) fn start(shared: &'static Shared) -> io::Result<()> {
    let watch = move || {
        let started = Instant::now();
        loop {
            thread::sleep(TICK);
            clock::set(started.elapsed());
            shared.close_overdue();
        }
    };
    thread::Builder::new().name("guard".into()).spawn(watch)?;
    Ok(())
}

impl Shared {
    fn close_overdue(&self) {
        let patience = &self.patience;
        let overdue = |doing: Doing, rested: Tick| complaint(patience, doing, rested);
        for (listed, complaint) in self.connections.select(overdue) {
            let address = listed.client.address;
            log::debug!("{address}: closing: {complaint}");
            if complaint == IDLE {
                listed.close_unless_unread();
            } else if let Some(held) = Held::new(listed.fd, address) {
                held.shut_down();
            }
        }
    }
}

const IDLE: &str = "idle";

/// What is wrong with a connection that has no request under way since that moment, if anything is.
fn complaint(patience: &Patience, doing: Doing, rested: Tick) -> Option<&'static str> {
    if doing.waits {
        return None; // a request of it is on its way to us
    }
    let taken = doing.since.ago();
    match doing.sending {
        Sending::Head if taken >= patience.head => return Some("its head took too long"),
        Sending::SmallBody { came } if taken >= patience.for_transfer(patience.earned_by(came)) => {
            return Some("its body took too long");
        }
        _ => {}
    }
    let silent = doing.last.max(rested).ago();
    (silent >= patience.idle).then_some(IDLE)
}
