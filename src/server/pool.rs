//! The fixed pool of workers, and the queues that feed it.
//!
//! A worker never waits for a client or for a disk. What would have to wait goes elsewhere, and its continuation comes
//! back to the pool.
//!
//! There are two queues. New requests come in by a bounded one: when the workers do not keep up, further ones are turned
//! away, by the listener, since that takes next to nothing. What goes on with a request that is under way already comes in by one that
//! is unbounded, since workers send to it too, and must not wait for each other; it holds no more than there are
//! connections, each of which has one request under way (see [`super::connections`]). It goes first.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, select_biased, unbounded};
use tiny_http::Request;

use super::Shared;
use super::connections::Client;
use super::request::Head;

/// What new requests that wait for a worker may weigh together. Each connection has one at most, and ten thousand clients
/// that come at once, as the persistence test of lsfr has it, are not too many: there is room for 16,000 small requests,
/// which two workers answer in less than half a second, or for 1,000 with the largest heads.
const WAITING: usize = 64 * 1024 * 1024;

/// What a request weighs, in bytes, beside those of its head and its small body: about what tiny_http makes of them.
const WEIGHT: usize = 4 * 1024;

/// New requests, several in one message, since it is waking a worker that costs.
pub(super) type Batch = Vec<(Request, Client)>;

/// A batch on its way, and what it weighs.
struct Message {
    batch: Batch,
    weight: usize,
}

/// Going on with something that was waited for elsewhere.
type Continuation = Box<dyn FnOnce() + Send>;

/// The way into the pool, for whoever has work for it. Clones lead into the same pool.
#[derive(Clone)]
pub struct Pool {
    requests: Sender<Message>,
    /// What waits for a worker.
    load: Arc<AtomicUsize>,
    continuations: Sender<Continuation>,
}

/// The other ends of the queues, from which [`super::Server::start`] feeds the workers.
pub struct Tasks {
    requests: Receiver<Message>,
    load: Arc<AtomicUsize>,
    continuations: Receiver<Continuation>,
}

impl Pool {
    /// The queues, made ahead of the server since the store answers by way of them.
    pub fn new() -> (Pool, Tasks) {
        let (requests, new) = unbounded();
        let load = Arc::<AtomicUsize>::default();
        let (continuations, under_way) = unbounded();
        (
            Pool {
                requests,
                load: Arc::clone(&load),
                continuations,
            },
            Tasks {
                requests: new,
                load,
                continuations: under_way,
            },
        )
    }

    /// Has a worker go on with something that was waited for on another thread, such as answering a [`super::Call`].
    /// Guard each request in it with [`contain_panic`], if there are several.
    pub fn resume(&self, work: impl FnOnce() + Send + 'static) {
        // Fails only when all workers are gone, and they stay until the process ends.
        let _ = self.continuations.send(Box::new(work));
    }

    /// Hands over new requests, or gives them back if too many are waiting. For the listener only.
    pub(super) fn begin(&self, batch: Batch) -> Result<(), Batch> {
        if batch.is_empty() {
            return Ok(());
        }
        let weights = batch.iter().map(|it| WEIGHT + Head::of(&it.0).bytes());
        let weight = weights.sum();
        if self.load.fetch_add(weight, Ordering::Relaxed) + weight > WAITING {
            self.load.fetch_sub(weight, Ordering::Relaxed);
            return Err(batch);
        }
        let _ = self.requests.send(Message { batch, weight }); // as above
        Ok(())
    }
}

/// Starts the workers.
pub(super) fn start(workers: usize, tasks: &Tasks, shared: &'static Shared) -> io::Result<()> {
    for n in 0..workers {
        let (requests, continuations) = (tasks.requests.clone(), tasks.continuations.clone());
        let load = Arc::clone(&tasks.load);
        let work = move || work(&requests, &load, &continuations, shared);
        thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(work)?;
    }
    Ok(())
}

fn work(
    requests: &Receiver<Message>,
    load: &AtomicUsize,
    continuations: &Receiver<Continuation>,
    shared: &'static Shared,
) {
    loop {
        select_biased! {
            recv(continuations) -> work => match work {
                Ok(work) => contain_panic(work),
                Err(_) => return,
            },
            recv(requests) -> message => match message {
                Ok(Message { batch, weight }) => {
                    load.fetch_sub(weight, Ordering::Relaxed);
                    for (request, client) in batch {
                        contain_panic(|| shared.serve(request, client));
                    }
                }
                Err(_) => return,
            },
        }
    }
}

/// Runs a piece of work so that a panic in it ends there. The [`super::Call`] it held answers 500 as it is dropped; the
/// panic itself is reported by the hook of [`super::report_panics`].
pub fn contain_panic(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::connections::Connections;
    use std::net::SocketAddr;
    use tiny_http::{Header, TestRequest};

    /// A request of some client, with a header of that size.
    fn batch(header: usize) -> Batch {
        let header = Header::from_bytes("X", vec![b'x'; header]).unwrap();
        let request = TestRequest::new()
            .with_remote_addr(SocketAddr::from(([127, 0, 0, 1], 1)))
            .with_header(header);
        Connections::default().enter(vec![request.into()]).now
    }

    #[test]
    fn what_waits_for_a_worker_is_bounded_in_requests_and_in_bytes() {
        let begun = |header: usize| {
            let (pool, tasks) = Pool::new();
            let begun = (0..20_000).find(|_| pool.begin(batch(header)).is_err());
            drop(tasks);
            begun.unwrap()
        };
        assert!((15_000..=16 * 1024).contains(&begun(100)));
        assert!((1000..=1100).contains(&begun(60_000)));
    }
}
