//! What is being done at the moment, for whoever watches.

use std::io::{self, IsTerminal};

/// Shows what is being done, in place of what was. Nothing is shown where it would only fill a file.
pub fn show(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// Takes it away.
pub fn clear() {
    show("");
}
