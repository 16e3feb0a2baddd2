//! Answers of the JSON API. Long ones are streamed: made part by part, as the client reads.

use std::collections::HashMap;

use serde::Serialize;

use super::JSON;
use crate::server::{Body, Response, Stream};
use crate::store::{Entry, Expiry, Key, Kind};

/// A streamed answer is made in parts of about this many bytes.
const PART: usize = 16 * 1024;

/// `{"status":"ok"}`
pub(super) fn ok() -> Response {
    Response::new(200, JSON, Body::Static(r#"{"status":"ok"}"#))
}

/// A success with short `data`.
pub(super) fn data(data: &impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Success<'a, T> {
        status: &'a str,
        data: &'a T,
    }
    json(200, &Success { status: "ok", data })
}

/// An answer with a short body.
pub(super) fn json(status: u16, body: &impl Serialize) -> Response {
    // Fails only for map keys that are no strings. Ours are field names.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Response::new(status, JSON, Body::Owned(body))
}

/// The value of one key, and its time to live if `with_ttl`.
pub(super) fn value(entry: Entry, with_ttl: bool) -> Response {
    let mut body = br#"{"status":"ok","data":{"value":"#.to_vec();
    let after = format!("{}}}}}", Ttl(entry.expiry.filter(|_| with_ttl)));
    let mut value = Writing::of(entry);
    if value.write_some(&mut body) {
        let rest = Rest {
            before: body,
            value,
            after,
        };
        return Response::new(200, JSON, Body::Stream(Box::new(rest)));
    }
    body.extend_from_slice(after.as_bytes());
    Response::new(200, JSON, Body::Owned(body))
}

/// The result of a bulk write: for each key, whether it was found. A repeated key is listed once, with its last result.
pub(super) fn each(keys: &[Key], found: &[bool]) -> Response {
    let last: HashMap<&Key, usize> = keys.iter().zip(0..).collect();
    let mut body = br#"{"status":"ok","data":{"#.to_vec();
    let mut before = "\"";
    for (n, (key, found)) in keys.iter().zip(found).enumerate() {
        if last.get(key) != Some(&n) {
            continue;
        }
        // Keys have no characters that JSON would escape.
        body.extend_from_slice(before.as_bytes());
        body.extend_from_slice(key.as_str().as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(if *found { br#""ok""# } else { MISSING });
        before = ",\"";
    }
    body.extend_from_slice(b"}}");
    Response::new(200, JSON, Body::Owned(body))
}

/// The result for a missing key.
const MISSING: &[u8] = br#"{"status":"error","error":"not_found"}"#;

/// The answer to a bulk get: for each key its entry, or that it is missing.
pub(super) fn entries(keys: Vec<Key>, entries: Vec<Option<Entry>>, with_ttl: bool) -> Response {
    let found = keys.into_iter().zip(entries);
    stream(found.map(|(key, entry)| entry.ok_or(key)), FOUND, with_ttl)
}

/// A listing of live entries, `most` at most.
pub(super) fn listing(
    listing: impl Iterator<Item = Entry> + Send + 'static,
    most: usize,
    with_ttl: bool,
) -> Response {
    stream(listing.take(most).map(Ok), "", with_ttl)
}

/// The first field of each entry in the answer to a bulk get.
const FOUND: &str = r#""status":"ok","#;

fn stream(
    entries: impl Iterator<Item = Result<Entry, Key>> + Send + 'static,
    each: &'static str,
    with_ttl: bool,
) -> Response {
    let fields = Fields {
        entries,
        each,
        with_ttl,
        started: false,
        writing: None,
    };
    Response::new(200, JSON, Body::Stream(Box::new(fields)))
}

/// Streams the fields of `data`: keys with their entries.
struct Fields<I> {
    /// Entries, and the keys of those that are missing.
    entries: I,
    /// The text that each entry begins with.
    each: &'static str,
    with_ttl: bool,
    /// Whether the beginning has been written.
    started: bool,
    /// The value that is being written, and its expiry.
    writing: Option<(Writing, Option<Expiry>)>,
}

impl<I: Iterator<Item = Result<Entry, Key>> + Send> Stream for Fields<I> {
    fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
        let full = out.len() + PART;
        let mut before = ",";
        if !self.started {
            out.extend_from_slice(br#"{"status":"ok","data":{"#);
            before = "";
            self.started = true;
        }
        while out.len() < full {
            if let Some((value, expiry)) = &mut self.writing {
                if value.write_some(out) {
                    continue;
                }
                out.extend_from_slice(Ttl(*expiry).to_string().as_bytes());
                out.push(b'}');
                self.writing = None;
            }
            let Some(next) = self.entries.next() else {
                out.extend_from_slice(b"}}");
                return false;
            };
            out.extend_from_slice(before.as_bytes());
            before = ",";
            out.push(b'"');
            let key = next.as_ref().map_or_else(Key::as_str, Entry::key);
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            let Ok(entry) = next else {
                out.extend_from_slice(MISSING);
                continue;
            };
            out.push(b'{');
            out.extend_from_slice(self.each.as_bytes());
            out.extend_from_slice(br#""value":"#);
            let expiry = entry.expiry.filter(|_| self.with_ttl);
            self.writing = Some((Writing::of(entry), expiry));
        }
        true
    }
}

/// Streams one large value between two texts.
struct Rest {
    before: Vec<u8>,
    value: Writing,
    after: String,
}

impl Stream for Rest {
    fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.before);
        let more = self.value.write_some(out);
        if !more {
            out.extend_from_slice(self.after.as_bytes());
        }
        more
    }
}

/// The field `ttl` of an entry. Empty if the entry never expires.
struct Ttl(Option<Expiry>);

impl std::fmt::Display for Ttl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            // Its last moment may have come since it was read.
            Some(expiry) => write!(f, ",\"ttl\":{}", expiry.seconds_left().max(1)),
            None => Ok(()),
        }
    }
}

/// Writes a value as JSON, in parts.
struct Writing {
    entry: Entry,
    /// How much of the value has been written.
    at: usize,
    started: bool,
}

impl Writing {
    fn of(entry: Entry) -> Writing {
        Writing {
            entry,
            at: 0,
            started: false,
        }
    }

    /// Writes the next part. Returns whether there is more.
    fn write_some(&mut self, out: &mut Vec<u8>) -> bool {
        let text = self.entry.value();
        let end = text.floor_char_boundary(self.at + PART);
        let part = &text[self.at..end];
        self.at = end;
        let more = end < text.len();
        if self.entry.kind() == Kind::Json {
            out.extend_from_slice(part.as_bytes());
            return more;
        }
        // serde_json puts each part in quotes. Only the very first and the very last quote are kept.
        let start = out.len();
        let _ = serde_json::to_writer(&mut *out, part); // a string, to a Vec: cannot fail
        if self.started {
            out.remove(start);
        }
        if more {
            out.pop();
        }
        self.started = true;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, value: &str) -> String {
        let key = Key::try_from(&b"key"[..]).unwrap();
        let entry = Entry::new(&key, kind, value.as_bytes(), None).unwrap();
        let (mut writing, mut out) = (Writing::of(entry), Vec::new());
        while writing.write_some(&mut out) {}
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_written_in_parts_is_the_value() {
        for text in ["", "a", "\"\\\n\u{1}é🌍"] {
            for times in [1, PART - 1, PART, PART + 1, 3 * PART] {
                let text = text.repeat(times);
                let json = written(Kind::Text, &text);
                assert!(serde_json::from_str::<String>(&json).unwrap() == text);
                let json = format!("[{json}]");
                assert!(written(Kind::Json, &json) == json);
            }
        }
    }
}
