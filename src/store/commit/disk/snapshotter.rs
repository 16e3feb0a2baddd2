//! When snapshots are made, and the thread that makes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::directory::Directory;
use super::log::{Log, WriteError};
use super::{recovery, snapshot};
use crate::store::Map;
use crate::store::frozen::Frozen;

/// A log of so many files is replaced, however short it is: each start adds one.
const LOG_FILES: usize = 100;

/// How long to wait after a snapshot that has failed; each time twice as long, up to the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// Makes snapshots, one at a time.
pub(super) struct Snapshotter {
    directory: Arc<Directory>,
    map: Arc<Map>,
    /// From so many bytes of the log on it is replaced by a snapshot; or from three quarters of the last snapshot's on, if that is
    /// more.
    after: u64,
    /// The last snapshot: its number and its bytes.
    number: u64,
    bytes: u64,
    /// The one that is being made.
    next: Option<Next>,
    /// How many have failed in a row.
    failures: Arc<AtomicU32>,
    /// None is made before.
    not_before: Instant,
    tasks: Sender<Task>,
    results: Receiver<io::Result<u64>>,
}

/// A snapshot that is being made.
struct Next {
    number: u64,
    /// Bytes and files of the log that it replaces.
    log_bytes: u64,
    log_files: usize,
}

struct Task {
    number: u64,
    entries: Frozen,
}

impl Snapshotter {
    pub(super) fn start(
        directory: &Arc<Directory>,
        map: &Arc<Map>,
        after: u64,
        (number, bytes): (u64, u64),
    ) -> io::Result<Snapshotter> {
        let (tasks, orders) = unbounded::<Task>();
        let (report, results) = unbounded();
        let place = Arc::clone(directory);
        let work = move || {
            for Task { number, entries } in orders {
                let written = snapshot::write(&place, number, entries);
                if written.is_ok()
                    && let Err(error) = recovery::delete_before(&place, number)
                {
                    // They are deleted behind the next snapshot, or at the next start.
                    log::warn!(
                        "cannot delete old files in {}: {error}",
                        place.path().display()
                    );
                }
                let _ = report.send(written); // nobody listens any more at the end
            }
        };
        thread::Builder::new().name("snapshot".into()).spawn(work)?;
        Ok(Snapshotter {
            directory: Arc::clone(directory),
            map: Arc::clone(map),
            after,
            number,
            bytes,
            next: None,
            failures: Arc::default(),
            not_before: Instant::now(),
            tasks,
            results,
        })
    }

    /// How many have failed in a row, for whoever wants to know later.
    pub(super) fn failures(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.failures)
    }

    /// Ends a snapshot that is made, or begins one if the log is long, or to `tidy` up if most of what is on disk is not in the map
    /// any more. Returns whether it has looked for that.
    pub(super) fn go_on(&mut self, log: &mut Log, tidy: bool) -> Result<bool, WriteError> {
        if self.next.is_some() {
            self.end(log);
            return Ok(false);
        }
        if Instant::now() < self.not_before {
            return Ok(false);
        }
        let long = log.bytes() > self.after.max(self.bytes / 4 * 3) || log.files() > LOG_FILES;
        let (held, left) = (self.bytes + log.bytes(), self.map.bytes() as u64);
        let garbage = tidy && held > self.after / 2 && held / 3 > left;
        if long || garbage {
            self.begin(log)?;
        }
        Ok(true)
    }

    fn begin(&mut self, log: &mut Log) -> Result<(), WriteError> {
        match log.begin_file() {
            Err(WriteError::Refused(error)) => {
                self.failed(&error);
                return Ok(());
            }
            result => result?,
        }
        let number = log.first();
        if number == self.number {
            return Ok(());
        }
        let (log_bytes, log_files) = log.before();
        // Whoever calls this is the only one to apply batches, so the map is what the log says up to here.
        let entries = Frozen::of(&self.map);
        self.next = Some(Next {
            number,
            log_bytes,
            log_files,
        });
        let _ = self.tasks.send(Task { number, entries }); // where the thread is gone, `end` notices
        Ok(())
    }

    fn end(&mut self, log: &mut Log) {
        let result = match self.results.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread has ended")),
        };
        let Some(next) = self.next.take() else {
            return;
        };
        match result {
            Ok(bytes) => {
                log.forget(next.log_bytes, next.log_files);
                (self.number, self.bytes) = (next.number, bytes);
                if self.failures.swap(0, Ordering::AcqRel) > 0 {
                    log::warn!(
                        "snapshots can be written to {} again",
                        self.directory.path().display()
                    );
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let failures = self.failures.fetch_add(1, Ordering::AcqRel);
        let pause = RETRY_AT_MOST.min(RETRY * 2_u32.saturating_pow(failures.min(16)));
        self.not_before = Instant::now() + pause;
        log::error!(
            "cannot write a snapshot to {}: {error}; the log grows, another try in {pause:?}",
            self.directory.path().display()
        );
    }
}
