//! A buffer larger than any memory, for bytes that are not there.

use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How large it may be, in bytes: half of all addresses where these have 47 bits, as on x86-64, and less elsewhere.
const SIZES: [usize; 4] = [1 << 46, 1 << 42, 1 << 38, 1 << 34];

/// There is room for one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Addresses without memory behind them, until they are written to, which nobody does.
pub(super) struct Expanse {
    start: *mut libc::c_void,
    size: usize,
    _only: MutexGuard<'static, ()>,
}

impl Expanse {
    /// The largest that can be had; waits until it is the only one. `None` where the kernel promises no more memory than there is.
    #[expect(unsafe_code)]
    pub(super) fn new() -> Option<Expanse> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let only = ONE.lock().unwrap_or_else(PoisonError::into_inner); // it guards no data
        let mapped = SIZES.into_iter().find_map(|size| {
            // SAFETY: a new mapping wherever the kernel likes touches nothing that is there.
            let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
            (start != libc::MAP_FAILED).then_some((start, size))
        });
        let (start, size) = mapped?;
        Some(Expanse {
            start,
            size,
            _only: only,
        })
    }

    #[expect(unsafe_code)]
    pub(super) fn as_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours alone, readable, writable and full of zeros, until it is dropped.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.size) }
    }
}

impl Drop for Expanse {
    #[expect(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and nobody refers to it any more.
        unsafe { libc::munmap(self.start, self.size) };
    }
}
