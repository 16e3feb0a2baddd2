//! Commits writes to disk before they take effect.
//!
//! Commands queue up for one journal thread. It drains the queue, carries the commands out on a staged copy, writes
//! what they amount to in one atomic batch, syncs once, applies it to the map, and hands the answers back. So writes
//! that wait together share one sync, no reader sees what a crash could take back, and whoever submitted a command
//! never waits for the disk. The size of a batch is bound by the clients in flight.
//!
//! [`files`] knows the directory: lock, format, and the database in it. [`journals`] and [`manifest`] look for damage
//! before that is opened, and [`record`] says how an entry looks in it. [`patience`] answers those whose write the disk
//! does not get done.

mod files;
mod journals;
mod manifest;
mod patience;
mod record;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

pub use files::OpenError;

use super::{Command, Failure, Map, Outcome};
use files::Database;
use patience::{Patience, UnderWay};

/// The most commands in a batch: more than there are clients, as a rule, and few enough to be carried out and applied
/// in a few milliseconds, which readers wait for.
const BATCH_COMMANDS: usize = 4096;

/// The most bytes in a batch, give or take one command: as much as goes to disk in some tens of milliseconds, so that
/// large values do not make small ones wait for long.
const BATCH_BYTES: usize = 8 << 20;

/// How many times the journal thread lets others run before it closes a batch that is not full. Costs next to nothing
/// when nobody wants to.
const YIELDS: u32 = 2;

/// How often what was only kept in the process's own buffers is handed to the operating system ([`Durability::None`]).
const HAND_OVER: Duration = Duration::from_secs(1);

/// How long to wait, after something has been removed, before space is reclaimed: more may be removed meanwhile.
const RECLAIM: Duration = Duration::from_secs(2);

/// How much space files may take up before it is reclaimed.
const GARBAGE_BYTES: u64 = 8 << 20;

/// How many bytes of entries may be written anew to reclaim space. Writes wait for it, some tens of milliseconds.
const REWRITTEN_BYTES: u64 = 2 << 20;

/// How long closing may take: as long as requests under way are waited for before it.
const CLOSING: Duration = Duration::from_secs(15);

/// What an answered write means (contract, "Durability").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk, and survives a power cut.
    Sync,
    /// It has been handed to the operating system, and survives the end of the process.
    Os,
    /// It is handed over about once a second, and at a clean shutdown.
    None,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Sync => "sync",
            Durability::Os => "os",
            Durability::None => "none",
        })
    }
}

/// What is called with what came of a command.
pub(super) type Completion = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// What is called with the answers of a batch.
type Deliver = dyn Fn(Vec<Answer>) + Send + Sync;

/// What came of a command, on its way to whoever submitted it.
pub struct Answer {
    done: Completion,
    result: Result<Outcome, Failure>,
}

impl Answer {
    /// Tells whoever submitted the command.
    pub fn deliver(self) {
        (self.done)(self.result);
    }
}

/// The way to the journal thread.
pub(super) struct Journal {
    /// `None` once closed. Unbounded, so that submitting never waits, and yet short: each connection of the server has
    /// one command under way at most. Held for a send, which does not wait.
    queue: Mutex<Option<Sender<Job>>>,
    /// Disconnected when the journal thread has ended.
    ended: Receiver<Result<(), Failure>>,
    failed: Arc<AtomicBool>,
    under_way: Arc<UnderWay>,
}

struct Job {
    command: Command,
    done: Completion,
}

impl Journal {
    /// Opens the database, loads it into the map, and starts the journal thread.
    pub(super) fn open(
        directory: &Path,
        durability: Durability,
        map: Arc<Map>,
        deliver: impl Fn(Vec<Answer>) + Send + Sync + 'static,
    ) -> Result<Journal, OpenError> {
        let (database, entries) = Database::open(directory, durability)?;
        map.load(entries);
        let (queue, jobs) = unbounded();
        let failed = Arc::new(AtomicBool::new(false));
        let under_way = Arc::new(UnderWay::default());
        let deliver: Arc<Deliver> = Arc::new(deliver);
        let patience = Patience {
            under_way: Arc::clone(&under_way),
            jobs: jobs.clone(),
            deliver: Arc::clone(&deliver),
        };
        let writer = Writer {
            database,
            durability,
            map,
            failed: Arc::clone(&failed),
            under_way: Arc::clone(&under_way),
            kept_since: None,
            removed_since: None,
        };
        let (end, ended) = bounded(1);
        let thread_error =
            |error| OpenError::Io("start the journal thread for", directory.into(), error);
        patience.start().map_err(thread_error)?;
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let _ended = Ended(Arc::clone(&writer.under_way));
                let _ = end.send(writer.run(&jobs, &*deliver)); // has room for one
            })
            .map_err(thread_error)?;
        Ok(Journal {
            queue: Mutex::new(Some(queue)),
            ended,
            failed,
            under_way,
        })
    }

    pub(super) fn submit(&self, command: Command, done: Completion) {
        let job = Job { command, done };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = match &*queue {
            Some(queue) if !self.under_way.is_stalled() => {
                queue.send(job).err().map(|refused| refused.into_inner())
            }
            _ => Some(job),
        };
        drop(queue);
        if let Some(job) = refused {
            (job.done)(Err(Failure::Unavailable));
        }
    }

    /// Whether no write has failed, or takes too long.
    pub(super) fn is_available(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.under_way.is_stalled()
    }

    /// Commits what has been submitted, makes it durable, and ends the thread. Gives up where the disk takes too long.
    pub(super) fn close(&self) -> Result<(), Failure> {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        match self.ended.recv_timeout(CLOSING) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(Failure::TimedOut),
            // It has panicked.
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Unavailable),
        }
    }
}

/// Tells that the journal thread has ended, however it did.
struct Ended(Arc<UnderWay>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end_for_good();
    }
}

/// What the journal thread works with.
struct Writer {
    database: Database,
    durability: Durability,
    map: Arc<Map>,
    /// Set for good when a write to disk has failed.
    failed: Arc<AtomicBool>,
    /// The batch that is being written.
    under_way: Arc<UnderWay>,
    /// Since when something that was written has not been handed to the operating system ([`Durability::None`]).
    kept_since: Option<Instant>,
    /// Since when there has been something that was removed, and may take up space.
    removed_since: Option<Instant>,
}

impl Writer {
    /// Commits batch after batch until the queue is closed and empty.
    fn run(mut self, jobs: &Receiver<Job>, deliver: &Deliver) -> Result<(), Failure> {
        let mut previous = 0;
        loop {
            match jobs.recv_timeout(HAND_OVER) {
                Ok(first) => {
                    let batch = gather(first, jobs, previous);
                    previous = batch.len();
                    deliver(self.commit(batch));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self
                .kept_since
                .is_some_and(|since| since.elapsed() >= HAND_OVER)
            {
                self.hand_over();
            }
            if self
                .removed_since
                .is_some_and(|since| since.elapsed() >= RECLAIM)
            {
                self.removed_since = None;
                self.reclaim();
            }
        }
        if let Err(error) = self.database.sync() {
            self.fail(&error);
        }
        if self.failed.load(Ordering::Acquire) {
            Err(Failure::Unavailable)
        } else {
            Ok(())
        }
    }

    /// Makes a batch durable, then visible, and returns the answers that are still waited for.
    fn commit(&mut self, jobs: Vec<Job>) -> Vec<Answer> {
        if self.failed.load(Ordering::Acquire) {
            let refused = |job: Job| Answer {
                done: job.done,
                result: Err(Failure::Unavailable),
            };
            return jobs.into_iter().map(refused).collect();
        }
        let (mut completions, mut results) = (Vec::with_capacity(jobs.len()), Vec::new());
        let ((), changes) = self.map.stage(|staged| {
            for Job { command, done } in jobs {
                completions.push(done);
                results.push(Ok(command.execute(staged)));
            }
        });
        self.under_way.begin(completions);
        match self.database.write(&changes) {
            Ok(()) => {
                if changes.entries.values().any(Option::is_none) {
                    self.removed_since.get_or_insert_with(Instant::now);
                }
                self.map.apply(changes);
                if self.durability == Durability::None {
                    self.kept_since.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => {
                self.fail(&error);
                results.fill(Err(Failure::Unavailable));
            }
        }
        let completions = self.under_way.end().into_iter();
        completions
            .zip(results)
            .map(|(done, result)| Answer { done, result })
            .collect()
    }

    /// Gives back the space of removed entries where it is much and few are left: these are written anew, as the beginning
    /// of a generation. Where many are left, space is reclaimed as fjall merges its files, which takes further writes.
    fn reclaim(&mut self) {
        let (used, left) = (self.database.used(), self.map.bytes() as u64);
        if self.failed.load(Ordering::Acquire) || used < GARBAGE_BYTES || left > REWRITTEN_BYTES {
            return;
        }
        let ((), changes) = self.map.stage(|staged| staged.write_anew());
        if let Err(error) = self.database.write(&changes) {
            self.fail(&error);
        }
    }

    fn hand_over(&mut self) {
        self.kept_since = None;
        if let Err(error) = self.database.hand_over() {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &fjall::Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            log::error!(
                "cannot write to {}: {}; writes are refused until threadkv is restarted, reads go on",
                self.database.directory().display(),
                files::cause(error)
            );
        }
    }
}

/// A job and those queued behind it, up to the bounds of a batch. Lets those who are about to submit one do so first:
/// they are answered sooner by sharing this sync than by waiting for the next one.
///
/// Takes no more than half of the clients that seem to be writing, which are those in the queue and those of the
/// `previous` batch. With all of them in one batch, the disk would wait while they make up their next requests, and they
/// would wait while the disk syncs.
fn gather(first: Job, jobs: &Receiver<Job>, previous: usize) -> Vec<Job> {
    let most = (1 + jobs.len() + previous).div_ceil(2).min(BATCH_COMMANDS);
    let mut bytes = first.command.size();
    let mut batch = vec![first];
    let mut yields = 0;
    while batch.len() < most && bytes < BATCH_BYTES {
        match jobs.try_recv() {
            Ok(job) => {
                bytes += job.command.size();
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
