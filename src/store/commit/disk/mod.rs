//! Commits writes to disk before they take effect.
//!
//! Commands queue up for one journal thread ([`writer`]). It drains the queue, carries the commands out on a staged copy, writes
//! what they amount to as one batch to the [`log`], syncs once, applies it to the map, and hands the answers back. So writes that
//! wait together share one sync, no reader sees what a crash could take back, and whoever submitted a command never waits for
//! the disk. When the log has become long, the [`snapshotter`] has a [`snapshot`] of the map written, and deletes the log before
//! it. [`recovery`] is what a start does. [`super::stall`] answers those whose write the disk does not get done.
//!
//! # The files
//!
//! ```text
//! DIR                      locked by the process that uses it (flock on the directory itself)
//! DIR/threadkv.format      "threadkv 5", the store's id, which seeds all checksums, and its first revision
//! DIR/log-<N>              batches from number N on; N has 20 digits
//! DIR/snapshot-<N>         all entries as they were just before batch N
//! DIR/snapshot.new         a snapshot that is being written, or was when the process ended: never read
//! DIR/threadkv.format.new  the same of the first file
//! DIR/reserve              room for deletes on a full disk ([`reserve`])
//! ```
//!
//! Log files and snapshots are made of [`frame`]s, whose bodies are [`changes`]. The store is: the snapshot with the highest number
//! (or nothing, at 0), then all batches from that number on, in order.
//!
//! # The protocol
//!
//! **A batch** is appended to the last log file. With `sync`, `fdatasync` follows; only then is the batch applied and answered.
//! *Killed before the end of the write:* the frame is torn, and the next start cuts it off. Nobody had been answered. *Killed
//! behind the write, before the sync:* the next start reads the batch, and syncs it before anybody sees it. *Power cut:* any
//! sectors of what was not synced may be missing; whatever they are, the frame is torn.
//!
//! **The next log file** (at a start, a shutdown in order, a snapshot, and from 64 MiB on), where S is the number of the next batch:
//!
//! 1. sync the current file;
//! 2. create `log-S` with its first frame, sync it, sync the directory;
//! 3. append a seal with the number S to the current file, cut off the zeros behind it, sync it;
//! 4. write batches to `log-S`.
//!
//! *Ended between 2 and 3:* the current file has no seal, and `log-S` no batch. The start deletes `log-S` and goes on in the current
//! file. *Ended in 3:* the seal is torn and cut off, then the same. So these are damage, and reported: a sealed file whose next
//! file is missing; a file without a seal that ends before the number of a later file, or before a later file with a batch. What
//! cannot be told: batches that were cut off, to the byte, from the end of a file that a killed server wrote last. Therefore each
//! start and each shutdown in order begins a file.
//!
//! **A snapshot**, where S is the number of the next batch:
//!
//! 1. begin `log-S`, as above, so that everything before S is on disk;
//! 2. take a view of the map as it is now, which is what the log says up to S ([`crate::store::frozen`]); batches go on to be committed;
//! 3. write the view to `snapshot.new`, sync it, read it back and compare its checksums;
//! 4. rename it to `snapshot-S`, sync the directory;
//! 5. delete the log files before S, oldest first, then older snapshots.
//!
//! *Ended before 4:* the older snapshot and the whole log are there; `snapshot.new` is deleted. *Ended in 4:* either name may be
//! there after a power cut; both mean the same store. *Ended in 5:* `snapshot-S` counts, and the start deletes the rest. A snapshot
//! that fails is deleted and tried again after a second, then two, four and so on up to a minute. No number is used twice for
//! different contents: S grows with each batch, and a snapshot is begun only if there has been one.
//!
//! **The first start** creates the directory and syncs its parent, locks it, creates `log-0` as above, writes
//! `threadkv.format.new`, syncs it, renames it to `threadkv.format`, syncs the directory. *Ended anywhere:* as long as
//! `threadkv.format` is not there, the next start begins anew. Once it is, nothing is ever created because it is missing.
//!
//! **A start** reads the newest snapshot and the log from its number on. If anything in them is damaged or missing, it says so and
//! ends; until here it has changed nothing. Then it cuts off a torn end, syncs all log files and the directory, deletes
//! leftovers, and begins a log file. *Ended anywhere:* each of these steps can be done again.
//!
//! # Revisions
//!
//! Each commit that changes something has a revision, larger than all before it ([`crate::store::Revision`]). A batch says which one its last
//! commit has, a snapshot which one the state has, and both which one each entry has. So the largest that was ever given is known at
//! each start, also where all keys are gone. The next one is larger than that, and at least the microseconds since 1970. The
//! second part is for what the files cannot tell: a directory that was replaced by an older copy, or batches that were answered and lost
//! (`os` in a power cut, `none` in a crash) must not give a number again that somebody still holds.
//!
//! `threadkv.format` has the first revision of the store, which is that of the state as long as nothing has been written.
//!
//! **A directory of version 3** has no revisions, one of **version 4** has no order of changes. A start reads it whole, and only then
//! replaces `threadkv.format`, as the first start writes it: from now on this version counts, and all that has no revision of its own
//! has the one in there. Frames of earlier versions have tags of their own, so they stay until a snapshot replaces them. *Ended
//! before the rename:* it is a directory of the earlier version still, and nobody has seen a new revision. *Ended behind it:* the start goes on as any
//! other.
//!
//! # History
//!
//! Those who watch may go on from an earlier revision, also behind a restart ([`crate::store::history`]). So a batch has all its changes
//! in their order, and not only what they come to, and a snapshot also has the latest changes before it. A start fills the history
//! from both. That a key has expired is written down, so that it has a revision, but not synced: it could be made again.
//!
//! # Deadlines
//!
//! A batch is decided at one time T and applied later, at A. A key whose deadline D lies between them was there at T, and readers see it
//! gone from D on. So whatever was decided on it comes too late: a touch would bring the key back, and a condition would have found what was
//! gone. At A, under the write lock, this is noticed, and nothing is applied. The whole batch is decided again. The log has the first
//! decision already, so a second batch follows, which turns that into the second one, as durable as the first one, before the
//! answer. In the history it takes the first one's place.
//! *Killed between the two batches:* the next start carries out the first one, as it may do with any writes that were not answered.
//! If the disk does not take the second batch, the first one happens, but for touches of what is gone; those whose answers would not
//! be the same are told that it is not known.
//!
//! # Errors
//!
//! A write that is refused (no room, no descriptor, an I/O error) is cut off again, with a sync of its own, before anything else is
//! written there. Its commands are answered that nothing has happened, and the next write is tried as if nothing had been. Only
//! when a sync of the log fails is nothing written any more until a restart: what the disk did with the bytes is not known.

mod changes;
mod directory;
mod frame;
mod log;
mod recovery;
mod reserve;
mod snapshot;
mod snapshotter;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

pub use directory::OpenError;

use super::queue::Queue;
use super::stall::{Stall, UnderWay, Words};
use super::{Completion, Deliver, Reply};
use crate::store::{Command, CommitError, Map, Problem, revision};
use directory::Directory;
use log::Log;
use recovery::Recovered;
use reserve::Reserve;
use snapshotter::Snapshotter;
use writer::Writer;

/// What the log says about a disk that hangs.
const WORDS: Words = Words {
    stalled: "the disk has not ended a write",
    refused: "writes are refused until it does, reads go on",
    over: "the disk is writing again",
};

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

/// How a store uses its directory.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// What an answered write means.
    pub durability: Durability,
    /// A snapshot is made when the log has so many bytes, or later if the data is larger.
    pub snapshot_after: u64,
    /// How many bytes of changes are kept for those who watch.
    pub history: u64,
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

/// The state of the disk, shared with all threads.
struct DiskState {
    /// A sync has failed. Never reset.
    failed: AtomicBool,
    /// The disk refused the last write.
    refusing: AtomicBool,
    /// How many snapshots have failed in a row.
    snapshot_failures: Arc<AtomicU32>,
}

/// So many failures in a row are a problem that health reports. A single one may be a lack of descriptors.
const SNAPSHOT_FAILURES: u32 = 3;

/// Everything that the journal thread writes to.
struct Disk {
    directory: Arc<Directory>,
    log: Log,
    snapshotter: Snapshotter,
    reserve: Reserve,
}

impl Disk {
    /// Takes a directory, creating it if need be, and loads what is in it into the map.
    fn open(path: &Path, options: DiskOptions, map: &Arc<Map>) -> Result<Disk, OpenError> {
        let DiskOptions {
            durability,
            snapshot_after,
            history,
        } = options;
        let least = revision::at_start();
        let directory = Arc::new(Directory::open(path, least)?);
        let Recovered {
            entries,
            counter,
            history,
            mut log,
            snapshot,
            snapshot_bytes,
        } = recovery::recover(&directory, durability, history, least)?;
        log.measure(map.meters());
        map.load(entries, counter, history);
        let last = (snapshot, snapshot_bytes);
        let snapshotter = Snapshotter::start(&directory, map, snapshot_after, last)
            .map_err(|error| OpenError::Io("start a thread for", path.into(), error))?;
        let reserve = Reserve::open(&directory);
        Ok(Disk {
            directory,
            log,
            snapshotter,
            reserve,
        })
    }
}

/// The way to the journal thread.
pub(in crate::store) struct Journal {
    queue: Queue,
    state: Arc<DiskState>,
    under_way: Arc<UnderWay>,
}

impl Journal {
    /// Opens the directory, loads what is in it into the map, and starts the journal thread.
    pub(in crate::store) fn open(
        directory: &Path,
        options: DiskOptions,
        map: Arc<Map>,
        deliver: impl Fn(Vec<Reply>) + Send + Sync + 'static,
    ) -> Result<Journal, OpenError> {
        let disk = Disk::open(directory, options, &map)?;
        let state = Arc::new(DiskState {
            failed: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            snapshot_failures: disk.snapshotter.failures(),
        });
        let under_way = Arc::new(UnderWay::new(WORDS));
        let (queue, work) = Queue::new(&under_way);
        let deliver: Arc<Deliver> = Arc::new(deliver);
        let stall = Stall {
            under_way: Arc::clone(&under_way),
            jobs: work.jobs.clone(),
            deliver: Arc::clone(&deliver),
        };
        let writer = Writer::new(disk, options.durability, map, &state, &under_way);
        let thread_error =
            |error| OpenError::Io("start the journal thread for", directory.into(), error);
        stall.start().map_err(thread_error)?;
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || work.run(|jobs| writer.run(jobs, &*deliver)))
            .map_err(thread_error)?;
        Ok(Journal {
            queue,
            state,
            under_way,
        })
    }

    pub(in crate::store) fn submit(&self, command: Command, done: Completion) {
        self.queue.submit(command, done);
    }

    /// How many commands wait for the journal thread.
    pub(in crate::store) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The worst known problem of the disk.
    pub(in crate::store) fn problem(&self) -> Option<Problem> {
        let DiskState {
            failed,
            refusing,
            snapshot_failures,
        } = &*self.state;
        if failed.load(Ordering::Acquire) {
            Some(Problem::Failed)
        } else if self.under_way.is_stalled() {
            Some(Problem::Stalled)
        } else if refusing.load(Ordering::Acquire) {
            Some(Problem::Refusing)
        } else if snapshot_failures.load(Ordering::Acquire) >= SNAPSHOT_FAILURES {
            Some(Problem::NoSnapshots)
        } else {
            None
        }
    }

    /// Commits all submitted commands, makes them durable, and ends the thread. Gives up if the disk takes too long.
    pub(in crate::store) fn close(&self) -> Result<(), CommitError> {
        self.queue.close()
    }
}
