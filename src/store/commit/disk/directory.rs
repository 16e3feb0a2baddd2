//! The working directory: who may use it, and which files are in it.
//!
//! The directory itself is what a process locks: there is no lock file that somebody could delete. Nothing in it is read or
//! written before.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::rand::{GetRandomFlags, getrandom};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::log;
use crate::store::Revision;

/// The version of everything in the directory. To be raised with any change that this code could not read.
const FORMAT: &str = "threadkv 5";

/// Versions before, which are read, and taken over: their frames have tags of their own. The first of them has no revisions.
const FORMAT_3: &str = "threadkv 3";
const FORMAT_4: &str = "threadkv 4";

/// What versions before that have in their `threadkv.format`.
const OUTDATED: [&str; 2] = ["threadkv 1", "threadkv 2"];

const FORMAT_FILE: &str = "threadkv.format";

/// The last version that reads [`OUTDATED`]' last.
const VERSION_BEFORE: &str = "0.1.0";

/// Why a store could not be opened. Nothing in the directory has been changed or deleted.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system would not do that to this path.
    Io(&'static str, PathBuf, io::Error),
    /// Another process uses the directory.
    Locked(PathBuf),
    /// The directory was written by an earlier version.
    Outdated(PathBuf, String),
    /// The directory holds something that this version does not know.
    Format(PathBuf, String),
    /// What is in the file or directory is not what was written there; the text says how it was found.
    Damaged(PathBuf, &'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(what, path, error) => {
                write!(
                    f,
                    "cannot {what} {}: {error}; choose another --working-dir or mend this",
                    path.display()
                )
            }
            OpenError::Locked(path) => write!(
                f,
                "{} is in use by another process; stop that or choose another --working-dir",
                path.display()
            ),
            OpenError::Outdated(path, found) => write!(
                f,
                "{} has format {found:?}, and this version of threadkv knows {FORMAT:?}; start version {VERSION_BEFORE} \
                 there, this version on another directory, and copy the data over HTTP (README, \"From an earlier version\")",
                path.display()
            ),
            OpenError::Format(path, found) => write!(
                f,
                "{} has format {found:?}, and this version of threadkv knows {FORMAT:?}; use the version that wrote it",
                path.display(),
            ),
            OpenError::Damaged(path, how) => write!(
                f,
                "{} is damaged ({how}) and was left as it is; restore a copy or choose another --working-dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// A working directory that this process has locked.
pub(super) struct Directory {
    path: PathBuf,
    /// The directory, opened: for its lock, which ends with the process however it ends, and to sync its entries.
    handle: File,
    /// A random number that all files of this store carry, so that one of another store is noticed.
    id: u64,
    /// The revision that the store had when it was made, or taken over from version 3. Everything from then has it. `None` if it has
    /// not been taken over yet.
    revision: OnceLock<Revision>,
    /// Whether an earlier version has written `threadkv.format`.
    is_earlier: bool,
}

/// The files of a store, by the numbers in their names, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) logs: Vec<u64>,
    pub(super) snapshots: Vec<u64>,
}

impl Directory {
    /// Takes the directory for this process. Makes an empty store if there is none, with this revision.
    pub(super) fn open(path: &Path, revision: Revision) -> Result<Directory, OpenError> {
        create(path)?;
        let io = |what| move |error| OpenError::Io(what, path.to_owned(), error);
        let handle = File::open(path).map_err(io("open"))?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let mut directory = Directory {
            path: path.to_owned(),
            handle,
            id: 0,
            revision: OnceLock::new(),
            is_earlier: false,
        };
        if !directory.read_format()? {
            directory.found(revision)?;
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The revision that the store had when it was made or taken over; `None` if version 3 made it and it has not been taken over.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.revision.get().copied()
    }

    /// Whether it is a store of an earlier version, which has not been taken over.
    pub(super) fn is_earlier(&self) -> bool {
        self.is_earlier
    }

    /// Makes a store of an earlier version one of this version. What has no revision has this one from now on.
    pub(super) fn take_over(&self, revision: Revision) -> io::Result<()> {
        self.write_format(revision)?;
        let found = "has been taken over from an earlier version, which cannot read it any more";
        ::log::info!("{} {found}", self.path.display());
        Ok(())
    }

    /// The file of the log that begins with that batch.
    pub(super) fn log(&self, number: u64) -> PathBuf {
        self.path.join(format!("log-{number:020}"))
    }

    /// The snapshot that holds everything before that batch.
    pub(super) fn snapshot(&self, number: u64) -> PathBuf {
        self.path.join(format!("snapshot-{number:020}"))
    }

    /// A snapshot that is being written.
    pub(super) fn new_snapshot(&self) -> PathBuf {
        self.path.join("snapshot.new")
    }

    /// What is given up to make room, see [`super::reserve`].
    pub(super) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Makes names that have been created, changed or removed survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Which files there are.
    pub(super) fn files(&self) -> io::Result<Files> {
        let mut files = Files::default();
        let number = |digits: &str| {
            Some(digits)
                .filter(|it| it.len() == 20)?
                .parse::<u64>()
                .ok()
        };
        for file in fs::read_dir(&self.path)? {
            let name = file?.file_name();
            let Some((name, digits)) = name.to_str().and_then(|name| name.split_once('-')) else {
                continue;
            };
            match name {
                "log" => files.logs.extend(number(digits)),
                "snapshot" => files.snapshots.extend(number(digits)),
                _ => {}
            }
        }
        files.logs.sort_unstable();
        files.snapshots.sort_unstable();
        Ok(files)
    }

    /// Reads id and revision. Returns whether there is a store.
    fn read_format(&mut self) -> Result<bool, OpenError> {
        let path = self.path.join(FORMAT_FILE);
        let found = match fs::read(&path) {
            Ok(found) => String::from_utf8_lossy(&found).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(OpenError::Io("read", path, error)),
        };
        // As it was written, to the letter.
        let field = |name: &str| {
            let lines = found.lines();
            lines.filter_map(|line| line.strip_prefix(name)).next()
        };
        if let Some(id) = field("id ").and_then(|it| u64::from_str_radix(it, 16).ok()) {
            self.id = id;
            if found == format!("{FORMAT_3}\nid {id:016x}\n") {
                self.is_earlier = true;
                return Ok(true);
            }
            let revision = field("revision ").and_then(|it| it.parse().ok());
            let revision = revision.filter(|revision| {
                self.is_earlier = found == format_text(FORMAT_4, id, *revision);
                self.is_earlier || found == format_text(FORMAT, id, *revision)
            });
            if let Some(revision) = revision {
                self.revision = OnceLock::from(revision);
                return Ok(true);
            }
        }
        let found = found.lines().next().unwrap_or_default().to_owned();
        Err(if OUTDATED.contains(&&*found) {
            OpenError::Outdated(path, found)
        } else if [FORMAT, FORMAT_3, FORMAT_4].contains(&&*found) {
            OpenError::Damaged(path, "it is not as it was written")
        } else {
            OpenError::Format(path, found)
        })
    }

    /// Makes a store without entries. May have been begun before: the file that says which format this is
    /// comes last, and until it is there, nothing can have been stored.
    fn found(&mut self, revision: Revision) -> Result<(), OpenError> {
        let io = |what, path: PathBuf| move |error| OpenError::Io(what, path, error);
        let missing = Err(OpenError::Damaged(
            self.path.join(FORMAT_FILE),
            "it is missing beside a store",
        ));
        let files = self.files().map_err(io("read", self.path.clone()))?;
        let first = self.log(0);
        let others = files.logs.iter().any(|number| *number != 0) || !files.snapshots.is_empty();
        if others || self.path.join("store").exists() {
            return missing;
        }
        if files.logs.contains(&0) {
            let length = fs::metadata(&first)
                .map_err(io("read", first.clone()))?
                .len();
            if length > log::HEADER {
                return missing;
            }
        }
        let mut id = [0; 8];
        getrandom(&mut id, GetRandomFlags::empty())
            .map_err(|error| io("find an id for", self.path.clone())(error.into()))?;
        self.id = u64::from_le_bytes(id);
        log::create(self, 0).map_err(io("write to", first))?;
        self.write_format(revision)
            .map_err(io("write to", self.path.join(FORMAT_FILE)))
    }

    /// Says that the store is of this version.
    fn write_format(&self, revision: Revision) -> io::Result<()> {
        let draft = self.path.join("threadkv.format.new");
        let mut file = File::create(&draft)?;
        file.write_all(format_text(FORMAT, self.id, revision).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, self.path.join(FORMAT_FILE))?;
        self.sync()?;
        let _ = self.revision.set(revision); // one that is there is the same
        Ok(())
    }
}

/// The lines have a checksum, so that no other revision is read than was written.
fn format_text(format: &str, id: u64, revision: Revision) -> String {
    let lines = format!("{format}\nid {id:016x}\nrevision {revision}\n");
    let sum = xxh3_64_with_seed(lines.as_bytes(), id);
    format!("{lines}sum {sum:016x}\n")
}

/// Creates a directory and those above it, if they are missing, so that they survive a power cut.
fn create(path: &Path) -> Result<(), OpenError> {
    let io = |what| move |error| OpenError::Io(what, path.to_owned(), error);
    // A relative path of one part has an empty parent, which is the current directory.
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(parent)?;
            fs::create_dir(path).map_err(io("create"))?;
        }
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(io("create")(error)),
    }
    // Also where it was there already: whoever created it may have been killed before syncing.
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // It is not ours, and may not be readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.map_err(io("sync the directory above")),
    }
}
