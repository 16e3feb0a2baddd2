//! Joins the server to the store: requests become commands, outcomes become responses.
//!
//! The order of checks is path, method, key, query, body, so a refused request costs little: its body is not looked at.

mod json;
mod plain;
mod route;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use percent_encoding::percent_decode_str;

use crate::server::{Admission, Fault, Head, Monitor, Response, Service};
use crate::store::{Key, KeyError, Store};

use route::Endpoint;

/// When a client may try again where the store cannot be written to, in seconds: the time for a restart.
const RETRY_AFTER: &str = "5";

/// Both HTTP APIs over a store.
pub struct Api {
    store: Arc<Store>,
    limits: Limits,
    about: About,
}

/// What requests may ask for at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a value.
    pub value_bytes: u64,
    /// Items of a bulk request.
    pub batch: usize,
}

/// What the server tells about itself.
pub struct About {
    /// What an answered write means: a durability, or that there is none.
    pub durability: String,
    /// How many workers answer requests.
    pub workers: usize,
    /// When it was started.
    pub started: Instant,
    /// What it counts.
    pub monitor: Arc<Monitor>,
}

impl Api {
    /// Serves `store`, within `limits`.
    pub fn new(store: Arc<Store>, limits: Limits, about: About) -> Arc<Api> {
        Arc::new(Api {
            store,
            limits,
            about,
        })
    }
}

impl Service for Arc<Api> {
    fn admit(&self, head: Head<'_>) -> Result<Admission, Response> {
        match route::find(head.method(), head.path()) {
            Ok((Endpoint::Plain(endpoint), key)) => plain::admit(self, endpoint, key),
            Ok((Endpoint::Json(endpoint), key)) => json::admit(self, endpoint, key, head.query()),
            Err(miss) if route::is_json(head.path()) => Err(json::miss(miss)),
            Err(miss) => Err(plain::miss(miss)),
        }
    }

    fn refuse(&self, head: Head<'_>, fault: Fault) -> Response {
        if route::is_json(head.path()) {
            json::refuse(fault)
        } else {
            plain::refuse(fault)
        }
    }
}

fn parse_key(in_path: &str) -> Result<Key, KeyError> {
    let bytes: Cow<'_, [u8]> = percent_decode_str(in_path).into();
    Key::try_from(&*bytes)
}
