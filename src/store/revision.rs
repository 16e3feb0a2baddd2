//! Revisions: the number of each commit, and what a write may demand of the one that it finds.

use std::time::{Duration, SystemTime};

use super::{Entry, Key, Outcome};

/// The number of a commit: a whole number, larger than 0 and below 2^53. Every commit that changes something has a larger one than all
/// before it, and an entry has that of the commit that last wrote it. None is given twice, also by a store that is started again.
pub type Revision = u64;

/// A clock that is further ahead does not count: revisions stay below 2^53 for good. This is in the year 2112.
const CLOCK_AT_MOST: u64 = 1 << 52;

/// The least revision that may be given by a store that is started at this time: microseconds since 1970.
pub(super) fn at_time(now: SystemTime) -> Revision {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
    let micros = since_1970.as_ref().map_or(0, Duration::as_micros);
    u64::try_from(micros).map_or(CLOCK_AT_MOST, |micros| micros.clamp(1, CLOCK_AT_MOST))
}

/// The same for a time in milliseconds since 1970.
pub(super) fn at_millis(millis: u64) -> Revision {
    millis.saturating_mul(1000).clamp(1, CLOCK_AT_MOST)
}

/// The same for the present.
pub(super) fn at_start() -> Revision {
    at_time(SystemTime::now())
}

/// Gives revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// The last one that was given: the revision of the state.
    pub(super) last: Revision,
    /// No smaller one is given. So none comes again that was given by a lost future of this store: by a directory that was
    /// replaced by an older copy, or by an earlier memory.
    pub(super) least: Revision,
}

impl Counter {
    /// The one that the next commit gets.
    pub(super) fn next(self) -> Revision {
        self.least.max(self.last + 1)
    }
}

/// Revisions that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revisions {
    /// Any at all.
    Any,
    /// One of these.
    Listed(Vec<Revision>),
}

impl Revisions {
    /// Whether an entry has one of them. An entry that is not there has none.
    fn have(&self, entry: Option<&Entry>) -> bool {
        entry.is_some_and(|entry| match self {
            Revisions::Any => true,
            Revisions::Listed(listed) => listed.contains(&entry.revision()),
        })
    }
}

/// What must be true of a key for an operation to happen. An expired entry is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The entry must have one of these. It is judged before `if_none_match`.
    pub if_match: Option<Revisions>,
    /// The entry must have none of these.
    pub if_none_match: Option<Revisions>,
}

/// The condition of an operation. `None` is the usual one: always. In a box, so that it takes no space and no time where there is none.
pub type When = Option<Box<Condition>>;

impl Condition {
    /// In the form that commands take.
    pub fn when(self) -> When {
        (self != Condition::default()).then(|| Box::new(self))
    }

    /// Whether it is met by what a key has; `None` if it is not there.
    pub fn is_met(&self, entry: Option<&Entry>) -> bool {
        let matches = self.if_match.as_ref().is_none_or(|it| it.have(entry));
        let differs = self.if_none_match.as_ref();
        matches && !differs.is_some_and(|it| it.have(entry))
    }
}

/// A condition that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Which operation of the command had it.
    pub index: usize,
    /// The key of that operation.
    pub key: Key,
    /// What the key has now; `None` if it is not there.
    pub revision: Option<Revision>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What it did.
    pub outcome: Outcome,
    /// That of the commit; where it changed nothing, that of the state that it found.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_grow_whatever_the_clock_does() {
        let at = |micros| at_time(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(at(1_700_000_000_000_001), 1_700_000_000_000_001);
        assert_eq!(at(0), 1);
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(at_time(before_1970), 1);
        assert_eq!(at(u64::MAX / 2), CLOCK_AT_MOST);
        let next = |last, least| Counter { last, least }.next();
        assert_eq!(next(5, 100), 100);
        assert_eq!(next(100, 100), 101);
        assert_eq!(next(500, 100), 501);
    }

    #[test]
    fn conditions_are_met_by_what_is_there() {
        let entry = Entry::of("k", "v").at(7);
        let any = || Some(Revisions::Any);
        let listed = |listed: &[Revision]| Some(Revisions::Listed(listed.to_vec()));
        // Condition, with the entry, without.
        let cases = [
            (None, None, true, true),
            (any(), None, true, false),
            (listed(&[6, 7]), None, true, false),
            (listed(&[6, 8]), None, false, false),
            (listed(&[]), None, false, false),
            (None, any(), false, true),
            (None, listed(&[6, 7]), false, true),
            (None, listed(&[6, 8]), true, true),
            (listed(&[7]), listed(&[7]), false, false),
            (any(), listed(&[6]), true, false),
        ];
        for (if_match, if_none_match, with, without) in cases {
            let condition = Condition {
                if_match,
                if_none_match,
            };
            assert_eq!(condition.is_met(Some(&entry)), with, "{condition:?}");
            assert_eq!(condition.is_met(None), without, "{condition:?}");
        }
        assert_eq!(Condition::default().when(), None);
    }
}
