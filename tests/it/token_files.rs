//! The file of the tokens keeps its place, owner and mode when it is changed; one that cannot be read is said to be, and stops nobody.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use crate::directory::Directory;
use crate::process::{Server, is_root, wait_for};
use crate::tokens::TokenFile;

/// A user and a group who are not root, and own nothing.
const NOBODY: (u32, u32) = (65534, 65533);

fn threadkv() -> Command {
    Command::new(env!("CARGO_BIN_EXE_threadkv"))
}

/// The server, run by a user who is not root.
fn serve_as_nobody(file: &str) -> Result<Server, Vec<String>> {
    let mut command = threadkv();
    command.args(["--port", "0", "--auth", file]);
    command.uid(NOBODY.0).gid(NOBODY.1);
    Server::try_spawn(command).map_err(|(status, said)| {
        assert_eq!(status.code(), Some(1));
        said
    })
}

fn revoke(path: &Path, name: &str, command: &mut Command) -> Output {
    command.args(["token", "revoke", "--name", name, "--file"]);
    command.arg(path).output().unwrap()
}

/// Checks that a command was refused with one line that says this, and left nothing behind.
#[track_caller]
fn expect_refused(output: &Output, said: &str, directory: &Directory, files: usize) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(said) && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), files);
}

fn status(server: &Server, token: &str) -> u16 {
    let header = format!("X-API-Key: {token}\r\n");
    let answer = server
        .connect()
        .send_with(&header, "GET", "/api/v1/status", "");
    answer.status
}

/// Waits until a token is let in no more.
#[track_caller]
fn expect_revoked(server: &Server, token: &str) {
    wait_for("the token to be revoked", || {
        (status(server, token) == 401).then_some(())
    });
}

#[test]
fn root_revokes_a_token_of_a_server_that_another_user_runs() {
    if !is_root("to run as another user") {
        return;
    }
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let (kept, revoked) = (tokens.create(&[]), tokens.create(&["--name=revoked"]));
    chown(tokens.path(), Some(NOBODY.0), Some(NOBODY.1)).unwrap();
    fs::set_permissions(tokens.path(), Permissions::from_mode(0o640)).unwrap();
    let server = serve_as_nobody(tokens.path()).unwrap();
    assert_eq!(status(&server, &revoked), 200);
    assert!(tokens.run("revoke", &["--name=revoked"]).status.success());
    expect_revoked(&server, &revoked);
    assert_eq!(status(&server, &kept), 200);
    let made = tokens.create(&[]);
    wait_for("the new token", || {
        (status(&server, &made) == 200).then_some(())
    });
    let file = fs::metadata(tokens.path()).unwrap();
    assert_eq!((file.uid(), file.gid()), NOBODY);
    assert_eq!(file.mode() & 0o7777, 0o640);
}

#[test]
fn where_the_owner_cannot_be_kept_nothing_is_changed() {
    if !is_root("to run as another user") {
        return;
    }
    let directory = Directory::new();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&["--name=a"]);
    fs::set_permissions(tokens.path(), Permissions::from_mode(0o644)).unwrap();
    let before = fs::read(tokens.path()).unwrap();
    let path = Path::new(tokens.path());
    let output = revoke(path, "a", threadkv().uid(NOBODY.0).gid(NOBODY.1));
    expect_refused(&output, "cannot keep the owner and group of", &directory, 1);
    assert_eq!(fs::read(path).unwrap(), before);
    assert_eq!(fs::metadata(path).unwrap().uid(), 0);
}

#[test]
fn through_a_symbolic_link_the_file_itself_is_changed() {
    let (directory, elsewhere) = (Directory::new(), Directory::new());
    let real = TokenFile::in_directory(&elsewhere);
    let token = real.create(&["--name=a"]);
    let linked = TokenFile::in_directory(&directory);
    symlink(real.path(), linked.path()).unwrap();
    let servers = [real.path(), linked.path()].map(|path| Server::start(&["--auth", path]));
    let made = linked.create(&["--name=b"]);
    assert!(linked.run("revoke", &["--name=a"]).status.success());
    assert!(fs::symlink_metadata(linked.path()).unwrap().is_symlink());
    for server in &servers {
        expect_revoked(server, &token);
        assert_eq!(status(server, &made), 200);
    }
    // A link to nothing is not taken for a new file.
    let dangling = directory.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    let create = ["token", "create", "--file"];
    let output = threadkv().args(create).arg(&dangling).output().unwrap();
    expect_refused(&output, "cannot find", &directory, 2);
}

#[test]
fn a_file_with_two_names_is_not_changed_under_one_of_them() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    tokens.create(&["--name=a"]);
    let other = directory.path().join("other");
    fs::hard_link(tokens.path(), &other).unwrap();
    let output = revoke(&other, "a", &mut threadkv());
    expect_refused(&output, "has 2 names", &directory, 2);
}

/// Puts something in the place of the file of tokens that is none, and returns what is said of it.
type Spoil = (fn(&Path), &'static str);

const SPOILED: &[Spoil] = &[
    (|path| fs::create_dir(path).unwrap(), "is a directory"),
    (
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "is no regular file",
    ),
    (
        |path| File::create(path).unwrap().set_len(20 << 20).unwrap(),
        "has more than 16777216 bytes",
    ),
    (
        |path| {
            let half = br#"{"tokens":[{"name":"a","hash":"00"#;
            File::create(path).unwrap().write_all(half).unwrap();
        },
        "is no file of tokens",
    ),
    (|path| symlink(path, path).unwrap(), "cannot read"),
];

#[test]
fn what_is_no_file_of_tokens_is_refused_at_the_start() {
    let directory = Directory::new();
    for (n, (spoil, said)) in SPOILED.iter().enumerate() {
        let path: PathBuf = directory.path().join(n.to_string());
        spoil(&path);
        for arguments in [&["--port=0", "--auth"][..], &["token", "list", "--file"]] {
            let output = threadkv().args(arguments).arg(&path).output().unwrap();
            expect_refused(&output, said, &directory, n + 1);
        }
    }
}

#[test]
fn what_takes_the_files_place_while_it_serves_drops_nobody() {
    // At the same time, since servers look at the file only now and then.
    thread::scope(|scope| {
        for spoiled in SPOILED {
            scope.spawn(|| expect_nobody_dropped(spoiled));
        }
    });
}

fn expect_nobody_dropped((spoil, said): &Spoil) {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&["--name=a"]);
    let mut server = Server::start(&["--auth", tokens.path()]);
    let path = Path::new(tokens.path());
    let good = directory.path().join("good");
    fs::rename(path, &good).unwrap();
    server.wait_for_log("the tokens stay as they were");
    spoil(path);
    server.wait_for_log(said);
    assert_eq!(status(&server, &token), 200, "{said}");
    // Short trouble is no reason for alarm.
    let health = server.get("/api/v1/health");
    assert_eq!((health.status, health.json().get("problem")), (200, None));
    fs::rename(path, directory.path().join("aside")).unwrap();
    fs::rename(&good, path).unwrap();
    server.wait_for_log("1 tokens let in");
    assert!(tokens.run("revoke", &["--name=a"]).status.success());
    expect_revoked(&server, &token);
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_file_that_may_not_be_read_any_more_drops_nobody() {
    if !is_root("to run as another user") {
        return;
    }
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&[]);
    let mode = |mode| fs::set_permissions(tokens.path(), Permissions::from_mode(mode)).unwrap();
    let said = serve_as_nobody(tokens.path()).err().unwrap();
    assert!(said[0].contains("cannot read") && said[0].contains("Permission denied"));
    mode(0o644);
    let mut server = serve_as_nobody(tokens.path()).unwrap();
    mode(0o600);
    server.wait_for_log("Permission denied");
    assert_eq!(status(&server, &token), 200);
    mode(0o644);
    server.wait_for_log("1 tokens let in");
}
