//! A disk that fails when it is told to, and a clock that is ahead ([`clock`]).
//!
//! A library that tests load into the server, in front of the C library (`LD_PRELOAD`). It takes over the functions by which
//! Rust's `std` reads and changes files, and carries them out by system calls of its own. For files below one directory it also
//!
//! * writes down each call, so that a test can replay the history of the directory ([`trace`]), and
//! * kills the process at a call, or lets the call fail ([`plan`]).
//!
//! Everything else passes through untouched: sockets, pipes, stderr, and files elsewhere.
//!
//! Calls below the directory happen one at a time, under one lock. So the order in which they are written down is the order in
//! which they took effect. A call that passes through takes no lock, and may come from a signal handler.

#![allow(unsafe_code, reason = "it replaces functions of the C library")]

mod clock;
mod plan;
mod trace;

use std::ffi::CStr;
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use libc::{
    DIR, c_char, c_int, c_long, c_uint, c_void, iovec, mode_t, off_t, size_t, ssize_t, syscall,
};

use plan::{Fault, Plan};
use trace::{Call, Kind};

/// Descriptors from this one on pass through. The server opens its files early, so theirs are small.
const DESCRIPTORS: usize = 1 << 16;

/// How often a call that is held up looks whether it may go on.
const LOOK: Duration = Duration::from_millis(1);

/// Which file below the directory each descriptor stands for: a number that is never given twice. 0 for anything else.
static FILES: [AtomicU32; DESCRIPTORS] = [const { AtomicU32::new(0) }; DESCRIPTORS];

/// What all calls below the directory share. Held while a call is carried out.
static STATE: Mutex<State> = Mutex::new(State {
    counted: 0,
    files: 0,
});

struct State {
    /// How many calls of the kinds that count there have been.
    counted: u64,
    /// How many files have been opened.
    files: u32,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file below the directory that a descriptor stands for.
fn file_of(fd: c_int) -> Option<u32> {
    let file = FILES.get(usize::try_from(fd).ok()?)?;
    Some(file.load(Ordering::Acquire)).filter(|file| *file > 0)
}

/// The path, if it is the directory or below it.
fn watched<'a>(path: *const c_char) -> Option<(&'static Plan, &'a [u8])> {
    let plan = Plan::get()?;
    // SAFETY: whoever calls a function of the C library with a path gives one that ends in a NUL, and keeps it meanwhile.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let below = path.strip_prefix(plan.directory.as_slice())?;
    (below.is_empty() || below[0] == b'/').then_some((plan, path))
}

/// Carries out a call below the directory, or what the plan wants instead, and writes it down. `run` is given how many bytes
/// to write or read.
fn perform(
    state: &mut State,
    plan: &Plan,
    call: Call<'_>,
    run: impl Fn(usize) -> c_long,
) -> c_long {
    let fault = plan.fault(call.kind, &mut state.counted);
    let result = match fault {
        Some(Fault::Kill) => die(),
        Some(Fault::Half) => {
            if matches!(call.kind, Kind::Write | Kind::Pwrite) {
                run(call.half());
            }
            die()
        }
        Some(Fault::Short) => run(call.half()),
        Some(Fault::Wait) => {
            while plan.is_open() {
                thread::sleep(LOOK);
            }
            run(call.length)
        }
        Some(Fault::Error(error)) => {
            set_errno(error);
            -1
        }
        None => run(call.length),
    };
    let error = errno();
    let failed = !matches!(fault, None | Some(Fault::Wait));
    plan.trace.append(&call, result, error, failed);
    set_errno(error);
    result
}

/// The same for a call that needs nothing but the lock.
fn perform_alone(plan: &Plan, call: Call<'_>, run: impl Fn(usize) -> c_long) -> c_long {
    perform(&mut state(), plan, call, run)
}

/// Ends the process as `kill -9` does.
fn die() -> ! {
    loop {
        // SAFETY: both take no pointers.
        unsafe {
            syscall(libc::SYS_kill, libc::getpid(), libc::SIGKILL);
            libc::pause();
        }
    }
}

fn errno() -> c_int {
    // SAFETY: the C library has one for each thread, which lives as long as the thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(error: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = error }
}

/// Opens a file. `call` says which file, and with which flags.
fn open_at(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: `path` is what the caller gave to `open`.
    let run = || unsafe { syscall(libc::SYS_openat, directory, path, flags, mode) };
    let Some((plan, name)) = watched(path) else {
        return run() as c_int;
    };
    let mut state = state();
    let file = state.files + 1;
    let creates = flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let call = Call {
        file,
        path: name,
        length: flags as usize,
        ..Call::new(if creates { Kind::Create } else { Kind::Open })
    };
    let fd = perform(&mut state, plan, call, |_| run()) as c_int;
    if let Some(known) = usize::try_from(fd).ok().and_then(|fd| FILES.get(fd)) {
        state.files = file;
        known.store(file, Ordering::Release);
    }
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(fd, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(fd, path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn opendir(path: *const c_char) -> *mut DIR {
    type Opendir = unsafe extern "C" fn(*const c_char) -> *mut DIR;
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut next = NEXT.load(Ordering::Acquire);
    if next.is_null() {
        // SAFETY: the name ends in a NUL.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"opendir".as_ptr()) };
        NEXT.store(next, Ordering::Release);
    }
    // SAFETY: the C library has a function of this name and type, and `path` is what the caller gave to it.
    let run = || unsafe { transmute::<*mut c_void, Opendir>(next)(path) };
    let Some((plan, name)) = watched(path) else {
        return run();
    };
    let call = Call {
        path: name,
        ..Call::new(Kind::Opendir)
    };
    // A pointer has the bits of a long; an error is -1, and here null.
    let result = perform_alone(plan, call, |_| match run() as c_long {
        0 => -1,
        pointer => pointer,
    });
    if result == -1 {
        std::ptr::null_mut()
    } else {
        result as *mut DIR
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if let Some(file) = usize::try_from(fd).ok().and_then(|fd| FILES.get(fd)) {
        // Before the descriptor can be given to something else.
        file.store(0, Ordering::Release);
    }
    // SAFETY: it takes no pointers.
    unsafe { syscall(libc::SYS_close, fd) as c_int }
}

/// Reads or writes. `bytes` are the ones to write, and `offset` is negative for the place where the file is.
fn transfer(
    kind: Kind,
    fd: c_int,
    (bytes, length): (*const c_void, size_t),
    offset: off_t,
    run: impl Fn(usize) -> c_long,
) -> ssize_t {
    let (Some(file), Some(plan)) = (file_of(fd), Plan::get()) else {
        return run(length) as ssize_t;
    };
    let data: &[u8] = match kind {
        // SAFETY: whoever writes gives so many bytes, and keeps them meanwhile.
        Kind::Write | Kind::Pwrite if length > 0 => unsafe {
            std::slice::from_raw_parts(bytes.cast(), length)
        },
        _ => &[],
    };
    let call = Call {
        file,
        fd,
        offset,
        length,
        data,
        ..Call::new(kind)
    };
    perform_alone(plan, call, run) as ssize_t
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, bytes: *mut c_void, length: size_t) -> ssize_t {
    // SAFETY: these are what the caller gave to `read`, and `length` is no larger.
    let run = |length: size_t| unsafe { syscall(libc::SYS_read, fd, bytes, length) };
    transfer(Kind::Read, fd, (bytes, length), -1, run)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, length: size_t, at: off_t) -> ssize_t {
    // SAFETY: these are what the caller gave to `pread64`, and `length` is no larger.
    let run = |length: size_t| unsafe { syscall(libc::SYS_pread64, fd, bytes, length, at) };
    transfer(Kind::Pread, fd, (bytes, length), at, run)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: these are what the caller gave to `write`, and `length` is no larger.
    let run = |length: size_t| unsafe { syscall(libc::SYS_write, fd, bytes, length) };
    transfer(Kind::Write, fd, (bytes, length), -1, run)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    at: off_t,
) -> ssize_t {
    // SAFETY: these are what the caller gave to `pwrite64`, and `length` is no larger.
    let run = |length: size_t| unsafe { syscall(libc::SYS_pwrite64, fd, bytes, length, at) };
    transfer(Kind::Pwrite, fd, (bytes, length), at, run)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if file_of(fd).is_none() || count <= 0 {
        // SAFETY: these are what the caller gave to `writev`.
        return unsafe { syscall(libc::SYS_writev, fd, parts, count) as ssize_t };
    }
    // SAFETY: there are so many of them.
    let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
    // It may write less than all, and writes the first part that has anything.
    let part = parts.iter().find(|part| part.iov_len > 0);
    // SAFETY: the part is as good as the caller's.
    part.map_or(0, |part| unsafe { write(fd, part.iov_base, part.iov_len) })
}

/// Does something with an open file: cuts or lengthens it, or syncs it.
fn change(kind: Kind, fd: c_int, length: off_t, run: impl Fn() -> c_long) -> c_int {
    let (Some(file), Some(plan)) = (file_of(fd), Plan::get()) else {
        return run() as c_int;
    };
    let call = Call {
        file,
        fd,
        length: length as usize,
        ..Call::new(kind)
    };
    perform_alone(plan, call, |_| run()) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    // SAFETY: it takes no pointers.
    let run = || unsafe { syscall(libc::SYS_ftruncate, fd, length) };
    change(Kind::Truncate, fd, length, run)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    change(Kind::Fsync, fd, 0, || unsafe {
        syscall(libc::SYS_fsync, fd)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    change(Kind::Fdatasync, fd, 0, || unsafe {
        syscall(libc::SYS_fdatasync, fd)
    })
}

/// Changes a name.
fn rename_in(
    kind: Kind,
    path: *const c_char,
    target: &[u8],
    length: usize,
    run: impl Fn() -> c_long,
) -> c_int {
    let Some((plan, path)) = watched(path) else {
        return run() as c_int;
    };
    let call = Call {
        path,
        target,
        length,
        ..Call::new(kind)
    };
    perform_alone(plan, call, |_| run()) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: whoever calls this gives a path that ends in a NUL.
    let target = unsafe { CStr::from_ptr(to) }.to_bytes();
    let here = libc::AT_FDCWD;
    // SAFETY: these are what the caller gave to `rename`.
    rename_in(Kind::Rename, from, target, 0, || unsafe {
        syscall(libc::SYS_renameat2, here, from, here, to, 0 as c_uint)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: this is what the caller gave to `unlink`.
    rename_in(Kind::Unlink, path, &[], 0, || unsafe {
        syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: this is what the caller gave to `rmdir`.
    rename_in(Kind::Rmdir, path, &[], 0, || unsafe {
        syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: this is what the caller gave to `mkdir`.
    rename_in(Kind::Mkdir, path, &[], mode as usize, || unsafe {
        syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode)
    })
}
