//! `GET /api/v1/watch`: changes as they happen.

use std::sync::Arc;

use super::error::{Code, Error};
use super::query::{self, Query};
use crate::api::Api;
use crate::api::limiter::Client;
use crate::api::refusals::Refusal;
use crate::api::watching::{Refused, Start, Want};
use crate::server::{Body, Head, Response};
use crate::store::{Interest, Key, Past, Revision};

/// Where browsers say how far they have come (WHATWG HTML, 9.2.4).
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What a client asks for.
pub(super) struct Request {
    want: Want,
    initial: bool,
    since: Option<Revision>,
    /// The hash of its token.
    token: Option<[u8; 32]>,
}

/// Reads it from a request.
pub(super) fn request(api: &Api, head: Head<'_>, query: Query) -> Result<Request, Error> {
    let interest = match query.key {
        None => Interest::Prefix(query.prefix),
        Some(_) if !query.prefix.is_empty() => {
            let message = "Give a key or a prefix, not both";
            return Err(Error::new(Code::ValidationError, message).detail("parameter", "key"));
        }
        Some(key) => {
            let key = Key::try_from(key.as_bytes());
            let key = key.map_err(|error| Error::invalid_key(error, Some("key")))?;
            Interest::Key(key)
        }
    };
    let last = head.header(LAST_EVENT_ID).filter(|it| !it.is_empty());
    let last = last.map(|id| {
        let message = format!("{LAST_EVENT_ID} must be a revision");
        let error = || Error::new(Code::ValidationError, message).detail("header", LAST_EVENT_ID);
        query::number(id).ok_or_else(error)
    });
    let identity = api.auth.as_ref().and_then(|auth| auth.identify(head));
    Ok(Request {
        want: Want {
            interest,
            values: query.values.unwrap_or(true),
        },
        initial: query.initial,
        since: last.transpose()?.or(query.since),
        token: identity.and_then(|identity| match identity.client {
            Client::Token(hash) => Some(hash),
            _ => None,
        }),
    })
}

/// Begins to watch.
pub(super) fn watch(api: &Arc<Api>, request: Request) -> Result<Response, Error> {
    let Request {
        want,
        initial,
        since,
        token,
    } = request;
    let past = api.store.past();
    let start = match since {
        None if initial => Start::Copy { reset: false },
        None => Start::Now,
        Some(since) if initial && !api.store.remembers(since) => Start::Copy { reset: true },
        Some(since) if since > past.latest && since >= past.lost_below => {
            let message = "This revision is larger than all that there have been";
            let error = Error::new(Code::ValidationError, message).detail("since", since);
            return Err(error.detail("revision", past.latest));
        }
        Some(since) => Start::Since(since),
    };
    let mut entered = api.hub.enter(want.clone(), start, token);
    if initial && matches!(entered, Err(Refused::Gone)) {
        // It was forgotten just now.
        entered = api.hub.enter(want, Start::Copy { reset: true }, token);
    }
    let subscription = entered.map_err(|refused| match refused {
        Refused::Gone => gone(api.store.past()),
        Refused::TooMany(most) => {
            api.refusals.count(Refusal::TooManyWatchers);
            let message = format!("There are {most} watchers, and no more are let in");
            Error::new(Code::ClusterUnavailable, message).detail("limit", most)
        }
        Refused::NoMemory => {
            let message = "There is no memory for a copy of so many keys now";
            Error::new(Code::ClusterUnavailable, message)
        }
    })?;
    let response = Response::new(200, "text/event-stream", Body::Endless(subscription));
    Ok(response
        .with_header("Cache-Control", "no-store")
        // nginx would hold events back until it has some kilobytes.
        .with_header("X-Accel-Buffering", "no"))
}

fn gone(past: Past) -> Error {
    let message = "The changes behind this revision are not known any more";
    Error::new(Code::HistoryGone, message)
        .detail("oldest", past.oldest)
        .detail("revision", past.latest)
}
