//! A start: reads the snapshot and the log, and syncs them before a client sees any of it.
//!
//! Nothing is written or deleted before everything has been read and found whole.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::Durability;
use super::changes::{Form, Loading};
use super::directory::{Directory, Files, OpenError};
use super::frame::{self, Flaw, Frame, Tag};
use super::log::{self as change_log, Log, WriteError};
use super::snapshot;
use crate::store::commit::step;
use crate::store::history::History;
use crate::store::index::Entries;
use crate::store::revision::Counter;
use crate::store::{Expiry, Revision};

/// The entries of a store, and the end of its log.
pub(super) struct Recovered {
    pub(super) entries: Entries,
    pub(super) counter: Counter,
    pub(super) history: History,
    pub(super) log: Log,
    /// The number of the snapshot; 0 without one.
    pub(super) snapshot: u64,
    /// How long it is.
    pub(super) snapshot_bytes: u64,
}

/// Loads the store in a directory, with so many bytes of its history. From now on it gives no revision that is smaller than `least`, nor
/// one that it has given.
pub(super) fn recover(
    directory: &Arc<Directory>,
    durability: Durability,
    history_bytes: u64,
    least: Revision,
) -> Result<Recovered, OpenError> {
    let started = Instant::now();
    let found = directory
        .files()
        .map_err(|error| OpenError::Io("read", directory.path().into(), error))?;
    let snapshot = found.snapshots.last().copied();
    // What version 3 wrote has none of its own.
    let before = directory.revision().unwrap_or(least);
    let (mut loading, snapshot_bytes) = match (snapshot, found.logs.first()) {
        (Some(number), _) => snapshot::read(directory, number, history_bytes, before)?,
        (None, Some(first)) if *first > 0 => {
            let path = directory.snapshot(*first);
            return Err(OpenError::Damaged(path, "it is missing"));
        }
        (None, _) => (Loading::begin(history_bytes, before), 0),
    };
    let start = snapshot.unwrap_or(0);
    let mut read = State {
        loading: &mut loading,
        before,
    };
    let chain = Chain::read(directory, &found, start, &mut read)?;
    let Loading {
        entries: loader,
        last,
        history,
    } = loading;
    let entries = loader.finish();
    if directory.is_earlier() {
        let path = || directory.path().to_owned();
        let take_over = directory.take_over(before);
        take_over.map_err(|error| OpenError::Io("write to", path(), error))?;
    }
    let mut log = chain.settle(directory, durability)?;
    delete_leftovers(directory, start, &chain.leftovers);
    // From now on it shows if something in front of here gets lost.
    match log.begin_file() {
        // The log goes on in the old file.
        Ok(()) | Err(WriteError::Refused(_)) => {}
        Err(WriteError::Failed(error)) => {
            let path = directory.path().to_owned();
            return Err(OpenError::Io("sync", path, error));
        }
    }
    let (keys, bytes) = entries.live(Expiry::now());
    log::info!(
        "loaded {keys} keys, {bytes} bytes, in {:.1?} from {}",
        started.elapsed(),
        directory.path().display()
    );
    Ok(Recovered {
        entries,
        counter: Counter { last, least },
        history,
        log,
        snapshot: start,
        snapshot_bytes,
    })
}

/// A store while its log is read.
struct State<'a> {
    loading: &'a mut Loading,
    /// The revision of what version 3 wrote.
    before: Revision,
}

impl State<'_> {
    /// Carries out a batch. `None` if it is none.
    fn apply(&mut self, tag: Tag, batch: &[u8]) -> Option<()> {
        let form = match tag {
            Tag::Batch3 => Form::V3(self.before),
            Tag::Batch4 => Form::V4,
            _ => Form::Now,
        };
        self.loading.apply(batch, form)
    }
}

/// The log files from the snapshot on. Each but the last names the next one.
struct Chain {
    /// The numbers of the files.
    numbers: Vec<u64>,
    /// Bytes of those before the last one.
    before: u64,
    last: Last,
    /// Log files outside the chain, without batches.
    leftovers: Vec<u64>,
}

/// The last file of the log.
struct Last {
    /// The number of the next batch.
    next: u64,
    /// Bytes of whole frames, and the length of the file.
    whole: u64,
    length: u64,
    /// Whether a torn frame follows the whole ones.
    torn: bool,
}

impl Chain {
    /// Applies all batches from a number on.
    fn read(
        directory: &Directory,
        found: &Files,
        start: u64,
        state: &mut State<'_>,
    ) -> Result<Chain, OpenError> {
        let (mut numbers, mut before) = (Vec::new(), 0);
        let mut number = start;
        let last = loop {
            let path = directory.log(number);
            if !found.logs.contains(&number) {
                return Err(OpenError::Damaged(path, "it is missing"));
            }
            numbers.push(number);
            match read_file(&path, directory.id(), number, state)? {
                Content::Sealed { next, length } => {
                    before += length;
                    number = next;
                }
                Content::Open(last) => break last,
            }
        };
        let mut leftovers = Vec::new();
        let others = found
            .logs
            .iter()
            .filter(|it| **it >= start && !numbers.contains(it));
        for other in others {
            let path = directory.log(*other);
            let length = fs::metadata(&path)
                .map_err(|error| OpenError::Io("read", path.clone(), error))?
                .len();
            // A file is created only when all before it is on disk. It gets batches only when the file before it has a seal.
            if *other > last.next || length > change_log::HEADER {
                let path = directory.log(number);
                return Err(OpenError::Damaged(path, "its end is missing"));
            }
            leftovers.push(*other);
        }
        Ok(Chain {
            numbers,
            before,
            last,
            leftovers,
        })
    }

    /// Cuts off a torn end, syncs the whole log, and opens its end.
    fn settle(&self, directory: &Arc<Directory>, durability: Durability) -> Result<Log, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io("write to", path, error)
        };
        let Some((number, others)) = self.numbers.split_last() else {
            return Err(OpenError::Damaged(directory.path().into(), "it has no log"));
        };
        // A process may have been killed between writing and syncing them.
        for other in others {
            let path = directory.log(*other);
            let file = fs::File::open(&path).map_err(io(&path))?;
            file.sync_all().map_err(io(&path))?;
        }
        let path = directory.log(*number);
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(io(&path))?;
        let mut length = self.last.length;
        if self.last.torn {
            file.set_len(self.last.whole).map_err(io(&path))?;
            length = self.last.whole;
            log::warn!("{}: cut off what was written in part", path.display());
        }
        file.sync_all().map_err(io(&path))?;
        directory.sync().map_err(io(directory.path()))?;
        let end = change_log::End {
            file,
            first: *number,
            next: self.last.next,
            written: self.last.whole,
            length,
            before: self.before,
            files_before: others.len(),
        };
        Ok(Log::at(end, directory, durability))
    }
}

/// How a log file ends.
enum Content {
    /// It ends in a seal, which names the next one.
    Sealed { next: u64, length: u64 },
    /// It has no seal: the last file.
    Open(Last),
}

/// Applies all batches of a log file.
fn read_file(
    path: &PathBuf,
    id: u64,
    number: u64,
    state: &mut State<'_>,
) -> Result<Content, OpenError> {
    let io = |error: io::Error| OpenError::Io("read", path.clone(), error);
    let damaged = |how| Err(OpenError::Damaged(path.clone(), how));
    let mut file = fs::read(path).map_err(io)?;
    let length = file.len() as u64;
    let (mut at, mut next) = (0, None);
    loop {
        let head = frame::head_at(at);
        let frame = match Frame::read(&file, head, id) {
            Ok(frame) => frame,
            Err(Flaw::Damaged) => {
                return damaged("it does not match its checksums, or is of another store");
            }
            Err(Flaw::Unwritten) => break,
        };
        match (frame.head.tag, next) {
            (Tag::Log, None) if frame.head.number == number => next = Some(number),
            (tag @ (Tag::Batch | Tag::Batch4 | Tag::Batch3), Some(batch))
                if frame.head.number == batch =>
            {
                frame::invert(&mut file[frame.body.clone()]);
                let body = &file[frame.body.clone()];
                let applied = body.get(8..).and_then(|batch| state.apply(tag, batch));
                if applied.is_none() {
                    return damaged("a batch in it makes no sense");
                }
                next = Some(batch + 1);
                step();
            }
            (Tag::Seal, Some(batch)) if frame.head.number == batch => {
                if !frame::is_zero(&file[frame.body.end + 1..]) {
                    return damaged("there is something behind its end");
                }
                return Ok(Content::Sealed {
                    next: batch,
                    length,
                });
            }
            _ => return damaged("something in it is missing, or is in the wrong place"),
        }
        at = frame.end();
    }
    let Some(next) = next else {
        return damaged("its beginning is missing");
    };
    let rest = &file[at as usize..];
    if synced_behind(&file, at as usize, id) > next {
        // The missing part was on disk once.
        return damaged("a part of it is missing");
    }
    Ok(Content::Open(Last {
        next,
        whole: at,
        length,
        torn: !frame::is_zero(rest),
    }))
}

/// The number up to which batches had been synced, as far as frames behind a torn one tell. Frames that were never synced may be there
/// while earlier ones are missing.
fn synced_behind(file: &[u8], at: usize, id: u64) -> u64 {
    let synced = frame::all_behind(file, at, id).map(|frame| match frame.head.tag {
        Tag::Seal => frame.head.number,
        Tag::Batch | Tag::Batch4 | Tag::Batch3 => {
            let mut body = file[frame.body].to_vec();
            frame::invert(&mut body);
            body.first_chunk()
                .map_or(0, |synced| u64::from_le_bytes(*synced))
        }
        _ => 0,
    });
    synced.max().unwrap_or(0)
}

/// Deletes files that are not needed. If that fails, the next start tries again.
fn delete_leftovers(directory: &Directory, start: u64, leftovers: &[u64]) {
    let deleted = || {
        for number in leftovers {
            fs::remove_file(directory.log(*number))?;
        }
        if directory.new_snapshot().exists() {
            fs::remove_file(directory.new_snapshot())?;
        }
        delete_before(directory, start)
    };
    if let Err(error) = deleted() {
        log::warn!(
            "cannot delete old files in {}: {error}",
            directory.path().display()
        );
    }
}

/// Deletes the log files before a snapshot, and earlier snapshots.
pub(super) fn delete_before(directory: &Directory, snapshot: u64) -> io::Result<()> {
    let files = directory.files()?;
    // Oldest first, so that a crash leaves no gap.
    for number in files.logs.into_iter().filter(|it| *it < snapshot) {
        fs::remove_file(directory.log(number))?;
    }
    for number in files.snapshots.into_iter().filter(|it| *it < snapshot) {
        fs::remove_file(directory.snapshot(number))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
