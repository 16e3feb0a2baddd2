//! The plain-text API that `lsfr` tests: `/kv/{key}` and `/clear`.

use std::sync::Arc;

use super::auth::Denied;
use super::route::Miss;
use super::{Api, RETRY_AFTER};
use crate::server::{Admission, Body, Call, Fault, Response};
use crate::store::{Command, CommitError, Entry, Key, Kind, Operation, Store};

const TEXT: &str = "text/plain; charset=utf-8";

/// The endpoints of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `GET /kv/{key}`
    Get,
    /// `PUT /kv/{key}`
    Put,
    /// `DELETE /kv/{key}`
    Delete,
    /// `DELETE /clear`
    Clear,
}

/// Decides how a request to this API is answered, before its body is read.
pub(super) fn admit(
    api: &Api,
    endpoint: Endpoint,
    key_in_path: &str,
) -> Result<Admission, Response> {
    let store = Arc::clone(&api.store);
    let limit = api.limits.value_bytes;
    Ok(match endpoint {
        Endpoint::Get => {
            let key = parse_key(key_in_path)?;
            Admission::new(limit, move |call| {
                call.answer(match store.get(&key) {
                    Some(entry) => Response::new(200, TEXT, Body::Shared(entry.into_value())),
                    None => line(404, "key not found"),
                });
            })
        }
        Endpoint::Put => {
            let key = parse_key(key_in_path)?;
            Admission::new(limit, move |mut call| {
                match parse_entry(&key, &call.take_body()) {
                    Ok(entry) => write(&store, Operation::Put(entry).into(), call),
                    Err(refusal) => call.answer(refusal),
                }
            })
        }
        Endpoint::Delete => {
            let key = parse_key(key_in_path)?;
            Admission::new(limit, move |call| {
                write(&store, Operation::Delete { key }.into(), call)
            })
        }
        Endpoint::Clear => Admission::new(limit, move |call| write(&store, Command::Clear, call)),
    })
}

fn parse_key(key_in_path: &str) -> Result<Key, Response> {
    super::parse_key(key_in_path).map_err(|error| line(400, &error.to_string()))
}

fn parse_entry(key: &Key, body: &[u8]) -> Result<Entry, Response> {
    if body.is_empty() {
        return Err(line(400, "value cannot be empty"));
    }
    let entry = Entry::new(key, Kind::Text, body, None);
    entry.map_err(|_| line(400, "value must be valid UTF-8"))
}

/// Submits a write. Once it is committed, the client gets 200 and an empty body, even if there was nothing to delete.
fn write(store: &Store, command: Command, call: Call) {
    store.submit(command, move |result| {
        call.answer(match result {
            Ok(_) => Response::new(200, TEXT, Body::Static("")),
            Err(failure @ CommitError::Full { .. }) => line(507, &failure.to_string()),
            Err(failure @ CommitError::TimedOut) => line(504, &failure.to_string()),
            Err(failure @ (CommitError::Unavailable | CommitError::DiskFailed)) => {
                line(503, &failure.to_string()).with_header("Retry-After", RETRY_AFTER)
            }
        });
    });
}

/// Answers a request for an unknown path, or with a method that the path does not have.
pub(super) fn miss(miss: Miss) -> Response {
    match miss {
        Miss::Path => line(404, "not found"),
        Miss::Method(allow) => line(405, "method not allowed").with_header("Allow", allow),
    }
}

/// Answers a request that is not let in.
pub(super) fn deny(denied: Denied) -> Response {
    match denied {
        Denied::Unauthorized => line(401, "unauthorized").with_header("WWW-Authenticate", "Bearer"),
        Denied::ReadOnly | Denied::Forged => line(403, "forbidden"),
        Denied::UnknownHost => line(403, "unknown host, see --allow-host"),
        Denied::TooMany(too_many) => line(429, "rate limit exceeded")
            .with_header("Retry-After", too_many.retry_after().to_string()),
    }
}

/// Answers a request that the server itself refuses.
pub(super) fn refuse(fault: Fault) -> Response {
    let response = line(fault.status(), &fault.to_string());
    match fault {
        Fault::Overloaded => response.with_header("Retry-After", RETRY_AFTER),
        _ => response,
    }
}

/// A line of text. All answers but values are lines.
fn line(status: u16, text: &str) -> Response {
    Response::new(status, TEXT, Body::Owned(format!("{text}\n").into_bytes()))
}
