//! The history of a directory, as `tests/faults/trace.rs` writes it down.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A call below the directory.
#[derive(Debug)]
pub struct Call {
    /// Its kind.
    pub name: &'static str,
    /// Whether it was made to fail, or cut short.
    pub faulty: bool,
    /// The number of the open file; 0 if the call is for a path.
    pub file: u32,
    pub path: PathBuf,
    /// What a file is renamed to.
    pub target: PathBuf,
    pub offset: u64,
    /// Bytes to read or write, the length to cut the file to, or flags.
    pub length: u64,
    /// What it returned; an errno, negative, if it failed.
    pub result: i64,
    /// How long the file was afterwards.
    pub file_length: i64,
    /// What was written.
    pub data: Vec<u8>,
    /// Where the record ends in the trace.
    pub end: u64,
}

/// The names of the kinds, in the order of their numbers.
const NAMES: [&str; 14] = [
    "create",
    "open",
    "opendir",
    "read",
    "pread",
    "write",
    "pwrite",
    "truncate",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
];

/// Bytes of a record before its path.
const HEAD: usize = 48;

impl Call {
    /// Whether it changes or syncs something: these are counted unless other kinds are asked for.
    pub fn changes(&self) -> bool {
        !matches!(self.name, "open" | "opendir" | "read" | "pread")
    }

    pub fn writes(&self) -> bool {
        matches!(self.name, "write" | "pwrite")
    }

    /// Whether its kind is among those names, which have commas between them.
    pub fn is_one_of(&self, names: &str) -> bool {
        names.split(',').any(|name| name == self.name)
    }

    /// Whether it writes to the log or syncs it, as each batch does.
    pub fn is_of_log(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        matches!(self.name, "pwrite" | "fdatasync")
            && name.is_some_and(|name| name.starts_with("log-"))
    }

    pub fn syncs(&self) -> bool {
        matches!(self.name, "fsync" | "fdatasync")
    }
}

/// All calls of a trace, in the order in which they took effect. A last one that was written down in part is left out.
pub fn read(path: &Path) -> Vec<Call> {
    let trace = fs::read(path).unwrap();
    let mut calls = Vec::new();
    let mut rest = &trace[..];
    while let Some(length) = rest.first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some((record, behind)) = rest.split_at_checked(length) else {
            break;
        };
        rest = behind;
        calls.push(read_call(record, (trace.len() - rest.len()) as u64));
    }
    // Many calls are for an open file. Whoever reads them wants to know which one that is.
    for at in 0..calls.len() {
        if calls[at].path.as_os_str().is_empty() {
            let file = calls[at].file;
            let opened = calls
                .iter()
                .find(|call| call.file == file && call.result >= 0);
            calls[at].path = opened.unwrap().path.clone();
        }
    }
    calls
}

fn read_call(record: &[u8], end: u64) -> Call {
    let number = |at: usize| i64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
    let short = |at: usize| u16::from_ne_bytes([record[at], record[at + 1]]) as usize;
    let (path, rest) = record[HEAD..].split_at(short(6));
    let (target, data) = rest.split_at(short(8));
    let name = NAMES[record[4] as usize];
    let result = number(32);
    let mut data = data.to_vec();
    if matches!(name, "write" | "pwrite") {
        // Zeros at the end have been left out.
        data.resize(result.max(0) as usize, 0);
    }
    Call {
        name,
        faulty: record[5] != 0,
        file: u32::from_ne_bytes(record[12..16].try_into().unwrap()),
        path: OsStr::from_bytes(path).into(),
        target: OsStr::from_bytes(target).into(),
        offset: number(16) as u64,
        length: number(24) as u64,
        result,
        file_length: number(40),
        data,
        end,
    }
}
