//! Says what is wrong with a body, in our own words: which field, and what was expected there.
//!
//! serde reads bodies, and its messages name neither the field nor, to somebody who does not write Rust, what to change. So a body that
//! serde has refused is looked at once more, with the [`Field`]s that it should have.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::body::Text;
use super::error::{Code, Error};

/// Bodies up to this length, in bytes, are looked at once more. To explain a longer one would take a worker too long.
const EXPLAINED: usize = 1 << 20;

/// A field of a body or of an item.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) needed: Needed,
    pub(super) kind: Kind,
}

/// When a field must be there.
pub(super) enum Needed {
    Always,
    Never,
    /// Where the field `op` has this value, or is not there and this is [`PUT`].
    By(&'static str),
}

/// The operation of an item that does not name one.
pub(super) const PUT: &str = "put";

/// What a field holds.
pub(super) enum Kind {
    /// Anything, as far as serde is concerned.
    Any,
    /// A string.
    Text,
    /// A string or `null`.
    Word,
    /// `true`, `false` or `null`.
    Flag,
    /// A list of strings.
    Texts,
    /// A list of objects with these fields.
    Objects(&'static [Field]),
}

impl Field {
    pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
        let needed = Needed::Always;
        Field { name, needed, kind }
    }

    pub(super) const fn optional(name: &'static str, kind: Kind) -> Field {
        let needed = Needed::Never;
        Field { name, needed, kind }
    }

    /// One that items with this operation must have.
    pub(super) const fn required_by(op: &'static str, name: &'static str, kind: Kind) -> Field {
        let needed = Needed::By(op);
        Field { name, needed, kind }
    }
}

/// What is wrong: the field, empty for the whole body, and what to say of it.
struct Mistake {
    field: String,
    what: &'static str,
}

/// The answer to a body that serde has refused.
pub(super) fn explain(body: &str, fields: &'static [Field], error: &serde_json::Error) -> Error {
    let mistake = match error.classify() {
        Category::Data if body.len() <= EXPLAINED => Mistake::in_object(body, fields, ""),
        _ => None,
    };
    let message = match (&mistake, error.classify()) {
        (Some(Mistake { field, what }), _) if field.is_empty() => format!("The body {what}"),
        (Some(Mistake { field, what }), _) => format!("{field} {what}"),
        (None, Category::Data) => "The body is not what this endpoint expects".into(),
        (None, _) if body.trim().is_empty() => "The body is empty, expected a JSON object".into(),
        (None, Category::Eof) => "The body ends in the middle of its JSON".into(),
        (None, _) => "The body is not valid JSON".into(),
    };
    let error = Error::new(Code::InvalidRequest, message)
        .detail("line", error.line().max(1))
        .detail("column", error.column().max(1)); // 0 stands for the beginning
    match mistake {
        Some(Mistake { field, .. }) if !field.is_empty() => error.detail("field", field),
        _ => error,
    }
}

impl Mistake {
    fn new(field: impl Into<String>, what: &'static str) -> Option<Mistake> {
        let field = field.into();
        Some(Mistake { field, what })
    }

    /// What is wrong with a JSON value that should be an object with these fields. `path` leads to it.
    fn in_object(json: &str, fields: &'static [Field], path: &str) -> Option<Mistake> {
        if !json.trim_start().starts_with('{') {
            return Mistake::new(path, "must be a JSON object");
        }
        let mut found: Vec<(usize, &RawValue)> = Vec::new();
        let mut twice = None;
        let each = |name: &str, value| {
            if let Some(n) = fields.iter().position(|field| field.name == name) {
                if found.iter().any(|(other, _)| *other == n) {
                    twice = twice.or(Some(n));
                } else {
                    found.push((n, value));
                }
            }
        };
        // The body is valid JSON, so this comes to its end.
        let _ = Walk { each }.deserialize(&mut serde_json::Deserializer::from_str(json));
        let place = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        if let Some(n) = twice {
            return Mistake::new(place(fields[n].name), "must be given once only");
        }
        let of = |n| found.iter().find(|(other, _)| *other == n);
        let op = fields.iter().position(|field| field.name == "op");
        let op = op.and_then(of).map(|(_, op)| op.get());
        let op = op.and_then(|op| serde_json::from_str(op).ok().flatten());
        let op = op.map_or_else(|| PUT.to_owned(), |Text(op)| op.into_owned());
        for (n, field) in fields.iter().enumerate() {
            let needed = match field.needed {
                Needed::Always => true,
                Needed::Never => false,
                Needed::By(name) => op == name,
            };
            let mistake = match of(n) {
                None if needed => Mistake::new(place(field.name), "is missing"),
                None => None,
                Some((_, value)) => Mistake::in_field(value.get(), &field.kind, place(field.name)),
            };
            if mistake.is_some() {
                return mistake;
            }
        }
        None
    }

    fn in_field(json: &str, kind: &Kind, path: String) -> Option<Mistake> {
        match kind {
            Kind::Any => None,
            Kind::Text if json.starts_with('"') => None,
            Kind::Word if json.starts_with('"') || json == "null" => None,
            Kind::Text | Kind::Word => Mistake::new(path, "must be a string"),
            Kind::Flag if ["true", "false", "null"].contains(&json) => None,
            Kind::Flag => Mistake::new(path, "must be true or false"),
            Kind::Texts if !json.starts_with('[') => {
                Mistake::new(path, "must be a list of strings")
            }
            Kind::Texts => first_in_list(json, &path, |item, path| {
                Mistake::in_field(item, &Kind::Text, path)
            }),
            Kind::Objects(_) if !json.starts_with('[') => {
                Mistake::new(path, "must be a list of objects")
            }
            Kind::Objects(fields) => first_in_list(json, &path, |item, path| {
                Mistake::in_object(item, fields, &path)
            }),
        }
    }
}

/// The first mistake in a list. `check` looks at an item, whose place it is told.
fn first_in_list(
    json: &str,
    path: &str,
    check: impl Fn(&str, String) -> Option<Mistake>,
) -> Option<Mistake> {
    let (mut first, mut n) = (None, 0);
    let each = |_: &str, item: &RawValue| {
        if first.is_none() {
            first = check(item.get(), format!("{path}[{n}]"));
        }
        n += 1;
    };
    let _ = Walk { each }.deserialize(&mut serde_json::Deserializer::from_str(json));
    first
}

/// Goes through an object or a list and calls `each` with every name, empty in a list, and its value. Keeps none of them, since there may
/// be a million.
struct Walk<F> {
    each: F,
}

impl<'de, F: FnMut(&str, &'de RawValue)> DeserializeSeed<'de> for Walk<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = object.next_key()? {
            (self.each)(&name, object.next_value()?);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element()? {
            (self.each)("", item);
        }
        Ok(())
    }
}
