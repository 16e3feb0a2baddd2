//! One request at a time per connection.
//!
//! tiny_http parses ahead: a client that pipelines has many requests out at once, and their writers wait for each
//! other so that the answers come in order. A worker that answered the second request first would wait for the first,
//! and with as many such pairs as workers, all of them would wait for an answer that none is left to write.
//!
//! So the requests of one connection go in single file. The first of them enters, those behind it wait here, without
//! a thread, until it has been answered. This also means that a client which pipelines a write and a read sees its
//! write, and that no more requests are under way than there are connections.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tiny_http::Request;

/// The connections that have a request under way.
#[derive(Default)]
pub(super) struct Lanes {
    /// By the client's address, which no two open connections share. Held for a look-up, never while anything waits,
    /// and no other lock is taken under it.
    busy: Mutex<HashMap<SocketAddr, Lane>>,
}

/// A connection that has a request under way, or must not get another one under way.
#[derive(Default)]
struct Lane {
    /// Requests that came in behind it, in order.
    waiting: VecDeque<Request>,
    /// The connection is being closed: whatever else was read from it does not count.
    closed: bool,
}

impl Lanes {
    /// Takes in the requests that a connection sent; keeps in `requests` those that may be worked on now.
    /// Hands back those that come from a closed connection, to be thrown away.
    pub(super) fn enter(&self, requests: &mut Vec<Request>) -> Vec<Request> {
        let mut busy = self.lock();
        let mut void = Vec::new();
        let mut kept = Vec::with_capacity(requests.len());
        for request in requests.drain(..) {
            let Some(peer) = request.remote_addr().copied() else {
                void.push(request); // only a UNIX socket has no address, and we listen on none
                continue;
            };
            match busy.entry(peer) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Lane::default());
                    kept.push(request);
                }
                Entry::Occupied(lane) if lane.get().closed => void.push(request),
                Entry::Occupied(mut lane) => lane.get_mut().waiting.push_back(request),
            }
        }
        *requests = kept;
        void
    }

    /// The request under way has been answered. Returns the next one of the same connection, which is under way now.
    pub(super) fn leave(&self, peer: SocketAddr) -> Option<Request> {
        let mut busy = self.lock();
        let next = busy.get_mut(&peer)?.waiting.pop_front();
        if next.is_none() {
            busy.remove(&peer);
        }
        next
    }

    /// The connection takes no more requests. Returns those that were waiting, to be thrown away.
    pub(super) fn close(&self, peer: SocketAddr) -> VecDeque<Request> {
        let mut busy = self.lock();
        let lane = busy.entry(peer).or_default();
        lane.closed = true;
        std::mem::take(&mut lane.waiting)
    }

    /// A new connection of that client: an earlier one from the same address no longer matters.
    pub(super) fn open(&self, peer: &SocketAddr) {
        let mut busy = self.lock();
        if busy.get(peer).is_some_and(|lane| lane.closed) {
            busy.remove(peer);
        }
    }

    /// Forgets closed connections that are gone.
    pub(super) fn prune(&self, is_open: impl Fn(&SocketAddr) -> bool) {
        self.lock()
            .retain(|peer, lane| !lane.closed || is_open(peer));
    }

    /// Whether any connection is closed and not yet forgotten.
    pub(super) fn any_closed(&self) -> bool {
        self.lock().values().any(|lane| lane.closed)
    }

    /// Whether this connection has a request under way.
    pub(super) fn is_busy(&self, peer: &SocketAddr) -> bool {
        self.lock().get(peer).is_some_and(|lane| !lane.closed)
    }

    /// How many connections have a request under way.
    pub(super) fn under_way(&self) -> usize {
        self.lock().values().filter(|lane| !lane.closed).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Lane>> {
        // No code under this lock panics half way through a change.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiny_http::TestRequest;

    fn request(port: u16, path: &str) -> Request {
        TestRequest::new()
            .with_remote_addr(address(port))
            .with_path(path)
            .into()
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn paths(requests: &[Request]) -> Vec<&str> {
        requests.iter().map(Request::url).collect()
    }

    #[test]
    fn requests_of_one_connection_go_in_single_file() {
        let lanes = Lanes::default();
        let mut batch = vec![
            request(1, "/a"),
            request(1, "/b"),
            request(2, "/c"),
            request(1, "/d"),
        ];
        assert!(lanes.enter(&mut batch).is_empty());
        assert_eq!(paths(&batch), ["/a", "/c"]);
        assert_eq!(lanes.under_way(), 2);
        assert_eq!(lanes.leave(address(1)).unwrap().url(), "/b");
        assert_eq!(lanes.leave(address(1)).unwrap().url(), "/d");
        assert!(lanes.is_busy(&address(1)));
        assert!(lanes.leave(address(1)).is_none());
        assert!(!lanes.is_busy(&address(1)));
    }

    #[test]
    fn a_closed_connection_takes_no_more_requests_until_it_is_gone() {
        let lanes = Lanes::default();
        let mut batch = vec![request(1, "/a"), request(1, "/b")];
        lanes.enter(&mut batch);
        assert_eq!(lanes.close(address(1)).len(), 1);
        let mut batch = vec![request(1, "/c")];
        assert_eq!(paths(&lanes.enter(&mut batch)), ["/c"]);
        assert!(batch.is_empty());
        lanes.prune(|_| true);
        assert!(lanes.any_closed());
        lanes.prune(|_| false);
        assert!(!lanes.any_closed());
        lanes.close(address(1));
        lanes.open(&address(1));
        let mut batch = vec![request(1, "/d")];
        assert!(lanes.enter(&mut batch).is_empty());
        assert_eq!(paths(&batch), ["/d"]);
    }
}
