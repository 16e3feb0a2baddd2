//! What becomes of panics: a line in the log, and word to the acceptor if it was tiny_http's accept loop that died.

use std::panic::{self, PanicHookInfo};
use std::thread;

use super::AcceptEnded;

/// Has every panic logged in one line, instead of a message and a backtrace on stderr.
pub fn report_panics(accept_ended: AcceptEnded) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        // All threads of ours have names, those of tiny_http have none.
        if thread.name().is_none() {
            log::debug!("panic in a thread of tiny_http at {place}: {message}");
            if ends_accept_loop(panic) {
                accept_ended.report(message.to_owned());
            }
        } else {
            log::error!(
                "panic in thread {} at {place}: {message}",
                thread.name().unwrap_or_default()
            );
        }
    }));
}

/// Whether this is one of the panics of tiny_http's accept thread: it could not duplicate a socket that it had
/// accepted, or could not start a thread for it. Panics of its connection threads end a connection only.
fn ends_accept_loop(panic: &PanicHookInfo<'_>) -> bool {
    let duplicating = panic
        .location()
        .is_some_and(|place| place.file().ends_with("refined_tcp_stream.rs"));
    let starting = panic
        .payload_as_str()
        .is_some_and(|message| message.starts_with("failed to spawn thread"));
    duplicating || starting
}
