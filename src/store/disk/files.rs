//! The working directory: who may use it, what is in it, and the database itself.
//!
//! ```text
//! DIR/threadkv.lock     held by the process that uses the directory
//! DIR/threadkv.format   the version of what follows
//! DIR/store/            a fjall database: the last checkpoint
//! DIR/log/              what has changed since, see [`super::log`]
//! ```
//!
//! The entries of a checkpoint are in a keyspace of the database that is named after a generation, `entries-0` at first.
//! One write to the keyspace `meta` makes another one count, with the place in the log from which on it has to be carried
//! out on that. The old keyspace and the log before that place are deleted afterwards; after a crash in between, when the
//! store is opened.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::super::entries::Entries;
use super::super::state::Changes;
use super::super::{Key, Map};
use super::checkpoint::Checkpointer;
use super::log::{self as change_log, Log, Start};
use super::{Durability, journals, manifest, record};

/// The version of everything in the directory. To be raised with any change that this code could not read.
const FORMAT: &str = "threadkv 2\n";

/// The key in `meta` under which the checkpoint is that counts: its generation, the number of the first file of the log
/// behind it, and the number of the first batch in that, 8 bytes each, little-endian.
const CHECKPOINT: &str = "checkpoint";

/// Names of keyspaces that hold entries; the generation follows.
const ENTRIES: &str = "entries-";

/// What is read from a file at a time.
const BLOCK_BYTES: u32 = 32 << 10;

/// The database is read once, from end to end, so a cache is of little use.
const CACHE_BYTES: u64 = 1 << 20;

/// Files that fjall may keep open. Descriptors are what connections need.
const OPEN_FILES: usize = 64;

/// fjall's threads: one that writes sorted files, one that merges them.
const BACKGROUND_THREADS: usize = 2;

/// How long the log may become in any case. With more entries it may become as long as these.
const LOG_BYTES: u64 = 16 << 20;

/// How much space may be taken up by what is not needed any more.
const GARBAGE_BYTES: u64 = 8 << 20;

/// How often loading reports how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Why a store could not be opened. Nothing in the directory has been changed or deleted.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system would not do that to this path.
    Io(&'static str, PathBuf, io::Error),
    /// Another process uses the directory.
    Locked(PathBuf),
    /// The directory holds something that this version does not know.
    Format(PathBuf, String),
    /// What is in the file or directory is not what was written there; the text says how it was found.
    Damaged(PathBuf, String),
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
            OpenError::Format(path, found) => write!(
                f,
                "{} has format {found:?}, and this version of threadkv knows {:?}; use the version that wrote it",
                path.display(),
                FORMAT.trim()
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

/// The directory, locked, and what is in it.
pub(super) struct Database {
    directory: PathBuf,
    fjall: Fjall,
    meta: Keyspace,
    checkpoint: Checkpoint,
    /// What is to follow it, while that is being made.
    next: Option<Next>,
    checkpointer: Checkpointer,
    /// Whether one has failed. No other is made: what the database has kept of it is not known until it is read anew.
    gave_up: bool,
    log: Log,
    map: Arc<Map>,
    /// Released when the process ends, however it ends.
    _lock: File,
}

/// All entries, as of about the time that the log begins at.
struct Checkpoint {
    generation: u64,
    keyspace: Keyspace,
    /// Bytes of keys and values in it.
    bytes: u64,
}

/// A checkpoint that is being made.
struct Next {
    generation: u64,
    start: Start,
    bytes: u64,
    /// Bytes of the log before it.
    before: u64,
}

impl Database {
    /// Takes the directory, creating it if need be, and loads what is in it into the map.
    pub(super) fn open(
        directory: &Path,
        durability: Durability,
        map: &Arc<Map>,
    ) -> Result<Database, OpenError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io(what, path, error)
        };
        fs::create_dir_all(directory).map_err(io("create", directory))?;
        let lock = lock(directory)?;
        let (store, log) = (directory.join("store"), directory.join("log"));
        claim_format(directory, &store)?;
        if !store.exists() {
            change_log::create_first(&log).map_err(io("write to", &log))?;
        }
        check(&store, &log)?;
        // Where fjall meets something that it did not expect, it may panic as well.
        let loading = {
            let (store, log) = (store.clone(), log.clone());
            thread::Builder::new()
                .name(crate::LOADING_THREAD.into())
                .spawn(move || load(&store, &log, durability))
        };
        let loaded = loading
            .map_err(io("start a thread to read", &store))?
            .join();
        let loaded = match loaded {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(Failure::Fjall(fjall::Error::Io(error)))) if !is_damage(&error) => {
                return Err(OpenError::Io("read or write", store, error));
            }
            Ok(Err(Failure::Fjall(fjall::Error::InvalidVersion(version)))) => {
                return Err(OpenError::Format(store, format!("fjall {version:?}")));
            }
            Ok(Err(Failure::Fjall(error))) => return Err(OpenError::Damaged(store, cause(&error))),
            Ok(Err(Failure::NoRecord)) => {
                return Err(OpenError::Damaged(
                    store,
                    "it holds something that is no entry".into(),
                ));
            }
            Ok(Err(Failure::NoLog)) => {
                return Err(OpenError::Damaged(
                    log,
                    "it does not go on where the checkpoint ends".into(),
                ));
            }
            Err(panic) => return Err(OpenError::Damaged(store, panic_message(&*panic))),
        };
        map.load(loaded.entries);
        let checkpointer = Checkpointer::start(loaded.fjall.clone(), Arc::clone(map), log)
            .map_err(io("start a thread for", directory))?;
        Ok(Database {
            directory: directory.to_owned(),
            fjall: loaded.fjall,
            meta: loaded.meta,
            checkpoint: loaded.checkpoint,
            next: None,
            checkpointer,
            gave_up: false,
            log: loaded.log,
            map: Arc::clone(map),
            _lock: lock,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes changes, whole or not at all, and waits for as much durability as was asked for; not for that of changes that
    /// need not be `durable`, and could as well be made again.
    pub(super) fn write(&mut self, changes: &Changes, durable: bool) -> io::Result<()> {
        if !changes.cleared && changes.entries.is_empty() {
            return Ok(());
        }
        self.log.append(changes, durable)
    }

    /// Hands what has been written to the operating system.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        self.log.hand_over()
    }

    /// Makes what has been written survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    /// Whether the log has become so long that recovery would take long, and space that another checkpoint gives back.
    pub(super) fn has_long_log(&self) -> bool {
        !self.gave_up && self.log.bytes() > LOG_BYTES.max(self.checkpoint.bytes)
    }

    /// Whether most of what the files hold is not in the map any more.
    pub(super) fn holds_garbage(&self) -> bool {
        let (held, left) = (self.checkpoint.bytes + self.log.bytes(), self.map.bytes());
        !self.gave_up && held > GARBAGE_BYTES && held / 3 > left as u64
    }

    /// Begins to make another checkpoint.
    pub(super) fn begin_checkpoint(&mut self) -> io::Result<()> {
        let start = self.log.begin_file()?;
        let generation = self.checkpoint.generation + 1;
        self.next = Some(Next {
            generation,
            start,
            bytes: self.map.bytes() as u64,
            before: self.log.bytes(),
        });
        self.checkpointer.make(generation);
        Ok(())
    }

    /// Whether a checkpoint has been begun, and not ended.
    pub(super) fn is_making_checkpoint(&self) -> bool {
        self.next.is_some()
    }

    /// Has the checkpoint that has been begun replace the last one, once it is made. Where it could not be made, everything
    /// is in the log still.
    pub(super) fn end_checkpoint(&mut self) -> io::Result<()> {
        let ControlFlow::Break(made) = self.checkpointer.made() else {
            return Ok(());
        };
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        // It may hold changes that the log had not been made durable with, and a bulk write half.
        self.log.sync()?;
        if let Err(error) = made.and_then(|keyspace| self.replace(next, keyspace)) {
            self.gave_up = true;
            log::error!(
                "cannot make a checkpoint in {}: {}; the log grows until threadkv is restarted",
                self.directory.display(),
                cause(&error)
            );
        }
        Ok(())
    }

    fn replace(&mut self, next: Next, keyspace: Keyspace) -> fjall::Result<()> {
        let numbers = [next.generation, next.start.file, next.start.sequence];
        self.meta
            .insert(CHECKPOINT, numbers.map(u64::to_le_bytes).concat())?;
        // What it replaces is deleted at once, so nothing may take this back.
        self.fjall.persist(PersistMode::SyncAll)?;
        self.log.forget(next.before);
        let made = Checkpoint {
            generation: next.generation,
            keyspace,
            bytes: next.bytes,
        };
        let old = std::mem::replace(&mut self.checkpoint, made);
        self.checkpointer.delete(old.keyspace, next.start.file);
        Ok(())
    }
}

/// Takes the directory for this process.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("threadkv.lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| OpenError::Io("write to", path.clone(), error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::Io("lock", path, error)),
    }
}

/// Sees to it that the directory says which format it has, and that it is ours.
fn claim_format(directory: &Path, store: &Path) -> Result<(), OpenError> {
    let path = directory.join("threadkv.format");
    let error = |error| OpenError::Io("write to", path.clone(), error);
    match fs::read(&path) {
        Ok(found) if found == FORMAT.as_bytes() => Ok(()),
        Ok(found) => Err(OpenError::Format(
            path,
            String::from_utf8_lossy(&found).trim().to_owned(),
        )),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            if store.exists() {
                let how = "it is missing beside a store".to_owned();
                return Err(OpenError::Damaged(path, how));
            }
            let draft = directory.join("threadkv.format.new");
            let mut file = File::create(&draft).map_err(error)?;
            file.write_all(FORMAT.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(error)?;
            fs::rename(&draft, &path).map_err(error)?;
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(error)
        }
        Err(error) => Err(OpenError::Io("read", path, error)),
    }
}

/// Looks for damage before fjall sees the store, and may make it worse.
fn check(store: &Path, log: &Path) -> Result<(), OpenError> {
    let damaged = |path, what: &str| {
        Err(OpenError::Damaged(
            path,
            format!("{what} does not match its checksum"),
        ))
    };
    let error = |error| OpenError::Io("read", store.to_owned(), error);
    // Where creating it was cut short, fjall goes on with that.
    if store.join("version").exists() {
        if let Some(path) = manifest::damaged_file(store).map_err(error)? {
            return damaged(path, "it");
        }
        if let Some(path) = journals::damaged_journal(store).map_err(error)? {
            return damaged(path, "a batch in it");
        }
    }
    match change_log::damaged_file(log).map_err(error)? {
        Some(path) if path.exists() => damaged(path, "a batch in it"),
        Some(path) => Err(OpenError::Damaged(path, "it is missing".into())),
        None => Ok(()),
    }
}

/// What loading can fail with.
enum Failure {
    Fjall(fjall::Error),
    /// A key or a record that we would not have written.
    NoRecord,
    /// The log does not go on where the checkpoint ends.
    NoLog,
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        Failure::Fjall(error)
    }
}

/// What is in the directory.
struct Loaded {
    fjall: Fjall,
    meta: Keyspace,
    checkpoint: Checkpoint,
    log: Log,
    entries: Entries,
}

/// Opens the database, creating it if there is none, and reads all entries.
fn load(store: &Path, log: &Path, durability: Durability) -> Result<Loaded, Failure> {
    let started = Instant::now();
    let fjall = Fjall::builder(store)
        .cache_size(CACHE_BYTES)
        .max_cached_files(Some(OPEN_FILES))
        .manual_journal_persist(true)
        .worker_threads(BACKGROUND_THREADS)
        .open()?;
    let meta = fjall.keyspace("meta", KeyspaceCreateOptions::default)?;
    let (generation, start) = match meta.get(CHECKPOINT)? {
        Some(numbers) => parse_checkpoint(&numbers).ok_or(Failure::NoRecord)?,
        None => (0, Start::FIRST),
    };
    let keyspace = entries(&fjall, generation)?;
    let mut entries = read_entries(&keyspace, started)?;
    let checkpoint = Checkpoint {
        generation,
        keyspace,
        bytes: entries.bytes() as u64,
    };
    let log = change_log::replay(log, start, durability, &mut entries)
        .map_err(fjall::Error::Io)?
        .ok_or(Failure::NoLog)?;
    let (keys, bytes) = entries.live();
    let took = started.elapsed();
    log::info!(
        "loaded {keys} keys, {bytes} bytes, in {took:.1?} from {}",
        store.display()
    );

    for other in fjall.list_keyspace_names() {
        if other.starts_with(ENTRIES) && other != *checkpoint.keyspace.name() {
            // Before anything could make it anew.
            let other = fjall.keyspace(&other, KeyspaceCreateOptions::default)?;
            fjall.delete_keyspace(other)?;
        }
    }
    Ok(Loaded {
        fjall,
        meta,
        checkpoint,
        log,
        entries,
    })
}

/// Reads the entries of a checkpoint.
fn read_entries(keyspace: &Keyspace, started: Instant) -> Result<Entries, Failure> {
    let mut reported = started;
    let entries = keyspace.iter().zip(0_u64..).map(|(item, n)| {
        let (key, record) = item.into_inner()?;
        let key = Key::try_from(&*key).map_err(|_| Failure::NoRecord)?;
        if n.is_multiple_of(1024) && reported.elapsed() >= PROGRESS {
            log::info!("loading: {n} keys so far");
            reported = Instant::now();
        }
        record::decode(&key, &record).ok_or(Failure::NoRecord)
    });
    entries.collect()
}

fn parse_checkpoint(numbers: &[u8]) -> Option<(u64, Start)> {
    let numbers: [u8; 24] = numbers.try_into().ok()?;
    let (numbers, _) = numbers.as_chunks();
    let [generation, file, sequence] = [0, 1, 2].map(|n| u64::from_le_bytes(numbers[n]));
    Some((generation, Start { file, sequence }))
}

/// The keyspace of a generation's entries.
pub(super) fn entries(fjall: &Fjall, generation: u64) -> fjall::Result<Keyspace> {
    fjall.keyspace(&format!("{ENTRIES}{generation}"), || {
        KeyspaceCreateOptions::default()
            // Entries are read from end to end only, when the store is opened.
            .filter_policy(FilterPolicy::disabled())
            .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
    })
}

/// What is behind an error of fjall's, in words.
pub(super) fn cause(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Storage(error) => error.to_string(),
        fjall::Error::Poisoned => "a write in the background has failed".to_owned(),
        other => other.to_string(),
    }
}

/// Whether an error of the operating system's kind says that a file does not hold what it should.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::NotFound
            | io::ErrorKind::Other
    )
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or("it cannot be read")
        .to_owned()
}
