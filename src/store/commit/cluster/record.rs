//! What stands in etcd, as bytes: records of the log, and snapshots of the map. A byte with the version, then postcard's format.
//!
//! Every node carries out every record, so a record that a node does not understand must stop it: to leave one out would make its map
//! differ from the others' without a word.

use serde::{Deserialize, Serialize};

use crate::store::command::Operation;
use crate::store::revision::{Condition, Revisions};
use crate::store::{Command, Entry, Expiry, Key, Kind, Revision, When};

/// The version of all that is written.
const VERSION: u8 = 1;

/// Commands that were put into the log together, by one node.
pub(super) struct Record {
    pub(super) head: Head,
    pub(super) commands: Vec<Command>,
}

/// What a record says besides its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The node that has made it; another one at each start.
    pub(super) producer: u64,
    /// Which one of that node's. A record that is there twice, since the first put seemed to have failed, counts once.
    pub(super) number: u64,
    /// The time by the node's clock, in milliseconds since 1970.
    pub(super) now: u64,
    /// The most bytes that the data may take for these commands to be taken, by that node's limit: all nodes must decide alike.
    pub(super) limit: u64,
}

/// What a node must know about the log before a snapshot to go on behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// etcd's revision of the last record.
    pub(super) at: i64,
    /// How many records there are up to it.
    pub(super) records: i64,
    /// The highest time that a record had.
    pub(super) clock: u64,
    /// The revision of the map.
    pub(super) revision: Revision,
    /// The last record of each node: the node, its number, and which record of the log it is.
    pub(super) producers: Vec<(u64, u64, i64)>,
}

impl Place {
    /// The beginning of a log.
    pub(super) fn beginning() -> Place {
        Place {
            revision: 1,
            ..Place::default()
        }
    }
}

/// What a node says of itself while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeState<'a> {
    pub(super) name: &'a str,
    /// What its clock says, in milliseconds since 1970.
    pub(super) now: u64,
}

/// The head of a snapshot, which says that it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) place: Place,
    /// A number that no other snapshot has. It stands in the names of the chunks.
    pub(super) id: u64,
    pub(super) chunks: u64,
    pub(super) keys: u64,
    /// Bytes of the chunks together.
    pub(super) bytes: u64,
}

#[derive(Serialize, Deserialize)]
enum Written<'a> {
    One(#[serde(borrow)] WrittenOperation<'a>),
    Bulk(#[serde(borrow)] Vec<WrittenOperation<'a>>),
    Clear,
    DeletePrefix(&'a str),
    #[serde(borrow)]
    Sweep(Vec<&'a str>),
}

#[derive(Serialize, Deserialize)]
struct WrittenOperation<'a> {
    key: &'a str,
    #[serde(borrow)]
    what: What<'a>,
    if_match: Option<WrittenRevisions>,
    if_none_match: Option<WrittenRevisions>,
}

#[derive(Serialize, Deserialize)]
enum What<'a> {
    Put {
        json: bool,
        value: &'a str,
        expiry: Option<u64>,
    },
    Delete,
    Touch {
        expiry: Option<u64>,
    },
    Check,
}

#[derive(Serialize, Deserialize)]
enum WrittenRevisions {
    Any,
    Listed(Vec<Revision>),
}

#[derive(Serialize, Deserialize)]
struct WrittenEntry<'a> {
    key: &'a str,
    json: bool,
    value: &'a str,
    expiry: Option<u64>,
    revision: Revision,
}

impl Record {
    pub(super) fn encode(head: Head, commands: &[Command]) -> Vec<u8> {
        let commands: Vec<Written> = commands.iter().map(Written::of).collect();
        encode(&(head, commands))
    }

    /// `None` if it is none of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
        let (head, commands): (Head, Vec<Written>) = decode(bytes)?;
        let commands = commands.into_iter().map(Written::into_command);
        Some(Record {
            head,
            commands: commands.collect::<Option<_>>()?,
        })
    }
}

impl<'a> NodeState<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<NodeState<'a>> {
        decode(bytes)
    }
}

impl SnapshotHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<SnapshotHead> {
        decode(bytes)
    }
}

/// A chunk of a snapshot.
pub(super) fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let entries: Vec<WrittenEntry> = entries.iter().map(WrittenEntry::of).collect();
    encode(&entries)
}

pub(super) fn decode_entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let entries: Vec<WrittenEntry> = decode(bytes)?;
    entries.into_iter().map(WrittenEntry::into_entry).collect()
}

fn encode(what: &impl Serialize) -> Vec<u8> {
    // Into memory, of numbers, text and lists: nothing that can fail.
    postcard::to_extend(what, vec![VERSION]).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (&VERSION, bytes) = bytes.split_first()? else {
        return None;
    };
    match postcard::take_from_bytes(bytes) {
        Ok((what, [])) => Some(what),
        _ => None,
    }
}

impl<'a> Written<'a> {
    fn of(command: &'a Command) -> Written<'a> {
        let operation =
            |(operation, when): &'a (Operation, _)| WrittenOperation::of(operation, when);
        match command {
            Command::One(operation, when) => Written::One(WrittenOperation::of(operation, when)),
            Command::Bulk(operations) => Written::Bulk(operations.iter().map(operation).collect()),
            Command::Clear => Written::Clear,
            Command::DeletePrefix(prefix) => Written::DeletePrefix(prefix),
            // The lane has chosen keys for it, unless there were none.
            Command::Sweep => Written::Sweep(Vec::new()),
            Command::SweepKeys(keys) => Written::Sweep(keys.iter().map(Key::as_str).collect()),
        }
    }

    fn into_command(self) -> Option<Command> {
        Some(match self {
            Written::One(operation) => {
                let (operation, when) = operation.into_operation()?;
                Command::One(operation, when)
            }
            Written::Bulk(operations) => {
                let operations = operations.into_iter().map(WrittenOperation::into_operation);
                Command::Bulk(operations.collect::<Option<_>>()?)
            }
            Written::Clear => Command::Clear,
            Written::DeletePrefix(prefix) => Command::DeletePrefix(prefix.into()),
            Written::Sweep(keys) => {
                let keys = keys
                    .into_iter()
                    .map(|key| Key::try_from(key.as_bytes()).ok());
                Command::SweepKeys(keys.collect::<Option<_>>()?)
            }
        })
    }
}

impl<'a> WrittenOperation<'a> {
    fn of(operation: &'a Operation, when: &When) -> WrittenOperation<'a> {
        let (key, what) = match operation {
            Operation::Put(entry) => {
                let json = entry.kind() == Kind::Json;
                let (value, expiry) = (entry.value(), entry.expiry.map(Expiry::millis));
                (
                    entry.key(),
                    What::Put {
                        json,
                        value,
                        expiry,
                    },
                )
            }
            Operation::Delete { key } => (key.as_str(), What::Delete),
            Operation::Touch { key, expiry } => {
                let expiry = expiry.map(Expiry::millis);
                (key.as_str(), What::Touch { expiry })
            }
            Operation::Check { key } => (key.as_str(), What::Check),
        };
        let condition = when.as_deref();
        let written = |revisions: &Option<Revisions>| {
            revisions.as_ref().map(|it| match it {
                Revisions::Any => WrittenRevisions::Any,
                Revisions::Listed(listed) => WrittenRevisions::Listed(listed.clone()),
            })
        };
        WrittenOperation {
            key,
            what,
            if_match: condition.and_then(|it| written(&it.if_match)),
            if_none_match: condition.and_then(|it| written(&it.if_none_match)),
        }
    }

    fn into_operation(self) -> Option<(Operation, When)> {
        let key = Key::try_from(self.key.as_bytes()).ok()?;
        let operation = match self.what {
            What::Put {
                json,
                value,
                expiry,
            } => Operation::Put(entry(&key, json, value, expiry)?),
            What::Delete => Operation::Delete { key },
            What::Touch { expiry } => {
                let expiry = expiry.map(Expiry::at_millis);
                Operation::Touch { key, expiry }
            }
            What::Check => Operation::Check { key },
        };
        let read = |revisions: Option<WrittenRevisions>| {
            revisions.map(|it| match it {
                WrittenRevisions::Any => Revisions::Any,
                WrittenRevisions::Listed(listed) => Revisions::Listed(listed),
            })
        };
        let condition = Condition {
            if_match: read(self.if_match),
            if_none_match: read(self.if_none_match),
        };
        Some((operation, condition.when()))
    }
}

impl<'a> WrittenEntry<'a> {
    fn of(entry: &'a Entry) -> WrittenEntry<'a> {
        WrittenEntry {
            key: entry.key(),
            json: entry.kind() == Kind::Json,
            value: entry.value(),
            expiry: entry.expiry.map(Expiry::millis),
            revision: entry.revision(),
        }
    }

    fn into_entry(self) -> Option<Entry> {
        let key = Key::try_from(self.key.as_bytes()).ok()?;
        Some(entry(&key, self.json, self.value, self.expiry)?.at(self.revision))
    }
}

fn entry(key: &Key, json: bool, value: &str, expiry: Option<u64>) -> Option<Entry> {
    let kind = if json { Kind::Json } else { Kind::Text };
    let expiry = expiry.map(Expiry::at_millis);
    Entry::new(key, kind, value.as_bytes(), expiry).ok()
}
