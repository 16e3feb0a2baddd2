//! What cannot be imported or restored is told by its line, and leaves what the contract says.

use std::fs;

use serde_json::json;

use crate::client::Response;
use crate::directory::Directory;
use crate::export::{IMPORT, entry, file, restore};
use crate::process::Server;

/// Checks that it is refused for this line. Returns the message.
#[track_caller]
fn expect_mistake(answer: &Response, line: u64, imported: u64) -> String {
    answer.expect_error(
        400,
        "VALIDATION_ERROR",
        json!({"line": line, "imported": imported}),
    )
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_is_before_it_stays() {
    let directory = Directory::new();
    let server = Server::start(&[]);
    let entries: Vec<String> = (0..3000).map(entry).collect();
    let whole = file(&entries);
    let half = whole.lines().take(1501).collect::<Vec<_>>().join("\n") + "\n";
    let mut broken = entries.clone();
    broken[2000] = "{\"key\":".into();
    let mut bad_key = entries.clone();
    bad_key[2] = r#"{"key":"a b","value":1}"#.into();
    let value = "v".repeat(10_485_761);
    let huge = file(&[entry(0), format!("{{\"key\":\"k\",\"text\":\"{value}\"}}")]);
    let endless = file(&[]).lines().next().unwrap().to_owned() + "\n" + &"x".repeat(70_000_000);
    for (what, text, line, imported) in [
        ("cut", half.clone(), 1502, 1500),
        (
            "cut in a line",
            half[..half.len() - 9].to_owned(),
            1501,
            1499,
        ),
        (
            "tampered",
            whole.replace("{\"n\":7}", "{\"n\":8}"),
            3002,
            3000,
        ),
        (
            "a line less",
            whole.replace(&format!("{}\n", entry(7)), ""),
            3001,
            2999,
        ),
        ("more behind", whole.clone() + "{}", 3003, 3000),
        ("broken", file(&broken), 2002, 2000),
        ("bad key", file(&bad_key), 4, 2),
        ("huge value", huge, 3, 1),
        ("endless line", endless, 2, 0),
        ("csv", "key,value\na,1\n".into(), 1, 0),
        ("json", "{\"operations\":[]}".into(), 1, 0),
        ("empty", String::new(), 1, 0),
        ("binary", "\0\u{1}PK".repeat(10_000), 1, 0),
        ("future", "{\"threadkv\":2,\"keys\":0}\n".into(), 1, 0),
    ] {
        server.send("DELETE", "/clear", "").expect(200, "");
        let mut client = server.connect();
        let length = text.len();
        client.write(format!(
            "POST {IMPORT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        ));
        // It may be answered before all of it is sent.
        let _ = client.try_write(&text);
        let message = expect_mistake(&client.read("POST"), line, imported);
        assert!(
            message.starts_with(&format!("Line {line}: ")),
            "{what}: {message}"
        );
        assert!(message.contains("imported"), "{what}: {message}");
        let count = server.get("/api/v1/kv?count_only=1").json();
        assert_eq!(count["data"]["count"], imported, "{what}");

        if what == "huge value" {
            continue; // for a server that takes larger values
        }
        let to = directory.path().join("to");
        let from = directory.path().join("from");
        fs::write(&from, &text).unwrap();
        let from = from.to_str().unwrap();
        // An endless line is too long where values have a gigabyte at most, not here.
        let line = if what == "endless line" { 2 } else { line };
        let output = restore(from, to.to_str().unwrap(), None);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}: {error}");
        assert!(
            error.contains(&format!("{from}: line {line}: ")),
            "{what}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{what}: {error}");
        assert!(!to.exists(), "{what}");
    }
}

#[test]
fn a_restore_takes_only_a_directory_without_a_store() {
    let directory = Directory::new();
    let text = file(&[entry(1)]);
    let refused = |to: &str, why: &str| {
        let output = restore("-", to, Some(text.as_bytes()));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    };
    let store = directory.path().join("store");
    let store = store.to_str().unwrap();
    let server = Server::start(&["--working-dir", store]);
    server.put("/kv/a", "v").expect(200, "");
    refused(store, "in use by another process");
    drop(server);
    refused(store, "is there already");
    Server::start(&["--working-dir", store])
        .get("/kv/a")
        .expect(200, "v");
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "mine").unwrap();
    refused(other.to_str().unwrap(), "notes is there already");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    refused("/proc/nowhere", "/proc/nowhere");
    // What a restore that was killed has left is not in the way.
    fs::remove_file(other.join("notes")).unwrap();
    fs::create_dir(other.join("restore.new")).unwrap();
    fs::write(other.join("restore.new/log-0"), "half").unwrap();
    let output = restore("-", other.to_str().unwrap(), Some(text.as_bytes()));
    assert!(output.status.success(), "{output:?}");
    let server = Server::start(&["--working-dir", other.to_str().unwrap()]);
    server.get("/kv/key:000001").expect(200, "{\"n\":1}");
    let output = restore("/nowhere/file", store, None);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("/nowhere/file: No such file"), "{error}");
}

#[test]
fn a_store_that_is_full_says_how_much_was_imported() {
    let server = Server::start(&["--max-memory", "8MiB"]);
    let entries: Vec<String> = (0..200_000).map(entry).collect();
    let text = file(&entries);
    let mut client = server.connect();
    let length = text.len();
    client.write(format!(
        "POST {IMPORT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    ));
    let _ = client.try_write(&text);
    let answer = client.read("POST");
    let details = answer.json()["error"]["details"].clone();
    assert_eq!(answer.status, 507, "{}", answer.text());
    let count = server.get("/api/v1/kv?count_only=1").json();
    assert_eq!(details["imported"], count["data"]["count"]);
    assert!(details["limit"].is_u64() && details["imported"].as_u64() > Some(1000));
}
