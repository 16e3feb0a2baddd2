//! The journal thread: makes batches of commands durable, then visible.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::log::WriteError;
use super::{Disk, DiskState, Durability};
use crate::store::commit::queue::{Batch, Full};
use crate::store::commit::stall::UnderWay;
use crate::store::commit::{Completion, Deliver, Job, Reply};
use crate::store::keyspace::Changes;
use crate::store::{Command, CommitError, Committed, Expiry, Map};

/// When a batch is full. Usually it can have more operations than there are clients; readers wait while it is applied, a few
/// milliseconds at this size. A disk writes so many bytes in some tens of milliseconds, so small values do not wait long behind large ones.
const FULL: Full = Full {
    operations: 4096,
    bytes: 8 << 20,
};

/// How many times the thread yields before it closes a batch that is not full. A yield is cheap if no other thread is ready.
const YIELDS: u32 = 2;

/// How often buffered batches are handed to the operating system ([`Durability::None`]).
const HAND_OVER: Duration = Duration::from_secs(1);

/// Pause between a removal and the check whether a snapshot would free disk space. More may be removed meanwhile.
const RECLAIM: Duration = Duration::from_secs(2);

/// How often a refusing disk is probed while no client writes.
const PROBE: Duration = Duration::from_secs(1);

/// What came of the commands of a batch.
type Results = Vec<Result<Committed, CommitError>>;

/// The state of the journal thread.
pub(super) struct Writer {
    disk: Disk,
    durability: Durability,
    map: Arc<Map>,
    state: Arc<DiskState>,
    /// The batch that is being written.
    under_way: Arc<UnderWay>,
    /// Since when there are buffered batches ([`Durability::None`]).
    kept_since: Option<Instant>,
    /// When entries were first removed since the last check for disk space to free.
    removed_since: Option<Instant>,
    /// The time of the last write, successful or not.
    tried: Instant,
}

impl Writer {
    pub(super) fn new(
        disk: Disk,
        durability: Durability,
        map: Arc<Map>,
        state: &Arc<DiskState>,
        under_way: &Arc<UnderWay>,
    ) -> Writer {
        Writer {
            disk,
            durability,
            map,
            state: Arc::clone(state),
            under_way: Arc::clone(under_way),
            kept_since: None,
            removed_since: None,
            tried: Instant::now(),
        }
    }

    /// Commits batch after batch until the queue is closed and empty.
    pub(super) fn run(
        mut self,
        jobs: &Receiver<Job>,
        deliver: &Deliver,
    ) -> Result<(), CommitError> {
        let mut previous = 0;
        loop {
            self.map.meters().set_log_bytes(self.disk.log.bytes());
            match jobs.recv_timeout(HAND_OVER) {
                Ok(first) => {
                    let batch = gather(first, jobs, previous);
                    previous = batch.len();
                    deliver(self.commit(batch));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !self.has_failed() {
                self.look_after_disk();
            }
        }
        // Buffered batches that failed before must not be written now: their clients were refused.
        if self.has_failed() {
            return Err(CommitError::Unavailable);
        }
        match self.on_disk(|disk| disk.log.close()) {
            Ok(()) => Ok(()),
            // All that is left are sweeps.
            Err(WriteError::Refused(_)) if self.durability != Durability::None => Ok(()),
            Err(_) => Err(CommitError::Unavailable),
        }
    }

    /// Makes a batch durable, if it has to be, then visible. Returns the replies to clients that have not timed out.
    fn commit(&mut self, jobs: Vec<Job>) -> Vec<Reply> {
        let jobs = jobs.into_iter().map(|job| (job.command, job.done));
        let (commands, waiting): (Vec<Command>, Vec<Completion>) = jobs.unzip();
        let waiting = match self.try_commit(&commands, waiting) {
            Ok(replies) => return replies,
            Err(waiting) => waiting,
        };
        // The disk may be full. Commands that make room may use the reserve; the rest are refused.
        let jobs = commands.into_iter().zip(waiting);
        let (making_room, refused): (Vec<_>, Vec<_>) =
            jobs.partition(|(command, _)| command.makes_room());
        let refused = refused.into_iter().map(|(_, done)| done);
        let mut replies: Vec<Reply> = refused.map(Reply::refused).collect();
        if !making_room.is_empty() {
            self.disk.reserve.give_up(&self.disk.directory);
            let (commands, waiting): (Vec<_>, Vec<_>) = making_room.into_iter().unzip();
            replies.extend(match self.try_commit(&commands, waiting) {
                Ok(replies) => replies,
                Err(waiting) => waiting.into_iter().map(Reply::refused).collect(),
            });
        }
        replies
    }

    /// Tries that once. If the disk refuses the batch, nothing has changed, and the completions are returned.
    fn try_commit(
        &mut self,
        commands: &[Command],
        waiting: Vec<Completion>,
    ) -> Result<Vec<Reply>, Vec<Completion>> {
        if self.has_failed() {
            return Ok(waiting.into_iter().map(Reply::refused).collect());
        }
        let (mut results, changes) = self.decide(commands, false);
        let durable = commands.iter().any(|it| !matches!(it, Command::Sweep));
        let removes = changes.remove();
        let batch = self.under_way.begin(waiting);
        let (began, mut disk) = (Instant::now(), Duration::ZERO);
        let written = if changes.list.is_empty() {
            Ok(())
        } else {
            let appended = self.note(|disk| disk.log.append(&changes, durable));
            disk = began.elapsed();
            appended.map(|()| {
                if let Err(late) = self.map.apply(changes) {
                    self.decide_again(late, commands, &mut results);
                }
            })
        };
        let waiting = self.under_way.end(batch);
        let result = match written {
            Ok(()) => Ok(()),
            Err(WriteError::Refused(_)) => return Err(waiting),
            Err(WriteError::Failed(_)) => Err(CommitError::DiskFailed),
        };
        if durable && result.is_ok() {
            self.map.meters().batches.observe(commands.len() as u64);
        }
        let now = Instant::now();
        if removes {
            self.removed_since.get_or_insert(now);
        }
        if !self.disk.log.is_handed_over() {
            self.kept_since.get_or_insert(now);
        }
        let reply = |(done, outcome)| Reply::new(done, result.and(outcome), disk);
        Ok(waiting.into_iter().zip(results).map(reply).collect())
    }

    /// Carries commands out on a staged copy; clears also where there is nothing to clear, if that was decided before.
    fn decide(&self, commands: &[Command], clears_anyway: bool) -> (Results, Changes) {
        let (now, limit) = (Expiry::now(), self.map.budget().data_limit());
        self.map.stage(|staged| {
            staged.clears_anyway = clears_anyway;
            let results = commands.iter().map(|command| {
                command.check_room(staged, command.grows_at_most(), limit)?;
                Ok(command.execute(staged, now))
            });
            results.collect()
        })
    }

    /// Decides a batch again, of which something has expired while it was written, see [`Changes::relied`].
    ///
    /// The map has not changed, but the log has: the changes are in it, and the next start would carry them out. So a second batch follows,
    /// which turns what the first one has made into what is decided now, and is as durable as any write before somebody gets
    /// an answer. If the disk does not take it, what is in the log must happen, or later batches would not fit. Those whose results are
    /// not the same either way are told that it is not known.
    fn decide_again(&mut self, mut late: Changes, commands: &[Command], results: &mut Results) {
        loop {
            // All that a clear has removed may have expired since. It is in the log, and stays one.
            let (again, changes) = self.decide(commands, late.clear());
            let correction = self.map.correct(&late, &changes);
            if self
                .note(|disk| disk.log.append(&correction, true))
                .is_err()
            {
                for (result, again) in results.iter_mut().zip(again) {
                    let outcome =
                        |it: &Result<Committed, CommitError>| it.clone().map(|it| it.outcome);
                    if outcome(result) != outcome(&again) {
                        *result = Err(CommitError::DiskFailed);
                    }
                }
                return self.map.apply_anyway(late);
            }
            *results = again;
            match self.map.apply(changes) {
                Ok(()) => return,
                Err(changes) => late = changes,
            }
        }
    }

    /// Periodic work: buffered batches, probes, snapshots, the reserve.
    fn look_after_disk(&mut self) {
        let refusing = self.state.refusing.load(Ordering::Acquire);
        // `note` records the results of these.
        if self.kept_since.is_some_and(|it| it.elapsed() >= HAND_OVER) {
            let handed_over = self.on_disk(|disk| disk.log.hand_over());
            self.kept_since = handed_over.is_err().then(Instant::now);
        } else if refusing && self.tried.elapsed() >= PROBE {
            let _ = self.on_disk(|disk| disk.log.probe());
        }
        if !self.has_failed() {
            let removed = self.removed_since;
            let tidy = removed.is_some_and(|it| it.elapsed() >= RECLAIM);
            let turn = self.under_way.begin(Vec::new());
            let looked = self.disk.snapshotter.go_on(&mut self.disk.log, tidy);
            self.under_way.end(turn);
            match looked {
                Ok(looked) if looked && tidy => self.removed_since = None,
                Ok(_) => {}
                Err(error) => {
                    let _ = self.note(|_| Err(error));
                }
            }
        }
        if !refusing {
            self.disk.reserve.restore(&self.disk.directory);
        }
    }

    /// Runs work on the disk that no client waits for.
    fn on_disk(
        &mut self,
        work: impl FnOnce(&mut Disk) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let turn = self.under_way.begin(Vec::new());
        let result = self.note(work);
        self.under_way.end(turn);
        result
    }

    /// Runs work on the disk and records whether the disk is fine, refuses or has failed.
    fn note(
        &mut self,
        work: impl FnOnce(&mut Disk) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let result = work(&mut self.disk);
        self.tried = Instant::now();
        let (state, directory) = (&self.state, self.disk.directory.path().display());
        match &result {
            Ok(()) => {
                if self.disk.log.is_handed_over() && state.refusing.load(Ordering::Acquire) {
                    state.refusing.store(false, Ordering::Release);
                    log::warn!("{directory} can be written to again");
                }
            }
            Err(WriteError::Refused(error)) => {
                if !state.refusing.swap(true, Ordering::AcqRel) {
                    log::error!(
                        "cannot write to {directory}: {error}; writes are refused until that is over, reads go on"
                    );
                }
            }
            Err(WriteError::Failed(error)) => {
                if !state.failed.swap(true, Ordering::AcqRel) {
                    log::error!(
                        "cannot sync {directory}: {error}; writes are refused until threadkv is restarted, reads go on"
                    );
                }
            }
        }
        result
    }

    fn has_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }
}

/// Makes a batch of a job and the jobs queued behind it. Yields first, so that threads that are about to submit a job can share this
/// commit and need not wait for the next one.
///
/// Takes at most half of the writing clients: those in the queue and those of the `previous` batch. If one batch had all clients, disk
/// and clients would take turns waiting for each other.
fn gather(first: Job, jobs: &Receiver<Job>, previous: usize) -> Vec<Job> {
    let most = (1 + jobs.len() + previous).div_ceil(2);
    let mut batch = Batch::of(first);
    let mut yields = 0;
    while batch.jobs.len() < most && !batch.is_full(FULL) {
        match jobs.try_recv() {
            Ok(job) => batch.push(job),
            Err(_) if yields < YIELDS => {
                yields += 1;
                thread::yield_now();
            }
            Err(_) => break,
        }
    }
    batch.jobs
}
