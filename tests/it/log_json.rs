//! `--log-format json`: each line of the log is a JSON object, whatever clients send.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::Client;
use crate::directory::Directory;
use crate::logging::{REQUESTS, make_noise, read_lines};
use crate::options::run;
use crate::process::{PATIENCE, Server};
use crate::tokens::TokenFile;

#[track_caller]
fn parse(line: &str) -> Value {
    let object: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for field in ["time", "level", "message"] {
        assert!(object[field].is_string(), "{line}");
    }
    assert!(object["time"].as_str().unwrap().ends_with('Z'), "{line}");
    object
}

/// The next line whose message contains `text`.
#[track_caller]
fn next(server: &mut Server, text: &str) -> Value {
    parse(&server.wait_for_log(text))
}

#[test]
fn a_request_is_told_in_fields_and_so_is_where_its_time_went() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&["--name", "the \"app\""]);
    let mut server = Server::start(&[
        "--log-format=json",
        "--log-level=debug",
        "--slow-log=0",
        "--auth",
        tokens.path(),
    ]);
    let headers = format!("X-API-Key: {token}\r\nX-Request-Id: abc-1\r\n");
    let stream = TcpStream::connect(server.address).unwrap();
    let from = stream.local_addr().unwrap().to_string();
    let mut client = Client::on(stream).unwrap();
    client
        .send_with(&headers, "GET", "/kv/a?b=c", "")
        .expect(404, "key not found\n");
    let request = next(&mut server, "id=abc-1");
    let slow = next(&mut server, "slow: ");
    assert_eq!(
        (&request["level"], &slow["level"]),
        (&"debug".into(), &"warn".into())
    );
    for line in [&request, &slow] {
        for (field, value) in [
            ("client", from.as_str().into()),
            ("method", "GET".into()),
            ("path", "/kv/a".into()),
            ("status", 404.into()),
            ("request_id", "abc-1".into()),
            ("token", Value::from("the \"app\"")),
        ] {
            assert_eq!(line[field], value, "{field} in {line}");
        }
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
    }
    let parts = ["queue_ms", "store_ms", "disk_ms", "client_ms"];
    let sum: f64 = parts.iter().map(|it| slow[it].as_f64().unwrap()).sum();
    let whole = slow["duration_ms"].as_f64().unwrap();
    assert!((sum - whole).abs() < 1e-3, "{slow}");
    // A line without a field does not have it empty.
    server.get("/kv/b").expect(401, "unauthorized\n");
    let refused = next(&mut server, "/kv/b");
    assert!(
        refused.get("token").is_none() && refused["status"] == 401,
        "{refused}"
    );
}

#[test]
fn nothing_that_a_client_sends_breaks_a_line() {
    let mut server = Server::start(&["--log-format=json", "--log-level=trace", "--slow-log=0"]);
    for path in [
        &b"/kv/\"\\\x1b[31m"[..],
        b"/kv/\xff\xfe\x80",
        b"/kv/\xe2\x80\xa8\xc2\x85",
        b"/kv/a\nb",
        b"/kv/a\r\nb",
        b"/kv/\0",
        b"/kv/%0a%00%ff",
        b"/kv/{\"level\":\"error\"}\",\"x\":\"",
    ] {
        let mut client = server.connect();
        let rest = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write([b"GET ", path, rest].concat());
        client.into_reader().read_to_end(&mut Vec::new()).unwrap();
    }
    server.send("M\"\\", "/kv/a", "");
    server.get("/kv/end").expect(404, "key not found\n");
    server.signal("-TERM");
    let (status, lines) = server.wait();
    assert!(status.success());
    for line in &lines {
        let object = parse(line);
        let plain = |c: char| !c.is_control() && c != '\u{2028}';
        assert!(line.chars().all(plain), "{line:?}");
        assert_ne!(object["level"], "error", "{line}");
    }
    let paths = lines.iter().filter(|it| parse(it)["path"] != Value::Null);
    assert!(paths.count() >= 12);
    assert!(lines.iter().any(|line| line.contains("bye")));
}

#[test]
fn lost_lines_are_counted_in_json_too() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["--port=0", "--log-level=debug", "--log-format=json"]);
    let mut server = Server::spawn_unheard(command, Stdio::piped());
    make_noise(&server);
    let lines = read_lines(server.take_stderr());
    let (mut requests, mut lost) = (0, 0);
    while requests + lost < REQUESTS as u64 {
        let line = parse(&lines.recv_timeout(PATIENCE).expect("another line"));
        lost += line["lost"].as_u64().unwrap_or(0);
        requests += u64::from(line["status"] == 404);
    }
    assert!(requests > 0 && lost > 0, "{requests} and {lost}");
    assert_eq!(requests + lost, REQUESTS as u64);
}

#[test]
fn warnings_about_options_and_last_words_are_json() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    for (options, why) in [
        (&["--port", &port][..], "cannot listen on 127.0.0.1:"),
        (&["--port=0", "--auth=/nowhere"], "/nowhere"),
        (&["--port=0", "--working-dir=/dev/null"], "/dev/null"),
        (
            &["--port=0", "--log-level=@/nowhere"],
            "--log-level: cannot read the log level from /nowhere: ",
        ),
    ] {
        let mut all = vec!["--log-format=json", "--durability=os"];
        all.extend(options);
        let output = run(&all);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<Value> = said.lines().map(parse).collect();
        let (last, before) = lines.split_last().unwrap();
        let message = last["message"].as_str().unwrap();
        assert!(last["level"] == "error" && message.contains(why), "{said}");
        assert!(!message.starts_with("threadkv: "));
        assert!(before.iter().all(|it| it["level"] != "error"), "{said}");
    }
    // Before the options are known, there is no format.
    let output = run(&["--log-format=json", "--port=x"]);
    assert!(output.stderr.starts_with(b"threadkv: --port \"x\": "));
}
