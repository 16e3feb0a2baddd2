//! The JSON API under `/api/v1`, as clients of Concord know it. `openapi.json` describes all of it.

mod about;
mod answer;
mod body;
mod error;
mod export;
mod import;
mod listing;
mod mistake;
mod query;
mod reads;
mod refusal;
mod shape;
mod watch;
mod writes;

use std::sync::Arc;

use super::conditions::Conditions;
use super::{Api, parse_key};
use crate::server::{Admission, Body, Call, Head, Response};
use crate::store::{Command, Key};

use error::{Code, Error};
use query::Query;
use writes::Answer;

pub(super) use answer::Writing;
pub(super) use export::Exports;
pub(super) use refusal::{deny, miss, refuse, unavailable, wrong_parameter};

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
    /// `DELETE /api/v1/kv`
    DeletePrefix,
    /// `POST /api/v1/kv/bulk`
    BulkPut,
    /// `POST /api/v1/kv/bulk/get`
    BulkGet,
    /// `POST /api/v1/kv/bulk/delete`
    BulkDelete,
    /// `POST /api/v1/kv/bulk/touch`
    BulkTouch,
    /// `GET /api/v1/export`
    Export,
    /// `POST /api/v1/import`
    Import,
    /// `GET /api/v1/watch`
    Watch,
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
    head: Head<'_>,
) -> Result<Admission, Response> {
    prepare(api, endpoint, key_in_path, head).map_err(Error::into_response)
}

fn prepare(
    api: &Arc<Api>,
    endpoint: Endpoint,
    key_in_path: &str,
    head: Head<'_>,
) -> Result<Admission, Error> {
    let key = || parse_key(key_in_path).map_err(|error| Error::invalid_key(error, None));
    let query = |names: &[&str]| Query::parse(head.query(), names);
    let conditions = || Conditions::of(head).map_err(|mistake| Error::bad_tags(&mistake));
    // A value in which every character is escaped, as in `\n`, is sent with twice its length. Longer escapes such as `\u0001` are rare.
    let one = 2 * api.limits.value_bytes + AROUND_A_VALUE;
    let bulk = one.max(BULK_BYTES);
    let shared = Arc::clone(api); // for what is done once the body is there
    Ok(match endpoint {
        Endpoint::Get => {
            let (key, query) = (key()?, query(&["with_ttl", "with_revision"])?);
            let conditions = conditions()?;
            answering(one, move |_| {
                reads::get(&shared.store, key, &query, &conditions)
            })
        }
        Endpoint::Ttl => {
            let key = key()?;
            answering(one, move |_| reads::ttl(&shared.store, &key))
        }
        Endpoint::Put => {
            let (key, query) = (key()?, query(&["with_revision"])?);
            let conditions = conditions()?;
            writing(one, api, move |api, body| {
                writes::put(api, key, &query, conditions, body)
            })
        }
        Endpoint::Delete => {
            let (key, query) = (key()?, query(&["with_revision"])?);
            let conditions = conditions()?;
            writing(one, api, move |_, _| {
                Ok(writes::delete(key, &query, conditions))
            })
        }
        Endpoint::Touch => {
            let (key, conditions) = (key()?, conditions()?);
            writing(one, api, move |_, body| {
                writes::touch(key, conditions, body)
            })
        }
        Endpoint::List => {
            let query = query(query::LISTING)?;
            answering(one, move |_| Ok(listing::list(&shared.store, query)))
        }
        Endpoint::DeletePrefix => {
            let query = query(&["prefix", "with_revision"])?;
            let delete = writes::delete_prefix(query)?;
            writing(one, api, move |_, _| Ok(delete))
        }
        Endpoint::BulkGet => answering(bulk, move |body| reads::bulk_get(&shared, body)),
        Endpoint::BulkPut => writing(bulk, api, writes::bulk),
        Endpoint::BulkDelete => writing(bulk, api, writes::bulk_delete),
        Endpoint::BulkTouch => writing(bulk, api, writes::bulk_touch),
        Endpoint::Export => {
            let query = query(&["prefix"])?;
            answering(one, move |_| {
                export::export(&shared.store, &shared.exports, &query.prefix)
            })
        }
        Endpoint::Import => {
            let store = Arc::clone(&api.store);
            Admission::in_pieces(import::Import::new(store, api.limits.value_bytes))
        }
        Endpoint::Watch => {
            let request = watch::request(api, head, query(query::WATCHING)?)?;
            answering(one, move |_| watch::watch(&shared, request))
        }
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
            Ok((command, answer)) => api.store.submit(command, move |result, disk| {
                call.note_disk(disk);
                respond(call, result.map_err(Error::from).and_then(answer));
            }),
            Err(error) => respond(call, Err(error)),
        }
    })
}

fn respond(call: Call, result: Result<Response, Error>) {
    call.answer(result.unwrap_or_else(Error::into_response));
}

fn no_such(key: &Key) -> Error {
    Error::new(Code::NotFound, "Key not found").detail("key", key.as_str())
}
