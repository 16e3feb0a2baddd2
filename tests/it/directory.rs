//! A directory for one test.
//!
//! Most are in memory: a sync of a disk takes milliseconds, or a second when others write, and shows these tests nothing. A process that is
//! killed loses nothing that the kernel has, and power cuts are played on a model of the disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use rustix::fs::statvfs;

/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// More than all tests need that run at the same time.
const ENOUGH: u64 = 2 << 30;

/// Where temporary files are to be, unless `TMPDIR` says it.
fn temporary() -> PathBuf {
    let is_enough = || {
        let room = statvfs(MEMORY).ok()?;
        (room.f_bavail * room.f_frsize >= ENOUGH).then(|| PathBuf::from(MEMORY))
    };
    match env::var_os("TMPDIR") {
        Some(named) => named.into(),
        None => is_enough().unwrap_or_else(env::temp_dir),
    }
}

/// An empty directory. Removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// One in memory, where there is enough of it.
    pub fn new() -> Directory {
        Directory::below(temporary())
    }

    /// One on a disk, as a rule, for what is to be seen on a real file system.
    pub fn on_disk() -> Directory {
        Directory::below(env::temp_dir())
    }

    fn below(parent: PathBuf) -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("threadkv-test-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn path_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
