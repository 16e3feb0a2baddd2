//! A client of `GET /api/v1/watch`: reads server-sent events as browsers do (WHATWG HTML, 9.2), and mirrors what they tell.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Result as IoResult};
use std::mem;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::process::Server;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    /// Its lines, with LF between them.
    pub data: String,
    /// The id that stands on this very event.
    pub id: Option<u64>,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn revision(&self) -> u64 {
        self.json()["revision"].as_u64().expect("a revision")
    }

    /// Checks all of it. `revision` comes into the data, and is the id if it stands on this event.
    #[track_caller]
    pub fn expect(&self, name: &str, mut data: Value, revision: u64, has_id: bool) {
        data["revision"] = revision.into();
        let expected = (name, data, has_id.then_some(revision));
        assert_eq!((&*self.name, self.json(), self.id), expected);
    }
}

/// Makes events out of bytes.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    /// Whether the byte before was a CR, which an LF may follow.
    cr: bool,
    name: String,
    data: String,
    id: Option<u64>,
    pub retry: Option<u64>,
    pub events: VecDeque<Event>,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_cr = mem::replace(&mut self.cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8(mem::take(&mut self.line)).expect("UTF-8");
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" => self.id = Some(value.parse().expect("a revision as id")),
            "retry" => self.retry = Some(value.parse().expect("milliseconds")),
            "" => {} // a comment
            _ => panic!("no field of an event: {line:?}"),
        }
    }

    fn end_event(&mut self) {
        let event = Event {
            name: mem::take(&mut self.name),
            data: mem::take(&mut self.data),
            id: self.id.take(),
        };
        // Without data it is none.
        if let Some(data) = event.data.strip_suffix('\n') {
            let data = data.to_owned();
            self.events.push_back(Event { data, ..event });
        }
    }
}

/// Somebody who watches.
pub struct Watcher {
    reader: BufReader<TcpStream>,
    parser: Parser,
    /// The head of the answer.
    pub head: Response,
    /// The last id that has come, if there was one.
    pub last_id: Option<u64>,
}

impl Watcher {
    /// Watches what a query asks for, which may be empty.
    #[track_caller]
    pub fn open(server: &Server, query: &str) -> Watcher {
        let asked = Watcher::ask(server.address, "", query).unwrap();
        asked.unwrap_or_else(|refused| panic!("{query}: {refused:?}"))
    }

    /// Asks with more headers, each with its line end. What is refused comes with its answer; an error is the connection's.
    pub fn ask(
        address: SocketAddr,
        headers: &str,
        query: &str,
    ) -> IoResult<Result<Watcher, Response>> {
        let mut client = Client::try_connect(address)?;
        let head =
            format!("GET /api/v1/watch?{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        client.try_write(head)?;
        Watcher::begin(client)
    }

    /// Reads the answer to a request that has been sent.
    pub fn begin(mut client: Client) -> IoResult<Result<Watcher, Response>> {
        let mut head = client.try_read_head()?;
        if head.status != 200 {
            let length = head.headers["content-length"].parse().unwrap();
            head.body = vec![0; length];
            std::io::Read::read_exact(&mut client.into_reader(), &mut head.body)?;
            return Ok(Err(head));
        }
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Ok(Ok(Watcher {
            reader: client.into_reader(),
            parser: Parser::default(),
            head,
            last_id: None,
        }))
    }

    /// Waits for the next event; `None` at the end of the stream, however it came.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                self.last_id = event.id.or(self.last_id);
                return Some(event);
            }
            match self.reader.fill_buf() {
                Ok([]) => return None,
                Ok(bytes) => {
                    let length = bytes.len();
                    self.parser.feed(bytes);
                    self.reader.consume(length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no event in time"),
                Err(_) => return None,
            }
        }
    }

    /// The next event, which there has to be.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        self.next_event().expect("an event before the end")
    }

    /// The next event, which has to be the one that says that what follows is new. Returns its revision.
    #[track_caller]
    pub fn ready(&mut self) -> u64 {
        let event = self.next();
        let revision = event.revision();
        event.expect("ready", json!({}), revision, true);
        revision
    }

    /// How long to wait before coming back.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    /// Checks that the stream ends, and that nothing comes before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.next_event(), None);
    }
}

/// What a key has.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirrored {
    pub value: Value,
    pub revision: u64,
    /// Whether it expires.
    pub expires: bool,
}

/// A copy of a store that is kept true by events: commit by commit, never by half.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    pub entries: BTreeMap<String, Mirrored>,
    /// The last commit that is in it.
    pub revision: u64,
    /// What has come of the next one.
    commit: Vec<Event>,
    /// Whether entries come that were there.
    copying: bool,
    /// How many times it has had to begin anew.
    pub resets: u32,
}

impl Mirror {
    /// One that begins with what is there, so for a stream with `initial=true` and no revision.
    pub fn new() -> Mirror {
        Mirror {
            copying: true,
            ..Mirror::default()
        }
    }

    /// The revision to go on from, once there is one.
    pub fn since(&self) -> Option<u64> {
        (!self.copying).then_some(self.revision)
    }

    /// The stream has ended, and another one goes on from [`Mirror::since`], or from the beginning.
    pub fn reconnect(&mut self) {
        self.commit.clear();
        if self.copying {
            self.entries.clear();
        }
    }

    /// Does what an event tells. Returns whether that was the end of a commit, or what stands for one.
    #[track_caller]
    pub fn apply(&mut self, event: Event) -> bool {
        let revision = event.revision();
        if event.name == "reset" {
            assert_eq!((event.id, self.commit.len()), (None, 0), "{event:?}");
            self.entries.clear();
            (self.revision, self.copying) = (0, true);
            self.resets += 1;
            return false;
        }
        if self.copying && event.name == "put" {
            assert_eq!(event.id, None, "{event:?}");
            self.put(&event);
            return false;
        }
        match self.commit.first() {
            Some(first) => assert_eq!(first.revision(), revision, "a commit is split: {event:?}"),
            // They say where the watcher is, and that may be known.
            None if ["ready", "progress"].contains(&&*event.name) => {
                assert!(revision >= self.revision, "{} {event:?}", self.revision);
            }
            None => assert!(revision > self.revision, "{} {event:?}", self.revision),
        }
        let id = event.id;
        self.commit.push(event);
        if id.is_some() {
            assert_eq!(id, Some(revision));
            for event in mem::take(&mut self.commit) {
                self.carry_out(&event);
            }
            self.revision = revision;
        }
        id.is_some()
    }

    fn carry_out(&mut self, event: &Event) {
        let data = event.json();
        match &*event.name {
            "put" => self.put(event),
            "delete" | "expire" => {
                let removed = self.entries.remove(data["key"].as_str().expect("a key"));
                assert!(removed.is_some(), "there was nothing to remove: {event:?}");
            }
            "clear" => {
                let prefix = data["prefix"].as_str().expect("a prefix");
                self.entries.retain(|key, _| !key.starts_with(prefix));
            }
            "ready" => {
                let mut all = self.entries.values();
                assert!(all.all(|it| it.revision <= event.revision()), "{event:?}");
                self.copying = false;
            }
            "progress" => {}
            other => panic!("an unknown event: {other}"),
        }
    }

    fn put(&mut self, event: &Event) {
        let data = event.json();
        let entry = Mirrored {
            value: data["value"].clone(),
            revision: event.revision(),
            expires: !data["ttl"].is_null(),
        };
        let key = data["key"].as_str().expect("a key").to_owned();
        let earlier = self.entries.insert(key, entry);
        assert!(!self.copying || earlier.is_none(), "{event:?} twice");
    }
}
