//! A log line as one JSON object (`--log-format json`): `time` in UTC, `level`, `message`, which is the text that the line has in the
//! other format, and then what belongs to it as fields, such as the path of a request.
//!
//! Whatever a client has sent, the only line feed of a line is the one at its end.

use std::fmt::Write;

use log::kv::{Error, Key, Source, Value, VisitSource, VisitValue};
use log::{Level, Log, Metadata, Record};
use serde_json::Value as Json;

use super::{OTHERS, Queue, now};

/// Puts lines in JSON on the queue. Their levels have been checked before.
pub(super) struct JsonLogger(pub(super) &'static Queue);

impl Log for JsonLogger {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        !about.target().starts_with(OTHERS)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            let line = line(record.level(), &message, record.key_values());
            self.0.push(line);
        }
    }

    fn flush(&self) {}
}

/// A line, with the line feed.
pub(super) fn line(level: Level, message: &str, fields: &dyn Source) -> Vec<u8> {
    let level = level.as_str().to_ascii_lowercase();
    let message = Json::from(message);
    let mut line = format!(
        r#"{{"time":"{}","level":"{level}","message":{message}"#,
        now()
    );
    let _ = fields.visit(&mut Fields(&mut line)); // it fails where a visitor does, and these do not
    line.push_str("}\n");
    printable(&line).into_bytes()
}

/// Adds fields to an object. Those without a value are left out.
struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, name: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut field = Field(Json::Null);
        value.visit(&mut field)?;
        if !field.0.is_null() {
            let _ = write!(self.0, ",{}:{}", Json::from(name.as_str()), field.0); // a string takes it
        }
        Ok(())
    }
}

/// The value of a field: a number, or else a string.
struct Field(Json);

impl VisitValue<'_> for Field {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

/// Escapes what JSON allows in a string, but a terminal may take for a command, or a reader of lines for the end of one, such as U+0085
/// and U+2028. Outside strings there is nothing of that kind.
fn printable(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if c <= '~' || c.escape_debug().len() == 1 {
            line.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(line, "\\u{unit:04x}"); // a string takes it
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(level: Level, message: &str, fields: &dyn Source) -> (String, Json) {
        let line = String::from_utf8(line(level, message, fields)).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        let object = serde_json::from_str(&line).unwrap();
        (line, object)
    }

    #[test]
    fn a_line_has_its_time_level_message_and_fields() {
        let none: Option<&str> = None;
        let fields = [
            ("status", Value::from(200_u16)),
            ("path", Value::from("/kv/a")),
            ("token", Value::from_any(&none)),
            ("duration_ms", Value::from(0.25)),
            ("client", Value::from_display(&"127.0.0.1:1")),
        ];
        let (line, object) = parsed(Level::Warn, "slow", &fields);
        let rest = r#""level":"warn","message":"slow","status":200,"path":"/kv/a","duration_ms":0.25,"client":"127.0.0.1:1"}"#;
        assert!(
            line.starts_with(r#"{"time":"2"#) && line.trim_end().ends_with(rest),
            "{line}"
        );
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn nothing_breaks_a_line() {
        let all: String = ('\0'..='\u{2100}')
            .chain(['\u{feff}', '\u{1f30d}', '\u{e0001}'])
            .collect();
        let (line, object) = parsed(Level::Info, &all, &[(all.as_str(), all.as_str())]);
        assert_eq!(object["message"], all);
        assert_eq!(object[&all], all);
        let body = line.trim_end_matches('\n');
        assert!(
            body.chars()
                .all(|c| !c.is_control() && !"\u{2028}\u{2029}\u{202e}\u{feff}".contains(c))
        );
        assert!(body.contains("ä") && body.contains('\u{1f30d}') && body.contains(r"\udb40\udc01"));
    }
}
