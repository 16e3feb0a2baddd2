//! A watch of one key: an answer without an end, a line of JSON for each message.

use std::io::{BufRead, BufReader, Read};
use std::vec;

use super::message::{Streamed, Watched};
use super::{Error, KeyValue};

/// The longest line. With `fragment`, etcd cuts messages at about 2 MB, and one value more is in it at most.
const LINE: u64 = 16 << 20;

/// What a watch tells.
#[derive(Debug)]
pub enum Event {
    /// The key was put.
    Put(KeyValue),
    /// The key was deleted.
    Deleted(KeyValue),
    /// etcd has forgotten what was before this revision, so the watch is over.
    Forgotten(i64),
}

/// What happens to a key, in order. It ends behind an error.
pub struct Watch {
    lines: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    /// The rest of the last line.
    events: vec::IntoIter<Event>,
    over: bool,
}

impl Watch {
    pub(super) fn new(answer: ureq::http::Response<ureq::Body>) -> Watch {
        let body: Box<dyn Read + Send> = Box::new(answer.into_body().into_reader());
        Watch {
            lines: BufReader::with_capacity(64 << 10, body),
            line: Vec::new(),
            events: Vec::new().into_iter(),
            over: false,
        }
    }

    fn read(&mut self) -> Result<Vec<Event>, Error> {
        let unknown = |error: &dyn std::fmt::Display| Error::Unknown(format!("watch: {error}"));
        self.line.clear();
        let mut lines = (&mut self.lines).take(LINE);
        lines
            .read_until(b'\n', &mut self.line)
            .map_err(|error| unknown(&error))?;
        if self.line.last() != Some(&b'\n') {
            return Err(unknown(&"the stream has ended"));
        }
        let message: Streamed<Watched> =
            serde_json::from_slice(&self.line).map_err(|error| unknown(&error))?;
        let Watched {
            canceled,
            cancel_reason,
            compact_revision,
            events,
        } = message.result;
        if canceled && compact_revision > 0 {
            self.over = true;
            return Ok(vec![Event::Forgotten(compact_revision)]);
        }
        if canceled {
            return Err(unknown(&cancel_reason));
        }
        // None where the watch has just begun.
        let events = events.into_iter().map(|it| match &*it.r#type {
            "DELETE" => Event::Deleted(it.kv),
            _ => Event::Put(it.kv),
        });
        Ok(events.collect())
    }
}

impl Iterator for Watch {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.events.next() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            match self.read() {
                Ok(events) => self.events = events.into_iter(),
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
