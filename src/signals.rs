//! Receives signals: those that end the server, SIGHUP, and those that do nothing.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::api::Auth;
use crate::logging::{self, Follower};

/// How long the end may wait for stderr to take the last lines of the log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The same for an end that is to come at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Signals that ask the server to drain.
const STOP: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

/// Signals that do nothing. Without a handler each of them would end the process.
const IGNORED: [i32; 3] = [SIGUSR1, SIGUSR2, SIGALRM];

/// What SIGHUP has read again.
pub struct Files {
    /// The tokens.
    pub auth: Option<Arc<Auth>>,
    /// The level of the log.
    pub level: Option<Follower>,
}

impl Files {
    fn reload(&self) {
        if let Some(auth) = &self.auth {
            auth.reload();
        }
        if let Some(level) = &self.level {
            level.reload();
        }
        if self.auth.is_none() && self.level.is_none() {
            log::info!(
                "SIGHUP: neither --auth nor --log-level names a file that could be read again"
            );
        }
    }
}

/// Starts the thread that receives signals. The first one of [`STOP`] goes to the receiver that is returned. The second one ends the
/// process at once. While nothing is being served yet, because a large store is being loaded say, the first one does. SIGHUP has files
/// read again.
pub fn watch(serving: Arc<AtomicBool>, files: Files) -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new(STOP.iter().chain(&IGNORED).chain(&[SIGHUP]))?;
    let (first, stop) = bounded(1);
    let watch = move || {
        let mut draining = false;
        for signal in &mut signals {
            match signal {
                SIGHUP => files.reload(),
                _ if !STOP.contains(&signal) => {}
                _ if !serving.load(Ordering::Acquire) => {
                    logging::flush(LAST_LINES);
                    process::exit(0);
                }
                _ if draining => {
                    logging::flush(AT_ONCE);
                    process::exit(128 + signal); // as a shell reports a program that a signal has ended
                }
                _ => {
                    draining = true;
                    let _ = first.send(signal); // has room for one
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(stop)
}
