//! Reads and replaces the file of the tokens. Reading never waits, whatever stands in the file's place. Replacing keeps the file's
//! owner, group and mode, since the server may run as another user than the person who manages its tokens.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::TokenError;

/// The largest file that is read, in bytes: some 60,000 tokens. Anything larger is some other file.
const MAX_BYTES: u64 = 16 << 20;

/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TokenError> {
    let io = |error| TokenError::Io("read", path.into(), error);
    let file = OpenOptions::new()
        .read(true)
        // Opening a FIFO would wait for somebody who writes to it.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(io)?;
    let about = file.metadata().map_err(io)?;
    if !about.is_file() {
        return Err(TokenError::NotAFile(path.into(), about.is_dir()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(TokenError::TooLarge(path.into(), MAX_BYTES));
    }
    Ok(bytes)
}

/// A file that nobody else changes between reading and replacing it.
pub(super) struct Locked {
    /// As the user calls it.
    path: PathBuf,
    /// The file itself, where `path` is a symbolic link. Replacing the link would leave the file that the server reads as it was.
    real: PathBuf,
    /// The directory is locked, since the file itself is replaced.
    directory: File,
}

impl Locked {
    /// Locks a file, which need not be there yet. Waits for others who have locked it.
    pub(super) fn open(path: &Path) -> Result<Locked, TokenError> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => path.into(),
            Err(error) => return Err(TokenError::Io("find", path.into(), error)),
        };
        let error = |error| TokenError::Io("lock the directory of", path.into(), error);
        let directory = File::open(parent(&real)).map_err(error)?;
        directory.lock().map_err(error)?;
        Ok(Locked {
            path: path.into(),
            real,
            directory,
        })
    }

    /// Replaces the file, so that whoever reads it finds the old bytes or the new ones, also after a crash.
    pub(super) fn replace(&self, bytes: &[u8]) -> Result<(), TokenError> {
        let mut draft = self.real.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let result = self.write_draft(&draft, bytes).and_then(|()| {
            fs::rename(&draft, &self.real)
                .and_then(|()| self.directory.sync_all())
                .map_err(|error| self.cannot_write(error))
        });
        if result.is_err() {
            let _ = fs::remove_file(&draft); // the next one who replaces the file removes it as well
        }
        result
    }

    fn write_draft(&self, draft: &Path, bytes: &[u8]) -> Result<(), TokenError> {
        let io = |error| self.cannot_write(error);
        // One that a crash has left may belong to somebody else.
        match fs::remove_file(draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(draft)
            .map_err(io)?;
        match fs::metadata(&self.real) {
            Ok(before) => self.keep_rights(&file, &before)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        file.write_all(bytes).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// Gives the draft the owner, group and mode that the file has.
    fn keep_rights(&self, draft: &File, before: &Metadata) -> Result<(), TokenError> {
        if before.nlink() > 1 {
            return Err(TokenError::Linked(self.path.clone(), before.nlink()));
        }
        let (owner, group) = (before.uid(), before.gid());
        let error = |error| TokenError::Owner(self.path.clone(), owner, group, error);
        let made = draft.metadata().map_err(error)?;
        if (made.uid(), made.gid()) != (owner, group) {
            fchown(draft, Some(owner), Some(group)).map_err(error)?;
        }
        let mode = before.mode() & PERMISSIONS;
        draft
            .set_permissions(Permissions::from_mode(mode))
            .map_err(error)
    }

    fn cannot_write(&self, error: io::Error) -> TokenError {
        TokenError::Io("write", self.path.clone(), error)
    }
}

fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
