//! Values come back byte for byte, up to the limit, however they were sent.

use crate::process::Server;

/// The default of `--max-value-bytes`.
const LIMIT: usize = 10_485_760;

/// Text of that many bytes in which no stretch looks like another.
fn text(bytes: usize) -> String {
    let mut text: String = (0..)
        .map(|n: u32| format!("{n};"))
        .take(bytes / 2 + 1)
        .collect();
    text.truncate(bytes);
    text
}

#[test]
fn every_size_up_to_the_limit_comes_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    // 1024 bytes are what tiny_http reads by itself; 16 kB and 64 kB are where answers change threads.
    for size in [
        1, 2, 1023, 1024, 1025, 10_000, 16_384, 16_385, 65_000, 65_536, 1_000_000, LIMIT,
    ] {
        let value = text(size);
        client.send("PUT", "/kv/a", &value).expect(200, "");
        let read = client.send("GET", "/kv/a", "");
        assert_eq!(read.status, 200);
        assert!(read.text() == value, "{size} bytes");
    }
}

#[test]
fn one_byte_over_the_limit_is_refused() {
    let server = Server::start(&[]);
    server.put("/kv/a", "before").expect(200, "");
    server
        .put("/kv/a", "v".repeat(LIMIT + 1))
        .expect(413, "value too large\n");
    server
        .put("/kv/a", "v".repeat(LIMIT + 5_000_000))
        .expect(413, "value too large\n");
    server.get("/kv/a").expect(200, "before");

    let server = Server::start(&["--max-value-bytes", "5"]);
    let mut client = server.connect();
    client.send("PUT", "/kv/a", "12345").expect(200, "");
    client
        .send("PUT", "/kv/a", "123456")
        .expect(413, "value too large\n");
    client.send("GET", "/kv/a", "").expect(200, "12345");
}

#[test]
fn the_limit_counts_bytes_of_the_value_also_when_it_comes_in_chunks() {
    let server = Server::start(&["--max-value-bytes", "2000"]);
    for (size, status) in [(1, 200), (2000, 200), (2001, 413), (500_000, 413)] {
        let mut client = server.connect();
        client.write("PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in "v".repeat(size).as_bytes().chunks(700) {
            // The server may have refused already, and the rest is of no interest to it.
            let _ = client.try_write(format!("{:x}\r\n", chunk.len()));
            let _ = client.try_write(chunk);
            let _ = client.try_write("\r\n");
        }
        let _ = client.try_write("0\r\n\r\n");
        assert_eq!(client.read("PUT").status, status, "{size} bytes");
    }
    server.get("/kv/a").expect(200, &"v".repeat(2000));
}

#[test]
fn every_character_of_unicode_is_kept() {
    let server = Server::start(&[]);
    let every: String = (0..=char::MAX as u32).filter_map(char::from_u32).collect();
    server.put("/kv/every", &every).expect(200, "");
    assert!(server.get("/kv/every").text() == every);
}

#[test]
fn what_is_not_utf_8_is_refused() {
    let server = Server::start(&[]);
    for bytes in [
        &b"\xff"[..],
        b"a\xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ] {
        server
            .put("/kv/a", bytes)
            .expect(400, "value must be valid UTF-8\n");
        let large = [&[b'a'; 5000], bytes].concat();
        server
            .put("/kv/a", large)
            .expect(400, "value must be valid UTF-8\n");
    }
    server.get("/kv/a").expect(404, "key not found\n");
}
