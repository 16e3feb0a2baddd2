//! Servers whose disk fails when it is told to: the real binary, with `tests/faults` loaded in front of the C library.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What goes wrong on the disk of a server, see `tests/faults/plan.rs`.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// What happens at which calls, such as `kill@7`.
    pub plan: String,
    /// Which calls are counted; all that change or sync something if it is empty.
    pub calls: String,
    /// Where all calls are written down.
    pub trace: Option<PathBuf>,
    /// Calls fail only while this file exists.
    pub gate: Option<PathBuf>,
}

impl Faults {
    pub fn plan(plan: impl Into<String>) -> Faults {
        Faults {
            plan: plan.into(),
            ..Faults::default()
        }
    }

    pub fn trace(path: PathBuf) -> Faults {
        Faults {
            trace: Some(path),
            ..Faults::default()
        }
    }

    /// The real binary, which is to work in the directory `data` below `watched`.
    pub fn server(&self, watched: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command
            .args(["--port", "0", "--working-dir"])
            .arg(watched.join("data"))
            .args(options)
            .env("LD_PRELOAD", library())
            .env("FAULTS_DIRECTORY", watched)
            .env("FAULTS_PLAN", &self.plan)
            .env("FAULTS_CALLS", &self.calls);
        if let Some(path) = &self.trace {
            command.env("FAULTS_TRACE", path);
        }
        if let Some(path) = &self.gate {
            command.env("FAULTS_WHILE", path);
        }
        command
    }
}

/// The library, which cargo builds as an example beside the tests.
pub fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let mut above = test.ancestors().skip(1).take(3);
    let found = above.find_map(|directory| {
        let library = directory.join("examples/libfaults.so");
        library.is_file().then_some(library)
    });
    found.unwrap_or_else(|| {
        panic!(
            "examples/libfaults.so is not above {}: `cargo test` builds it, and so does `cargo build --example faults`",
            test.display()
        )
    })
}

/// Tries cases on a few threads. Fails when all have been tried, and says for which ones and why.
pub fn try_all<T: Sync>(cases: &[T], name: impl Fn(&T) -> String + Sync, test: impl Fn(&T) + Sync) {
    /// More than there are cores: a server that starts, syncs, or waits before another try leaves them idle.
    const THREADS: usize = 8;
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Its message has been printed, and names the place.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(case))) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| panic.downcast_ref().copied().map(str::to_owned));
                        failures.lock().unwrap().push((name(case), text));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let count = failures.len();
    assert!(
        count == 0,
        "{count} of {} failed: {failures:#?}",
        cases.len()
    );
}

/// Numbers that look random, and are the same each time: a xorshift generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Seeds are small, and the generator must not begin with 0.
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of 0 to `count` - 1.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    pub fn chance(&mut self) -> bool {
        self.next() & 1 << 40 != 0
    }
}

/// A number from the environment, for those who want another or a longer run.
pub fn setting(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => default,
    }
}
