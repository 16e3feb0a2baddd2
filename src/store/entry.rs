//! Entries: a key, its value, and perhaps the time at which it expires.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::str::Utf8Error;
use std::time::{Duration, SystemTime};

use arcstr::{ArcStr, Substr};

use super::{Key, Revision};

/// The kind of a value. The plain API returns both as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, put through the plain API or as a JSON string.
    Text,
    /// Any JSON but a string, exactly as it was sent.
    Json,
}

/// A key, its value, its expiry, and the revision at which it was written. Key and value are immutable and shared between store and
/// readers, so a clone is cheap. The others stand beside the pointer: a touch changes both, and the revision is known only when the
/// entry is committed.
///
/// Two entries are equal if all but their revisions is.
#[derive(Clone, Debug)]
pub struct Entry {
    record: Record,
    /// When it expires; `None` for never.
    pub expiry: Option<Expiry>,
    revision: Revision,
}

/// One block of memory: two bytes with the length of the key and the kind of the value, the key, the value. Separate blocks would take
/// sixteen bytes more each, and a cache miss. The two bytes are ASCII, since the block is text.
///
/// In maps it is found by its key.
#[derive(Clone, Debug)]
pub(super) struct Record(ArcStr);

/// Bytes of a record before the key: of its length 4 and 7 bits, and a bit for values that are JSON.
const HEAD: usize = 2;
const JSON: u8 = 1 << 6;

impl Record {
    /// Its key.
    pub(super) fn key(&self) -> &str {
        Entry::key_of_record(&self.0)
    }

    fn key_end(&self) -> usize {
        key_end(&self.0)
    }
}

/// Where the key of a record ends.
fn key_end(record: &str) -> usize {
    let head = record.as_bytes();
    HEAD + (usize::from(head[0] & !JSON) << 7 | usize::from(head[1]))
}

impl Borrow<str> for Record {
    fn borrow(&self) -> &str {
        self.key()
    }
}

impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Record {}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Record) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Record) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Entry {
    /// The entry of a key. `value` must be UTF-8, and valid JSON if that is its kind.
    pub fn new(
        key: &Key,
        kind: Kind,
        value: &[u8],
        expiry: Option<Expiry>,
    ) -> Result<Entry, Utf8Error> {
        Entry::with_key(key.as_str(), kind, value, expiry)
    }

    /// The entry that these bytes are of, as they were written to disk; `None` if there can be no such entry.
    pub(super) fn read(
        key: &[u8],
        kind: Kind,
        value: &[u8],
        expiry: Option<Expiry>,
    ) -> Option<Entry> {
        Entry::with_key(Key::check(key).ok()?, kind, value, expiry).ok()
    }

    fn with_key(
        key: &str,
        kind: Kind,
        value: &[u8],
        expiry: Option<Expiry>,
    ) -> Result<Entry, Utf8Error> {
        let key = key.as_bytes();
        let kind = match kind {
            Kind::Text => 0,
            Kind::Json => JSON,
        };
        let head = [kind | (key.len() >> 7) as u8, key.len() as u8 & 0x7f];
        let record = ArcStr::init_with(HEAD + key.len() + value.len(), |record| {
            record[..HEAD].copy_from_slice(&head);
            record[HEAD..][..key.len()].copy_from_slice(key);
            record[HEAD + key.len()..].copy_from_slice(value);
        })?;
        Ok(Entry {
            record: Record(record),
            expiry,
            revision: 0,
        })
    }

    /// The entry with this record, see [`Entry::record_text`].
    pub(super) fn of_record(text: &str, expiry: Option<Expiry>) -> Entry {
        Entry {
            record: Record(text.into()),
            expiry,
            revision: 0,
        }
    }

    /// The key in such a record.
    pub(super) fn key_of_record(text: &str) -> &str {
        &text[HEAD..key_end(text)]
    }

    /// The same but for its expiry.
    pub fn with_expiry(&self, expiry: Option<Expiry>) -> Entry {
        Entry {
            expiry,
            ..self.clone()
        }
    }

    /// The same but for its revision, which is that of the commit that writes it.
    pub(crate) fn at(self, revision: Revision) -> Entry {
        Entry { revision, ..self }
    }

    /// The revision at which it was last put or touched; 0 until it is committed.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its key.
    pub fn key(&self) -> &str {
        self.record.key()
    }

    /// The block with its key and its value.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Its value, as the plain API returns it.
    pub fn value(&self) -> &str {
        &self.record.0[self.record.key_end()..]
    }

    /// Its value, shared, without the entry.
    pub fn into_value(self) -> Substr {
        self.record.0.substr(self.record.key_end()..)
    }

    /// The kind of its value.
    pub fn kind(&self) -> Kind {
        if self.record.0.as_bytes()[0] & JSON == 0 {
            Kind::Text
        } else {
            Kind::Json
        }
    }

    /// Whether another one was made of it by touches.
    pub(super) fn is_same_value(&self, other: &Entry) -> bool {
        ArcStr::ptr_eq(&self.record.0, &other.record.0)
    }

    /// Its record as text.
    pub(super) fn record_text(&self) -> &str {
        &self.record.0
    }

    /// Bytes of its record.
    pub(super) fn record_bytes(&self) -> usize {
        self.record.0.len()
    }

    /// Bytes of its key and its value.
    pub fn bytes(&self) -> usize {
        self.record.0.len() - HEAD
    }

    /// Whether it counts as there at the time `now`.
    pub fn is_live(&self, now: Expiry) -> bool {
        self.expiry.is_none_or(|expiry| expiry > now)
    }

    /// Text that never expires, under a key that follows the rules.
    #[cfg(test)]
    pub(crate) fn of(key: &str, text: &str) -> Entry {
        let key = Key::try_from(key.as_bytes()).unwrap();
        Entry::new(&key, Kind::Text, text.as_bytes(), None).unwrap()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (&self.record.0, self.expiry) == (&other.record.0, other.expiry)
    }
}

impl Eq for Entry {}

/// When a key expires: milliseconds of wall-clock time since 1970, so that it means the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(NonZeroU64);

impl Expiry {
    /// That many milliseconds after the beginning of 1970; of 0 and 1 it makes the same.
    pub fn at_millis(millis: u64) -> Expiry {
        Expiry(NonZeroU64::new(millis).unwrap_or(NonZeroU64::MIN))
    }

    /// The present.
    pub fn now() -> Expiry {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Expiry::at_millis(
            u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        )
    }

    /// So much later.
    pub fn plus(self, time: Duration) -> Expiry {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Expiry::at_millis(self.millis().saturating_add(millis))
    }

    /// Milliseconds since the beginning of 1970.
    pub fn millis(self) -> u64 {
        self.0.get()
    }

    /// Whole seconds until then, rounded up, so that what was just set to an hour reads an hour.
    pub fn seconds_left(self) -> u64 {
        self.millis()
            .saturating_sub(Expiry::now().millis())
            .div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_its_key_and_its_value() {
        for length in [1, 16, 127, 128, 129, 255, 256, 1023, 1024] {
            let name = "k".repeat(length);
            let key = Key::try_from(name.as_bytes()).unwrap();
            for kind in [Kind::Text, Kind::Json] {
                for value in ["", "v", "Nairobi 🌍", &"é".repeat(100_000)] {
                    let entry = Entry::new(&key, kind, value.as_bytes(), None).unwrap();
                    assert_eq!((entry.key(), entry.kind()), (&*name, kind));
                    assert!(entry.value() == value);
                    assert_eq!(entry.bytes(), length + value.len());
                    assert!(entry.into_value() == value);
                }
                assert!(Entry::new(&key, kind, b"\xff", None).is_err());
            }
        }
    }

    #[test]
    fn an_entry_lives_until_its_expiry() {
        let now = Expiry::now();
        let live = |expiry| Entry::of("k", "v").with_expiry(expiry).is_live(now);
        assert!(live(None));
        assert!(live(Some(now.plus(Duration::from_millis(1)))));
        assert!(!live(Some(now)));
        assert!(!live(Some(Expiry::at_millis(0))));
        assert!(live(Some(now.plus(Duration::MAX))));
    }

    #[test]
    fn seconds_left_are_rounded_up() {
        assert_eq!(
            Expiry::now().plus(Duration::from_secs(3600)).seconds_left(),
            3600
        );
        assert_eq!(
            Expiry::now()
                .plus(Duration::from_millis(3_599_500))
                .seconds_left(),
            3600
        );
        assert_eq!(Expiry::at_millis(1).seconds_left(), 0);
    }
}
