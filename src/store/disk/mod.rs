//! Commits writes to disk before they take effect.
//!
//! Commands queue up for one journal thread. It drains the queue, carries the commands out on a staged copy, writes
//! what they amount to in one atomic batch, syncs once, applies it to the map, and hands the answers back. So writes
//! that wait together share one sync, no reader sees what a crash could take back, and whoever submitted a command
//! never waits for the disk. The size of a batch is bound by the clients in flight.
//!
//! [`files`] knows the directory: lock, format, and the database in it. [`journals`] and [`manifest`] look for damage
//! before that is opened, and [`record`] says how an entry looks in it.

mod files;
mod journals;
mod manifest;
mod record;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

pub use files::OpenError;

use super::{Command, Map, Outcome, Unavailable};
use files::Database;

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
pub(super) type Completion = Box<dyn FnOnce(Result<Outcome, Unavailable>) + Send>;

/// What came of a command, on its way to whoever submitted it.
pub struct Answer {
    done: Completion,
    result: Result<Outcome, Unavailable>,
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
    thread: Mutex<Option<JoinHandle<()>>>,
    failed: Arc<AtomicBool>,
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
        deliver: impl Fn(Vec<Answer>) + Send + 'static,
    ) -> Result<Journal, OpenError> {
        let (database, entries) = Database::open(directory, durability)?;
        map.load(entries);
        let (queue, jobs) = unbounded();
        let failed = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            database,
            durability,
            map,
            failed: Arc::clone(&failed),
            kept_since: None,
        };
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&jobs, deliver))
            .map_err(|error| {
                OpenError::Io("start the journal thread for", directory.into(), error)
            })?;
        Ok(Journal {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            failed,
        })
    }

    pub(super) fn submit(&self, command: Command, done: Completion) {
        let job = Job { command, done };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // It is closed at the end only, or gone if it has panicked.
        let refused = match &*queue {
            Some(queue) => queue.send(job).err().map(|refused| refused.into_inner()),
            None => Some(job),
        };
        drop(queue);
        if let Some(job) = refused {
            (job.done)(Err(Unavailable));
        }
    }

    /// Whether no write has failed.
    pub(super) fn is_available(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Commits what has been submitted, makes it durable, and ends the thread.
    pub(super) fn close(&self) -> Result<(), Unavailable> {
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ended = thread.is_none_or(|thread| thread.join().is_ok());
        if ended && !self.failed.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Unavailable)
        }
    }
}

/// What the journal thread works with.
struct Writer {
    database: Database,
    durability: Durability,
    map: Arc<Map>,
    /// Set for good when a write to disk has failed.
    failed: Arc<AtomicBool>,
    /// Since when something that was written has not been handed to the operating system ([`Durability::None`]).
    kept_since: Option<Instant>,
}

impl Writer {
    /// Commits batch after batch until the queue is closed and empty.
    fn run(mut self, jobs: &Receiver<Job>, deliver: impl Fn(Vec<Answer>)) {
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
        }
        if let Err(error) = self.database.sync() {
            self.fail(&error);
        }
    }

    /// Makes a batch durable, then visible, and returns the answers.
    fn commit(&mut self, jobs: Vec<Job>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(jobs.len());
        if self.failed.load(Ordering::Acquire) {
            answers.extend(jobs.into_iter().map(|job| Answer {
                done: job.done,
                result: Err(Unavailable),
            }));
            return answers;
        }
        let ((), changes) = self.map.stage(|staged| {
            for Job { command, done } in jobs {
                answers.push(Answer {
                    done,
                    result: Ok(command.execute(staged)),
                });
            }
        });
        match self.database.write(&changes) {
            Ok(()) => {
                self.map.apply(changes);
                if self.durability == Durability::None {
                    self.kept_since.get_or_insert_with(Instant::now);
                }
            }
            Err(error) => {
                self.fail(&error);
                answers
                    .iter_mut()
                    .for_each(|answer| answer.result = Err(Unavailable));
            }
        }
        answers
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
