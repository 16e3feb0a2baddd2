//! Answers those whose write the disk does not get done in time: the disk of a machine in trouble, or one behind a
//! network, may take minutes over a write, or never end it.
//!
//! Nothing can be done about the write itself. It may happen yet, and if it does, it counts. Whoever is waiting for it is
//! told that nobody knows, and whoever waits in the queue, or comes while it lasts, that nothing was written.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{Completion, Deliver, Job, Reply};
use crate::store::CommitError;

/// How long a batch may take, most of it the disk's time: some hundred times as long as a slow one.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often to look whether one has taken too long.
const LOOK: Duration = Duration::from_millis(500);

/// What is being written: a batch, as a rule.
#[derive(Default)]
pub(super) struct UnderWay {
    /// Held for a swap, never while anything waits.
    batch: Mutex<Option<Batch>>,
    /// Whether it has taken too long, or none will follow.
    stalled: AtomicBool,
}

struct Batch {
    since: Instant,
    completions: Vec<Completion>,
}

impl UnderWay {
    pub(super) fn begin(&self, completions: Vec<Completion>) {
        let since = Instant::now();
        *self.lock() = Some(Batch { since, completions });
    }

    /// Returns those who still wait.
    pub(super) fn end(&self) -> Vec<Completion> {
        let batch = self.lock().take();
        if self.stalled.swap(false, Ordering::AcqRel) {
            log::warn!("the disk is writing again");
        }
        batch.map(|batch| batch.completions).unwrap_or_default()
    }

    /// There will be no more batches: the journal thread has ended, perhaps by a panic.
    pub(super) fn end_for_good(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Those who wait for something that has taken too long, once, and whether this has just been found.
    fn out_of_time(&self) -> (Vec<Completion>, bool) {
        let mut batch = self.lock();
        match &mut *batch {
            Some(batch) if batch.since.elapsed() >= STALLED_AFTER => {
                let first = !self.stalled.swap(true, Ordering::AcqRel);
                (mem::take(&mut batch.completions), first)
            }
            _ => (Vec::new(), false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        // Nothing under this lock panics.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread that looks after it works with.
pub(super) struct Stall {
    pub(super) under_way: Arc<UnderWay>,
    pub(super) jobs: Receiver<Job>,
    pub(super) deliver: Arc<Deliver>,
}

impl Stall {
    /// Looks after batches until the process ends.
    pub(super) fn start(self) -> io::Result<()> {
        let look = move || {
            loop {
                thread::sleep(LOOK);
                self.look();
            }
        };
        thread::Builder::new().name("stall".into()).spawn(look)?;
        Ok(())
    }

    fn look(&self) {
        let (timed_out, stalled) = self.under_way.out_of_time();
        let timed_out = timed_out.into_iter().map(|done| Reply {
            done,
            result: Err(CommitError::TimedOut),
        });
        let mut replies: Vec<Reply> = timed_out.collect();
        if self.under_way.is_stalled() {
            replies.extend(self.jobs.try_iter().map(|job| Reply {
                done: job.done,
                result: Err(CommitError::Unavailable),
            }));
        }
        if !replies.is_empty() {
            (self.deliver)(replies);
        }
        // Afterwards, since the log may be on the same disk.
        if stalled {
            log::error!(
                "the disk has not ended a write in {STALLED_AFTER:?}; writes are refused until it does, reads go on"
            );
        }
    }
}
