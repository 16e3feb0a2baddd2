//! Snapshots of the map in etcd, by which a node starts, and behind which the log may be forgotten.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::record::{Place, SnapshotHead, decode_entries, encode_entries};
use super::{JoinError, Shared, random};
use crate::etcd::{Error, KeyValue};
use crate::store::commit::Reply;
use crate::store::index::Loader;
use crate::store::{CommitError, Entry};

/// About how many bytes a chunk has. While it is put, writes of clients wait.
const CHUNK: usize = 128 << 10;

/// How many chunks are fetched at once.
const FETCHERS: usize = 3;

/// Pause behind a chunk, for the writes of clients.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether there is a snapshot of a later place than that of this node.
pub(super) fn is_newer(shared: &Shared) -> Result<bool, JoinError> {
    let head = shared
        .etcd
        .get(&shared.keys.head)
        .map_err(JoinError::Etcd)?;
    Ok(match head.1 {
        Some(head) => read(&shared.keys.head, &head)?.place.at > shared.replica().at(),
        None => false,
    })
}

/// Loads the snapshot that is there, or nothing if there is none. `undone`: etcd does not have any more what it had.
pub(super) fn load(shared: &Shared, undone: bool) -> Result<(), JoinError> {
    let mut incomplete = None;
    loop {
        let (_, head) = shared
            .etcd
            .get(&shared.keys.head)
            .map_err(JoinError::Etcd)?;
        let Some(head) = head else {
            // The replica begins at the beginning.
            replace(shared, Loader::default(), Place::beginning(), undone);
            return Ok(());
        };
        let head = read(&shared.keys.head, &head)?;
        if incomplete == Some(head.id) {
            let message = "a chunk of the snapshot is missing".into();
            return Err(JoinError::Etcd(Error::Unknown(message)));
        }
        if let Some(entries) = fetch(shared, &head)? {
            let keys = head.keys;
            log::info!("loading {keys} keys of a snapshot in etcd");
            replace(shared, entries, head.place, undone);
            return Ok(());
        }
        // A newer snapshot has taken its place.
        incomplete = Some(head.id);
    }
}

/// Fetches the chunks of a snapshot, several at once, since a node waits longer for etcd than it takes to read a chunk. `None` if one is not
/// there any more.
fn fetch(shared: &Shared, head: &SnapshotHead) -> Result<Option<Loader>, JoinError> {
    let (own, next) = (&chunks(shared, head), &AtomicU64::new(0));
    let (give, fetched) = bounded(1);
    thread::scope(|scope| {
        for _ in 0..FETCHERS {
            let give = give.clone();
            let fetch = move || {
                let numbers = (0..).map(|_| next.fetch_add(1, Ordering::Relaxed));
                for number in numbers.take_while(|number| *number < head.chunks) {
                    // Nobody takes it if another one could not be had.
                    if give.send(fetch_chunk(shared, own, number)).is_err() {
                        break;
                    }
                }
            };
            let fetcher = thread::Builder::new().name("fetcher".into());
            fetcher.spawn_scoped(scope, fetch).map_err(JoinError::Io)?;
        }
        drop(give);
        let mut entries = Loader::default();
        for chunk in fetched {
            let Some(chunk) = chunk? else {
                return Ok(None);
            };
            chunk.into_iter().for_each(|entry| entries.insert(entry));
            crate::store::commit::step();
        }
        Ok(Some(entries))
    })
}

fn fetch_chunk(shared: &Shared, own: &str, number: u64) -> Result<Option<Vec<Entry>>, JoinError> {
    let key = chunk(own, number);
    let (_, chunk) = shared.etcd.get(&key).map_err(JoinError::Etcd)?;
    let decode = |chunk: KeyValue| decode_entries(&chunk.value).ok_or(JoinError::Unknown(key));
    chunk.map(decode).transpose()
}

/// Replaces everything. What becomes of records that this node has put and not seen is not known then.
fn replace(shared: &Shared, entries: Loader, place: Place, undone: bool) {
    let at = place.at;
    shared.replica().load(entries, place, undone);
    let unseen = shared.under_way.end(u64::MAX).into_iter();
    let timed_out = |done| Reply::new(done, Err(CommitError::TimedOut), Duration::ZERO);
    let unseen: Vec<Reply> = unseen.map(timed_out).collect();
    if !unseen.is_empty() {
        (shared.deliver)(unseen);
    }
    let readers = shared.readers.come_to(at);
    shared.answer(readers, Ok(()));
}

fn read(key: &str, head: &KeyValue) -> Result<SnapshotHead, JoinError> {
    SnapshotHead::decode(&head.value).ok_or_else(|| JoinError::Unknown(key.into()))
}

/// What the names of its chunks begin with. Two snapshots never share chunks, not even of the same place, so whoever deletes the chunks of one
/// does no harm to another, however late that happens.
fn chunks(shared: &Shared, head: &SnapshotHead) -> String {
    let SnapshotHead { place, id, .. } = head;
    format!("{}{:020}-{id:016x}/", shared.keys.snapshots, place.at)
}

/// The name of a chunk, of those whose names begin so.
fn chunk(own: &str, number: u64) -> String {
    format!("{own}{number:08}")
}

/// What has become of a snapshot.
pub(super) enum Written {
    /// It is there, and the log before it is forgotten.
    Whole(SnapshotHead),
    /// Another node has written one.
    Overtaken,
}

/// Writes a snapshot of the map as it is now. `between` is called between chunks.
pub(super) fn write(shared: &Shared, between: impl FnMut()) -> Result<Written, Error> {
    let (etcd, keys) = (&shared.etcd, &shared.keys);
    let (_, before) = etcd.get(&keys.head)?;
    let changed_at = before.as_ref().map_or(0, |head| head.mod_revision);
    let before = before.and_then(|head| SnapshotHead::decode(&head.value));
    let (entries, place) = shared.replica().snapshot();
    if before.as_ref().is_some_and(|it| it.place.at >= place.at) {
        return Ok(Written::Overtaken);
    }
    let at = place.at;
    let mut head = SnapshotHead {
        place,
        id: random(),
        chunks: 0,
        keys: 0,
        bytes: 0,
    };
    let own = chunks(shared, &head);
    if let Err(error) = put_chunks(shared, entries, &mut head, between) {
        // Otherwise attempts that fail could fill etcd.
        let _ = etcd.delete_prefix(&own); // if that fails as well, the next snapshot deletes them
        return Err(error);
    }
    if !etcd.put_if(&keys.head, &head.encode(), None, changed_at)? {
        etcd.delete_prefix(&own)?;
        return Ok(Written::Overtaken);
    }
    // Chunks of the last snapshot, and of those that were never whole.
    etcd.delete_between(&keys.snapshots, &format!("{}{at:020}-", keys.snapshots))?;
    match etcd.compact(at) {
        Ok(()) => {}
        // Somebody else has.
        Err(error) if error.is_compacted() => {}
        Err(error) => return Err(error),
    }
    Ok(Written::Whole(head))
}

/// Writes the chunks, and counts them in the head.
fn put_chunks(
    shared: &Shared,
    entries: impl Iterator<Item = Entry>,
    head: &mut SnapshotHead,
    mut between: impl FnMut(),
) -> Result<(), Error> {
    let own = chunks(shared, head);
    let mut put = |some: &[Entry]| {
        let (bytes, key) = (encode_entries(some), chunk(&own, head.chunks));
        shared.etcd.put(&key, &bytes, None)?;
        head.chunks += 1;
        head.keys += some.len() as u64;
        head.bytes += bytes.len() as u64;
        between();
        thread::sleep(PAUSE);
        Ok::<(), Error>(())
    };
    let (mut some, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += entry.bytes();
        some.push(entry);
        if bytes >= CHUNK {
            put(&some)?;
            (some, bytes) = (Vec::new(), 0);
        }
    }
    if !some.is_empty() {
        put(&some)?;
    }
    Ok(())
}
