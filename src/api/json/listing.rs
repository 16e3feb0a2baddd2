//! Listings: what `GET /api/v1/kv` answers.

use std::mem;
use std::vec;

use serde_json::json;

use super::answer::{self, Beside, Item, PART, Source, Style, With};
use super::query::Query;
use crate::server::Response;
use crate::store::{Listing, Store};

/// `GET /api/v1/kv`
pub(super) fn list(store: &Store, query: Query) -> Response {
    let with = With {
        ttl: query.with_ttl,
        revision: query.with_revision,
    };
    if query.count_only {
        // Taken before, so that a change that is not counted is never taken for one that is.
        let state = with.revision.then(|| store.revision());
        let count = store.count(&query.prefix);
        return answer::data(&json!({"count": count}), state);
    }
    let style = Style {
        each: "",
        values: !query.keys_only,
        with,
    };
    answer::stream(Page::new(store, query), style)
}

/// A page of a listing. Its items are keys, and with a delimiter also prefixes, each of which stands for all keys that begin with it.
struct Page {
    listing: Listing,
    prefix: String,
    delimiter: Option<String>,
    /// How many items there may still be.
    left: usize,
    /// The last one.
    last: String,
    /// Whether there are more.
    more: bool,
    /// The prefixes that have come.
    grouped: Vec<String>,
    with_revision: bool,
    tail: Tail,
}

/// What of the fields beside `data` comes next.
enum Tail {
    Start,
    /// These prefixes, the first of them behind this text.
    Prefixes(vec::IntoIter<String>, &'static str),
    End,
}

impl Page {
    fn new(store: &Store, query: Query) -> Page {
        let after = query.after.clone();
        let mut page = Page {
            listing: store.list(query.prefix.clone(), query.after),
            prefix: query.prefix,
            delimiter: query.delimiter,
            left: query.limit.unwrap_or(usize::MAX),
            last: String::new(),
            more: false,
            grouped: Vec::new(),
            with_revision: query.with_revision,
            tail: Tail::Start,
        };
        // A prefix counts as greater than `after` by itself, so one that `after` begins with is behind us with all its keys.
        let group = after.and_then(|after| page.group(&after).map(str::to_owned));
        if let Some(group) = group {
            page.listing.skip_prefix(&group);
        }
        page
    }

    /// The prefix that stands for a key, if one does: the key up to the delimiter that comes next behind the prefix asked for.
    fn group<'a>(&self, key: &'a str) -> Option<&'a str> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(&*self.prefix)?;
        let end = self.prefix.len() + rest.find(delimiter)? + delimiter.len();
        Some(&key[..end])
    }
}

impl Source for Page {
    fn next(&mut self) -> Item {
        let Some(entry) = self.listing.next() else {
            return Item::End;
        };
        if self.left == 0 {
            self.more = true;
            return Item::End;
        }
        self.left -= 1;
        let group = self.group(entry.key()).map(str::to_owned);
        match group {
            None => {
                // Only a page that has an end is asked for what comes behind it.
                if self.left == 0 {
                    entry.key().clone_into(&mut self.last);
                }
                Item::Found(entry)
            }
            Some(group) => {
                self.listing.skip_prefix(&group);
                self.last.clone_from(&group);
                self.grouped.push(group);
                Item::Nothing
            }
        }
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> bool {
        match &mut self.tail {
            Tail::Start if self.delimiter.is_some() => {
                out.extend_from_slice(br#","prefixes":["#);
                self.tail = Tail::Prefixes(mem::take(&mut self.grouped).into_iter(), "\"");
                true
            }
            Tail::Prefixes(prefixes, before) => {
                let full = out.len() + PART;
                while out.len() < full {
                    let Some(prefix) = prefixes.next() else {
                        out.push(b']');
                        self.tail = Tail::End;
                        break;
                    };
                    // It is the beginning of a key, in which JSON escapes nothing.
                    out.extend_from_slice(mem::replace(before, ",\"").as_bytes());
                    out.extend_from_slice(prefix.as_bytes());
                    out.push(b'"');
                }
                true
            }
            Tail::Start | Tail::End => {
                if self.more {
                    out.extend_from_slice(format!(",\"next\":\"{}\"", self.last).as_bytes());
                }
                let state = self.with_revision.then(|| self.listing.revision());
                out.extend_from_slice(Beside(state).to_string().as_bytes());
                false
            }
        }
    }
}
