//! Query parameters.

use super::error::{Code, Error};

/// The query parameters. An endpoint ignores parameters that it does not have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Whether to add `ttl` to entries that expire.
    pub(super) with_ttl: bool,
    /// List at most this many keys.
    pub(super) limit: Option<usize>,
    /// List only keys with this prefix.
    pub(super) prefix: String,
    /// List only keys greater than this text.
    pub(super) after: Option<String>,
}

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
            match &*name {
                "with_ttl" => match &*value {
                    "true" => parsed.with_ttl = true,
                    "false" => parsed.with_ttl = false,
                    _ => return Err(wrong("true or false")),
                },
                "limit" => {
                    let number = value.bytes().all(|b| b.is_ascii_digit()) && !value.is_empty();
                    // A number too large for usize is no limit.
                    let limit = number.then(|| value.parse().unwrap_or(usize::MAX));
                    let limit = limit.filter(|limit| *limit > 0);
                    parsed.limit = Some(limit.ok_or_else(|| wrong("a whole number from 1 on"))?);
                }
                "prefix" => parsed.prefix = value.clone().into_owned(),
                "after" => parsed.after = Some(value.clone().into_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Query, Error> {
        Query::parse(query, &["with_ttl", "limit", "prefix", "after"])
    }

    #[test]
    fn parameters_are_decoded_and_unknown_ones_ignored() {
        let query = parse("with_ttl=true&limit=10&prefix=a%3Ab&after=a%3Ab+c&x=%ff&&=").unwrap();
        let expected = Query {
            with_ttl: true,
            limit: Some(10),
            prefix: "a:b".into(),
            after: Some("a:b c".into()),
        };
        assert_eq!(query, expected);
        assert_eq!(parse("").unwrap(), Query::default());
        let huge = parse("limit=99999999999999999999999").unwrap();
        assert_eq!(huge.limit, Some(usize::MAX));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for query in [
            "with_ttl",
            "with_ttl=",
            "with_ttl=1",
            "with_ttl=True",
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
