//! Watching: decides what each watcher is sent, and when (contract, "Watching").
//!
//! ```text
//! commit ── rings ──► thread of the streams ── publish ──► Hub ── changes behind the head ──► store
//!                                          ◄── texts for the watchers ──┘
//! ```
//!
//! The *head* is the revision up to which everything has been looked at. Watchers who have been sent all of that wait in groups, by
//! what they want: a change is compared with each group, and written once for it. Whoever cannot take a text at once leaves its
//! group, is sent the rest at its own pace, from the store's history, and joins it again at the head. So what is kept for a watcher is
//! one text and its place in the history, however slow it is; if the history forgets that place, the stream ends.

mod copies;
mod event;
mod groups;
mod watcher;

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use crate::server::{Bell, Next, Publisher, Subscription, Text};
use crate::store::{Change, Commits, Entry, Interest, Revision, Store};
use crate::tokens::Tokens;

use super::auth::Auth;
use copies::Order;
use event::{Events, mark};
use groups::Groups;
use watcher::{Stage, Watcher};

/// A text ends behind about so many bytes.
const TEXT: usize = 64 * 1024;

/// What a watcher wants to know, and how it is shown. Watchers who want the same get the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Want {
    pub(super) interest: Interest,
    /// Whether to show values.
    pub(super) values: bool,
}

/// All watchers, and how far they are.
pub struct Hub {
    store: Arc<Store>,
    auth: Option<Arc<Auth>>,
    bell: Bell,
    most: usize,
    orders: Sender<Order>,
    /// Held for a look at some hundred changes, or to make some texts. No other locks are taken under it but those of the map.
    state: Arc<Mutex<State>>,
}

/// How a watcher begins.
pub(super) enum Start {
    /// With what changes from now on.
    Now,
    /// With what has changed since a revision that is remembered.
    Since(Revision),
    /// With what is there; and if told so, by saying that all before is to be forgotten.
    Copy { reset: bool },
}

/// Why a watcher is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are so many already.
    TooMany(usize),
    /// There is no memory for a copy.
    NoMemory,
    /// Its revision has been forgotten.
    Gone,
}

#[derive(Default)]
struct State {
    /// The number of the latest watcher.
    last: u64,
    watchers: HashMap<u64, Watcher>,
    /// Those who have been sent everything up to the head.
    waiting: Groups,
    /// Those who wait for something else: for a copy, or for the head to come up to where they begin.
    parked: Vec<u64>,
    head: Revision,
    /// The latest text that was made for a watcher behind the head, for others who are at the same place.
    memo: Option<Memo>,
    /// The tokens that the watchers were compared with last.
    tokens: Option<Arc<Tokens>>,
}

/// The text for those who want the same and are at the same place.
struct Memo {
    want: Arc<Want>,
    from: Revision,
    to: Revision,
    text: Text,
}

impl Hub {
    /// Lets so many watch a store. Rings the bell when there is something to publish.
    pub fn new(
        store: Arc<Store>,
        auth: Option<Arc<Auth>>,
        most: usize,
        bell: Bell,
    ) -> io::Result<Arc<Hub>> {
        let state = Arc::new(Mutex::new(State::default()));
        let (delivered, ring) = (Arc::clone(&state), bell.clone());
        let orders = copies::start(Arc::clone(&store), move |watcher, copy| {
            if let Some(watcher) = lock(&delivered).watchers.get_mut(&watcher) {
                watcher.begin_copy(Arc::clone(copy));
            }
            ring.ring();
        })?;
        let ring = bell.clone();
        store.on_commit(move || ring.ring());
        Ok(Arc::new(Hub {
            store,
            auth,
            bell,
            most,
            orders,
            state,
        }))
    }

    /// How many clients may watch.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Lets a client watch, unless that cannot be. `token` is the hash of its token.
    pub(super) fn enter(
        self: &Arc<Hub>,
        want: Want,
        start: Start,
        token: Option<[u8; 32]>,
    ) -> Result<Box<dyn Subscription>, Refused> {
        let reserved = match &start {
            Start::Copy { .. } => {
                let keys = match &want.interest {
                    Interest::Key(_) => 1,
                    Interest::Prefix(prefix) => self.store.count(prefix),
                };
                let bytes = (keys * size_of::<Entry>()) as u64;
                let reserved = self.store.budget().reserve(bytes);
                Some(reserved.ok_or(Refused::NoMemory)?)
            }
            _ => None,
        };
        let mut state = lock(&self.state);
        if state.watchers.len() >= self.most {
            return Err(Refused::TooMany(self.most));
        }
        if state.watchers.is_empty() {
            // First of all, that nothing of what it has to know is forgotten.
            self.store.set_told(self.store.revision());
            self.store.set_watched(true);
            state.head = self.store.revision();
        }
        // It may have been let in by tokens that have been replaced since.
        state.tokens = None;
        let now = self.store.revision();
        let interest = want.interest.clone();
        let stage = match start {
            Start::Now => Stage::following(now, Some(now)),
            Start::Since(since) if self.store.remembers(since) => {
                Stage::following(since, Some(now))
            }
            Start::Since(_) => {
                self.settle(&state);
                return Err(Refused::Gone);
            }
            Start::Copy { .. } => Stage::AwaitingCopy,
        };
        let reset = matches!(start, Start::Copy { reset: true });
        state.last += 1;
        let number = state.last;
        let watcher = Watcher::new(Arc::new(want), token, stage, reset);
        state.watchers.insert(number, watcher);
        drop(state);
        if let Some(reserved) = reserved {
            let order = Order {
                watcher: number,
                interest,
                reserved,
            };
            let _ = self.orders.send(order); // the thread stays as long as this does
        }
        // Where it begins may be ahead of the head.
        self.bell.ring();
        let hub = Arc::clone(self);
        Ok(Box::new(Place { hub, number }))
    }

    /// How many watch.
    pub(super) fn watchers(&self) -> usize {
        lock(&self.state).watchers.len()
    }

    fn settle(&self, state: &State) {
        if state.watchers.is_empty() {
            self.store.set_watched(false);
        }
    }

    fn leave(&self, number: u64) {
        let mut state = lock(&self.state);
        if let Some(watcher) = state.watchers.remove(&number) {
            state.waiting.leave(&watcher.want, number);
        }
        state.parked.retain(|it| *it != number);
        self.settle(&state);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic under it costs the texts of one turn.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// What comes next for a watcher that has taken everything.
    fn next(&mut self, number: u64, store: &Store) -> Next {
        let State {
            watchers,
            waiting,
            parked,
            head,
            memo,
            ..
        } = self;
        let Some(watcher) = watchers.get_mut(&number) else {
            return Next::End;
        };
        let next = watcher.next(store, *head, memo);
        if let Next::Wait = next {
            if let Stage::Waiting = watcher.stage {
                waiting.join(&watcher.want, number);
            } else {
                parked.push(number);
            }
        }
        next
    }

    /// Publishes some commits, of which all changes are there. Returns those for whom that is too much for one text.
    fn publish(&mut self, commits: &Commits, give: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64> {
        let before = mem::replace(&mut self.head, commits.to);
        let mut behind = Vec::new();
        for (want, changes) in self.waiting.concerned(&commits.changes) {
            let text = write(&want, &changes).map(Text::from);
            for number in self.waiting.members(&want) {
                if text.as_ref().is_some_and(|text| give(number, text)) {
                    continue;
                }
                self.waiting.leave(&want, number);
                let place = match text {
                    Some(_) => commits.to,
                    None => before,
                };
                if let Some(watcher) = self.watchers.get_mut(&number) {
                    watcher.stage = Stage::following(place, None);
                }
                if text.is_none() {
                    behind.push(number);
                }
            }
        }
        behind
    }
}

/// The events of some commits, of which these are the changes that are wanted; `None` if that is too much for one text.
fn write(want: &Want, changes: &[Change]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for commit in changes.chunk_by(|a, b| a.revision() == b.revision()) {
        if !events(want, commit).write(&mut out, TEXT) || out.len() >= TEXT {
            return None;
        }
    }
    Some(out)
}

/// The events of a commit, of which these are the changes that are wanted.
fn events(want: &Want, commit: &[Change]) -> Events {
    let revision = commit.last().map(Change::revision);
    Events::new(commit.to_vec(), revision, want.values)
}

impl Publisher for Hub {
    fn publish(&self, give: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let mut behind = Vec::new();
        while !state.watchers.is_empty() {
            match self.store.commits_after(state.head, &Interest::ALL) {
                Some(commits) if commits.to == state.head => break,
                Some(commits) => behind.extend(state.publish(&commits, give)),
                // It was not called in time.
                None => {
                    for number in state.waiting.take_all() {
                        if let Some(watcher) = state.watchers.get_mut(&number) {
                            watcher.stage = Stage::Over;
                        }
                    }
                    state.head = self.store.revision();
                }
            }
        }
        self.store.set_told(state.head);
        behind.append(&mut state.parked);
        behind
    }

    fn next(&self, number: u64) -> Next {
        lock(&self.state).next(number, &self.store)
    }

    fn quiet(&self, number: u64) -> Option<Text> {
        let state = lock(&self.state);
        let watcher = state.watchers.get(&number)?;
        let waits = matches!(watcher.stage, Stage::Waiting);
        waits.then(|| mark("progress", state.head, true).into_bytes().into())
    }

    fn unwanted(&self) -> Vec<u64> {
        let mut state = lock(&self.state);
        let current = self.auth.as_ref().map(|auth| auth.tokens());
        let same = match (&current, &state.tokens) {
            (Some(current), Some(seen)) => Arc::ptr_eq(current, seen),
            _ => false,
        };
        let is_revoked = |watcher: &Watcher| {
            let Some(tokens) = current.as_ref().filter(|_| !same) else {
                return false;
            };
            let hash = watcher.token.as_ref();
            !hash.is_some_and(|hash| tokens.iter().any(|it| it.hash() == hash))
        };
        let mut over = Vec::new();
        for (number, watcher) in &mut state.watchers {
            if is_revoked(watcher) {
                watcher.stage = Stage::Over; // also where its stream is still to begin
            }
            if let Stage::Over = watcher.stage {
                over.push(*number);
            }
        }
        state.tokens = current;
        over
    }
}

/// The place of a watcher. It leaves when this is dropped.
struct Place {
    hub: Arc<Hub>,
    number: u64,
}

impl Subscription for Place {
    fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.leave(self.number);
    }
}
