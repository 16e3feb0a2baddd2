//! Joins the server to the store: requests become commands, outcomes become responses.
//!
//! The order of checks is host, path, method or preflight, token, rate limit, rights, key, query, conditions, body, so a refused request costs
//! little: its body is not looked at.

mod auth;
mod conditions;
mod consistency;
mod cors;
mod hosts;
mod json;
mod limiter;
mod operating;
mod page;
mod plain;
mod refusals;
mod route;
mod token_file;
mod watching;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use percent_encoding::percent_decode_str;

use crate::host::Host;
use crate::origin::Origin;
use crate::rate::Rate;
use crate::server::{Admission, Fault, Head, Headers, Monitor, Operation, Pool, Response, Service};
use crate::store::{Key, KeyError, Store};

pub use auth::Auth;
pub use watching::Hub;

use auth::{Access, Denied};
use cors::Cors;
use hosts::Hosts;
use limiter::{Client, Limiters, TooMany};
use refusals::Refusal;
use refusals::Refusals;
use route::{Endpoint, Miss};

/// Seconds after which a client may retry a 503. By then the server may have been restarted, or slow clients may have been closed.
const RETRY_AFTER: &str = "5";

/// Both HTTP APIs over a store.
pub struct Api {
    store: Arc<Store>,
    limits: Limits,
    /// `None` lets everybody in.
    auth: Option<Arc<Auth>>,
    limiters: Limiters,
    cors: Cors,
    hosts: Hosts,
    hub: Arc<Hub>,
    exports: json::Exports,
    about: About,
    refusals: Refusals,
}

/// Upper limits for requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest value, in bytes.
    pub value_bytes: u64,
    /// The most items of a bulk request.
    pub batch: usize,
    /// The rate limit of clients that have none of their own.
    pub rate: Option<Rate>,
}

/// Who is let in.
#[derive(Default)]
pub struct Admitted {
    /// Owners of these tokens. `None` lets everybody in.
    pub auth: Option<Arc<Auth>>,
    /// Web pages of these origins.
    pub origins: Vec<Origin>,
    /// Without tokens: requests to these hosts, besides `localhost`, IP addresses and the hosts of the origins.
    pub hosts: Vec<Host>,
}

/// What the server says about itself in `status` and `health`.
pub struct About {
    /// `sync`, `os` or `none`; `memory` without a working directory.
    pub durability: String,
    /// The number of workers.
    pub workers: usize,
    /// When the server was started.
    pub started: Instant,
    /// Whether data is kept on disk.
    pub on_disk: bool,
    /// How many connections may be open, where there is a limit.
    pub max_connections: Option<usize>,
    /// Whether everybody may read the metrics.
    pub metrics_open: bool,
    /// The server's counters.
    pub monitor: Arc<Monitor>,
    /// The server's queue.
    pub pool: Pool,
}

impl Api {
    /// Serves `store`, within `limits`, to those who are admitted; `hub` is for those who watch it.
    pub fn new(
        store: Arc<Store>,
        limits: Limits,
        admitted: Admitted,
        hub: Arc<Hub>,
        about: About,
    ) -> Api {
        // With tokens, the host need not be checked: a rebound page has no token.
        let hosts = match admitted.auth {
            Some(_) => Hosts::Any,
            None => Hosts::new(admitted.hosts, &admitted.origins),
        };
        Api {
            store,
            limits,
            hosts,
            hub,
            exports: json::Exports::default(),
            auth: admitted.auth,
            limiters: Limiters::default(),
            cors: Cors::new(admitted.origins),
            about,
            refusals: Refusals::default(),
        }
    }

    /// Why no client should be sent here, in words.
    fn unready(&self) -> Option<String> {
        let draining = self.about.monitor.is_draining();
        match self.store.problem() {
            Some(problem) => Some(problem.to_string()),
            None => draining.then(|| "the server is about to stop".to_owned()),
        }
    }

    fn denied(&self, endpoint: Endpoint, denied: Denied) -> Response {
        self.refusals.count((&denied).into());
        match endpoint {
            Endpoint::Json(_) => json::deny(denied),
            Endpoint::Plain(_) | Endpoint::Operating(_) => plain::deny(denied),
        }
    }

    /// Checks token, rate limit and rights. Adds the rate-limit headers to `headers`, whether the request is let in or not.
    fn let_in(&self, head: Head<'_>, access: Access, headers: &mut Headers) -> Result<(), Denied> {
        if access == Access::Unlimited {
            return Ok(());
        }
        let address = head.peer().map(|peer| Client::at(peer.ip()));
        let (mut client, mut rate, mut read_only) = (address, self.limits.rate, false);
        if let Some(auth) = &self.auth
            && access != Access::Open
        {
            let token = auth.identify(head).ok_or(Denied::Unauthorized)?;
            client = Some(token.client);
            rate = token.rate_limit.or(rate);
            read_only = token.read_only;
        }
        if let (Some(client), Some(rate)) = (client, rate) {
            let checked = self.limiters.check(client, rate);
            let (Ok(left) | Err(TooMany { left, .. })) = &checked;
            headers.extend(left.headers());
            checked.map_err(Denied::TooMany)?;
        }
        if access == Access::Write {
            if read_only {
                return Err(Denied::ReadOnly);
            }
            if self.cors.is_forged(head) {
                return Err(Denied::Forged);
            }
        }
        Ok(())
    }
}

impl Service for Arc<Api> {
    fn headers(&self, head: Head<'_>) -> Headers {
        self.cors.headers(head)
    }

    fn admit(&self, head: Head<'_>) -> (Operation, Result<Admission, Response>) {
        let found = route::find(head.method(), head.path());
        let operation = match &found {
            Ok((endpoint, _)) => endpoint.operation(),
            Err(_) => Operation::UNKNOWN,
        };
        (operation, self.admit_to(found, head))
    }

    fn who(&self, head: Head<'_>) -> Option<String> {
        self.auth.as_ref()?.name(head)
    }

    fn refuse(&self, head: Head<'_>, fault: Fault) -> Response {
        if route::is_json(head.path()) {
            json::refuse(fault)
        } else {
            plain::refuse(fault)
        }
    }
}

impl Api {
    /// Looks at a request for an endpoint with a key, or for none.
    fn admit_to(
        self: &Arc<Self>,
        found: Result<(Endpoint, &str), Miss>,
        head: Head<'_>,
    ) -> Result<Admission, Response> {
        if !self.hosts.allow(head) {
            self.refusals.count(Refusal::UnknownHost);
            return Err(match route::is_json(head.path()) {
                true => json::deny(Denied::UnknownHost),
                false => plain::deny(Denied::UnknownHost),
            });
        }
        let (endpoint, key) = found.map_err(|miss| {
            let preflight = self.cors.preflight(head, &miss);
            preflight.unwrap_or_else(|| match route::is_json(head.path()) {
                true => json::miss(miss),
                false => plain::miss(miss),
            })
        })?;
        let mut headers = Headers::new();
        let let_in = self.let_in(head, self.access_to(endpoint), &mut headers);
        let let_in = let_in.map_err(|denied| self.denied(endpoint, denied));
        let admitted = match endpoint {
            Endpoint::Plain(endpoint) => {
                let_in.and_then(|()| plain::admit(self, endpoint, key, head))
            }
            Endpoint::Json(endpoint) => {
                let_in.and_then(|()| json::admit(self, endpoint, key, head))
            }
            Endpoint::Operating(endpoint) => {
                let_in.map(|()| operating::admit(self, endpoint, head))
            }
        };
        let admitted = admitted.and_then(|it| consistency::see_to(self, endpoint, head, it));
        match admitted {
            Ok(admission) => Ok(admission.with_headers(headers)),
            Err(response) => Err(response.with_headers(headers)),
        }
    }

    /// What a request to this endpoint needs.
    fn access_to(&self, endpoint: Endpoint) -> Access {
        use json::Endpoint as J;
        use operating::Endpoint as O;
        use plain::Endpoint as P;
        match endpoint {
            Endpoint::Json(J::Health) | Endpoint::Operating(O::Live | O::Ready) => {
                Access::Unlimited
            }
            Endpoint::Operating(O::Metrics) if self.about.metrics_open => Access::Open,
            Endpoint::Operating(O::Metrics) => Access::Read,
            // They have no data.
            Endpoint::Json(J::OpenApi) | Endpoint::Operating(O::Page) => Access::Open,
            Endpoint::Plain(P::Get)
            | Endpoint::Json(
                J::Get | J::Ttl | J::List | J::BulkGet | J::Export | J::Watch | J::Status,
            ) => Access::Read,
            Endpoint::Plain(P::Put | P::Delete | P::Clear)
            | Endpoint::Json(
                J::Put
                | J::Delete
                | J::DeletePrefix
                | J::Touch
                | J::BulkPut
                | J::BulkDelete
                | J::BulkTouch
                | J::Import,
            ) => Access::Write,
        }
    }
}

fn parse_key(in_path: &str) -> Result<Key, KeyError> {
    let bytes: Cow<'_, [u8]> = percent_decode_str(in_path).into();
    Key::try_from(&*bytes)
}
