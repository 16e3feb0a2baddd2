//! The JSON API under `/api/v1`, as clients of Concord know it. `openapi.json` describes all of it.

mod about;
mod answer;
mod body;
mod error;
mod mistake;
mod query;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::auth::Denied;
use super::route::Miss;
use super::{Api, parse_key};
use crate::server::{Admission, Body, Call, Fault, Response};
use crate::store::{Command, CommitError, Entry, Expiry, Key, Operation, Outcome};

use error::{Code, Error};
use query::Query;

const JSON: &str = "application/json";

/// The description of this API.
const OPENAPI: &str = include_str!("openapi.json");

/// A body may have this many bytes besides its value: for other fields, a long key and white space.
const AROUND_A_VALUE: u64 = 64 * 1024;

/// The body of a bulk request may have this many bytes, or more if a single value may. A body is in memory whole while it is parsed, and
/// parsing takes a worker some milliseconds a megabyte.
const BULK_BYTES: u64 = 16 * 1024 * 1024;

/// The endpoints of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `GET /api/v1/kv/{key}`
    Get,
    /// `PUT /api/v1/kv/{key}`
    Put,
    /// `DELETE /api/v1/kv/{key}`
    Delete,
    /// `POST /api/v1/kv/{key}/touch`
    Touch,
    /// `GET /api/v1/kv/{key}/ttl`
    Ttl,
    /// `GET /api/v1/kv`
    List,
    /// `POST /api/v1/kv/bulk`
    BulkPut,
    /// `POST /api/v1/kv/bulk/get`
    BulkGet,
    /// `POST /api/v1/kv/bulk/delete`
    BulkDelete,
    /// `POST /api/v1/kv/bulk/touch`
    BulkTouch,
    /// `GET /api/v1/health`
    Health,
    /// `GET /api/v1/status`
    Status,
    /// `GET /api/v1/openapi.json`
    OpenApi,
}

/// Decides how a request to this API is answered, before its body is read.
pub(super) fn admit(
    api: &Arc<Api>,
    endpoint: Endpoint,
    key_in_path: &str,
    query: &str,
) -> Result<Admission, Response> {
    prepare(api, endpoint, key_in_path, query).map_err(Error::into_response)
}

fn prepare(
    api: &Arc<Api>,
    endpoint: Endpoint,
    key_in_path: &str,
    query: &str,
) -> Result<Admission, Error> {
    let key = || parse_key(key_in_path).map_err(|error| Error::invalid_key(error, None));
    // A value in which every character is escaped, as in `\n`, is sent with twice its length. Longer escapes such as `\u0001` are rare.
    let one = 2 * api.limits.value_bytes + AROUND_A_VALUE;
    let bulk = one.max(BULK_BYTES);
    let shared = Arc::clone(api); // for what is done once the body is there
    Ok(match endpoint {
        Endpoint::Get => {
            let (key, query) = (key()?, Query::parse(query, &["with_ttl"])?);
            answering(one, move |_| {
                let entry = shared.store.get(&key).ok_or_else(|| no_such(&key))?;
                Ok(answer::value(entry, query.with_ttl))
            })
        }
        Endpoint::Ttl => {
            let key = key()?;
            answering(one, move |_| {
                let entry = shared.store.get(&key).ok_or_else(|| no_such(&key))?;
                // Its last moment may have come since.
                let ttl = entry.expiry.map(|expiry| expiry.seconds_left().max(1));
                Ok(answer::data(&BTreeMap::from([("ttl", ttl)])))
            })
        }
        Endpoint::Put => {
            let key = key()?;
            writing(one, api, move |api, body| put(api, key, body))
        }
        Endpoint::Delete => {
            let key = key()?;
            // A missing key is 200 as well.
            let delete = Command::from(Operation::Delete { key });
            writing(one, api, move |_, _| {
                Ok((delete, Box::new(|_| Ok(answer::ok()))))
            })
        }
        Endpoint::Touch => {
            let key = key()?;
            writing(one, api, move |_, body| touch(key, body))
        }
        Endpoint::List => {
            let query = Query::parse(query, &["with_ttl", "limit", "prefix", "after"])?;
            answering(one, move |_| {
                let listing = shared.store.list(query.prefix, query.after);
                let most = query.limit.unwrap_or(usize::MAX);
                Ok(answer::listing(listing, most, query.with_ttl))
            })
        }
        Endpoint::BulkGet => answering(bulk, move |body| bulk_get(&shared, body)),
        Endpoint::BulkPut => writing(bulk, api, bulk_put),
        Endpoint::BulkDelete => writing(bulk, api, bulk_delete),
        Endpoint::BulkTouch => writing(bulk, api, bulk_touch),
        Endpoint::Health => answering(one, move |_| Ok(about::health(&shared))),
        Endpoint::Status => answering(one, move |_| Ok(about::status(&shared))),
        Endpoint::OpenApi => {
            answering(one, |_| Ok(Response::new(200, JSON, Body::Static(OPENAPI))))
        }
    })
}

/// Answers at once.
fn answering(
    limit: u64,
    answer: impl FnOnce(&[u8]) -> Result<Response, Error> + Send + 'static,
) -> Admission {
    Admission::new(limit, move |mut call| {
        let body = call.take_body();
        respond(call, answer(&body));
    })
}

/// Makes the answer from the outcome of a write.
type Answer = Box<dyn FnOnce(Outcome) -> Result<Response, Error> + Send>;

/// Submits a write, which `read` makes from the body, and answers once it is committed.
fn writing(
    limit: u64,
    api: &Arc<Api>,
    read: impl FnOnce(&Api, &[u8]) -> Result<(Command, Answer), Error> + Send + 'static,
) -> Admission {
    let api = Arc::clone(api);
    Admission::new(limit, move |mut call| {
        let body = call.take_body();
        match read(&api, &body) {
            Ok((command, answer)) => api.store.submit(command, move |result| {
                let outcome = result.map(|committed| committed.outcome);
                respond(call, outcome.map_err(Error::from).and_then(answer));
            }),
            Err(error) => respond(call, Err(error)),
        }
    })
}

fn respond(call: Call, result: Result<Response, Error>) {
    call.answer(result.unwrap_or_else(Error::into_response));
}

fn put(api: &Api, key: Key, body: &[u8]) -> Result<(Command, Answer), Error> {
    let put: body::Put<'_> = body::parse(body)?;
    let entry = entry(api, &key, put.value, put.ttl, Expiry::now(), &str::to_owned)?;
    let put = Command::from(Operation::Put(entry));
    Ok((put, Box::new(|_| Ok(answer::ok()))))
}

/// Makes an entry from the fields of a body. `field` makes a field's full name, for errors.
fn entry(
    api: &Api,
    key: &Key,
    value: &RawValue,
    ttl: Option<&RawValue>,
    now: Expiry,
    field: &dyn Fn(&str) -> String,
) -> Result<Entry, Error> {
    let (kind, value) = body::value(value, api.limits.value_bytes, || field("value"))?;
    let ttl = ttl.map(|ttl| body::expiry(ttl, now, || field("ttl")));
    let entry = Entry::new(key, kind, value.as_bytes(), ttl.transpose()?);
    // The value is text already, so this does not happen.
    entry.map_err(|_| Error::new(Code::InvalidRequest, "The body must be UTF-8"))
}

fn touch(key: Key, body: &[u8]) -> Result<(Command, Answer), Error> {
    let touch: body::Touch<'_> = body::parse(body)?;
    let expiry = body::expiry(touch.ttl, Expiry::now(), || "ttl".into())?;
    let missing = key.clone();
    let answer = move |outcome| match outcome {
        Outcome::NotFound => Err(no_such(&missing)),
        _ => Ok(answer::ok()),
    };
    let expiry = Some(expiry);
    let touch = Command::from(Operation::Touch { key, expiry });
    Ok((touch, Box::new(answer)))
}

fn bulk_put(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: body::Operations<body::BulkPut<'_>> = body::parse(body)?;
    bulk_operations(api, body, |item, now, field| {
        let key = body::key(&item.key, || field("key"))?;
        let entry = entry(api, &key, item.value, item.ttl, now, field)?;
        Ok((key, Operation::Put(entry)))
    })
}

fn bulk_touch(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: body::Operations<body::BulkTouch<'_>> = body::parse(body)?;
    bulk_operations(api, body, |item, now, field| {
        let key = body::key(&item.key, || field("key"))?;
        let expiry = body::expiry(item.ttl, now, || field("ttl"))?;
        let expiry = Some(expiry);
        Ok((key.clone(), Operation::Touch { key, expiry }))
    })
}

/// Makes a command from a body with operations. `read` makes one operation, and its key, from an item, the present, and a function
/// that names a field of the item.
fn bulk_operations<T>(
    api: &Api,
    body: body::Operations<T>,
    read: impl Fn(&T, Expiry, &dyn Fn(&str) -> String) -> Result<(Key, Operation), Error>,
) -> Result<(Command, Answer), Error> {
    let items = body::batch(OPERATIONS, body.operations, api.limits.batch)?;
    // One present for all items, so that those with the same `ttl` expire together.
    let now = Expiry::now();
    let operations = items.iter().enumerate().map(|(n, body::Object(item))| {
        read(item, now, &|name| format!("{OPERATIONS}[{n}].{name}"))
    });
    Ok(bulk(operations.collect::<Result<_, _>>()?))
}

fn bulk_delete(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: body::BulkDelete<'_> = body::parse(body)?;
    let keys = bulk_keys(api, body.keys)?.into_iter();
    Ok(bulk(
        keys.map(|key| (key.clone(), Operation::Delete { key }))
            .collect(),
    ))
}

fn bulk_get(api: &Api, body: &[u8]) -> Result<Response, Error> {
    let body: body::BulkGet<'_> = body::parse(body)?;
    let keys = bulk_keys(api, body.keys)?;
    let (entries, _) = api.store.get_all(&keys);
    let with_ttl = body.with_ttl.unwrap_or(false);
    Ok(answer::entries(keys, entries, with_ttl))
}

/// Checks a list of keys, and returns each key once.
fn bulk_keys(api: &Api, keys: body::Items<body::Text<'_>>) -> Result<Vec<Key>, Error> {
    let texts = body::batch(KEYS, keys, api.limits.batch)?;
    let mut keys = Vec::with_capacity(texts.len());
    let mut seen = HashSet::with_capacity(texts.len());
    for (n, body::Text(text)) in texts.iter().enumerate() {
        let key = body::key(text, || format!("{KEYS}[{n}]"))?;
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    Ok(keys)
}

const OPERATIONS: &str = "operations";
const KEYS: &str = "keys";

/// Makes a command of operations, and the answer to it: a result for each key.
fn bulk(operations: Vec<(Key, Operation)>) -> (Command, Answer) {
    let (keys, operations): (Vec<Key>, Vec<Operation>) = operations.into_iter().unzip();
    let answer = move |outcome| {
        let Outcome::Each(found) = outcome else {
            return Err(Error::new(Code::Internal, "Internal server error"));
        };
        Ok(answer::each(&keys, &found))
    };
    let operations = operations.into_iter().map(|it| (it, None));
    (Command::Bulk(operations.collect()), Box::new(answer))
}

fn no_such(key: &Key) -> Error {
    Error::new(Code::NotFound, "Key not found").detail("key", key.as_str())
}

impl From<CommitError> for Error {
    fn from(failure: CommitError) -> Error {
        let code = match failure {
            CommitError::Unavailable | CommitError::DiskFailed => Code::ClusterUnavailable,
            CommitError::TimedOut => Code::Timeout,
            CommitError::Full { limit, used } => {
                let message = "The store is full: this write would make the data take more memory than it may";
                return Error::new(Code::StoreFull, message)
                    .detail("limit", limit)
                    .detail("used", used);
            }
        };
        Error::new(code, failure.to_string())
    }
}

/// Answers a request for an unknown path, or with a method that the path does not have.
pub(super) fn miss(miss: Miss) -> Response {
    match miss {
        Miss::Path => Error::new(Code::NotFound, "No such endpoint").into_response(),
        Miss::Method(allow) => Error::new(Code::MethodNotAllowed, "Method not allowed")
            .detail("allow", allow.as_str())
            .into_response()
            .with_header("Allow", allow),
    }
}

/// Answers a request that is not let in.
pub(super) fn deny(denied: Denied) -> Response {
    match denied {
        Denied::Unauthorized => Error::new(Code::Unauthorized, "A valid token is required")
            .into_response()
            .with_header("WWW-Authenticate", "Bearer"),
        Denied::ReadOnly => Error::new(Code::Forbidden, "This token may only read").into_response(),
        Denied::Forged => {
            Error::new(Code::Forbidden, "Pages of this origin may not write").into_response()
        }
        Denied::UnknownHost => {
            Error::new(Code::Forbidden, "Unknown host, see --allow-host").into_response()
        }
        Denied::TooMany(too_many) => {
            let seconds = too_many.retry_after();
            let message = format!("Too many requests; the next one may come in {seconds} s");
            Error::new(Code::RateLimited, message)
                .detail("limit", too_many.left.rate.to_string())
                .detail("retry_after", seconds)
                .into_response()
                .with_header("Retry-After", seconds.to_string())
        }
    }
}

/// Answers a request that the server itself refuses.
pub(super) fn refuse(fault: Fault) -> Response {
    let error = match fault {
        Fault::TooLarge { limit } => {
            let message = format!("The body must not have more than {limit} bytes");
            Error::new(Code::PayloadTooLarge, message).detail("limit", limit)
        }
        Fault::Overloaded => Error::new(
            Code::ClusterUnavailable,
            "The server is overloaded, try again later",
        ),
        Fault::Internal => Error::new(Code::Internal, "Internal server error"),
        fault => {
            let mut message = fault.to_string();
            message[..1].make_ascii_uppercase();
            Error::new(Code::Http(fault.status()), message)
        }
    };
    error.into_response()
}
