//! The thread that asks how far the log is, once for all reads that wait.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::readers::Reader;
use super::shared::company;
use super::{JoinError, Shared};
use crate::etcd::{Error, Etcd};
use crate::store::NotCurrent;

/// How often it is asked while nobody reads, so that this node knows whether it is current.
const LOOK: Duration = Duration::from_millis(500);

/// Whoever has waited for so long is told that it cannot be known what is current. Electing a leader takes a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause before it is asked again.
const RETRY: Duration = Duration::from_millis(20);

pub(super) struct Barrier {
    shared: Arc<Shared>,
    reads: Receiver<Reader>,
    /// Whether to ask by a write.
    writes: bool,
}

/// Whether etcd is so old that it may answer a read from a state before it, when its processes stand still for a while: before 3.4.42,
/// 3.5.28 and 3.6.9 (etcd issue 20418). A write tells for sure.
pub(super) fn must_write(etcd: &Etcd) -> Result<bool, JoinError> {
    let version = etcd.status().map_err(JoinError::Etcd)?.version;
    Ok(is_too_old(&version))
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|it| it.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0_u32);
    match (next(), next(), next()) {
        (3, 4, patch) => patch < 42,
        (3, 5, patch) => patch < 28,
        (3, 6, patch) => patch < 9,
        (3, minor, _) => minor < 4,
        (major, ..) => major < 3,
    }
}

impl Barrier {
    pub(super) fn new(shared: Arc<Shared>, reads: Receiver<Reader>, writes: bool) -> Barrier {
        Barrier {
            shared,
            reads,
            writes,
        }
    }

    /// Asks as long as somebody may read.
    pub(super) fn run(self) {
        let mut readers = Vec::new();
        let mut look = Duration::ZERO; // at first at once
        let (mut previous, mut took) = (0, Duration::ZERO);
        loop {
            if readers.is_empty() {
                match self.reads.recv_timeout(mem::replace(&mut look, LOOK)) {
                    Ok(first) => readers.push(first),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.gather(&mut readers, previous, company(took));
            previous = readers.len();
            let asked = Instant::now();
            let answer = self.ask(!readers.is_empty());
            took = asked.elapsed();
            match answer {
                Ok(at) => {
                    let ready = self.shared.readers.wait_for(at, asked, readers);
                    self.shared.answer(ready, Ok(()));
                    readers = Vec::new();
                }
                Err(error) => {
                    log::debug!("it is not known how far the log is: {error}");
                    thread::sleep(RETRY);
                }
            }
            let late = |reader: &mut Reader| reader.since.elapsed() >= PATIENCE;
            let mut late: Vec<Reader> = readers.extract_if(.., late).collect();
            late.extend(self.shared.readers.overdue(PATIENCE));
            self.shared.answer(late, Err(NotCurrent));
        }
    }

    /// Takes those who have come before it is asked: as many as the `previous` time, if they come in time, and who else is there.
    fn gather(&self, readers: &mut Vec<Reader>, previous: usize, longest: Duration) {
        let until = Instant::now() + longest;
        while !readers.is_empty() && readers.len() < previous {
            match self.reads.recv_deadline(until) {
                Ok(reader) => readers.push(reader),
                Err(_) => break,
            }
        }
        readers.extend(self.reads.try_iter());
    }

    /// etcd's revision of the last record.
    fn ask(&self, for_readers: bool) -> Result<i64, Error> {
        let (etcd, keys) = (&self.shared.etcd, &self.shared.keys);
        if self.writes && for_readers {
            match etcd.put_and_get_revision(&keys.barrier, &keys.log) {
                // Where nothing can be written, the log stays as it is.
                Err(error) if error.is_no_space() => {}
                asked => return Ok(asked?.map_or(0, |log| log.mod_revision)),
            }
        }
        let (_, log) = etcd.get_revision(&keys.log)?;
        Ok(log.map_or(0, |log| log.mod_revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_asked_by_a_write() {
        for version in [
            "3.4.23", "3.4.41", "3.5.27", "3.6.8", "3.3.25", "2.3.8", "?",
        ] {
            assert!(is_too_old(version), "{version}");
        }
        for version in [
            "3.4.42",
            "3.5.28",
            "3.5.100",
            "3.6.9",
            "3.6.9-rc.1",
            "3.7.0",
            "4.0.0",
        ] {
            assert!(!is_too_old(version), "{version}");
        }
    }
}
