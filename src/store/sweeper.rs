//! Reclaims the space of keys that have expired. They are gone for readers already.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::memory;

use super::Command;
use super::commit::Committer;

/// How often the sweeper looks for keys that have expired.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long to leave the map to others between two steps.
const PAUSE: Duration = Duration::from_micros(50);

/// A thread that sweeps until this is dropped.
pub(super) struct Sweeper {
    _until_dropped: Sender<()>,
}

impl Sweeper {
    pub(super) fn start(committer: Arc<Committer>) -> io::Result<Sweeper> {
        let (until_dropped, dropped) = bounded(0);
        thread::Builder::new()
            .name("sweeper".into())
            .spawn(move || run(&committer, &dropped))?;
        Ok(Sweeper {
            _until_dropped: until_dropped,
        })
    }
}

/// Sweeps in small steps, each a command like any other, so that others get their turn in between.
fn run(committer: &Committer, dropped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = dropped.recv_timeout(INTERVAL) {
        while committer.sweeps() && committer.map().count_expired() {
            let (done, result) = bounded(1);
            committer.submit(Command::Sweep, move |outcome, _| {
                let _ = done.send(outcome); // has room for one
            });
            match result.recv() {
                Ok(Ok(_)) => {
                    memory::keep_up();
                    thread::sleep(PAUSE);
                }
                // The store takes no writes, or is being closed.
                _ => break,
            }
        }
    }
}
