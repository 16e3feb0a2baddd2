//! The log gets long and is replaced by a snapshot, while writes go on: nothing is lost by that, whenever it is cut short.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use crate::client::Client;
use crate::directory::Directory;
use crate::faults::Faults;
use crate::process::{Server, wait_for};

/// Few of these make a long log.
fn value(n: u64) -> String {
    format!("{n};").repeat(20_000)
}

/// The name of the last file of the log. There is one more with each snapshot.
fn last_log(directory: &Path) -> String {
    let files = fs::read_dir(directory).unwrap().flatten();
    let names = files.map(|file| file.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("log-")).max().unwrap()
}

#[test]
fn kill_9_at_any_moment_of_a_snapshot_takes_back_nothing_that_was_answered() {
    const WRITERS: u64 = 4;
    for mode in ["sync", "os"] {
        let directory = Directory::on_disk();
        let options = ["--durability", mode, "--working-dir", directory.path_str()];
        // The last that was answered to each writer, of what it has put in ascending order.
        let answered: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        for round in 0..6 {
            let mut server = Server::start(&options);
            let address = server.address;
            let killed = AtomicBool::new(false);
            thread::scope(|scope| {
                for (writer, answered) in answered.iter().enumerate() {
                    let killed = &killed;
                    scope.spawn(move || {
                        // On a busy machine it may have been killed already.
                        let Ok(mut client) = Client::try_connect(address) else {
                            return;
                        };
                        let mut n = answered.load(Ordering::Acquire);
                        let path = |n| format!("/kv/writer{writer}:{}", n % 30);
                        if n > 0 {
                            let get = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(n));
                            let found = client.try_write(get);
                            let found = found.and_then(|()| client.try_read("GET"));
                            let Ok(found) = found else { return };
                            assert!(found.text() == value(n), "{mode} round {round}: {n}");
                        }
                        while !killed.load(Ordering::Acquire) {
                            n += 1;
                            let body = value(n);
                            let request = format!(
                                "PUT {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                                path(n),
                                body.len()
                            );
                            let answer = client.try_write(request);
                            let answer = answer.and_then(|()| client.try_read("PUT"));
                            let Ok(answer) = answer else { break };
                            answer.expect(200, "");
                            answered.store(n, Ordering::Release);
                        }
                    });
                }
                let before = last_log(directory.path());
                wait_for("a snapshot", || {
                    (last_log(directory.path()) > before).then_some(())
                });
                // From its beginning to well behind its end.
                thread::sleep(Duration::from_millis(14 * round));
                server.kill();
                killed.store(true, Ordering::Release);
            });
        }
        let server = Server::start(&options);
        let mut client = server.connect();
        for (writer, answered) in answered.iter().enumerate() {
            let last = answered.load(Ordering::Acquire);
            // All that were put last to their keys but the one behind it, which the next one may have replaced.
            for n in last.saturating_sub(28)..=last {
                let found = client.send("GET", &format!("/kv/writer{writer}:{}", n % 30), "");
                assert!(n == 0 || found.text() == value(n), "{mode}: {n} of {last}");
            }
        }
    }
}

#[test]
fn a_clear_gives_back_its_space() {
    let directory = Directory::new();
    let server = Server::start(&["--durability", "os", "--working-dir", directory.path_str()]);
    let mut client = server.connect();
    for n in 0..400 {
        client
            .send("PUT", &format!("/kv/key{n}"), value(n))
            .expect(200, "");
    }
    client.send("PUT", "/kv/stays", "not").expect(200, "");
    client.send("DELETE", "/clear", "").expect(200, "");
    client.send("PUT", "/kv/stays", "v").expect(200, "");
    wait_for("the files to go", || {
        (crate::reclaim::bytes_of(&directory) < 1_000_000).then_some(())
    });
    drop(server); // kill -9
    let server = Server::start(&["--working-dir", directory.path_str()]);
    server.get("/kv/stays").expect(200, "v");
    server.get("/kv/key0").expect(404, "key not found\n");
}

#[test]
fn snapshots_that_fail_show_in_health_and_one_that_succeeds_gives_back_the_log() {
    let (watched, elsewhere) = (Directory::new(), Directory::new());
    let gate = elsewhere.path().join("it-lasts");
    // No other file is given its name like this.
    let faults = Faults {
        calls: "rename".to_owned(),
        gate: Some(gate.clone()),
        ..Faults::plan("28@0+1000000")
    };
    let options = ["--durability", "os", "--snapshot-after", "20000"];
    let mut server = Server::try_spawn(faults.server(watched.path(), &options)).unwrap();
    fs::write(&gate, "").unwrap();
    for n in 0..40 {
        server.put("/kv/key", value(n)).expect(200, "");
    }
    let problem = || server.get("/api/v1/health").json()["problem"].clone();
    wait_for("the problem to show", || {
        problem().as_str().map(str::to_owned)
    });
    assert_eq!(server.get("/api/v1/health").status, 503);
    let names = || {
        let files = fs::read_dir(watched.path().join("data")).unwrap();
        let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name().into_string();
        files.map(|file| name(file).unwrap()).collect::<Vec<_>>()
    };
    fs::remove_file(&gate).unwrap();
    wait_for("a snapshot", || problem().is_null().then_some(()));
    wait_for("the log before it to go", || {
        let names = names();
        let of = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
        (of("log-") == 1 && of("snapshot") == 1).then_some(())
    });
    server.wait_for_log("another try in");
    server.get("/kv/key").expect(200, &value(39));
}
