use super::*;
use log::LevelFilter;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn config(arguments: &[&str]) -> Result<Config, String> {
    match parse(arguments.iter().map(OsString::from), [])? {
        Invocation::Serve(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_options_the_defaults_of_the_contract_hold() {
    let config = config(&[]).unwrap();
    assert_eq!(config.address, "127.0.0.1:4000".parse().unwrap());
    assert_eq!(config.working_dir, None);
    assert_eq!(config.durability, Durability::Sync);
    assert!(config.workers >= 2);
    assert_eq!(config.max_connections, None);
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.max_memory, None);
    assert_eq!(config.max_value_bytes, 10_485_760);
    assert_eq!(config.max_batch, 500);
    assert_eq!(config.log_level, LevelSource::Option(LevelFilter::Info));
    assert_eq!(config.slow_log, None);
    assert!(!config.metrics_open);
}

#[test]
fn every_option_takes_both_forms() {
    let spaced = [
        "--host",
        "::1",
        "--port",
        "8001",
        "--working-dir",
        "a=b",
        "--workers",
        "3",
    ];
    let joined = [
        "--host=::1",
        "--port=8001",
        "--working-dir=a=b",
        "--workers=3",
    ];
    for arguments in [&spaced[..], &joined[..]] {
        let config = config(arguments).unwrap();
        assert_eq!(config.address, "[::1]:8001".parse().unwrap());
        assert_eq!(config.working_dir, Some(PathBuf::from("a=b")));
        assert_eq!(config.workers, 3);
    }
    let rest = [
        "--durability=os",
        "--max-connections=10",
        "--max-value-bytes=5",
        "--max-batch=7",
        "--log-level=debug",
        "--host=localhost",
        "--rate-limit=100/m",
        "--cors-origin=http://a",
        "--cors-origin=http://b:1",
        "--idle-timeout=1",
        "--head-timeout=2",
        "--transfer-timeout=86400",
        "--min-rate=0",
        "--slow-log=250",
        "--metrics-open",
    ];
    let config = config(&rest).unwrap();
    assert_eq!(config.max_connections, Some(10));
    assert_eq!(config.slow_log, Some(Duration::from_millis(250)));
    assert!(config.metrics_open);
    assert_eq!(config.durability, Durability::Os);
    assert_eq!(config.max_value_bytes, 5);
    let timeouts = Timeouts {
        idle: Duration::from_secs(1),
        head: Duration::from_secs(2),
        transfer: Duration::from_secs(86_400),
        min_rate: 0,
    };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.max_batch, 7);
    assert_eq!(config.rate_limit.unwrap().to_string(), "100/m");
    assert_eq!(config.cors_origins.len(), 2);
    assert_eq!(config.log_level, LevelSource::Option(LevelFilter::Debug));
    assert_eq!(config.address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
}

#[test]
fn a_mistake_is_answered_by_one_line_that_names_it() {
    for (arguments, named) in [
        (&["--port", "65536"][..], "--port \"65536\""),
        (&["--port=-1"], "--port \"-1\""),
        (&["--port="], "--port \"\""),
        (&["--port"], "'--port'; threadkv --help"),
        (&["-p", "65536"], "--port \"65536\""),
        (&["--host", "example"], "--host \"example\""),
        (&["--workers", "0"], "--workers \"0\""),
        (&["--workers", "20000"], "--workers \"20000\""),
        (&["--max-connections", "0"], "--max-connections \"0\""),
        (&["--idle-timeout", "0"], "--idle-timeout \"0\""),
        (&["--head-timeout=86401"], "--head-timeout \"86401\""),
        (&["--transfer-timeout", "1s"], "--transfer-timeout \"1s\""),
        (&["--min-rate", "1073741825"], "--min-rate \"1073741825\""),
        (&["--max-memory", "1048575"], "--max-memory \"1048575\""),
        (&["--max-memory=1MB"], "--max-memory \"1MB\""),
        (&["--max-memory=1.5GiB"], "--max-memory \"1.5GiB\""),
        (&["--max-memory=99999999999GiB"], "99999999999GiB"),
        (&["--max-memory", "MiB"], "512MiB"),
        (&["--max-value-bytes", "1.5"], "--max-value-bytes \"1.5\""),
        (&["--slow-log=-1"], "--slow-log \"-1\""),
        (&["--slow-log", "1s"], "--slow-log \"1s\""),
        (&["--max-batch", "0"], "--max-batch \"0\""),
        (&["--log-level", "loud"], "--log-level \"loud\""),
        (&["--log-level=@"], "--log-level \"@\": expected off"),
        (
            &["--log-format=xml"],
            "--log-format \"xml\": expected text or json",
        ),
        (&["--durability", "disk"], "--durability \"disk\""),
        (&["--rate-limit", "10"], "--rate-limit \"10\""),
        (&["--rate-limit=0/s"], "--rate-limit \"0/s\""),
        (
            &["--cors-origin", "example.com"],
            "--cors-origin \"example.com\"",
        ),
        (&["--cors-origin=*", "--cors-origin="], "--cors-origin \"\""),
        (&["--host", "0.0.0.0"], "--auth"),
        (&["--host", "192.168.1.1", "--port", "1"], "--no-auth"),
        (&["--auth", "f", "--no-auth"], "--no-auth"),
        (&["token"], "create list revoke"),
        (&["token", "create"], "--file; threadkv token create --help"),
        (&["token", "make"], "threadkv token --help"),
        (
            &["token", "create", "--file=f", "--rate-limit=9"],
            "--rate-limit \"9\"",
        ),
        (&["token", "revoke", "--file", "f"], "--name"),
        (&["--bogus"], "--bogus"),
        (&["--bogus=1"], "--bogus"),
        (&["stray"], "stray"),
        (&["--port", "1", "--port", "2"], "port"),
        (&["--port", "1", "-p", "2"], "-p"),
        (&["-x"], "-x"),
        (
            &["--working-dir="],
            "--working-dir \"\": its value is empty",
        ),
        (&["--auth", ""], "--auth \"\": its value is empty"),
        (&["--allow-host="], "--allow-host \"\": its value is empty"),
        (&["-p", ""], "-p \"\": its value is empty"),
        (
            &["token", "list", "--file="],
            "--file \"\": its value is empty",
        ),
        (&[""], "an empty argument"),
        (&["--peers", "8001"], "--peers \"8001\": expected members"),
        (&["--peers=:8001,"], "--peers \":8001,\": expected members"),
        (&["--peers=:0"], "--peers \":0\": expected members"),
        (&["--peers=:8001", "--port=0"], "--port 0 beside --peers"),
    ] {
        let error = config(arguments).unwrap_err();
        assert!(error.contains(named), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn memory_is_given_in_bytes_or_larger_units() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("1024KiB", 1 << 20),
        ("512MiB", 512 << 20),
        ("2GiB", 2 << 30),
    ] {
        let config = config(&["--max-memory", text]).unwrap();
        assert_eq!(config.max_memory, Some(bytes), "{text}");
    }
}

#[test]
fn other_machines_are_let_in_with_tokens_or_on_purpose() {
    for arguments in [
        ["--host=0.0.0.0", "--no-auth", "--port=1"],
        ["--host=::", "--auth=f", "--port=1"],
        ["--host=127.0.0.2", "--port=1", "--workers=1"],
    ] {
        assert!(config(&arguments).is_ok(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let printed = |argument: &str| match parse([OsString::from(argument)], []) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    for help in ["--help", "-h", "help"] {
        assert!(printed(help).contains("--max-value-bytes"));
    }
    for version in ["--version", "-V"] {
        assert_eq!(
            printed(version),
            format!("threadkv {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn a_member_of_a_cluster_keeps_its_data_apart() {
    let peers = "--peers=:8001,:8002,127.0.0.1:8003";
    let member = config(&["-p", "8002", peers, "--working-dir=d"]).unwrap();
    assert_eq!(member.address.port(), 8002);
    assert_eq!(member.working_dir, Some(PathBuf::from("d/node-8002")));
    assert!(member.warnings[0].contains("one node"));
    let member = config(&[peers]).unwrap();
    assert_eq!(member.working_dir, None);
}

#[test]
fn options_without_effect_are_warned_of() {
    let warnings = |arguments: &[&str]| config(arguments).unwrap().warnings;
    for (arguments, named) in [
        (
            ["--durability=sync", "--port=1"],
            "--durability has no effect",
        ),
        (
            ["--snapshot-after=4096", "--port=1"],
            "--snapshot-after has no effect",
        ),
        (["--allow-host=a", "--auth=f"], "--allow-host has no effect"),
    ] {
        let warnings = warnings(&arguments);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(named),
            "{warnings:?}"
        );
    }
    assert!(warnings(&["--durability=none", "--working-dir=d"]).is_empty());
    assert!(warnings(&["--allow-host=a"]).is_empty());
}

#[test]
fn restore_takes_a_file_or_stdin_and_a_directory() {
    let parsed = |arguments: &[&str]| parse(arguments.iter().map(OsString::from), []);
    let restore = |arguments: &[&str]| match parsed(arguments) {
        Ok(Invocation::Restore(restore)) => restore,
        other => panic!("{other:?}"),
    };
    let dash = restore(&["restore", "--from", "-", "--working-dir", "d"]);
    assert_eq!((dash.from, dash.durability), (None, Durability::Sync));
    let file = restore(&["restore", "--from=f", "--working-dir=d", "--durability=os"]);
    assert_eq!(file.from, Some(PathBuf::from("f")));
    assert_eq!(file.working_dir, PathBuf::from("d"));
    assert_eq!(file.durability, Durability::Os);
    for (arguments, wrong) in [
        (&["restore", "--from", "f"][..], "threadkv restore --help"),
        (&["restore", "--working-dir", "d"], "--from"),
        (
            &[
                "restore",
                "--from",
                "f",
                "--working-dir",
                "d",
                "--durability",
                "x",
            ],
            "--durability",
        ),
    ] {
        let error = parsed(arguments).unwrap_err();
        assert!(
            error.contains(wrong) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn values_are_smaller_in_a_cluster() {
    let url = ["--cluster", "http://127.0.0.1:2379"];
    let serve = |others: &[&str]| {
        let arguments = url.iter().chain(others).map(OsString::from);
        parse(arguments, [])
    };
    let Ok(Invocation::Serve(config)) = serve(&[]) else {
        panic!("it serves");
    };
    assert_eq!(config.max_value_bytes, 1 << 20);
    let Err(error) = serve(&["--max-value-bytes", "1048577"]) else {
        panic!("it is too much");
    };
    assert_eq!(
        error,
        "--cluster beside --max-value-bytes \"1048577\": expected a number from 1 to 1048576"
    );
}
