//! How much memory this process may use: what the machine has, what its cgroups allow (containers, systemd), and what its own
//! resource limit allows. The smallest of them counts.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;

/// Data and bodies take three quarters of what the server may use. The rest is for connections, each of which has a thread, for buffers,
/// and for what the allocator has not given back.
const QUARTERS: u64 = 3;

/// What a connection takes at most, without the bodies that come by it: its thread, in the kernel and here, and what it has sent of a head.
const CONNECTION: u64 = 64 * 1024;

/// What to assume at most where there is no `/proc`, which is where limits would be found: 1 GiB.
const UNKNOWN: u64 = 1 << 30;

/// The cgroups of a process that cannot read which it has: those that it sees at the top are its own, if it has some to itself.
const TOPMOST: &str = "0::/\n1:memory:/\n";

/// How much memory to use for data and bodies, in bytes, and why so much.
pub fn memory_to_use() -> (u64, String) {
    let (limit, what) = memory();
    (
        limit / 4 * QUARTERS,
        format!("three quarters of {what} ({} MiB)", limit >> 20),
    )
}

/// How many connections fit into the memory that is left for them.
pub fn connections() -> usize {
    let (limit, _) = memory();
    usize::try_from(limit / 4 / CONNECTION).unwrap_or(usize::MAX)
}

/// What this process may use, in bytes, and what says so.
fn memory() -> (u64, &'static str) {
    smallest(Path::new("/"), own_limit())
}

/// The smaller of the limits that the process itself has on address space and on data (`ulimit -v`, `ulimit -d`).
pub fn own_limit() -> Option<u64> {
    let limits = [Resource::As, Resource::Data].map(|limit| getrlimit(limit).current);
    limits.into_iter().flatten().min()
}

/// The smallest limit, and whose it is. `root` is where `/proc` and `/sys` are.
fn smallest(root: &Path, own: Option<u64>) -> (u64, &'static str) {
    let machine = machine(root).map(|bytes| (bytes, "the machine's memory"));
    let cgroup = cgroups(root).map(|bytes| (bytes, "its cgroup's memory"));
    let own = own.map(|bytes| (bytes, "its own limit, see ulimit -v and -d"));
    let known = [machine, cgroup, own].into_iter().flatten();
    let smallest = known.min_by_key(|(bytes, _)| *bytes);
    smallest.unwrap_or_else(|| {
        let machine = sysinfo();
        let what = "what is assumed where /proc/meminfo cannot be read";
        (
            UNKNOWN.min(machine.totalram * u64::from(machine.mem_unit)),
            what,
        )
    })
}

/// The memory of the machine.
fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of the process's cgroup and of those above it, in both versions of cgroups.
fn cgroups(root: &Path) -> Option<u64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup"));
    let own = own.unwrap_or_else(|_| TOPMOST.into());
    let mounts = root.join("sys/fs/cgroup");
    own.lines()
        .filter_map(|line| {
            // Such as `0::/user.slice` (version 2) and `4:memory:/user.slice` (version 1).
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let path = Path::new(path.strip_prefix('/')?);
            if controllers.is_empty() {
                let unified = mounts.join("unified");
                let two = limit_of_all(&mounts, path, "memory.max");
                two.into_iter()
                    .chain(limit_of_all(&unified, path, "memory.max"))
                    .min()
            } else if controllers.split(',').any(|it| it == "memory") {
                limit_of_all(&mounts.join("memory"), path, "memory.limit_in_bytes")
            } else {
                None
            }
        })
        .min()
}

/// The smallest limit of a cgroup and of those above it. Inside a container, those above may not be there, or the container's own may
/// be where all begin.
fn limit_of_all(mount: &Path, path: &Path, file: &str) -> Option<u64> {
    let limits = path.ancestors().filter_map(|path| {
        let file: PathBuf = mount.join(path).join(file);
        // `max` stands for none.
        fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, process};

    /// A directory with files like those of the system. Removed when dropped.
    struct System(PathBuf);

    impl System {
        fn new(name: &str, files: &[(&str, &str)]) -> System {
            let root = env::temp_dir().join(format!("threadkv-machine-{name}-{}", process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            System(root)
        }
    }

    impl Drop for System {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0); // in vain at worst
        }
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       16384 kB\nMemFree:        1 kB\n",
    );

    #[test]
    fn the_machine_counts_where_nothing_else_limits() {
        let system = System::new("alone", &[MEMINFO]);
        let (bytes, what) = smallest(&system.0, None);
        assert_eq!((bytes, what), (16 << 20, "the machine's memory"));
        let (bytes, what) = smallest(&system.0, Some(1 << 20));
        assert_eq!(bytes, 1 << 20);
        assert!(what.contains("ulimit -v"));
        assert_eq!(smallest(&system.0, Some(1 << 40)).0, 16 << 20);
    }

    #[test]
    fn a_cgroup_and_those_above_it_count() {
        let own = ("proc/self/cgroup", "0::/a.slice/b.service\n");
        let limit = |path, text| (path, text);
        let system = System::new(
            "two",
            &[
                MEMINFO,
                own,
                limit("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
                limit("sys/fs/cgroup/a.slice/memory.max", "8388608\n"),
                limit("sys/fs/cgroup/other/memory.max", "1\n"),
            ],
        );
        let expected = (8 << 20, "its cgroup's memory");
        assert_eq!(smallest(&system.0, None), expected);
    }

    #[test]
    fn a_cgroup_of_version_1_counts_and_so_does_the_one_that_a_container_sees() {
        let own = (
            "proc/self/cgroup",
            "4:cpu,memory:/docker/abc\n0::/\n2:cpu:/\n",
        );
        let all = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for (name, path, text, bytes) in [
            (
                "own",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "4194304",
                4 << 20,
            ),
            ("container", all, "4194304\n", 4 << 20),
            ("none", all, "9223372036854771712\n", 16 << 20),
            (
                "unified",
                "sys/fs/cgroup/unified/memory.max",
                "2097152\n",
                2 << 20,
            ),
        ] {
            let system = System::new(name, &[MEMINFO, own, (path, text)]);
            assert_eq!(smallest(&system.0, None).0, bytes, "{name}");
        }
    }

    #[test]
    fn without_proc_it_takes_little_or_what_the_topmost_cgroup_allows() {
        let system = System::new("bare", &[("empty", "")]);
        let (bytes, what) = smallest(&system.0, None);
        assert!((1 << 20..=UNKNOWN).contains(&bytes), "{bytes}");
        assert!(what.contains("/proc/meminfo cannot be read"));
        assert_eq!(smallest(&system.0, Some(1 << 20)).0, 1 << 20);
        for (name, path) in [
            ("bare-two", "sys/fs/cgroup/memory.max"),
            ("bare-one", "sys/fs/cgroup/memory/memory.limit_in_bytes"),
        ] {
            let system = System::new(name, &[(path, "4194304\n")]);
            assert_eq!(smallest(&system.0, None), (4 << 20, "its cgroup's memory"));
        }
    }

    #[test]
    fn this_machine_has_some() {
        let (bytes, why) = memory_to_use();
        assert!(bytes > 1 << 20, "{bytes}, {why}");
    }
}
