//! Counts the requests that the API does not let in.

use super::auth::Denied;
use crate::metrics::Cells;

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unauthorized,
    ReadOnly,
    Forged,
    UnknownHost,
    RateLimited,
    TooManyWatchers,
}

impl Refusal {
    const ALL: [Refusal; 6] = [
        Refusal::Unauthorized,
        Refusal::ReadOnly,
        Refusal::Forged,
        Refusal::UnknownHost,
        Refusal::RateLimited,
        Refusal::TooManyWatchers,
    ];

    fn word(self) -> &'static str {
        match self {
            Refusal::Unauthorized => "unauthorized",
            Refusal::ReadOnly => "read_only",
            Refusal::Forged => "forged",
            Refusal::UnknownHost => "unknown_host",
            Refusal::RateLimited => "rate_limited",
            Refusal::TooManyWatchers => "too_many_watchers",
        }
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Refusal {
        match denied {
            Denied::Unauthorized => Refusal::Unauthorized,
            Denied::ReadOnly => Refusal::ReadOnly,
            Denied::Forged => Refusal::Forged,
            Denied::UnknownHost => Refusal::UnknownHost,
            Denied::TooMany(_) => Refusal::RateLimited,
        }
    }
}

/// The counts. Clients that are limited may ask often, so counting must be cheap.
pub(super) struct Refusals(Cells);

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals(Cells::new(Refusal::ALL.len()))
    }
}

impl Refusals {
    pub(super) fn count(&self, refusal: Refusal) {
        self.0.add(refusal as usize, 1);
    }

    /// How many requests were refused, by a word for why.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Refusal::ALL.into_iter();
        all.map(|refusal| (refusal.word(), self.0.sum(refusal as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_under_its_own_word() {
        let refusals = Refusals::default();
        for (times, refusal) in Refusal::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| refusals.count(refusal));
        }
        let counts: Vec<u64> = refusals.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [0, 1, 2, 3, 4, 5]);
        assert_eq!(refusals.counts().last(), Some(("too_many_watchers", 5)));
    }
}
