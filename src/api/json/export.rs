//! `GET /api/v1/export`: the store as it is at one revision, in the format of [`crate::dump`], made as the client reads.
//!
//! A view of the map ([`Store::counted_copy`]) keeps what others change meanwhile. So an export takes no more memory than that, counted in the
//! budget, and nobody waits for it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hmac_sha256::Hash;

use super::answer::Writing;
use super::error::{Code, Error};
use crate::dump::{first_line, last_line};
use crate::server::{Body, Response, Stream};
use crate::store::{Counted, Entry, Kind, Revision, Store};

/// The most exports at once. Each costs all writes some time and, if it is slow, memory.
const MOST: usize = 8;

/// The type of its lines.
const LINES: &str = "application/x-ndjson";

/// The first part has about so many bytes: a worker makes it.
const FIRST_PART: usize = 4 * 1024;

/// The others have so many.
const PART: usize = 64 * 1024;

/// A part is made from at most so many entries that have expired, since these take time as well.
const SKIPPED: usize = 1024;

/// Counts the exports under way.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Exports(Arc<AtomicUsize>);

/// One of them.
struct Place(Exports);

impl Exports {
    fn enter(&self) -> Option<Place> {
        let more = |now: usize| (now < MOST).then_some(now + 1);
        let entered = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins an export of the keys with a prefix.
pub(super) fn export(store: &Store, exports: &Exports, prefix: &str) -> Result<Response, Error> {
    let place = exports.enter().ok_or_else(|| {
        let message = format!("There are {MOST} exports under way, and no more are begun");
        Error::new(Code::ClusterUnavailable, message).detail("limit", MOST)
    })?;
    let (entries, revision, counted) = store.counted_copy(prefix);
    let export = Export {
        entries,
        counted,
        begin: Some(revision),
        writing: None,
        hash: Hash::new(),
        _place: place,
    };
    let response = Response::new(200, LINES, Body::Stream(Box::new(export)));
    Ok(response.with_header("Cache-Control", "no-store"))
}

struct Export<I> {
    entries: I,
    counted: Counted,
    /// The revision, until the first line is written.
    begin: Option<Revision>,
    /// The value that is being written.
    writing: Option<(Writing, Ending)>,
    /// Of all that has been written.
    hash: Hash,
    _place: Place,
}

/// What an entry's line needs when its value is written.
struct Ending {
    is_json: bool,
    /// What is behind the value.
    rest: String,
}

impl<I: Iterator<Item = Entry> + Send> Stream for Export<I> {
    fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let mut full = start + PART;
        if let Some(revision) = self.begin.take() {
            out.extend_from_slice(first_line(revision, self.counted.keys).as_bytes());
            full = start + FIRST_PART;
        }
        let more = self.write_entries(out, full);
        self.hash.update(&out[start..]);
        if !more {
            let hash = mem::take(&mut self.hash);
            out.extend_from_slice(last_line(self.counted.keys, hash).as_bytes());
        }
        more
    }
}

impl<I: Iterator<Item = Entry>> Export<I> {
    /// Writes entries until `out` is full. Returns whether there are more.
    fn write_entries(&mut self, out: &mut Vec<u8>, full: usize) -> bool {
        let mut skipped = 0;
        while out.len() < full && skipped < SKIPPED {
            if let Some((value, ending)) = &mut self.writing {
                let begin = out.len();
                let more = value.write_some(out);
                if ending.is_json {
                    on_one_line(&mut out[begin..]);
                }
                if more {
                    continue;
                }
                out.extend_from_slice(ending.rest.as_bytes());
                self.writing = None;
            }
            let Some(entry) = self.entries.next() else {
                return false;
            };
            if !entry.is_live(self.counted.now) {
                skipped += 1;
                continue;
            }
            let is_json = entry.kind() == Kind::Json;
            // Keys have no characters that JSON would escape.
            out.extend_from_slice(br#"{"key":""#);
            out.extend_from_slice(entry.key().as_bytes());
            out.extend_from_slice(if is_json {
                br#"","value":"#
            } else {
                br#"","text":"#
            });
            let rest = match entry.expiry {
                Some(expiry) => format!(
                    ",\"revision\":{},\"expires_at\":{}}}\n",
                    entry.revision(),
                    expiry.millis()
                ),
                None => format!(",\"revision\":{}}}\n", entry.revision()),
            };
            self.writing = Some((Writing::of(entry), Ending { is_json, rest }));
        }
        true
    }
}

/// Takes the line breaks out of JSON. They stand between its tokens only, where a space means the same: in strings they are escaped.
fn on_one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::dump::Reader;
    use crate::store::{Command, Expiry, Key, Operation};

    fn put(store: &Store, entry: Entry) {
        store.submit(Operation::Put(entry).into(), |done, _| {
            done.unwrap();
        });
    }

    fn json(key: &str, json: &str, expiry: Option<Expiry>) -> Entry {
        let key = Key::try_from(key.as_bytes()).unwrap();
        Entry::new(&key, Kind::Json, json.as_bytes(), expiry).unwrap()
    }

    #[test]
    fn what_is_exported_can_be_read_and_is_the_state_at_the_beginning() {
        let budget = Arc::new(Budget::new(u64::MAX));
        let store = Store::in_memory(0, budget).unwrap();
        let soon = Some(Expiry::now().plus(std::time::Duration::from_secs(60)));
        let past = Some(Expiry::at_millis(1));
        let long = format!("[{}1]", "1,\r\n".repeat(100_000));
        for n in 0..3000 {
            let text = "é\n\"".repeat(n % 30);
            put(&store, Entry::of(&format!("k{n:04}"), &text));
        }
        put(&store, json("json", "{\r\n \"a\\n\": 1 }", soon));
        put(&store, json("long", &long, None));
        put(&store, json("past", "1", past));
        let exports = Exports::default();
        let (entries, _, counted) = store.counted_copy("");
        let before: Vec<Entry> = entries.filter(|it| it.is_live(counted.now)).collect();
        assert_eq!(counted.keys, before.len());
        let Response {
            body: Body::Stream(mut stream),
            ..
        } = export(&store, &exports, "").unwrap()
        else {
            panic!("not a stream");
        };
        let mut out = Vec::new();
        assert!(stream.next_part(&mut out));
        store.submit(Command::Clear, |done, _| {
            done.unwrap();
        });
        while stream.next_part(&mut out) {}
        let (mut reader, mut found) = (Reader::new(1 << 20), Vec::new());
        reader.read(&out, &mut found).unwrap();
        reader.end(&mut found).unwrap();
        let one_line = |it: &Entry| {
            let value = it.value().to_owned();
            let value = match it.kind() {
                Kind::Json => value.replace(['\r', '\n'], " "),
                Kind::Text => value,
            };
            (it.key().to_owned(), it.kind(), value, it.expiry)
        };
        let found: Vec<_> = found.iter().map(one_line).collect();
        let before: Vec<_> = before.iter().map(one_line).collect();
        assert!(found == before);
    }

    #[test]
    fn there_are_only_so_many_at_once() {
        let exports = Exports::default();
        let mut places: Vec<_> = (0..MOST).map(|_| exports.enter().unwrap()).collect();
        assert!(exports.enter().is_none());
        places.pop();
        assert!(exports.enter().is_some());
    }
}
