//! Copies of what is there when a watcher begins, made by a thread of its own: it takes a tenth of a second for a million keys,
//! and nobody else shall wait for that.
//!
//! A copy holds pointers, and is made as fast as that goes, whatever the pace at which its watchers read.

use std::io;
use std::slice;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::budget::Reservation;
use crate::store::{Entry, Expiry, Interest, Revision, Store};

/// The entries of a prefix as they were at one revision.
pub(super) struct Copy {
    pub(super) entries: Vec<Entry>,
    pub(super) revision: Revision,
    /// The memory of the pointers.
    _reserved: Reservation,
}

/// A watcher that waits for a copy.
pub(super) struct Order {
    pub(super) watcher: u64,
    pub(super) interest: Interest,
    pub(super) reserved: Reservation,
}

/// Has a copy made for each order, and `deliver` called with it.
pub(super) fn start(
    store: Arc<Store>,
    deliver: impl Fn(u64, &Arc<Copy>) + Send + 'static,
) -> io::Result<Sender<Order>> {
    let (orders, ordered) = unbounded();
    thread::Builder::new()
        .name("copies".into())
        .spawn(move || work(&store, &ordered, deliver))?;
    Ok(orders)
}

fn work(store: &Store, ordered: &Receiver<Order>, deliver: impl Fn(u64, &Arc<Copy>)) {
    let mut waiting: Vec<Order> = Vec::new();
    loop {
        waiting.extend(ordered.try_iter());
        if waiting.is_empty() {
            match ordered.recv() {
                Ok(order) => waiting.push(order),
                Err(_) => return,
            }
            continue;
        }
        // Those who want the same share it: after a restart they all come at once.
        let Order {
            watcher,
            interest,
            reserved,
        } = waiting.swap_remove(0);
        let same = waiting.extract_if(.., |it| it.interest == interest);
        let watchers: Vec<u64> = same.map(|it| it.watcher).chain([watcher]).collect();
        let (entries, revision) = copy(store, &interest);
        let copy = Arc::new(Copy {
            entries,
            revision,
            _reserved: reserved,
        });
        watchers.into_iter().for_each(|it| deliver(it, &copy));
    }
}

/// The entries of these keys as they are now, and the revision of that.
fn copy(store: &Store, interest: &Interest) -> (Vec<Entry>, Revision) {
    match interest {
        Interest::Key(key) => {
            let (entries, revision) = store.get_all(slice::from_ref(key));
            (entries.into_iter().flatten().collect(), revision)
        }
        Interest::Prefix(prefix) => {
            let (entries, revision) = store.copy(prefix);
            let now = Expiry::now();
            let live = entries.filter(|entry| entry.is_live(now));
            (live.collect(), revision)
        }
    }
}
