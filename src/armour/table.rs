//! All connections, found by socket and by client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Connection;
use crate::server::Monitor;

/// The connections that have been accepted and not been closed yet.
pub(super) struct Table {
    /// Held for a look-up, or for a look at each connection, whose own lock is taken under it. Never while anything waits.
    maps: Mutex<Maps>,
    monitor: Arc<Monitor>,
}

#[derive(Default)]
struct Maps {
    by_cookie: HashMap<u64, Arc<Connection>>,
    /// No two connections have the same client at a time.
    by_client: HashMap<SocketAddr, Arc<Connection>>,
}

impl Table {
    pub(super) fn new(monitor: Arc<Monitor>) -> Table {
        Table {
            maps: Mutex::default(),
            monitor,
        }
    }

    pub(super) fn insert(&self, connection: &Arc<Connection>) {
        let mut maps = self.lock();
        maps.by_cookie
            .insert(connection.cookie, Arc::clone(connection));
        maps.by_client
            .insert(connection.client, Arc::clone(connection));
        self.monitor.set_open(maps.by_cookie.len());
    }

    /// Forgets a connection that tiny_http is done with.
    pub(super) fn remove(&self, connection: &Connection) {
        let mut maps = self.lock();
        maps.by_cookie.remove(&connection.cookie);
        let by_client = maps.by_client.get(&connection.client);
        if by_client.is_some_and(|other| other.cookie == connection.cookie) {
            maps.by_client.remove(&connection.client);
        }
        self.monitor.set_open(maps.by_cookie.len());
    }

    /// The connection of a socket.
    pub(super) fn find(&self, cookie: u64) -> Option<Arc<Connection>> {
        self.lock().by_cookie.get(&cookie).cloned()
    }

    /// The connection of a client.
    pub(super) fn of(&self, client: &SocketAddr) -> Option<Arc<Connection>> {
        self.lock().by_client.get(client).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_cookie.len()
    }

    /// All connections of which `judge` has something to say, with what it says.
    pub(super) fn select<T>(
        &self,
        judge: impl Fn(&Connection) -> Option<T>,
    ) -> Vec<(Arc<Connection>, T)> {
        let maps = self.lock();
        let judged = maps.by_cookie.values();
        judged
            .filter_map(|it| Some((Arc::clone(it), judge(it)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        // No code under this lock panics half way through a change.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
