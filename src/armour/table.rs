//! All connections, found by the kernel's name for their socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Connection;
use crate::server::Monitor;

/// The connections that have been accepted and not been closed yet.
pub(super) struct Table {
    /// Held for a look-up, or for a look at each connection, whose own lock is taken under it. Never while anything waits.
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    monitor: Arc<Monitor>,
}

impl Table {
    pub(super) fn new(monitor: Arc<Monitor>) -> Table {
        Table {
            connections: Mutex::default(),
            monitor,
        }
    }

    pub(super) fn insert(&self, connection: &Arc<Connection>) {
        let mut connections = self.lock();
        connections.insert(connection.cookie, Arc::clone(connection));
        self.monitor.count_accepted();
        self.monitor.set_open(connections.len());
    }

    /// Forgets a connection that tiny_http is done with.
    pub(super) fn remove(&self, connection: &Connection) {
        let mut connections = self.lock();
        if connections.remove(&connection.cookie).is_some() {
            self.monitor.count_closed(connection.closing());
        }
        self.monitor.set_open(connections.len());
    }

    /// The connection of a socket.
    pub(super) fn find(&self, cookie: u64) -> Option<Arc<Connection>> {
        self.lock().get(&cookie).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// All connections of which `judge` has something to say, with what it says.
    pub(super) fn select<T>(
        &self,
        judge: impl Fn(&Connection) -> Option<T>,
    ) -> Vec<(Arc<Connection>, T)> {
        let connections = self.lock();
        let judged = connections.values();
        judged
            .filter_map(|it| Some((Arc::clone(it), judge(it)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        // No code under this lock panics half way through a change.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
