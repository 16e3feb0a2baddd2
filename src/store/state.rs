//! What commands are carried out on: the entries themselves, or changes to them that wait to be committed.

use std::collections::HashMap;

use super::entries::Entries;
use super::{Entry, Key};

/// Something that commands can be carried out on.
pub(super) trait State {
    /// The entry of a key; also one that has expired.
    fn get(&self, key: &Key) -> Option<&Entry>;
    fn set(&mut self, key: Key, entry: Entry);
    fn remove(&mut self, key: Key);
    fn clear(&mut self);
    /// Up to so many keys that have expired.
    fn expired(&self, most: usize) -> Vec<Key>;
}

/// Changes on top of entries that stay as they are until these changes are committed. Each command sees what those
/// before it have staged, and of several changes to a key only the last is kept.
pub(super) struct Staged<'a> {
    base: &'a Entries,
    changes: Changes,
}

/// What a batch of commands amounts to.
#[derive(Default)]
pub(super) struct Changes {
    /// Everything that was there before is gone.
    pub(super) cleared: bool,
    /// Then, the new entries of these keys; `None` where there is none any more.
    pub(super) entries: HashMap<Key, Option<Entry>>,
}

impl<'a> Staged<'a> {
    pub(super) fn on(base: &'a Entries) -> Staged<'a> {
        Staged {
            base,
            changes: Changes::default(),
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}

impl State for Staged<'_> {
    fn get(&self, key: &Key) -> Option<&Entry> {
        match self.changes.entries.get(key) {
            Some(staged) => staged.as_ref(),
            None if self.changes.cleared => None,
            None => self.base.get(key),
        }
    }

    fn set(&mut self, key: Key, entry: Entry) {
        self.changes.entries.insert(key, Some(entry));
    }

    fn remove(&mut self, key: Key) {
        if !self.changes.cleared && self.base.get(&key).is_some() {
            self.changes.entries.insert(key, None);
        } else {
            self.changes.entries.remove(&key);
        }
    }

    fn clear(&mut self) {
        self.changes = Changes {
            cleared: true,
            entries: HashMap::new(),
        };
    }

    fn expired(&self, most: usize) -> Vec<Key> {
        if self.changes.cleared {
            return Vec::new();
        }
        // What has been staged is new, and left to the next sweep.
        let expired = self.base.expired();
        let unchanged = expired.filter(|key| !self.changes.entries.contains_key(*key));
        unchanged.take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Command, Expiry, Operation, Outcome, Value};

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn entry(text: &str) -> Entry {
        Entry {
            value: Value::text(text),
            expiry: None,
        }
    }

    #[test]
    fn commands_of_a_batch_see_each_other_and_the_base_stays() {
        let base = Entries::from_iter([(key("a"), entry("1")), (key("b"), entry("2"))]);
        let mut staged = Staged::on(&base);
        let delete = |name| Command::One(Operation::Delete { key: key(name) });
        let put = |name, text| {
            Command::One(Operation::Put {
                key: key(name),
                value: Value::text(text),
                expiry: None,
            })
        };
        assert_eq!(delete("a").execute(&mut staged), Outcome::Done);
        assert_eq!(delete("a").execute(&mut staged), Outcome::NotFound);
        assert_eq!(put("c", "3").execute(&mut staged), Outcome::Done);
        assert_eq!(delete("c").execute(&mut staged), Outcome::Done);
        assert_eq!(put("b", "4").execute(&mut staged), Outcome::Done);
        assert_eq!(put("b", "5").execute(&mut staged), Outcome::Done);
        let changes = staged.into_changes();
        assert!(!changes.cleared);
        let expected = HashMap::from([(key("a"), None), (key("b"), Some(entry("5")))]);
        assert_eq!(changes.entries, expected);
        assert_eq!(base.get(&key("a")), Some(&entry("1")));
    }

    #[test]
    fn after_a_clear_only_what_came_later_counts() {
        let base = Entries::from_iter([(key("a"), entry("1"))]);
        let mut staged = Staged::on(&base);
        staged.set(key("b"), entry("2"));
        Command::Clear.execute(&mut staged);
        assert!(staged.get(&key("a")).is_none() && staged.get(&key("b")).is_none());
        assert_eq!(
            Command::One(Operation::Delete { key: key("a") }).execute(&mut staged),
            Outcome::NotFound
        );
        staged.set(key("c"), entry("3"));
        let changes = staged.into_changes();
        assert!(changes.cleared);
        assert_eq!(
            changes.entries,
            HashMap::from([(key("c"), Some(entry("3")))])
        );
    }

    #[test]
    fn what_has_expired_counts_as_not_there() {
        let expired = Entry {
            value: Value::text("1"),
            expiry: Some(Expiry::at_millis(1)),
        };
        let base = Entries::from_iter([(key("a"), expired)]);
        let mut staged = Staged::on(&base);
        assert_eq!(
            Command::One(Operation::Delete { key: key("a") }).execute(&mut staged),
            Outcome::NotFound
        );
        assert_eq!(
            staged.into_changes().entries,
            HashMap::from([(key("a"), None)])
        );
    }

    #[test]
    fn a_sweep_removes_what_has_expired_and_nothing_else() {
        let expiring = |millis| Entry {
            value: Value::text("1"),
            expiry: Some(Expiry::at_millis(millis)),
        };
        let base = Entries::from_iter([
            (key("a"), expiring(1)),
            (key("b"), expiring(1)),
            (key("c"), expiring(u64::MAX)),
            (key("d"), entry("1")),
        ]);
        let mut staged = Staged::on(&base);
        staged.set(key("b"), entry("2"));
        assert_eq!(Command::Sweep.execute(&mut staged), Outcome::Swept(1));
        let changes = staged.into_changes();
        let expected = HashMap::from([(key("a"), None), (key("b"), Some(entry("2")))]);
        assert_eq!(changes.entries, expected);

        let mut cleared = Staged::on(&base);
        cleared.clear();
        assert_eq!(Command::Sweep.execute(&mut cleared), Outcome::Swept(0));
    }

    #[test]
    fn operations_of_a_bulk_see_those_before_them() {
        let base = Entries::from_iter([(key("a"), entry("1"))]);
        let mut staged = Staged::on(&base);
        let expiry = Expiry::at_millis(u64::MAX);
        let touch = |name| Operation::Touch {
            key: key(name),
            expiry,
        };
        let delete = |name| Operation::Delete { key: key(name) };
        let bulk = vec![touch("a"), touch("b"), delete("a"), delete("a"), touch("a")];
        assert_eq!(
            Command::Bulk(bulk).execute(&mut staged),
            Outcome::Each(vec![true, false, true, false, false])
        );
        assert_eq!(
            staged.into_changes().entries,
            HashMap::from([(key("a"), None)])
        );

        let mut staged = Staged::on(&base);
        assert_eq!(Command::One(touch("a")).execute(&mut staged), Outcome::Done);
        assert_eq!(
            Command::One(touch("b")).execute(&mut staged),
            Outcome::NotFound
        );
        let touched = Entry {
            expiry: Some(expiry),
            ..entry("1")
        };
        assert_eq!(
            staged.into_changes().entries,
            HashMap::from([(key("a"), Some(touched))])
        );
    }
}
