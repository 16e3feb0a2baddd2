//! The state machine: carries out the records of the log in their order, each once, as every other node does.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::record::{Place, Record};
use crate::etcd::KeyValue;
use crate::store::history::History;
use crate::store::index::Loader;
use crate::store::revision::Counter;
use crate::store::{CommitError, Committed, Entry, Expiry, Map};

/// A node of which there was nothing in so many records is forgotten: it has ended long ago.
const REMEMBERED: i64 = 1 << 20;

/// How far the map of this node is.
pub(super) struct Replica {
    map: Arc<Map>,
    /// How many bytes of history it may have.
    history: u64,
    /// etcd's revision of the last record that was carried out.
    at: i64,
    /// How many records there were up to it.
    records: i64,
    /// A checksum of the last one, unless it is only known from a snapshot.
    checksum: Option<u64>,
    /// The highest time that a record had, in milliseconds since 1970. It is the time at which commands take effect.
    clock: u64,
    /// The last record of each node: its number, and which record of the log it is.
    producers: HashMap<u64, (u64, i64)>,
    /// Bytes of records behind the last snapshot that is known.
    grown: u64,
}

/// What a record has come to.
pub(super) struct Applied {
    pub(super) producer: u64,
    pub(super) number: u64,
    pub(super) results: Vec<Result<Committed, CommitError>>,
}

/// Why a record cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Records before it are missing.
    Gap,
    /// This version does not know it.
    Unknown,
}

impl Replica {
    pub(super) fn new(map: Arc<Map>, history: u64) -> Replica {
        let mut replica = Replica {
            map,
            history,
            at: 0,
            records: 0,
            checksum: None,
            clock: 0,
            producers: HashMap::new(),
            grown: 0,
        };
        replica.load(Loader::default(), Place::beginning(), false);
        replica
    }

    /// Replaces everything by a snapshot. Where records have been undone, those who watch have seen what has never been, and must not go on
    /// from there.
    pub(super) fn load(&mut self, entries: Loader, place: Place, undone: bool) {
        let Place {
            at,
            records,
            clock,
            revision,
            producers,
        } = place;
        let producers = producers.into_iter();
        self.producers = producers
            .map(|(producer, number, record)| (producer, (number, record)))
            .collect();
        (self.at, self.records, self.clock, self.grown) = (at, records, clock, 0);
        self.checksum = None;
        let counter = Counter {
            last: revision,
            least: revision,
        };
        let oldest = match undone {
            true => revision.max(self.map.revision()) + 1,
            false => revision,
        };
        let history = History::new(self.history, oldest);
        self.map.load(entries.finish(), counter, history);
    }

    /// etcd's revision of the last record that was carried out.
    pub(super) fn at(&self) -> i64 {
        self.at
    }

    /// Whether there is no record before the next one.
    pub(super) fn is_at_beginning(&self) -> bool {
        self.records == 0
    }

    /// Whether this is the last record that was carried out.
    pub(super) fn is_last(&self, record: &KeyValue) -> bool {
        (record.mod_revision, record.version) == (self.at, self.records)
            && self.checksum.is_none_or(|it| it == xxh3_64(&record.value))
    }

    /// The log was deleted at this revision of etcd, and begins anew.
    pub(super) fn begin_anew(&mut self, at: i64) {
        (self.at, self.records, self.checksum) = (at, 0, None);
    }

    /// Bytes of records behind the last snapshot that is known.
    pub(super) fn grown(&self) -> u64 {
        self.grown
    }

    /// There is a snapshot that is newer than all that was known.
    pub(super) fn note_snapshot(&mut self) {
        self.grown = 0;
    }

    /// A copy of the entries as they are now, fetched as the iterator goes on, and where one can go on behind it.
    pub(super) fn snapshot(&self) -> (impl Iterator<Item = Entry> + use<>, Place) {
        // Only records change the map, and this has the replica for itself.
        let frozen = crate::store::frozen::Frozen::of(&self.map);
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable();
        let producers = producers.into_iter();
        let place = Place {
            at: self.at,
            records: self.records,
            clock: self.clock,
            revision: frozen.revision(),
            producers: producers
                .map(|(producer, (number, record))| (*producer, *number, *record))
                .collect(),
        };
        (frozen, place)
    }

    /// Carries out the next record. `None` for one that was carried out already.
    pub(super) fn apply(&mut self, record: &KeyValue) -> Result<Option<Applied>, Broken> {
        // An etcd with a bug may repeat events.
        if record.mod_revision <= self.at {
            return Ok(None);
        }
        // It may also lose some. Each put of the key makes its version one more.
        if record.version != self.records + 1 {
            return Err(Broken::Gap);
        }
        let Record { head, commands } = Record::decode(&record.value).ok_or(Broken::Unknown)?;
        (self.at, self.records) = (record.mod_revision, record.version);
        self.checksum = Some(xxh3_64(&record.value));
        self.grown += record.value.len() as u64;
        let last = self.producers.get(&head.producer);
        if last.is_some_and(|(number, _)| head.number <= *number) {
            return Ok(None);
        }
        self.producers
            .insert(head.producer, (head.number, self.records));
        if self.records % REMEMBERED == 0 {
            let oldest = self.records - REMEMBERED;
            self.producers.retain(|_, (_, record)| *record > oldest);
        }
        self.clock = self.clock.max(head.now);
        let now = Expiry::at_millis(self.clock);
        let results = self.map.execute_all(&commands, now, head.limit);
        Ok(Some(Applied {
            producer: head.producer,
            number: head.number,
            results,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Head, decode_entries, encode_entries};
    use super::*;
    use crate::store::command::Operation;
    use crate::store::{Command, Condition, Key, Kind, Outcome, Revisions};

    fn replica() -> Replica {
        Replica::new(Arc::new(Map::unlimited()), 1 << 20)
    }

    fn key(name: &str) -> Key {
        Key::try_from(name.as_bytes()).unwrap()
    }

    fn put(name: &str, value: &str, expiry: Option<u64>) -> Operation {
        let expiry = expiry.map(Expiry::at_millis);
        Operation::Put(Entry::new(&key(name), Kind::Json, value.as_bytes(), expiry).unwrap())
    }

    /// Some record of a node.
    fn record(at: i64, (producer, number): (u64, u64), now: u64, commands: &[Command]) -> KeyValue {
        let head = Head {
            producer,
            number,
            now,
            limit: u64::MAX,
        };
        KeyValue {
            value: Record::encode(head, commands),
            mod_revision: at * 3,
            version: at,
            ..KeyValue::default()
        }
    }

    fn entries(replica: &Replica) -> Vec<(Entry, u64)> {
        let (entries, _) = replica.snapshot();
        entries.map(|it| (it.clone(), it.revision())).collect()
    }

    /// Far ahead of all clocks, so that readers see nothing expire.
    const BEGIN: u64 = 1 << 50;

    #[test]
    fn all_nodes_decide_alike_whatever_their_clocks_say() {
        let condition = Condition {
            if_match: Some(Revisions::Any),
            if_none_match: Some(Revisions::Listed(vec![1, 2])),
        };
        let touch = |expiry: u64| Operation::Touch {
            key: key("a"),
            expiry: Some(Expiry::at_millis(expiry)),
        };
        let sweep = Command::SweepKeys(vec![key("a"), key("none")]);
        let records = [
            record(1, (1, 1), BEGIN, &[put("a", "1", Some(BEGIN + 10)).into()]),
            record(
                2,
                (2, 1),
                BEGIN + 5,
                &[touch(BEGIN + 20).into(), sweep.clone()],
            ),
            // The clock of this node is behind, and the time goes on all the same.
            record(
                3,
                (1, 2),
                BEGIN - 5,
                &[Command::One(touch(BEGIN + 30), condition.when())],
            ),
            record(
                4,
                (2, 2),
                BEGIN + 40,
                &[
                    touch(BEGIN + 50).into(),
                    sweep.clone(),
                    Command::Bulk(vec![
                        (put("b", "2", None), None),
                        (Operation::Delete { key: key("c") }, None),
                        (Operation::Check { key: key("b") }, None),
                    ]),
                    Command::DeletePrefix("x".into()),
                ],
            ),
        ];
        let (mut one, mut other) = (replica(), replica());
        let outcomes = |replica: &mut Replica| -> Vec<Vec<Outcome>> {
            let applied = records.iter().map(|it| replica.apply(it).unwrap().unwrap());
            let outcomes = applied.map(|it| it.results.into_iter().map(|it| it.unwrap().outcome));
            outcomes.map(Iterator::collect).collect()
        };
        let expected = vec![
            vec![Outcome::Done],
            vec![Outcome::Done, Outcome::Swept(0)],
            vec![Outcome::Done],
            vec![
                Outcome::NotFound,
                Outcome::Swept(1),
                Outcome::Each(vec![true, false, true]),
                Outcome::Deleted(0),
            ],
        ];
        assert_eq!(outcomes(&mut one), expected);
        assert_eq!(outcomes(&mut other), expected);
        assert_eq!(entries(&one), entries(&other));
        assert_eq!(entries(&one).len(), 1);
    }

    #[test]
    fn all_nodes_sweep_the_same_keys() {
        let (mut one, mut other) = (replica(), replica());
        // All expire at the same time, so nothing says which come first.
        let puts = (0..700)
            .rev()
            .map(|n| put(&format!("{n}"), "v", Some(1000)).into());
        let puts: Vec<Command> = puts.collect();
        one.apply(&record(1, (1, 1), 1, &puts)).unwrap();
        let (snapshot, place) = one.snapshot();
        let mut loader = Loader::default();
        snapshot.for_each(|entry| loader.insert(entry));
        other.load(loader, place, false);
        for at in 2..5 {
            let sweep = Command::SweepKeys(one.map.expired(usize::MAX));
            let sweep = record(at, (1, at as u64), 2000, &[sweep]);
            one.apply(&sweep).unwrap();
            other.apply(&sweep).unwrap();
            assert_eq!(entries(&one), entries(&other));
        }
        assert_eq!(entries(&one).len(), 0);
    }

    #[test]
    fn a_record_counts_once_and_a_lost_one_is_noticed() {
        let mut replica = replica();
        let first = record(1, (1, 1), BEGIN, &[put("a", "1", None).into()]);
        assert!(replica.apply(&first).unwrap().is_some());
        // The same event, the same record put again, and one that came late.
        assert!(replica.apply(&first).unwrap().is_none());
        let again = record(2, (1, 1), BEGIN, &[put("a", "2", None).into()]);
        assert!(replica.apply(&again).unwrap().is_none());
        let next = record(3, (1, 2), BEGIN, &[put("b", "3", None).into()]);
        assert!(replica.apply(&next).unwrap().is_some());
        let lost = record(5, (1, 3), BEGIN, &[Command::Clear]);
        assert_eq!(replica.apply(&lost).err(), Some(Broken::Gap));
        let mut unknown = record(4, (1, 3), BEGIN, &[Command::Clear]);
        unknown.value[0] += 1;
        assert_eq!(replica.apply(&unknown).err(), Some(Broken::Unknown));
        assert_eq!(entries(&replica).len(), 2);
    }

    #[test]
    fn one_goes_on_behind_a_snapshot_as_if_nothing_had_been() {
        let (mut one, mut other) = (replica(), replica());
        for at in 1..50 {
            let name = format!("k{}", at % 7);
            let expiry = (at % 3 == 0).then_some(BEGIN + 1000);
            let put = put(&name, &at.to_string(), expiry);
            one.apply(&record(at, (1, at as u64), BEGIN, &[put.into()]))
                .unwrap();
        }
        let (snapshot, place) = one.snapshot();
        let chunk = encode_entries(&snapshot.collect::<Vec<_>>());
        assert!(decode_entries(&chunk[..chunk.len() - 1]).is_none());
        let mut loader = Loader::default();
        for entry in decode_entries(&chunk).unwrap() {
            loader.insert(entry);
        }
        other.load(loader, place, false);
        assert_eq!(entries(&one), entries(&other));
        for replica in [&mut one, &mut other] {
            let again = record(50, (1, 49), BEGIN, &[Command::Clear]);
            assert!(replica.apply(&again).unwrap().is_none());
            let next = record(51, (2, 1), BEGIN, &[put("new", "1", None).into()]);
            assert!(replica.apply(&next).unwrap().is_some());
        }
        assert_eq!(entries(&one), entries(&other));
    }
}
