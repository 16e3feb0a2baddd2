//! The fixed pool of workers, and the queues that feed it.
//!
//! A worker never waits for a client or for a disk. What would have to wait goes elsewhere, and its continuation comes
//! back to the pool.
//!
//! There are two queues. New requests come in by a bounded one: when the workers do not keep up, it is the listener that
//! waits, and nobody waits for the listener. What goes on with a request that is under way already comes in by one that
//! is unbounded, since workers send to it too, and must not wait for each other; it holds no more than there are
//! connections, each of which has one request under way (see [`super::connections`]). It goes first.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased, unbounded};
use tiny_http::Request;

use super::Shared;
use super::connections::Client;

/// Messages with new requests that may wait for a worker. Each holds up to a batch.
const WAITING: usize = 256;

/// New requests, several in one message, since it is waking a worker that costs.
pub(super) type Batch = Vec<(Request, Client)>;

/// Going on with something that was waited for elsewhere.
type Continuation = Box<dyn FnOnce() + Send>;

/// The way into the pool, for whoever has work for it. Clones lead into the same pool.
#[derive(Clone)]
pub struct Pool {
    requests: Sender<Batch>,
    continuations: Sender<Continuation>,
}

/// The other ends of the queues, from which [`super::Server::start`] feeds the workers.
pub struct Tasks {
    requests: Receiver<Batch>,
    continuations: Receiver<Continuation>,
}

impl Pool {
    /// The queues, made ahead of the server since the store answers by way of them.
    pub fn new() -> (Pool, Tasks) {
        let (requests, new) = bounded(WAITING);
        let (continuations, under_way) = unbounded();
        (
            Pool {
                requests,
                continuations,
            },
            Tasks {
                requests: new,
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

    /// Hands over new requests; waits while too many are waiting. For the listener only.
    pub(super) fn begin(&self, batch: Batch) {
        let _ = self.requests.send(batch); // as above
    }
}

/// Starts the workers.
pub(super) fn start(workers: usize, tasks: &Tasks, shared: &Arc<Shared>) -> io::Result<()> {
    for n in 0..workers {
        let (requests, continuations) = (tasks.requests.clone(), tasks.continuations.clone());
        let shared = Arc::clone(shared);
        let work = move || work(&requests, &continuations, &shared);
        thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(work)?;
    }
    Ok(())
}

fn work(requests: &Receiver<Batch>, continuations: &Receiver<Continuation>, shared: &Arc<Shared>) {
    loop {
        select_biased! {
            recv(continuations) -> work => match work {
                Ok(work) => guard(work),
                Err(_) => return,
            },
            recv(requests) -> batch => match batch {
                Ok(batch) => for (request, client) in batch {
                    guard(|| shared.serve(request, client));
                },
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
