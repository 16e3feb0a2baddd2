//! A file that takes up room until the disk is full, and then makes room for deletes.
//!
//! Also a delete has to be written down before it counts. On a full disk there would be no way out without this.

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::directory::Directory;

/// Enough for some ten thousand deletes, and for the snapshot of a store that has been cleared.
const BYTES: usize = 512 << 10;

/// How often it is tried to take up the room again.
const RETRY: Duration = Duration::from_secs(5);

/// What is known of the file.
pub(super) struct Reserve {
    there: bool,
    tried: Instant,
}

impl Reserve {
    /// Takes up room, if there is any.
    pub(super) fn open(directory: &Directory) -> Reserve {
        let length = fs::metadata(directory.reserve()).map_or(0, |it| it.len());
        let there = length == BYTES as u64;
        let tried = Instant::now();
        let mut reserve = Reserve { there, tried };
        if !there {
            reserve.create(directory);
        }
        reserve
    }

    /// Makes room. Returns whether it did.
    pub(super) fn give_up(&mut self, directory: &Directory) -> bool {
        if !self.there {
            return false;
        }
        self.there = fs::remove_file(directory.reserve()).is_err();
        self.tried = Instant::now();
        !self.there
    }

    /// Takes up the room again, from time to time.
    pub(super) fn restore(&mut self, directory: &Directory) {
        if !self.there && self.tried.elapsed() >= RETRY {
            self.create(directory);
        }
    }

    fn create(&mut self, directory: &Directory) {
        let path = directory.reserve();
        let create = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&vec![0; BYTES])?;
            file.sync_all()
        };
        self.tried = Instant::now();
        self.there = create().is_ok();
        if !self.there {
            let _ = fs::remove_file(&path); // where it stays, it is written anew
        }
    }
}
