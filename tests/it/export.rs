//! An export is the store at one revision, and what is imported or restored from it is the same store.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

const EXPORT: &str = "/api/v1/export";
pub const IMPORT: &str = "/api/v1/import";

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
pub fn file(entries: &[String]) -> String {
    let keys = entries.len();
    let mut text = format!("{{\"threadkv\":1,\"keys\":{keys}}}\n");
    for entry in entries {
        text += entry;
        text += "\n";
    }
    let hash = sha256(text.as_bytes());
    text + &format!("{{\"end\":true,\"keys\":{keys},\"sha256\":\"{hash}\"}}\n")
}

pub fn entry(n: usize) -> String {
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

pub fn restore(from: &str, directory: &str, stdin: Option<&[u8]>) -> Output {
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
    let others: Vec<String> = (0..5_000).map(entry).collect();
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
