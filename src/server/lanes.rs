//! Single file: one request of a connection at a time.
//!
//! tiny_http parses ahead. A client that pipelines has many requests out at once, and tiny_http makes their writers wait for each
//! other, so that the answers go out in order. A worker that answered the second request first would wait for the first one. With
//! as many such pairs as workers, all workers would wait, and nobody would be left to write the answers that they wait for.
//!
//! So the first request of a connection goes to the workers, and those behind it wait here, without a thread, until it has been
//! answered. A client that pipelines a write and a read therefore sees its write.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tiny_http::Request;

use super::door::{ClientId, Connection};

/// A request that has come in.
pub(super) struct Incoming {
    pub(super) request: Request,
    /// The connection that it came by.
    pub(super) connection: Arc<dyn Connection>,
    /// When it had been read.
    pub(super) arrived: Instant,
}

/// The connections that have a request under way, each with the requests that wait behind it.
#[derive(Default)]
pub(super) struct Lanes {
    /// Held for a look-up. No other lock is taken under it.
    /// By the number of the connection.
    lanes: Mutex<HashMap<u64, VecDeque<Incoming>>>,
}

impl Lanes {
    /// Takes in requests in the order in which they were read. Returns those that are to be served now.
    pub(super) fn enter(&self, requests: Vec<Incoming>) -> Vec<(Incoming, ClientId)> {
        let mut now = Vec::with_capacity(requests.len());
        let mut lanes = self.lock();
        for request in requests {
            let client = request.connection.client();
            match lanes.entry(client.connection) {
                Entry::Occupied(lane) => lane.into_mut().push_back(request),
                Entry::Vacant(lane) => {
                    lane.insert(VecDeque::new());
                    now.push((request, client));
                }
            }
        }
        now
    }

    /// The request under way has been answered. Returns the next one of the same connection, which is under way now.
    pub(super) fn leave(&self, connection: u64) -> Option<Incoming> {
        let mut lanes = self.lock();
        let Entry::Occupied(mut lane) = lanes.entry(connection) else {
            return None;
        };
        let next = lane.get_mut().pop_front();
        if next.is_none() {
            lane.remove();
        }
        next
    }

    /// How many connections have a request under way.
    pub(super) fn under_way(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, VecDeque<Incoming>>> {
        // Nothing under this lock panics half way through a change.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Door, Plain};
    use std::net::SocketAddr;
    use tiny_http::TestRequest;

    fn request(port: u16, path: &str) -> Incoming {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let request = TestRequest::new().with_remote_addr(address);
        let request = request.with_path(path).into();
        let connection = Plain.connection(&request);
        Incoming {
            request,
            connection,
            arrived: Instant::now(),
        }
    }

    fn client(port: u16) -> u64 {
        request(port, "/").connection.client().connection
    }

    fn paths(requests: &[(Incoming, ClientId)]) -> Vec<&str> {
        requests
            .iter()
            .map(|(incoming, _)| incoming.request.url())
            .collect()
    }

    #[test]
    fn requests_of_one_connection_go_in_single_file() {
        let lanes = Lanes::default();
        let first = [(1, "/a"), (1, "/b"), (2, "/c"), (1, "/d")];
        let first = first.map(|(port, path)| request(port, path));
        assert_eq!(paths(&lanes.enter(first.into())), ["/a", "/c"]);
        assert_eq!(lanes.under_way(), 2);
        assert_eq!(lanes.leave(client(1)).unwrap().request.url(), "/b");
        assert_eq!(lanes.leave(client(1)).unwrap().request.url(), "/d");
        assert_eq!(lanes.under_way(), 2);
        assert!(lanes.leave(client(1)).is_none());
        assert_eq!(lanes.under_way(), 1);
        assert_eq!(paths(&lanes.enter(vec![request(1, "/e")])), ["/e"]);
    }
}
