//! How many connections the machine allows.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// tiny_http duplicates the socket of each connection.
const DESCRIPTORS_A_CONNECTION: u64 = 2;

/// Descriptors that connections may not have: those of the store's files, which must be had whatever clients do, and the
/// duplicates of those who wait for clients. Where there are few altogether, half of them.
const RESERVED_DESCRIPTORS: u64 = 1280;

/// Threads that connections may not have: our own, those that tiny_http keeps for a while, and other programs'.
const RESERVED_THREADS: u64 = 1024;

/// Raises the soft limit on descriptors to the hard one, and returns what it is then.
pub fn raise_descriptor_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        log::warn!("cannot raise the limit on open files: {error}");
        return getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// The most connections that the limits on descriptors and threads leave room for.
pub fn most_connections(descriptor_limit: u64) -> usize {
    let reserved = RESERVED_DESCRIPTORS.min(descriptor_limit / 2);
    let descriptors = (descriptor_limit - reserved) / DESCRIPTORS_A_CONNECTION;
    let threads = most_threads().saturating_sub(RESERVED_THREADS);
    usize::try_from(descriptors.min(threads))
        .unwrap_or(usize::MAX)
        .max(1)
}

/// The most threads that the kernel lets this process have, as far as it says so.
fn most_threads() -> u64 {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    [
        getrlimit(Resource::Nproc).current,
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        // A thread takes four: a stack and one for signals, each with a guard page. The rest of the process takes some.
        number("/proc/sys/vm/max_map_count").map(|maps| maps / 5),
        number("/sys/fs/cgroup/pids.max"),
    ]
    .into_iter()
    .flatten()
    .min()
    .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_descriptor_limit_never_means_fewer_connections() {
        assert_eq!(most_connections(0), 1);
        assert_eq!(most_connections(1024), 256);
        assert!(most_connections(20_000) >= most_connections(1024));
    }
}
