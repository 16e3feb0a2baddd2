//! Conditions in the headers of a request: `If-Match` and `If-None-Match` (RFC 9110, 13.1), and the tag that they compare, `ETag`.
//!
//! The tag of an entry is its revision in quotes. Any other tag is well-formed, and no entry has it.

use std::fmt;

use crate::server::{Head, Response};
use crate::store::{Condition, Entry, Revision, Revisions};

/// The most tags that one of the headers may have.
const MAX_TAGS: usize = 64;

const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// What the headers of a request ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) condition: Condition,
    /// Whether `If-Match` has a weak tag. Such a tag never matches.
    pub(super) weakened: bool,
}

/// What the conditions of a read come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer as if there were none.
    Met,
    /// 304: the client has this entry.
    NotModified,
    /// 412.
    Failed,
}

/// A header that is no list of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadTags {
    pub(super) header: &'static str,
    what: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mistake {
    /// A number without its quotes.
    Unquoted(u64),
    /// Something that is no tag, or nothing at all.
    NoTag,
    /// More than [`MAX_TAGS`].
    TooMany,
}

impl fmt::Display for BadTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header;
        match self.what {
            Mistake::Unquoted(number) => write!(
                f,
                "{header} takes revisions in quotes, as in {header}: \"{number}\""
            ),
            Mistake::NoTag => write!(
                f,
                "{header} takes * or a list of tags in quotes, as in {header}: \"1\", \"2\""
            ),
            Mistake::TooMany => write!(f, "{header} takes {MAX_TAGS} tags at most"),
        }
    }
}

impl Conditions {
    /// Reads the headers of a request.
    pub(super) fn of(head: Head<'_>) -> Result<Conditions, BadTags> {
        let read = |header, weak_match| match Tags::read(head.headers(header), weak_match) {
            Ok(tags) => Ok(tags),
            Err(what) => Err(BadTags { header, what }),
        };
        let if_match = read(IF_MATCH, false)?;
        let if_none_match = read(IF_NONE_MATCH, true)?;
        Ok(Conditions {
            weakened: if_match.as_ref().is_some_and(|tags| tags.weak),
            condition: Condition {
                if_match: if_match.map(|tags| tags.revisions),
                if_none_match: if_none_match.map(|tags| tags.revisions),
            },
        })
    }

    /// Whether there is nothing to be met.
    pub(super) fn is_empty(&self) -> bool {
        self.condition == Condition::default()
    }

    /// What they come to where this entry is read.
    pub(super) fn judge(&self, entry: &Entry) -> Verdict {
        if self.condition.is_met(Some(entry)) {
            return Verdict::Met;
        }
        let if_match = Condition {
            if_none_match: None,
            ..self.condition.clone()
        };
        match if_match.is_met(Some(entry)) {
            true => Verdict::NotModified,
            false => Verdict::Failed,
        }
    }
}

/// The tags in all lines of one header.
struct Tags {
    revisions: Revisions,
    /// Whether one of them is weak.
    weak: bool,
}

impl Tags {
    /// Reads the lines of a header, which are one list; `None` if there are none. Weak tags count only with `weak_match`.
    fn read<'a>(
        lines: impl Iterator<Item = &'a str>,
        weak_match: bool,
    ) -> Result<Option<Tags>, Mistake> {
        let (mut given, mut any, mut tags, mut weak) = (false, false, 0, false);
        let mut revisions = Vec::new();
        for line in lines {
            given = true;
            let mut rest = line;
            loop {
                // An empty element of a list counts for nothing (RFC 9110, 5.6.1.2).
                rest = rest.trim_start_matches([' ', '\t', ',']);
                if rest.is_empty() {
                    break;
                }
                if let Some(after) = rest.strip_prefix('*') {
                    any = true;
                    rest = after;
                } else {
                    let (tag, is_weak, after) = next_tag(rest)?;
                    weak |= is_weak;
                    if !is_weak || weak_match {
                        revisions.extend(revision(tag));
                    }
                    rest = after;
                }
                tags += 1;
                let after = rest.trim_start_matches([' ', '\t']);
                if !after.is_empty() && !after.starts_with(',') {
                    return Err(Mistake::NoTag);
                }
            }
        }
        match (given, any, tags) {
            (false, ..) => Ok(None),
            (_, _, 0) => Err(Mistake::NoTag),
            (_, true, 1) => Ok(Some(Tags {
                revisions: Revisions::Any,
                weak: false,
            })),
            (_, true, _) => Err(Mistake::NoTag), // * stands alone
            (_, false, tags) if tags > MAX_TAGS => Err(Mistake::TooMany),
            _ => Ok(Some(Tags {
                revisions: Revisions::Listed(revisions),
                weak,
            })),
        }
    }
}

/// The tag that a text begins with, without its quotes; whether it is weak; and what stands behind it.
fn next_tag(text: &str) -> Result<(&str, bool, &str), Mistake> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let opened = quoted.strip_prefix('"');
    if let Some((tag, after)) = opened.and_then(|rest| rest.split_once('"'))
        && tag.bytes().all(|byte| byte > b' ' && byte != 0x7f)
    {
        return Ok((tag, weak, after));
    }
    let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
    Err(revision(&text[..end]).map_or(Mistake::NoTag, Mistake::Unquoted))
}

/// The revision that a tag stands for. Tags are compared by their bytes, so only the number as we write it is one.
fn revision(tag: &str) -> Option<Revision> {
    let digits = tag.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !tag.starts_with('0'))
        .then(|| tag.parse().ok())
        .flatten()
}

/// The tag of a revision.
pub(super) fn tag(revision: Revision) -> String {
    format!("\"{revision}\"")
}

/// The answer to whoever has the entry with this revision already.
pub(super) fn not_modified(revision: Revision) -> Response {
    Response::empty(304).with_header("ETag", tag(revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    fn of(headers: &[&str]) -> Result<Conditions, BadTags> {
        let request = headers.iter().fold(TestRequest::new(), |request, header| {
            request.with_header(header.parse::<Header>().unwrap())
        });
        Conditions::of(Head::of(&request.into()))
    }

    fn listed(revisions: &[Revision]) -> Option<Revisions> {
        Some(Revisions::Listed(revisions.to_vec()))
    }

    #[test]
    fn several_lines_are_one_list() {
        for (lines, expected) in [
            (&[][..], None),
            (&["If-Match: \"5\""], listed(&[5])),
            (&["if-match:\"5\" ,\t\"6\""], listed(&[5, 6])),
            (&["If-Match: , \"5\",, \"6\" ,"], listed(&[5, 6])),
            (&["If-Match: \"5\"", "IF-MATCH: \"6\""], listed(&[5, 6])),
            (&["If-Match: *"], Some(Revisions::Any)),
            // Tags that no entry has, commas and all.
            (
                &["If-Match: \"a,b\", \"\", \"05\", \"+5\", \"0\""],
                listed(&[]),
            ),
            (&["If-Match: \"99999999999999999999999\""], listed(&[])),
        ] {
            let conditions = of(lines).unwrap();
            assert_eq!(conditions.condition.if_match, expected, "{lines:?}");
            assert!(!conditions.weakened);
            assert_eq!(conditions.is_empty(), lines.is_empty());
        }
    }

    #[test]
    fn weak_tags_count_for_if_none_match_only() {
        let conditions =
            of(&["If-Match: W/\"5\", \"6\"", "If-None-Match: W/\"7\", \"8\""]).unwrap();
        assert_eq!(conditions.condition.if_match, listed(&[6]));
        assert_eq!(conditions.condition.if_none_match, listed(&[7, 8]));
        assert!(conditions.weakened);
        assert!(!of(&["If-None-Match: W/\"5\""]).unwrap().weakened);
    }

    #[test]
    fn what_is_no_tag_is_a_mistake() {
        for value in [
            "",
            ",",
            "a",
            "'5'",
            "\"5",
            "5\"",
            "\"5\" \"6\"",
            "\"5\"6",
            "\"5\";",
            "w/\"5\"",
            "W/5",
            "W/",
            "W /\"5\"",
            "*, \"5\"",
            "\"5\", *",
            "*, *",
            "**",
            "\"a b\"",
            "-5",
            "5.0",
            "05",
        ] {
            let mistake = of(&[&format!("If-None-Match: {value}")]).unwrap_err();
            assert_eq!(mistake.header, "If-None-Match");
            assert_eq!(mistake.what, Mistake::NoTag, "{value}");
        }
        for value in ["5", "5, 6", "\"4\", 5", "5 \"6\""] {
            let mistake = of(&[&format!("If-Match: {value}")]).unwrap_err();
            assert!(
                mistake.to_string().ends_with("If-Match: \"5\""),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_list_has_64_tags_at_most() {
        let tags = |count| vec!["\"5\""; count].join(",");
        assert!(of(&[&format!("If-Match: {}", tags(64))]).is_ok());
        for lines in [&[tags(65)][..], &[tags(64), tags(1)]] {
            let lines: Vec<String> = lines.iter().map(|it| format!("If-Match: {it}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(of(&lines).unwrap_err().what, Mistake::TooMany);
        }
    }

    #[test]
    fn if_match_comes_before_if_none_match() {
        let entry = Entry::of("k", "v").at(5);
        for (headers, verdict) in [
            (&[][..], Verdict::Met),
            (&["If-Match: *"], Verdict::Met),
            (&["If-Match: \"4\", \"5\""], Verdict::Met),
            (&["If-Match: \"4\""], Verdict::Failed),
            (&["If-Match: W/\"5\""], Verdict::Failed),
            (&["If-None-Match: \"4\""], Verdict::Met),
            (&["If-None-Match: \"4\", W/\"5\""], Verdict::NotModified),
            (&["If-None-Match: *"], Verdict::NotModified),
            (&["If-Match: \"4\"", "If-None-Match: *"], Verdict::Failed),
            (
                &["If-None-Match: \"5\"", "If-Match: *"],
                Verdict::NotModified,
            ),
        ] {
            assert_eq!(of(headers).unwrap().judge(&entry), verdict, "{headers:?}");
        }
    }
}
