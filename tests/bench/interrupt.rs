//! Ending early, without leaving anything behind.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Has the first signal noticed by [`check`], and the second one end the process at once.
pub fn watch() -> io::Result<()> {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(interrupted))?;
        flag::register(signal, Arc::clone(interrupted))?;
    }
    Ok(())
}

/// An error once a signal has come. It travels up through everybody who has servers to stop and directories to remove.
pub fn check() -> Result<(), String> {
    let interrupted = INTERRUPTED.get();
    if interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        return Err("interrupted".into());
    }
    Ok(())
}
