//! What was answered is there again after a restart, however the process ended; what was not answered is whole or absent.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::client::Client;
use crate::directory::Directory;
use crate::process::{Server, is_root, wait_for};

fn start_in(directory: &Directory, options: &[&str]) -> Server {
    Server::start(&[&["--working-dir", directory.path_str()], options].concat())
}

fn stop(mut server: Server) {
    server.signal("-TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");
}

#[test]
fn data_survives_a_graceful_restart_in_every_mode() {
    for mode in ["sync", "os", "none"] {
        let directory = Directory::new();
        let large = "v".repeat(2_000_000);
        let server = start_in(&directory, &["--durability", mode]);
        server.put("/kv/kept", "before").expect(200, "");
        server.put("/kv/kept", "after 🌍").expect(200, "");
        server.put("/kv/large", &large).expect(200, "");
        server.put("/kv/deleted", "v").expect(200, "");
        server.delete("/kv/deleted").expect(200, "");
        stop(server);
        let server = start_in(&directory, &["--durability", mode]);
        server.get("/kv/kept").expect(200, "after 🌍");
        assert!(server.get("/kv/large").text() == large);
        server.get("/kv/deleted").expect(404, "key not found\n");
        let line = server.seen("loaded ");
        assert!(line.contains("2 keys, "), "{line}");
    }
}

#[test]
fn four_cycles_of_restarts_each_add_to_what_is_there() {
    let directory = Directory::new();
    for cycle in 0..4 {
        let server = start_in(&directory, &[]);
        let mut client = server.connect();
        for earlier in 0..cycle {
            for n in 0..50 {
                let path = format!("/kv/cycle{earlier}:key{n}");
                client
                    .send("GET", &path, "")
                    .expect(200, &format!("value{n}"));
            }
        }
        for n in 0..50 {
            let path = format!("/kv/cycle{cycle}:key{n}");
            client
                .send("PUT", &path, format!("value{n}"))
                .expect(200, "");
        }
        // The odd ones end without notice.
        if cycle % 2 == 0 {
            stop(server)
        } else {
            drop(server)
        }
    }
}

#[test]
fn a_clear_is_durable_and_so_is_what_came_before_and_after() {
    let directory = Directory::new();
    for round in 0..3 {
        let server = start_in(&directory, &[]);
        let mut client = server.connect();
        for n in 0..100 {
            client
                .send("PUT", &format!("/kv/before{n}"), "v")
                .expect(200, "");
        }
        client.send("DELETE", "/clear", "").expect(200, "");
        client
            .send("PUT", "/kv/after", round.to_string())
            .expect(200, "");
        drop(server); // kill -9
        let server = start_in(&directory, &[]);
        server.get("/kv/before0").expect(404, "key not found\n");
        server.get("/kv/after").expect(200, &round.to_string());
        assert!(server.seen("loaded ").contains("loaded 1 keys"));
        stop(server);
    }
}

#[test]
fn ten_thousand_puts_at_once_survive_the_sigterm_right_behind_them() {
    crate::process::raise_own_limit();
    let directory = Directory::new();
    let server = start_in(&directory, &[]);
    let mut clients: Vec<Client> = (0..5_000).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let put = |n: usize| {
            format!("PUT /kv/key{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n{n:08}")
        };
        client.write(put(n) + &put(n + 5_000));
    }
    for client in &mut clients {
        client.read("PUT").expect(200, "");
        client.read("PUT").expect(200, "");
    }
    stop(server);
    let server = start_in(&directory, &[]);
    let mut client = server.connect();
    for n in 0..10_000 {
        client
            .send("GET", &format!("/kv/key{n}"), "")
            .expect(200, &format!("{n:08}"));
    }
}

/// What a writer knows of its key.
#[derive(Clone, Default)]
struct Known {
    /// What was answered last; `None` for absent.
    answered: Option<String>,
    /// What was asked for since, and may or may not have happened.
    asked: Option<Option<String>>,
}

/// 64 writers, each with a key of its own, until the process is killed in the middle of it. Then every key has what was
/// answered last, or what was asked for last, whole.
#[test]
fn kill_9_under_64_writers_takes_back_nothing_that_was_answered() {
    for mode in ["sync", "os"] {
        let directory = Directory::new();
        let mut known = vec![Known::default(); 64];
        for round in 0..20 {
            let mut server = start_in(&directory, &["--durability", mode]);
            let mut client = server.connect();
            for (n, known) in known.iter_mut().enumerate() {
                let found = client.send("GET", &format!("/kv/key{n}"), "");
                let found = (found.status == 200).then(|| found.text().to_owned());
                let possible = found == known.answered || known.asked.as_ref() == Some(&found);
                assert!(
                    possible,
                    "{mode} round {round} key {n}: {found:?} is neither of {:?}",
                    short(known)
                );
                *known = Known {
                    answered: found,
                    asked: None,
                };
            }
            let shared: Vec<Mutex<Known>> = known.into_iter().map(Mutex::new).collect();
            let (answers, killed) = (AtomicU64::new(0), AtomicBool::new(false));
            let address = server.address;
            let clients: Vec<Client> = (0..64).map(|_| Client::connect(address)).collect();
            thread::scope(|scope| {
                for ((n, known), mut client) in shared.iter().enumerate().zip(clients) {
                    let (answers, killed) = (&answers, &killed);
                    scope.spawn(move || {
                        let mut step = round * 1_000_000;
                        while !killed.load(Ordering::Acquire) {
                            step += 1;
                            // Some long enough for several writes to the file, some deletions.
                            let length = if step % 7 == 0 { 3000 } else { 5 };
                            let value =
                                (step % 5 != 0).then(|| format!("{n}.{step};").repeat(length));
                            known.lock().unwrap().asked = Some(value.clone());
                            let request = match &value {
                                Some(value) => format!(
                                    "PUT /kv/key{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{value}",
                                    value.len()
                                ),
                                None => format!("DELETE /kv/key{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                            };
                            let answer = client
                                .try_write(request)
                                .and_then(|()| client.try_read("PUT"));
                            let Ok(answer) = answer else { break };
                            answer.expect(200, "");
                            *known.lock().unwrap() = Known {
                                answered: value,
                                asked: None,
                            };
                            answers.fetch_add(1, Ordering::AcqRel);
                        }
                    });
                }
                let enough = 500 + 37 * round;
                wait_for("writes", || {
                    (answers.load(Ordering::Acquire) >= enough).then_some(())
                });
                server.kill();
                killed.store(true, Ordering::Release);
            });
            known = shared
                .into_iter()
                .map(|known| known.into_inner().unwrap())
                .collect();
        }
    }
}

fn short(known: &Known) -> (Option<&str>, Option<Option<&str>>) {
    let cut = |text: &'_ String| -> usize { text.len().min(20) };
    (
        known.answered.as_ref().map(|text| &text[..cut(text)]),
        known
            .asked
            .as_ref()
            .map(|asked| asked.as_ref().map(|text| &text[..cut(text)])),
    )
}

/// More than the log may hold, so that snapshots are made.
#[test]
fn a_store_larger_than_its_log_comes_back() {
    let directory = Directory::new();
    let server = start_in(&directory, &["--durability", "os"]);
    let value = |n: usize, round: usize| format!("{n}.{round};").repeat(2000);
    thread::scope(|scope| {
        for part in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                for round in 0..6 {
                    for n in (part..2000).step_by(4) {
                        client
                            .send("PUT", &format!("/kv/key{n}"), value(n, round))
                            .expect(200, "");
                    }
                }
            });
        }
    });
    wait_for("a snapshot", || {
        let files = files(directory.path()).into_keys();
        let mut snapshots = files.filter(|name| name.starts_with("snapshot-"));
        snapshots.next()
    });
    drop(server); // kill -9
    let server = start_in(&directory, &[]);
    assert!(server.seen("loaded ").contains("loaded 2000 keys"));
    let mut client = server.connect();
    for n in 0..2000 {
        assert!(
            client.send("GET", &format!("/kv/key{n}"), "").text() == value(n, 5),
            "key {n}"
        );
    }
}

/// A busy server has no idle second, and hands over all the same.
#[test]
fn without_durability_writes_are_handed_over_while_others_keep_coming() {
    let directory = Directory::new();
    let server = start_in(&directory, &["--durability", "none"]);
    let mut client = server.connect();
    client
        .send("PUT", "/kv/first", "the-first-value")
        .expect(200, "");
    // As it is in the log.
    let value = b"the-first-value".map(|byte| !byte);
    let handed_over = || {
        let files = files(directory.path());
        files
            .values()
            .any(|bytes| bytes.windows(15).any(|found| found == value))
    };
    // Too few to fill a buffer of the process's own, and so close together that no second is without one.
    let mut writes = 0;
    while !handed_over() {
        assert!(writes < 50, "nothing has been handed over");
        client.send("PUT", "/kv/other", "v").expect(200, "");
        writes += 1;
        thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_second_process_is_turned_away_and_the_first_goes_on() {
    let directory = Directory::new();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    expect_refusal(directory.path(), "is in use by another process");
    server.put("/kv/a", "2").expect(200, "");
    stop(server);
    start_in(&directory, &[]).get("/kv/a").expect(200, "2");
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let directory = Directory::new();
    stop(start_in(&directory, &[]));
    let format = directory.path().join("threadkv.format");
    let ours = fs::read(&format).unwrap();
    for (other, how) in [
        ("threadkv 2\n", "start version 0.1.0 there"),
        ("threadkv 6\n", "use the version that wrote it"),
    ] {
        fs::write(&format, other).unwrap();
        let before = files(directory.path());
        expect_refusal(directory.path(), how);
        assert!(files(directory.path()) == before);
    }
    // Nothing is created beside a store because it is missing.
    fs::write(&format, ours).unwrap();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    drop(server);
    fs::remove_file(&format).unwrap();
    expect_refusal(
        directory.path(),
        "threadkv.format is damaged (it is missing beside a store)",
    );
}

#[test]
fn a_second_process_is_turned_away_whatever_files_were_deleted() {
    let directory = Directory::new();
    let server = start_in(&directory, &[]);
    server.put("/kv/a", "1").expect(200, "");
    fs::remove_file(directory.path().join("threadkv.format")).unwrap();
    let before = files(directory.path());
    expect_refusal(directory.path(), "is in use by another process");
    assert!(files(directory.path()) == before);
    server.put("/kv/a", "2").expect(200, "");
}

#[test]
fn what_is_no_directory_or_cannot_be_written_is_refused() {
    let directory = Directory::new();
    let file = directory.path().join("file");
    fs::write(&file, "mine").unwrap();
    expect_refusal(&file, "cannot create");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // Root may write anywhere, but not here.
    expect_refusal(Path::new("/proc/threadkv"), "cannot create /proc/threadkv");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_keeps_what_was_answered() {
    if !is_root("mounting a small disk") {
        return;
    }
    let directory = Directory::new();
    let small = "size=40m";
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", small, "threadkv-test"])
        .arg(directory.path())
        .status();
    assert!(mounted.unwrap().success());
    let _unmount = Unmount(directory.path());
    let value = |n: usize| format!("{n};").repeat(100_000);
    let mut server = start_in(&directory, &[]);
    let mut client = server.connect();
    let mut kept = 0;
    let refusal = loop {
        let answer = client.send("PUT", &format!("/kv/key{kept}"), value(kept));
        if answer.status != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 200, "the disk does not get full");
    };
    refusal.expect(503, "the store cannot be written to\n");
    assert_eq!(refusal.header("retry-after"), Some("5"));
    let line = server.wait_for_log("cannot write to");
    assert!(line.contains("No space left on device"), "{line}");
    assert_eq!(server.get("/api/v1/health").status, 503);
    let there = |client: &mut Client, keys: std::ops::Range<usize>| {
        for n in keys {
            let found = client.send("GET", &format!("/kv/key{n}"), "");
            assert!(found.text() == value(n), "key {n} of {kept}");
        }
    };
    // Reads go on, of all that was answered and nothing else.
    there(&mut client, 0..kept);
    let refused = format!("/kv/key{kept}");
    client
        .send("GET", &refused, "")
        .expect(404, "key not found\n");

    // Also after a restart, keys can be deleted.
    server.kill();
    let mut server = start_in(&directory, &[]);
    let mut client = server.connect();
    there(&mut client, 0..kept);
    for n in 0..3 {
        let deleted = client.send("DELETE", &format!("/kv/key{n}"), "");
        deleted.expect(200, "");
    }
    there(&mut client, 3..kept);

    // With room, it goes on without a restart.
    let larger = Command::new("mount")
        .args(["-o", "remount,size=400m"])
        .arg(directory.path())
        .status();
    assert!(larger.unwrap().success());
    client.send("PUT", "/kv/small", "v").expect(200, "");
    client.send("PUT", &refused, value(kept)).expect(200, "");
    wait_for("health", || {
        (server.get("/api/v1/health").status == 200).then_some(())
    });
    server.kill();
    let server = start_in(&directory, &[]);
    let mut client = server.connect();
    there(&mut client, 3..kept + 1);
    client
        .send("GET", "/kv/key0", "")
        .expect(404, "key not found\n");
}

#[test]
fn a_clear_gets_out_of_a_full_disk() {
    if !is_root("mounting a small disk") {
        return;
    }
    let directory = Directory::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=20m", "threadkv-test"])
        .arg(directory.path())
        .status();
    assert!(mounted.unwrap().success());
    let _unmount = Unmount(directory.path());
    let server = start_in(&directory, &[]);
    let mut client = server.connect();
    let mut n = 0;
    while client
        .send("PUT", &format!("/kv/key{n}"), "v".repeat(1_000_000))
        .status
        == 200
    {
        n += 1;
        assert!(n < 50, "the disk does not get full");
    }
    client.send("DELETE", "/clear", "").expect(200, "");
    wait_for("room", || {
        let put = client.send("PUT", "/kv/new", "v".repeat(1_000_000));
        (put.status == 200).then_some(())
    });
    drop(server);
    let server = start_in(&directory, &[]);
    assert_eq!(server.get("/kv/new").text().len(), 1_000_000);
    server.get("/kv/key0").expect(404, "key not found\n");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // Lazily, since the server may just be ending.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// All files below a directory, by their path relative to it.
pub fn files(directory: &Path) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let relative = path
                    .strip_prefix(directory)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                // A snapshot that is being written may go meanwhile.
                found.extend(fs::read(path).ok().map(|bytes| (relative, bytes)));
            }
        }
    }
    found
}

pub fn write_files(directory: &Path, files: &HashMap<String, Vec<u8>>) {
    for (path, bytes) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// A server in that directory, or what it said on stderr before it ended with status 1.
pub fn try_start(directory: &Path) -> Result<Server, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.args(["--port", "0", "--working-dir", directory.to_str().unwrap()]);
    Server::try_spawn(command).map_err(|(status, lines)| {
        assert_eq!(status.code(), Some(1), "{lines:?}");
        lines.join("\n")
    })
}

/// One line on stderr that says so, and status 1.
#[track_caller]
pub fn expect_refusal(directory: &Path, text: &str) {
    let stderr = try_start(directory).err().expect("it started");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("threadkv: ") && stderr.contains(text),
        "{stderr}"
    );
}
