//! A client of etcd: its JSON gateway, over blocking HTTP.
//!
//! etcd's own protocol is gRPC, whose clients need an async runtime. The gateway takes the same calls as `POST /v3/...` with a body of
//! JSON, in which bytes are base64, 64-bit numbers are strings, and zeros are left out.
//!
//! A client talks to one endpoint at a time. When a call has failed in a way that another endpoint may not, the next call goes to the next
//! endpoint. No call is repeated here: only whoever makes it knows whether it may be carried out twice.

mod error;
mod message;
#[cfg(feature = "tls")]
mod tls;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use ureq::Agent;

pub use error::Error;
pub use message::{KeyValue, MemberStatus};
pub use watch::{Event, Watch};

use message::{base64, end_of_prefix};

/// How long each part of a call may take. An election takes about as long, and then another endpoint is asked.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The most bytes of an answer that is read whole: etcd sends some megabytes at most where a range is bounded.
const ANSWER: u64 = 64 << 20;

/// A user of etcd's, where it asks for one.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Files in PEM, for TLS to etcd. None is needed where etcd's certificate is one that browsers take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of those who vouch for etcd.
    pub ca: Option<PathBuf>,
    /// The client's certificate, with what is between it and the root, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A client. Threads may share it.
pub struct Etcd {
    agent: Agent,
    endpoints: Vec<String>,
    /// The endpoint that is asked now.
    current: AtomicUsize,
    credentials: Option<Credentials>,
    /// What etcd has given for the credentials.
    token: Mutex<Option<Arc<str>>>,
}

impl Etcd {
    /// A client for these endpoints, such as `http://127.0.0.1:2379`. The files are looked at where the feature `tls` is on.
    pub fn new(
        endpoints: Vec<String>,
        credentials: Option<Credentials>,
        #[cfg_attr(not(feature = "tls"), expect(unused_variables))] files: &TlsFiles,
    ) -> Result<Etcd, String> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("threadkv")
            // Not the whole call: with a limit on that, ureq starts a thread for each, to look up a name.
            .timeout_connect(Some(ATTEMPT))
            .timeout_send_request(Some(ATTEMPT))
            .timeout_send_body(Some(ATTEMPT))
            .timeout_recv_response(Some(ATTEMPT));
        #[cfg(feature = "tls")]
        let config = config.tls_config(tls::config(files)?);
        Ok(Etcd {
            agent: config.build().into(),
            endpoints,
            current: AtomicUsize::new(0),
            credentials,
            token: Mutex::new(None),
        })
    }

    /// Puts a key. It lives as long as the lease, if one is given.
    pub fn put(&self, key: &str, value: &[u8], lease: Option<i64>) -> Result<(), Error> {
        let body = put(key, value, lease);
        self.call("/v3/kv/put", &body).map(|IgnoredAny| ())
    }

    /// The key as the majority has it now, and etcd's revision then.
    pub fn get(&self, key: &str) -> Result<(i64, Option<KeyValue>), Error> {
        let body = json!({"key": base64(key.as_bytes())});
        let mut answer: message::Range = self.call("/v3/kv/range", &body)?;
        Ok((answer.header.revision, answer.kvs.pop()))
    }

    /// The key as it was at a revision.
    pub fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, Error> {
        let body = json!({"key": base64(key.as_bytes()), "revision": revision.to_string()});
        let mut answer: message::Range = self.call("/v3/kv/range", &body)?;
        Ok(answer.kvs.pop())
    }

    /// The key as the majority has it now, without its value.
    pub fn get_revision(&self, key: &str) -> Result<(i64, Option<KeyValue>), Error> {
        let body = json!({"key": base64(key.as_bytes()), "keys_only": true});
        let mut answer: message::Range = self.call("/v3/kv/range", &body)?;
        Ok((answer.header.revision, answer.kvs.pop()))
    }

    /// All keys with a prefix.
    pub fn get_prefix(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        let body =
            json!({"key": base64(prefix.as_bytes()), "range_end": base64(&end_of_prefix(prefix))});
        let answer: message::Range = self.call("/v3/kv/range", &body)?;
        Ok(answer.kvs)
    }

    /// Deletes all keys with a prefix.
    pub fn delete_prefix(&self, prefix: &str) -> Result<(), Error> {
        let body =
            json!({"key": base64(prefix.as_bytes()), "range_end": base64(&end_of_prefix(prefix))});
        let _: IgnoredAny = self.call("/v3/kv/deleterange", &body)?;
        Ok(())
    }

    /// Deletes all keys from one on, up to another one, which stays.
    pub fn delete_between(&self, from: &str, to: &str) -> Result<(), Error> {
        let body = json!({"key": base64(from.as_bytes()), "range_end": base64(to.as_bytes())});
        let _: IgnoredAny = self.call("/v3/kv/deleterange", &body)?;
        Ok(())
    }

    /// Puts a key if it was last changed at that revision; 0 for one that is not there. Returns whether it was.
    pub fn put_if(
        &self,
        key: &str,
        value: &[u8],
        lease: Option<i64>,
        changed_at: i64,
    ) -> Result<bool, Error> {
        let body = json!({
            "compare": [{
                "key": base64(key.as_bytes()), "target": "MOD", "result": "EQUAL", "mod_revision": changed_at.to_string(),
            }],
            "success": [{"request_put": put(key, value, lease)}],
        });
        let answer: message::Txn = self.call("/v3/kv/txn", &body)?;
        Ok(answer.succeeded)
    }

    /// Puts a key, and tells the state of another one then, without its value.
    pub fn put_and_get_revision(
        &self,
        put_key: &str,
        key: &str,
    ) -> Result<Option<KeyValue>, Error> {
        let body = json!({"success": [
            {"request_put": put(put_key, b"", None)},
            {"request_range": {"key": base64(key.as_bytes()), "keys_only": true}},
        ]});
        let answer: message::Txn = self.call("/v3/kv/txn", &body)?;
        let range = answer
            .responses
            .into_iter()
            .find_map(|it| it.response_range);
        Ok(range.and_then(|mut range| range.kvs.pop()))
    }

    /// Forgets the history before a revision.
    pub fn compact(&self, revision: i64) -> Result<(), Error> {
        let body = json!({"revision": revision.to_string()});
        let _: IgnoredAny = self.call("/v3/kv/compaction", &body)?;
        Ok(())
    }

    /// Makes a lease for so long.
    pub fn grant(&self, time: Duration) -> Result<i64, Error> {
        let body = json!({"TTL": time.as_secs().to_string()});
        let answer: message::Lease = self.call("/v3/lease/grant", &body)?;
        Ok(answer.id)
    }

    /// Makes a lease last for its whole time again. Returns whether it was still there.
    pub fn keep_alive(&self, lease: i64) -> Result<bool, Error> {
        let body = json!({"ID": lease.to_string()});
        let answer: message::Streamed<message::Lease> = self.call("/v3/lease/keepalive", &body)?;
        Ok(answer.result.ttl > 0)
    }

    /// Ends a lease, and deletes its keys.
    pub fn revoke(&self, lease: i64) -> Result<(), Error> {
        let body = json!({"ID": lease.to_string()});
        let _: IgnoredAny = self.call("/v3/lease/revoke", &body)?;
        Ok(())
    }

    /// How many members etcd itself has.
    pub fn members(&self) -> Result<usize, Error> {
        let answer: message::Members = self.call("/v3/cluster/member/list", &json!({}))?;
        Ok(answer.members.len())
    }

    /// What the member says of itself that is asked now.
    pub fn status(&self) -> Result<MemberStatus, Error> {
        self.call("/v3/maintenance/status", &json!({}))
    }

    /// Watches a key, from that revision on. It ends with an error when nothing has come for so long.
    pub fn watch(&self, key: &str, from: i64, quiet: Duration) -> Result<Watch, Error> {
        let body = json!({"create_request": {
            "key": base64(key.as_bytes()), "start_revision": from.to_string(), "fragment": true,
        }});
        let at = self.current.load(Ordering::Relaxed);
        let answer = self.send(at, "/v3/watch", &body, Some(quiet));
        answer
            .map(Watch::new)
            .inspect_err(|error| self.note(at, error))
    }

    /// The endpoint that is asked now.
    pub fn endpoint(&self) -> &str {
        &self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    /// Asks another endpoint from now on.
    pub fn turn_away(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls, once more where only the token has become too old.
    fn call<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        let at = self.current.load(Ordering::Relaxed);
        let called = self.read(at, path, body).or_else(|error| {
            if !error.is_about_token() || self.credentials.is_none() {
                return Err(error);
            }
            *self.token() = None;
            self.read(at, path, body)
        });
        called.inspect_err(|error| self.note(at, error))
    }

    fn read<T: DeserializeOwned>(&self, at: usize, path: &str, body: &Value) -> Result<T, Error> {
        let answer = self.send(at, path, body, None)?;
        let limited = answer.into_body().into_with_config().limit(ANSWER);
        let text = limited.read_to_vec().map_err(Error::of_transport)?;
        serde_json::from_slice(&text).map_err(|error| Error::Unknown(format!("{path}: {error}")))
    }

    /// Sends a call to an endpoint, and waits for the head of the answer; for its whole body as well, if it is not a stream.
    fn send(
        &self,
        at: usize,
        path: &str,
        body: &impl Serialize,
        stream: Option<Duration>,
    ) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let token = self.authenticated(at)?;
        self.send_with(at, path, body, stream, token.as_deref())
    }

    fn send_with(
        &self,
        at: usize,
        path: &str,
        body: &impl Serialize,
        stream: Option<Duration>,
        token: Option<&str>,
    ) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let endpoint = &self.endpoints[at % self.endpoints.len()];
        let text = serde_json::to_vec(body).map_err(|error| Error::Unknown(error.to_string()))?;
        let request = self.agent.post(format!("{endpoint}{path}"));
        let request = match token {
            Some(token) => request.header("Authorization", token),
            None => request,
        };
        let request = request.header("Content-Type", "application/json").config();
        let request = match stream {
            Some(quiet) => request.timeout_per_read(Some(quiet)),
            None => request.timeout_recv_body(Some(ATTEMPT)),
        };
        let answer = request
            .build()
            .send(&text[..])
            .map_err(Error::of_transport)?;
        match answer.status().as_u16() {
            200 => Ok(answer),
            status => {
                let text = answer
                    .into_body()
                    .into_with_config()
                    .limit(ANSWER)
                    .read_to_vec();
                Err(Error::of_answer(status, &text.unwrap_or_default()))
            }
        }
    }

    /// The token for the credentials, if there are any.
    fn authenticated(&self, at: usize) -> Result<Option<Arc<str>>, Error> {
        let Some(Credentials { user, password }) = &self.credentials else {
            return Ok(None);
        };
        if let Some(token) = &*self.token() {
            return Ok(Some(Arc::clone(token)));
        }
        let body = json!({"name": user, "password": password});
        let answer = self.send_with(at, "/v3/auth/authenticate", &body, None, None)?;
        let text = answer
            .into_body()
            .read_to_vec()
            .map_err(Error::of_transport)?;
        let answer: message::Authenticated =
            serde_json::from_slice(&text).map_err(|error| Error::Unknown(error.to_string()))?;
        let token: Arc<str> = answer.token.into();
        *self.token() = Some(Arc::clone(&token));
        Ok(Some(token))
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<Arc<str>>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns away from an endpoint that has failed, unless somebody else has done so already.
    fn note(&self, at: usize, error: &Error) {
        if error.may_differ_elsewhere() {
            let _ = self
                .current
                .compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn put(key: &str, value: &[u8], lease: Option<i64>) -> Value {
    json!({"key": base64(key.as_bytes()), "value": base64(value), "lease": lease.unwrap_or(0).to_string()})
}
