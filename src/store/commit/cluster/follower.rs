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

/// Pause before it is tried again to follow.
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct Follower {
    shared: Arc<Shared>,
}

/// Why it does not go on as it did.
enum Stop {
    /// The watch has ended.
    Watch(Error),
    /// Records are missing: etcd has forgotten them, or is another one than before.
    Lost(&'static str),
    /// There is a record that this version does not know.
    Unknown,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error.is_compacted() {
            true => Stop::Lost("etcd has forgotten the next records"),
            false => Stop::Watch(error),
        }
    }
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>) -> Follower {
        Follower { shared }
    }

    /// Follows as long as the process lives, unless it comes upon something that it does not know.
    pub(super) fn run(self) {
        loop {
            let began = Instant::now();
            match self.follow() {
                Stop::Watch(error) => {
                    log::debug!("the watch of the log has ended: {error}");
                    if began.elapsed() < QUIET {
                        thread::sleep(RETRY);
                    }
                }
                Stop::Lost(why) => {
                    log::warn!("everything is loaded again: {why}");
                    self.load();
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

    /// Loads the snapshot again, whatever it takes.
    fn load(&self) {
        while let Err(error) = snapshot::load(&self.shared) {
            if let JoinError::Unknown(_) = error {
                self.shared.broken.store(true, Ordering::Release);
            }
            log::error!("cannot load everything again: {error}");
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Carries out records as they come.
    fn follow(&self) -> Stop {
        let shared = &*self.shared;
        let from = match self.next() {
            Ok(from) => from,
            Err(stop) => return stop,
        };
        let watch = match shared.etcd.watch(&shared.keys.log, from, QUIET) {
            Ok(watch) => watch,
            Err(error) => return error.into(),
        };
        for event in watch {
            let taken = match event {
                Ok(Event::Put(record)) => self.take(&record),
                Ok(Event::Alive(_)) => Ok(()),
                Ok(Event::Deleted(_)) => Err(Stop::Lost("the log was deleted")),
                Err(error) => Err(error.into()),
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
        Stop::Watch(Error::Unknown("the stream has ended".into()))
    }

    /// From which revision of etcd on to watch.
    fn next(&self) -> Result<i64, Stop> {
        let shared = &*self.shared;
        let at = shared.replica().at();
        let (header, log) = shared.etcd.get_revision(&shared.keys.log)?;
        match log.map_or(0, |log| log.mod_revision) {
            last if last < at => Err(Stop::Lost("the log in etcd is shorter than before")),
            // What etcd has forgotten may be all before the present.
            last if last == at => Ok(header.revision + 1),
            _ => Ok(at + 1),
        }
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
            Err(Broken::Gap) => return Err(Stop::Lost("the watch has left out a record")),
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
