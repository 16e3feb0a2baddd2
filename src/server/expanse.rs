//! A buffer larger than any memory, for bytes that are not there.

use std::ptr;

/// How large it may be, in bytes: as large as the machine's addresses allow.
const SIZES: [usize; 4] = [1 << 44, 1 << 40, 1 << 36, 1 << 32];

/// Addresses without memory behind them, until they are written to, which nobody does.
pub(super) struct Expanse {
    start: *mut libc::c_void,
    size: usize,
}

impl Expanse {
    /// The largest that can be had. `None` where the kernel promises no more memory than there is.
    #[expect(unsafe_code)]
    pub(super) fn new() -> Option<Expanse> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        SIZES.into_iter().find_map(|size| {
            // SAFETY: a new mapping wherever the kernel likes touches nothing that is there.
            let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
            (start != libc::MAP_FAILED).then_some(Expanse { start, size })
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
