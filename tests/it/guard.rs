//! Clients that take their time, or more than their share: they are cut off, and the others are served.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::process::{Server, wait_for};

/// How much later than its time a connection may be closed, on a slow day.
const LATE: Duration = Duration::from_secs(20);

/// Waits for the end of a connection, and checks when it came.
#[track_caller]
fn expect_end_after(client: &mut Client, started: Instant, seconds: u64) {
    client.expect_end();
    expect_time(started, seconds);
}

/// The same where the client is told that it was too slow.
#[track_caller]
fn expect_408_after(client: &mut Client, started: Instant, seconds: u64) {
    let answer = client.read("GET");
    answer.expect(408, "the request did not arrive in time\n");
    assert_eq!(answer.header("connection"), Some("close"));
    expect_time(started, seconds);
}

#[track_caller]
fn expect_time(started: Instant, seconds: u64) {
    let (taken, least) = (started.elapsed(), Duration::from_secs(seconds));
    assert!(taken >= least && taken < least + LATE, "{taken:?}");
}

/// What the process has in memory, in kB.
fn resident(server: &Server) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn count(server: &Server, what: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{what}", server.pid()))
        .unwrap()
        .count()
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Server::start(&["--idle-timeout=2"]);
    let started = Instant::now();
    let mut never = server.connect();
    let mut used = server.connect();
    used.send("PUT", "/kv/a", "1").expect(200, "");
    let mut busy = server.connect();
    thread::scope(|scope| {
        // One that has a request now and then stays.
        scope.spawn(|| {
            while started.elapsed() < Duration::from_secs(4) {
                busy.send("GET", "/kv/a", "").expect(200, "1");
                thread::sleep(Duration::from_millis(500));
            }
        });
        expect_end_after(&mut never, started, 2);
        expect_end_after(&mut used, started, 2);
    });
}

#[test]
fn a_head_must_be_complete_in_time() {
    let server = Server::start(&["--head-timeout=2"]);
    let started = Instant::now();
    let mut stalled = server.connect();
    stalled.write("GET /kv/a HT");
    let mut second = server.connect();
    second.send("PUT", "/kv/a", "1").expect(200, "");
    second.write("GET /kv/a HTTP/1.1\r\nHost: localhost");
    // A request in front, in the same segment.
    let mut behind = server.connect();
    behind.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET");
    behind.read("GET").expect(200, "1");
    // Slow, but in time.
    let mut slow = server.connect();
    let slow = thread::spawn(move || {
        for part in ["GET /kv/a", " HTTP/1.0\r", "\n\r", "\n"] {
            slow.write(part);
            thread::sleep(Duration::from_millis(200));
        }
        slow.read("GET").expect(200, "1");
    });
    let mut dripping = server.connect();
    let mut closed = None;
    for byte in "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n"
        .repeat(3)
        .bytes()
        .cycle()
        .take(60)
    {
        if dripping.try_write([byte]).is_err() {
            closed = Some(started.elapsed());
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let closed = closed.expect("closed while it drips");
    assert!(
        closed >= Duration::from_secs(2) && closed < Duration::from_secs(2) + LATE,
        "{closed:?}"
    );
    for client in [&mut stalled, &mut second, &mut behind] {
        expect_408_after(client, started, 2);
        client.expect_end();
    }
    slow.join().unwrap();
}

#[test]
fn a_head_without_end_is_cut_off_and_costs_next_to_nothing() {
    let server = Server::start(&["--head-timeout=60"]);
    server.put("/kv/a", "1").expect(200, "");
    let mut largest = server.connect();
    let head = |bytes: usize| {
        format!(
            "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
            "x".repeat(bytes - 44)
        )
    };
    largest.write(head(65_536));
    largest.read("GET").expect(200, "1");
    let before = resident(&server);
    let part = "X: y\r\n".repeat(10_000);
    for start in [
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n",
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\nX: ",
        "GET /kv/",
        "",
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        let sent = (0..16_000).find(|_| stream.write_all(part.as_bytes()).is_err());
        assert!(sent.is_some(), "a head of 1 GB after {start:?}");
    }
    let mut over = server.connect();
    let _ = over.try_write(head(65_537));
    over.read("GET")
        .expect(431, "the headers are too long or too many\n");
    over.expect_end();
    server.get("/kv/a").expect(200, "1");
    let more = resident(&server) - before;
    assert!(more < 1000, "{more} kB more");
}

#[test]
fn a_client_that_pipelines_without_reading_is_held_back() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v".repeat(10_000)).expect(200, "");
    let before = resident(&server);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let requests = "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let mut sent = 0_u64;
    // The sockets of both sides take some megabytes, and then no more.
    while let Ok(bytes) = stream.write(requests.as_bytes()) {
        sent += bytes as u64;
        assert!(sent < 200_000_000, "the server reads on and on");
    }
    let more = resident(&server) - before;
    assert!(more < 4000, "{more} kB more");
    // Where it reads at last, all is answered that went out.
    let mut client = server.connect();
    client
        .send("GET", "/kv/none", "")
        .expect(404, "key not found\n");
    drop(stream);
    // A long pipeline that is read is served to its end.
    let mut client = server.connect();
    let reader = thread::spawn({
        client.write("GET /kv/none HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5000));
        move || {
            for _ in 0..5000 {
                client.read("GET").expect(404, "key not found\n");
            }
        }
    });
    reader.join().unwrap();
}

#[test]
fn a_request_line_of_http_2_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client
        .send("PUT", "/kv/a", "GET / HTTP/2.0\r\n\r\n")
        .expect(200, "");
    let before = count(&server, "task");
    for _ in 0..20 {
        for lines in [
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET / HTTP/2.0 x\r\n\r\n",
        ] {
            let mut client = server.connect();
            client
                .send("GET", "/kv/a", "")
                .expect(200, "GET / HTTP/2.0\r\n\r\n");
            client.write(lines);
            assert!([400, 505].contains(&client.read("GET").status));
            client.expect_end();
        }
    }
    wait_for("tiny_http's threads to end", || {
        (count(&server, "task") <= before + 4).then_some(())
    });
}

#[test]
fn a_body_must_keep_its_rate_and_end_in_time() {
    let server = Server::start(&["--transfer-timeout=7", "--min-rate=1000"]);
    let started = Instant::now();
    let mut bodies = Vec::new();
    // Short ones and long ones; stalled, and dripping; in chunks.
    for head in [
        "Content-Length: 1000\r\n\r\n",
        "Content-Length: 70000\r\n\r\n",
        "Content-Length: 500000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1000\r\n",
    ] {
        for drips in [false, true] {
            let mut client = server.connect();
            client.write(format!("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\n{head}"));
            bodies.push(thread::spawn(move || {
                while drips && !client.has_news() && client.try_write("v").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
                expect_408_after(&mut client, started, 5);
            }));
        }
    }
    // Fast enough, but too long altogether.
    let mut long = server.connect();
    long.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n");
    bodies.push(thread::spawn(move || {
        while !long.has_news() && long.try_write("v".repeat(1000)).is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
        expect_408_after(&mut long, started, 7);
    }));
    // Fast enough.
    let mut slow = server.connect();
    slow.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12000\r\n\r\n");
    for _ in 0..12 {
        slow.write("v".repeat(1000));
        thread::sleep(Duration::from_millis(500));
    }
    slow.read("PUT").expect(200, "");
    for body in bodies {
        body.join().unwrap();
    }
}

#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let server = Server::start(&[]);
    server.put("/kv/a", "v".repeat(9_000_000)).expect(200, "");
    let started = Instant::now();
    let mut never = server.connect();
    never.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut pipelined = server.connect();
    pipelined.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20));
    // One that reads slowly, but reads.
    let address = server.address;
    let slow = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /kv/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        thread::sleep(Duration::from_secs(1));
        let (mut rest, mut part) = (Vec::new(), vec![0; 1_000_000]);
        loop {
            match stream.read(&mut part).unwrap() {
                0 => break,
                bytes => rest.extend_from_slice(&part[..bytes]),
            }
            thread::sleep(Duration::from_millis(100));
        }
        assert!(rest.ends_with(&[b'v'; 9_000_000]));
    });
    let under_way = || {
        let body = server.get("/api/v1/status").json();
        body["data"]["connections"].as_u64().unwrap()
    };
    wait_for("the connections to be closed", || {
        (under_way() == 1).then_some(())
    });
    let taken = started.elapsed();
    assert!(
        taken >= Duration::from_secs(5) && taken < Duration::from_secs(5) + LATE,
        "{taken:?}"
    );
    slow.join().unwrap();
}

#[test]
fn a_thousand_huge_bodies_leave_nothing_behind() {
    let server = Server::start(&[]);
    server.put("/kv/a", "1").expect(200, "");
    let (threads, descriptors) = (count(&server, "task"), count(&server, "fd"));
    let before = resident(&server);
    for n in 0..1000_u64 {
        let length = match n % 5 {
            0 => 1_000_000_000,
            1 => 99_999_999_999_999,
            2 => i64::MAX as u64,
            3 => u64::MAX,
            _ => 1_000_000_000 << (n % 34),
        };
        let mut client = server.connect();
        let method = ["PUT", "POST", "GET"][n as usize % 3];
        let upgrade = ["", "Connection: upgrade\r\n"][usize::from(n % 7 == 0)];
        client.write(format!(
            "{method} /kv/a HTTP/1.1\r\nHost: localhost\r\n{upgrade}Content-Length: {length}\r\n\r\nx"
        ));
        let status = client.read("PUT").status;
        assert!([405, 413].contains(&status), "{method} {length}: {status}");
        if n % 100 == 0 {
            server.get("/kv/a").expect(200, "1");
        }
    }
    wait_for("threads and descriptors to be given back", || {
        let now = (count(&server, "task"), count(&server, "fd"));
        (now.0 <= threads + 4 && now.1 <= descriptors + 4).then_some(())
    });
    let more = resident(&server) - before;
    assert!(more < 20_000, "{more} kB more");
}

#[test]
fn a_line_before_a_chunk_has_an_end() {
    let server = Server::start(&[]);
    for line in ["1;", "0", ""] {
        let before = resident(&server);
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(
                b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        // As much as is read of what is refused, and no more.
        let part = "0".repeat(100_000);
        let sent = (0..1000).find(|_| stream.write_all(part.as_bytes()).is_err());
        assert!(sent.is_some(), "100 MB after {line:?}");
        let more = resident(&server) - before;
        assert!(more < 1000, "{more} kB more after {line:?}");
    }
    server.get("/kv/a").expect(404, "key not found\n");
}

/// tiny_http has let go of such a request, and waits for the next one.
#[test]
fn a_client_that_is_refused_and_stays_is_closed_and_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let before = count(&server, "fd");
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n");
        assert_eq!(client.read("GET").status, 400);
    }
    let mut tab = server.connect();
    tab.write(
        "GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\x0bContent-Length: 18446744073709551615\r\n\r\n",
    );
    assert_eq!(tab.read("GET").status, 400);
    wait_for("descriptors to be given back", || {
        (count(&server, "fd") <= before + 1).then_some(())
    });
    server.get("/kv/a").expect(404, "key not found\n");
}

/// A body that stalls before the end of a chunk is too slow as any other.
#[test]
fn a_chunk_that_stalls_before_its_end_is_too_slow() {
    let server = Server::start(&["--transfer-timeout=2", "--min-rate=0"]);
    let started = Instant::now();
    let mut client = server.connect();
    client.write(
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    );
    expect_408_after(&mut client, started, 2);
}
