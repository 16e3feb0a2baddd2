//! What a watcher wants to know.

use crate::store::{Change, Key};

/// Which keys, and how they are shown. Watchers who want the same get the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::api) struct Want {
    pub(in crate::api) keys: Keys,
    /// Whether to show values.
    pub(in crate::api) values: bool,
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::api) enum Keys {
    /// This one.
    One(Key),
    /// All that begin with this.
    Prefix(String),
}

impl Keys {
    /// The text that all of them begin with.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Keys::One(key) => key.as_str(),
            Keys::Prefix(prefix) => prefix,
        }
    }

    /// Whether this one is among them.
    pub(super) fn contain(&self, key: &str) -> bool {
        match self {
            Keys::One(one) => one.as_str() == key,
            Keys::Prefix(prefix) => key.starts_with(prefix),
        }
    }

    /// Whether a change is about one of them. A clear is, if one of them could have been removed by it.
    pub(super) fn concern(&self, change: &Change) -> bool {
        match change {
            Change::Put(entry) | Change::Touch(entry) => self.contain(entry.key()),
            Change::Remove { key, .. } => self.contain(key.as_str()),
            Change::Clear { prefix, .. } => {
                let above = self.prefix().starts_with(&**prefix);
                above || matches!(self, Keys::Prefix(mine) if prefix.starts_with(mine))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Cause, Entry};

    fn one(key: &str) -> Keys {
        Keys::One(Key::try_from(key.as_bytes()).unwrap())
    }

    #[test]
    fn a_clear_concerns_those_under_it_and_those_above_it() {
        let one = one("a:b");
        let prefix = Keys::Prefix("a:b".into());
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
            assert_eq!(one.concern(&change), concerns_one, "{cleared}");
            assert_eq!(prefix.concern(&change), concerns_prefix, "{cleared}");
        }
    }

    #[test]
    fn other_changes_concern_their_key() {
        let (one, prefix) = (one("a"), Keys::Prefix("a".into()));
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
                assert_eq!(one.concern(change), is_one);
                assert!(prefix.concern(change));
            }
        }
        assert!(!prefix.concern(&Change::Put(Entry::of("ba", "v"))));
        assert!(Keys::Prefix(String::new()).contain("anything"));
    }
}
