//! Those who want to know that there was a commit.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Called after a commit, on the thread that has made it. Must not wait.
type Listener = Box<dyn Fn() + Send + Sync>;

/// Whom to tell of commits, and whether anybody listens.
#[derive(Default)]
pub(super) struct Audience {
    listener: OnceLock<Listener>,
    listens: AtomicBool,
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

    /// There was a commit.
    pub(super) fn tell(&self) {
        if self.listens.load(Ordering::Relaxed)
            && let Some(listener) = self.listener.get()
        {
            listener();
        }
    }
}
