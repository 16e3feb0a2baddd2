//! The command line: what it takes, and how mistakes are answered.

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::directory::Directory;
use crate::ports::free_address;
use crate::process::{Server, forget_own_settings};

/// Runs it to its end.
pub fn run(options: &[&str]) -> Output {
    run_with(&[], options)
}

/// The same with these environment variables.
pub fn run_with(variables: &[(&str, &str)], options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(options).envs(variables.iter().copied());
    forget_own_settings(&mut command);
    command.output().unwrap()
}

/// One clear line on stderr, status 1, no panic.
#[track_caller]
pub fn expect_mistake(options: &[&str], named: &str) {
    expect_mistake_with(&[], options, named);
}

/// The same with environment variables.
#[track_caller]
pub fn expect_mistake_with(variables: &[(&str, &str)], options: &[&str], named: &str) {
    let output = run_with(variables, options);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("threadkv: ") && stderr.contains(named),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn mistakes_are_answered_by_one_line_and_status_1() {
    for (options, named) in [
        (
            &["--port", "65536"][..],
            "--port \"65536\": expected a number from 0 to 65535",
        ),
        (&["--port=http"], "--port \"http\""),
        (&["--port"], "'--port'; threadkv --help says more"),
        (
            &["--working-dir="],
            "--working-dir \"\": its value is empty",
        ),
        (&["--auth", ""], "--auth \"\": its value is empty"),
        (&["--bogus"], "--bogus"),
        (&["serve"], "serve"),
        (
            &["--host=nowhere.invalid"],
            "--host \"nowhere.invalid\": expected an IP address or localhost",
        ),
        (
            &["--host=192.0.2.1", "--no-auth"],
            "cannot listen on 192.0.2.1:4000",
        ),
        (&["--workers=0"], "--workers \"0\""),
        (
            &["--max-connections=999999"],
            "--max-connections 999999: the limits",
        ),
        (&["--max-value-bytes=10MB"], "--max-value-bytes \"10MB\""),
        (&["--log-level=loud"], "--log-level \"loud\""),
    ] {
        expect_mistake(options, named);
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    expect_mistake(
        &["--port", &port.to_string()],
        &format!("cannot listen on 127.0.0.1:{port}"),
    );
}

#[test]
fn help_and_version_go_to_stdout() {
    for asked in ["--help", "-h"] {
        let help = run(&[asked]);
        assert!(help.status.success());
        let text = String::from_utf8(help.stdout).unwrap();
        for option in [
            "--host",
            "--port",
            "--working-dir",
            "--workers",
            "--max-connections",
        ] {
            assert!(text.contains(option), "{text}");
        }
    }
    for arguments in [&["token", "-h"][..], &["token", "create", "-h"]] {
        let help = run(arguments);
        assert!(help.status.success() && help.stdout.starts_with(b"Usage: threadkv token"));
    }
    for asked in ["--version", "-V"] {
        let version = run(&[asked]);
        assert!(version.status.success());
        assert_eq!(
            String::from_utf8(version.stdout).unwrap(),
            format!("threadkv {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn what_has_no_effect_is_said_at_the_start() {
    let server = Server::start(&["--durability=os"]);
    assert!(server.has_seen("--durability has no effect without --working-dir"));
}

/// LittleClusters starts all members in the same directory.
#[test]
fn members_of_a_cluster_serve_each_from_a_directory_of_its_own() {
    let directory = Directory::new();
    let peers = "--peers=:8001,:8002";
    let start = |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
        command.args([&format!("--port={port}"), peers]);
        command.args(["--working-dir", directory.path_str()]);
        Server::spawn(command)
    };
    let mut members = [(); 2].map(|()| start(free_address().port()));
    for member in &members {
        let port = member.address.port();
        assert!(member.has_seen("this is one node"));
        member.put("/kv/port", port.to_string()).expect(200, "");
        assert!(directory.path().join(format!("node-{port}")).is_dir());
    }
    members[0].signal("-TERM");
    assert_eq!(members[0].wait().0.code(), Some(0));
    let port = members[0].address.port();
    let again = start(port);
    again.get("/kv/port").expect(200, &port.to_string());
}

#[test]
fn options_take_an_equals_sign_as_lsfr_passes_them() {
    let server = Server::start(&["--host=127.0.0.1", "--workers=1", "--max-value-bytes=3"]);
    server.put("/kv/a", "123").expect(200, "");
    server.put("/kv/a", "1234").expect(413, "value too large\n");
}

#[test]
fn it_listens_on_ipv6_too() {
    let server = Server::start(&["--host", "::1"]);
    assert!(server.address.is_ipv6());
    server.put("/kv/a", "1").expect(200, "");
    server.get("/kv/a").expect(200, "1");
}

#[test]
fn requests_are_logged_at_debug_level_and_no_lower() {
    let mut server = Server::start(&["--log-level=debug"]);
    server.put("/kv/some:key", "secret").expect(200, "");
    let line = server.wait_for_log("/kv/some:key");
    assert!(
        line.contains("PUT") && line.contains("200") && !line.contains("secret"),
        "{line}"
    );

    let mut server = Server::start(&[]);
    server.put("/kv/some:key", "1").expect(200, "");
    server.signal("-TERM");
    let (_, log) = server.wait();
    assert!(!log.iter().any(|line| line.contains("some:key")), "{log:?}");
}
