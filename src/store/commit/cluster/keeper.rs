//! The thread that says that this node lives, knows who else does, and does what one of them has to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::clocks::Clocks;
use super::record::{NodeState, SnapshotHead};
use super::snapshot::{self, Written};
use crate::etcd::{Error, MemberStatus};
use crate::store::Expiry;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// A node of which nothing was heard for so long is gone.
const LEASE: Duration = Duration::from_secs(10);

/// After so many of etcd's revisions it is time to have it forget the old ones, also where the log has hardly grown: barriers may be puts.
const REVISIONS: i64 = 1 << 20;

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It does what one of them has to do: snapshots, and removing what has expired.
    Leader,
    /// Another one does.
    #[default]
    Follower,
    /// It cannot tell whether it has everything.
    NoQuorum,
}

/// What a node knows about its cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterStatus {
    /// What this node is.
    pub role: Role,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many members etcd has.
    pub members: usize,
    /// The version of the member of etcd that is asked.
    pub version: String,
    /// Bytes of its database.
    pub db_size: i64,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    snapshot_after: u64,
    beaten: Instant,
    clocks: Clocks,
    /// etcd's revision when it was last made to forget, or this node began.
    forgotten: Option<i64>,
    /// A snapshot that has failed is tried again no sooner.
    snapshot_at: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, snapshot_after: u64) -> Keeper {
        let now = Instant::now();
        Keeper {
            shared,
            snapshot_after,
            beaten: now,
            clocks: Clocks::default(),
            forgotten: None,
            snapshot_at: now,
        }
    }

    /// Looks as long as the process lives.
    pub(super) fn run(mut self) {
        loop {
            if let Err(error) = self.look() {
                log::debug!("the other nodes are not known: {error}");
                self.shared.status().role = Role::Follower;
            }
            thread::sleep(LOOK);
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        let lease = self.beat()?;
        let shared = Arc::clone(&self.shared);
        let (etcd, keys) = (&shared.etcd, &shared.keys);
        let nodes = self.compare_clocks()?;
        let is_ahead = shared.ahead.load(Ordering::Acquire);
        let me = shared.producer.to_string();
        let leads = match etcd.get(&keys.leader)?.1 {
            Some(leader) if leader.value == me.as_bytes() => self.may_lead()?,
            Some(_) => false,
            None => {
                let may = shared.is_current() && !is_ahead;
                may && etcd.put_if(&keys.leader, me.as_bytes(), Some(lease), 0)?
            }
        };
        let members = etcd.members()?;
        let MemberStatus {
            version, db_size, ..
        } = etcd.status()?;
        *shared.status() = ClusterStatus {
            role: if leads { Role::Leader } else { Role::Follower },
            nodes,
            members,
            version,
            db_size,
        };
        if leads {
            self.look_after_log()?;
        }
        Ok(())
    }

    /// Whether this node goes on to lead. One that has not had everything for as long as a lease leaves it to another one, and so does one
    /// that takes no writes, not even those that remove what has expired.
    fn may_lead(&self) -> Result<bool, Error> {
        let current = self.shared.readers.current();
        let is_ahead = self.shared.ahead.load(Ordering::Acquire);
        let may = !is_ahead && current.is_some_and(|it| it.elapsed() < LEASE);
        if !may {
            let leader = &self.shared.keys.leader;
            self.shared
                .etcd
                .delete_between(leader, &format!("{leader}\0"))?;
        }
        Ok(may)
    }

    /// Says that this node lives. Returns its lease.
    fn beat(&mut self) -> Result<i64, Error> {
        let (etcd, keys) = (&self.shared.etcd, &self.shared.keys);
        self.beaten = Instant::now();
        // Held until that is done: a node that leaves must not come back to life.
        let mut held = self.shared.lease();
        let mut lives = false;
        let lease = match *held {
            Some(lease) if etcd.keep_alive(lease)? => {
                lives = true;
                lease
            }
            _ if self.shared.leaving.load(Ordering::Acquire) => {
                return Err(Error::Unknown("this node leaves".into()));
            }
            _ => etcd.grant(LEASE)?,
        };
        let state = NodeState {
            name: &self.shared.name,
            now: Expiry::now().millis(),
        };
        let node = keys.node(self.shared.producer);
        match etcd.put(&node, &state.encode(), Some(lease)) {
            // A full etcd still lets it live, and do what makes room.
            Err(error) if lives && error.is_no_space() => {}
            put => put?,
        }
        *held = Some(lease);
        Ok(lease)
    }

    /// Sees to it that this node takes no writes while its clock is far ahead of the others'. Returns how many nodes there are.
    pub(super) fn compare_clocks(&mut self) -> Result<usize, Error> {
        let shared = &self.shared;
        let own = shared.keys.node(shared.producer);
        let mut others = shared.etcd.get_prefix(&shared.keys.nodes)?;
        let nodes = others.len();
        others.retain(|it| it.key != own.as_bytes());
        let ahead = self.clocks.compare(&others, Expiry::now().millis(), LEASE);
        let was_ahead = shared.ahead.swap(ahead, Ordering::AcqRel);
        if ahead && !was_ahead {
            log::error!(
                "the clock of this node is far ahead of the other nodes', so it takes no writes: keys would expire early"
            );
        } else if was_ahead && !ahead {
            log::info!(
                "the clock of this node agrees with the other nodes', so it takes writes again"
            );
        }
        Ok(nodes)
    }

    /// Keeps the log short.
    fn look_after_log(&mut self) -> Result<(), Error> {
        if self.snapshot_at > Instant::now() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let (etcd, keys) = (&shared.etcd, &shared.keys);
        let (revision, log) = etcd.get_revision(&keys.log)?;
        let forgotten = *self.forgotten.get_or_insert(revision);
        let long = shared.replica().grown() >= self.snapshot_after.max(shared.map.bytes() as u64);
        let last = etcd.get(&keys.head)?.1;
        let last = last.and_then(|head| SnapshotHead::decode(&head.value));
        let last_at = last.as_ref().map_or(0, |head| head.place.at);
        let cut = log.as_ref().is_some_and(|log| log.mod_revision > last_at)
            && self.is_forgotten(last_at)?;
        if !long && !cut && revision - forgotten < REVISIONS {
            return Ok(());
        }
        // If it fails, not at once again.
        self.snapshot_at = Instant::now() + LEASE;
        match last.zip(log) {
            // The snapshot has everything that was in the log at this revision.
            Some((head, log)) if head.place.at == log.mod_revision => etcd.compact(revision)?,
            _ => self.write_snapshot()?,
        }
        self.forgotten = Some(revision);
        Ok(())
    }

    /// Whether etcd has forgotten its history from that revision on: somebody else has compacted it. Then no node can start until there is a
    /// snapshot, and those that have everything can still write it.
    fn is_forgotten(&self, at: i64) -> Result<bool, Error> {
        let (etcd, keys) = (&self.shared.etcd, &self.shared.keys);
        match etcd.get_at(&keys.head, at + 1) {
            Ok(_) => Ok(false),
            Err(error) if error.is_compacted() => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn write_snapshot(&mut self) -> Result<(), Error> {
        let (shared, began) = (Arc::clone(&self.shared), Instant::now());
        let written = snapshot::write(&shared, || {
            if self.beaten.elapsed() >= LEASE / 5 {
                let _ = self.beat(); // seen at the next look
            }
        })?;
        shared.replica().note_snapshot();
        if let Written::Whole(head) = written {
            let (keys, bytes, took) = (head.keys, head.bytes, began.elapsed());
            log::info!("snapshot of {keys} keys, {bytes} bytes, in {took:.1?}");
        }
        Ok(())
    }
}
