//! Random commands against a model: one by one and in batches, and what those know who have watched.

use std::collections::BTreeMap;
use std::time::Duration;

use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;

use super::*;

/// Few, so that commands meet.
const KEYS: &[&str] = &["a", "a:b", "a:c", "d"];

/// Far ahead, so that nothing expires but by the time that commands are given.
const BEGIN: u64 = 1 << 50;

fn some<T>(
    u: &mut Unstructured<'_>,
    one: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=4)?).map(|_| one(u)).collect()
}

fn revisions(u: &mut Unstructured<'_>) -> Result<Option<Revisions>> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Some(Revisions::Any),
        1 => Some(Revisions::Listed(some(u, |u| u.int_in_range(0..=40))?)),
        _ => None,
    })
}

fn operation(u: &mut Unstructured<'_>) -> Result<(Operation, When)> {
    let name = *u.choose(KEYS)?;
    let millis = u.int_in_range(0..=20)?;
    let expiry = u.ratio(1, 2)?.then(|| Expiry::at_millis(BEGIN + millis));
    let key = key(name);
    let operation = match u.int_in_range(0..=5)? {
        0 => Operation::Delete { key },
        1 | 2 => Operation::Touch { key, expiry },
        3 => Operation::Check { key },
        _ => Operation::Put(Entry::of(name, u.choose(&["1", "2"])?).with_expiry(expiry)),
    };
    let condition = Condition {
        if_match: revisions(u)?,
        if_none_match: revisions(u)?,
    };
    Ok((operation, condition.when()))
}

fn command(u: &mut Unstructured<'_>) -> Result<Command> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Command::Clear,
        1 => Command::DeletePrefix((*u.choose(&["a", "a:", "d", ""])?).into()),
        2 => Command::Sweep,
        3 => Command::SweepKeys(some(u, |u| Ok(key(u.choose(KEYS)?)))?),
        4 | 5 => Command::Bulk(some(u, operation)?),
        _ => {
            let (operation, when) = operation(u)?;
            Command::One(operation, when)
        }
    })
}

/// All entries by key, with value, expiry and revision.
type State = BTreeMap<String, (String, Option<Expiry>, Revision)>;

fn state(map: &Arc<Map>) -> State {
    let all = Frozen::of(map);
    let fields = |it: &Entry| (it.value().to_owned(), it.expiry, it.revision());
    all.map(|it| (it.key().to_owned(), fields(&it))).collect()
}

/// What commands do to a plain map. `None` where it was not one of the keys that are live.
struct Model {
    state: State,
    revision: Revision,
}

impl Model {
    fn live(&self, key: &str, now: Expiry) -> Option<Revision> {
        let (_, expiry, revision) = self.state.get(key)?;
        expiry.is_none_or(|it| it > now).then_some(*revision)
    }

    fn holds(&self, operation: &Operation, when: &When, now: Expiry) -> bool {
        let Some(condition) = when else {
            return true;
        };
        let found = self.live(name(operation), now);
        let one_of = |revisions: &Revisions| match revisions {
            Revisions::Any => found.is_some(),
            Revisions::Listed(listed) => found.is_some_and(|it| listed.contains(&it)),
        };
        condition.if_match.as_ref().is_none_or(one_of)
            && !condition.if_none_match.as_ref().is_some_and(one_of)
    }

    /// Whether the operation changes something.
    fn operate(&mut self, operation: &Operation, now: Expiry) -> bool {
        let (next, live) = (self.revision + 1, self.live(name(operation), now));
        match operation {
            Operation::Put(entry) => {
                let new = (entry.value().to_owned(), entry.expiry, next);
                self.state.insert(entry.key().to_owned(), new);
                true
            }
            Operation::Delete { key } => {
                // One that has expired is left to the sweeps.
                live.is_some() && self.state.remove(key.as_str()).is_some()
            }
            Operation::Touch { key, expiry } => {
                if live.is_some() {
                    let entry = self.state.get_mut(key.as_str()).unwrap();
                    (entry.1, entry.2) = (*expiry, next);
                }
                live.is_some()
            }
            Operation::Check { .. } => false,
        }
    }

    fn execute(&mut self, command: &Command, now: Expiry) -> Revision {
        let one;
        let operations = match command {
            Command::One(operation, when) => {
                one = [(operation.clone(), when.clone())];
                &one[..]
            }
            Command::Bulk(operations) => operations,
            Command::Clear | Command::DeletePrefix(_) => {
                let prefix = match command {
                    Command::DeletePrefix(prefix) => prefix,
                    _ => "",
                };
                let before = self.state.len();
                let live =
                    |(key, (_, expiry, _)): (&String, &(String, Option<Expiry>, Revision))| {
                        key.starts_with(prefix) && expiry.is_none_or(|it| it > now)
                    };
                // What has expired only is left to the sweeps.
                if self.state.iter().any(live) {
                    self.state.retain(|key, _| !key.starts_with(prefix));
                }
                self.revision += u64::from(self.state.len() < before);
                return self.revision;
            }
            Command::SweepKeys(keys) => {
                let before = self.state.len();
                let chosen = |key: &str| keys.iter().any(|it| it.as_str() == key);
                self.state
                    .retain(|key, (_, expiry, _)| expiry.is_none_or(|it| it > now) || !chosen(key));
                self.revision += u64::from(self.state.len() < before);
                return self.revision;
            }
            Command::Sweep => {
                let before = self.state.len();
                self.state
                    .retain(|_, (_, expiry, _)| expiry.is_none_or(|it| it > now));
                self.revision += u64::from(self.state.len() < before);
                return self.revision;
            }
        };
        if operations
            .iter()
            .all(|(it, when)| self.holds(it, when, now))
        {
            let changes = operations.iter().map(|(it, _)| self.operate(it, now));
            let changed = changes.fold(false, |changed, it| changed | it);
            self.revision += u64::from(changed);
        }
        self.revision
    }
}

fn name(operation: &Operation) -> &str {
    match operation {
        Operation::Put(entry) => entry.key(),
        Operation::Delete { key } | Operation::Touch { key, .. } | Operation::Check { key } => {
            key.as_str()
        }
    }
}

fn all_changes(map: &Map) -> Vec<Change> {
    map.history().iter().collect()
}

/// All changes as text. Those of a sweep come in any order.
fn texts(map: &Map) -> Vec<String> {
    let changes = all_changes(map);
    let swept = |it: &Change| it.is_expiry().then(|| it.revision());
    let together = changes.chunk_by(|a, b| swept(a).is_some() && swept(a) == swept(b));
    let sorted = together.flat_map(|some| {
        let mut some: Vec<String> = some.iter().map(|it| format!("{it:?}")).collect();
        some.sort();
        some
    });
    sorted.collect()
}

/// What the changes of a map, which has had none before, come to.
fn watched(map: &Map) -> State {
    let mut state = State::new();
    for change in all_changes(map) {
        match change {
            Change::Put(it) | Change::Touch(it) => {
                let new = (it.value().to_owned(), it.expiry, it.revision());
                state.insert(it.key().to_owned(), new);
            }
            Change::Remove { key, .. } => {
                state.remove(key.as_str()).unwrap();
            }
            Change::Clear { prefix, .. } => state.retain(|key, _| !key.starts_with(&*prefix)),
        }
    }
    state
}

#[test]
fn commands_in_a_batch_do_what_they_do_one_by_one() {
    arbtest(|u| {
        let maps = [(); 2].map(|()| Arc::new(Map::unlimited()));
        let [single, batched] = &maps;
        let mut model = Model {
            state: State::new(),
            revision: 0,
        };
        let mut millis = BEGIN;
        while !u.is_empty() {
            millis += u.int_in_range(0..=3)?;
            let now = Expiry::at_millis(millis);
            let commands = some(u, command)?;
            let alone = commands.iter().map(|command| {
                let (committed, changes) = single.stage(|staged| command.execute(staged, now));
                single.apply(changes).unwrap();
                let revision = model.execute(command, now);
                assert_eq!(committed.revision, revision, "{command:?}: {committed:?}");
                committed
            });
            let alone: Vec<Committed> = alone.collect();
            let (together, changes) = batched.stage(|staged| {
                let all = commands.iter().map(|command| command.execute(staged, now));
                all.collect::<Vec<Committed>>()
            });
            batched.apply(changes).unwrap();
            assert_eq!(alone, together, "{commands:?}");
            assert_eq!(state(single), model.state, "{commands:?}");
            assert_eq!(state(batched), model.state, "{commands:?}");
            // Whoever has watched them knows the same.
            assert_eq!(watched(single), model.state, "{commands:?}");
            assert_eq!(texts(single), texts(batched));
        }
        Ok(())
    })
    .size_min(100)
    .size_max(1000)
    .budget(Duration::from_secs(1));
}

#[test]
fn a_batch_that_is_decided_again_comes_to_what_it_would_have_come_to_at_once() {
    arbtest(|u| {
        let maps = [(); 2].map(|()| Arc::new(Map::unlimited()));
        let [memory, disk] = &maps;
        let mut millis = BEGIN;
        while !u.is_empty() {
            millis += u.int_in_range(0..=3)?;
            let commands = some(u, command)?;
            let decide = |millis, clears_anyway| {
                let ((), changes) = memory.stage(|staged| {
                    staged.clears_anyway = clears_anyway;
                    for command in &commands {
                        command.execute(staged, Expiry::at_millis(millis));
                    }
                });
                changes
            };
            let made = decide(millis, false);
            millis += u.int_in_range(0..=10)?;
            let wanted = decide(millis, made.clear());
            let correction = memory.correct(&made, &wanted);
            // The disk has both, one after the other.
            disk.apply(made).unwrap();
            disk.apply(correction).unwrap();
            memory.apply(wanted).unwrap();
            assert_eq!(state(memory), state(disk), "{commands:?}");
            assert_eq!(memory.revision(), disk.revision());
        }
        Ok(())
    })
    .size_min(100)
    .size_max(1000)
    .budget(Duration::from_secs(1));
}
