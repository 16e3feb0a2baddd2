//! What has expired gives back its space on disk, and nothing else goes with it.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::directory::Directory;
use crate::process::{Server, wait_for};

#[test]
fn expired_keys_give_back_their_space_and_the_rest_survives_kill_9() {
    // At the same time, since each waits for keys to expire.
    thread::scope(|scope| {
        for durability in ["sync", "os", "none"] {
            scope.spawn(|| the_rest_survives(durability));
        }
    });
}

fn the_rest_survives(durability: &str) {
    let directory = Directory::new();
    let options = options(&directory, durability);
    let mut server = Server::start(&options);
    server.put("/kv/stays", "v").expect(200, "");
    fill(&server, 1);
    wait_for_files_to_go(&directory);
    server.kill();
    let server = Server::start(&options);
    server.get("/kv/stays").expect(200, "v");
    server.get("/kv/key0").expect(404, "key not found\n");
}

#[test]
fn keys_that_expire_while_the_server_is_down_give_back_their_space() {
    let directory = Directory::new();
    let options = options(&directory, "os");
    let mut server = Server::start(&options);
    server.put("/kv/stays", "v").expect(200, "");
    fill(&server, 3);
    server.kill();
    assert!(bytes_of(&directory) > 10_000_000);
    // Nothing tells when the time has come but the time.
    thread::sleep(Duration::from_secs(3));
    let server = Server::start(&options);
    server.get("/kv/key0").expect(404, "key not found\n");
    wait_for_files_to_go(&directory);
    server.get("/kv/stays").expect(200, "v");
}

fn options<'a>(directory: &'a Directory, durability: &'a str) -> [&'a str; 4] {
    let directory = directory.path_str();
    ["--durability", durability, "--working-dir", directory]
}

/// Puts 15 MB, to live for so many seconds.
fn fill(server: &Server, ttl: u64) {
    let mut client = server.connect();
    let body = format!(r#"{{"value":"{}","ttl":{ttl}}}"#, "v".repeat(100_000));
    for n in 0..150 {
        let put = client.send("PUT", &format!("/api/v1/kv/key{n}"), &body);
        put.expect(200, r#"{"status":"ok"}"#);
    }
}

fn wait_for_files_to_go(directory: &Directory) {
    wait_for("the files to go", || {
        (bytes_of(directory) < 1_000_000).then_some(())
    });
}

/// Bytes of the files that hold entries: snapshots and the log.
pub fn bytes_of(directory: &Directory) -> u64 {
    let files = fs::read_dir(directory.path()).unwrap().flatten();
    let files = files.filter(|file| file.file_name() != "reserve");
    // They come and go meanwhile.
    files
        .flat_map(|file| file.metadata())
        .map(|it| it.len())
        .sum()
}
