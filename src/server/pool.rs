//! The fixed pool of workers, and the two queues that feed it.
//!
//! A worker never waits for a disk, nor, behind the armour, for a client. Whoever waits for them elsewhere sends a continuation to
//! the pool when it is time to go on.
//!
//! Why two queues? New requests come by a bounded one: when the workers do not keep up, the listener turns further ones away.
//! Continuations come by an unbounded one, since workers send to it too, and a worker that waited for room in it would wait for
//! itself. It holds no more than there are connections, each of which has one request under way (see `lanes`). Continuations go first:
//! finishing what has been begun frees what it holds.
//!
//! Requests with long bodies have a worker of their own, one for all of them: it takes milliseconds to look into such a body, and
//! requests that take microseconds must not wait behind it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Shared;
use super::call::Turn;
use super::door::ClientId;
use super::lanes::Incoming;
use super::request::Head;
use crossbeam_channel::{Receiver, Sender, select_biased, unbounded};

/// Bytes that a request counts in addition to its head and its small body: about what tiny_http allocates for it.
const OVERHEAD: usize = 4 * 1024;

/// One worker goes on with so many requests of [`Pool::resume_all`]; several workers share more.
const ITEMS_A_WORKER: usize = 16;

/// New requests, several in one message, since waking a worker costs more than the message.
pub(super) type Requests = Vec<(Incoming, ClientId)>;

/// New requests on their way to a worker, and how many bytes they count.
struct Delivery {
    requests: Requests,
    bytes: usize,
}

/// Going on with something that was waited for elsewhere.
type Continuation = Box<dyn FnOnce() + Send>;

/// New requests that wait for a worker.
#[derive(Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// The way into the pool, for whoever has work for it. Clones lead into the same pool.
#[derive(Clone)]
pub struct Pool {
    requests: Sender<Delivery>,
    load: Arc<Load>,
    continuations: Sender<Continuation>,
    long: Sender<Continuation>,
}

/// The other ends of the queues, from which [`super::Server::start`] feeds the workers.
pub struct Tasks {
    requests: Receiver<Delivery>,
    load: Arc<Load>,
    continuations: Receiver<Continuation>,
    long: Receiver<Continuation>,
}

impl Pool {
    /// The most bytes of new requests that wait for a worker. Each connection has one at most, and 10,000 clients that come at once,
    /// as in the persistence test of lsfr, are not too many: there is room for 16,000 small requests, which two workers answer in less
    /// than half a second, or for 1,000 with the largest heads.
    pub const WAITING: usize = 64 * 1024 * 1024;

    /// How many new requests wait for a worker, and how many bytes they count.
    pub fn waiting(&self) -> (usize, usize) {
        (
            self.load.requests.load(Ordering::Relaxed),
            self.load.bytes.load(Ordering::Relaxed),
        )
    }

    /// The queues, made ahead of the server since the store answers by way of them.
    pub fn new() -> (Pool, Tasks) {
        let (requests, new) = unbounded();
        let load = Arc::<Load>::default();
        let (continuations, under_way) = unbounded();
        let (long, long_ones) = unbounded();
        (
            Pool {
                requests,
                load: Arc::clone(&load),
                continuations,
                long,
            },
            Tasks {
                requests: new,
                load,
                continuations: under_way,
                long: long_ones,
            },
        )
    }

    /// Lets a worker go on with a request, for a thread that has waited for something, such as the disk.
    pub fn resume(&self, work: impl FnOnce() + Send + 'static) {
        // Fails only when all workers are gone, and they stay until the process ends.
        let _ = self.continuations.send(Box::new(work));
    }

    /// The same for something that takes long: a thread of its own does it, so that workers stay free for what is short.
    pub(super) fn resume_long(&self, work: impl FnOnce() + Send + 'static) {
        let _ = self.long.send(Box::new(work)); // as above
    }

    /// Lets workers go on with several requests. Some share a worker: waking one costs more than most answers.
    pub fn resume_all<T: Send + 'static>(&self, items: Vec<T>, work: fn(T)) {
        let mut items = items.into_iter();
        while items.len() > 0 {
            let some: Vec<T> = items.by_ref().take(ITEMS_A_WORKER).collect();
            self.resume(move || {
                some.into_iter()
                    .for_each(|item| contain_panic(|| work(item)))
            });
        }
    }

    /// Hands over new requests, or gives them back if too many are waiting. For the listener only.
    pub(super) fn begin(&self, requests: Requests) -> Result<(), Requests> {
        if requests.is_empty() {
            return Ok(());
        }
        let each = requests
            .iter()
            .map(|(incoming, _)| OVERHEAD + Head::of(&incoming.request).bytes());
        let bytes = each.sum();
        if self.load.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > Pool::WAITING {
            self.load.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(requests);
        }
        let count = requests.len();
        self.load.requests.fetch_add(count, Ordering::Relaxed);
        let _ = self.requests.send(Delivery { requests, bytes }); // as above
        Ok(())
    }
}

/// Starts the workers.
pub(super) fn start(workers: usize, tasks: &Tasks, shared: &Arc<Shared>) -> io::Result<()> {
    for n in 0..workers {
        let (requests, continuations) = (tasks.requests.clone(), tasks.continuations.clone());
        let (load, shared) = (Arc::clone(&tasks.load), Arc::clone(shared));
        let work = move || work(&requests, &load, &continuations, &shared);
        thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(work)?;
    }
    let long = tasks.long.clone();
    thread::Builder::new()
        .name("worker-long".into())
        .spawn(move || long.into_iter().for_each(contain_panic))?;
    Ok(())
}

fn work(
    requests: &Receiver<Delivery>,
    load: &Load,
    continuations: &Receiver<Continuation>,
    shared: &Arc<Shared>,
) {
    loop {
        select_biased! {
            recv(continuations) -> work => match work {
                Ok(work) => contain_panic(work),
                Err(_) => return,
            },
            recv(requests) -> delivery => match delivery {
                Ok(Delivery { requests, bytes }) => {
                    load.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    load.requests.fetch_sub(requests.len(), Ordering::Relaxed);
                    for (incoming, client) in requests {
                        let turn = Turn::new(shared, client);
                        contain_panic(|| shared.serve(incoming, turn));
                    }
                }
                Err(_) => return,
            },
        }
    }
}

/// Runs some work so that a panic in it ends there. The [`super::Call`] that it held answers 500 as it is dropped; the panic hook
/// of [`super::log_panics`] logs it.
pub fn contain_panic(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Door, Plain};
    use std::time::Instant;
    use tiny_http::{Header, TestRequest};

    /// A request with a header of that size.
    fn requests(header: usize) -> Requests {
        let header = Header::from_bytes("X", vec![b'x'; header]).unwrap();
        let request = TestRequest::new().with_header(header).into();
        let connection = Plain.connection(&request);
        let client = connection.client();
        let incoming = Incoming {
            request,
            connection,
            arrived: Instant::now(),
        };
        vec![(incoming, client)]
    }

    #[test]
    fn what_waits_for_a_worker_is_bounded_in_requests_and_in_bytes() {
        let begun = |header: usize| {
            let (pool, tasks) = Pool::new();
            let begun = (0..20_000).find(|_| pool.begin(requests(header)).is_err());
            drop(tasks);
            begun.unwrap()
        };
        assert!((15_000..=16 * 1024).contains(&begun(100)));
        assert!((1000..=1100).contains(&begun(60_000)));
    }
}
