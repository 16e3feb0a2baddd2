//! What the threads of a node share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ClusterStatus;
use super::readers::{Reader, Readers};
use super::replica::Replica;
use crate::etcd::Etcd;
use crate::store::commit::stall::UnderWay;
use crate::store::commit::{Deliver, Reply};
use crate::store::{Map, NotCurrent};

/// The map has everything if that was so when it was asked no longer ago.
const CURRENT: Duration = Duration::from_secs(2);

/// The longest that is waited for company on the way to etcd.
const COMPANY: Duration = Duration::from_millis(5);

/// For how long to wait for others on the way to etcd, if the last time took so long. It takes etcd about as long to agree on a record of a hundred
/// commands as on one of one, and to say how far the log is to a hundred readers; and clients that were answered come back. So whoever goes
/// waits for as many as there were the last time, but not for long.
pub(super) fn company(took: Duration) -> Duration {
    (took / 2).min(COMPANY)
}

/// What they share.
pub(super) struct Shared {
    pub(super) etcd: Etcd,
    pub(super) keys: Keys,
    /// Which node this is; another one at each start.
    pub(super) producer: u64,
    pub(super) name: String,
    pub(super) replica: Mutex<Replica>,
    pub(super) map: Arc<Map>,
    pub(super) readers: Readers,
    pub(super) under_way: Arc<UnderWay>,
    pub(super) deliver: Arc<Deliver>,
    /// There is something in the log that this version does not know. Never reset.
    pub(super) broken: AtomicBool,
    /// etcd has no room.
    pub(super) full: AtomicBool,
    /// The clock of this node is far ahead of the others'.
    pub(super) ahead: AtomicBool,
    pub(super) status: Mutex<ClusterStatus>,
    /// The lease under which this node lives.
    pub(super) lease: Mutex<Option<i64>>,
    /// This node is about to leave.
    pub(super) leaving: AtomicBool,
}

/// The names of the keys in etcd.
pub(super) struct Keys {
    pub(super) log: String,
    pub(super) head: String,
    pub(super) snapshots: String,
    pub(super) nodes: String,
    pub(super) leader: String,
    pub(super) barrier: String,
}

impl Keys {
    /// The key of a node.
    pub(super) fn node(&self, producer: u64) -> String {
        format!("{}{producer:016x}", self.nodes)
    }

    pub(super) fn with_prefix(prefix: &str) -> Keys {
        let key = |name: &str| format!("{prefix}{name}");
        Keys {
            log: key("log"),
            head: key("snap/head"),
            snapshots: key("snap/"),
            nodes: key("node/"),
            leader: key("leader"),
            barrier: key("barrier"),
        }
    }
}

impl Shared {
    pub(super) fn replica(&self) -> MutexGuard<'_, Replica> {
        // A panic half way through a record would make this node differ from the others, and `Follower` sees to that.
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> MutexGuard<'_, ClusterStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the map has had everything a short time ago.
    pub(super) fn is_current(&self) -> bool {
        let current = self.readers.current();
        current.is_some_and(|it| it.elapsed() < CURRENT)
    }

    pub(super) fn lease(&self) -> MutexGuard<'_, Option<i64>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this node is gone, so that nobody has to wait until that is noticed.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        let lease = self.lease().take();
        if let Some(Err(error)) = lease.map(|lease| self.etcd.revoke(lease)) {
            log::debug!("the others will notice that this node is gone: {error}");
        }
    }

    /// Lets reads begin, or tells them that they must not.
    pub(super) fn answer(&self, readers: Vec<Reader>, result: Result<(), NotCurrent>) {
        if readers.is_empty() {
            return;
        }
        let replies = readers.into_iter();
        (self.deliver)(
            replies
                .map(|reader| Reply::to_reader(reader.start, result))
                .collect(),
        );
    }
}
