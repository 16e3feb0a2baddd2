//! The thread that puts records into the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Shared;
use super::record::{Head, Record};
use super::shared::company;
use crate::etcd::Error;
use crate::store::commit::queue::{Batch, Full};
use crate::store::commit::{Completion, Job, Reply};
use crate::store::{Command, CommitError, Expiry};

/// When a record is full. etcd takes longer over larger ones, and others wait behind them.
const FULL: Full = Full {
    operations: 4096,
    bytes: 256 << 10,
};

/// The most bytes of keys that one sweep names.
const SWEPT: usize = 32 << 10;

/// Pause before a record is put again.
const RETRY: Duration = Duration::from_millis(20);

/// How long closing waits for what has been put to be seen.
const CLOSING: Duration = Duration::from_secs(10);

pub(super) struct Lane {
    shared: Arc<Shared>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>) -> Lane {
        Lane { shared }
    }

    /// Puts record after record until the queue is closed and empty.
    pub(super) fn run(self, jobs: &Receiver<Job>) -> Result<(), CommitError> {
        let (mut previous, mut took, mut last) = (0, Duration::ZERO, 0);
        while let Ok(first) = jobs.recv() {
            let jobs = gather(first, jobs, previous, company(took));
            previous = jobs.len();
            let jobs = jobs.into_iter().map(|job| (job.command, job.done));
            let (mut commands, completions): (Vec<Command>, Vec<Completion>) = jobs.unzip();
            let sweeps = |it: &&mut Command| matches!(it, Command::Sweep);
            for sweep in commands.iter_mut().filter(sweeps) {
                *sweep = Command::SweepKeys(self.shared.map.expired(SWEPT));
            }
            last = self.shared.under_way.begin(completions);
            let head = Head {
                producer: self.shared.producer,
                number: last,
                now: Expiry::now().millis(),
                limit: self.shared.map.budget().data_limit(),
            };
            let record = Record::encode(head, &commands);
            let since = Instant::now();
            self.put(last, &record);
            took = since.elapsed();
        }
        let since = Instant::now();
        while self.shared.under_way.has(last) {
            if since.elapsed() >= CLOSING {
                return Err(CommitError::TimedOut);
            }
            thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Puts a record until it is in the log, or refused.
    fn put(&self, number: u64, record: &[u8]) {
        let shared = &*self.shared;
        let mut may_have_happened = false;
        while shared.under_way.has(number) {
            match shared.etcd.put(&shared.keys.log, record, None) {
                Ok(_) => {
                    shared.full.store(false, Ordering::Release);
                    return;
                }
                Err(error @ Error::Refused { .. }) => {
                    if !may_have_happened {
                        self.note(&error);
                        return self.refuse(number);
                    }
                    self.note_full(&error);
                }
                Err(Error::Unknown(message)) => {
                    log::debug!("a record was not answered, and is put again: {message}");
                    may_have_happened = true;
                }
            }
            thread::sleep(RETRY);
        }
    }

    /// The record has not been taken, and never will be.
    fn refuse(&self, number: u64) {
        let waiting = self.shared.under_way.end(number).into_iter();
        (self.shared.deliver)(waiting.map(Reply::refused).collect());
    }

    fn note(&self, error: &Error) {
        self.note_full(error);
        if !error.is_no_space() {
            log::error!("a write was refused: {error}");
        }
    }

    fn note_full(&self, error: &Error) {
        let was_full = self.shared.full.swap(error.is_no_space(), Ordering::AcqRel);
        if error.is_no_space() && !was_full {
            log::error!(
                "etcd has no room left and takes no writes: raise --quota-backend-bytes, defragment it, and disarm the alarm"
            );
        }
    }
}

/// Makes a batch of a job and those that follow: as many as in the `previous` one, if they come in time, and what else is there.
fn gather(first: Job, jobs: &Receiver<Job>, previous: usize, longest: Duration) -> Vec<Job> {
    let until = Instant::now() + longest;
    let mut batch = Batch::of(first);
    while !batch.is_full(FULL) {
        let next = match batch.jobs.len() < previous {
            true => jobs.recv_deadline(until).ok(),
            false => jobs.try_recv().ok(),
        };
        match next {
            Some(job) => batch.push(job),
            None => break,
        }
    }
    batch.jobs
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn a_batch_waits_for_as_many_as_there_were_and_no_longer_than_it_may() {
        let job = || Job {
            command: Command::Clear,
            done: Box::new(|_, _| {}),
        };
        let minute = Duration::from_secs(60);
        let (sender, jobs) = unbounded();
        let count = |previous, longest| gather(job(), &jobs, previous, longest).len();
        assert_eq!(count(1, minute), 1);
        assert_eq!(count(9, Duration::ZERO), 1);
        for _ in 0..4 {
            sender.send(job()).unwrap();
        }
        // What is there is taken, however few there were.
        assert_eq!(count(0, minute), 5);
        thread::scope(|scope| {
            let waits = scope.spawn(|| count(3, minute));
            for _ in 0..2 {
                sender.send(job()).unwrap();
            }
            assert_eq!(waits.join().unwrap(), 3);
        });
        // Nobody comes any more.
        drop(sender);
        assert_eq!(count(9, minute), 1);
    }
}
