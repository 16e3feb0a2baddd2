//! A wall clock that is ahead, by so many seconds as `FAULTS_CLOCK_AHEAD` says.

use std::env;
use std::sync::OnceLock;

use libc::{c_int, clockid_t, syscall, time_t, timespec};

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    static AHEAD: OnceLock<time_t> = OnceLock::new();
    // SAFETY: the kernel writes what the caller lets it write.
    let result = unsafe { syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    if result == 0 && clock == libc::CLOCK_REALTIME {
        let ahead = AHEAD.get_or_init(|| {
            let seconds = env::var("FAULTS_CLOCK_AHEAD").ok();
            seconds.and_then(|it| it.parse().ok()).unwrap_or(0)
        });
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += ahead };
    }
    result
}
