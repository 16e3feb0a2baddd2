//! The level of the log, which a file may say (`--log-level @FILE`), so that it can be changed while the server runs.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;

/// What a level may be.
const EXPECTED: &str = "expected off, error, warn, info, debug or trace";

/// More of a file than this is not read, in bytes: it holds one word.
const MAX_BYTES: u64 = 64;

/// Where the level of the log is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelSource {
    /// In the option itself.
    Option(LevelFilter),
    /// In this file.
    File(PathBuf),
}

impl FromStr for LevelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<LevelSource, String> {
        match text.strip_prefix('@') {
            Some("") | None => {
                let level = text.parse().map(LevelSource::Option);
                level.map_err(|_| {
                    format!("{text:?}: {EXPECTED}, or @ and a file that holds one of them")
                })
            }
            Some(path) => Ok(LevelSource::File(path.into())),
        }
    }
}

impl LevelSource {
    /// The level now. An error names the file.
    pub fn level(&self) -> Result<LevelFilter, String> {
        match self {
            LevelSource::Option(level) => Ok(*level),
            LevelSource::File(path) => read(path),
        }
    }

    /// Starts the thread that reads the file again when it is asked to; `None` where there is no file.
    pub fn follow(&self) -> io::Result<Option<Follower>> {
        let LevelSource::File(path) = self else {
            return Ok(None);
        };
        let (wake, woken) = bounded(1);
        let path = path.clone();
        thread::Builder::new()
            .name("log-level".into())
            .spawn(move || follow(&path, &woken))?;
        Ok(Some(Follower { wake }))
    }
}

/// Sets the level of the log anew, as a file says.
pub struct Follower {
    wake: Sender<()>,
}

impl Follower {
    /// Has the file read again. Does not wait for it: the disk may hang.
    pub fn reload(&self) {
        let _ = self.wake.try_send(()); // or somebody has asked for it already
    }
}

fn follow(path: &Path, woken: &Receiver<()>) {
    for () in woken {
        let before = log::max_level();
        match read(path) {
            Ok(level) => {
                // Said at whichever of the two levels says more.
                log::set_max_level(level.max(before));
                log::info!(
                    "the log level is {}, as {} says",
                    word(level),
                    path.display()
                );
                log::set_max_level(level);
            }
            Err(error) => log::warn!("{error}; the log level stays {}", word(before)),
        }
    }
}

fn word(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

fn read(path: &Path) -> Result<LevelFilter, String> {
    let name = path.display();
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        // Opening a FIFO would wait for somebody who writes to it.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read the log level from {name}: {error}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    text.parse()
        .map_err(|_| format!("{name} holds no log level but {text:?}: {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn a_level_is_a_word_or_in_a_file() {
        let debug = LevelSource::Option(LevelFilter::Debug);
        assert_eq!("debug".parse(), Ok(debug.clone()));
        assert_eq!("DEBUG".parse(), Ok(debug));
        assert_eq!("@a b".parse(), Ok(LevelSource::File("a b".into())));
        for wrong in ["loud", "@", "", " info"] {
            let error = wrong.parse::<LevelSource>().unwrap_err();
            assert!(
                error.starts_with(&format!("{wrong:?}: expected off, ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_holds_one_word() {
        let path = env::temp_dir().join(format!("threadkv-level-{}", process::id()));
        for (text, level) in [
            ("warn", LevelFilter::Warn),
            (" Trace\r\n\n", LevelFilter::Trace),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path), Ok(level));
        }
        for wrong in [&b""[..], b"\xff\n", b"info debug", b"# info", &[b' '; 100]] {
            fs::write(&path, wrong).unwrap();
            let error = read(&path).unwrap_err();
            assert!(
                error.contains("holds no log level") && error.lines().count() == 1,
                "{error}"
            );
        }
        fs::remove_file(&path).unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            error.contains("cannot read") && error.contains("threadkv-level-"),
            "{error}"
        );
    }
}
