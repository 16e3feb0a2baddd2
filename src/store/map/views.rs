//! Views of the entries as they were, see [`crate::store::frozen`].

use std::sync::{Arc, Mutex};

use parking_lot::RwLockWriteGuard;

use super::{Map, STEP};
use crate::store::frozen::View;
use crate::store::{Entry, Expiry, Revision};

/// How many keys are live at a time.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// So many.
    pub keys: usize,
    /// When they were counted.
    pub now: Expiry,
}

impl Map {
    /// Begins a view of the entries of keys with a prefix as they are now. Also returns the revision.
    pub(in crate::store) fn add_view(&self, prefix: &str) -> (Arc<Mutex<View>>, Revision) {
        let view = Arc::new(Mutex::new(View::of(prefix)));
        let mut contents = self.write();
        contents.views.push(Arc::clone(&view));
        (view, contents.counter.last)
    }

    /// Counts what a view that was made at this moment holds. Returns the time of that, at which the counted ones are live.
    pub(in crate::store) fn add_counted_view(
        &self,
        prefix: &str,
    ) -> (Arc<Mutex<View>>, Revision, Counted) {
        let view = Arc::new(Mutex::new(View::of(prefix)));
        let mut contents = self.write();
        contents.views.push(Arc::clone(&view));
        let revision = contents.counter.last;
        // Readers may come in while it is counted, which takes about a millisecond for a million keys; writers not.
        let contents = RwLockWriteGuard::downgrade(contents);
        let now = Expiry::now();
        let keys = contents.entries.count(prefix, now);
        (view, revision, Counted { keys, now })
    }

    /// The next entries of a view, possibly none of some keys; `None` at its end.
    pub(in crate::store) fn page_of_view(&self, view: &Mutex<View>) -> Option<Vec<Entry>> {
        let contents = self.read();
        View::lock(view).page(&contents.entries, STEP, &self.budget)
    }

    /// Ends a view.
    pub(in crate::store) fn remove_view(&self, view: &Arc<Mutex<View>>) {
        let mut contents = self.write();
        let views = &mut contents.views;
        views.retain(|other| !Arc::ptr_eq(other, view));
        let kept = View::lock(view).end(&self.budget);
        drop(contents);
        drop(kept);
    }

    /// How many views there are.
    #[cfg(test)]
    pub(in crate::store) fn views(&self) -> usize {
        self.read().views.len()
    }
}
