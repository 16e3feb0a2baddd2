//! Reads of one key and of several.

use std::collections::{BTreeMap, HashSet};

use super::answer::{self, With};
use super::error::Error;
use super::query::Query;
use super::shape::BulkGet;
use super::{body, no_such, writes};
use crate::api::Api;
use crate::api::conditions::{self, Conditions, Verdict};
use crate::server::Response;
use crate::store::{Key, Store};

/// `GET /api/v1/kv/{key}`
pub(super) fn get(
    store: &Store,
    key: Key,
    query: &Query,
    conditions: &Conditions,
) -> Result<Response, Error> {
    let keys = [key];
    let (entry, state) = if query.with_revision {
        let (mut entries, state) = store.get_all(&keys);
        (entries.pop().flatten(), Some(state))
    } else {
        (store.get(&keys[0]), None)
    };
    let [key] = keys;
    let entry = entry.ok_or_else(|| no_such(&key))?;
    let revision = entry.revision();
    let with = With {
        ttl: query.with_ttl,
        revision: query.with_revision,
    };
    Ok(match conditions.judge(&entry) {
        Verdict::Failed => writes::unmet(&key, Some(revision), conditions.weakened),
        // The time to live runs on while the revision stays.
        Verdict::NotModified if !query.with_ttl => conditions::not_modified(revision),
        _ => answer::value(entry, with, state).with_header("ETag", conditions::tag(revision)),
    })
}

/// `GET /api/v1/kv/{key}/ttl`
pub(super) fn ttl(store: &Store, key: &Key) -> Result<Response, Error> {
    let entry = store.get(key).ok_or_else(|| no_such(key))?;
    // Its last moment may have come since.
    let ttl = entry.expiry.map(|expiry| expiry.seconds_left().max(1));
    Ok(answer::data(&BTreeMap::from([("ttl", ttl)]), None))
}

/// `POST /api/v1/kv/bulk/get`
pub(super) fn bulk_get(api: &Api, body: &[u8]) -> Result<Response, Error> {
    let body: BulkGet<'_> = body::parse(body)?;
    let keys = bulk_keys(api, body.keys)?;
    let (entries, state) = api.store.get_all(&keys);
    let with = With {
        ttl: body.with_ttl.unwrap_or(false),
        revision: body.with_revision.unwrap_or(false),
    };
    let state = with.revision.then_some(state);
    Ok(answer::entries(keys, entries, with, state))
}

/// Checks a list of keys, and returns each key once.
pub(super) fn bulk_keys(api: &Api, keys: body::Items<body::Text<'_>>) -> Result<Vec<Key>, Error> {
    const KEYS: &str = "keys";
    let texts = body::batch(KEYS, keys, api.limits.batch)?;
    let mut keys = Vec::with_capacity(texts.len());
    let mut seen = HashSet::with_capacity(texts.len());
    for (n, body::Text(text)) in texts.iter().enumerate() {
        let key = body::key(text, || format!("{KEYS}[{n}]"))?;
        if seen.insert(&**text) {
            keys.push(key);
        }
    }
    Ok(keys)
}
