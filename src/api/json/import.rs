//! `POST /api/v1/import`: takes an export, of any length, over what is there.
//!
//! The body comes in pieces. The entries of a piece are submitted as commands of bounded size, and the next piece is read when all of them
//! have been committed.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::answer;
use super::error::{Code, Error};
use crate::budget::Reservation;
use crate::dump::{self, Mistake, Reader};
use crate::server::{Done, Piece, Pieces, Response, Taken};
use crate::store::{CommitError, Entry, Expiry, Store};

/// An import under way.
pub(super) struct Import {
    store: Arc<Store>,
    reader: Reader,
    /// Memory for a line that has not come whole.
    reserved: Option<Reservation>,
    tally: Tally,
}

/// How far it is.
#[derive(Clone, Copy, Default, Serialize)]
struct Tally {
    imported: u64,
    expired: u64,
}

impl Import {
    /// Into this store, of values that have at most so many bytes.
    pub(super) fn new(store: Arc<Store>, value_bytes: u64) -> Import {
        Import {
            store,
            reader: Reader::new(value_bytes),
            reserved: None,
            tally: Tally::default(),
        }
    }

    /// Sees to it that memory is reserved for what the reader keeps. Returns whether there is so much.
    fn reserve(&mut self) -> bool {
        let kept = self.reader.kept() as u64;
        match &mut self.reserved {
            // A value is copied out of the line.
            Some(reserved) => {
                let more = (2 * kept).saturating_sub(reserved.bytes());
                more == 0 || reserved.grow(more)
            }
            None if kept == 0 => true,
            none => {
                *none = self.store.budget().reserve(2 * kept);
                none.is_some()
            }
        }
    }
}

impl Pieces for Import {
    fn take(mut self: Box<Self>, piece: Piece, done: Done) {
        let mut entries = Vec::new();
        let mut read = self.reader.read(&piece.bytes, &mut entries);
        if piece.is_last && read.is_ok() {
            read = self.reader.end(&mut entries);
        }
        drop(piece.bytes);
        let next = match read {
            Err(mistake) => Next::Mistake(mistake),
            Ok(()) if piece.is_last => Next::End,
            Ok(()) if !self.reserve() => Next::NoMemory,
            Ok(()) => Next::Piece,
        };
        let now = Expiry::now();
        let all = entries.len();
        entries.retain(|entry| entry.is_live(now));
        self.tally.expired += (all - entries.len()) as u64;
        let store = Arc::clone(&self.store);
        commit(&store, entries, move |committed, error| {
            self.tally.imported += committed;
            let tally = self.tally;
            done(match (error, next) {
                (Some(error), _) => Taken::Answer(tally.failure(Error::from(error))),
                (None, Next::Piece) => Taken::More(self),
                (None, Next::End) => Taken::Answer(answer::data(&tally, None)),
                (None, Next::Mistake(mistake)) => Taken::Answer(tally.failure(mistaken(&mistake))),
                (None, Next::NoMemory) => {
                    let message = "There is no memory for so long a line now";
                    let error = Error::new(Code::ClusterUnavailable, message);
                    Taken::Answer(tally.failure(error))
                }
            });
        });
    }
}

/// What comes when the entries of a piece have been committed.
enum Next {
    Piece,
    End,
    Mistake(Mistake),
    NoMemory,
}

impl Tally {
    fn failure(self, error: Error) -> Response {
        error.detail("imported", self.imported).into_response()
    }
}

fn mistaken(mistake: &Mistake) -> Error {
    let applied = match mistake.at_end {
        true => "All entries before it have been imported all the same",
        false => "The entries before it have been imported",
    };
    let message = format!("Line {}: {}. {applied}", mistake.line, mistake.what);
    Error::new(Code::ValidationError, message).detail("line", mistake.line)
}

/// Called with how many entries have been committed, and with the first error.
type Committed = Box<dyn FnOnce(u64, Option<CommitError>) + Send>;

/// Commands that have been submitted.
struct Submitted {
    left: usize,
    committed: u64,
    error: Option<CommitError>,
    done: Option<Committed>,
}

impl Submitted {
    /// Takes the result of a command with so many entries. After the last one, returns what is to be called.
    fn note(&mut self, count: u64, error: Option<CommitError>) -> Option<Committed> {
        match error {
            None => self.committed += count,
            Some(error) => _ = self.error.get_or_insert(error),
        }
        self.left -= 1;
        self.done.take_if(|_| self.left == 0)
    }
}

/// Puts entries, in commits of bounded size, and calls `done` when each has an outcome.
fn commit(
    store: &Store,
    entries: Vec<Entry>,
    done: impl FnOnce(u64, Option<CommitError>) + Send + 'static,
) {
    let commands = dump::commands(entries);
    if commands.is_empty() {
        return done(0, None);
    }
    let submitted = Arc::new(Mutex::new(Submitted {
        left: commands.len(),
        committed: 0,
        error: None,
        done: Some(Box::new(done)),
    }));
    for (command, count) in commands {
        let submitted = Arc::clone(&submitted);
        store.submit(command, move |result, _| {
            // Nothing under this lock panics.
            let mut submitted = submitted.lock().unwrap_or_else(PoisonError::into_inner);
            let done = submitted.note(count, result.err());
            let (committed, error) = (submitted.committed, submitted.error);
            drop(submitted);
            if let Some(done) = done {
                done(committed, error);
            }
        });
    }
}
