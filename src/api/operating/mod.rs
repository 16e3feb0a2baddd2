//! What those ask for who operate the server: whether it lives, whether it is ready, its metrics, and a page to look at it. The first three
//! are plain text.

mod metrics;
mod process;

use std::sync::Arc;

use super::{Api, RETRY_AFTER, page, plain};
use crate::server::{Admission, Body, Head, Response};
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
    /// `GET /`
    Page,
}

/// Decides how a request of this kind is answered.
pub(super) fn admit(api: &Arc<Api>, endpoint: Endpoint, head: Head<'_>) -> Admission {
    let api = Arc::clone(api);
    let has_page = endpoint == Endpoint::Page && page::is_known(head);
    Admission::new(api.limits.value_bytes, move |call| {
        call.answer(match endpoint {
            // A worker got here, which is all that there is to tell.
            Endpoint::Live => plain::line(200, "ok"),
            Endpoint::Ready => ready(&api),
            Endpoint::Metrics => {
                Response::new(200, METRICS, Body::Owned(metrics::of(&api).into_bytes()))
            }
            Endpoint::Page => page::answer(has_page),
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
