//! Nobody asks more often than allowed, and everybody is told what is left.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::client::{Client, Response, tcp_socket};
use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::tokens::TokenFile;

/// What an answer says of the limit: limit, remaining, reset.
#[track_caller]
fn told(answer: &Response) -> (u64, u64, u64) {
    let number = |name| answer.header(name).unwrap().parse().unwrap();
    (
        number("x-ratelimit-limit"),
        number("x-ratelimit-remaining"),
        number("x-ratelimit-reset"),
    )
}

fn is_told_nothing(answer: &Response) -> bool {
    !answer
        .headers
        .keys()
        .any(|name| name.starts_with("x-ratelimit") || name == "retry-after")
}

fn unix_time() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Uses up what is left, and returns the first refusal.
fn exhaust(client: &mut Client, headers: &str, path: &str) -> Response {
    wait_for("a refusal", || {
        let answer = client.send_with(headers, "GET", path, "");
        (answer.status == 429).then_some(answer)
    })
}

#[test]
fn every_answer_tells_what_is_left_and_when_it_is_all_back() {
    let server = Server::start(&["--rate-limit", "1000/m"]);
    let mut client = server.connect();
    // Answers of every kind, on both APIs, count and tell.
    let (mut before, started) = (1000, unix_time());
    for (method, path, body, status) in [
        ("PUT", "/kv/a", "1", 200),
        ("GET", "/kv/a", "", 200),
        ("HEAD", "/kv/a", "", 200),
        ("GET", "/kv/missing", "", 404),
        ("PUT", "/kv/a", "", 400),
        ("PUT", "/kv/a%20b", "1", 400),
        ("DELETE", "/kv/a", "", 200),
        ("DELETE", "/clear", "", 200),
        ("PUT", "/api/v1/kv/a", r#"{"value":1}"#, 200),
        ("PUT", "/api/v1/kv/a", "{", 400),
        ("GET", "/api/v1/kv/missing", "", 404),
        ("GET", "/api/v1/kv", "", 200),
        ("GET", "/api/v1/status", "", 200),
        ("GET", "/api/v1/openapi.json", "", 200),
    ] {
        let answer = client.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        let (limit, remaining, reset) = told(&answer);
        assert_eq!(limit, 1000);
        // Each takes one. Some come back, every 60 ms, so on a slow day there may be more than one less.
        assert!(remaining < 1000 && remaining + 1 >= before, "{remaining}");
        before = remaining;
        // All are back after as many times 60 ms as there are away.
        let (earliest, latest) = (started, unix_time() + (1000 - remaining) * 60 / 1000 + 2);
        assert!(reset > earliest && reset <= latest, "{reset}");
    }
    let mut large = server.connect();
    large.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n");
    let answer = large.read("PUT");
    answer.expect(413, "value too large\n");
    told(&answer);
    // These do not.
    for (method, path) in [
        ("GET", "/api/v1/health"),
        ("GET", "/nowhere"),
        ("PATCH", "/kv/a"),
        ("PATCH", "/api/v1/kv/a"),
    ] {
        let answer = client.send(method, path, "");
        assert!(is_told_nothing(&answer), "{method} {path}");
    }
    let unlimited = Server::start(&[]);
    assert!(is_told_nothing(&unlimited.get("/kv/a")));
}

#[test]
fn who_waits_as_long_as_told_is_let_through() {
    let server = Server::start(&["--rate-limit", "60/m"]);
    let mut client = server.connect();
    client.send("PUT", "/kv/a", "kept").expect(200, "");
    for (path, json) in [("/kv/a", false), ("/api/v1/kv/a", true)] {
        let refused = exhaust(&mut client, "", path);
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(wait, 1);
        let (limit, remaining, reset) = told(&refused);
        assert_eq!((limit, remaining), (60, 0));
        assert!(reset <= unix_time() + 61);
        if json {
            let details = json!({"limit": "60/m", "retry_after": 1});
            let said = refused.expect_error(429, "RATE_LIMITED", details);
            assert!(said.contains("1 s"), "{said}");
        } else {
            refused.expect(429, "rate limit exceeded\n");
        }
        // What is promised is about time, so time has to pass.
        thread::sleep(Duration::from_secs(wait));
        assert_eq!(client.send("GET", path, "").status, 200);
    }
    // Health is exempt, also for who has nothing left.
    exhaust(&mut client, "", "/kv/a");
    for _ in 0..100 {
        assert_eq!(client.send("GET", "/api/v1/health", "").status, 200);
    }
}

#[test]
fn as_many_are_let_through_as_the_limit_says_however_they_come() {
    let server = Server::start(&["--rate-limit", "500/m"]);
    let started = Instant::now();
    let remaining = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.connect();
                client.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
                for _ in 0..100 {
                    let answer = client.read("GET");
                    if answer.status == 404 {
                        remaining.lock().unwrap().push(told(&answer).1);
                    }
                }
            });
        }
    });
    let mut remaining = remaining.into_inner().unwrap();
    // One comes back every 120 ms.
    let back = started.elapsed().as_millis() / 120 + 1;
    assert!((500..=500 + back).contains(&(remaining.len() as u128)));
    // Each number up to the limit has been told.
    remaining.sort_unstable();
    remaining.dedup();
    assert_eq!(remaining.len(), 500);
}

#[test]
fn a_refused_request_changes_nothing_and_keeps_its_connection() {
    let server = Server::start(&["--rate-limit", "1/m"]);
    let mut client = server.connect();
    // On the slowest of days one more is let through in a minute.
    let refused = (0..5).filter(|n| {
        let answer = client.send("PUT", &format!("/kv/{n}"), "v");
        answer.status == 429
    });
    let refused = refused.count();
    assert!(refused >= 3);
    let health = client.send("GET", "/api/v1/health", "").json();
    let keys = health["cluster"]["storage"]["size"].as_u64().unwrap();
    assert_eq!(keys, 5 - refused as u64);
    // A body that is still to come is not waited for.
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n");
    client.read("PUT").expect(429, "rate limit exceeded\n");
    client.expect_end();
}

/// A client that connects from that address of this machine.
fn connect_from(address: IpAddr, server: &Server) -> Client {
    let socket = tcp_socket();
    rustix::net::bind(&socket, &SocketAddr::new(address, 0)).unwrap();
    rustix::net::connect(&socket, &server.address).unwrap();
    Client::on(socket).unwrap()
}

#[test]
fn without_tokens_each_address_has_its_own_limit() {
    let server = Server::start(&["--rate-limit=2/m"]);
    let from = |last| connect_from(Ipv4Addr::new(127, 0, 0, last).into(), &server);
    exhaust(&mut from(2), "", "/kv/a");
    // Another connection of the same client is the same client, whatever it claims to be.
    let mut again = from(2);
    let forwarded = "X-Forwarded-For: 127.0.0.9\r\nForwarded: for=127.0.0.9\r\n";
    assert_eq!(again.send_with(forwarded, "GET", "/kv/a", "").status, 429);
    let other = from(3).send("GET", "/kv/a", "");
    other.expect(404, "key not found\n");
    assert_eq!(told(&other).1, 1);
}

#[test]
fn each_token_has_its_own_limit_wherever_it_comes_from() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let (one, two) = (tokens.create(&[]), tokens.create(&[]));
    let own = tokens.create(&["--name=own", "--rate-limit=3/m", "--read-only"]);
    let listed = String::from_utf8(tokens.run("list", &[]).stdout).unwrap();
    assert!(listed.contains("\tread-only\t3/m\town\n"), "{listed}");
    assert!(listed.contains("\tread-write\t-\ttoken-1\n"), "{listed}");
    let mut server = Server::start(&["--auth", tokens.path(), "--rate-limit", "2/m"]);
    let mut client = server.connect();
    exhaust(&mut client, &bearer(&one), "/kv/a");
    // One client, several tokens.
    let answer = client.send_with(&bearer(&two), "PUT", "/kv/a", "1");
    assert_eq!(
        (answer.status, told(&answer).0, told(&answer).1),
        (200, 2, 1)
    );
    // Its own limit wins. What the token may not do counts too.
    let answer = client.send_with(&bearer(&own), "PUT", "/kv/a", "1");
    answer.expect(403, "forbidden\n");
    assert_eq!((told(&answer).0, told(&answer).1), (3, 2));
    // Who is not let in at all is told nothing, and what he tries does not count.
    let answer = client.send("GET", "/kv/a", "");
    answer.expect(401, "unauthorized\n");
    assert!(is_told_nothing(&answer));
    // The description needs no token, and counts by address.
    let answer = client.send("GET", "/api/v1/openapi.json", "");
    assert_eq!((answer.status, told(&answer).1), (200, 1));
    // Neither another connection nor a change of the file gives anything back.
    tokens.create(&["--name", "later"]);
    server.wait_for_log("4 tokens let in");
    let answer = server
        .connect()
        .send_with(&bearer(&own), "GET", "/kv/a", "");
    let (limit, remaining, _) = told(&answer);
    assert!(limit == 3 && remaining < 3 && answer.status == 200);
    assert!(told(&exhaust(&mut client, &bearer(&two), "/api/v1/kv")).0 == 2);
}

#[test]
fn a_token_may_have_a_limit_where_there_is_none_for_all() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let (free, own) = (tokens.create(&[]), tokens.create(&["--rate-limit=1/m"]));
    let server = Server::start(&["--auth", tokens.path()]);
    let mut client = server.connect();
    let refused = exhaust(&mut client, &bearer(&own), "/api/v1/kv/a");
    assert_eq!(refused.json()["error"]["code"], "RATE_LIMITED");
    for _ in 0..10 {
        let answer = client.send_with(&bearer(&free), "GET", "/kv/a", "");
        assert!(answer.status == 404 && is_told_nothing(&answer));
    }
    for mistake in ["10", "0/s", "1/h", "1000001/s", ""] {
        let refused = tokens.run("create", &["--rate-limit", mistake]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.contains("--rate-limit") && said.lines().count() == 1);
    }
    assert_eq!(server.get("/api/v1/kv/a").json()["data"], Value::Null);
}
