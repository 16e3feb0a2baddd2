//! Options from the environment.

use std::process::Command;

use crate::directory::Directory;
use crate::options::{expect_mistake_with, run_with};
use crate::process::Server;

fn start(variables: &[(&str, &str)], options: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(options).envs(variables.iter().copied());
    Server::spawn(command)
}

#[test]
fn a_server_can_be_set_up_by_the_environment_alone() {
    let directory = Directory::new();
    let server = start(
        &[
            ("THREADKV_PORT", "0"),
            ("THREADKV_WORKING_DIR", directory.path_str()),
            ("THREADKV_DURABILITY", "os"),
            ("THREADKV_MAX_VALUE_BYTES", "3"),
            ("THREADKV_HOST", "0.0.0.0"),
            ("THREADKV_NO_AUTH", "true"),
            ("THREADKV_CORS_ORIGIN", "http://a.example,http://b.example"),
            ("THREADKV_WORKERS", ""),
        ],
        &[],
    );
    assert!(server.has_seen("durability os"));
    assert!(!server.has_seen("[WARN]"));
    server.put("/kv/a", "1234").expect(413, "value too large\n");
    assert!(directory.path().join("threadkv.format").exists());
    for origin in ["http://a.example", "http://b.example"] {
        let mut client = server.connect();
        client.write(format!(
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n"
        ));
        let response = client.read("GET");
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
    }
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let variables = [
        ("THREADKV_PORT", "1"),
        ("THREADKV_MAX_VALUE_BYTES", "nonsense"),
        ("THREADKV_AUTH", "/there/is/no/such/file"),
    ];
    let server = start(&variables, &["-p", "0", "--max-value-bytes=4", "--no-auth"]);
    server.put("/kv/a", "1234").expect(200, "");
    server
        .put("/kv/a", "12345")
        .expect(413, "value too large\n");
}

#[test]
fn a_wrong_value_is_one_line_that_names_the_variable() {
    for (name, value, named) in [
        (
            "THREADKV_PORT",
            "http",
            "THREADKV_PORT \"http\": expected a number",
        ),
        (
            "THREADKV_NO_AUTH",
            "perhaps",
            "THREADKV_NO_AUTH \"perhaps\": expected 1, true",
        ),
        (
            "THREADKV_CORS_ORIGIN",
            "http://a,b",
            "THREADKV_CORS_ORIGIN \"b\"",
        ),
        (
            "THREADKV_HOST",
            "0.0.0.0",
            "THREADKV_HOST 0.0.0.0 lets other machines in",
        ),
        ("THREADKV_LOG_LEVEL", "loud", "THREADKV_LOG_LEVEL \"loud\""),
        ("THREADKV_AUTH", "/no/such/file", "/no/such/file"),
        (
            "THREADKV_MAX_CONNECTIONS",
            "999999999",
            "THREADKV_MAX_CONNECTIONS 999999999: the limits",
        ),
    ] {
        expect_mistake_with(&[(name, value)], &[], named);
    }
}

#[test]
fn a_variable_of_no_option_is_a_warning() {
    let server = start(&[("THREADKV_PROT", "8001")], &["--port=0"]);
    assert!(server.has_seen("[WARN] THREADKV_PROT has no effect: no option is called so"));
}

/// Who has set a variable wrongly can still ask what it should be.
#[test]
fn help_does_not_depend_on_them() {
    let wrong = [("THREADKV_PORT", "x"), ("THREADKV_NO_AUTH", "x")];
    for options in [&["--help"][..], &["--version"], &["token", "-h"]] {
        let output = run_with(&wrong, options);
        assert!(output.status.success(), "{options:?}: {output:?}");
    }
}
