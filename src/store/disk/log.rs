//! The log: batches of changes, in the order in which they took effect, since some checkpoint.
//!
//! It is in files that are named after numbers, each of which goes on where the one before it ends. Once a checkpoint
//! holds what is in a file, the file is deleted. A batch is a byte that is in no text (255), its length (8 bytes), its
//! sequence number (8 bytes), the xxh3 of these two and of what follows (8 bytes), the batch as [`super::batch`] has it,
//! and again 255. All numbers are little-endian.
//!
//! Not a keyspace of fjall's: its journal costs twice as many trips to the disk for each sync, since the file grows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::super::entries::Entries;
use super::super::state::Changes;
use super::Durability;
use super::batch;
use super::torn::{self, Broken, Fields, Look};

/// What a batch begins and ends with. No byte of UTF-8, so that no value looks like a batch.
const MARK: u8 = 255;

/// Where the parts of a batch are.
const CHECKSUM: usize = 17;
const CHANGES: usize = 25;

/// From so many bytes on, a file is followed by the next one. Each is read at once when the store is opened.
const FILE_BYTES: u64 = 64 << 20;

/// By so many zeros a file is made longer ahead of what is written. A sync of bytes that the file has already need not
/// write down where they are, which takes the disk as long again.
const AHEAD: usize = 512 << 10;

/// How much is kept in the process's own buffer at most ([`Durability::None`]).
const KEPT_BYTES: usize = 64 << 10;

/// A place in the log: between two batches, at the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The number of the file.
    pub(super) file: u64,
    /// The sequence number of the first batch in it.
    pub(super) sequence: u64,
}

impl Start {
    /// The beginning of a new store's log.
    pub(super) const FIRST: Start = Start {
        file: 0,
        sequence: 0,
    };
}

/// The end of the log, to be written to.
pub(super) struct Log {
    directory: PathBuf,
    durability: Durability,
    file: File,
    /// Where the file ends, and the next batch begins.
    end: Start,
    /// Bytes of the file that have been written to, and those that it has.
    written: u64,
    length: u64,
    /// Bytes of the files before it, since the checkpoint.
    before: u64,
    /// What has not been written.
    kept: Vec<u8>,
}

impl Log {
    /// Writes a batch, and waits for as much durability as was asked for; not for that of one that need not be `durable`.
    pub(super) fn append(&mut self, changes: &Changes, durable: bool) -> io::Result<()> {
        if self.written >= FILE_BYTES {
            self.begin_file()?;
        }
        encode(changes, self.end.sequence, &mut self.kept);
        self.end.sequence += 1;
        match self.durability {
            Durability::Sync if durable => self.sync(),
            Durability::Os if durable => self.hand_over(),
            _ if self.kept.len() > KEPT_BYTES => self.hand_over(),
            _ => Ok(()),
        }
    }

    /// Hands what has been written to the operating system.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        let end = self.written + self.kept.len() as u64;
        if end > self.length && self.durability == Durability::Sync {
            let zeros = vec![0; AHEAD];
            while end > self.length {
                self.file.write_all_at(&zeros, self.length)?;
                self.length += AHEAD as u64;
            }
        }
        self.file.write_all_at(&self.kept, self.written)?;
        self.kept.clear();
        self.kept.shrink_to(KEPT_BYTES);
        self.written = end;
        Ok(())
    }

    /// Makes what has been written survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.file.sync_data()
    }

    /// How many bytes there are since the checkpoint.
    pub(super) fn bytes(&self) -> u64 {
        self.before + self.written
    }

    /// Begins another file, and returns where that is.
    pub(super) fn begin_file(&mut self) -> io::Result<Start> {
        // Only the last file may be torn by a crash.
        self.sync()?;
        self.end.file += 1;
        self.file = create(&self.directory, self.end.file)?;
        self.before += self.written;
        (self.written, self.length) = (0, 0);
        Ok(self.end)
    }

    /// Counts so many bytes no more: they are before a checkpoint now.
    pub(super) fn forget(&mut self, bytes: u64) {
        self.before -= bytes;
    }
}

/// Makes the log of a new store, if there is none.
pub(super) fn create_first(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    if numbers(directory)?.is_empty() {
        create(directory, Start::FIRST.file)?;
    }
    let parent = directory.parent().unwrap_or(directory);
    File::open(parent)?.sync_all()
}

/// Looks for damage. Returns the first file that is damaged, or missing. A batch at the end that a crash has torn is cut
/// off.
pub(super) fn damaged_file(directory: &Path) -> io::Result<Option<PathBuf>> {
    let files = numbers(directory)?;
    let mut sequence = None;
    for (n, &number) in files.iter().enumerate() {
        let path = directory.join(number.to_string());
        if number != files[0] + n as u64 {
            return Ok(Some(directory.join((files[0] + n as u64).to_string())));
        }
        let bytes = fs::read(&path)?;
        let mut in_sequence = true;
        let look = torn::look(&bytes, MARK, |bytes| {
            let found = read(bytes)?;
            in_sequence &= sequence.is_none_or(|sequence| sequence == found.sequence);
            sequence = Some(found.sequence + 1);
            Ok(found.length)
        });
        match look {
            Look::Whole if in_sequence => {}
            Look::Torn { whole } | Look::TornWithin { whole }
                if in_sequence && n + 1 == files.len() =>
            {
                log::warn!(
                    "{}: cut off a batch that was written in part",
                    path.display()
                );
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(whole as u64)?;
                file.sync_all()?;
            }
            _ => return Ok(Some(path)),
        }
    }
    Ok(None)
}

/// Carries out on entries what the log holds from a place on, which [`damaged_file`] has looked through. Returns the end of
/// it, to be written to, or `None` if that place is not in the log, or something there is no change.
pub(super) fn replay(
    directory: &Path,
    start: Start,
    durability: Durability,
    entries: &mut Entries,
) -> io::Result<Option<Log>> {
    let numbers = numbers(directory)?;
    let Some(last) = numbers
        .last()
        .copied()
        .filter(|_| numbers.contains(&start.file))
    else {
        return Ok(None);
    };
    let (mut sequence, mut before, mut written, mut length) = (start.sequence, 0, 0, 0);
    for number in start.file..=last {
        let bytes = fs::read(directory.join(number.to_string()))?;
        before += written;
        let mut at = 0;
        while let Ok(found) = read(&bytes[at..]) {
            if found.sequence != sequence || batch::apply(found.changes, entries).is_none() {
                return Ok(None);
            }
            sequence += 1;
            at += found.length;
        }
        (written, length) = (at as u64, bytes.len() as u64);
    }
    // What a crash has kept from being deleted.
    delete_before(directory, start.file)?;
    let path = directory.join(last.to_string());
    Ok(Some(Log {
        directory: directory.to_owned(),
        durability,
        file: OpenOptions::new().write(true).open(path)?,
        end: Start {
            file: last,
            sequence,
        },
        written,
        length,
        before,
        kept: Vec::new(),
    }))
}

fn create(directory: &Path, number: u64) -> io::Result<File> {
    let path = directory.join(number.to_string());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// The numbers of the files that are there, in order.
fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(directory)? {
        numbers.extend(
            file?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Deletes files in their order, so that those that a crash leaves have no gap.
pub(super) fn delete_before(directory: &Path, end: u64) -> io::Result<()> {
    for number in numbers(directory)?
        .into_iter()
        .take_while(|number| *number < end)
    {
        fs::remove_file(directory.join(number.to_string()))?;
    }
    Ok(())
}

fn encode(changes: &Changes, sequence: u64, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.push(MARK);
    bytes.extend_from_slice(&[0; CHANGES - 1]);
    batch::encode(changes, bytes);
    bytes.push(MARK);
    let batch = &mut bytes[start..];
    let length = batch.len() as u64;
    batch[1..9].copy_from_slice(&length.to_le_bytes());
    batch[9..CHECKSUM].copy_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(batch);
    batch[CHECKSUM..CHANGES].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(batch: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&batch[1..CHECKSUM]);
    hash.update(&batch[CHANGES..]);
    hash.digest()
}

/// A batch as it is in the log.
#[derive(Debug)]
struct Found<'a> {
    length: usize,
    sequence: u64,
    changes: &'a [u8],
}

/// Reads the batch that bytes begin with.
fn read(bytes: &[u8]) -> Result<Found<'_>, Broken> {
    let mut fields = Fields { bytes, at: 0 };
    fields.tag(MARK)?;
    let length = u64::from_le_bytes(fields.take()?);
    let sequence = u64::from_le_bytes(fields.take()?);
    let expected = u64::from_le_bytes(fields.take()?);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let rest = length.checked_sub(CHANGES + 1).ok_or(Broken { at: 1 })?;
    let changes = fields.skip(rest)?;
    fields.tag(MARK)?;
    if checksum(&bytes[..length]) != expected {
        return Err(Broken { at: CHANGES });
    }
    Ok(Found {
        length,
        sequence,
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::Entry;
    use super::super::super::state::Change;
    use super::*;

    /// A directory for one test, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let name = format!("threadkv-log-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path); // of an earlier run, if there is any
            create_first(&path).unwrap();
            Scratch(path)
        }

        fn file(&self, number: u64) -> PathBuf {
            self.0.join(number.to_string())
        }

        /// What the log holds from a place on, and its end.
        fn read(&self, start: Start) -> Option<(Vec<u64>, Log)> {
            assert_eq!(damaged_file(&self.0).unwrap(), None);
            let mut entries = Entries::default();
            let log = replay(&self.0, start, Durability::Sync, &mut entries).unwrap()?;
            let entries = entries.from(std::ops::Bound::Unbounded);
            Some((entries.map(|it| it.key().parse().unwrap()).collect(), log))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0); // in vain at worst
        }
    }

    /// Puts the key of that number.
    fn put(log: &mut Log, number: u64) {
        let entry = Entry::of(&number.to_string(), &"v".repeat(2000));
        let changes = Changes {
            cleared: false,
            entries: [Change::Set(entry)].into(),
        };
        log.append(&changes, true).unwrap();
    }

    /// A log of two files, with two batches each, and where the second begins.
    fn two_files(scratch: &Scratch) -> Start {
        let (_, mut log) = scratch.read(Start::FIRST).unwrap();
        put(&mut log, 0);
        put(&mut log, 1);
        let second = log.begin_file().unwrap();
        put(&mut log, 2);
        put(&mut log, 3);
        second
    }

    #[test]
    fn it_is_read_from_a_place_on_and_goes_on_at_its_end() {
        let scratch = Scratch::new("places");
        let second = two_files(&scratch);
        let (keys, mut log) = scratch.read(Start::FIRST).unwrap();
        assert_eq!(keys, [0, 1, 2, 3]);
        put(&mut log, 4);
        assert_eq!(scratch.read(second).unwrap().0, [2, 3, 4]);
        // What is before that is gone now.
        assert!(scratch.read(Start::FIRST).is_none());
        let elsewhere = Start {
            sequence: second.sequence + 1,
            ..second
        };
        assert!(scratch.read(elsewhere).is_none());
    }

    #[test]
    fn a_torn_end_is_cut_off_and_written_over() {
        let scratch = Scratch::new("torn");
        two_files(&scratch);
        let bytes = fs::read(scratch.file(1)).unwrap();
        let first = read(&bytes).unwrap().length;
        let last = first + read(&bytes[first..]).unwrap().length;
        let mut without_sector = bytes.clone();
        without_sector[first.next_multiple_of(512)..][..512].fill(0);
        for torn in [&bytes[..first + 1], &bytes[..last - 1], &without_sector] {
            fs::write(scratch.file(1), torn).unwrap();
            let (keys, mut log) = scratch.read(Start::FIRST).unwrap();
            assert_eq!(keys, [0, 1, 2]);
            put(&mut log, 9);
            assert_eq!(scratch.read(Start::FIRST).unwrap().0, [0, 1, 2, 9]);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_before_the_end_is_damage() {
        let scratch = Scratch::new("damage");
        two_files(&scratch);
        let (first, second) = (scratch.file(0), scratch.file(1));
        let damaged = || damaged_file(&scratch.0).unwrap();
        let whole = [fs::read(&first).unwrap(), fs::read(&second).unwrap()];
        let length = read(&whole[0]).unwrap().length;
        // A batch left out, at the beginning of the log's last file and in the middle of it.
        fs::write(&second, &whole[1][length..]).unwrap();
        assert_eq!(damaged(), Some(second.clone()));
        let later = [&whole[1][..length], &whole[1][length + 1..]].concat();
        fs::write(&second, later).unwrap();
        assert_eq!(damaged(), Some(second.clone()));
        // A bit anywhere, also in the batch at the end.
        for at in [1, 9, 17, 30, length - 1, length, length + 30] {
            let mut flipped = whole[1].clone();
            flipped[at] ^= 1;
            fs::write(&second, &flipped).unwrap();
            assert_eq!(damaged(), Some(second.clone()), "{at}");
        }
        fs::write(&second, &whole[1]).unwrap();
        // A file that breaks off, with another behind it, and one that is missing.
        fs::write(&first, &whole[0][..length + 1]).unwrap();
        assert_eq!(damaged(), Some(first.clone()));
        fs::write(&first, &whole[0]).unwrap();
        assert_eq!(damaged(), None);
        fs::write(scratch.file(3), b"").unwrap();
        assert_eq!(damaged(), Some(scratch.file(2)));
    }
}
