//! Answers clients when the disk hangs, or etcd. A failing disk, or one behind a network, may take minutes over a write or never end it.
//!
//! The write itself cannot be cancelled. It may still happen, and then it counts. So clients of the batch under way get a
//! timeout ("may or may not have happened"). Commands in the queue, and those that arrive meanwhile, are refused.

use std::collections::VecDeque;
use std::io;
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

/// What the log says about a stall.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) stalled: &'static str,
    pub(super) refused: &'static str,
    pub(super) over: &'static str,
}

/// The batches that are being written. A disk has one at a time.
pub(super) struct UnderWay {
    /// Held for a swap, never while anything waits.
    batches: Mutex<Batches>,
    /// A batch has taken too long.
    stalled: AtomicBool,
    /// The thread that writes them has ended.
    ended: AtomicBool,
    words: Words,
}

#[derive(Default)]
struct Batches {
    /// The number of the latest one.
    last: u64,
    waiting: VecDeque<Batch>,
}

struct Batch {
    number: u64,
    since: Instant,
    completions: Vec<Completion>,
}

impl UnderWay {
    pub(super) fn new(words: Words) -> UnderWay {
        UnderWay {
            batches: Mutex::default(),
            stalled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            words,
        }
    }

    /// A batch begins. Returns its number, which is larger than all before it.
    pub(super) fn begin(&self, completions: Vec<Completion>) -> u64 {
        let mut batches = self.lock();
        batches.last += 1;
        let number = batches.last;
        batches.waiting.push_back(Batch {
            number,
            since: Instant::now(),
            completions,
        });
        number
    }

    /// A batch ends, and so do those before it that have not. Returns the completions that were not called yet.
    pub(super) fn end(&self, number: u64) -> Vec<Completion> {
        let mut completions = Vec::new();
        let mut batches = self.lock();
        while let Some(batch) = batches.waiting.pop_front_if(|it| it.number <= number) {
            completions.extend(batch.completions);
        }
        drop(batches);
        if self.stalled.swap(false, Ordering::AcqRel) {
            log::warn!("{}", self.words.over);
        }
        completions
    }

    /// Whether a batch has not ended yet.
    pub(super) fn has(&self, number: u64) -> bool {
        let waiting = &self.lock().waiting;
        waiting.iter().any(|it| it.number == number)
    }

    /// The thread has ended, perhaps by a panic: no batch follows.
    pub(super) fn end_for_good(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire) || self.ended.load(Ordering::Acquire)
    }

    /// Takes the completions of stalled batches, once. Also returns whether the stall is new.
    fn out_of_time(&self) -> (Vec<Completion>, bool) {
        let mut batches = self.lock();
        let late = batches.waiting.iter_mut();
        let late = late.take_while(|batch| batch.since.elapsed() >= STALLED_AFTER);
        let (mut completions, mut some) = (Vec::new(), false);
        for batch in late {
            completions.append(&mut batch.completions);
            some = true;
        }
        let is_new = some && !self.stalled.swap(true, Ordering::AcqRel);
        (completions, is_new)
    }

    fn lock(&self) -> MutexGuard<'_, Batches> {
        // Nothing under this lock panics.
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
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
        let timed_out = timed_out.into_iter();
        let timed_out =
            timed_out.map(|done| Reply::new(done, Err(CommitError::TimedOut), STALLED_AFTER));
        let mut replies: Vec<Reply> = timed_out.collect();
        if self.under_way.is_stalled() {
            replies.extend(self.jobs.try_iter().map(|job| Reply::refused(job.done)));
        }
        if !replies.is_empty() {
            (self.deliver)(replies);
        }
        // Logged last: stderr may go to the same disk.
        if stalled {
            let Words {
                stalled, refused, ..
            } = self.under_way.words;
            log::error!("{stalled} in {STALLED_AFTER:?}; {refused}");
        }
    }
}
