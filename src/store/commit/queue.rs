//! The way to the thread that commits: whoever submits never waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::stall::UnderWay;
use super::{Completion, Job};
use crate::store::{Command, CommitError};

/// How long closing may take: as long as requests under way are waited for before it.
const CLOSING: Duration = Duration::from_secs(15);

/// The ends of the queue that submitters have.
pub(super) struct Queue {
    /// `None` once closed. Unbounded, so that submitting never waits, and yet short: each connection of the server has
    /// one command under way at most. Held for a send, which does not wait.
    jobs: Mutex<Option<Sender<Job>>>,
    under_way: Arc<UnderWay>,
    /// Disconnected when the thread has ended.
    ended: Receiver<Result<(), CommitError>>,
}

/// The ends that the thread has.
pub(super) struct Work {
    pub(super) jobs: Receiver<Job>,
    end: Sender<Result<(), CommitError>>,
    guard: Ended,
}

impl Queue {
    pub(super) fn new(under_way: &Arc<UnderWay>) -> (Queue, Work) {
        let (queue, jobs) = unbounded();
        let (end, ended) = bounded(1);
        let queue = Queue {
            jobs: Mutex::new(Some(queue)),
            under_way: Arc::clone(under_way),
            ended,
        };
        let guard = Ended(Arc::clone(under_way));
        (queue, Work { jobs, end, guard })
    }

    pub(super) fn submit(&self, command: Command, done: Completion) {
        let job = Job { command, done };
        let queue = self.lock();
        let refused = match &*queue {
            Some(queue) if !self.under_way.is_stalled() => {
                queue.send(job).err().map(|refused| refused.into_inner())
            }
            _ => Some(job),
        };
        drop(queue);
        if let Some(job) = refused {
            (job.done)(Err(CommitError::Unavailable), Duration::ZERO);
        }
    }

    /// How many commands wait for the thread.
    pub(super) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, Sender::len)
    }

    /// Has all submitted commands committed, and the thread end. Gives up if that takes too long.
    pub(super) fn close(&self) -> Result<(), CommitError> {
        drop(self.lock().take());
        match self.ended.recv_timeout(CLOSING) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(CommitError::TimedOut),
            // It has panicked.
            Err(RecvTimeoutError::Disconnected) => Err(CommitError::Unavailable),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sender<Job>>> {
        // Nothing under this lock panics.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Runs the thread until it returns, and says that it has ended, however it does.
    pub(super) fn run(self, thread: impl FnOnce(&Receiver<Job>) -> Result<(), CommitError>) {
        let _ended = self.guard;
        let _ = self.end.send(thread(&self.jobs)); // has room for one
    }
}

/// Tells that the thread has ended.
struct Ended(Arc<UnderWay>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end_for_good();
    }
}

/// The most that a batch has: with so much it takes no further command.
#[derive(Clone, Copy)]
pub(super) struct Full {
    pub(super) operations: usize,
    pub(super) bytes: usize,
}

/// Commands that are committed together.
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    pub(super) fn of(first: Job) -> Batch {
        let mut batch = Batch {
            jobs: Vec::new(),
            operations: 0,
            bytes: 0,
        };
        batch.push(first);
        batch
    }

    pub(super) fn push(&mut self, job: Job) {
        self.operations += job.command.operations();
        self.bytes += job.command.size();
        self.jobs.push(job);
    }

    pub(super) fn is_full(&self, full: Full) -> bool {
        self.operations >= full.operations || self.bytes >= full.bytes
    }
}
