//! Commits writes to disk before they take effect.
//!
//! Commands queue up for one journal thread. It drains the queue, carries the commands out on a staged copy, writes
//! what they amount to in one atomic batch, syncs once, applies it to the map, and hands the answers back. So writes
//! that wait together share one sync, no reader sees what a crash could take back, and whoever submitted a command
//! never waits for the disk. The size of a batch is bound by the clients in flight.
//!
//! The journal thread is in [`writer`]. Batches are written to a [`log`], and when that has become long, a [`checkpoint`]
//! of the whole map is made, which is a fjall database. [`files`] knows the directory: lock, format, log and database.
//! [`journals`] and [`manifest`] look for damage in the database before it is opened; a file that a crash has [`torn`] is
//! not damaged. [`batch`] and [`record`] say how changes and entries look.
//! [`patience`] answers those whose write the disk does not get done.

mod batch;
mod checkpoint;
mod files;
mod journals;
mod log;
mod manifest;
mod patience;
mod record;
mod torn;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

pub use files::OpenError;

use super::{Command, Failure, Map, Outcome};
use files::Database;
use patience::{Patience, UnderWay};
use writer::Writer;

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
        let database = Database::open(directory, durability, &map)?;
        let (queue, jobs) = unbounded();
        let failed = Arc::new(AtomicBool::new(false));
        let under_way = Arc::new(UnderWay::default());
        let deliver: Arc<Deliver> = Arc::new(deliver);
        let patience = Patience {
            under_way: Arc::clone(&under_way),
            jobs: jobs.clone(),
            deliver: Arc::clone(&deliver),
        };
        let writer = Writer::new(database, durability, map, &failed, &under_way);
        let guard = Ended(Arc::clone(&under_way));
        let (end, ended) = bounded(1);
        let thread_error =
            |error| OpenError::Io("start the journal thread for", directory.into(), error);
        patience.start().map_err(thread_error)?;
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                let _ended = guard;
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
