//! The guard: looks at all connections several times a second, and closes those on which nothing happens.
//!
//! Who waits for a client looks after how fast it is: tiny_http's threads for heads and short bodies ([`super::connection`]), the transfer
//! thread for the rest ([`super::transfer`]). What is left are connections without a request under way. A look takes no system call,
//! only closing does.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::accept::Gate;
use super::inbound::Sending;
use crate::server::Closing;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Starts the guard. It closes connections that have been idle for so long.
pub(super) fn start(gate: Arc<Gate>, idle: Duration) -> io::Result<()> {
    let watch = move || {
        loop {
            thread::sleep(LOOK);
            close_overdue(&gate, idle);
        }
    };
    thread::Builder::new().name("guard".into()).spawn(watch)?;
    Ok(())
}

fn close_overdue(gate: &Gate, idle: Duration) {
    let overdue = gate.table.select(|connection| {
        let doing = connection.doing().filter(|_| !connection.has_ended())?;
        (doing.sending == Sending::Nothing && doing.silent >= idle).then_some(())
    });
    for (connection, ()) in overdue {
        log::debug!("{}: closing: idle", connection.client);
        connection.shut_down_if_idle(Closing::Idle);
    }
    for (connection, ()) in gate.table.select(|it| it.lingers().then_some(())) {
        connection.shut_down(Closing::Lingering);
    }
}
