//! The guard: looks at all connections several times a second, and closes those on which too little happens.
//!
//! The threads that move bodies and answers look after these themselves ([`super::transfer`]). What is left are connections without a
//! request under way: idle ones, heads that do not come to their end, and the small bodies that tiny_http reads itself. A look takes
//! no system call, only closing does.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::accept::Gate;
use super::connection::Doing;
use super::follow::Sending;
use super::pace;
use crate::server::Timeouts;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the guard.
pub(super) fn start(gate: Arc<Gate>, timeouts: Timeouts) -> io::Result<()> {
    let watch = move || {
        loop {
            thread::sleep(LOOK);
            close_overdue(&gate, &timeouts);
        }
    };
    thread::Builder::new().name("guard".into()).spawn(watch)?;
    Ok(())
}

fn close_overdue(gate: &Gate, timeouts: &Timeouts) {
    let overdue = gate.table.select(|connection| {
        let doing = connection.doing().filter(|_| !connection.has_ended());
        doing.and_then(|doing| complaint(timeouts, &doing))
    });
    for (connection, ()) in gate.table.select(|it| it.lingers().then_some(())) {
        connection.shut_down();
    }
    for (connection, complaint) in overdue {
        log::debug!("{}: closing: {complaint}", connection.client);
        if complaint == IDLE {
            connection.shut_down_if_idle();
        } else {
            connection.shut_down();
        }
    }
}

const IDLE: &str = "idle";

/// What is wrong with a connection, if anything is.
fn complaint(timeouts: &Timeouts, doing: &Doing) -> Option<&'static str> {
    match doing.sending {
        Sending::Head if doing.since >= timeouts.head => Some("its head took too long"),
        Sending::SmallBody { came } if doing.since >= pace::allowed(timeouts, came) => {
            Some("its body took too long")
        }
        _ => (doing.silent >= timeouts.idle).then_some(IDLE),
    }
}
