//! What those ask for who operate the server: whether it lives, whether it is ready, and its metrics. Answers are plain text.

mod metrics;
mod process;

use std::sync::Arc;

use super::{Api, RETRY_AFTER, plain};
use crate::server::{Admission, Body, Response};
use crate::store::Store;

/// The type of the text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The endpoints of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `GET /livez`
    Live,
    /// `GET /readyz`
    Ready,
    /// `GET /metrics`
    Metrics,
}

/// Decides how a request of this kind is answered.
pub(super) fn admit(api: &Arc<Api>, endpoint: Endpoint) -> Admission {
    let api = Arc::clone(api);
    Admission::new(api.limits.value_bytes, move |call| {
        call.answer(match endpoint {
            // A worker got here, which is all that there is to tell.
            Endpoint::Live => plain::line(200, "ok"),
            Endpoint::Ready => ready(&api),
            Endpoint::Metrics => {
                Response::new(200, METRICS, Body::Owned(metrics::of(&api).into_bytes()))
            }
        });
    })
}

/// 503 while no client should be sent here. A store that is full is ready: it answers reads, and takes what makes room.
fn ready(api: &Api) -> Response {
    match api.unready() {
        None => plain::line(200, "ok"),
        Some(why) => plain::line(503, &why).with_header("Retry-After", RETRY_AFTER),
    }
}

/// Whether the store takes writes.
fn is_writable(store: &Store) -> bool {
    use crate::store::Problem::NoSnapshots;
    matches!(store.problem(), None | Some(NoSnapshots))
}
