//! Directories in which a server does not start: it says why, and leaves them as they are.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::directory::Directory;
use crate::durability::{start_in, stop};
use crate::lives;
use crate::process::Server;

#[test]
fn a_second_process_is_turned_away_and_the_first_goes_on() {
    let directory = Directory::new();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    expect_refusal(directory.path(), "is in use by another process");
    server.put("/kv/a", "2").expect(200, "");
    stop(server);
    start_in(&directory, &[]).get("/kv/a").expect(200, "2");
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let directory = Directory::new();
    stop(start_in(&directory, &[]));
    let format = directory.path().join("threadkv.format");
    let ours = fs::read(&format).unwrap();
    for (other, how) in [
        ("threadkv 2\n", "start version 0.1.0 there"),
        ("threadkv 6\n", "use the version that wrote it"),
    ] {
        fs::write(&format, other).unwrap();
        let before = files(directory.path());
        expect_refusal(directory.path(), how);
        assert!(files(directory.path()) == before);
    }
    // Nothing is created beside a store because it is missing.
    fs::write(&format, ours).unwrap();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    drop(server);
    fs::remove_file(&format).unwrap();
    expect_refusal(
        directory.path(),
        "threadkv.format is damaged (it is missing beside a store)",
    );
}

#[test]
fn a_second_process_is_turned_away_whatever_files_were_deleted() {
    let directory = Directory::new();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    fs::remove_file(directory.path().join("threadkv.format")).unwrap();
    let before = files(directory.path());
    expect_refusal(directory.path(), "is in use by another process");
    assert!(files(directory.path()) == before);
    server.put("/kv/a", "2").expect(200, "");
}

#[test]
fn what_is_no_directory_or_cannot_be_written_is_refused() {
    let directory = Directory::new();
    let file = directory.path().join("file");
    fs::write(&file, "mine").unwrap();
    expect_refusal(&file, "cannot create");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // Root may write anywhere, but not here.
    expect_refusal(Path::new("/proc/threadkv"), "cannot create /proc/threadkv");
}

/// All files below a directory, by their path relative to it.
pub fn files(directory: &Path) -> HashMap<String, Vec<u8>> {
    let files = lives::files(directory).into_iter();
    let name = |path: PathBuf| path.to_str().unwrap().to_owned();
    files.map(|(path, bytes)| (name(path), bytes)).collect()
}

pub fn write_files(directory: &Path, files: &HashMap<String, Vec<u8>>) {
    for (path, bytes) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A server in that directory, or what it said on stderr before it ended with status 1.
pub fn try_start(directory: &Path) -> Result<Server, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["--port", "0", "--working-dir", directory.to_str().unwrap()]);
    Server::try_spawn(command).map_err(|(status, lines)| {
        assert_eq!(status.code(), Some(1), "{lines:?}");
        lines.join("\n")
    })
}

/// One line on stderr that says so, and status 1.
#[track_caller]
pub fn expect_refusal(directory: &Path, text: &str) {
    let stderr = try_start(directory).err().expect("it started");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("threadkv: ") && stderr.contains(text),
        "{stderr}"
    );
}
