//! What commands are carried out on: the entries themselves, or changes to them that wait to be committed.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use super::Entry;
use super::index::Entries;

/// Something that commands can be carried out on.
pub(super) trait Keyspace {
    /// The entry of a key; also one that has expired.
    fn get(&self, key: &str) -> Option<&Entry>;
    /// Sets the entry of its key.
    fn set(&mut self, entry: Entry);
    /// Sets the entry of a key that is there, of which only the expiry has changed.
    fn touch(&mut self, entry: Entry);
    fn remove(&mut self, key: &str);
    fn clear(&mut self);
    /// Up to so many entries that have expired.
    fn expired(&self, most: usize) -> Vec<Entry>;
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
    /// Then, what becomes of these keys.
    pub(super) entries: HashSet<Change>,
}

/// What becomes of a key. In a set there is one for each key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// This is its entry from now on.
    Set(Entry),
    /// This is its entry from now on, of which only the expiry has changed.
    Touched(Entry),
    /// This was its entry, and there is none any more.
    Removed(Entry),
}

impl Change {
    pub(super) fn key(&self) -> &str {
        let (Change::Set(entry) | Change::Touched(entry) | Change::Removed(entry)) = self;
        entry.key()
    }

    /// The entry from now on, if there is one.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match self {
            Change::Set(entry) | Change::Touched(entry) => Some(entry),
            Change::Removed(_) => None,
        }
    }
}

impl Borrow<str> for Change {
    fn borrow(&self) -> &str {
        self.key()
    }
}

impl Hash for Change {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Change {
    fn eq(&self, other: &Change) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Change {}

impl Changes {
    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        !self.cleared && self.entries.is_empty()
    }
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

impl Keyspace for Staged<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        match self.changes.entries.get(key) {
            Some(change) => change.entry(),
            None if self.changes.cleared => None,
            None => self.base.get(key),
        }
    }

    fn set(&mut self, entry: Entry) {
        self.changes.entries.replace(Change::Set(entry));
    }

    fn touch(&mut self, entry: Entry) {
        let change = match self.changes.entries.get(entry.key()) {
            // The value is new as well.
            Some(Change::Set(_)) => Change::Set(entry),
            _ => Change::Touched(entry),
        };
        self.changes.entries.replace(change);
    }

    fn remove(&mut self, key: &str) {
        let base = self.base.get(key).filter(|_| !self.changes.cleared);
        match base {
            Some(entry) => {
                let removed = Change::Removed(entry.clone());
                self.changes.entries.replace(removed);
            }
            None => {
                self.changes.entries.remove(key);
            }
        }
    }

    fn clear(&mut self) {
        self.changes = Changes {
            cleared: true,
            entries: HashSet::new(),
        };
    }

    fn expired(&self, most: usize) -> Vec<Entry> {
        if self.changes.cleared {
            return Vec::new();
        }
        // What has been staged is new, and left to the next sweep.
        let expired = self.base.expired();
        let unchanged = expired.filter(|entry| !self.changes.entries.contains(entry.key()));
        unchanged.take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Command, Expiry, Key, Operation, Outcome};

    fn key(text: &str) -> Key {
        Key::try_from(text.as_bytes()).unwrap()
    }

    fn expiring(key: &str, millis: u64) -> Entry {
        Entry::of(key, "1").with_expiry(Some(Expiry::at_millis(millis)))
    }

    /// Keys and what becomes of them, by key.
    fn changed(staged: Staged<'_>) -> Vec<(String, Option<Entry>)> {
        let changes = staged.into_changes().entries.into_iter();
        let mut changed: Vec<_> = changes
            .map(|it| (it.key().to_owned(), it.entry().cloned()))
            .collect();
        changed.sort_by(|a, b| a.0.cmp(&b.0));
        changed
    }

    #[test]
    fn commands_of_a_batch_see_each_other_and_the_base_stays() {
        let base = Entries::from_iter([Entry::of("a", "1"), Entry::of("b", "2")]);
        let mut staged = Staged::on(&base);
        let delete = |name| Command::One(Operation::Delete { key: key(name) });
        let put = |name, text| Command::One(Operation::Put(Entry::of(name, text)));
        assert_eq!(delete("a").execute(&mut staged), Outcome::Done);
        assert_eq!(delete("a").execute(&mut staged), Outcome::NotFound);
        assert_eq!(put("c", "3").execute(&mut staged), Outcome::Done);
        assert_eq!(delete("c").execute(&mut staged), Outcome::Done);
        assert_eq!(put("b", "4").execute(&mut staged), Outcome::Done);
        assert_eq!(put("b", "5").execute(&mut staged), Outcome::Done);
        assert!(!staged.changes.cleared);
        let expected = [("a".into(), None), ("b".into(), Some(Entry::of("b", "5")))];
        assert_eq!(changed(staged), expected);
        assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
    }

    #[test]
    fn after_a_clear_only_what_came_later_counts() {
        let base = Entries::from_iter([Entry::of("a", "1")]);
        let mut staged = Staged::on(&base);
        staged.set(Entry::of("b", "2"));
        Command::Clear.execute(&mut staged);
        assert!(staged.get("a").is_none() && staged.get("b").is_none());
        assert_eq!(
            Command::One(Operation::Delete { key: key("a") }).execute(&mut staged),
            Outcome::NotFound
        );
        staged.set(Entry::of("c", "3"));
        assert!(staged.changes.cleared);
        let expected = [("c".into(), Some(Entry::of("c", "3")))];
        assert_eq!(changed(staged), expected);
    }

    #[test]
    fn what_has_expired_counts_as_not_there() {
        let base = Entries::from_iter([expiring("a", 1)]);
        let mut staged = Staged::on(&base);
        assert_eq!(
            Command::One(Operation::Delete { key: key("a") }).execute(&mut staged),
            Outcome::NotFound
        );
        assert_eq!(changed(staged), [("a".into(), None)]);
    }

    #[test]
    fn a_sweep_removes_what_has_expired_and_nothing_else() {
        let base = Entries::from_iter([
            expiring("a", 1),
            expiring("b", 1),
            expiring("c", u64::MAX),
            Entry::of("d", "1"),
        ]);
        let mut staged = Staged::on(&base);
        staged.set(Entry::of("b", "2"));
        assert_eq!(Command::Sweep.execute(&mut staged), Outcome::Swept(1));
        let expected = [("a".into(), None), ("b".into(), Some(Entry::of("b", "2")))];
        assert_eq!(changed(staged), expected);

        let mut cleared = Staged::on(&base);
        cleared.clear();
        assert_eq!(Command::Sweep.execute(&mut cleared), Outcome::Swept(0));
    }

    #[test]
    fn operations_of_a_bulk_see_those_before_them() {
        let base = Entries::from_iter([Entry::of("a", "1")]);
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
        assert_eq!(changed(staged), [("a".into(), None)]);

        let mut staged = Staged::on(&base);
        assert_eq!(Command::One(touch("a")).execute(&mut staged), Outcome::Done);
        assert_eq!(
            Command::One(touch("b")).execute(&mut staged),
            Outcome::NotFound
        );
        let touched = expiring("a", u64::MAX);
        assert_eq!(changed(staged), [("a".into(), Some(touched))]);
        assert_eq!(base.get("a"), Some(&Entry::of("a", "1")));
    }
}
