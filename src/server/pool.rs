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

/// New requests that may wait for a worker. Each connection has one at most, and ten thousand clients that come at once,
/// as the persistence test of lsfr has it, are not too many. Two workers answer so many in less than half a second.
const WAITING: usize = 16 * 1024;

/// The most bytes of their heads and small bodies: hundreds of kilobytes as a rule, but a head may have 64 KiB.
const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// New requests, several in one message, since it is waking a worker that costs.
pub(super) type Batch = Vec<(Request, Client)>;

/// A batch on its way, and how many bytes it has.
struct Message {
    batch: Batch,
    bytes: usize,
}

/// What waits for a worker.
#[derive(Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Going on with something that was waited for elsewhere.
type Continuation = Box<dyn FnOnce() + Send>;

/// The way into the pool, for whoever has work for it. Clones lead into the same pool.
#[derive(Clone)]
pub struct Pool {
    requests: Sender<Message>,
    load: Arc<Load>,
    continuations: Sender<Continuation>,
}

/// The other ends of the queues, from which [`super::Server::start`] feeds the workers.
pub struct Tasks {
    requests: Receiver<Message>,
    load: Arc<Load>,
    continuations: Receiver<Continuation>,
}

impl Pool {
    /// The queues, made ahead of the server since the store answers by way of them.
    pub fn new() -> (Pool, Tasks) {
        let (requests, new) = unbounded();
        let load = Arc::<Load>::default();
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
    /// Guard each request in it with [`guard`], if there are several.
    pub fn resume(&self, work: impl FnOnce() + Send + 'static) {
        // Fails only when all workers are gone, and they stay until the process ends.
        let _ = self.continuations.send(Box::new(work));
    }

    /// Hands over new requests, or gives them back if too many are waiting. For the listener only.
    pub(super) fn begin(&self, batch: Batch) -> Result<(), Batch> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.iter().map(|it| Head::of(&it.0).bytes()).sum();
        let load = &self.load;
        // Others may add some at the same time, where there is more than one listener: the limits are not that exact.
        if load.requests.load(Ordering::Relaxed) + batch.len() > WAITING
            || load.bytes.load(Ordering::Relaxed) + bytes > WAITING_BYTES
        {
            return Err(batch);
        }
        load.requests.fetch_add(batch.len(), Ordering::Relaxed);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let _ = self.requests.send(Message { batch, bytes }); // as above
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
    Ok(())
}

fn work(
    requests: &Receiver<Message>,
    load: &Load,
    continuations: &Receiver<Continuation>,
    shared: &Arc<Shared>,
) {
    loop {
        select_biased! {
            recv(continuations) -> work => match work {
                Ok(work) => guard(work),
                Err(_) => return,
            },
            recv(requests) -> message => match message {
                Ok(Message { batch, bytes }) => {
                    load.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    for (request, client) in batch {
                        load.requests.fetch_sub(1, Ordering::Relaxed);
                        guard(|| shared.serve(request, client));
                    }
                }
                Err(_) => return,
            },
        }
    }
}

/// Runs a piece of work so that a panic in it ends there. The [`super::Call`] it held answers 500 as it is dropped; the
/// panic itself is reported by the hook of [`super::report_panics`].
pub fn guard(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}
