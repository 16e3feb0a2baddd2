//! The errors of the JSON API: a code, a message, and details where they help (contract, "JSON API").

use serde::Serialize;
use serde_json::{Map, Value};

use super::answer;
use crate::api::RETRY_AFTER;
use crate::api::conditions::BadTags;
use crate::server::Response;
use crate::store::{KeyError, MAX_KEY_BYTES};

/// Why a request is answered with an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error {
    code: Code,
    message: String,
    details: Map<String, Value>,
}

/// The kinds of errors, as the contract lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Malformed JSON, a required field missing or of the wrong type.
    InvalidRequest,
    /// A request that breaks a rule of HTTP, or asks for a part of it that is not there, with that status.
    Http(u16),
    /// A key that is empty, too long or outside the alphabet.
    InvalidKey,
    /// Well-formed, but out of range.
    ValidationError,
    /// No token, or an unknown one.
    Unauthorized,
    /// The token, the web page or the host has no permission.
    Forbidden,
    /// No such key, or no such path.
    NotFound,
    /// The path does not have that method.
    MethodNotAllowed,
    /// A watcher wants to go on from a revision that is forgotten.
    HistoryGone,
    /// A condition is not met.
    PreconditionFailed,
    /// A body or a value over the limit.
    PayloadTooLarge,
    /// More items than a bulk request may have.
    BatchTooLarge,
    /// The client is over its rate limit.
    RateLimited,
    /// A fault of the server.
    Internal,
    /// The store takes no writes, or the server is overloaded.
    ClusterUnavailable,
    /// The store did not answer in time.
    Timeout,
    /// The data would take more memory than it may.
    StoreFull,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Code::InvalidRequest | Code::Http(_) => "INVALID_REQUEST",
            Code::InvalidKey => "INVALID_KEY",
            Code::ValidationError => "VALIDATION_ERROR",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Forbidden => "FORBIDDEN",
            Code::NotFound => "NOT_FOUND",
            Code::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Code::HistoryGone => "HISTORY_GONE",
            Code::PreconditionFailed => "PRECONDITION_FAILED",
            Code::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Code::BatchTooLarge => "BATCH_TOO_LARGE",
            Code::RateLimited => "RATE_LIMITED",
            Code::Internal => "INTERNAL",
            Code::ClusterUnavailable => "CLUSTER_UNAVAILABLE",
            Code::Timeout => "TIMEOUT",
            Code::StoreFull => "STORE_FULL",
        }
    }

    fn status(self) -> u16 {
        match self {
            Code::InvalidRequest | Code::InvalidKey | Code::ValidationError => 400,
            Code::Http(status) => status,
            Code::Unauthorized => 401,
            Code::Forbidden => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::HistoryGone => 410,
            Code::PreconditionFailed => 412,
            Code::PayloadTooLarge | Code::BatchTooLarge => 413,
            Code::RateLimited => 429,
            Code::Internal => 500,
            Code::ClusterUnavailable => 503,
            Code::Timeout => 504,
            Code::StoreFull => 507,
        }
    }
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            details: Map::new(),
        }
    }

    /// Adds a detail.
    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Error {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// An error about a key. `field` names the field that has it; `None` for the key in the path.
    pub(super) fn invalid_key(error: KeyError, field: Option<&str>) -> Error {
        let message = error.to_string();
        // As the seed writes it: "Key cannot be empty".
        let message = message.replacen("key", "Key", 1);
        let mut made = Error::new(Code::InvalidKey, message);
        if let Some(field) = field {
            made = made.detail("field", field);
        }
        match error {
            KeyError::TooLong(bytes) => made.detail("limit", MAX_KEY_BYTES).detail("length", bytes),
            KeyError::Empty | KeyError::Alphabet => made,
        }
    }

    /// An error about a header that is no list of tags.
    pub(super) fn bad_tags(mistake: &BadTags) -> Error {
        Error::new(Code::InvalidRequest, mistake.to_string()).detail("header", mistake.header)
    }

    pub(super) fn into_response(self) -> Response {
        let body = Failure {
            status: "error",
            error: Described {
                code: self.code.name(),
                message: &self.message,
                details: &self.details,
            },
        };
        let response = answer::json(self.code.status(), &body);
        match self.code {
            Code::ClusterUnavailable => response.with_header("Retry-After", RETRY_AFTER),
            _ => response,
        }
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    status: &'a str,
    error: Described<'a>,
}

#[derive(Serialize)]
struct Described<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: &'a Map<String, Value>,
}
