//! Which keys somebody wants to know about.

use super::{Change, Key};

/// Some keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// This one.
    Key(Key),
    /// All that begin with this.
    Prefix(String),
}

impl Interest {
    /// All keys.
    pub const ALL: Interest = Interest::Prefix(String::new());

    /// The text that all of them begin with.
    pub fn prefix(&self) -> &str {
        match self {
            Interest::Key(key) => key.as_str(),
            Interest::Prefix(prefix) => prefix,
        }
    }

    /// Whether this key is among them.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Interest::Key(one) => one.as_str() == key,
            Interest::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// Whether a change is about one of them. A clear is, if one of them could have been removed by it.
    pub fn covers(&self, change: &Change) -> bool {
        match change {
            Change::Put(entry) | Change::Touch(entry) => self.contains(entry.key()),
            Change::Remove { key, .. } => self.contains(key.as_str()),
            Change::Clear { prefix, .. } => {
                let above = self.prefix().starts_with(&**prefix);
                above || matches!(self, Interest::Prefix(mine) if prefix.starts_with(mine))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cause, Entry};

    fn one(key: &str) -> Interest {
        Interest::Key(Key::try_from(key.as_bytes()).unwrap())
    }

    #[test]
    fn a_clear_concerns_those_under_it_and_those_above_it() {
        let one = one("a:b");
        let prefix = Interest::Prefix("a:b".into());
        for (cleared, concerns_one, concerns_prefix) in [
            ("", true, true),
            ("a", true, true),
            ("a:b", true, true),
            ("a:bc", false, true),
            ("a:c", false, false),
            ("b", false, false),
        ] {
            let change = Change::Clear {
                prefix: cleared.into(),
                revision: 1,
            };
            assert_eq!(one.covers(&change), concerns_one, "{cleared}");
            assert_eq!(prefix.covers(&change), concerns_prefix, "{cleared}");
        }
    }

    #[test]
    fn other_changes_concern_their_key() {
        let (one, prefix) = (one("a"), Interest::Prefix("a".into()));
        for (key, is_one) in [("a", true), ("ab", false)] {
            let changes = [
                Change::Put(Entry::of(key, "v")),
                Change::Touch(Entry::of(key, "v")),
                Change::Remove {
                    key: Key::try_from(key.as_bytes()).unwrap(),
                    revision: 1,
                    cause: Cause::Deleted,
                },
            ];
            for change in &changes {
                assert_eq!(one.covers(change), is_one);
                assert!(prefix.covers(change));
            }
        }
        assert!(!prefix.covers(&Change::Put(Entry::of("ba", "v"))));
        assert!(Interest::Prefix(String::new()).contains("anything"));
    }
}
