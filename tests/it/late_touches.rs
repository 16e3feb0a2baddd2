//! A touch that waits for the disk until its key has expired comes too late: whoever saw the key gone never sees it come back.

use std::fs;

use serde_json::json;

use crate::directory::Directory;
use crate::faults::Faults;
use crate::process::{Server, wait_for};

#[test]
fn a_touch_that_is_synced_after_the_deadline_finds_nothing() {
    a_touch_that_the_disk_holds_up_finds_nothing("sync", "fdatasync");
}

#[test]
fn a_touch_that_is_written_after_the_deadline_finds_nothing() {
    a_touch_that_the_disk_holds_up_finds_nothing("os", "pwrite");
}

/// Holds up calls of a kind. On a machine so slow that the touches are decided behind the deadline, the answers are the same.
fn a_touch_that_the_disk_holds_up_finds_nothing(durability: &str, calls: &str) {
    let (watched, elsewhere) = (Directory::new(), Directory::new());
    let gate = elsewhere.path().join("held-up");
    let faults = Faults {
        calls: calls.to_owned(),
        gate: Some(gate.clone()),
        ..Faults::plan("wait@0+1000000")
    };
    let options = ["--durability", durability];
    let mut server = Server::try_spawn(faults.server(watched.path(), &options)).unwrap();
    let ok = r#"{"status":"ok"}"#;
    server.put("/kv/stays", "v").expect(200, "");
    for key in ["one", "of-many", "put-again"] {
        let put = server.put(&format!("/api/v1/kv/{key}"), r#"{"value":1,"ttl":1}"#);
        put.expect_json(ok);
    }

    fs::write(&gate, "").unwrap();
    // Whichever of them come first are one batch, the rest are the next one.
    let send = |method: &str, path: &str, body: &str| {
        let mut client = server.connect();
        let length = body.len();
        client.write(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        client
    };
    let mut one = send("POST", "/api/v1/kv/one/touch", r#"{"ttl":60}"#);
    let many = r#"{"operations":[{"key":"of-many","ttl":60},{"key":"stays","ttl":60}]}"#;
    let mut many = send("POST", "/api/v1/kv/bulk/touch", many);
    let mut put = send("PUT", "/kv/put-again", "v");
    wait_for("the keys to expire", || {
        let gone = ["one", "of-many", "put-again"];
        let gone = gone.map(|key| server.get(&format!("/kv/{key}")).status == 404);
        (gone == [true; 3]).then_some(())
    });
    fs::remove_file(&gate).unwrap();

    one.read("POST")
        .expect_error(404, "NOT_FOUND", json!({"key": "one"}));
    let missing = json!({"status": "error", "error": "not_found"});
    many.read("POST")
        .expect_data(json!({"of-many": missing, "stays": "ok"}));
    put.read("PUT").expect(200, "");

    let expect_gone = |server: &Server| {
        for key in ["one", "of-many"] {
            let get = server.get(&format!("/kv/{key}"));
            get.expect(404, "key not found\n");
        }
        server.get("/kv/put-again").expect(200, "v");
        let ttl = server.get("/api/v1/kv/stays/ttl").json();
        assert!(ttl["data"]["ttl"].is_number(), "{ttl}");
    };
    expect_gone(&server);
    server.kill();
    let data = watched.path().join("data");
    expect_gone(&Server::start(&["--working-dir", data.to_str().unwrap()]));
}
