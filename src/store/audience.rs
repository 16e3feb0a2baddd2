//! Those who want to know that there was a commit.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Revision;

/// Called after a commit, on the thread that has made it. Must not wait.
type Listener = Box<dyn Fn() + Send + Sync>;

/// Whom to tell of commits, and whether anybody listens.
#[derive(Default)]
pub(super) struct Audience {
    listener: OnceLock<Listener>,
    listens: AtomicBool,
    /// Up to where it has been told what has happened.
    told: AtomicU64,
}

impl Audience {
    /// Sets whom to tell; the first one stays.
    pub(super) fn set_listener(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Whether to tell. Whoever begins to listen and then reads the revision of the map misses no commit behind that: its lock orders
    /// the two.
    pub(super) fn set_listens(&self, listens: bool) {
        self.listens.store(listens, Ordering::Relaxed);
    }

    /// The listener knows everything up to this revision.
    pub(super) fn set_told(&self, revision: Revision) {
        self.told.store(revision, Ordering::Relaxed);
    }

    /// Commits up to this revision may be forgotten: nobody listens, or the listener knows of them.
    pub(super) fn forgettable(&self) -> Revision {
        match self.listens.load(Ordering::Relaxed) {
            true => self.told.load(Ordering::Relaxed),
            false => Revision::MAX,
        }
    }

    /// There was a commit.
    pub(super) fn tell(&self) {
        if self.listens.load(Ordering::Relaxed)
            && let Some(listener) = self.listener.get()
        {
            listener();
        }
    }
}
