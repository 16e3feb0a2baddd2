//! Watches the file of the tokens, so that a changed one counts without a restart.
//!
//! While the file cannot be read, the tokens stay as they were. To refuse everybody instead would be safer against a token that has
//! just been revoked, but then a wrong mode, a full disk or an editor that is still writing would be an outage. So the server goes on,
//! and says so: at once, then each minute in the log, and after a minute in the health answer.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::tokens::{TokenError, Tokens};

/// How often to look whether the file has changed.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A file that has not been readable for so long is reported, again each time.
pub(super) const REMIND: Duration = Duration::from_secs(60);

/// What is known of the file.
pub(super) struct Watch {
    path: PathBuf,
    /// The state in which it was last read.
    seen: Stamp,
    /// Since when it cannot be read.
    failing: Option<Failing>,
}

struct Failing {
    since: Instant,
    /// When the log last said so.
    said: Instant,
    /// What the log said.
    why: String,
}

/// What a look at the file has shown.
pub(super) enum Look {
    /// It is as it was.
    Unchanged,
    /// It has changed, or is to be read in any case.
    Read(Tokens),
    /// It cannot be read. The text is for the log; there is none where the log says it already.
    Failed(Option<String>),
}

/// What tells one state of a file from another: its number, size, and the times of its last changes, of its mode too. An error is a
/// state as well.
type Stamp = Result<(u64, u64, [i64; 4]), io::ErrorKind>;

fn stamp(path: &Path) -> Stamp {
    let it = fs::metadata(path).map_err(|error| error.kind())?;
    let times = [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()];
    Ok((it.ino(), it.size(), times))
}

impl Watch {
    /// Reads the file for the first time.
    pub(super) fn start(path: &Path) -> Result<(Watch, Tokens), TokenError> {
        let seen = stamp(path); // before it is read, so that a change meanwhile shows
        let tokens = Tokens::read(path)?;
        let watch = Watch {
            path: path.into(),
            seen,
            failing: None,
        };
        Ok((watch, tokens))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the file. `now` is the present. `read` asks for its content also where it has not changed.
    pub(super) fn look(&mut self, now: Instant, read: bool) -> Look {
        let stamp = stamp(&self.path);
        // A file that could not be read is tried each time: what was wrong may have been above it.
        if stamp == self.seen && self.failing.is_none() && !read {
            return Look::Unchanged;
        }
        self.seen = stamp;
        match Tokens::read(&self.path) {
            Ok(tokens) => {
                self.failing = None;
                Look::Read(tokens)
            }
            Err(error) => Look::Failed(self.fail(now, error.to_string())),
        }
    }

    /// What the log is to say of a file that cannot be read.
    fn fail(&mut self, now: Instant, why: String) -> Option<String> {
        let before = self.failing.take();
        let failing = self.failing.insert(Failing {
            since: before.as_ref().map_or(now, |before| before.since),
            said: now,
            why,
        });
        let why = &failing.why;
        match before {
            Some(before) if before.why == *why && now - before.said < REMIND => {
                failing.said = before.said;
                None
            }
            Some(before) if before.why == *why => Some(format!(
                "{why}; for {} s now, the tokens have stayed as they were: those revoked since then are still let in",
                (now - before.since).as_secs()
            )),
            _ => Some(format!("{why}; the tokens stay as they were")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_unreadable_is_said_to_be_again_each_minute() {
        let mut watch = Watch {
            path: PathBuf::new(),
            seen: Err(io::ErrorKind::NotFound),
            failing: None,
        };
        let start = Instant::now();
        let mut said = |second: u64, why: &str| {
            watch.fail(start + Duration::from_secs(second), why.to_owned())
        };
        assert!(
            said(0, "gone")
                .unwrap()
                .starts_with("gone; the tokens stay")
        );
        assert_eq!(said(1, "gone"), None);
        assert!(
            said(30, "half")
                .unwrap()
                .starts_with("half; the tokens stay")
        );
        assert_eq!(said(89, "half"), None);
        assert!(said(90, "half").unwrap().starts_with("half; for 90 s now"));
        assert_eq!(said(149, "half"), None);
        assert!(said(150, "half").unwrap().contains("for 150 s now"));
    }
}
