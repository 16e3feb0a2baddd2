//! Joins the server to the store: requests become commands, outcomes become responses.
//!
//! The order of checks is path, method, token, rights, key, query, body, so a refused request costs little: its body is
//! not looked at.

mod auth;
mod json;
mod plain;
mod route;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use percent_encoding::percent_decode_str;

use crate::server::{Admission, Fault, Head, Monitor, Response, Service};
use crate::store::{Key, KeyError, Store};

pub use auth::Auth;

use auth::Access;
use route::Endpoint;

/// When a client may try again where the store cannot be written to, in seconds: the time for a restart.
const RETRY_AFTER: &str = "5";

/// Both HTTP APIs over a store.
pub struct Api {
    store: Arc<Store>,
    limits: Limits,
    /// Without it, everybody is let in.
    auth: Option<Arc<Auth>>,
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
    /// Serves `store`, within `limits`, to those whom `auth` lets in, or to everybody.
    pub fn new(
        store: Arc<Store>,
        limits: Limits,
        auth: Option<Arc<Auth>>,
        about: About,
    ) -> Arc<Api> {
        Arc::new(Api {
            store,
            limits,
            auth,
            about,
        })
    }
}

impl Service for Arc<Api> {
    fn admit(&self, head: Head<'_>) -> Result<Admission, Response> {
        let (endpoint, key) = route::find(head.method(), head.path()).map_err(|miss| {
            if route::is_json(head.path()) {
                json::miss(miss)
            } else {
                plain::miss(miss)
            }
        })?;
        if let Some(auth) = &self.auth {
            auth.check(head, endpoint.access())
                .map_err(|denied| match endpoint {
                    Endpoint::Plain(_) => plain::deny(denied),
                    Endpoint::Json(_) => json::deny(denied),
                })?;
        }
        match endpoint {
            Endpoint::Plain(endpoint) => plain::admit(self, endpoint, key),
            Endpoint::Json(endpoint) => json::admit(self, endpoint, key, head.query()),
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

impl Endpoint {
    /// What a request to it needs, where there are tokens.
    fn access(self) -> Access {
        use json::Endpoint as J;
        use plain::Endpoint as P;
        match self {
            Endpoint::Json(J::Health | J::OpenApi) => Access::Open,
            Endpoint::Plain(P::Get)
            | Endpoint::Json(J::Get | J::Ttl | J::List | J::BulkGet | J::Status) => Access::Read,
            Endpoint::Plain(P::Put | P::Delete | P::Clear)
            | Endpoint::Json(
                J::Put | J::Delete | J::Touch | J::BulkPut | J::BulkDelete | J::BulkTouch,
            ) => Access::Write,
        }
    }
}

fn parse_key(in_path: &str) -> Result<Key, KeyError> {
    let bytes: Cow<'_, [u8]> = percent_decode_str(in_path).into();
    Key::try_from(&*bytes)
}
