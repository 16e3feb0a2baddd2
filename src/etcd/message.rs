//! Answers of the gateway, as JSON. Zeros and what is empty are left out in it.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// The state of etcd at a call.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    /// The revision of everything that etcd holds.
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
}

/// A key of etcd's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// Its name.
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    /// What it has.
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
    /// When it was last changed.
    #[serde(deserialize_with = "number")]
    pub mod_revision: i64,
    /// How often it was put since it is there.
    #[serde(deserialize_with = "number")]
    pub version: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Response>,
}

/// What came of one step of a transaction.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) response_range: Option<Range>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Lease {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
    /// Seconds.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

/// One message of a stream.
#[derive(Deserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: T,
}

#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Members {
    pub(super) members: Vec<IgnoredAny>,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MemberStatus {
    /// etcd's version.
    pub version: String,
    /// Bytes of its database.
    #[serde(rename = "dbSize", deserialize_with = "number")]
    pub db_size: i64,
}

/// A line of a watch.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: i64,
    pub(super) events: Vec<Change>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Change {
    /// Left out for a put.
    pub(super) r#type: String,
    pub(super) kv: KeyValue,
}

pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The first key behind all that begin with a prefix.
pub(super) fn end_of_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text has no byte 255.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A number may stand as a string or as itself.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Signed(i64),
    Unsigned(u64),
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    match Number::deserialize(from)? {
        Number::Text(text) => text.parse().map_err(D::Error::custom),
        Number::Signed(number) => Ok(number),
        Number::Unsigned(number) => number.try_into().map_err(D::Error::custom),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
    BASE64_STANDARD
        .decode(text.as_bytes())
        .map_err(D::Error::custom)
}
