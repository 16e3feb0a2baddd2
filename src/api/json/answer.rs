//! Answers of the JSON API. Long ones are streamed: made part by part, as the client reads.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::JSON;
use crate::server::{Body, Response, Stream};
use crate::store::{Entry, Expiry, Key, Kind, Revision};

/// A streamed answer is made in parts of about this many bytes.
pub(super) const PART: usize = 16 * 1024;

/// A part is made from at most so many items that it does not show.
const HIDDEN: usize = 256;

/// What to add to an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct With {
    /// To entries that expire: `ttl`.
    pub(super) ttl: bool,
    /// To each entry, and beside `data`: `revision`.
    pub(super) revision: bool,
}

/// A success without data.
pub(super) fn ok(revision: Option<Revision>) -> Response {
    match revision {
        None => Response::new(200, JSON, Body::Static(r#"{"status":"ok"}"#)),
        Some(_) => text(format!(r#"{{"status":"ok"{}}}"#, Beside(revision))),
    }
}

/// A success with short `data`, and the revision of the store beside it if there is one.
pub(super) fn data(data: &impl Serialize, revision: Option<Revision>) -> Response {
    #[derive(Serialize)]
    struct Success<'a, T> {
        status: &'a str,
        data: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<Revision>,
    }
    let status = "ok";
    json(
        200,
        &Success {
            status,
            data,
            revision,
        },
    )
}

fn text(body: String) -> Response {
    Response::new(200, JSON, Body::Owned(body.into_bytes()))
}

/// An answer with a short body.
pub(super) fn json(status: u16, body: &impl Serialize) -> Response {
    // Fails only for map keys that are no strings. Ours are field names.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Response::new(status, JSON, Body::Owned(body))
}

/// The value of one key. `revision` is the store's; `None` if it is not asked for.
pub(super) fn value(entry: Entry, with: With, revision: Option<Revision>) -> Response {
    let mut body = br#"{"status":"ok","data":{"value":"#.to_vec();
    let after = format!("{}}}{}}}", More::of(&entry, with), Beside(revision));
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
pub(super) fn each(keys: &[Key], found: &[bool], revision: Option<Revision>) -> Response {
    let mut seen = HashSet::with_capacity(keys.len());
    let mut last: Vec<bool> = keys.iter().rev().map(|key| seen.insert(key)).collect();
    last.reverse();
    let mut body = br#"{"status":"ok","data":{"#.to_vec();
    let mut before = "\"";
    let results = keys.iter().zip(found).zip(last);
    for ((key, found), _) in results.filter(|(_, last)| *last) {
        // Keys have no characters that JSON would escape.
        body.extend_from_slice(before.as_bytes());
        body.extend_from_slice(key.as_str().as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(if *found { br#""ok""# } else { MISSING });
        before = ",\"";
    }
    body.extend_from_slice(format!("}}{}}}", Beside(revision)).as_bytes());
    Response::new(200, JSON, Body::Owned(body))
}

/// The result for a missing key.
const MISSING: &[u8] = br#"{"status":"error","error":"not_found"}"#;

/// The answer to a bulk get: for each key its entry, or that it is missing. `revision` is the store's.
pub(super) fn entries(
    keys: Vec<Key>,
    entries: Vec<Option<Entry>>,
    with: With,
    revision: Option<Revision>,
) -> Response {
    let found = keys.into_iter().zip(entries);
    let style = Style {
        each: r#""status":"ok","#,
        values: true,
        with,
    };
    stream(Found { found, revision }, style)
}

/// The entries of a bulk get.
struct Found<I> {
    found: I,
    revision: Option<Revision>,
}

impl<I: Iterator<Item = (Key, Option<Entry>)> + Send> Source for Found<I> {
    fn next(&mut self) -> Item {
        match self.found.next() {
            Some((_, Some(entry))) => Item::Found(entry),
            Some((key, None)) => Item::Missing(key),
            None => Item::End,
        }
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(Beside(self.revision).to_string().as_bytes());
        false
    }
}

/// What an answer is streamed from.
pub(super) trait Source: Send {
    /// The next item. Not called again after [`Item::End`].
    fn next(&mut self) -> Item;

    /// Appends some of what stands beside `data`, behind it: fields, each with a comma before it. Returns whether there is more.
    fn tail(&mut self, out: &mut Vec<u8>) -> bool;
}

/// An item of a streamed answer.
pub(super) enum Item {
    Found(Entry),
    /// There is no such key.
    Missing(Key),
    /// Something that `data` does not show.
    Nothing,
    /// There are no more.
    End,
}

/// What the entries of an answer look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// The text that each begins with.
    pub(super) each: &'static str,
    /// Whether they have their values.
    pub(super) values: bool,
    pub(super) with: With,
}

/// An answer whose `data` is keys with their entries.
pub(super) fn stream(source: impl Source + 'static, style: Style) -> Response {
    let fields = Fields {
        source,
        style,
        started: false,
        before: Some(""),
        writing: None,
    };
    Response::new(200, JSON, Body::Stream(Box::new(fields)))
}

/// Streams the fields of `data`.
struct Fields<S> {
    source: S,
    style: Style,
    /// Whether the beginning has been written.
    started: bool,
    /// What is written before the next item; `None` once `data` has its end.
    before: Option<&'static str>,
    /// The value that is being written, and what follows it.
    writing: Option<(Writing, More)>,
}

impl<S: Source> Stream for Fields<S> {
    fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
        let full = out.len() + PART;
        // Items that are not shown take time as well.
        let mut hidden = 0;
        if !self.started {
            out.extend_from_slice(br#"{"status":"ok","data":{"#);
            self.started = true;
        }
        while out.len() < full && hidden < HIDDEN {
            if let Some((value, more)) = &mut self.writing {
                if value.write_some(out) {
                    continue;
                }
                out.extend_from_slice(more.to_string().as_bytes());
                out.push(b'}');
                self.writing = None;
            }
            let Some(before) = self.before else {
                if self.source.tail(out) {
                    continue;
                }
                out.push(b'}');
                return false;
            };
            let next = self.source.next();
            let key = match &next {
                Item::Found(entry) => entry.key(),
                Item::Missing(key) => key.as_str(),
                Item::Nothing => {
                    hidden += 1;
                    continue;
                }
                Item::End => {
                    out.push(b'}');
                    self.before = None;
                    continue;
                }
            };
            out.extend_from_slice(before.as_bytes());
            self.before = Some(",");
            out.push(b'"');
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            let Item::Found(entry) = next else {
                out.extend_from_slice(MISSING);
                continue;
            };
            let more = More::of(&entry, self.style.with);
            out.push(b'{');
            out.extend_from_slice(self.style.each.as_bytes());
            if !self.style.values {
                let more = more.to_string();
                out.extend_from_slice(more.trim_start_matches(',').as_bytes());
                out.push(b'}');
                continue;
            }
            out.extend_from_slice(br#""value":"#);
            self.writing = Some((Writing::of(entry), more));
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

/// The fields of an entry behind its value, as far as they are asked for, each with a comma before it.
struct More {
    expiry: Option<Expiry>,
    revision: Option<Revision>,
}

impl More {
    fn of(entry: &Entry, with: With) -> More {
        More {
            expiry: entry.expiry.filter(|_| with.ttl),
            revision: with.revision.then(|| entry.revision()),
        }
    }
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(expiry) = self.expiry {
            // Its last moment may have come since it was read.
            write!(f, ",\"ttl\":{}", expiry.seconds_left().max(1))?;
        }
        Beside(self.revision).fmt(f)
    }
}

/// The field `revision`, with a comma before it. Empty if it is not asked for.
pub(super) struct Beside(pub(super) Option<Revision>);

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(f, ",\"revision\":{revision}"),
            None => Ok(()),
        }
    }
}

/// Writes a value as JSON, in parts.
pub(in crate::api) struct Writing {
    entry: Entry,
    /// How much of the value has been written.
    at: usize,
    started: bool,
}

impl Writing {
    pub(in crate::api) fn of(entry: Entry) -> Writing {
        Writing {
            entry,
            at: 0,
            started: false,
        }
    }

    /// Writes the next part, some kilobytes. Returns whether there is more.
    pub(in crate::api) fn write_some(&mut self, out: &mut Vec<u8>) -> bool {
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
