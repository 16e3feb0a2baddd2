//! What can go wrong with a call.

use std::fmt;

use serde::Deserialize;

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Whether it was carried out is not known: no answer came, or etcd could not say.
    Unknown(String),
    /// etcd has refused it, and nothing has happened.
    Refused {
        /// The status of the answer.
        status: u16,
        /// Why, in etcd's words.
        message: String,
    },
}

impl Error {
    pub(super) fn of_transport(error: ureq::Error) -> Error {
        Error::Unknown(error.to_string())
    }

    /// The error that an answer tells of. A 5xx can come behind a proposal that the members may still agree on.
    pub(super) fn of_answer(status: u16, text: &[u8]) -> Error {
        #[derive(Deserialize)]
        struct Body {
            message: Option<String>,
            error: Option<String>,
        }
        let body = serde_json::from_slice(text).ok();
        let words = body.and_then(|it: Body| it.message.or(it.error));
        let message = words.unwrap_or_else(|| format!("status {status}"));
        match status {
            // "Canceled": the connection inside etcd has ended, perhaps behind the proposal. Newer gateways say 499.
            408 | 499 => Error::Unknown(message),
            400..500 => Error::Refused { status, message },
            _ => Error::Unknown(message),
        }
    }

    /// Whether it might go better with another endpoint.
    pub(super) fn may_differ_elsewhere(&self) -> bool {
        matches!(self, Error::Unknown(_))
    }

    /// Whether there was no token, or one that counts no more.
    pub(super) fn is_about_token(&self) -> bool {
        match self {
            Error::Refused { status: 401, .. } => true,
            Error::Refused { message, .. } => {
                let about = ["user name is empty", "revision of auth store is old"];
                about.iter().any(|it| message.contains(it))
            }
            Error::Unknown(_) => false,
        }
    }

    /// Whether etcd has no room left, see its `--quota-backend-bytes`.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Refused { message, .. } if message.contains("space exceeded"))
    }

    /// Whether the revision is one that etcd has forgotten.
    pub fn is_compacted(&self) -> bool {
        matches!(self, Error::Refused { message, .. } if message.contains("has been compacted"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown(message) => f.write_str(message),
            Error::Refused { message, .. } => write!(f, "etcd refuses: {message}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_etcd_has_decided_is_a_refusal() {
        let canceled = br#"{"error": "grpc: the client connection is closing", "code": 1}"#;
        for status in [408, 499, 500, 503, 504] {
            let error = Error::of_answer(status, canceled);
            assert!(error.may_differ_elsewhere(), "{status}: {error}");
        }
        let full = Error::of_answer(
            429,
            br#"{"message": "etcdserver: mvcc: database space exceeded"}"#,
        );
        assert!(full.is_no_space() && !full.may_differ_elsewhere());
        let old = Error::of_answer(
            400,
            br#"{"message": "etcdserver: revision of auth store is old"}"#,
        );
        assert!(old.is_about_token());
    }
}
