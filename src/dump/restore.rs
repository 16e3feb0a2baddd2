//! `threadkv restore`: makes a store of an export, in a directory that has none.
//!
//! The store is made in `DIR/restore.new`, which no server looks at, and moved up when all of it is there. `threadkv.format` comes last:
//! until then a server finds either nothing in `DIR`, or parts of a store, which it refuses. The files never leave `DIR`, since that may be
//! where another file system is mounted. `DIR` is locked meanwhile, as by a server.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Mistake, Reader, commands};
use crate::budget::Budget;
use crate::store::{CommitError, DiskOptions, Durability, Entry, Expiry, OpenError, Reply, Store};

/// Where the store is made.
const NEW: &str = "restore.new";

/// The file that makes a store of a directory.
const FORMAT_FILE: &str = "threadkv.format";

/// The file is read in pieces of so many bytes.
const PIECE: usize = 256 * 1024;

/// So many commits wait for the disk at a time, and share a sync.
const UNDER_WAY: usize = 32;

/// The largest value that a server can be told to take. A smaller limit holds for what is put, not for what is there.
const VALUE_BYTES: u64 = 1 << 30;

/// What has been restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Keys that the store has now.
    pub keys: usize,
    /// Entries that had expired.
    pub expired: u64,
}

/// Why nothing has been restored. The directory is as it was.
#[derive(Debug)]
pub enum RestoreError {
    /// The export cannot be read.
    Read(io::Error),
    /// The export is wrong.
    Mistake(Mistake),
    /// There is something in the directory.
    NotEmpty(PathBuf),
    /// Another process uses the directory.
    Locked(PathBuf),
    /// The operating system would not do that to this path.
    Io(&'static str, PathBuf, io::Error),
    /// The store cannot be made.
    Open(OpenError),
    /// The store did not take the entries.
    Commit(CommitError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Read(error) => write!(f, "cannot read it: {error}"),
            RestoreError::Mistake(mistake) => write!(f, "{mistake}; nothing was restored"),
            RestoreError::NotEmpty(path) => write!(
                f,
                "{} is there already: restore into a directory without a store, which is empty or does not exist",
                path.display()
            ),
            RestoreError::Locked(path) => {
                write!(f, "{} is in use by another process", path.display())
            }
            RestoreError::Io(what, path, error) => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
            RestoreError::Open(error) => error.fmt(f),
            RestoreError::Commit(CommitError::Full { limit, .. }) => write!(
                f,
                "the data takes more memory than there is for data here, which is {limit} bytes; nothing was restored"
            ),
            RestoreError::Commit(error) => write!(f, "{error}; nothing was restored"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<Mistake> for RestoreError {
    fn from(mistake: Mistake) -> RestoreError {
        RestoreError::Mistake(mistake)
    }
}

/// Fills a directory, which may not exist, from an export.
pub fn restore(
    export: &mut dyn Read,
    directory: &Path,
    durability: Durability,
    budget: Arc<Budget>,
) -> Result<Restored, RestoreError> {
    let existed = directory.exists();
    let restored = take(directory).and_then(|handle| {
        let new = directory.join(NEW);
        let restored = fill(export, &new, durability, budget).and_then(|restored| {
            move_up(&new, directory, &handle)
                .map_err(|error| RestoreError::Io("write to", directory.into(), error))?;
            Ok(restored)
        });
        restored.inspect_err(|_| {
            let _ = fs::remove_dir_all(&new); // the next one tries again
        })
    });
    restored.inspect_err(|_| {
        if !existed {
            let _ = fs::remove_dir(directory); // fails where it is not empty
        }
    })
}

/// Locks the directory, and makes it if need be. It must be empty, but for what an earlier restore has left.
fn take(directory: &Path) -> Result<File, RestoreError> {
    let io = |what| move |error| RestoreError::Io(what, directory.into(), error);
    fs::create_dir_all(directory).map_err(io("create"))?;
    let handle = File::open(directory).map_err(io("open"))?;
    // Its name has to survive a power cut, too. The directory above may not be ours to read.
    if let Ok(above) = File::open(directory.join("..")) {
        let _ = above.sync_all();
    }
    match handle.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(RestoreError::Locked(directory.into())),
        Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
    }
    for file in fs::read_dir(directory).map_err(io("read"))? {
        let file = file.map_err(io("read"))?;
        // A file system of its own has this from the start.
        if file.file_name() != NEW && file.file_name() != "lost+found" {
            return Err(RestoreError::NotEmpty(file.path()));
        }
    }
    match fs::remove_dir_all(directory.join(NEW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("clear")(error)),
        _ => Ok(handle),
    }
}

/// Makes a store in a new directory.
fn fill(
    export: &mut dyn Read,
    directory: &Path,
    durability: Durability,
    budget: Arc<Budget>,
) -> Result<Restored, RestoreError> {
    let options = DiskOptions {
        durability,
        // None, so that nothing is written once the store is closed.
        snapshot_after: u64::MAX,
        history: 0,
    };
    let deliver = |replies: Vec<Reply>| replies.into_iter().for_each(Reply::deliver);
    let store = Store::open(directory, options, budget, deliver).map_err(RestoreError::Open)?;
    let (sender, results) = unbounded();
    let mut commits = Commits {
        store: &store,
        sender,
        results,
        under_way: 0,
    };
    let (mut reader, mut restored) = (Reader::new(VALUE_BYTES), Restored::default());
    let mut piece = vec![0; PIECE];
    let result = loop {
        let length = match export.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(RestoreError::Read(error)),
        };
        let mut entries = Vec::new();
        let read = match length {
            0 => reader.end(&mut entries),
            length => reader.read(&piece[..length], &mut entries),
        };
        if let Err(mistake) = read {
            break Err(mistake.into());
        }
        let (now, all) = (Expiry::now(), entries.len());
        entries.retain(|entry| entry.is_live(now));
        restored.expired += (all - entries.len()) as u64;
        if let Err(error) = commits.put(entries) {
            break Err(RestoreError::Commit(error));
        }
        if length == 0 {
            break commits.wait_for(0).map_err(RestoreError::Commit);
        }
    };
    restored.keys = store.size().keys;
    let closed = store.close().map_err(RestoreError::Commit);
    result.and(closed).map(|()| restored)
}

/// Commits that wait for the disk.
struct Commits<'a> {
    store: &'a Store,
    sender: Sender<Result<(), CommitError>>,
    results: Receiver<Result<(), CommitError>>,
    under_way: usize,
}

impl Commits<'_> {
    fn put(&mut self, entries: Vec<Entry>) -> Result<(), CommitError> {
        for (command, _) in commands(entries) {
            self.wait_for(UNDER_WAY - 1)?;
            self.under_way += 1;
            let results = self.sender.clone();
            self.store.submit(command, move |result, _| {
                let _ = results.send(result.map(drop)); // fails once an earlier one has failed
            });
        }
        Ok(())
    }

    /// Waits until no more than so many are under way.
    fn wait_for(&mut self, most: usize) -> Result<(), CommitError> {
        while self.under_way > most {
            self.under_way -= 1;
            self.results
                .recv()
                .unwrap_or(Err(CommitError::Unavailable))?;
        }
        Ok(())
    }
}

/// Moves the files of a store into a directory.
fn move_up(from: &Path, to: &Path, handle: &File) -> io::Result<()> {
    let mut format = None;
    for file in fs::read_dir(from)? {
        let name = file?.file_name();
        if name == FORMAT_FILE {
            format = Some(name);
        } else {
            fs::rename(from.join(&name), to.join(&name))?;
        }
    }
    handle.sync_all()?;
    let format = format.ok_or(io::ErrorKind::NotFound)?;
    fs::rename(from.join(&format), to.join(&format))?;
    fs::remove_dir(from)?;
    handle.sync_all()
}
