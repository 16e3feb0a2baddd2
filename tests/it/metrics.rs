//! `/metrics`: as Prometheus reads it, and the figures are those of what was done.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::directory::Directory;
use crate::process::{Server, wait_for};
use crate::prometheus::{self, Metrics, Prometheus};
use crate::tokens::TokenFile;

/// One of everything that there is to be asked for.
fn use_everything(server: &Server) {
    for (method, path, body) in [
        ("PUT", "/kv/a", "1"),
        ("GET", "/kv/a", ""),
        ("GET", "/kv/missing", ""),
        ("DELETE", "/kv/a", ""),
        ("DELETE", "/clear", ""),
        ("PUT", "/api/v1/kv/b", r#"{"value":1,"ttl":60}"#),
        ("GET", "/api/v1/kv/b", ""),
        ("GET", "/api/v1/kv/b/ttl", ""),
        ("POST", "/api/v1/kv/b/touch", r#"{"ttl":9}"#),
        ("GET", "/api/v1/kv", ""),
        ("POST", "/api/v1/kv/bulk", r#"{"operations":[]}"#),
        ("POST", "/api/v1/kv/bulk/get", r#"{"keys":["b"]}"#),
        ("POST", "/api/v1/kv/bulk/delete", r#"{"keys":["b"]}"#),
        ("POST", "/api/v1/kv/bulk/touch", "{"),
        ("DELETE", "/api/v1/kv?prefix=b", ""),
        ("DELETE", "/api/v1/kv/b", ""),
        ("GET", "/api/v1/health", ""),
        ("GET", "/api/v1/status", ""),
        ("GET", "/api/v1/openapi.json", ""),
        ("GET", "/livez", ""),
        ("HEAD", "/readyz", ""),
        ("GET", "/nothing\"} 1", ""),
        ("PATCH", "/clear", ""),
    ] {
        server.send(method, path, body);
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !prometheus::has("promtool") {
        return;
    }
    let directory = Directory::new();
    for options in [
        vec![],
        vec!["--working-dir", directory.path_str(), "--durability=os"],
    ] {
        let server = Server::start(&options);
        for _ in 0..2 {
            let metrics = server.get("/metrics");
            assert_eq!(
                metrics.header("content-type"),
                Some("text/plain; version=0.0.4; charset=utf-8")
            );
            assert_eq!(prometheus::complaints(&metrics), "");
            use_everything(&server);
        }
    }
}

#[test]
fn requests_are_counted_by_what_they_asked_for_and_how_they_were_answered() {
    let server = Server::start(&[]);
    use_everything(&server);
    let metrics = Metrics::of(&server);
    for (api, operation, code, count) in [
        ("plain", "put", 200, 1.0),
        ("plain", "get", 200, 1.0),
        ("plain", "get", 404, 1.0),
        ("plain", "delete", 200, 1.0),
        ("plain", "clear", 200, 1.0),
        ("json", "put", 200, 1.0),
        ("json", "get", 200, 1.0),
        ("json", "ttl", 200, 1.0),
        ("json", "touch", 200, 1.0),
        ("json", "list", 200, 1.0),
        ("json", "bulk", 400, 1.0),
        ("json", "bulk_get", 200, 1.0),
        ("json", "bulk_delete", 200, 1.0),
        ("json", "bulk_touch", 400, 1.0),
        ("json", "delete_prefix", 200, 1.0),
        ("json", "delete", 200, 1.0),
        ("json", "health", 200, 1.0),
        ("json", "status", 200, 1.0),
        ("json", "openapi", 200, 1.0),
        ("operating", "livez", 200, 1.0),
        ("operating", "readyz", 200, 1.0),
        ("none", "none", 405, 1.0),
        // What is in a target that is no HTTP does not come to be a label.
        ("none", "none", 400, 1.0),
    ] {
        let counted = metrics.requests(api, operation, code);
        assert_eq!(counted, count, "{api} {operation} {code}");
    }
    assert_eq!(metrics.sum("threadkv_http_requests_total"), 23.0);
    // What was counted has also been timed.
    let counts = metrics.sum("threadkv_http_request_duration_seconds_count");
    assert_eq!(counts, 23.0);
    let seconds = metrics.sum("threadkv_http_request_duration_seconds_sum");
    assert!(seconds > 0.0 && seconds < 10.0, "{seconds}");
    // The request that asks is under way itself, and is counted when it has been answered.
    assert_eq!(metrics.get("threadkv_http_requests_in_flight"), 1.0);
    let next = Metrics::of(&server);
    assert_eq!(next.requests("operating", "metrics", 200), 1.0);
}

#[test]
fn how_long_a_client_takes_over_its_body_is_not_counted_as_time_of_ours() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n");
    thread::sleep(Duration::from_secs(1));
    client.write(vec![b'v'; 200_000]);
    client.read("PUT").expect(200, "");
    let put = r#"{api="plain",operation="put"}"#;
    let metrics = Metrics::of(&server);
    let took = metrics.get(&format!("threadkv_http_request_duration_seconds_sum{put}"));
    assert!(took > 0.0 && took < 0.9, "{took}");
}

#[test]
fn metrics_of_the_data_are_those_of_the_data() {
    let server = Server::start(&[]);
    let before = Metrics::of(&server);
    for n in 0..50 {
        server
            .put(&format!("/kv/a{n}"), "v".repeat(1000))
            .expect(200, "");
    }
    let answer = server.put("/kv/last", "1");
    let revision: f64 = answer
        .header("etag")
        .unwrap()
        .trim_matches('"')
        .parse()
        .unwrap();
    let metrics = Metrics::of(&server);
    assert_eq!(metrics.get("threadkv_keys"), 51.0);
    assert_eq!(metrics.get("threadkv_revision"), revision);
    assert_eq!(metrics.get("threadkv_commits_total"), 51.0);
    assert_eq!(metrics.get("threadkv_writable"), 1.0);
    assert_eq!(metrics.get("threadkv_ready"), 1.0);
    for (name, least) in [
        ("threadkv_stored_bytes", 50_000.0),
        ("threadkv_history_bytes", 50_000.0),
    ] {
        let grown = metrics.get(name) - before.get(name);
        assert!(grown > least && grown < 2.0 * least, "{name}: {grown}");
    }
    let (stored, limit) = ("threadkv_stored_limit_bytes", "threadkv_memory_limit_bytes");
    assert!(metrics.get(stored) < metrics.get(limit));
    // Without a working directory there is no disk to report on.
    assert!(!metrics.has("threadkv_log_bytes"));

    for n in 0..20 {
        let body = r#"{"value":1,"ttl":1}"#;
        assert_eq!(server.put(&format!("/api/v1/kv/e{n}"), body).status, 200);
    }
    assert_eq!(Metrics::of(&server).get("threadkv_keys"), 71.0);
    let metrics = wait_for("20 keys to expire", || {
        Some(Metrics::of(&server)).filter(|it| it.get("threadkv_expired_total") == 20.0)
    });
    assert_eq!(metrics.get("threadkv_keys"), 51.0);
    assert_eq!(metrics.get("threadkv_expiry_lag_seconds"), 0.0);
}

#[test]
fn metrics_of_the_disk_are_those_of_its_files() {
    let directory = Directory::new();
    let data = directory.path().join("data");
    let options = ["--snapshot-after=100000", "--working-dir"];
    let server = Server::start(&[&options[..], &[data.to_str().unwrap()]].concat());
    for n in 0..10 {
        server
            .put(&format!("/kv/a{n}"), "v".repeat(1000))
            .expect(200, "");
    }
    let metrics = Metrics::of(&server);
    let syncs = "threadkv_fsync_duration_seconds_count";
    assert!(metrics.get(syncs) >= 10.0, "{}", metrics.get(syncs));
    assert!(metrics.get("threadkv_fsync_duration_seconds_sum") > 0.0);
    assert_eq!(metrics.get("threadkv_commit_batch_size_sum"), 10.0);
    let bytes = metrics.get("threadkv_log_bytes");
    assert!((10_000.0..12_000.0).contains(&bytes), "{bytes}");
    assert!(!metrics.has("threadkv_last_snapshot_timestamp_seconds"));

    server.put("/kv/large", "v".repeat(100_000)).expect(200, "");
    let written = r#"threadkv_snapshots_total{result="ok"}"#;
    let metrics = wait_for("a snapshot", || {
        Some(Metrics::of(&server)).filter(|it| it.get(written) > 0.0)
    });
    let at = metrics.get("threadkv_last_snapshot_timestamp_seconds");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!((now.as_secs_f64() - at).abs() < 60.0);
    assert!(metrics.get("threadkv_last_snapshot_duration_seconds") > 0.0);
    assert!(metrics.get("threadkv_log_bytes") < bytes);
    let names = fs::read_dir(&data).unwrap().flatten();
    assert!(
        names
            .into_iter()
            .any(|it| it.file_name().to_string_lossy().starts_with("snapshot-"))
    );
}

#[test]
fn connections_watchers_and_refusals_are_counted_by_reason() {
    let server = Server::start(&[
        "--idle-timeout=1",
        "--max-watchers=1",
        "--max-value-bytes=10",
    ]);
    let idle = server.connect();
    let mut watcher = server.connect();
    watcher.write("GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_for("a watcher", || {
        (Metrics::of(&server).get("threadkv_watchers") == 1.0).then_some(())
    });
    assert_eq!(server.get("/api/v1/watch").status, 503);
    assert_eq!(server.put("/kv/a", "0123456789x").status, 413);
    let mut stranger = server.connect();
    stranger.write("GET /kv/a HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(stranger.read("GET").status, 403);
    let mut tls = TcpStream::connect(server.address).unwrap();
    tls.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .unwrap();
    drop(watcher);
    let metrics = wait_for("connections to be closed", || {
        let metrics = Metrics::of(&server);
        let closed = |reason: &str| {
            metrics.get(&format!(
                "threadkv_connections_closed_total{{reason=\"{reason}\"}}"
            ))
        };
        let gone = metrics.get(r#"threadkv_watchers_dropped_total{reason="gone"}"#);
        // Whatever was let in is open or has been closed for one reason; while it closes, it may be counted as both.
        let all =
            metrics.sum("threadkv_connections_closed_total") + metrics.get("threadkv_connections");
        let counted = all == metrics.get("threadkv_connections_accepted_total");
        (counted && closed("idle") >= 1.0 && closed("tls") == 1.0 && gone == 1.0).then_some(metrics)
    });
    drop(idle);
    for reason in ["too_many_watchers", "too_large", "unknown_host"] {
        let name = format!("threadkv_requests_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(metrics.get(&name), 1.0, "{reason}");
    }
    assert_eq!(metrics.get("threadkv_watchers"), 0.0);
}

#[test]
fn metrics_take_a_token_as_reads_do_unless_they_are_open() {
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let reader = tokens.create(&["--read-only"]);
    let server = Server::start(&["--auth", tokens.path()]);
    let refused = server.get("/metrics");
    refused.expect(401, "unauthorized\n");
    let bearer = format!("Authorization: Bearer {reader}\r\n");
    let mut client = server.connect();
    let metrics = Metrics::read(&client.send_with(&bearer, "GET", "/metrics", ""));
    let unauthorized = r#"threadkv_requests_refused_total{reason="unauthorized"}"#;
    assert_eq!(metrics.get(unauthorized), 1.0);
    assert_eq!(metrics.requests("operating", "metrics", 401), 1.0);

    let server = Server::start(&["--auth", tokens.path(), "--metrics-open"]);
    assert_eq!(server.get("/metrics").status, 200);
    server.get("/kv/a").expect(401, "unauthorized\n");
}

#[test]
fn prometheus_scrapes_it_with_a_token() {
    if !prometheus::has("prometheus") {
        return;
    }
    let directory = Directory::new();
    let tokens = TokenFile::in_directory(&directory);
    let token = tokens.create(&[]);
    let server = Server::start(&["--auth", tokens.path()]);
    let more = format!("  authorization:\n    credentials: {token}\n");
    let prometheus = Prometheus::scraping(server.address, &more, &directory);
    prometheus.wait_for("up", |up| up == 1.0);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let mut client = server.connect();
    for n in 0..100 {
        let put = client.send_with(&bearer, "PUT", &format!("/kv/a{n}"), "1");
        put.expect(200, "");
    }
    prometheus.wait_for("threadkv_keys", |keys| keys == 100.0);
    let puts = r#"threadkv_http_requests_total{operation="put",code="200"}"#;
    prometheus.wait_for(puts, |puts| puts == 100.0);
    let p99 =
        "histogram_quantile(0.99, sum by (le) (threadkv_http_request_duration_seconds_bucket))";
    let p99 = prometheus.wait_for(p99, |p99| p99 > 0.0);
    assert!(p99 < 10.0, "{p99}");
}
