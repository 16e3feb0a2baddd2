//! `run.sh` is the server, as far as whoever starts it can tell.

use std::process::Command;
use std::{env, fs};

use crate::process::Server;

#[test]
fn run_sh_becomes_the_server() {
    let run_sh = concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh");
    // Builds, which may take its time.
    let built = Command::new(run_sh).arg("--version").output().unwrap();
    assert!(built.stdout.starts_with(b"threadkv "), "{built:?}");
    let mut command = Command::new(run_sh);
    command.args(["--port=0", "--log-level", "info"]);
    let mut server = Server::spawn(command);
    let name = fs::read_to_string(format!("/proc/{}/comm", server.pid())).unwrap();
    assert_eq!(
        name.trim(),
        "threadkv",
        "a shell stands between the signals and the server"
    );
    server.put("/kv/a", "1").expect(200, "");
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn without_cargo_run_sh_says_what_to_install() {
    let empty = env::temp_dir().join(format!("threadkv-no-cargo-{}", std::process::id()));
    fs::create_dir_all(&empty).unwrap();
    let output = Command::new("/bin/sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh"))
        .env("CARGO_TARGET_DIR", &empty)
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    fs::remove_dir_all(&empty).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("cargo") && stderr.contains("rustup.rs"),
        "{stderr}"
    );
}
