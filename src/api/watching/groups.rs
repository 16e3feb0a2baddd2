//! Those who have been sent everything, in groups by what they want.
//!
//! A change finds the groups that it concerns by its key, so that a thousand who watch other keys cost nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Want;
use crate::store::{Change, Interest};

#[derive(Default)]
pub(super) struct Groups {
    members: HashMap<Arc<Want>, HashSet<u64>>,
    /// What is wanted of single keys.
    keys: Index,
    /// What is wanted of prefixes, by how many bytes they have.
    prefixes: BTreeMap<usize, Index>,
}

/// What is wanted of each key, or of each prefix.
type Index = HashMap<String, Vec<Arc<Want>>>;

impl Groups {
    pub(super) fn join(&mut self, want: &Arc<Want>, watcher: u64) {
        let group = self.members.entry(Arc::clone(want)).or_default();
        if group.is_empty() {
            let index = match &want.interest {
                Interest::Key(_) => &mut self.keys,
                Interest::Prefix(prefix) => self.prefixes.entry(prefix.len()).or_default(),
            };
            let wants = index.entry(want.interest.prefix().into()).or_default();
            wants.push(Arc::clone(want));
        }
        group.insert(watcher);
    }

    pub(super) fn leave(&mut self, want: &Arc<Want>, watcher: u64) {
        let Some(group) = self.members.get_mut(want) else {
            return;
        };
        group.remove(&watcher);
        if !group.is_empty() {
            return;
        }
        self.members.remove(want);
        let text = want.interest.prefix();
        match want.interest {
            Interest::Key(_) => remove(&mut self.keys, text, want),
            Interest::Prefix(_) => {
                if let Some(index) = self.prefixes.get_mut(&text.len()) {
                    remove(index, text, want);
                    if index.is_empty() {
                        self.prefixes.remove(&text.len());
                    }
                }
            }
        }
    }

    /// Empties all groups, and returns who was in them.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = u64> {
        let Groups { members, .. } = std::mem::take(self);
        members.into_values().flatten()
    }

    pub(super) fn members(&self, want: &Arc<Want>) -> Vec<u64> {
        let group = self.members.get(want);
        group.into_iter().flatten().copied().collect()
    }

    /// The changes that somebody wants to know about, for each want, in their order.
    pub(super) fn concerned(&self, changes: &[Change]) -> HashMap<Arc<Want>, Vec<Change>> {
        let mut found: HashMap<Arc<Want>, Vec<Change>> = HashMap::new();
        for change in changes {
            let mut add = |want: &Arc<Want>| {
                let changes = found.entry(Arc::clone(want)).or_default();
                changes.push(change.clone());
            };
            match change {
                Change::Put(entry) | Change::Touch(entry) => {
                    self.wants_of(entry.key()).for_each(&mut add);
                }
                Change::Remove { key, .. } => self.wants_of(key.as_str()).for_each(&mut add),
                Change::Clear { .. } => {
                    let wants = self.members.keys();
                    wants
                        .filter(|it| it.interest.covers(change))
                        .for_each(&mut add);
                }
            }
        }
        found
    }

    fn wants_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Want>> {
        let prefixes = self.prefixes.range(..=key.len());
        let prefixes = prefixes.filter_map(|(length, index)| index.get(key.get(..*length)?));
        self.keys.get(key).into_iter().chain(prefixes).flatten()
    }
}

fn remove(index: &mut Index, text: &str, want: &Arc<Want>) {
    if let Some(wants) = index.get_mut(text) {
        wants.retain(|it| it != want);
        if wants.is_empty() {
            index.remove(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use arbtest::arbitrary::{Result, Unstructured};
    use arbtest::arbtest;

    use super::*;
    use crate::store::{Cause, Entry, Key};

    fn text(u: &mut Unstructured, shortest: usize) -> Result<String> {
        let length = u.int_in_range(shortest..=3)?;
        (0..length)
            .map(|_| u.choose(&['a', 'b']).copied())
            .collect()
    }

    fn key(u: &mut Unstructured) -> Result<Key> {
        Ok(Key::try_from(text(u, 1)?.as_bytes()).expect("a key"))
    }

    fn want(u: &mut Unstructured) -> Result<Arc<Want>> {
        let interest = match u.arbitrary()? {
            true => Interest::Key(key(u)?),
            false => Interest::Prefix(text(u, 0)?),
        };
        let values = u.arbitrary()?;
        Ok(Arc::new(Want { interest, values }))
    }

    fn change(u: &mut Unstructured) -> Result<Change> {
        let (revision, cause) = (1, Cause::Deleted);
        Ok(match u.int_in_range(0..=2)? {
            0 => Change::Put(Entry::of(key(u)?.as_str(), "v")),
            1 => Change::Remove {
                key: key(u)?,
                revision,
                cause,
            },
            _ => Change::Clear {
                prefix: text(u, 0)?.into(),
                revision,
            },
        })
    }

    /// Whoever joins and leaves, a change finds those whose interest covers it.
    #[test]
    fn changes_find_those_whom_they_concern() {
        arbtest(|u| {
            let mut groups = Groups::default();
            let mut model: HashMap<Arc<Want>, HashSet<u64>> = HashMap::new();
            for _ in 0..u.int_in_range(0..=20)? {
                let (want, watcher) = (want(u)?, u.int_in_range(0..=2)?);
                if u.ratio(2, 3)? {
                    groups.join(&want, watcher);
                    model.entry(want).or_default().insert(watcher);
                } else {
                    groups.leave(&want, watcher);
                    model.entry(want).or_default().remove(&watcher);
                }
            }
            model.retain(|_, group| !group.is_empty());
            let changes = u.int_in_range(0..=5)?;
            let changes: Vec<Change> = (0..changes).map(|_| change(u)).collect::<Result<_>>()?;
            let found = groups.concerned(&changes);
            let show = |change: &Change| format!("{change:?}");
            for (want, group) in &model {
                assert_eq!(&HashSet::from_iter(groups.members(want)), group);
                let covered = changes.iter().filter(|it| want.interest.covers(it));
                let expected: Vec<String> = covered.map(show).collect();
                let got = found.get(want).into_iter().flatten();
                assert_eq!(got.map(show).collect::<Vec<_>>(), expected, "{want:?}");
            }
            assert!(found.keys().all(|want| model.contains_key(want)));
            // Nothing is left behind by those who have left.
            for (want, group) in &model {
                group.iter().for_each(|it| groups.leave(want, *it));
            }
            assert!(groups.members.is_empty() && groups.keys.is_empty());
            assert!(groups.prefixes.is_empty());
            Ok(())
        });
    }

    #[test]
    fn all_can_be_taken_out() {
        let mut groups = Groups::default();
        let interest = Interest::ALL;
        let want = Arc::new(Want {
            interest,
            values: true,
        });
        groups.join(&want, 1);
        groups.join(&want, 2);
        assert_eq!(groups.take_all().sum::<u64>(), 3);
        assert!(groups.members(&want).is_empty());
        assert!(groups.prefixes.is_empty());
    }
}
