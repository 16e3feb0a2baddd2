//! An export is the store at one revision, and what is imported or restored from it is the same store.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Response;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

const EXPORT: &str = "/api/v1/export";
const IMPORT: &str = "/api/v1/import";

/// The export of a server, checked as another program would check it, and its entries by their keys.
fn export(server: &Server, query: &str) -> (String, BTreeMap<String, Value>) {
    let answer = server.get(&format!("{EXPORT}{query}"));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text().to_owned();
    let lines: Vec<Value> = text
        .split_terminator('\n')
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (first, last) = (&lines[0], lines.last().unwrap());
    let entries = &lines[1..lines.len() - 1];
    assert_eq!(first["threadkv"], 1);
    assert_eq!(
        (&last["end"], &last["keys"]),
        (&json!(true), &first["keys"])
    );
    assert_eq!(first["keys"], entries.len());
    let end = text.trim_end().rfind('\n').unwrap() + 1;
    assert_eq!(last["sha256"], sha256(&text.as_bytes()[..end]));
    let entry = |it: &Value| (it["key"].as_str().unwrap().to_owned(), it.clone());
    let by_key: BTreeMap<_, _> = entries.iter().map(entry).collect();
    assert_eq!(by_key.len(), entries.len());
    (text, by_key)
}

fn sha256(bytes: &[u8]) -> String {
    let hash = hmac_sha256::Hash::hash(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same entries, without what an import gives anew.
fn without_revisions(mut entries: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for entry in entries.values_mut() {
        assert!(entry["revision"].take().as_u64().unwrap() > 0);
    }
    entries
}

/// An export with these lines.
fn file(entries: &[String]) -> String {
    let keys = entries.len();
    let mut text = format!("{{\"threadkv\":1,\"keys\":{keys}}}\n");
    for entry in entries {
        text += entry;
        text += "\n";
    }
    let hash = sha256(text.as_bytes());
    text + &format!("{{\"end\":true,\"keys\":{keys},\"sha256\":\"{hash}\"}}\n")
}

fn entry(n: usize) -> String {
    format!("{{\"key\":\"key:{n:06}\",\"value\":{{\"n\":{n}}}}}")
}

/// Puts values of all kinds.
fn fill(server: &Server) {
    let mut client = server.connect();
    let long = "é\"\n\u{1}".repeat(50_000);
    let pretty = format!("[\r\n  1,\n{}  2 ]", " \r".repeat(50_000));
    for (key, value, ttl) in [
        ("text", json!("plain").to_string(), "null"),
        ("empty", json!("").to_string(), "null"),
        (
            "odd",
            json!("a\u{1}\"\\\n\r\t🌍\u{2028}").to_string(),
            "600",
        ),
        ("long", json!(long).to_string(), "null"),
        ("null", "null".into(), "60"),
        ("number", "1.50e3".into(), "null"),
        (
            "spaced",
            "{\n\t\"a\" :\r\n [1 , \"x\\n\\u00e9\"]}".into(),
            "null",
        ),
        ("pretty", pretty, "3600"),
        ("user:1", "true".into(), "null"),
        ("user:2", "[]".into(), "null"),
    ] {
        let body = format!("{{\"value\":{value},\"ttl\":{ttl}}}");
        let answer = client.send("PUT", &format!("/api/v1/kv/{key}"), body);
        assert_eq!(answer.status, 200, "{key}");
    }
    let raw = "line\nline\r\n\u{7f}";
    client.send("PUT", "/kv/raw", raw).expect(200, "");
}

/// All keys with their values as both APIs have them, and the seconds they have left but for the last digit.
fn contents(server: &Server) -> Vec<(String, String, Option<u64>)> {
    let mut client = server.connect();
    let listing = client.send("GET", "/api/v1/kv?with_ttl=1", "").json();
    let keys = listing["data"].as_object().unwrap().clone();
    let each = |(key, entry): (String, Value)| {
        let plain = client.send("GET", &format!("/kv/{key}"), "");
        let value = plain.text().replace(['\r', '\n'], " ");
        let ttl = entry["ttl"].as_u64();
        (
            key,
            format!("{value}{}", entry["value"]),
            ttl.map(|it| it / 10),
        )
    };
    keys.into_iter().map(each).collect()
}

fn restore(from: &str, directory: &str, stdin: Option<&[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_threadkv"))
        .args(["restore", "--from", from, "--working-dir", directory])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(stdin.unwrap_or_default()); // it may have ended early
    drop(pipe);
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_exported_can_be_imported_and_restored_and_is_the_same() {
    let directory = Directory::new();
    let first = Server::start(&[]);
    fill(&first);
    first.put("/api/v1/kv/gone", r#"{"value":1,"ttl":1}"#);
    wait_for("an expiry", || {
        (first.get("/kv/gone").status == 404).then_some(())
    });
    let (text, entries) = export(&first, "");
    assert_eq!(entries.len(), 11);
    assert!(!text.contains('\r'));
    assert_eq!(entries["text"]["text"], "plain");
    assert_eq!(entries["number"]["value"].as_f64(), Some(1500.0));
    assert!(text.contains("\"value\":1.50e3,"), "exact");

    let second = Server::start(&["--working-dir", directory.path_str()]);
    second.put("/kv/text", "other").expect(200, "");
    second.put("/kv/mine", "stays").expect(200, "");
    let answer = second.post(IMPORT, &text);
    answer.expect_data(json!({"imported": 11, "expired": 0}));
    second.get("/kv/mine").expect(200, "stays");
    second.delete("/kv/mine").expect(200, "");
    assert_eq!(contents(&second), contents(&first));
    let (_, again) = export(&second, "");
    assert_eq!(without_revisions(again), without_revisions(entries.clone()));

    let export_file = directory.path().join("backup.ndjson");
    fs::write(&export_file, &text).unwrap();
    for (n, durability) in ["sync", "os", "none"].into_iter().enumerate() {
        let restored = directory.path().join(format!("a/b{n}"));
        let restored = restored.to_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_threadkv"))
            .args(["restore", "--from", export_file.to_str().unwrap()])
            .args(["--working-dir", restored, "--durability", durability])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("11 keys restored to {restored}\n"));
        let third = Server::start(&["--working-dir", restored]);
        assert_eq!(contents(&third), contents(&first));
        let (_, again) = export(&third, "");
        let newest = |entries: &BTreeMap<String, Value>| {
            entries.values().map(|it| it["revision"].as_u64()).max()
        };
        assert!(newest(&again) > newest(&entries));
        assert_eq!(without_revisions(again), without_revisions(entries.clone()));
    }
}

#[test]
fn a_prefix_is_exported_alone_and_an_empty_store_as_well() {
    let server = Server::start(&[]);
    assert_eq!(export(&server, "").1.len(), 0);
    server
        .post(IMPORT, export(&server, "").0)
        .expect_data(json!({"imported": 0, "expired": 0}));
    fill(&server);
    let keys: Vec<String> = export(&server, "?prefix=user:").1.into_keys().collect();
    assert_eq!(keys, ["user:1", "user:2"]);
    assert_eq!(export(&server, "?prefix=nobody").1.len(), 0);
    server.get("/api/v1/export?prefix=a&prefix=b").expect_error(
        400,
        "VALIDATION_ERROR",
        json!({"parameter": "prefix", "value": "b"}),
    );
    assert_eq!(server.send("HEAD", EXPORT, "").status, 200);
}

#[test]
fn what_has_expired_is_left_out_and_counted() {
    let server = Server::start(&[]);
    let lines = [
        r#"{"key":"past","text":"x","expires_at":1000}"#.to_owned(),
        r#"{"key":"zero","text":"x","expires_at":0}"#.to_owned(),
        r#"{"key":"future","text":"x","expires_at":99999999999999}"#.to_owned(),
        r#"{"key":"never","value":"as text"}"#.to_owned(),
    ];
    let directory = Directory::new();
    let answer = server.post(IMPORT, file(&lines));
    answer.expect_data(json!({"imported": 2, "expired": 2}));
    let (text, entries) = export(&server, "");
    assert_eq!(entries["future"]["expires_at"], 99_999_999_999_999_u64);
    assert_eq!(entries["never"]["text"], "as text");
    drop(text);
    let to = directory.path().join("to");
    let output = restore("-", to.to_str().unwrap(), Some(file(&lines).as_bytes()));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("2 keys restored") && said.ends_with(", 2 had expired\n"));
}

#[test]
fn an_export_is_the_state_at_one_revision_while_others_write() {
    const KEYS: usize = 400;
    let server = Server::start(&[]);
    // Each commit gives all keys the same number: an export that mixes two commits shows.
    let write = |n: usize| {
        let item = |key: usize| json!({"key": format!("k{key:03}"), "value": n});
        let items: Vec<Value> = (0..KEYS).map(item).collect();
        json!({"operations": items}).to_string()
    };
    let others: Vec<String> = (0..30_000).map(entry).collect();
    assert_eq!(server.post(IMPORT, file(&others)).status, 200);
    server.post("/api/v1/kv/bulk", write(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.connect();
            for n in 1.. {
                assert_eq!(client.send("POST", "/api/v1/kv/bulk", write(n)).status, 200);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut last = 0;
        for _ in 0..10 {
            let (text, entries) = export(&server, "");
            let mut seen = entries
                .values()
                .filter(|it| it["key"].as_str().unwrap().starts_with("k0"));
            let first = seen.next().unwrap();
            assert!(
                seen.all(|it| it["value"] == first["value"] && it["revision"] == first["revision"])
            );
            assert_eq!(entries.len(), KEYS + others.len());
            let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            // The store's revision is that of the last commit, which wrote these keys.
            assert_eq!(head["revision"], first["revision"]);
            let now = first["value"].as_u64().unwrap();
            assert!(now >= last);
            last = now;
        }
        stop.store(true, Ordering::Relaxed);
    });
}

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
fn tokens_that_read_export_and_only_those_that_write_import() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let (reader, writer) = (tokens.create(&["--read-only"]), tokens.create(&[]));
    let server = Server::start(&["--auth", tokens.path()]);
    let send = |token: &str, method: &str, path: &str, body: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        server.connect().send_with(&header, method, path, body)
    };
    let text = file(&[entry(1)]);
    assert_eq!(server.get(EXPORT).status, 401);
    assert_eq!(server.post(IMPORT, &text).status, 401);
    assert_eq!(send(&reader, "POST", IMPORT, &text).status, 403);
    assert_eq!(send(&writer, "POST", IMPORT, &text).status, 200);
    let answer = send(&reader, "GET", EXPORT, "");
    assert!(answer.status == 200 && answer.text().contains("key:000001"));
}

#[test]
fn a_hundred_thousand_keys_go_out_and_in_within_seconds_and_in_little_memory() {
    let entries: Vec<String> = (0..100_000).map(entry).collect();
    let text = file(&entries);
    let directory = Directory::new();
    let server = Server::start(&["--working-dir", directory.path_str()]);
    let started = Instant::now();
    // In chunks, as curl sends what comes from a pipe.
    let mut client = server.connect();
    client.write(format!(
        "POST {IMPORT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    for chunk in text.as_bytes().chunks(100_000) {
        client.write(format!("{:x}\r\n", chunk.len()));
        client.write(chunk);
        client.write("\r\n");
    }
    client.write("0\r\n\r\n");
    let answer = client.read("POST");
    answer.expect_data(json!({"imported": 100_000, "expired": 0}));
    // The connection goes on.
    client
        .send("GET", "/kv/key:099999", "")
        .expect(200, "{\"n\":99999}");
    assert_eq!(export(&server, "").1.len(), 100_000);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
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
