//! A disk that does not get done: those who wait for it are told so, and reads go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::directory::Directory;
use crate::process::{Server, is_root, wait_for};
use crate::watcher::Watcher;

#[test]
fn a_write_that_the_disk_does_not_end_is_answered_and_counts_if_it_ends() {
    if !is_root("mounting and freezing a file system") {
        return;
    }
    let directory = Directory::new();
    let disk = Disk::new(&directory, "disk");
    let data = disk.path().join("data");
    let mut server = Server::start(&["--working-dir", data.to_str().unwrap()]);
    server.put("/kv/before", "1").expect(200, "");
    let mut watcher = Watcher::open(&server, "");
    let before = watcher.ready();

    let frozen = disk.freeze();
    // One that has reached the disk, and one behind it.
    let mut first = server.connect();
    first.write("PUT /kv/first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1");
    wait_for("the disk to hold it", || is_held(&server).then_some(()));
    let mut second = server.connect();
    second.write(
        "PUT /api/v1/kv/second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n{\"value\":1}",
    );
    first.read("PUT").expect(
        504,
        "the store did not answer in time; the write may or may not have happened\n",
    );
    let answer = second.read("PUT");
    assert!(
        answer.status == 503 && answer.text().contains("CLUSTER_UNAVAILABLE")
            || answer.status == 504 && answer.text().contains("TIMEOUT"),
        "{answer:?}"
    );
    server.wait_for_log("the disk has not ended a write");
    // From here on, at once.
    let refused = server.put("/kv/third", "1");
    refused.expect(503, "the store cannot be written to\n");
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(server.get("/api/v1/health").status, 503);
    server.get("/kv/before").expect(200, "1");
    server.get("/kv/first").expect(404, "key not found\n");
    assert!(!watcher.has_news(), "of what the disk has not");
    let mut second = Watcher::open(&server, "initial=true");
    assert_eq!(second.next().json()["key"], "before");
    assert_eq!(second.ready(), before);

    drop(frozen);
    server.wait_for_log("the disk is writing again");
    wait_for("the first write", || {
        (server.get("/kv/first").status == 200).then_some(())
    });
    server.put("/kv/third", "1").expect(200, "");
    for watcher in [&mut watcher, &mut second] {
        assert_eq!(watcher.next().json()["key"], "first");
    }
    assert_eq!(server.get("/api/v1/health").status, 200);
    server.signal("-TERM");
    assert!(server.wait().0.success());
    let server = Server::start(&["--working-dir", data.to_str().unwrap()]);
    for key in ["before", "first", "third"] {
        server.get(&format!("/kv/{key}")).expect(200, "1");
    }
    drop(server);
}

/// Whether the thread that writes is in a call that the disk does not end.
fn is_held(server: &Server) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut states = threads.map(|it| fs::read_to_string(it.unwrap().path().join("stat")).unwrap());
    states.any(|it| it.contains("(journal) D"))
}

/// A mounted file system, unmounted when this is dropped.
pub struct Disk {
    mount: PathBuf,
}

/// A file system that ends no write. It goes on when this is dropped.
pub struct Frozen<'a>(&'a Disk);

impl Disk {
    pub fn new(directory: &Directory, name: &str) -> Disk {
        let image = directory.path().join(format!("{name}.image"));
        File::create(&image).unwrap().set_len(300 << 20).unwrap();
        let mount = directory.path().join(name);
        fs::create_dir(&mount).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount));
        Disk { mount }
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// From now on it ends no write. What waits for it cannot be killed, so let it go on before.
    pub fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mount));
        Frozen(self)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let mut thaw = Command::new("fsfreeze");
        run(thaw.arg("--unfreeze").arg(&self.0.mount));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
