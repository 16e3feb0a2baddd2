//! The end of the log, where batches are appended.
//!
//! The log is in files, each named after the number of its first batch. A file is a [`Tag::Log`] frame, then batches, then, once
//! another file follows, a [`Tag::Seal`] with the number of that file. Only a file without a seal is written to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::directory::Directory;
use super::frame::{self, Tag};
use super::{Durability, changes};
use crate::store::Meters;
use crate::store::keyspace::Changes;

/// Length of a file without batches: its first frame.
pub(super) const HEADER: u64 = frame::HEAD as u64 + 1;

/// A file of this length is followed by the next one. A start reads each file into memory whole.
const FILE_BYTES: u64 = 64 << 20;

/// If the next file cannot be created, so many more bytes go to this one before the next try.
const RETRY_BYTES: u64 = 1 << 20;

/// Zeros written ahead of the batches. A sync of bytes that the file already has needs no metadata, which would take the disk as long
/// again.
const AHEAD: u64 = 512 << 10;

/// A longer buffer is handed to the operating system at once ([`Durability::None`]).
const KEPT_BYTES: usize = 64 << 10;

/// Written behind the log to find out whether the disk has room again.
static PROBE: [u8; 64 << 10] = [0; 64 << 10];

/// Why something was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The disk did not take it (no room, no descriptor, an I/O error). Nothing of it counts, and the next try may succeed.
    Refused(io::Error),
    /// A sync failed. Which bytes are on disk is unknown until a start reads them again.
    Failed(io::Error),
}

type Result<T> = std::result::Result<T, WriteError>;

/// The end of the log.
pub(super) struct Log {
    directory: Arc<Directory>,
    durability: Durability,
    file: File,
    /// The number of the file's first batch.
    first: u64,
    /// The number of the next batch.
    next: u64,
    /// All batches before this one are known to be on disk.
    synced: u64,
    /// Bytes of whole frames in the file, and the length of the file.
    written: u64,
    length: u64,
    /// A failed write left bytes behind the frames. They must be cut off before the next write.
    must_cut: bool,
    /// At this length the next file is begun.
    full_at: u64,
    /// Frames that are not in the file yet.
    kept: Vec<u8>,
    /// Bytes of the files before this one, back to the snapshot, and how many files that is.
    before: u64,
    files_before: usize,
    /// Where syncs are counted.
    meters: Arc<Meters>,
}

/// The end of a log that recovery has read.
pub(super) struct End {
    pub(super) file: File,
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) written: u64,
    pub(super) length: u64,
    pub(super) before: u64,
    pub(super) files_before: usize,
}

impl Log {
    /// Goes on at the end of a log, all of which must be on disk.
    pub(super) fn at(end: End, directory: &Arc<Directory>, durability: Durability) -> Log {
        Log {
            directory: Arc::clone(directory),
            durability,
            file: end.file,
            first: end.first,
            next: end.next,
            synced: end.next,
            written: end.written,
            length: end.length,
            must_cut: false,
            full_at: FILE_BYTES,
            kept: Vec::new(),
            before: end.before,
            files_before: end.files_before,
            meters: Arc::default(),
        }
    }

    /// Counts syncs there from now on.
    pub(super) fn measure(&mut self, meters: &Arc<Meters>) {
        self.meters = Arc::clone(meters);
    }

    /// Writes a batch and makes it as durable as was asked for. A batch that need not be `durable` (it could be made again) is handed
    /// over, and not synced. If the disk refuses the batch, the log is as it was before.
    pub(super) fn append(&mut self, changes: &Changes, durable: bool) -> Result<()> {
        if self.written >= self.full_at {
            match self.begin_file() {
                Err(WriteError::Refused(_)) => self.full_at = self.written + RETRY_BYTES,
                result => result?,
            }
        }
        let kept = self.kept.len();
        let synced = self.synced;
        self.keep(Tag::Batch, |bytes| {
            bytes.extend_from_slice(&synced.to_le_bytes());
            changes::encode(changes, bytes);
        });
        self.next += 1;
        let written = match self.durability {
            Durability::Sync if durable => self.sync(),
            Durability::Sync | Durability::Os => self.hand_over(),
            Durability::None if self.kept.len() > KEPT_BYTES => self.hand_over(),
            Durability::None => Ok(()),
        };
        if let Err(WriteError::Refused(_)) = written {
            self.kept.truncate(kept);
            self.next -= 1;
        }
        written
    }

    /// Hands the buffered frames to the operating system.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        if self.must_cut {
            self.cut()?;
        }
        let frames = self.kept.len();
        let end = self.written + frames as u64;
        if end > self.length && self.durability == Durability::Sync {
            // Behind what counts, so that nothing was zero where a batch is to be.
            self.kept.resize(frames + AHEAD as usize, 0);
        }
        let (written, result) = write_at(&self.file, &self.kept, self.written);
        self.kept.truncate(frames);
        self.length = self.length.max(self.written + written as u64);
        // If only zeros are missing, the next sync is slower, nothing else.
        if written < frames {
            self.must_cut = written > 0;
            return result.map_err(WriteError::Refused);
        }
        self.kept.clear();
        self.kept.shrink_to(KEPT_BYTES);
        self.written = end;
        Ok(())
    }

    /// Syncs: all batches so far survive a power cut.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.hand_over()?;
        let synced = self.meters.sync(|| self.file.sync_data());
        synced.map_err(WriteError::Failed)?;
        self.synced = self.next;
        Ok(())
    }

    /// Ends the file with a seal and begins the next one, unless this one has no batch. If the disk refuses, the log goes on in this file.
    pub(super) fn begin_file(&mut self) -> Result<()> {
        // The name of a file says which batches come before it, so these must be on disk first.
        self.sync()?;
        if self.next == self.first {
            return Ok(());
        }
        let file = create(&self.directory, self.next).map_err(WriteError::Refused)?;
        self.keep(Tag::Seal, |_| {});
        if let Err(error) = self.hand_over() {
            self.kept.clear();
            // Where it stays, it is deleted at the next start: a file that no seal names, and has no batch.
            let _ = fs::remove_file(self.directory.log(self.next));
            return Err(error);
        }
        // In vain at worst: then the zeros stay.
        let _ = self.file.set_len(self.written);
        self.file.sync_all().map_err(WriteError::Failed)?;
        self.file = file;
        self.first = self.next;
        self.before += self.written;
        self.files_before += 1;
        (self.written, self.length, self.full_at) = (HEADER, HEADER, FILE_BYTES);
        Ok(())
    }

    /// Finds out whether writes would be refused.
    pub(super) fn probe(&mut self) -> Result<()> {
        self.hand_over()?;
        let (_, result) = write_at(&self.file, &PROBE, self.length);
        self.cut()?;
        result.map_err(WriteError::Refused)
    }

    /// Whether everything has been handed over.
    pub(super) fn is_handed_over(&self) -> bool {
        self.kept.is_empty()
    }

    /// Ends the log in order: with a seal, so that it shows if something at its end gets lost.
    pub(super) fn close(&mut self) -> Result<()> {
        self.sync()?;
        match self.begin_file() {
            Err(WriteError::Refused(_)) => Ok(()),
            result => result,
        }
    }

    /// The number of the file that is written to, which is that of its first batch.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// How many bytes and files there are before the one that is written to, back to the snapshot.
    pub(super) fn before(&self) -> (u64, usize) {
        (self.before, self.files_before)
    }

    /// How many bytes there are since the snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.before + self.written
    }

    /// How many files there are since the snapshot.
    pub(super) fn files(&self) -> usize {
        self.files_before + 1
    }

    /// Stops counting so many bytes and files: a snapshot has replaced them.
    pub(super) fn forget(&mut self, bytes: u64, files: usize) {
        self.before -= bytes;
        self.files_before -= files;
    }

    /// Appends a frame to the buffer, with the number of the next batch.
    fn keep(&mut self, tag: Tag, body: impl FnOnce(&mut Vec<u8>)) {
        let id = self.directory.id();
        frame::append(&mut self.kept, self.written, id, (tag, self.next), body);
    }

    /// Cuts off the bytes behind the frames and syncs that. After a power cut they must not show up behind later frames.
    fn cut(&mut self) -> Result<()> {
        self.file
            .set_len(self.written)
            .map_err(WriteError::Refused)?;
        self.file.sync_all().map_err(WriteError::Failed)?;
        self.length = self.written;
        self.must_cut = false;
        Ok(())
    }
}

/// Creates a log file without batches and syncs it and its name. An existing file must have no batches either, and is written anew.
/// After an error there is no such file.
pub(super) fn create(directory: &Directory, number: u64) -> io::Result<File> {
    let path = directory.log(number);
    let create = || {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let mut header = Vec::new();
        frame::append(&mut header, 0, directory.id(), (Tag::Log, number), |_| {});
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        directory.sync()?;
        Ok(file)
    };
    create().inspect_err(|_| {
        let _ = fs::remove_file(&path); // where it stays, it is deleted at the next start
    })
}

/// Writes as many bytes as the disk takes. Returns their number, and the error if they are not all.
fn write_at(file: &File, bytes: &[u8], offset: u64) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
