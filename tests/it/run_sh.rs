//! `run.sh` is the server, as far as whoever starts it can tell.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::{env, fs};

use crate::directory::Directory;
use crate::process::Server;

#[test]
fn run_sh_becomes_the_server() {
    let run_sh = concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh");
    // As if it had built the binary that the tests use. `.ci/run` lets it build the real one.
    let target = Directory::new();
    let release = target.path().join("release");
    fs::create_dir(&release).unwrap();
    symlink(env!("CARGO_BIN_EXE_threadkv"), release.join("threadkv")).unwrap();
    let mut command = Command::new(run_sh);
    command.env("CARGO_TARGET_DIR", target.path());
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

/// A first build takes a minute, in which nothing else would be seen.
#[test]
fn run_sh_says_that_it_builds_and_nothing_where_it_does_not() {
    let run_sh = concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh");
    let directory = Directory::new();
    // A cargo that builds a server of one line.
    let cargo = directory.path().join("cargo");
    let build = "#!/bin/sh\nmkdir -p \"$CARGO_TARGET_DIR/release\"\n\
                 printf '#!/bin/sh\\necho served' > \"$CARGO_TARGET_DIR/release/threadkv\"\n\
                 chmod +x \"$CARGO_TARGET_DIR/release/threadkv\"\n";
    fs::write(&cargo, build).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", directory.path_str());
    for said in ["run.sh: building the release binary", ""] {
        let output = Command::new(run_sh)
            .env("CARGO_TARGET_DIR", directory.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.stdout, b"served\n", "{stderr}");
        assert!(stderr.starts_with(said) && stderr.is_empty() == said.is_empty());
        assert!(stderr.lines().count() <= 1, "{stderr}");
    }
}
