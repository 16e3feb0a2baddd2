//! The plain-text API that `lsfr` tests: `/kv/{key}` and `/clear`.

use std::sync::Arc;

use super::auth::Denied;
use super::conditions::{self, Conditions, Verdict};
use super::route::Miss;
use super::{Api, RETRY_AFTER};
use crate::server::{Admission, Body, Call, Fault, Head, Response};
use crate::store::{
    Command, CommitError, Committed, Entry, Key, Kind, Operation, Outcome, Revision, Store,
};

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
    head: Head<'_>,
) -> Result<Admission, Response> {
    let store = Arc::clone(&api.store);
    let limit = api.limits.value_bytes;
    Ok(match endpoint {
        Endpoint::Get => {
            let (key, conditions) = (parse_key(key_in_path)?, parse_conditions(head)?);
            Admission::new(limit, move |call| {
                call.answer(get(&store, &key, &conditions));
            })
        }
        Endpoint::Put => {
            let (key, conditions) = (parse_key(key_in_path)?, parse_conditions(head)?);
            Admission::new(limit, move |mut call| {
                match parse_entry(&key, &call.take_body()) {
                    Ok(entry) => write(&store, one(Operation::Put(entry), conditions), true, call),
                    Err(refusal) => call.answer(refusal),
                }
            })
        }
        Endpoint::Delete => {
            let (key, conditions) = (parse_key(key_in_path)?, parse_conditions(head)?);
            Admission::new(limit, move |call| {
                write(
                    &store,
                    one(Operation::Delete { key }, conditions),
                    false,
                    call,
                )
            })
        }
        Endpoint::Clear => Admission::new(limit, move |call| {
            write(&store, Command::Clear, false, call)
        }),
    })
}

fn parse_key(key_in_path: &str) -> Result<Key, Response> {
    super::parse_key(key_in_path).map_err(|error| line(400, &error.to_string()))
}

fn parse_conditions(head: Head<'_>) -> Result<Conditions, Response> {
    Conditions::of(head).map_err(|mistake| line(400, &mistake.to_string()))
}

fn get(store: &Store, key: &Key, conditions: &Conditions) -> Response {
    let Some(entry) = store.get(key) else {
        return line(404, "key not found");
    };
    let revision = entry.revision();
    match conditions.judge(&entry) {
        Verdict::Met => Response::new(200, TEXT, Body::Shared(entry.into_value()))
            .with_header("ETag", conditions::tag(revision)),
        Verdict::NotModified => conditions::not_modified(revision),
        Verdict::Failed => unmet(Some(revision)),
    }
}

/// The answer where a condition is not met. `revision` is what the key has now, if it is there.
fn unmet(revision: Option<Revision>) -> Response {
    let response = line(412, "precondition failed");
    match revision {
        Some(revision) => response.with_header("ETag", conditions::tag(revision)),
        None => response,
    }
}

fn one(operation: Operation, conditions: Conditions) -> Command {
    Command::One(operation, conditions.condition.when())
}

fn parse_entry(key: &Key, body: &[u8]) -> Result<Entry, Response> {
    if body.is_empty() {
        return Err(line(400, "value cannot be empty"));
    }
    let entry = Entry::new(key, Kind::Text, body, None);
    entry.map_err(|_| line(400, "value must be valid UTF-8"))
}

/// Submits a write. Once it is committed, the client gets 200 and an empty body, even if there was nothing to delete. `tagged` adds the
/// tag of what has been written.
fn write(store: &Store, command: Command, tagged: bool, mut call: Call) {
    store.submit(command, move |result, disk| {
        call.note_disk(disk);
        call.answer(match result {
            Ok(Committed {
                outcome: Outcome::ConditionFailed(failed),
                ..
            }) => unmet(failed.first().and_then(|failed| failed.revision)),
            Ok(committed) => {
                let response = Response::new(200, TEXT, Body::Static(""));
                match tagged {
                    true => response.with_header("ETag", conditions::tag(committed.revision)),
                    false => response,
                }
            }
            Err(failure) => no_outcome(failure),
        });
    });
}

/// The answer where the store has no outcome.
fn no_outcome(failure: CommitError) -> Response {
    let message = failure.to_string();
    match failure {
        CommitError::Full { .. } => line(507, &message),
        CommitError::TooLarge { .. } => line(413, &message),
        CommitError::TimedOut => line(504, &message),
        CommitError::Unavailable | CommitError::DiskFailed => unavailable(&message),
    }
}

/// The answer where the store cannot take a request now.
pub(super) fn unavailable(why: &str) -> Response {
    line(503, why).with_header("Retry-After", RETRY_AFTER)
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
pub(super) fn line(status: u16, text: &str) -> Response {
    Response::new(status, TEXT, Body::Owned(format!("{text}\n").into_bytes()))
}
