//! Snapshots: all entries as they were at one place in the log, in a file.
//!
//! A snapshot is a [`Tag::Snapshot`] frame with the revision of the state (8 bytes), then blocks of entries in byte order of their keys,
//! then the latest changes, in [`Tag::History`] frames, then a [`Tag::End`] with how many entries there are, and the revision behind
//! which the changes begin (8 bytes each). Version 4 wrote no changes; version 3 wrote no revision in the first frame, and [`Tag::Block3`].

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::changes::{self, Form, Loading};
use super::directory::{Directory, OpenError};
use super::frame::{self, FrameHead, HEAD, Tag};
use crate::store::commit::step;
use crate::store::history::History;
use crate::store::index::Loader;
use crate::store::{Entry, Revision};

/// About how many bytes a block has, give or take an entry: enough for one read to be worth it, and few enough for all cores to
/// have something to do.
const BLOCK_BYTES: usize = 1 << 20;

/// After so many bytes they are synced, so that the last sync, and those of the log meanwhile, do not take long.
const SYNC_BYTES: u64 = 8 << 20;

/// How many bytes of changes it has at most: so many, or a part of what its entries take. With more, what is deleted would stay on
/// disk.
const HISTORY_BYTES: u64 = 256 << 10;
const HISTORY_PART: u64 = 4;

/// How often loading reports how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Writes a snapshot with everything before that batch of the log, and returns how long its entries are. It is whole and on disk when
/// it gets its name. Where this fails, what was written is deleted.
pub(super) fn write(
    directory: &Directory,
    (number, revision): (u64, Revision),
    entries: impl Iterator<Item = Entry>,
    history: &History,
) -> io::Result<u64> {
    let draft = directory.new_snapshot();
    let write = || {
        let place = (number, revision);
        let length = write_file(&draft, directory.id(), place, entries, history)?;
        // A write that was cut short, or changed on its way, must show before what this replaces is deleted.
        if !is_whole(&draft, directory.id(), number)? {
            let how = "what was written is not what can be read";
            return Err(io::Error::new(io::ErrorKind::InvalidData, how));
        }
        fs::rename(&draft, directory.snapshot(number))?;
        directory.sync()?;
        Ok(length)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&draft); // it is deleted before the next one, and at the next start
    })
}

fn write_file(
    path: &Path,
    id: u64,
    (number, revision): (u64, Revision),
    entries: impl Iterator<Item = Entry>,
    history: &History,
) -> io::Result<u64> {
    let mut draft = Draft {
        file: File::create(path)?,
        id,
        written: 0,
        synced: 0,
    };
    draft.write((Tag::Snapshot, number), &revision.to_le_bytes())?;
    let mut count = 0_u64;
    let entries = entries.inspect(|_| count += 1);
    let blocks = draft.write_all(Tag::Block, entries, |it, bytes| {
        changes::encode_entry(&it, bytes);
    })?;
    let length = draft.written;
    let (oldest, changes) = history.latest(HISTORY_BYTES.max(length / HISTORY_PART));
    draft.write_all(Tag::History, changes.iter(), changes::encode_whole)?;
    let end = [count.to_le_bytes(), oldest.to_le_bytes()].concat();
    draft.write((Tag::End, blocks), &end)?;
    draft.file.sync_all()?;
    Ok(length)
}

/// A snapshot while it is written.
struct Draft {
    file: File,
    id: u64,
    written: u64,
    synced: u64,
}

impl Draft {
    /// Writes items in frames of about [`BLOCK_BYTES`], and returns how many frames that are.
    fn write_all<T>(
        &mut self,
        tag: Tag,
        items: impl Iterator<Item = T>,
        encode: impl Fn(T, &mut Vec<u8>),
    ) -> io::Result<u64> {
        let (mut frames, mut body) = (0, Vec::new());
        let mut items = items.fuse();
        loop {
            while body.len() < BLOCK_BYTES
                && let Some(item) = items.next()
            {
                encode(item, &mut body);
            }
            if body.is_empty() {
                return Ok(frames);
            }
            self.write((tag, frames), &body)?;
            body.clear();
            frames += 1;
        }
    }

    fn write(&mut self, frame: (Tag, u64), body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, self.written, self.id, frame, |bytes| {
            bytes.extend_from_slice(body);
        });
        self.file.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

/// Whether the file is a whole snapshot of that number. Reads all of it.
fn is_whole(path: &Path, id: u64, number: u64) -> io::Result<bool> {
    let mut file = BufReader::with_capacity(BLOCK_BYTES, File::open(path)?);
    let length = file.get_ref().metadata()?.len();
    let (mut at, mut stored, mut blocks, mut past) = (0, Vec::new(), None, 0);
    loop {
        let start = frame::head_at(at);
        let mut head = [0; HEAD];
        file.seek_relative((start - at) as i64)?;
        match file.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        let Ok(head) = FrameHead::read(&head, id) else {
            return Ok(false);
        };
        at = head.end(start);
        if at > length {
            return Ok(false);
        }
        stored.resize(head.length as usize + 1, 0);
        file.read_exact(&mut stored)?;
        if !head.matches(&stored, id) {
            return Ok(false);
        }
        match (head.tag, blocks) {
            (Tag::Snapshot, None) if head.number == number => blocks = Some(0),
            (Tag::Block, Some(block)) if head.number == block => blocks = Some(block + 1),
            (Tag::History, Some(_)) if head.number == past => past += 1,
            (Tag::End, Some(block)) => return Ok(head.number == block && at == length),
            _ => return Ok(false),
        }
    }
}

/// Loads the snapshot with everything before that batch of the log; its blocks on as many threads as there are cores. Also returns
/// how long its entries are. `before` is the revision of what version 3 wrote.
pub(super) fn read(
    directory: &Directory,
    number: u64,
    history_bytes: u64,
    before: Revision,
) -> Result<(Loading, u64), OpenError> {
    let path = directory.snapshot(number);
    let io = |error| OpenError::Io("read", path.clone(), error);
    let damaged = |how| OpenError::Damaged(path.clone(), how);
    let file = File::open(&path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let Found {
        revision,
        oldest,
        blocks,
        past,
        count: end,
    } = find_blocks(&file, length, directory.id(), number)
        .map_err(io)?
        .ok_or_else(|| damaged("it does not match its checksums, or is of another store"))?;
    let read = Blocks {
        file,
        id: directory.id(),
        before,
        blocks,
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        reported: Mutex::new(Instant::now()),
    };
    let mut parts = read.read_all().map_err(io)?;
    parts.sort_unstable_by_key(|(block, _)| *block);
    let whole = parts.len() == read.blocks.len();
    let count: usize = parts.iter().map(|(_, entries)| entries.len()).sum();
    if !whole || end != count as u64 {
        return Err(damaged("it does not match its checksums"));
    }
    let history_at = past.first().map(|(start, _)| *start);
    let revision = revision.unwrap_or(before);
    let mut history = History::new(history_bytes, oldest.unwrap_or(revision));
    for (start, head) in past {
        let body = read_body(&read.file, read.id, start, &head).map_err(io)?;
        let changes = body.and_then(|body| changes::read_changes(&body));
        let changes = changes.ok_or_else(|| damaged("it does not match its checksums"))?;
        changes.iter().for_each(|it| history.push(it));
    }
    drop(history.close(Revision::MAX));
    let blocks = parts.into_iter().map(|(_, entries)| entries);
    let loading = Loading {
        entries: Loader::from_blocks(blocks),
        last: revision,
        history,
    };
    Ok((loading, history_at.unwrap_or(length)))
}

/// Where blocks begin, and their heads.
type Places = Vec<(u64, FrameHead)>;

/// What a snapshot says about itself.
struct Found {
    /// Version 3 wrote none.
    revision: Option<Revision>,
    /// Where the history begins. Version 4 wrote none.
    oldest: Option<Revision>,
    blocks: Places,
    past: Places,
    /// How many entries there are.
    count: u64,
}

/// Where the blocks of a snapshot are; `None` if it is damaged.
fn find_blocks(file: &File, length: u64, id: u64, number: u64) -> io::Result<Option<Found>> {
    let (mut blocks, mut past, mut at) = (Vec::new(), Vec::new(), 0);
    let mut begun = None;
    loop {
        let start = frame::head_at(at);
        if start + HEAD as u64 > length {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, start)?;
        let Ok(head) = FrameHead::read(&head, id) else {
            return Ok(None);
        };
        at = head.end(start);
        if at > length {
            return Ok(None);
        }
        match (head.tag, begun) {
            (Tag::Snapshot, None) if head.number == number => {
                let Some(body) = read_body(file, id, start, &head)? else {
                    return Ok(None);
                };
                begun = Some(numbers(&body).first().copied());
            }
            (Tag::History, Some(_)) if head.number == past.len() as u64 => past.push((start, head)),
            (Tag::Block | Tag::Block3, Some(_)) if head.number == blocks.len() as u64 => {
                blocks.push((start, head));
            }
            (Tag::End, Some(revision)) if head.number == blocks.len() as u64 && at == length => {
                let end = read_body(file, id, start, &head)?;
                let end = end.map(|body| numbers(&body)).unwrap_or_default();
                return Ok(end.first().map(|count| Found {
                    revision,
                    oldest: end.get(1).copied(),
                    blocks,
                    past,
                    count: *count,
                }));
            }
            _ => return Ok(None),
        }
    }
}

/// The numbers that a body is made of.
fn numbers(body: &[u8]) -> Vec<u64> {
    let (numbers, _) = body.as_chunks();
    numbers.iter().copied().map(u64::from_le_bytes).collect()
}

/// The body of a frame, `None` if it is damaged.
fn read_body(file: &File, id: u64, start: u64, head: &FrameHead) -> io::Result<Option<Vec<u8>>> {
    let mut body = vec![0; head.length as usize + 1];
    file.read_exact_at(&mut body, start + HEAD as u64)?;
    if !head.matches(&body, id) {
        return Ok(None);
    }
    body.pop();
    frame::invert(&mut body);
    Ok(Some(body))
}

/// The blocks of a snapshot, while they are read by several threads.
struct Blocks {
    file: File,
    id: u64,
    /// The revision of what version 3 wrote.
    before: Revision,
    /// Where they are.
    blocks: Places,
    /// Which one is to be read next.
    next: AtomicUsize,
    /// Whether something is wrong.
    stopped: AtomicBool,
    /// When it was last logged how far this is.
    reported: Mutex<Instant>,
}

/// Entries of blocks, with the numbers of these.
type Parts = Vec<(usize, Vec<Entry>)>;

impl Blocks {
    /// All entries by their blocks, in no order; not all where something is damaged.
    fn read_all(&self) -> io::Result<Parts> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let threads = 1..threads.min(self.blocks.len());
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, || self.read_some());
            // Those that there are threads for.
            let others: Vec<_> = threads.flat_map(spawn).collect();
            let mut parts = self.read_some()?;
            for other in others {
                // A panic of it is a panic here.
                let some = other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                parts.extend(some?);
            }
            Ok(parts)
        })
    }

    /// Reads blocks until there is none left.
    fn read_some(&self) -> io::Result<Parts> {
        let mut parts = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let block = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((start, head)) = self.blocks.get(block) else {
                break;
            };
            let body = read_body(&self.file, self.id, *start, head);
            let form = match head.tag {
                Tag::Block3 => Form::V3(self.before),
                _ => Form::Now,
            };
            let entries = body.map(|body| changes::read_entries(&body?, form));
            match entries {
                Ok(Some(entries)) => parts.push((block, entries)),
                Ok(None) => self.stopped.store(true, Ordering::Relaxed),
                Err(error) => {
                    self.stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            step();
            self.report(block);
        }
        Ok(parts)
    }

    fn report(&self, block: usize) {
        let Ok(mut reported) = self.reported.try_lock() else {
            return;
        };
        if reported.elapsed() >= PROGRESS {
            *reported = Instant::now();
            log::info!("loading: {block} of {} blocks so far", self.blocks.len());
        }
    }
}
