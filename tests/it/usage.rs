//! What a server takes of the machine.

use std::fmt;
use std::fs;

use crate::process::{Server, wait_for};

/// Memory, threads and descriptors of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bytes resident.
    pub memory: u64,
    pub threads: usize,
    pub descriptors: usize,
}

impl Usage {
    pub fn of(server: &Server) -> Usage {
        let count = |what| fs::read_dir(path(server, what)).unwrap().count();
        Usage {
            memory: status(server, "VmRSS"),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.memory as f64 / 1e6;
        write!(
            f,
            "{megabytes:.1} MB, {} threads, {} descriptors",
            self.threads, self.descriptors
        )
    }
}

/// A few descriptors come and go all the time.
const SOME: usize = 8;

/// Waits until the descriptors of connections that have ended are given back.
pub fn wait_for_descriptors(server: &Server, before: &Usage) {
    wait_for("descriptors to be given back", || {
        (Usage::of(server).descriptors <= before.descriptors + SOME).then_some(())
    });
}

/// The same for threads. tiny_http's stay for five seconds before they end.
pub fn wait_for_threads(server: &Server, before: &Usage) {
    wait_for("threads to end", || {
        (Usage::of(server).threads <= before.threads + SOME).then_some(())
    });
}

/// Checks how much more memory the process has ever had since [`forget_peak`] than it had before.
#[track_caller]
pub fn expect_peak(server: &Server, before: &Usage, most: u64) {
    let more = status(server, "VmHWM").saturating_sub(before.memory);
    assert!(more < most, "{more} bytes more than {}", before.memory);
}

/// Lets the largest amount of memory ever be what it is now.
pub fn forget_peak(server: &Server) {
    fs::write(path(server, "clear_refs"), "5").unwrap();
}

fn path(server: &Server, what: &str) -> String {
    format!("/proc/{}/{what}", server.pid())
}

/// A figure of the process's status, in bytes.
fn status(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(path(server, "status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kilobytes: u64 = line
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kilobytes * 1024
}
