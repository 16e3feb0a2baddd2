//! `--log-level @FILE`: a level that SIGHUP has read again.

use std::fs;
use std::process::Command;

use crate::directory::Directory;
use crate::options::{expect_mistake, expect_mistake_with};
use crate::process::Server;

#[test]
fn hup_has_the_level_read_again() {
    let directory = Directory::new();
    let file = directory.path().join("level");
    let name = file.to_str().unwrap();
    fs::write(&file, "info\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.arg("--port=0");
    command.env("THREADKV_LOG_LEVEL", format!("@{name}"));
    let mut server = Server::spawn(command);
    server.get("/kv/first").expect(404, "key not found\n");

    // It is read when it is asked for, and a wrong one changes nothing.
    fs::write(&file, "debug").unwrap();
    server.get("/kv/second").expect(404, "key not found\n");
    server.signal("-HUP");
    server.wait_for_log(&format!("the log level is debug, as {name} says"));
    for (text, said) in [
        (Some("loud\n"), "holds no log level but \"loud\""),
        (None, "cannot read the log level"),
    ] {
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        server.signal("-HUP");
        let line = server.wait_for_log("; the log level stays debug");
        assert!(
            line.contains("[WARN]") && line.contains(said) && line.contains(name),
            "{line}"
        );
        server.get("/kv/third").expect(404, "key not found\n");
        server.wait_for_log("/kv/third");
    }
    fs::write(&file, "error").unwrap();
    server.signal("-HUP");
    server.wait_for_log("the log level is error");
    server.get("/kv/fourth").expect(404, "key not found\n");
    server.signal("-TERM");
    let (status, rest) = server.wait();
    assert!(status.success());
    assert!(rest.is_empty(), "{rest:?}");
    for key in ["first", "second"] {
        assert!(!server.has_seen(key));
    }
}

#[test]
fn at_the_start_a_file_without_a_level_is_a_mistake() {
    let why = "cannot read the log level from /nowhere: No such file";
    expect_mistake(
        &["--port=0", "--log-level=@/nowhere"],
        &format!("--log-level: {why}"),
    );
    let variable = [("THREADKV_LOG_LEVEL", "@/nowhere")];
    expect_mistake_with(
        &variable,
        &["--port=0"],
        &format!("THREADKV_LOG_LEVEL: {why}"),
    );
    expect_mistake(&["--port=0", "--log-level=@/"], "/: Is a directory");
}
