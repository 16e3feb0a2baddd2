//! Events as they are sent: the text of `text/event-stream` (WHATWG HTML, 9.2).
//!
//! ```text
//! event: put
//! data: {"key":"a","value":"1","revision":7}
//! id: 7
//!
//! ```

use std::vec;

use serde_json::json;

use crate::api::json::Writing;
use crate::store::{Cause, Change, Entry, Kind, Revision};

/// An event that says no more than a revision, with it as its id or without.
pub(super) fn mark(name: &str, revision: Revision, has_id: bool) -> String {
    let id = Id(has_id.then_some(revision));
    format!("event: {name}\ndata: {{\"revision\":{revision}}}\n{id}\n")
}

/// Writes events, in parts where values are large.
pub(super) struct Events {
    changes: vec::IntoIter<Change>,
    /// The id of the last one, if it has one.
    id: Option<Revision>,
    values: bool,
    /// The value that is being written.
    value: Option<Value>,
}

struct Value {
    writing: Writing,
    kind: Kind,
    /// Whether the part before ended in a CR.
    cr: bool,
    /// What follows it.
    after: String,
}

impl Events {
    pub(super) fn new(changes: Vec<Change>, id: Option<Revision>, values: bool) -> Events {
        Events {
            changes: changes.into_iter(),
            id,
            values,
            value: None,
        }
    }

    /// Writes until the text is about as long as `full`. Returns whether that was all.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, full: usize) -> bool {
        loop {
            if let Some(value) = &mut self.value {
                while value.write_some(out) {
                    if out.len() >= full {
                        return false;
                    }
                }
                self.value = None;
            }
            if out.len() >= full && self.changes.len() > 0 {
                return false;
            }
            let Some(change) = self.changes.next() else {
                return true;
            };
            let id = Id(self.id.filter(|_| self.changes.len() == 0));
            match change {
                Change::Put(entry) | Change::Touch(entry) => self.begin_put(entry, id, out),
                Change::Remove {
                    key,
                    revision,
                    cause,
                } => {
                    let name = match cause {
                        Cause::Expired => "expire",
                        Cause::Deleted | Cause::Cleared => "delete",
                    };
                    let data = json!({"key": key.as_str(), "revision": revision});
                    write(out, &format!("event: {name}\ndata: {data}\n{id}\n"));
                }
                Change::Clear { prefix, revision } => {
                    let data = json!({"prefix": &*prefix, "revision": revision});
                    write(out, &format!("event: clear\ndata: {data}\n{id}\n"));
                }
            }
        }
    }

    fn begin_put(&mut self, entry: Entry, id: Id, out: &mut Vec<u8>) {
        // Keys have no characters that JSON would escape.
        let key = entry.key();
        write(out, &format!("event: put\ndata: {{\"key\":\"{key}\""));
        let revision = entry.revision();
        let mut after = format!(",\"revision\":{revision}");
        if let Some(expiry) = entry.expiry {
            // Its last moment may have come meanwhile.
            after += &format!(",\"ttl\":{}", expiry.seconds_left().max(1));
        }
        after += &format!("}}\n{id}\n");
        if !self.values {
            return write(out, &after);
        }
        write(out, ",\"value\":");
        self.value = Some(Value {
            kind: entry.kind(),
            writing: Writing::of(entry),
            cr: false,
            after,
        });
    }
}

impl Value {
    /// Writes the next part. Returns whether there is more.
    fn write_some(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let more = self.writing.write_some(out);
        // In texts, JSON escapes them.
        if self.kind == Kind::Json && out[start..].iter().any(|it| b"\r\n".contains(it)) {
            let part = out.split_off(start);
            self.break_lines(&part, out);
        } else {
            self.cr = false;
        }
        if !more {
            write(out, &self.after);
        }
        more
    }

    /// Writes text of which each line goes into a field of its own: whoever reads the event puts LF between them.
    fn break_lines(&mut self, part: &[u8], out: &mut Vec<u8>) {
        for &byte in part {
            match byte {
                b'\n' if self.cr => {}
                b'\r' | b'\n' => write(out, "\ndata: "),
                _ => out.push(byte),
            }
            self.cr = byte == b'\r';
        }
    }
}

/// The line with an id, if there is one.
struct Id(Option<Revision>);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => writeln!(f, "id: {id}"),
            None => Ok(()),
        }
    }
}

fn write(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Expiry, Key};
    use std::time::Duration;

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    /// What is written, in parts of about so many bytes.
    fn written(changes: Vec<Change>, values: bool, part: usize) -> String {
        let mut events = Events::new(changes, Some(7), values);
        let mut text = Vec::new();
        loop {
            let mut out = Vec::new();
            let done = events.write(&mut out, part);
            text.extend(out);
            if done {
                return String::from_utf8(text).unwrap();
            }
        }
    }

    #[test]
    fn each_kind_of_change_has_its_event_and_the_last_one_the_id() {
        let expiry = Expiry::now().plus(Duration::from_secs(60));
        let changes = vec![
            Change::Put(Entry::of("a", "1\n\"").at(7)),
            Change::Touch(Entry::of("b", "2").with_expiry(Some(expiry)).at(7)),
            Change::Remove {
                key: key("c"),
                revision: 7,
                cause: Cause::Deleted,
            },
            Change::Remove {
                key: key("d"),
                revision: 7,
                cause: Cause::Expired,
            },
            Change::Clear {
                prefix: "e:".into(),
                revision: 7,
            },
        ];
        let expected = [
            r#"event: put
data: {"key":"a","value":"1\n\"","revision":7}

"#,
            r#"event: put
data: {"key":"b","value":"2","revision":7,"ttl":60}

"#,
            r#"event: delete
data: {"key":"c","revision":7}

"#,
            r#"event: expire
data: {"key":"d","revision":7}

"#,
            r#"event: clear
data: {"prefix":"e:","revision":7}
id: 7

"#,
        ];
        for part in [1, 100, 10_000] {
            assert_eq!(written(changes.clone(), true, part), expected.concat());
        }
        let bare = written(vec![changes[1].clone()], false, 10_000);
        let expected = "event: put\ndata: {\"key\":\"b\",\"revision\":7,\"ttl\":60}\nid: 7\n\n";
        assert_eq!(bare, expected);
        let mark = mark("ready", 8, true);
        assert_eq!(mark, "event: ready\ndata: {\"revision\":8}\nid: 8\n\n");
    }

    #[test]
    fn lines_of_a_value_go_into_lines_of_data() {
        // Long, so that parts end everywhere, also between CR and LF.
        for times in [1, 7, 9000] {
            let value = format!("[{}1]", "1,\r\n\r\r\n\n".repeat(times));
            let entry = Entry::new(&key("k"), Kind::Json, value.as_bytes(), None).unwrap();
            let text = written(vec![Change::Put(entry.at(7))], true, 1);
            assert!(!text.contains('\r'));
            let lines = text.lines().filter_map(|it| it.strip_prefix("data: "));
            let data = lines.collect::<Vec<_>>().join("\n");
            let expected = value.replace("\r\n", "\n").replace('\r', "\n");
            let expected = format!("{{\"key\":\"k\",\"value\":{expected},\"revision\":7}}");
            assert!(data == expected);
        }
    }
}
