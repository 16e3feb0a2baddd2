//! Decides when to write a snapshot, and runs the thread that writes it.

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
use crate::store::history::History;

/// A log of more files than this is replaced by a snapshot, however short it is. Each start adds a file.
const LOG_FILES: usize = 100;

/// Pause after a failed snapshot. It doubles with each failure, up to `RETRY_AT_MOST`.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// Writes snapshots, one at a time.
pub(super) struct Snapshotter {
    directory: Arc<Directory>,
    map: Arc<Map>,
    /// A longer log is replaced by a snapshot, unless it is shorter than three quarters of the last snapshot.
    after: u64,
    /// Number and length of the last snapshot.
    number: u64,
    bytes: u64,
    /// The snapshot that is being written.
    next: Option<Next>,
    /// Failures in a row.
    failures: Arc<AtomicU32>,
    /// The earliest time of the next try.
    not_before: Instant,
    tasks: Sender<Task>,
    results: Receiver<io::Result<u64>>,
}

/// A snapshot that is being written.
struct Next {
    number: u64,
    since: Instant,
    /// Bytes and files of the log that it will replace.
    log_bytes: u64,
    log_files: usize,
}

struct Task {
    number: u64,
    entries: Frozen,
    history: History,
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
            for Task {
                number,
                entries,
                history,
            } in orders
            {
                let at = (number, entries.revision());
                let written = snapshot::write(&place, at, entries, &history);
                if written.is_ok()
                    && let Err(error) = recovery::delete_before(&place, number)
                {
                    // The next snapshot or the next start tries again.
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

    /// The count of failures in a row, shared.
    pub(super) fn failures(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.failures)
    }

    /// Finishes a snapshot that has been written. Or begins one: if the log is long, or, with `tidy`, if most of the bytes on disk are
    /// no longer in the map. Returns whether it has checked that.
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
        // Only the calling thread applies batches, so the map is exactly what the log says up to here.
        let (entries, history) = (Frozen::of(&self.map), self.map.history());
        self.next = Some(Next {
            number,
            since: Instant::now(),
            log_bytes,
            log_files,
        });
        let task = Task {
            number,
            entries,
            history,
        };
        let _ = self.tasks.send(task); // where the thread is gone, `end` notices
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
                self.map.meters().count_snapshot(next.since.elapsed());
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
        self.map.meters().count_failed_snapshot();
        let failures = self.failures.fetch_add(1, Ordering::AcqRel);
        let pause = RETRY_AT_MOST.min(RETRY * 2_u32.saturating_pow(failures.min(16)));
        self.not_before = Instant::now() + pause;
        log::error!(
            "cannot write a snapshot to {}: {error}; the log grows, another try in {pause:?}",
            self.directory.path().display()
        );
    }
}
