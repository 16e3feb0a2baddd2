//! Joins the server to the store: requests become commands, outcomes become responses.
//!
//! The order of checks is path, method, key, body, so a refused request costs little: its body is not looked at.

mod plain;
mod route;

use std::sync::Arc;

use crate::server::{Admission, Fault, Head, Response, Service};
use crate::store::Store;

/// The HTTP API over a store.
pub struct Api {
    store: Arc<Store>,
    /// The most bytes a value may have.
    max_value_bytes: u64,
}

impl Api {
    /// Serves `store`, with values of up to `max_value_bytes` bytes.
    pub fn new(store: Arc<Store>, max_value_bytes: u64) -> Api {
        Api {
            store,
            max_value_bytes,
        }
    }
}

impl Service for Api {
    fn admit(&self, head: Head<'_>) -> Result<Admission, Response> {
        let path = head.path();
        let (route, key) = route::find(path).ok_or_else(plain::not_found)?;
        let endpoint = route
            .endpoint(head.method())
            .ok_or_else(|| plain::method_not_allowed(route))?;
        plain::admit(self, endpoint, key)
    }

    fn refuse(&self, _head: Head<'_>, fault: Fault) -> Response {
        plain::refuse(fault)
    }
}
