//! Writes everything that the map holds to a keyspace, in the order of the keys, so that the log before it is not needed
//! any more; while commands go on to be committed, on a thread of its own.
//!
//! What is written is not the state of any one moment: a key may have been read before a change or behind it. But all
//! changes since it was begun are in the log, and carrying them out on it, once more as it may be, ends in the same state.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use fjall::{Database as Fjall, Keyspace};

use super::super::{Listing, Map};
use super::{files, log as change_log, record};

/// The thread that makes checkpoints, and deletes what they replace.
pub(super) struct Checkpointer {
    tasks: Sender<Task>,
    made: Receiver<fjall::Result<Keyspace>>,
}

enum Task {
    /// Makes the checkpoint of a generation.
    Make(u64),
    /// Deletes a checkpoint, and the files of the log before one.
    Delete(Keyspace, u64),
}

impl Checkpointer {
    pub(super) fn start(fjall: Fjall, map: Arc<Map>, log: PathBuf) -> io::Result<Checkpointer> {
        let (tasks, orders) = unbounded::<Task>();
        let (report, made) = unbounded();
        let work = move || {
            for task in orders {
                match task {
                    Task::Make(generation) => {
                        let _ = report.send(make(&fjall, generation, &map)); // nobody listens any more at the end
                    }
                    Task::Delete(keyspace, file) => {
                        let name = keyspace.name().to_string();
                        let deleted = fjall.delete_keyspace(keyspace);
                        let deleted =
                            deleted.and_then(|()| Ok(change_log::delete_before(&log, file)?));
                        if let Err(error) = deleted {
                            // It is deleted when the store is opened next.
                            log::warn!("cannot delete {name}: {}", files::cause(&error));
                        }
                    }
                }
            }
        };
        thread::Builder::new()
            .name("checkpoint".into())
            .spawn(work)?;
        Ok(Checkpointer { tasks, made })
    }

    /// Has the checkpoint of a generation made.
    pub(super) fn make(&self, generation: u64) {
        let _ = self.tasks.send(Task::Make(generation)); // where the thread is gone, `made` tells
    }

    /// What has come of it, once it is made.
    pub(super) fn made(&self) -> ControlFlow<fjall::Result<Keyspace>> {
        match self.made.try_recv() {
            Ok(result) => ControlFlow::Break(result),
            Err(TryRecvError::Empty) => ControlFlow::Continue(()),
            // It has panicked.
            Err(TryRecvError::Disconnected) => ControlFlow::Break(Err(fjall::Error::Poisoned)),
        }
    }

    /// Has a checkpoint deleted, and the files of the log before one.
    pub(super) fn delete(&self, keyspace: Keyspace, file: u64) {
        let _ = self.tasks.send(Task::Delete(keyspace, file)); // it is deleted when the store is opened next
    }
}

fn make(fjall: &Fjall, generation: u64, map: &Arc<Map>) -> fjall::Result<Keyspace> {
    let keyspace = files::entries(fjall, generation)?;
    let mut ingestion = keyspace.start_ingestion()?;
    let mut record = Vec::new();
    for entry in Listing::of(map, String::new(), None) {
        record.clear();
        record::encode(&entry, &mut record);
        ingestion.write(entry.key(), record.as_slice())?;
    }
    ingestion.finish()?;
    Ok(keyspace)
}
