//! Reads an export as it comes, piece by piece, and says in which line it is wrong.

use std::borrow::Cow;
use std::fmt;
use std::mem;

use hmac_sha256::Hash;
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{VERSION, hex};
use crate::nesting::{MAX_DEPTH, depth};
use crate::store::{Entry, Expiry, Key, Kind};

/// A byte of a value takes at most so many in a line: `\u0001`.
const ESCAPED: usize = 6;

/// A line may have so many bytes beside its value.
const AROUND_A_VALUE: usize = 64 * 1024;

/// Checks lines and makes entries of them.
pub struct Reader {
    /// The largest value.
    value_bytes: usize,
    /// The beginning of a line that has not come whole.
    begun: Vec<u8>,
    /// How many lines have come whole.
    lines: u64,
    /// How many of them are entries.
    keys: u64,
    /// How many entries the first line announces.
    announced: Option<u64>,
    /// Of all lines so far.
    hash: Hash,
    /// Whether the last line has come.
    ended: bool,
}

/// What is wrong with an export.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In which line, counted from 1.
    pub line: u64,
    /// What it is, as the end of a sentence.
    pub what: String,
    /// Whether it is about the end: every entry has been read.
    pub at_end: bool,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// The fields of all kinds of lines.
#[derive(Deserialize)]
struct Line<'a> {
    threadkv: Option<u64>,
    keys: Option<u64>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    expires_at: Option<u64>,
    end: Option<bool>,
    sha256: Option<Cow<'a, str>>,
}

/// Reads a field that is there. `Option` alone would take `null` for a field that is not.
fn even_null<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

impl Reader {
    /// One for an export whose values have at most so many bytes.
    pub fn new(value_bytes: u64) -> Reader {
        Reader {
            value_bytes: usize::try_from(value_bytes).unwrap_or(usize::MAX),
            begun: Vec::new(),
            lines: 0,
            keys: 0,
            announced: None,
            hash: Hash::new(),
            ended: false,
        }
    }

    /// How many bytes of a line it keeps until the rest comes.
    pub fn kept(&self) -> usize {
        self.begun.capacity()
    }

    /// Reads the next piece, and appends the entries of the lines that end in it, up to the one that is wrong.
    pub fn read(&mut self, piece: &[u8], entries: &mut Vec<Entry>) -> Result<(), Mistake> {
        let mut rest = piece;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(at + 1);
            rest = behind;
            self.check_length(self.begun.len() + line.len())?;
            if self.begun.is_empty() {
                self.line(line, entries)?;
            } else {
                let mut begun = mem::take(&mut self.begun);
                begun.extend_from_slice(line);
                self.line(&begun, entries)?;
            }
        }
        self.check_length(self.begun.len() + rest.len())?;
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// There are no more pieces.
    pub fn end(&mut self, entries: &mut Vec<Entry>) -> Result<(), Mistake> {
        let begun = mem::take(&mut self.begun);
        // An editor may have taken the line end of the last line.
        if !begun.is_empty() {
            self.line(&begun, entries)?;
        }
        if self.ended {
            return Ok(());
        }
        self.lines += 1;
        if self.lines == 1 {
            return Err(self.mistake("there is nothing, expected an export of threadkv"));
        }
        let found = self.keys;
        let behind = match self.announced {
            Some(all) => format!("{found} of {all} keys"),
            None => format!("{found} keys"),
        };
        Err(self.at_end(format!(
            "the export ends here, behind {behind}, without its last line"
        )))
    }

    fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake {
            line: self.lines,
            what: what.into(),
            at_end: false,
        }
    }

    fn at_end(&self, what: impl Into<String>) -> Mistake {
        Mistake {
            at_end: true,
            ..self.mistake(what)
        }
    }

    fn check_length(&self, bytes: usize) -> Result<(), Mistake> {
        let most = self.value_bytes.saturating_mul(ESCAPED);
        if bytes <= most.saturating_add(AROUND_A_VALUE) {
            return Ok(());
        }
        let value = self.value_bytes;
        let what = format!("it is too long for an entry whose value has at most {value} bytes");
        Err(Mistake {
            line: self.lines + 1,
            ..self.mistake(what)
        })
    }

    /// Reads a line with its end.
    fn line(&mut self, text: &[u8], entries: &mut Vec<Entry>) -> Result<(), Mistake> {
        self.lines += 1;
        let empty = text.trim_ascii().is_empty();
        if self.ended {
            return match empty {
                true => Ok(()),
                false => Err(self.at_end("there is something behind the last line")),
            };
        }
        let line = match serde_json::from_slice::<Line<'_>>(text) {
            // serde would also take a list of the fields.
            Ok(line) if text.trim_ascii_start().starts_with(b"{") => line,
            _ if self.lines == 1 => return Err(self.mistake(foreign())),
            _ if empty => return Err(self.mistake("it is empty")),
            Err(error) if error.classify() == Category::Eof => {
                return Err(self.mistake("it ends in the middle of its JSON"));
            }
            Err(error) if error.classify() == Category::Syntax => {
                return Err(self.mistake("it is not valid JSON"));
            }
            _ => return Err(self.mistake("it is not an entry: a field is not of its type")),
        };
        if self.lines == 1 {
            return match line.threadkv {
                Some(VERSION) => {
                    self.announced = line.keys;
                    self.hash.update(text);
                    Ok(())
                }
                Some(other) => Err(self.mistake(format!(
                    "it is of version {other} of the format, and this server knows version {VERSION}"
                ))),
                None => Err(self.mistake(foreign())),
            };
        }
        if line.end == Some(true) {
            return self.last_line(&line);
        }
        entries.push(self.entry(line)?);
        self.keys += 1;
        self.hash.update(text);
        Ok(())
    }

    fn last_line(&mut self, line: &Line<'_>) -> Result<(), Mistake> {
        let found = self.keys;
        let wrong_number = |said: u64| format!("{said} keys were to come, and {found} have come");
        let (Some(keys), Some(sha256)) = (line.keys, &line.sha256) else {
            return Err(self.at_end("the last line must have keys and sha256"));
        };
        if let Some(said) = [Some(keys), self.announced]
            .into_iter()
            .flatten()
            .find(|said| *said != found)
        {
            return Err(self.at_end(wrong_number(said)));
        }
        if !sha256.eq_ignore_ascii_case(&hex(&self.hash.finalize())) {
            return Err(self.at_end("sha256 is that of other lines: some have been changed"));
        }
        self.ended = true;
        Ok(())
    }

    fn entry(&self, line: Line<'_>) -> Result<Entry, Mistake> {
        let key = line.key.ok_or_else(|| self.mistake("key is missing"))?;
        let key = Key::try_from(key.as_bytes()).map_err(|error| self.mistake(error.to_string()))?;
        let (kind, value): (Kind, Cow<'_, str>) = match (line.value, line.text) {
            (None, Some(text)) => (Kind::Text, text),
            // As PUT takes it.
            (Some(value), None) if value.get().starts_with('"') => {
                let text = serde_json::from_str(value.get())
                    .map_err(|_| self.mistake("value is not a valid string"))?;
                (Kind::Text, Cow::Owned(text))
            }
            (Some(value), None) => (Kind::Json, Cow::Borrowed(value.get())),
            _ => return Err(self.mistake("there must be value or text, one of the two")),
        };
        let (length, most) = (value.len(), self.value_bytes);
        if length > most {
            return Err(self.mistake(format!(
                "its value must not have more than {most} bytes, this has {length}"
            )));
        }
        if kind == Kind::Json && depth(&value) > MAX_DEPTH {
            return Err(self.mistake(format!(
                "its value must not be nested deeper than {MAX_DEPTH} levels"
            )));
        }
        let expiry = line.expires_at.map(Expiry::at_millis);
        let entry = Entry::new(&key, kind, value.as_bytes(), expiry);
        // The value is text already, so this does not happen.
        entry.map_err(|_| self.mistake("it is not UTF-8"))
    }
}

fn foreign() -> String {
    format!("this is not an export of threadkv, which begins with {{\"threadkv\":{VERSION}")
}

#[cfg(test)]
mod tests;
