//! Answers clients when the disk hangs. A failing disk, or one behind a network, may take minutes over a write or never end it.
//!
//! The write itself cannot be cancelled. It may still happen, and then it counts. So clients of the batch under way get a
//! timeout ("may or may not have happened"). Commands in the queue, and those that arrive meanwhile, are refused.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{Completion, Deliver, Job, Reply};
use crate::store::CommitError;

/// A batch that takes longer is stalled. A slow one takes a hundredth of that.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often the stall thread checks.
const LOOK: Duration = Duration::from_millis(500);

/// The batch that the journal thread is writing.
#[derive(Default)]
pub(super) struct UnderWay {
    /// Held for a swap, never while anything waits.
    batch: Mutex<Option<Batch>>,
    /// The batch has taken too long, or the journal thread has ended.
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

    /// Ends the batch. Returns the completions that were not called yet.
    pub(super) fn end(&self) -> Vec<Completion> {
        let batch = self.lock().take();
        if self.stalled.swap(false, Ordering::AcqRel) {
            log::warn!("the disk is writing again");
        }
        batch.map(|batch| batch.completions).unwrap_or_default()
    }

    /// The journal thread has ended, perhaps by a panic: no batch follows.
    pub(super) fn end_for_good(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Takes the completions of a stalled batch, once. Also returns whether the stall is new.
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

/// The state of the stall thread.
pub(super) struct Stall {
    pub(super) under_way: Arc<UnderWay>,
    pub(super) jobs: Receiver<Job>,
    pub(super) deliver: Arc<Deliver>,
}

impl Stall {
    /// Starts the stall thread. It runs until the process ends.
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
            disk: STALLED_AFTER,
        });
        let mut replies: Vec<Reply> = timed_out.collect();
        if self.under_way.is_stalled() {
            replies.extend(self.jobs.try_iter().map(|job| Reply {
                done: job.done,
                result: Err(CommitError::Unavailable),
                disk: Duration::ZERO,
            }));
        }
        if !replies.is_empty() {
            (self.deliver)(replies);
        }
        // Logged last: stderr may go to the same disk.
        if stalled {
            log::error!(
                "the disk has not ended a write in {STALLED_AFTER:?}; writes are refused until it does, reads go on"
            );
        }
    }
}
