//! What the bodies of requests look like.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;

use super::body::{Items, Object, Text};
use super::mistake::{Field, Kind as Holds, PUT};

/// A body, or an item of one, that serde reads.
pub(super) trait Shape {
    /// Its fields once more. They serve to say what is wrong with a body that serde refuses.
    const FIELDS: &'static [Field];
}

/// Body of `PUT /api/v1/kv/{key}`.
#[derive(Deserialize)]
pub(super) struct Put<'a> {
    #[serde(borrow)]
    pub(super) value: &'a RawValue,
    #[serde(borrow)]
    pub(super) ttl: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) if_revision: Option<&'a RawValue>,
}

impl Shape for Put<'_> {
    const FIELDS: &'static [Field] = &[
        Field::required("value", Holds::Any),
        Field::optional("ttl", Holds::Any),
        Field::optional("if_revision", Holds::Any),
    ];
}

/// Body of `POST /api/v1/kv/{key}/touch`.
#[derive(Deserialize)]
pub(super) struct Touch<'a> {
    /// `null` stands for never.
    #[serde(borrow)]
    pub(super) ttl: &'a RawValue,
    #[serde(borrow)]
    pub(super) if_revision: Option<&'a RawValue>,
    pub(super) with_revision: Option<bool>,
}

impl Shape for Touch<'_> {
    const FIELDS: &'static [Field] = &[
        Field::required("ttl", Holds::Any),
        Field::optional("if_revision", Holds::Any),
        Field::optional("with_revision", Holds::Flag),
    ];
}

/// Body of `POST /api/v1/kv/bulk` and `/bulk/touch`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct Operations<T> {
    pub(super) operations: Items<Object<T>>,
    pub(super) with_revision: Option<bool>,
}

impl<T: Shape> Shape for Operations<T> {
    const FIELDS: &'static [Field] = &[
        Field::required("operations", Holds::Objects(T::FIELDS)),
        Field::optional("with_revision", Holds::Flag),
    ];
}

/// Item of `POST /api/v1/kv/bulk`. Which of the fields are there depends on `op`.
pub(super) struct BulkOperation<'a> {
    /// `None` stands for [`PUT`].
    pub(super) op: Option<Cow<'a, str>>,
    pub(super) key: Cow<'a, str>,
    pub(super) value: Option<&'a RawValue>,
    /// `null` where that was sent.
    pub(super) ttl: Option<&'a RawValue>,
    /// `null` where that was sent.
    pub(super) if_revision: Option<&'a RawValue>,
}

/// The names of the operations.
pub(super) const DELETE: &str = "delete";
pub(super) const TOUCH: &str = "touch";
pub(super) const CHECK: &str = "check";

impl Shape for BulkOperation<'_> {
    const FIELDS: &'static [Field] = &[
        Field::optional("op", Holds::Word),
        Field::required("key", Holds::Text),
        Field::required_by(PUT, "value", Holds::Any),
        Field::required_by(TOUCH, "ttl", Holds::Any),
        Field::required_by(CHECK, "if_revision", Holds::Any),
    ];
}

impl<'de: 'a, 'a> Deserialize<'de> for BulkOperation<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, default)]
            op: Option<Text<'a>>,
            #[serde(borrow)]
            key: Cow<'a, str>,
            #[serde(borrow, default, deserialize_with = "even_null")]
            value: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "even_null")]
            ttl: Option<&'a RawValue>,
            #[serde(borrow, default, deserialize_with = "even_null")]
            if_revision: Option<&'a RawValue>,
        }
        let fields = Fields::deserialize(deserializer)?;
        let op = fields.op.map(|Text(op)| op);
        // A missing field is refused here, since there the place in the body is known.
        let missing = match op.as_deref().unwrap_or(PUT) {
            PUT if fields.value.is_none() => Some("value"),
            TOUCH if fields.ttl.is_none() => Some("ttl"),
            CHECK if fields.if_revision.is_none() => Some("if_revision"),
            _ => None,
        };
        match missing {
            Some(field) => Err(D::Error::missing_field(field)),
            None => Ok(BulkOperation {
                op,
                key: fields.key,
                value: fields.value,
                ttl: fields.ttl,
                if_revision: fields.if_revision,
            }),
        }
    }
}

/// Reads a field that is there. `Option` alone would take `null` for a field that is not.
fn even_null<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

/// Item of `POST /api/v1/kv/bulk/touch`.
#[derive(Deserialize)]
pub(super) struct BulkTouch<'a> {
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    /// `null` stands for never.
    #[serde(borrow)]
    pub(super) ttl: &'a RawValue,
    #[serde(borrow)]
    pub(super) if_revision: Option<&'a RawValue>,
}

impl Shape for BulkTouch<'_> {
    const FIELDS: &'static [Field] = &[
        Field::required("key", Holds::Text),
        Field::required("ttl", Holds::Any),
        Field::optional("if_revision", Holds::Any),
    ];
}

/// Body of `POST /api/v1/kv/bulk/get`.
#[derive(Deserialize)]
pub(super) struct BulkGet<'a> {
    #[serde(borrow)]
    pub(super) keys: Items<Text<'a>>,
    pub(super) with_ttl: Option<bool>,
    pub(super) with_revision: Option<bool>,
}

impl Shape for BulkGet<'_> {
    const FIELDS: &'static [Field] = &[
        Field::required("keys", Holds::Texts),
        Field::optional("with_ttl", Holds::Flag),
        Field::optional("with_revision", Holds::Flag),
    ];
}

/// Body of `POST /api/v1/kv/bulk/delete`.
#[derive(Deserialize)]
pub(super) struct BulkDelete<'a> {
    #[serde(borrow)]
    pub(super) keys: Items<Text<'a>>,
    pub(super) with_revision: Option<bool>,
}

impl Shape for BulkDelete<'_> {
    const FIELDS: &'static [Field] = &[
        Field::required("keys", Holds::Texts),
        Field::optional("with_revision", Holds::Flag),
    ];
}
