//! Snapshots of the map in etcd, by which a node starts, and behind which the log may be forgotten.

use std::thread;
use std::time::Duration;

use super::record::{Place, SnapshotHead, decode_entries, encode_entries};
use super::{JoinError, Shared};
use crate::etcd::{Error, KeyValue};
use crate::store::commit::Reply;
use crate::store::index::Loader;
use crate::store::{CommitError, Entry};

/// About how many bytes a chunk has. While it is put, writes of clients wait.
const CHUNK: usize = 128 << 10;

/// Pause behind a chunk, for the writes of clients.
const PAUSE: Duration = Duration::from_millis(2);

/// Loads the snapshot that is there, or nothing if there is none.
pub(super) fn load(shared: &Shared) -> Result<(), JoinError> {
    loop {
        let (_, head) = shared
            .etcd
            .get(&shared.keys.head)
            .map_err(JoinError::Etcd)?;
        let Some(head) = head else {
            // The replica begins at the beginning.
            replace(shared, Loader::default(), Place::beginning());
            return Ok(());
        };
        let head = read(&shared.keys.head, &head)?;
        let mut entries = Loader::default();
        let mut whole = true;
        for number in 0..head.chunks {
            let key = chunk_key(shared, head.place.at, number);
            let (_, chunk) = shared.etcd.get(&key).map_err(JoinError::Etcd)?;
            let Some(chunk) = chunk else {
                // A newer snapshot has taken its place.
                whole = false;
                break;
            };
            let some = decode_entries(&chunk.value).ok_or(JoinError::Unknown(key))?;
            some.into_iter().for_each(|entry| entries.insert(entry));
            crate::store::commit::step();
        }
        if whole {
            let keys = head.keys;
            log::info!("loading {keys} keys of a snapshot in etcd");
            replace(shared, entries, head.place);
            return Ok(());
        }
    }
}

/// Replaces everything. What becomes of records that this node has put and not seen is not known then.
fn replace(shared: &Shared, entries: Loader, place: Place) {
    let at = place.at;
    shared.replica().load(entries, place);
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

fn chunk_key(shared: &Shared, at: i64, number: u64) -> String {
    format!("{}{at:020}/{number:08}", shared.keys.snapshots)
}

/// What has become of a snapshot.
pub(super) enum Written {
    /// It is there, and the log before it is forgotten.
    Whole(SnapshotHead),
    /// Another node has written one.
    Overtaken,
}

/// Writes a snapshot of the map as it is now. `between` is called between chunks.
pub(super) fn write(shared: &Shared, mut between: impl FnMut()) -> Result<Written, Error> {
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
        chunks: 0,
        keys: 0,
        bytes: 0,
    };
    let mut put = |some: &[Entry]| {
        let chunk = encode_entries(some);
        etcd.put(&chunk_key(shared, at, head.chunks), &chunk, None)?;
        head.chunks += 1;
        head.keys += some.len() as u64;
        head.bytes += chunk.len() as u64;
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
    if !etcd.put_if(&keys.head, &head.encode(), None, changed_at)? {
        etcd.delete_prefix(&format!("{}{at:020}/", keys.snapshots))?;
        return Ok(Written::Overtaken);
    }
    if let Some(before) = before {
        etcd.delete_prefix(&format!("{}{:020}/", keys.snapshots, before.place.at))?;
    }
    match etcd.compact(at) {
        Ok(()) => {}
        // Somebody else has.
        Err(error) if error.is_compacted() => {}
        Err(error) => return Err(error),
    }
    Ok(Written::Whole(head))
}
