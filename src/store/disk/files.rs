//! The working directory: who may use it, what is in it, and the database itself.
//!
//! ```text
//! DIR/threadkv.lock     held by the process that uses the directory
//! DIR/threadkv.format   the version of what follows
//! DIR/store/            a fjall database
//! ```
//!
//! The entries are in a keyspace of the database that is named after a generation, `entries-0` at first. Clearing the
//! store begins the next generation: one write to the keyspace `meta`, in the same batch as whatever comes after the
//! clear. The old keyspace is deleted afterwards; after a crash in between, when the store is opened.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::super::entries::Entries;
use super::super::state::Changes;
use super::super::{Entry, Key};
use super::{Durability, journals, manifest, record};

/// The version of everything in the directory. To be raised with any change that this code could not read.
const FORMAT: &str = "threadkv 1\n";

/// The key in `meta` under which the number of the current generation is: 8 bytes, little-endian.
const GENERATION: &str = "generation";

/// Names of keyspaces that hold entries; the generation follows.
const ENTRIES: &str = "entries-";

/// Entries in fjall's memory before they are sorted into a file. They are in the map as well, so less than its 64 MiB;
/// from 4 to 64 MiB the rate of writes was the same within the noise, and the space on disk grew.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// How many of the sorted files that tables in memory become are merged into the rest at a time. More of them mean less
/// merging and more space that is taken up by what was overwritten.
const FILES_BEFORE_MERGE: u8 = 8;

/// What is read from a file at a time.
const BLOCK_BYTES: u32 = 32 << 10;

/// Journals are given up beyond this: recovery reads all of them, and they count towards the space on disk.
const JOURNAL_BYTES: u64 = 64 << 20;

/// The database is read once, from end to end, so a cache is of little use.
const CACHE_BYTES: u64 = 1 << 20;

/// Files that fjall may keep open. Descriptors are what connections need.
const OPEN_FILES: usize = 64;

/// fjall's threads: one that writes sorted files, one that merges them.
const BACKGROUND_THREADS: usize = 2;

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

/// The directory, locked, and the database in it.
pub(super) struct Database {
    directory: PathBuf,
    fjall: Fjall,
    meta: Keyspace,
    entries: Keyspace,
    generation: u64,
    /// What a batch waits for.
    persist: Option<PersistMode>,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl Database {
    /// Takes the directory, creating it if need be, and reads what is in it.
    pub(super) fn open(
        directory: &Path,
        durability: Durability,
    ) -> Result<(Database, Entries), OpenError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io(what, path, error)
        };
        fs::create_dir_all(directory).map_err(io("create", directory))?;
        let lock = lock(directory)?;
        let store = directory.join("store");
        claim_format(directory, &store)?;
        check(&store)?;
        // Where fjall meets something that it did not expect, it may panic as well.
        let loading = {
            let store = store.clone();
            thread::Builder::new()
                .name(crate::LOADING_THREAD.into())
                .spawn(move || load(&store))
        };
        let loaded = loading
            .map_err(io("start a thread to read", &store))?
            .join();
        let (fjall, meta, entries, generation, loaded) = match loaded {
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
            Err(panic) => return Err(OpenError::Damaged(store, panic_message(&*panic))),
        };
        let persist = match durability {
            Durability::Sync => Some(PersistMode::SyncData),
            Durability::Os => Some(PersistMode::Buffer),
            Durability::None => None,
        };
        let directory = directory.to_owned();
        Ok((
            Database {
                directory,
                fjall,
                meta,
                entries,
                generation,
                persist,
                _lock: lock,
            },
            loaded,
        ))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes changes, whole or not at all, and waits for as much durability as was asked for; not for that of changes that
    /// need not be `durable`, and could as well be made again.
    pub(super) fn write(&mut self, changes: &Changes, durable: bool) -> fjall::Result<()> {
        if !changes.cleared && changes.entries.is_empty() {
            return Ok(());
        }
        let persist = self.persist.filter(|_| durable);
        let mut batch = self.fjall.batch().durability(persist);
        let next = changes.cleared.then(|| self.generation + 1);
        let fresh = next
            .map(|next| keyspace(&self.fjall, &format!("{ENTRIES}{next}")))
            .transpose()?;
        if let Some(next) = next {
            batch.insert(&self.meta, GENERATION, next.to_le_bytes());
        }
        let entries = fresh.as_ref().unwrap_or(&self.entries);
        // In order: each key's place in fjall's sorted table of them is near the one before, which is in the cache.
        let mut sorted: Vec<_> = changes.entries.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        for (key, change) in sorted {
            match change {
                Some(entry) => batch.insert(entries, key.as_str(), record::encode(entry)),
                None => batch.remove(entries, key.as_str()),
            }
        }
        batch.commit()?;
        if let (Some(next), Some(fresh)) = (next, fresh) {
            // The old files are deleted at once, so nothing may take back that they are no longer needed.
            self.sync()?;
            self.generation = next;
            let old = std::mem::replace(&mut self.entries, fresh);
            delete(self.fjall.clone(), old);
        }
        Ok(())
    }

    /// Bytes that the files of the entries take up, those of removed ones included.
    pub(super) fn used(&self) -> u64 {
        self.entries.disk_space()
    }

    /// Hands what has been written to the operating system.
    pub(super) fn hand_over(&self) -> fjall::Result<()> {
        self.fjall.persist(PersistMode::Buffer)
    }

    /// Makes what has been written survive a power cut.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.fjall.persist(PersistMode::SyncAll)
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
fn check(store: &Path) -> Result<(), OpenError> {
    let damaged = |path, what: &str| {
        Err(OpenError::Damaged(
            path,
            format!("{what} does not match its checksum"),
        ))
    };
    let error = |error| OpenError::Io("read", store.to_owned(), error);
    // Where creating it was cut short, fjall goes on with that.
    if !store.join("version").exists() {
        return Ok(());
    }
    if let Some(path) = manifest::damaged_file(store).map_err(error)? {
        return damaged(path, "it");
    }
    match journals::damaged_journal(store).map_err(error)? {
        Some(path) => damaged(path, "a batch in it"),
        None => Ok(()),
    }
}

/// What loading can fail with.
enum Failure {
    Fjall(fjall::Error),
    /// A key or a record that we would not have written.
    NoRecord,
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        Failure::Fjall(error)
    }
}

type Loaded = (Fjall, Keyspace, Keyspace, u64, Entries);

/// Opens the database, creating it if there is none, and reads all entries.
fn load(store: &Path) -> Result<Loaded, Failure> {
    let started = Instant::now();
    let fjall = Fjall::builder(store)
        .cache_size(CACHE_BYTES)
        .max_cached_files(Some(OPEN_FILES))
        .max_journaling_size(JOURNAL_BYTES)
        .manual_journal_persist(true)
        .worker_threads(BACKGROUND_THREADS)
        .open()?;
    let meta = keyspace(&fjall, "meta")?;
    let generation = match meta.get(GENERATION)? {
        Some(number) => u64::from_le_bytes((*number).try_into().map_err(|_| Failure::NoRecord)?),
        None => 0,
    };
    let name = format!("{ENTRIES}{generation}");
    let current = keyspace(&fjall, &name)?;

    let mut entries: Vec<(Key, Entry)> = Vec::with_capacity(current.approximate_len());
    let (mut keys, mut bytes, mut reported) = (0, 0, started);
    for item in current.iter() {
        let (key, value) = item.into_inner()?;
        let key = Key::try_from(&*key).map_err(|_| Failure::NoRecord)?;
        let entry = record::decode(&value).ok_or(Failure::NoRecord)?;
        // Those that have expired are for the sweeper, or they would stay on disk.
        if entry.is_live() {
            keys += 1;
            bytes += key.as_str().len() + entry.value.as_str().len();
        }
        entries.push((key, entry));
        if entries.len().is_multiple_of(1024) && reported.elapsed() >= PROGRESS {
            log::info!("loading: {keys} keys, {bytes} bytes so far");
            reported = Instant::now();
        }
    }
    let entries = Entries::from_iter(entries);
    let took = started.elapsed();
    log::info!(
        "loaded {keys} keys, {bytes} bytes, in {took:.1?} from {}",
        store.display()
    );

    for other in fjall.list_keyspace_names() {
        if other.starts_with(ENTRIES) && *other != *name {
            // Before anything could make it anew.
            fjall.delete_keyspace(keyspace(&fjall, &other)?)?;
        }
    }
    Ok((fjall, meta, current, generation, entries))
}

fn keyspace(fjall: &Fjall, name: &str) -> fjall::Result<Keyspace> {
    fjall.keyspace(name, || {
        let merge = Leveled::default().with_l0_threshold(FILES_BEFORE_MERGE);
        KeyspaceCreateOptions::default()
            .max_memtable_size(MEMTABLE_BYTES)
            .compaction_strategy(Arc::new(merge))
            // Entries are read from end to end only, when the store is opened.
            .filter_policy(FilterPolicy::disabled())
            .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
    })
}

/// Deletes a keyspace that is no longer needed, on a thread of its own, since its files may be many.
fn delete(fjall: Fjall, old: Keyspace) {
    let name = old.name().to_string();
    let delete = move || {
        if let Err(error) = fjall.delete_keyspace(old) {
            // It is deleted when the store is opened next.
            log::warn!("cannot delete {name}: {}", cause(&error));
        }
    };
    if let Err(error) = thread::Builder::new().name("reclaim".into()).spawn(delete) {
        log::warn!("cannot delete what was cleared until the next start: {error}");
    }
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
