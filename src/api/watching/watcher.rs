//! One watcher: what it is sent until it has come up to the head.

use std::mem;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use super::copies::Copy;
use super::event::{Events, mark};
use super::{Memo, TEXT, Want};
use crate::server::{Next, Text};
use crate::store::{Change, Revision, Store};

/// How long clients wait before they come back, in milliseconds: a random time, so that they do not come all at once.
const RETRY: RangeInclusive<u64> = 500..=1500;

/// How many entries of a copy are written in one go, as long as they are short.
const ENTRIES: usize = 256;

pub(super) struct Watcher {
    pub(super) want: Arc<Want>,
    /// The hash of its token, if it has one.
    pub(super) token: Option<[u8; 32]>,
    pub(super) stage: Stage,
    /// Whether nothing has been sent yet.
    is_new: bool,
    /// Whether it has to forget all it has.
    reset: bool,
}

/// How far it is.
pub(super) enum Stage {
    /// What is there is being copied.
    AwaitingCopy,
    /// It is sent what was there: the entries from that one on.
    Copying {
        copy: Arc<Copy>,
        next: usize,
        events: Option<Events>,
    },
    /// It is sent commits of the past.
    Following {
        /// It has been sent everything up to this revision.
        place: Revision,
        /// The commit that is being sent, and its revision.
        commit: Option<(Events, Revision)>,
        /// Where it is told that all that follows is new.
        ready_at: Option<Revision>,
    },
    /// It has been sent everything up to the head.
    Waiting,
    /// It has fallen out of the history.
    Over,
}

impl Stage {
    /// Goes on behind `place`; at `ready_at`, it is told that all that follows is new.
    pub(super) fn following(place: Revision, ready_at: Option<Revision>) -> Stage {
        Stage::Following {
            place,
            commit: None,
            ready_at,
        }
    }
}

impl Watcher {
    pub(super) fn new(
        want: Arc<Want>,
        token: Option<[u8; 32]>,
        stage: Stage,
        reset: bool,
    ) -> Watcher {
        Watcher {
            want,
            token,
            stage,
            is_new: true,
            reset,
        }
    }

    /// Its copy is there.
    pub(super) fn begin_copy(&mut self, copy: Arc<Copy>) {
        self.stage = Stage::Copying {
            copy,
            next: 0,
            events: None,
        };
    }

    /// What comes next for it, up to the head.
    pub(super) fn next(&mut self, store: &Store, head: Revision, memo: &mut Option<Memo>) -> Next {
        let mut out = Vec::new();
        if self.is_new {
            out.extend_from_slice(format!("retry: {}\n\n", retry()).as_bytes());
            self.is_new = false;
        }
        loop {
            let more = match &mut self.stage {
                Stage::AwaitingCopy | Stage::Waiting => false,
                Stage::Over => return Next::End,
                Stage::Copying { .. } => self.write_copy(&mut out),
                Stage::Following { .. } => match self.follow(store, head, memo, &mut out) {
                    Some(Followed::Text(text)) => return Next::Text(text),
                    Some(Followed::More) => true,
                    Some(Followed::Later) => return Next::Later,
                    Some(Followed::Enough) => false,
                    None => return Next::End,
                },
            };
            if out.len() >= TEXT || !more {
                return match out.is_empty() {
                    true => Next::Wait,
                    false => Next::Text(out.into()),
                };
            }
        }
    }

    /// Writes some of a copy. Returns whether to go on.
    fn write_copy(&mut self, out: &mut Vec<u8>) -> bool {
        let Stage::Copying { copy, next, events } = &mut self.stage else {
            return true;
        };
        if self.reset {
            out.extend_from_slice(mark("reset", copy.revision, false).as_bytes());
            self.reset = false;
        }
        if let Some(writing) = events {
            let done = writing.write(out, TEXT);
            if done {
                *events = None;
            }
            return done;
        }
        let some = copy.entries.iter().skip(*next).take(ENTRIES);
        *next += some.len();
        let wanted = some.filter(|entry| self.want.interest.contains(entry.key()));
        let puts: Vec<Change> = wanted.cloned().map(Change::Put).collect();
        if puts.is_empty() && *next >= copy.entries.len() {
            let revision = copy.revision;
            self.stage = Stage::following(revision, Some(revision));
            return true;
        }
        *events = Some(Events::new(puts, None, self.want.values));
        true
    }

    /// Writes some commits. `None` if the history has forgotten them.
    fn follow(
        &mut self,
        store: &Store,
        head: Revision,
        memo: &mut Option<Memo>,
        out: &mut Vec<u8>,
    ) -> Option<Followed> {
        let Stage::Following {
            place,
            commit,
            ready_at,
        } = &mut self.stage
        else {
            return Some(Followed::More);
        };
        if let Some((events, revision)) = commit {
            if store.past().oldest > *place {
                return None;
            }
            if !events.write(out, TEXT) {
                return Some(Followed::Enough);
            }
            (*place, *commit) = (*revision, None);
            return Some(Followed::More);
        }
        if ready_at.is_some_and(|it| it <= *place) {
            out.extend_from_slice(mark("ready", *place, true).as_bytes());
            *ready_at = None;
        }
        if *place >= head {
            if *place == head && out.is_empty() {
                self.stage = Stage::Waiting;
            }
            return Some(Followed::Enough);
        }
        if let Some(memo) = memo
            && (memo.from, &memo.want) == (*place, &self.want)
            && out.is_empty()
        {
            *place = memo.to;
            return Some(Followed::Text(Arc::clone(&memo.text)));
        }
        let (from, was_empty) = (*place, out.is_empty());
        let commits = store.commits_after(*place, &self.want.interest)?;
        let mut to = commits.to.min(head);
        for changes in commits
            .changes
            .chunk_by(|a, b| a.revision() == b.revision())
        {
            let revision = changes[0].revision();
            if revision > head {
                break;
            }
            if out.len() >= TEXT {
                to = *place;
                break;
            }
            let mut events = super::events(&self.want, changes);
            if !events.write(out, TEXT) {
                *commit = Some((events, revision));
                return Some(Followed::Enough);
            }
            *place = revision;
        }
        *place = to;
        if was_empty && !out.is_empty() {
            let text = Text::from(mem::take(out));
            *memo = Some(Memo {
                want: Arc::clone(&self.want),
                from,
                to: *place,
                text: Arc::clone(&text),
            });
            return Some(Followed::Text(text));
        }
        // So many commits without a word for it: others get their turn.
        Some(match out.is_empty() && *place < head {
            true => Followed::Later,
            false => Followed::More,
        })
    }
}

/// How it went to follow the commits.
enum Followed {
    /// This is to be sent.
    Text(Text),
    /// There is more.
    More,
    /// There is more, and nothing to be sent yet.
    Later,
    /// What was written is to be sent.
    Enough,
}

fn retry() -> u64 {
    let mut random = [0; 8];
    let _ = getrandom(&mut random, GetRandomFlags::empty()); // where there is none, all come back early
    let spread = RETRY.end() - RETRY.start() + 1;
    RETRY.start() + u64::from_le_bytes(random) % spread
}
