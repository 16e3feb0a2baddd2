//! How current a read must be, where the server is a node of a cluster.
//!
//! As a rule a read sees every write that was answered before it, by any node: it waits until this node has them all. With
//! `consistency=local`, or the header `X-Threadkv-Consistency: local`, it reads what this node has, and the answer says how old that may be.

use std::sync::Arc;
use std::time::Duration;

use super::route::Endpoint;
use super::{Api, json, plain};
use crate::server::{Admission, Head, Response};
use crate::store::{NotCurrent, Store};

/// What reads say about how old they may be: milliseconds.
pub(super) const AGE: &str = "X-Threadkv-Age";

const HEADER: &str = "X-Threadkv-Consistency";
const PARAMETER: &str = "consistency";

impl Endpoint {
    /// Whether requests to it read keys.
    fn reads_keys(self) -> bool {
        use json::Endpoint as J;
        match self {
            Endpoint::Plain(endpoint) => endpoint == plain::Endpoint::Get,
            Endpoint::Json(endpoint) => matches!(
                endpoint,
                J::Get | J::Ttl | J::List | J::BulkGet | J::Export | J::Watch
            ),
            Endpoint::Operating(_) => false,
        }
    }

    fn refusal(self, error: &NotCurrent) -> Response {
        match self {
            Endpoint::Json(_) => json::unavailable(&error.to_string()),
            Endpoint::Plain(_) | Endpoint::Operating(_) => plain::unavailable(&error.to_string()),
        }
    }
}

/// Lets a read wait until this node is current, unless it need not be.
pub(super) fn see_to(
    api: &Api,
    endpoint: Endpoint,
    head: Head<'_>,
    admission: Admission,
) -> Result<Admission, Response> {
    let clustered = api.store.is_in_cluster();
    if !endpoint.reads_keys() || !clustered && head.query().is_empty() {
        return Ok(admission);
    }
    let store = Arc::clone(&api.store);
    Ok(match local(head) {
        // One node alone is always current.
        Ok(_) if !clustered => admission,
        Ok(false) => admission.after(move |go_on| {
            store.catch_up(move |result| {
                go_on(result.map_err(|error| endpoint.refusal(&error)));
            });
        }),
        Ok(true) => {
            let age = age(&store).ok_or_else(|| endpoint.refusal(&NotCurrent))?;
            admission.with_headers(vec![(AGE, age.as_millis().to_string().into())])
        }
        Err(value) => {
            let message = format!("{PARAMETER} must be linearizable or local");
            return Err(match endpoint {
                Endpoint::Json(_) => json::wrong_parameter(PARAMETER, &value, &message),
                Endpoint::Plain(_) | Endpoint::Operating(_) => plain::line(400, &message),
            });
        }
    })
}

/// For how long at most this node may be without what others have committed, rounded up.
fn age(store: &Store) -> Option<Duration> {
    store.age().map(|age| age + Duration::from_millis(1))
}

/// Whether a request wants what is here, or the value that is none.
fn local(head: Head<'_>) -> Result<bool, String> {
    let parameters = form_urlencoded::parse(head.query().as_bytes());
    let parameters = parameters.filter(|(name, _)| name == PARAMETER);
    let value = match parameters.last() {
        Some((_, value)) => value.into_owned(),
        None => match head.header(HEADER) {
            Some(value) => value.to_owned(),
            None => return Ok(false),
        },
    };
    match &*value {
        "local" => Ok(true),
        "linearizable" => Ok(false),
        _ => Err(value),
    }
}
