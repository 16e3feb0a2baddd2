//! Query parameters.

use super::error::{Code, Error};

/// The query parameters. An endpoint ignores parameters that it does not have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Whether to add `ttl` to entries that expire.
    pub(super) with_ttl: bool,
    /// Whether to add revisions.
    pub(super) with_revision: bool,
    /// Whether to leave values out.
    pub(super) keys_only: bool,
    /// Whether to count keys only.
    pub(super) count_only: bool,
    /// List at most this many keys.
    pub(super) limit: Option<usize>,
    /// List only keys with this prefix.
    pub(super) prefix: String,
    /// List only keys greater than this text.
    pub(super) after: Option<String>,
    /// Group keys by what they begin with, up to this text.
    pub(super) delimiter: Option<String>,
    /// Watch this key only.
    pub(super) key: Option<String>,
    /// Whether events have values; they have, if it is not said.
    pub(super) values: Option<bool>,
    /// Whether to begin with what is there.
    pub(super) initial: bool,
    /// Watch from this revision on.
    pub(super) since: Option<u64>,
}

/// The parameters of a listing.
pub(super) const LISTING: &[&str] = &[
    "with_ttl",
    "with_revision",
    "keys_only",
    "count_only",
    "limit",
    "prefix",
    "after",
    "delimiter",
];

/// The parameters of watching.
pub(super) const WATCHING: &[&str] = &["key", "prefix", "values", "initial", "since"];

impl Query {
    /// Reads the parameters with these names.
    pub(super) fn parse(query: &str, names: &[&str]) -> Result<Query, Error> {
        let mut parsed = Query::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !names.contains(&&*name) {
                continue;
            }
            let wrong = |what: &str| {
                Error::new(Code::ValidationError, format!("{name} must be {what}"))
                    .detail("parameter", &*name)
                    .detail("value", &*value)
            };
            let flag = || match &*value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(wrong("true or false, or 1 or 0")),
            };
            match &*name {
                "with_ttl" => parsed.with_ttl = flag()?,
                "with_revision" => parsed.with_revision = flag()?,
                "keys_only" => parsed.keys_only = flag()?,
                "count_only" => parsed.count_only = flag()?,
                "values" => parsed.values = Some(flag()?),
                "initial" => parsed.initial = flag()?,
                "limit" => {
                    let limit = number(&value).filter(|limit| *limit > 0);
                    let limit = limit.ok_or_else(|| wrong("a whole number from 1 on"))?;
                    // One that is too large is no limit.
                    parsed.limit = Some(usize::try_from(limit).unwrap_or(usize::MAX));
                }
                "since" => {
                    let since = number(&value).ok_or_else(|| wrong("a revision"))?;
                    parsed.since = Some(since);
                }
                "key" => parsed.key = Some(value.clone().into_owned()),
                "prefix" => parsed.prefix = value.clone().into_owned(),
                "after" => parsed.after = Some(value.clone().into_owned()),
                "delimiter" if value.is_empty() => return Err(wrong("at least one character")),
                "delimiter" => parsed.delimiter = Some(value.clone().into_owned()),
                _ => continue,
            }
            if seen.contains(&name) {
                return Err(wrong("given once only"));
            }
            seen.push(name);
        }
        Ok(parsed)
    }
}

/// A whole number in digits; the largest there is if it is larger.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty();
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, Error> {
        Query::parse(query, LISTING)
    }

    #[test]
    fn parameters_are_decoded_and_unknown_ones_ignored() {
        let query = parse("with_ttl=true&limit=10&prefix=a%3Ab&after=a%3Ab+c&x=%ff&&=").unwrap();
        let expected = Query {
            with_ttl: true,
            limit: Some(10),
            prefix: "a:b".into(),
            after: Some("a:b c".into()),
            ..Query::default()
        };
        assert_eq!(query, expected);
        assert_eq!(parse("").unwrap(), Query::default());
        let query = parse("with_ttl=1&with_revision=true&keys_only=0&count_only=1&delimiter=%3A");
        let expected = Query {
            with_ttl: true,
            with_revision: true,
            count_only: true,
            delimiter: Some(":".into()),
            ..Query::default()
        };
        assert_eq!(query.unwrap(), expected);
        let huge = parse("limit=99999999999999999999999").unwrap();
        assert_eq!(huge.limit, Some(usize::MAX));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for query in [
            "with_ttl",
            "with_ttl=",
            "with_ttl=2",
            "with_ttl=True",
            "with_revision=yes",
            "keys_only",
            "count_only=01",
            "delimiter=",
            "delimiter",
            "delimiter=:&delimiter=:",
            "limit=0",
            "limit=-1",
            "limit=1.0",
            "limit=",
            "limit=+1",
            "limit=%20",
            "limit=1&limit=1",
            "prefix=a&prefix=b",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
