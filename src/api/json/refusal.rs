//! Answers to requests that are refused before they reach an endpoint, and to writes that the store refuses.

use super::super::auth::Denied;
use super::super::route::Miss;
use super::error::{Code, Error};
use crate::server::{Fault, Response};
use crate::store::CommitError;

impl From<CommitError> for Error {
    fn from(failure: CommitError) -> Error {
        let code = match failure {
            CommitError::Unavailable | CommitError::DiskFailed => Code::ClusterUnavailable,
            CommitError::TimedOut => Code::Timeout,
            CommitError::TooLarge { limit } => {
                let message = format!(
                    "Keys and values of one request must not have more than {limit} bytes in a cluster"
                );
                return Error::new(Code::PayloadTooLarge, message).detail("limit", limit);
            }
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

/// The answer where the store cannot take a request now.
pub(in crate::api) fn unavailable(why: &str) -> Response {
    Error::new(Code::ClusterUnavailable, why).into_response()
}

/// The answer where a parameter has a value that it cannot have.
pub(in crate::api) fn wrong_parameter(name: &str, value: &str, message: &str) -> Response {
    Error::new(Code::ValidationError, message)
        .detail("parameter", name)
        .detail("value", value)
        .into_response()
}

/// Answers a request for an unknown path, or with a method that the path does not have.
pub(in crate::api) fn miss(miss: Miss) -> Response {
    match miss {
        Miss::Path => Error::new(Code::NotFound, "No such endpoint").into_response(),
        Miss::Method(allow) => Error::new(Code::MethodNotAllowed, "Method not allowed")
            .detail("allow", allow.as_str())
            .into_response()
            .with_header("Allow", allow),
    }
}

/// Answers a request that is not let in.
pub(in crate::api) fn deny(denied: Denied) -> Response {
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
pub(in crate::api) fn refuse(fault: Fault) -> Response {
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
