//! Gives memory back to the system after much of it has been freed.
//!
//! The allocator of the C library keeps what is freed for later, in the hundreds of megabytes after a flood of clients or
//! a large store that was cleared. Asked, it lets go of all whole pages that are free. That takes milliseconds, and
//! pages that are needed again cost a little, so it is asked only now and then.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Less than this is not worth it.
const WORTH: u64 = 4 << 20;

/// How often it is asked at most.
const PAUSE: Duration = Duration::from_secs(6);

/// How many times as long as it took last others have for themselves: it locks parts of the allocator.
const OTHERS: u32 = 500;

static FREED: AtomicU64 = AtomicU64::new(0);

/// Takes note that about so many bytes have been freed, or will be in a moment.
pub fn freed(bytes: usize) {
    FREED.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Starts the thread that sees to it that what has been freed is given back.
pub fn start() -> io::Result<()> {
    let look = || {
        let (mut took, mut again) = (Duration::ZERO, false);
        loop {
            thread::sleep(PAUSE.max(took * OTHERS));
            let freed = FREED.swap(0, Ordering::Relaxed);
            // Once more each time, since tiny_http's threads keep theirs until they end, after five seconds.
            let due = freed >= WORTH || again;
            again = freed >= WORTH;
            if due {
                let since = Instant::now();
                give_back();
                took = since.elapsed();
                log::debug!("gave back whole pages in {took:?}");
            } else {
                FREED.fetch_add(freed, Ordering::Relaxed);
            }
        }
    };
    thread::Builder::new().name("memory".into()).spawn(look)?;
    Ok(())
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
fn give_back() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries keep less, and have no such function.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}
