//! Who may do what: which tokens let in, and what each of them may do (contract, "Access").

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use crate::rate::Rate;
use crate::server::Head;
use crate::tokens::{TokenError, Tokens};

use super::limiter::{Client, TooMany};

/// How often to look whether the file of the tokens has changed.
const LOOK: Duration = Duration::from_millis(500);

/// The tokens that let clients in, as the file has them.
pub struct Auth {
    path: PathBuf,
    /// Held to clone or to replace the pointer.
    tokens: RwLock<Arc<Tokens>>,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: anybody may, as often as they like.
    Unlimited,
    /// Nothing: anybody may.
    Open,
    /// Any token.
    Read,
    /// A token that may write.
    Write,
}

/// Who has a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) client: Client,
    pub(super) read_only: bool,
    /// A limit of its own.
    pub(super) rate_limit: Option<Rate>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no token in it, or not one that is known, or more than one.
    Unauthorized,
    /// The token may only read.
    ReadOnly,
    /// A web page sends it that is not let in.
    Forged,
    /// It is sent to a host that nobody has allowed.
    UnknownHost,
    /// It comes sooner after others than the limit allows.
    TooMany(TooMany),
}

impl Auth {
    /// Reads the tokens, and goes on reading them whenever the file changes. One that cannot be read then is logged, and
    /// the tokens stay as they were.
    pub fn open(path: &Path) -> Result<Arc<Auth>, TokenError> {
        let seen = stamp(path);
        let tokens = RwLock::new(Arc::new(Tokens::read(path)?));
        let auth = Arc::new(Auth {
            path: path.into(),
            tokens,
        });
        let watched = Arc::clone(&auth);
        thread::Builder::new()
            .name("tokens".into())
            .spawn(move || watched.watch(seen))
            .map_err(|error| TokenError::Io("start a thread to watch", path.into(), error))?;
        Ok(auth)
    }

    /// Who sends a request, if it has a token that is known.
    pub(super) fn identify(&self, head: Head<'_>) -> Option<Identity> {
        let credential = credential(head)?;
        let tokens = Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner));
        let token = tokens.find(credential.as_bytes())?;
        Some(Identity {
            client: Client::Token(*token.hash()),
            read_only: token.read_only,
            rate_limit: token.rate_limit,
        })
    }

    fn watch(&self, mut seen: Stamp) {
        loop {
            thread::sleep(LOOK);
            let now = stamp(&self.path);
            if now == seen {
                continue;
            }
            seen = now;
            match Tokens::read(&self.path) {
                Ok(tokens) => {
                    let count = tokens.iter().count();
                    *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
                    log::info!("{} has changed: {count} tokens let in", self.path.display());
                }
                Err(error) => log::error!("{error}; the tokens stay as they were"),
            }
        }
    }
}

/// What tells one state of a file from another; an error is a state too.
type Stamp = Result<(u64, u64, i64, i64), io::ErrorKind>;

fn stamp(path: &Path) -> Stamp {
    let it = fs::metadata(path).map_err(|error| error.kind())?;
    Ok((it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
}

/// The token in a request: in one of the two headers, and in one of them only, so that no proxy takes another one for it.
fn credential(head: Head<'_>) -> Option<&str> {
    let bearer = head.headers("Authorization").map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let key = head.headers("X-API-Key").map(|value| Some(value.trim()));
    let mut given = bearer.chain(key);
    let first = given.next()?;
    if given.next().is_some() { None } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::{Header, TestRequest};

    #[test]
    fn a_credential_is_given_in_one_header_and_once() {
        for (headers, token) in [
            (&["Authorization: Bearer t"][..], Some("t")),
            (&["authorization: bEARER  t "], Some("t")),
            (&["X-API-Key: t"], Some("t")),
            (&["x-api-key: Bearer t"], Some("Bearer t")),
            (&[], None),
            (&["Authorization: t"], None),
            (&["Authorization: Basic t"], None),
            (&["Authorization: Bearer"], None),
            (
                &["Authorization: Bearer t", "Authorization: Bearer t"],
                None,
            ),
            (&["Authorization: Bearer t", "X-API-Key: t"], None),
            (&["Authorization: Basic u", "X-API-Key: t"], None),
            (&["X-API-Key: t", "X-API-Key: u"], None),
        ] {
            let request = headers.iter().fold(TestRequest::new(), |request, header| {
                request.with_header(header.parse::<Header>().unwrap())
            });
            let request = request.into();
            assert_eq!(credential(Head::of(&request)), token, "{headers:?}");
        }
    }
}
