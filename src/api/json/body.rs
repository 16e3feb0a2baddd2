//! Bodies of requests: JSON in, keys and values out, or an error that says what is wrong and where.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{Code, Error};
use super::mistake;
use super::shape::Shape;
use crate::nesting::{MAX_DEPTH, depth};
use crate::store::{Expiry, Key, Kind, MAX_OPERATIONS, Revision};

/// The largest `ttl`: a hundred years, in seconds.
const MAX_TTL: u64 = 100 * 365 * 24 * 60 * 60;

/// Revisions are smaller than 2^53, so that every JSON parser keeps them as they are.
const MAX_REVISION: Revision = (1 << 53) - 1;

/// A string. It is copied only if it has escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The items of a list. At most [`MAX_OPERATIONS`] are kept; the rest are only counted.
pub(super) struct Items<T> {
    pub(super) kept: Vec<T>,
    pub(super) length: usize,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
            type Value = Items<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<T>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_OPERATIONS {
                    let Some(item) = list.next_element()? else {
                        let length = kept.len();
                        return Ok(Items { kept, length });
                    };
                    kept.push(item);
                }
                let mut length = kept.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(Items { kept, length })
            }
        }
        deserializer.deserialize_seq(ItemsVisitor(PhantomData))
    }
}

/// A `T` that must be a JSON object. serde alone would also take a list of its fields.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// Reads a body. The error says what is wrong with it.
pub(super) fn parse<'a, T: Deserialize<'a> + Shape>(body: &'a [u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Error::new(Code::InvalidRequest, "The body must be UTF-8"))?;
    let Object(parsed) =
        serde_json::from_str(text).map_err(|error| mistake::explain(text, T::FIELDS, &error))?;
    Ok(parsed)
}

/// Checks the number of items of a bulk request, and returns them.
pub(super) fn batch<T>(field: &str, items: Items<T>, most: usize) -> Result<Vec<T>, Error> {
    let length = items.length;
    if length == 0 {
        let message = format!("{field} must hold at least one item");
        return Err(Error::new(Code::ValidationError, message).detail("field", field));
    }
    if length > most {
        let message = format!("{field} must not hold more than {most} items, this has {length}");
        return Err(Error::new(Code::BatchTooLarge, message)
            .detail("field", field)
            .detail("limit", most)
            .detail("length", length));
    }
    Ok(items.kept)
}

/// Checks a key in a field. `field` makes the field's name, for the error.
pub(super) fn key(text: &str, field: impl Fn() -> String) -> Result<Key, Error> {
    Key::try_from(text.as_bytes()).map_err(|error| Error::invalid_key(error, Some(&field())))
}

/// Checks a value in a field. A string becomes a text; any other JSON stays exactly as it was sent.
pub(super) fn value<'a>(
    raw: &'a RawValue,
    limit: u64,
    field: impl Fn() -> String,
) -> Result<(Kind, Cow<'a, str>), Error> {
    let raw = raw.get();
    let value = if raw.starts_with('"') {
        let Text(text) = serde_json::from_str(raw).map_err(|_| {
            // serde has checked the rest of its syntax.
            let message = format!(
                "{} is not a valid string: it has an escape that stands for no character",
                field()
            );
            Error::new(Code::InvalidRequest, message).detail("field", field())
        })?;
        check_length(text.len(), limit, &field)?;
        (Kind::Text, text)
    } else {
        check_length(raw.len(), limit, &field)?;
        if depth(raw) > MAX_DEPTH {
            let message = format!(
                "{} must not be nested deeper than {MAX_DEPTH} levels",
                field()
            );
            return Err(Error::new(Code::ValidationError, message)
                .detail("field", field())
                .detail("limit", MAX_DEPTH));
        }
        (Kind::Json, Cow::Borrowed(raw))
    };
    Ok(value)
}

fn check_length(bytes: usize, limit: u64, field: impl Fn() -> String) -> Result<(), Error> {
    if bytes as u64 <= limit {
        return Ok(());
    }
    let message = format!(
        "{} must not have more than {limit} bytes, this has {bytes}",
        field()
    );
    Err(Error::new(Code::PayloadTooLarge, message)
        .detail("field", field())
        .detail("limit", limit)
        .detail("length", bytes))
}

/// Checks a `ttl`, and returns the time of expiry, counted from `now`; `None` for `null`, which stands for never.
pub(super) fn expiry(
    ttl: &RawValue,
    now: Expiry,
    field: impl Fn() -> String,
) -> Result<Option<Expiry>, Error> {
    if ttl.get() == "null" {
        return Ok(None);
    }
    let seconds = whole(
        ttl,
        1,
        MAX_TTL,
        "a whole number of seconds",
        "seconds",
        field,
    )?;
    Ok(Some(now.plus(Duration::from_secs(seconds))))
}

/// Checks an `if_revision`; 0 stands for a key that is not there, `None` for `null`, which stands for no condition.
pub(super) fn if_revision(
    revision: &RawValue,
    field: impl Fn() -> String,
) -> Result<Option<Revision>, Error> {
    if revision.get() == "null" {
        return Ok(None);
    }
    let what = "a whole number, the revision that the key must have, or 0 if it must not be there";
    whole(revision, 0, MAX_REVISION, what, "", field).map(Some)
}

/// Checks a whole number. `what` describes it, `unit` follows its limits.
fn whole(
    raw: &RawValue,
    least: u64,
    most: u64,
    what: &str,
    unit: &str,
    field: impl Fn() -> String,
) -> Result<u64, Error> {
    let text = raw.get();
    let wrong = |code, what: &str| {
        let message = format!("{} must be {what}", field());
        Error::new(code, message).detail("field", field())
    };
    // In JSON, 60, 60.0 and 6e1 are the same number. f64 is exact for all numbers up to the limits.
    let number = text.parse::<f64>().ok().filter(|_| !text.starts_with('"'));
    let number = number.filter(|number| number.fract() == 0.0 || number.is_infinite());
    let Some(number) = number else {
        return Err(wrong(Code::InvalidRequest, what));
    };
    if !(least as f64..=most as f64).contains(&number) {
        let what = format!("from {least} to {most} {unit}");
        let number: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        return Err(wrong(Code::ValidationError, what.trim_end())
            .detail("limit", most)
            .detail("value", number));
    }
    Ok(number as u64)
}

#[cfg(test)]
mod tests {
    use super::super::shape::{BulkOperation, Operations, Put};
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_value_is_nested_only_so_deep() {
        let nested = |levels| raw(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        assert!(value(&nested(MAX_DEPTH), 1000, String::new).is_ok());
        assert!(value(&nested(MAX_DEPTH + 1), 1000, String::new).is_err());
    }

    #[test]
    fn a_ttl_is_a_whole_number_within_its_limits() {
        let now = Expiry::at_millis(1_000);
        for (json, seconds) in [
            ("1", 1),
            ("3600", 3600),
            ("3600.0", 3600),
            ("6e1", 60),
            ("3153600000", MAX_TTL),
        ] {
            let expiry = expiry(&raw(json), now, String::new).unwrap();
            assert_eq!(expiry.unwrap().millis(), 1_000 + seconds * 1_000, "{json}");
        }
        assert_eq!(expiry(&raw("null"), now, String::new), Ok(None));
        for (json, code) in [
            ("0", "VALIDATION_ERROR"),
            ("-1", "VALIDATION_ERROR"),
            ("3153600001", "VALIDATION_ERROR"),
            ("99999999999999999999999", "VALIDATION_ERROR"),
            ("1e999", "VALIDATION_ERROR"),
            ("1.5", "INVALID_REQUEST"),
            ("\"60\"", "INVALID_REQUEST"),
            ("true", "INVALID_REQUEST"),
            ("[60]", "INVALID_REQUEST"),
        ] {
            let error = format!(
                "{:?}",
                expiry(&raw(json), now, || "ttl".into()).unwrap_err()
            );
            let expected = if code == "VALIDATION_ERROR" {
                "ValidationError"
            } else {
                "InvalidRequest"
            };
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn an_if_revision_is_a_whole_number_below_2_to_the_53() {
        let of = |json| if_revision(&raw(json), || "if_revision".into());
        for (json, revision) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("9007199254740991", Some(MAX_REVISION)),
            ("null", None),
        ] {
            assert_eq!(of(json), Ok(revision), "{json}");
        }
        for json in [
            "-1",
            "9007199254740992",
            "1e300",
            "1.5",
            "\"7\"",
            "[]",
            "true",
        ] {
            assert!(of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_body_is_an_object_and_so_are_its_items() {
        assert!(parse::<Put<'_>>(br#"{"value": 1, "ttl": 5}"#).is_ok());
        assert!(parse::<Put<'_>>(br#"[1, 5]"#).is_err());
        for (item, fine) in [
            (r#"{"key": "a", "value": null}"#, true),
            (r#"{"op": "put", "key": "a", "value": 1}"#, true),
            (r#"{"op": null, "key": "a", "value": 1}"#, true),
            (r#"{"op": "touch", "key": "a", "ttl": null}"#, true),
            (r#"{"op": "delete", "key": "a"}"#, true),
            (r#"["a", 1, 5]"#, false),
            (r#"{"op": "put", "key": "a"}"#, false),
            (r#"{"op": "touch", "key": "a"}"#, false),
            (r#"{"op": "check", "key": "a"}"#, false),
            (r#"{"op": 1, "key": "a", "value": 1}"#, false),
        ] {
            let body = format!(r#"{{"operations": [{item}]}}"#);
            let parsed = parse::<Operations<BulkOperation<'_>>>(body.as_bytes());
            assert_eq!(parsed.is_ok(), fine, "{item}");
        }
    }
}
