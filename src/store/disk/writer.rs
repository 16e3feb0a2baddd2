//! The journal thread: batches of commands, made durable, then visible.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::super::{Command, Failure, Map};
use super::files::Database;
use super::patience::UnderWay;
use super::{Answer, Completion, Deliver, Durability, Job};

/// The most operations in a batch, give or take one command: more than there are clients, as a rule, and few enough to be
/// applied in a few milliseconds, which readers wait for.
const BATCH_OPERATIONS: usize = 4096;

/// The most bytes in a batch, give or take one command: as much as goes to disk in some tens of milliseconds, so that
/// large values do not make small ones wait for long.
const BATCH_BYTES: usize = 8 << 20;

/// How many times the journal thread lets others run before it closes a batch that is not full. Costs next to nothing
/// when nobody wants to.
const YIELDS: u32 = 2;

/// How often what was only kept in the process's own buffers is handed to the operating system ([`Durability::None`]).
const HAND_OVER: Duration = Duration::from_secs(1);

/// How long to wait, after something has been removed, before its space is reclaimed: more may be removed meanwhile.
const RECLAIM: Duration = Duration::from_secs(2);

/// What the journal thread works with.
pub(super) struct Writer {
    database: Database,
    durability: Durability,
    map: Arc<Map>,
    /// Set for good when a write to disk has failed.
    failed: Arc<AtomicBool>,
    /// What is being written.
    under_way: Arc<UnderWay>,
    /// Since when something that was written has not been handed to the operating system ([`Durability::None`]).
    kept_since: Option<Instant>,
    /// Since when there has been something that was removed, and may take up space.
    removed_since: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        durability: Durability,
        map: Arc<Map>,
        failed: &Arc<AtomicBool>,
        under_way: &Arc<UnderWay>,
    ) -> Writer {
        Writer {
            database,
            durability,
            map,
            failed: Arc::clone(failed),
            under_way: Arc::clone(under_way),
            kept_since: None,
            removed_since: None,
        }
    }

    /// Commits batch after batch until the queue is closed and empty.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, deliver: &Deliver) -> Result<(), Failure> {
        let mut previous = 0;
        loop {
            match jobs.recv_timeout(HAND_OVER) {
                Ok(first) => {
                    let batch = self.gather(first, jobs, previous);
                    previous = batch.len();
                    deliver(self.commit(batch));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.kept_since.is_some_and(|it| it.elapsed() >= HAND_OVER) {
                self.kept_since = None;
                self.on_disk(Vec::new(), |database| database.hand_over());
            }
            self.go_on_with_checkpoint();
        }
        // What could not be written before is not to be written now: it has been refused.
        if !self.has_failed() {
            self.on_disk(Vec::new(), |database| database.sync());
        }
        if self.has_failed() {
            Err(Failure::Unavailable)
        } else {
            Ok(())
        }
    }

    /// Makes a batch durable, if it has to be, then visible, and returns the answers that are still waited for.
    fn commit(&mut self, jobs: Vec<Job>) -> Vec<Answer> {
        if self.has_failed() {
            let refused = |job: Job| Answer {
                done: job.done,
                result: Err(Failure::Unavailable),
            };
            return jobs.into_iter().map(refused).collect();
        }
        let (mut waiting, mut outcomes) = (Vec::with_capacity(jobs.len()), Vec::new());
        let mut durable = false;
        let ((), changes) = self.map.stage(|staged| {
            for Job { command, done } in jobs {
                durable |= !matches!(command, Command::Sweep);
                waiting.push(done);
                outcomes.push(command.execute(staged));
            }
        });
        let map = Arc::clone(&self.map);
        let removes = changes.cleared || changes.entries.iter().any(|it| it.entry().is_none());
        let (written, waiting) = self.on_disk(waiting, |database| {
            database.write(&changes, durable)?;
            map.apply(changes);
            Ok(())
        });
        if written {
            let now = Instant::now();
            if removes {
                self.removed_since.get_or_insert(now);
            }
            if self.durability == Durability::None {
                self.kept_since.get_or_insert(now);
            }
        }
        let answer = move |(done, outcome)| Answer {
            done,
            result: if written {
                Ok(outcome)
            } else {
                Err(Failure::DiskFailed)
            },
        };
        waiting.into_iter().zip(outcomes).map(answer).collect()
    }

    /// Ends a checkpoint that is made, or begins one if it is needed, to shorten the log or to give back space.
    fn go_on_with_checkpoint(&mut self) {
        if self.has_failed() {
            return;
        }
        if self.database.is_making_checkpoint() {
            self.on_disk(Vec::new(), |database| database.end_checkpoint());
            return;
        }
        let mut begin = self.database.has_long_log();
        if self.removed_since.is_some_and(|it| it.elapsed() >= RECLAIM) {
            self.removed_since = None;
            begin |= self.database.holds_garbage();
        }
        if begin {
            self.on_disk(Vec::new(), |database| database.begin_checkpoint());
        }
    }

    /// Has the disk do something. Returns whether it did, and who still waits for it.
    fn on_disk(
        &mut self,
        waiting: Vec<Completion>,
        work: impl FnOnce(&mut Database) -> io::Result<()>,
    ) -> (bool, Vec<Completion>) {
        self.under_way.begin(waiting);
        let result = work(&mut self.database);
        let waiting = self.under_way.end();
        if let Err(error) = &result
            && !self.failed.swap(true, Ordering::AcqRel)
        {
            log::error!(
                "cannot write to {}: {error}; writes are refused until threadkv is restarted, reads go on",
                self.database.directory().display()
            );
        }
        (result.is_ok(), waiting)
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A job and those queued behind it, up to the bounds of a batch. Lets those who are about to submit one do so first:
    /// they are answered sooner by sharing this sync than by waiting for the next one.
    ///
    /// Takes no more than half of the clients that seem to be writing, which are those in the queue and those of the
    /// `previous` batch. With all of them in one batch, the disk would wait while they make up their next requests, and they
    /// would wait while the disk syncs.
    fn gather(&self, first: Job, jobs: &Receiver<Job>, previous: usize) -> Vec<Job> {
        let size = |job: &Job| job.command.size(|key| self.map.value_bytes(key));
        let most = (1 + jobs.len() + previous).div_ceil(2);
        let (mut operations, mut bytes) = (first.command.operations(), size(&first));
        let mut batch = vec![first];
        let mut yields = 0;
        while batch.len() < most && operations < BATCH_OPERATIONS && bytes < BATCH_BYTES {
            match jobs.try_recv() {
                Ok(job) => {
                    operations += job.command.operations();
                    bytes += size(&job);
                    batch.push(job);
                }
                Err(_) if yields < YIELDS => {
                    yields += 1;
                    thread::yield_now();
                }
                Err(_) => break,
            }
        }
        batch
    }
}
