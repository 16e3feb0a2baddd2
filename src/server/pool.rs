//! The fixed pool of workers, and the queue that feeds it.
//!
//! A worker never waits for a client or for a disk. What would have to wait goes elsewhere, and its continuation comes
//! back through the same queue.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use tiny_http::Request;

use super::Shared;

/// Work for the pool.
pub(super) enum Task {
    /// Requests as they came in, several in one message, since it is waking a worker that costs.
    Requests(Vec<Request>),
    /// Something that was waited for elsewhere has happened.
    Resume(Box<dyn FnOnce() + Send>),
}

/// The way into the pool, for whoever has work for it. Clones lead into the same pool.
#[derive(Clone)]
pub struct Pool {
    tasks: Sender<Task>,
}

/// The other end of the queue, from which [`super::Server::start`] feeds the workers.
pub struct Tasks(Receiver<Task>);

impl Pool {
    /// A queue for up to so many connections.
    ///
    /// It is bounded, and yet sending to it never waits: each connection has one request under way at most (see
    /// [`super::lanes`]), and each message carries at least one. That matters, since workers send to it too.
    pub fn new(max_connections: usize) -> (Pool, Tasks) {
        let (tasks, receiver) = bounded(max_connections);
        (Pool { tasks }, Tasks(receiver))
    }

    /// Has a worker go on with something that was waited for on another thread, such as answering a [`super::Call`].
    /// Guard each request in it with [`guard`], if there are several.
    pub fn resume(&self, work: impl FnOnce() + Send + 'static) {
        self.send(Task::Resume(Box::new(work)));
    }

    pub(super) fn send(&self, task: Task) {
        // Fails only when all workers are gone, and they stay until the process ends.
        let _ = self.tasks.send(task);
    }
}

/// Starts the workers.
pub(super) fn start(workers: usize, tasks: &Tasks, shared: &Arc<Shared>) -> io::Result<()> {
    for n in 0..workers {
        let (tasks, shared) = (tasks.0.clone(), Arc::clone(shared));
        thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(move || work(&tasks, &shared))?;
    }
    Ok(())
}

fn work(tasks: &Receiver<Task>, shared: &Arc<Shared>) {
    for task in tasks {
        match task {
            Task::Requests(requests) => {
                for request in requests {
                    guard(|| shared.serve(request));
                }
            }
            Task::Resume(work) => guard(work),
        }
    }
}

/// Runs a piece of work so that a panic in it ends there. The [`super::Call`] it held answers 500 as it is dropped; the panic
/// itself is reported by the hook that `logging` installs.
pub fn guard(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}
