//! What has expired gives back its space on disk.

use std::fs;
use std::path::Path;

use crate::directory::Directory;
use crate::process::{Server, wait_for};

#[test]
fn expired_keys_give_back_their_space_on_disk() {
    let directory = Directory::new();
    let options = ["--durability", "os", "--working-dir", directory.path_str()];
    let mut server = Server::start(&options);
    let mut client = server.connect();
    client.send("PUT", "/kv/stays", "v").expect(200, "");
    // More than is kept in memory before it goes to files.
    let body = format!(r#"{{"value":"{}","ttl":1}}"#, "v".repeat(100_000));
    for n in 0..400 {
        let put = client.send("PUT", &format!("/api/v1/kv/key{n}"), &body);
        put.expect(200, r#"{"status":"ok"}"#);
    }
    let files = directory.path().join("store/keyspaces");
    assert!(bytes_below(&files) > 10_000_000);
    wait_for("the files to go", || {
        (bytes_below(&files) < 1_000_000).then_some(())
    });
    server.kill();
    let server = Server::start(&options);
    server.get("/kv/stays").expect(200, "v");
    server.get("/kv/key0").expect(404, "key not found\n");
}

fn bytes_below(directory: &Path) -> u64 {
    // Files come and go meanwhile.
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
