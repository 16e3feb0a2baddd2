//! Programs that some tests take, and do nothing without.

use std::env;

/// Where this variable is set, a missing program is a failure.
pub const REQUIRED: &str = "TESTS_CI";

/// Whether there is such a program, which `what` takes; says so if not.
#[expect(
    clippy::print_stderr,
    reason = "whoever asks for a test's output should see it"
)]
pub fn has(program: &str, package: &str, what: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = env::split_paths(&path).any(|directory| directory.join(program).exists());
    if !there {
        assert!(
            env::var_os(REQUIRED).is_none(),
            "{program} is missing: install Debian's {package}"
        );
        eprintln!("SKIPPED: {what} takes {program}");
    }
    there
}
