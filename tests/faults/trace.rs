//! What is written down of each call, for a test to read: `tests/it/trace.rs`.
//!
//! A record has these fields, numbers in the byte order of the machine, and is written as one:
//!
//! ```text
//! bytes  field
//!     4  length of the record, these four bytes included
//!     1  kind of the call: its place in `Kind::ALL`
//!     1  1 if it was made to fail, or cut short
//!     2  length of the path
//!     2  length of the path that a file is renamed to
//!     2  0
//!     4  number of the open file; 0 if the call is for a path
//!     8  offset of a read or write; -1 if it failed
//!     8  bytes to read or write, the length to cut the file to, or the flags with which it is opened
//!     8  what the call returned; if it failed, its errno, negative
//!     8  length of the file afterwards; -1 if the call does not change it
//!     n  the path, then the one that it is renamed to, then the bytes written, but without zeros at their end
//! ```

use std::ffi::CString;

use libc::{c_int, c_long, iovec, syscall};

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a file, and may create it or cut it to nothing.
    Create,
    /// Opens what is there: a file or a directory.
    Open,
    /// Opens a directory to list it.
    Opendir,
    Read,
    Pread,
    Write,
    Pwrite,
    Truncate,
    Fsync,
    Fdatasync,
    Rename,
    Unlink,
    Mkdir,
    Rmdir,
}

impl Kind {
    pub(crate) const ALL: [Kind; 14] = [
        Kind::Create,
        Kind::Open,
        Kind::Opendir,
        Kind::Read,
        Kind::Pread,
        Kind::Write,
        Kind::Pwrite,
        Kind::Truncate,
        Kind::Fsync,
        Kind::Fdatasync,
        Kind::Rename,
        Kind::Unlink,
        Kind::Mkdir,
        Kind::Rmdir,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Open => "open",
            Kind::Opendir => "opendir",
            Kind::Read => "read",
            Kind::Pread => "pread",
            Kind::Write => "write",
            Kind::Pwrite => "pwrite",
            Kind::Truncate => "truncate",
            Kind::Fsync => "fsync",
            Kind::Fdatasync => "fdatasync",
            Kind::Rename => "rename",
            Kind::Unlink => "unlink",
            Kind::Mkdir => "mkdir",
            Kind::Rmdir => "rmdir",
        }
    }

    /// Whether it changes a file or a directory, or syncs it.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Kind::Open | Kind::Opendir | Kind::Read | Kind::Pread)
    }
}

/// A call below the directory.
pub(crate) struct Call<'a> {
    pub(crate) kind: Kind,
    /// The number of the open file; 0 if the call is for a path.
    pub(crate) file: u32,
    pub(crate) fd: c_int,
    pub(crate) path: &'a [u8],
    pub(crate) target: &'a [u8],
    /// Negative for the place where the file is.
    pub(crate) offset: i64,
    pub(crate) length: usize,
    pub(crate) data: &'a [u8],
}

impl Call<'_> {
    pub(crate) fn new(kind: Kind) -> Self {
        Call {
            kind,
            file: 0,
            fd: -1,
            path: &[],
            target: &[],
            offset: -1,
            length: 0,
            data: &[],
        }
    }

    /// Half of the bytes; of those that are written, half of what comes before zeros at the end. At least one.
    pub(crate) fn half(&self) -> usize {
        match self.data.len() - zeros_at_end(self.data) {
            0 => self.length.div_ceil(2),
            bytes => bytes.div_ceil(2),
        }
    }

    /// Where the bytes of a read or write that returned `result` are in the file.
    #[expect(unsafe_code)]
    fn place(&self, result: c_long) -> i64 {
        if result < 0 || self.fd < 0 || self.offset >= 0 {
            return self.offset;
        }
        // SAFETY: it takes no pointers.
        unsafe { syscall(libc::SYS_lseek, self.fd, 0, libc::SEEK_CUR) - result }
    }

    /// How long the file is.
    #[expect(unsafe_code)]
    fn file_length(&self) -> i64 {
        if !matches!(self.kind, Kind::Write | Kind::Pwrite | Kind::Truncate) {
            return -1;
        }
        // SAFETY: all zeros are a `stat` that says nothing.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a `stat` of this size.
        unsafe { syscall(libc::SYS_fstat, self.fd, &raw mut stat) };
        stat.st_size
    }
}

/// The file to which calls are written down.
pub(crate) struct Trace(Option<c_int>);

impl Trace {
    #[expect(unsafe_code)]
    pub(crate) fn create(path: Option<Vec<u8>>) -> Trace {
        Trace(path.and_then(|path| {
            let path = CString::new(path).ok()?;
            let flags = libc::O_CREAT | libc::O_APPEND | libc::O_WRONLY | libc::O_CLOEXEC;
            // SAFETY: the path ends in a NUL.
            let fd = unsafe {
                syscall(
                    libc::SYS_openat,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    flags,
                    0o600,
                )
            };
            assert!(fd >= 0, "cannot open {path:?}");
            Some(fd as c_int)
        }))
    }

    /// Writes down a call, what it returned, and whether the plan changed that.
    #[expect(unsafe_code)]
    pub(crate) fn append(&self, call: &Call<'_>, result: c_long, error: c_int, faulty: bool) {
        let Some(fd) = self.0 else {
            return;
        };
        let written = usize::try_from(result).unwrap_or(0).min(call.data.len());
        let data = &call.data[..written];
        let data = &data[..data.len() - zeros_at_end(data)];
        let mut head = [0; 48];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            head[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        let length = 48 + call.path.len() + call.target.len() + data.len();
        put(&(length as u32).to_ne_bytes());
        put(&[call.kind as u8, faulty.into()]);
        put(&(call.path.len() as u16).to_ne_bytes());
        put(&(call.target.len() as u16).to_ne_bytes());
        put(&[0; 2]);
        put(&call.file.to_ne_bytes());
        put(&call.place(result).to_ne_bytes());
        put(&(call.length as u64).to_ne_bytes());
        put(&(if result < 0 {
            -i64::from(error)
        } else {
            result
        })
        .to_ne_bytes());
        put(&call.file_length().to_ne_bytes());
        let parts = [&head, call.path, call.target, data].map(|part| iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: these are slices, which the kernel only reads.
        let written = unsafe { syscall(libc::SYS_writev, fd, parts.as_ptr(), parts.len()) };
        // A trace that lacks something would prove anything.
        assert_eq!(written, length as c_long, "the trace cannot be written");
    }
}

fn zeros_at_end(bytes: &[u8]) -> usize {
    bytes.iter().rev().take_while(|byte| **byte == 0).count()
}
