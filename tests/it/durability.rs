//! What was answered is there again after a restart, however the process ended; what was not answered is whole or absent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::client::Client;
use crate::connections::expect_numbers;
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::refused_directories::files;

/// Starts a server that keeps its data there.
pub fn start_in(directory: &Directory, options: &[&str]) -> Server {
    Server::start(&[&["--working-dir", directory.path_str()], options].concat())
}

/// Ends a server in order.
pub fn stop(mut server: Server) {
    server.signal("-TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:?}");
}

#[test]
fn data_survives_a_graceful_restart_in_every_mode() {
    for mode in ["sync", "os", "none"] {
        let directory = Directory::on_disk();
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
    let directory = Directory::on_disk();
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
    expect_numbers(&server, 10_000);
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
        let directory = Directory::on_disk();
        let mut known = vec![Known::default(); 64];
        for round in 0..6 {
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
                let enough = 300 + 150 * round;
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
    let directory = Directory::on_disk();
    let server = start_in(
        &directory,
        &["--durability", "os", "--snapshot-after", "8000000"],
    );
    let value = |n: usize, round: usize| format!("{n}.{round};").repeat(2000);
    thread::scope(|scope| {
        for part in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                for round in 0..2 {
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
            client.send("GET", &format!("/kv/key{n}"), "").text() == value(n, 1),
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
