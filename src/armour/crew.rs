//! A bounded set of threads, each of which waits for one client at a time.
//!
//! There is no queue: whoever has a job for it asks for a place first, and is told at once when there is none. Behind a
//! client that takes its time, nobody waits. Threads are started as they are needed, and end when they have not been.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::server::contain_panic;

/// How long a thread stays that has nothing to do.
const KEPT: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and how many there may be.
pub(super) struct Crew {
    name: &'static str,
    most: usize,
    /// Held to count, and to start a thread.
    counts: Mutex<Counts>,
    /// Jobs, each of which has a thread that is about to take it.
    jobs: (Sender<Job>, Receiver<Job>),
}

#[derive(Default)]
struct Counts {
    threads: usize,
    /// Places taken: no more than there are threads.
    places: usize,
}

/// A thread's time, to be used for one job. Given back when dropped.
pub(super) struct Place(Arc<Crew>);

impl Crew {
    /// A set of up to `most` threads of that name.
    pub(super) fn new(name: &'static str, most: usize) -> Arc<Crew> {
        Arc::new(Crew {
            name,
            most,
            counts: Mutex::default(),
            jobs: unbounded(),
        })
    }

    /// A place, if there is one: if not all threads are busy, or another one can be started.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let mut counts = self.counts();
        if counts.places == self.most {
            return None;
        }
        if counts.places == counts.threads {
            if let Err(error) = self.start_thread() {
                log::warn!("cannot start a thread: {error}");
                return None;
            }
            counts.threads += 1;
        }
        counts.places += 1;
        Some(Place(Arc::clone(self)))
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let crew = Arc::clone(self);
        let thread = thread::Builder::new().name(self.name.into());
        thread.spawn(move || crew.work())?;
        Ok(())
    }

    fn work(&self) {
        loop {
            match self.jobs.1.recv_timeout(KEPT) {
                Ok(job) => contain_panic(job),
                Err(_) => {
                    let mut counts = self.counts();
                    // Whoever has a place may be about to use it.
                    if counts.threads > counts.places {
                        counts.threads -= 1;
                        return;
                    }
                }
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Two numbers cannot be left half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Has the job done. The place is free again when it is done, or has panicked.
    pub(super) fn give(self, job: impl FnOnce() + Send + 'static) {
        let jobs = self.0.jobs.0.clone();
        let job = move || {
            let _place = self;
            job();
        };
        let _ = jobs.send(Box::new(job)); // cannot fail: the crew holds the other end
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counts().places -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crew_takes_no_more_jobs_than_it_has_threads_for_and_outlives_panics() {
        let crew = Crew::new("test", 2);
        for _ in 0..3 {
            let (release, released) = unbounded::<()>();
            let places = [crew.place().unwrap(), crew.place().unwrap()];
            assert!(crew.place().is_none());
            for place in places {
                let released = released.clone();
                place.give(move || {
                    let _ = released.recv();
                    panic!("in a job");
                });
            }
            assert!(crew.place().is_none());
            drop(release);
            while crew.counts().places > 0 {
                thread::yield_now();
            }
        }
        assert_eq!(crew.counts().threads, 2);
        drop(crew.place());
        assert_eq!(crew.counts().places, 0);
    }
}
