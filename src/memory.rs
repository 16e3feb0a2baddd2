//! Gives memory back to the system after much of it has been freed.
//!
//! The allocator of the C library keeps what is freed for later, in the hundreds of megabytes after a flood of clients or
//! a large store that was cleared. Asked, it lets go of all whole pages that are free. While it does, nobody can allocate
//! where they are, some 70 ms for a gigabyte, so it is asked before there is as much. Pages that are needed again cost
//! a little, so for less it is asked only now and then.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;

/// Less than this is not worth it.
const WORTH: u64 = 4 << 20;

/// So much is freed at a stretch, which takes about a millisecond.
const STEP: usize = 512 << 10;

/// How often it is asked to give back less than [`MUCH`].
const PAUSE: Duration = Duration::from_secs(6);

/// More than this would take too long. For this it is a few milliseconds, and up to twenty where what is free is scattered
/// over two gigabytes: what has been given back before is looked at again, so less at a time would not take less.
const MUCH: u64 = 16 << 20;

/// How often it is looked how much has been freed.
const LOOK: Duration = Duration::from_millis(250);

/// How many times as long as it took last others have for themselves, at least, but for [`keep_up`].
const OTHERS: u32 = 20;

static FREED: AtomicU64 = AtomicU64::new(0);

/// Whether there may be more to give back soon: tiny_http's threads keep theirs until they end, after five seconds.
static MORE: AtomicBool = AtomicBool::new(false);

/// Takes note that about so many bytes have been freed, or will be in a moment.
pub fn freed(bytes: usize) {
    FREED.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Has what was freed given back if it is much. For threads that free a lot, in between.
pub fn keep_up() {
    if FREED.load(Ordering::Relaxed) >= MUCH {
        give_back();
    }
}

/// Frees many pieces one after the other, `bytes` each, and has them given back meanwhile. At most some room for bodies waits for it, so it
/// leaves the processor to others for half of the time.
pub fn free_all<T>(pieces: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) {
    let (mut sum, mut began) = (0, Instant::now());
    for piece in pieces {
        sum += bytes(&piece);
        drop(piece);
        if sum >= STEP {
            freed(sum);
            sum = 0;
            keep_up();
            thread::sleep(began.elapsed());
            began = Instant::now();
        }
    }
    freed(sum);
}

/// Lets all threads allocate from one arena if the process has a limit of its own (`ulimit -v`). Otherwise the allocator of the C library
/// maps 64 MiB for nearly each thread. Most of that is never used, and counts all the same.
pub fn save_address_space() {
    if machine::own_limit().is_some() {
        share_one_arena();
    }
}

/// Starts the thread that sees to it that what has been freed is given back.
pub fn start() -> io::Result<()> {
    let look = || {
        let (mut last, mut took) = (Instant::now(), Duration::ZERO);
        loop {
            thread::sleep(LOOK.max(took * OTHERS));
            took = Duration::ZERO;
            let freed = FREED.load(Ordering::Relaxed);
            if freed < MUCH && last.elapsed() < PAUSE {
                continue;
            }
            last = Instant::now();
            if MORE.swap(false, Ordering::Relaxed) || freed >= WORTH {
                give_back();
                took = last.elapsed();
            }
        }
    };
    thread::Builder::new().name("memory".into()).spawn(look)?;
    Ok(())
}

fn give_back() {
    let freed = FREED.swap(0, Ordering::Relaxed);
    MORE.fetch_or(freed >= WORTH, Ordering::Relaxed);
    let since = Instant::now();
    trim();
    log::debug!("gave back whole pages in {:?}", since.elapsed());
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
fn trim() {
    // SAFETY: it may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code)]
fn share_one_arena() {
    // SAFETY: it takes no pointers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other C libraries keep less, and have no such function.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// Nor have they several arenas.
#[cfg(not(target_env = "gnu"))]
fn share_one_arena() {}
