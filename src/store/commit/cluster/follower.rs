//! The thread that follows the log, and answers the clients of this node.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::replica::{Applied, Broken};
use super::{JoinError, Shared, snapshot};
use crate::etcd::{Error, Event, KeyValue};
use crate::store::commit::Reply;

/// A watch that tells nothing for so long is begun again: it may have died without a word.
const QUIET: Duration = Duration::from_millis(500);

/// The longest that is waited for records that are known to be there: etcd may take so long to gather many of them.
const GATHERING: Duration = Duration::from_secs(10);

/// Pause before it is tried again to follow.
const RETRY: Duration = Duration::from_millis(50);

/// Pause before it is tried again to load a snapshot.
const RELOAD: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    shared: Arc<Shared>,
    /// Before this revision, etcd has forgotten everything.
    forgotten: i64,
    /// Where the last attempt began, and how long it waited for records.
    tried: (i64, Duration),
}

/// Why it does not go on as it did.
enum Stop {
    /// The watch has ended.
    Watch(Error),
    /// etcd has forgotten the next records.
    Missing,
    /// etcd does not have any more what it had.
    Undone(&'static str),
    /// The log was deleted, at this revision of etcd at the latest.
    Deleted(i64),
    /// There is a record that this version does not know.
    Unknown,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Watch(error)
    }
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>) -> Follower {
        Follower {
            shared,
            forgotten: 0,
            tried: (0, QUIET),
        }
    }

    /// Follows as long as the process lives, unless it comes upon something that it does not know.
    pub(super) fn run(mut self) {
        loop {
            let began = Instant::now();
            match self.follow() {
                Stop::Watch(error) => {
                    log::debug!("the watch of the log has ended: {error}");
                    if began.elapsed() < QUIET {
                        thread::sleep(RETRY);
                    }
                }
                Stop::Missing => self.leap(),
                Stop::Undone(why) => self.begin_anew(why),
                Stop::Deleted(at) => {
                    self.begin_anew("the log in etcd was deleted");
                    self.shared.replica().begin_anew(at);
                }
                Stop::Unknown => {
                    self.shared.broken.store(true, Ordering::Release);
                    log::error!(
                        "there is a record in etcd that this version does not know, so this node stops here; upgrade it"
                    );
                    return;
                }
            }
        }
    }

    /// Goes on behind records that etcd has forgotten, by a snapshot that has them.
    fn leap(&self) {
        let newer = snapshot::is_newer(&self.shared);
        match newer.and_then(|newer| {
            if newer {
                log::warn!("everything is loaded again: etcd has forgotten the next records");
                snapshot::load(&self.shared, false)?;
            }
            Ok(newer)
        }) {
            Ok(true) => return,
            Ok(false) => log::error!(
                "etcd has forgotten records that no snapshot has: this node waits for another one to write a snapshot"
            ),
            Err(error) => self.cannot_load(&error),
        }
        thread::sleep(RELOAD);
    }

    /// Goes back to the snapshot, whatever it takes.
    fn begin_anew(&mut self, why: &str) {
        log::error!(
            "everything is loaded again, and what came after the snapshot is lost unless etcd has it: {why}"
        );
        self.shared.readers.hold();
        self.forgotten = 0;
        while let Err(error) = snapshot::load(&self.shared, true) {
            self.cannot_load(&error);
            thread::sleep(RELOAD);
        }
    }

    fn cannot_load(&self, error: &JoinError) {
        if let JoinError::Unknown(_) = error {
            self.shared.broken.store(true, Ordering::Release);
        }
        log::error!("cannot load everything again: {error}");
    }

    /// Carries out records as they come.
    fn follow(&mut self) -> Stop {
        let (from, quiet) = match self.next() {
            Ok(next) => next,
            Err(stop) => return stop,
        };
        let shared = Arc::clone(&self.shared);
        let watch = match shared.etcd.watch(&shared.keys.log, from, quiet) {
            Ok(watch) => watch,
            Err(error) => return error.into(),
        };
        for event in watch {
            let taken = match event {
                Ok(Event::Put(record)) => self.take(&record),
                Ok(Event::Deleted(log)) => Err(Stop::Deleted(log.mod_revision)),
                // If that has left out records, the next one tells.
                Ok(Event::Forgotten(before)) => {
                    self.forgotten = before;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
        Stop::Watch(Error::Unknown("the stream has ended".into()))
    }

    /// From which revision of etcd on to watch, and for how long it may tell nothing.
    fn next(&mut self) -> Result<(i64, Duration), Stop> {
        let shared = &*self.shared;
        let (revision, log) = shared.etcd.get(&shared.keys.log)?;
        let at = shared.replica().at();
        let Some(log) = log else {
            return match shared.replica().is_at_beginning() {
                true => Ok((revision + 1, QUIET)),
                false => Err(Stop::Deleted(revision)),
            };
        };
        let undone = Err(Stop::Undone("etcd was replaced by an earlier copy"));
        if log.mod_revision < at {
            // An old etcd may have answered from an old state. A write tells for sure.
            let keys = &shared.keys;
            return match shared.etcd.put_and_get_revision(&keys.barrier, &keys.log) {
                Ok(Some(log)) if log.mod_revision >= at => {
                    let message = "etcd has answered from an old state";
                    Err(Stop::Watch(Error::Unknown(message.into())))
                }
                Err(error) if !error.is_no_space() => Err(error.into()),
                Ok(_) | Err(_) => undone,
            };
        }
        if log.mod_revision == at {
            // What etcd has forgotten may be all before the present.
            return match shared.replica().is_last(&log) {
                true => Ok((revision + 1, QUIET)),
                false => undone,
            };
        }
        if !shared.replica().is_at_beginning() {
            match shared.etcd.get_at(&shared.keys.log, at) {
                Ok(Some(record)) if shared.replica().is_last(&record) => {}
                Ok(_) => return undone,
                Err(error) if error.is_compacted() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // If nothing has come of that before, etcd may need longer.
        let (tried, quiet) = self.tried;
        self.tried = match tried == at {
            true => (at, (quiet * 2).min(GATHERING)),
            false => (at, QUIET),
        };
        Ok(((at + 1).max(self.forgotten), self.tried.1))
    }

    fn take(&self, record: &KeyValue) -> Result<(), Stop> {
        let shared = &*self.shared;
        let began = Instant::now();
        // A node that has carried out half a record must not go on with a map that differs from all others.
        let apply = AssertUnwindSafe(|| shared.replica().apply(record));
        let Ok(applied) = catch_unwind(apply) else {
            log::error!("a record could not be carried out whole, so this node ends here");
            crate::logging::flush(Duration::from_secs(1));
            process::abort();
        };
        match applied {
            Ok(Some(applied)) if applied.producer == shared.producer => {
                self.answer(applied, began.elapsed());
            }
            Ok(_) => {}
            Err(Broken::Gap) if self.forgotten > shared.replica().at() + 1 => {
                return Err(Stop::Missing);
            }
            Err(Broken::Gap) => {
                let message = "the watch has left out a record";
                log::warn!("{message}");
                return Err(Stop::Watch(Error::Unknown(message.into())));
            }
            Err(Broken::Unknown) => return Err(Stop::Unknown),
        }
        let readers = shared.readers.come_to(record.mod_revision);
        shared.answer(readers, Ok(()));
        Ok(())
    }

    /// Answers those who have submitted the commands of a record.
    fn answer(&self, applied: Applied, took: Duration) {
        let Applied {
            number, results, ..
        } = applied;
        let waiting = self.shared.under_way.end(number).into_iter();
        let replies = waiting.zip(results);
        let replies: Vec<Reply> = replies
            .map(|(done, result)| Reply::new(done, result, took))
            .collect();
        if !replies.is_empty() {
            (self.shared.deliver)(replies);
        }
    }
}
