//! Writes: what their bodies ask of the store, and what is answered once that is committed.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer;
use super::body;
use super::error::{Code, Error};
use super::mistake::PUT;
use super::no_such;
use super::query::Query;
use super::reads::bulk_keys;
use super::shape::{self, BulkDelete, BulkOperation, BulkTouch, CHECK, DELETE, Operations, TOUCH};
use crate::api::Api;
use crate::api::conditions::{self, Conditions};
use crate::server::Response;
use crate::store::{
    Command, Committed, Condition, Entry, Expiry, Key, Operation, Outcome, Revision, Revisions,
    Unmet,
};

/// Makes the answer from what the store says of a write.
pub(super) type Answer = Box<dyn FnOnce(Committed) -> Result<Response, Error> + Send>;

/// `PUT /api/v1/kv/{key}`
pub(super) fn put(
    api: &Api,
    key: Key,
    query: &Query,
    conditions: Conditions,
    body: &[u8],
) -> Result<(Command, Answer), Error> {
    let put: shape::Put<'_> = body::parse(body)?;
    let conditions = with_field(conditions, put.if_revision)?;
    let entry = entry(api, &key, put.value, put.ttl, Expiry::now(), &str::to_owned)?;
    let with_revision = query.with_revision;
    Ok(one(
        Operation::Put(entry),
        key,
        conditions,
        move |_, revision| {
            let ok = answer::ok(with_revision.then_some(revision));
            Ok(ok.with_header("ETag", conditions::tag(revision)))
        },
    ))
}

/// `DELETE /api/v1/kv/{key}`
pub(super) fn delete(key: Key, query: &Query, conditions: Conditions) -> (Command, Answer) {
    let with_revision = query.with_revision;
    let delete = Operation::Delete { key: key.clone() };
    // A missing key is 200 as well.
    one(delete, key, conditions, move |_, revision| {
        Ok(answer::ok(with_revision.then_some(revision)))
    })
}

/// `POST /api/v1/kv/{key}/touch`
pub(super) fn touch(
    key: Key,
    conditions: Conditions,
    body: &[u8],
) -> Result<(Command, Answer), Error> {
    let touch: shape::Touch<'_> = body::parse(body)?;
    let conditions = with_field(conditions, touch.if_revision)?;
    let expiry = body::expiry(touch.ttl, Expiry::now(), || "ttl".into())?;
    let with_revision = touch.with_revision.unwrap_or(false);
    let (missing, touched) = (key.clone(), key.clone());
    // A missing key is 404, with a condition as without.
    Ok(one(
        Operation::Touch { key, expiry },
        touched,
        conditions,
        move |outcome, revision| match outcome {
            Outcome::NotFound => Err(no_such(&missing)),
            _ => Ok(answer::ok(with_revision.then_some(revision))),
        },
    ))
}

/// `DELETE /api/v1/kv?prefix=`
pub(super) fn delete_prefix(query: Query) -> Result<(Command, Answer), Error> {
    if query.prefix.is_empty() {
        let message =
            "prefix must be given, and must not be empty; DELETE /clear removes every key";
        return Err(Error::new(Code::ValidationError, message).detail("parameter", "prefix"));
    }
    let answer = move |Committed { outcome, revision }| match outcome {
        Outcome::Deleted(deleted) => {
            let revision = query.with_revision.then_some(revision);
            Ok(answer::data(&json!({"deleted": deleted}), revision))
        }
        _ => Err(internal()),
    };
    Ok((Command::DeletePrefix(query.prefix), Box::new(answer)))
}

/// Makes a command of one operation on a key, and the answer to it.
fn one(
    operation: Operation,
    key: Key,
    conditions: Conditions,
    done: impl FnOnce(Outcome, Revision) -> Result<Response, Error> + Send + 'static,
) -> (Command, Answer) {
    let weakened = conditions.weakened;
    let answer = move |Committed { outcome, revision }| match outcome {
        Outcome::ConditionFailed(failed) => Ok(unmet(&key, first(failed), weakened)),
        outcome => done(outcome, revision),
    };
    let command = Command::One(operation, conditions.condition.when());
    (command, Box::new(answer))
}

/// The revision that the key of the first condition that is not met has now.
fn first(failed: Vec<Unmet>) -> Option<Revision> {
    failed.first().and_then(|failed| failed.revision)
}

/// Adds the field `if_revision` to the conditions of the headers. There may be one of the two.
fn with_field(conditions: Conditions, field: Option<&RawValue>) -> Result<Conditions, Error> {
    const FIELD: &str = "if_revision";
    let Some(revision) = field.map(|field| body::if_revision(field, || FIELD.into())) else {
        return Ok(conditions);
    };
    let Some(revision) = revision? else {
        return Ok(conditions);
    };
    if !conditions.is_empty() {
        let message = "if_revision must not be given beside If-Match or If-None-Match";
        return Err(Error::new(Code::ValidationError, message).detail("field", FIELD));
    }
    Ok(Conditions {
        condition: condition(revision),
        weakened: false,
    })
}

/// The condition that an `if_revision` stands for.
fn condition(revision: Revision) -> Condition {
    match revision {
        0 => Condition {
            if_none_match: Some(Revisions::Any),
            ..Condition::default()
        },
        revision => Condition {
            if_match: Some(Revisions::Listed(vec![revision])),
            ..Condition::default()
        },
    }
}

/// The answer where a condition is not met. `revision` is what the key has now, if it is there. `weakened` says that a tag was weak.
pub(super) fn unmet(key: &Key, revision: Option<Revision>, weakened: bool) -> Response {
    let message = match weakened {
        true => {
            "The condition is not met: If-Match has a weak tag (W/), which never matches; a proxy has weakened it, by compressing the value say"
        }
        false => "The condition is not met: the key is not as the request asks for it",
    };
    let response = Error::new(Code::PreconditionFailed, message)
        .detail("key", key.as_str())
        .detail("revision", revision)
        .into_response();
    match revision {
        Some(revision) => response.with_header("ETag", conditions::tag(revision)),
        None => response,
    }
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
    let entry = Entry::new(key, kind, value.as_bytes(), ttl.transpose()?.flatten());
    // The value is text already, so this does not happen.
    entry.map_err(|_| Error::new(Code::InvalidRequest, "The body must be UTF-8"))
}

/// An operation of a bulk request.
type Item = (Key, Operation, Condition);

/// `POST /api/v1/kv/bulk`
pub(super) fn bulk(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: Operations<BulkOperation<'_>> = body::parse(body)?;
    bulk_operations(api, body, |item, now, field| {
        let key = body::key(&item.key, || field("key"))?;
        let missing = |name| {
            // A body without it has been refused already.
            Error::new(Code::InvalidRequest, format!("{} is missing", field(name)))
        };
        let condition = item_condition(item.if_revision, field)?;
        let operation = match item.op.as_deref().unwrap_or(PUT) {
            PUT => {
                let value = item.value.ok_or_else(|| missing("value"))?;
                Operation::Put(entry(api, &key, value, item.ttl, now, field)?)
            }
            DELETE => Operation::Delete { key: key.clone() },
            TOUCH => {
                let ttl = item.ttl.ok_or_else(|| missing("ttl"))?;
                let expiry = body::expiry(ttl, now, || field("ttl"))?;
                Operation::Touch {
                    key: key.clone(),
                    expiry,
                }
            }
            CHECK if condition == Condition::default() => {
                let message = format!("{} must be a revision, or 0", field("if_revision"));
                return Err(
                    Error::new(Code::InvalidRequest, message).detail("field", field("if_revision"))
                );
            }
            CHECK => Operation::Check { key: key.clone() },
            _ => {
                let message = format!("{} must be put, delete, touch or check", field("op"));
                return Err(Error::new(Code::ValidationError, message).detail("field", field("op")));
            }
        };
        Ok((key, operation, condition))
    })
}

/// `POST /api/v1/kv/bulk/touch`
pub(super) fn bulk_touch(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: Operations<BulkTouch<'_>> = body::parse(body)?;
    bulk_operations(api, body, |item, now, field| {
        let key = body::key(&item.key, || field("key"))?;
        let condition = item_condition(item.if_revision, field)?;
        let expiry = body::expiry(item.ttl, now, || field("ttl"))?;
        Ok((key.clone(), Operation::Touch { key, expiry }, condition))
    })
}

/// The condition of an item of a bulk request.
fn item_condition(
    if_revision: Option<&RawValue>,
    field: &dyn Fn(&str) -> String,
) -> Result<Condition, Error> {
    let revision = if_revision.map(|raw| body::if_revision(raw, || field("if_revision")));
    Ok(revision
        .transpose()?
        .flatten()
        .map(condition)
        .unwrap_or_default())
}

/// Makes a command from a body with operations. `read` makes one operation, its key and its condition from an item, the present, and a
/// function that names a field of the item.
fn bulk_operations<T>(
    api: &Api,
    body: Operations<T>,
    read: impl Fn(&T, Expiry, &dyn Fn(&str) -> String) -> Result<Item, Error>,
) -> Result<(Command, Answer), Error> {
    const OPERATIONS: &str = "operations";
    let items = body::batch(OPERATIONS, body.operations, api.limits.batch)?;
    // One present for all items, so that those with the same `ttl` expire together.
    let now = Expiry::now();
    let items = items.iter().enumerate().map(|(n, body::Object(item))| {
        read(item, now, &|name| format!("{OPERATIONS}[{n}].{name}"))
    });
    let items = items.collect::<Result<_, _>>()?;
    Ok(several(items, body.with_revision))
}

/// `POST /api/v1/kv/bulk/delete`
pub(super) fn bulk_delete(api: &Api, body: &[u8]) -> Result<(Command, Answer), Error> {
    let body: BulkDelete<'_> = body::parse(body)?;
    let keys = bulk_keys(api, body.keys)?.into_iter();
    let delete = |key: Key| (key.clone(), Operation::Delete { key }, Condition::default());
    Ok(several(keys.map(delete).collect(), body.with_revision))
}

/// Makes a command of operations, and the answer to it: a result for each key.
fn several(items: Vec<Item>, with_revision: Option<bool>) -> (Command, Answer) {
    let mut keys = Vec::with_capacity(items.len());
    let mut operations = Vec::with_capacity(items.len());
    for (key, operation, condition) in items {
        keys.push(key);
        operations.push((operation, condition.when()));
    }
    let answer = move |Committed { outcome, revision }| match outcome {
        Outcome::Each(found) => {
            let revision = with_revision.unwrap_or(false).then_some(revision);
            Ok(answer::each(&keys, &found, revision))
        }
        Outcome::ConditionFailed(failed) => Err(unmet_items(failed)),
        _ => Err(internal()),
    };
    (Command::Bulk(operations), Box::new(answer))
}

/// The answer where conditions of a bulk request are not met.
fn unmet_items(failed: Vec<Unmet>) -> Error {
    let item = |failed: Unmet| json!({"index": failed.index, "key": failed.key.as_str(), "revision": failed.revision});
    let failed: Vec<Value> = failed.into_iter().map(item).collect();
    let message = "Conditions are not met, so nothing has changed: these keys are not as the request asks for them";
    Error::new(Code::PreconditionFailed, message).detail("failed", failed)
}

/// For outcomes that the command cannot have.
fn internal() -> Error {
    Error::new(Code::Internal, "Internal server error")
}
