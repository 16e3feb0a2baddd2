//! The connections that clients have with us, and the requests on them: one at a time each.
//!
//! tiny_http parses ahead: a client that pipelines has many requests out at once, and their writers wait for each
//! other so that the answers come in order. A worker that answered the second request first would wait for the first,
//! and with as many such pairs as workers, all of them would wait for an answer that none is left to write.
//!
//! So the requests of a connection go in single file. The first of them enters, those behind it wait here, without a
//! thread, until it has been answered. This also means that a client which pipelines a write and a read sees its write,
//! and that no more requests are under way than there are connections.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiny_http::Request;

use crate::memory;

use super::clock::{self, Tick};
use super::receive::{Doing, Inflow};
use super::sockets::{self, Held, Unread, cookie, peer};

/// About what tiny_http and we allocate for a connection.
const CONNECTION_BYTES: usize = 16 * 1024;

/// All connections, by their client's address, which no two of them share at a time.
#[derive(Default)]
pub(super) struct Connections {
    /// Held for a look-up, or for one question to the kernel about each connection. Never while anything waits, and no
    /// other lock is taken under it.
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    connections: HashMap<SocketAddr, Connection>,
    /// How many there have been.
    accepted: u64,
}

/// One connection.
struct Connection {
    /// Different from that of any other connection, an earlier one of the same client included.
    id: u64,
    /// The descriptor that it was accepted as; -1 if it was not accepted by way of [`super::accept`].
    fd: RawFd,
    /// The socket behind it.
    cookie: Option<u64>,
    /// Whether a request is under way.
    busy: bool,
    stage: Stage,
    /// When it was last known to have a request under way; when it was accepted, if it has had none.
    rested: Tick,
    /// What its client sends.
    inflow: Arc<Inflow>,
    /// Requests that came in behind the one that is under way, in order; when closing, those that are void.
    waiting: VecDeque<Request>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// What else is read from it does not count, but it may still be read from.
    Closing,
    /// It has been shut down.
    Closed,
}

/// A connection, as those see it who deal with it for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    id: u64,
}

/// A connection, as the kernel and the table describe it.
pub(super) struct Listed {
    pub(super) client: Client,
    pub(super) fd: RawFd,
    pub(super) busy: bool,
}

impl Listed {
    /// Ends the connection, unless the client has sent something that nobody has come to read yet.
    pub(super) fn close_unless_unread(&self) {
        let address = self.client.address;
        if !matches!(sockets::unread(self.fd, address), Unread::For(_))
            && let Some(held) = Held::new(self.fd, address)
        {
            held.shut_down();
        }
    }
}

/// What to do with requests that have come in.
#[derive(Default)]
pub(super) struct Entered {
    /// To be served now.
    pub(super) now: Vec<(Request, Client)>,
    /// To be thrown away: their connection is closed.
    pub(super) void: Vec<Request>,
}

impl Connections {
    /// A connection has been accepted. Returns what its client sends, and requests that an earlier connection of the same
    /// client has left behind.
    pub(super) fn insert(
        &self,
        address: SocketAddr,
        fd: RawFd,
    ) -> (Arc<Inflow>, VecDeque<Request>) {
        let mut table = self.lock();
        let connection = Connection::new(&mut table.accepted, fd);
        let inflow = Arc::clone(&connection.inflow);
        let earlier = table.connections.insert(address, connection);
        let left = earlier.map(|mut earlier| {
            earlier.inflow.end();
            mem::take(&mut earlier.waiting)
        });
        (inflow, left.unwrap_or_default())
    }

    /// What comes in by a descriptor, if it is one of a client's connection.
    pub(super) fn inflow(&self, fd: RawFd) -> Option<Arc<Inflow>> {
        let (client, cookie) = (peer(fd)?, cookie(fd)?);
        let table = self.lock();
        let connection = table.connections.get(&client)?;
        (connection.cookie == Some(cookie)).then(|| Arc::clone(&connection.inflow))
    }

    /// Whether tiny_http still deals with an earlier connection from that address, and may hand out requests of it.
    pub(super) fn has_earlier(&self, address: &SocketAddr) -> bool {
        let table = self.lock();
        table
            .connections
            .get(address)
            .is_some_and(Connection::is_open)
    }

    /// How many connections there are, at most: some may have ended unnoticed.
    pub(super) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Forgets those that tiny_http is done with, and that have nothing under way; returns how many are left.
    pub(super) fn prune(&self) -> usize {
        let mut table = self.lock();
        table.connections.retain(|_, connection| {
            connection.busy || connection.is_read() || connection.is_open()
        });
        table.connections.len()
    }

    /// Takes in requests, in the order in which they were read.
    pub(super) fn enter(&self, requests: Vec<Request>) -> Entered {
        let mut entered = Entered::default();
        entered.now.reserve(requests.len());
        let mut table = self.lock();
        let Table {
            connections,
            accepted,
        } = &mut *table;
        for request in requests {
            let Some(address) = request.remote_addr().copied() else {
                entered.void.push(request); // only a UNIX socket has no address, and we listen on none
                continue;
            };
            let connection = connections
                .entry(address)
                .or_insert_with(|| Connection::new(accepted, -1));
            match connection.stage {
                Stage::Closed => entered.void.push(request),
                Stage::Serving if !connection.busy => {
                    connection.busy = true;
                    entered.now.push((
                        request,
                        Client {
                            address,
                            id: connection.id,
                        },
                    ));
                }
                Stage::Serving | Stage::Closing => connection.waiting.push_back(request),
            }
        }
        entered
    }

    /// The request under way has been answered. Returns the next one of the same connection, which is under way now.
    pub(super) fn leave(&self, client: Client) -> Option<Request> {
        let mut table = self.lock();
        let connection = table.get_mut(client)?;
        let next = connection.waiting.pop_front();
        connection.busy = next.is_some();
        connection.rested = clock::now();
        connection.inflow.answered();
        next
    }

    /// What is read from the connection from now on does not count.
    pub(super) fn begin_closing(&self, client: Client) {
        if let Some(connection) = self.lock().get_mut(client) {
            connection.stage = Stage::Closing;
        }
    }

    /// Nothing more is to be read from the connection.
    pub(super) fn end(&self, client: Client) {
        if let Some(connection) = self.lock().get_mut(client) {
            connection.stage = Stage::Closing;
            connection.inflow.end();
        }
    }

    /// The connection has ended, and its last request answered. Returns what is to be thrown away.
    pub(super) fn closed(&self, client: Client) -> VecDeque<Request> {
        let mut table = self.lock();
        let Some(connection) = table.get_mut(client) else {
            return VecDeque::new();
        };
        connection.stage = Stage::Closed;
        connection.busy = false;
        mem::take(&mut connection.waiting)
    }

    /// Takes hold of a connection, if it is still there.
    pub(super) fn hold(&self, client: Client) -> Option<Held> {
        let fd = self.lock().get_mut(client)?.fd;
        Held::new(fd, client.address)
    }

    /// Of the connections without a request under way those of which there is something to say: `judge` is told what the client
    /// is doing, and when it last had a request under way. Forgets those that tiny_http is done with.
    pub(super) fn select<T>(&self, judge: impl Fn(Doing, Tick) -> Option<T>) -> Vec<(Listed, T)> {
        let (mut table, mut selected) = (self.lock(), Vec::new());
        table.connections.retain(|address, connection| {
            if connection.busy {
                return true;
            }
            if connection.inflow.has_ended() {
                return connection.is_open();
            }
            if let Some(judgement) = judge(connection.inflow.doing(), connection.rested) {
                selected.push((connection.listed(*address), judgement));
            }
            true
        });
        selected
    }

    /// How many connections have a request under way.
    pub(super) fn under_way(&self) -> usize {
        self.lock()
            .connections
            .values()
            .filter(|connection| connection.busy)
            .count()
    }

    /// All connections. By the time one is looked at, it may have ended, or have become busy.
    pub(super) fn list(&self) -> Vec<Listed> {
        let table = self.lock();
        let connections = table.connections.iter();
        connections
            .map(|(address, connection)| connection.listed(*address))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code under this lock panics half way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        memory::freed(CONNECTION_BYTES);
    }
}

impl Connection {
    /// A new one, which counts as accepted.
    fn new(accepted: &mut u64, fd: RawFd) -> Connection {
        *accepted += 1;
        Connection {
            id: *accepted,
            fd,
            cookie: cookie(fd),
            busy: false,
            stage: Stage::Serving,
            rested: clock::now(),
            inflow: Inflow::new(),
            waiting: VecDeque::new(),
        }
    }

    fn listed(&self, address: SocketAddr) -> Listed {
        Listed {
            client: Client {
                address,
                id: self.id,
            },
            fd: self.fd,
            busy: self.busy,
        }
    }

    /// Whether tiny_http reads from it, so that nobody has to ask the kernel whether it is open.
    fn is_read(&self) -> bool {
        self.inflow.is_attended() && !self.inflow.has_ended()
    }

    /// Whether tiny_http has not closed it yet. It may have ended all the same, and its descriptors count until then.
    fn is_open(&self) -> bool {
        self.cookie.is_some() && cookie(self.fd) == self.cookie
    }
}

impl Table {
    fn get_mut(&mut self, client: Client) -> Option<&mut Connection> {
        self.connections
            .get_mut(&client.address)
            .filter(|connection| connection.id == client.id)
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

    fn paths(entered: &Entered) -> Vec<&str> {
        entered
            .now
            .iter()
            .map(|(request, _)| request.url())
            .collect()
    }

    #[test]
    fn requests_of_one_connection_go_in_single_file() {
        let connections = Connections::default();
        let batch = vec![
            request(1, "/a"),
            request(1, "/b"),
            request(2, "/c"),
            request(1, "/d"),
        ];
        let entered = connections.enter(batch);
        assert_eq!(paths(&entered), ["/a", "/c"]);
        assert!(entered.void.is_empty());
        assert_eq!(connections.under_way(), 2);
        let client = entered.now[0].1;
        assert_eq!(connections.leave(client).unwrap().url(), "/b");
        assert_eq!(connections.leave(client).unwrap().url(), "/d");
        assert_eq!(connections.under_way(), 2);
        assert!(connections.leave(client).is_none());
        assert_eq!(connections.under_way(), 1);
        assert_eq!(paths(&connections.enter(vec![request(1, "/e")])), ["/e"]);
    }

    #[test]
    fn a_connection_that_closes_takes_no_more_requests() {
        let connections = Connections::default();
        let entered = connections.enter(vec![request(1, "/a"), request(1, "/b")]);
        let client = entered.now[0].1;
        connections.begin_closing(client);
        assert!(paths(&connections.enter(vec![request(1, "/c")])).is_empty());
        assert_eq!(connections.under_way(), 1);
        assert_eq!(connections.closed(client).len(), 2);
        assert_eq!(connections.under_way(), 0);
        let entered = connections.enter(vec![request(1, "/d")]);
        assert_eq!((entered.now.len(), entered.void.len()), (0, 1));
    }

    #[test]
    fn a_new_connection_of_the_same_client_is_another_one() {
        let connections = Connections::default();
        let earlier = connections
            .enter(vec![request(1, "/a"), request(1, "/b")])
            .now[0]
            .1;
        assert_eq!(connections.insert(address(1), -1).1.len(), 1);
        // What becomes of the earlier one does not touch it.
        connections.begin_closing(earlier);
        assert!(connections.closed(earlier).is_empty());
        assert!(connections.leave(earlier).is_none());
        assert!(connections.hold(earlier).is_none());
        assert_eq!(paths(&connections.enter(vec![request(1, "/c")])), ["/c"]);
    }

    #[test]
    fn a_connection_that_has_ended_counts_until_nothing_is_under_way() {
        let connections = Connections::default();
        connections.insert(address(1), -1);
        let client = connections.enter(vec![request(1, "/a")]).now[0].1;
        assert_eq!(connections.prune(), 1);
        connections.leave(client);
        assert_eq!(connections.prune(), 0);
    }
}
