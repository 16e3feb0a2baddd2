//! Listings: entries in byte order, fetched some at a time.

use std::ops::Bound;
use std::sync::Arc;
use std::vec;

use super::map::Map;
use super::{Entry, Expiry, Key, Revision};

/// How many keys a listing fetches at first; then twice as many each time. Many listings ask for a few keys only.
const FIRST_STEP: usize = 16;

/// Goes through the entries of a store, see [`super::Store::list`].
pub struct Listing {
    map: Arc<Map>,
    prefix: String,
    /// Where to go on; `None` at the end.
    next: Option<Bound<String>>,
    /// How many keys to fetch next.
    step: usize,
    fetched: vec::IntoIter<Entry>,
    revision: Revision,
}

impl Listing {
    pub(super) fn of(map: &Arc<Map>, prefix: String, after: Option<String>) -> Listing {
        Listing {
            map: Arc::clone(map),
            prefix,
            next: Some(after.map_or(Bound::Unbounded, Bound::Excluded)),
            step: FIRST_STEP,
            fetched: Vec::new().into_iter(),
            revision: map.revision(),
        }
    }

    /// The revision that the store had when the listing began.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Goes on behind all keys that begin with `prefix`, without visiting them. It never goes back.
    pub fn skip_prefix(&mut self, prefix: &str) {
        let behind = Key::behind_all(prefix);
        while let Some(entry) = self.fetched.as_slice().first() {
            if entry.key() >= behind.as_str() {
                return;
            }
            self.fetched.next();
        }
        let Some(next) = &mut self.next else {
            return;
        };
        let further = match next {
            Bound::Included(key) | Bound::Excluded(key) => *key < behind,
            Bound::Unbounded => true,
        };
        if further {
            *next = Bound::Included(behind);
            // Perhaps the next keys are skipped as well.
            self.step = FIRST_STEP;
        }
    }
}

impl Iterator for Listing {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.fetched.next() {
                if entry.is_live(Expiry::now()) {
                    return Some(entry);
                }
                // Its time has come since it was fetched, unless it has been put or touched meanwhile.
                match self.map.entry_of(entry.key()) {
                    Some(entry) => return Some(entry),
                    None => continue,
                }
            }
            let from = self.next.take()?;
            let from = from.as_ref().map(String::as_str);
            let page = self.map.page(&self.prefix, from, self.step);
            self.step = self.step.saturating_mul(2);
            self.next = page.next.map(|last| Bound::Excluded(last.key().to_owned()));
            self.fetched = page.entries.into_iter();
        }
    }
}
