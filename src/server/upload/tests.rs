use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::never;

use crate::server::{
    Admission, Body, Done, Fault, Head, Headers, Next, Operation, PIECE, Parts, Piece, Pieces,
    Plain, Pool, Publisher, Response, Server, Service, Taken, Text,
};

/// Counts pieces and bytes, and answers early where a piece begins with `!`.
#[derive(Default)]
struct Counter {
    pieces: usize,
    bytes: usize,
}

impl Pieces for Counter {
    fn take(mut self: Box<Self>, piece: Piece, done: Done) {
        self.pieces += 1;
        self.bytes += piece.bytes.len();
        assert!(piece.is_last || piece.bytes.len() >= PIECE);
        let text = format!("{} bytes", self.bytes);
        let response = Response::new(200, "text/plain", Body::Owned(text.into_bytes()));
        match piece.bytes.first() {
            Some(b'!') => done(Taken::Answer(response)),
            Some(b'?') => drop(done),
            _ if piece.is_last => done(Taken::Answer(response)),
            // From another thread, later.
            _ => drop(thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                done(Taken::More(self));
            })),
        }
    }
}

struct Counting;

impl Service for Counting {
    fn headers(&self, _: Head<'_>) -> Headers {
        Headers::new()
    }

    fn admit(&self, _: Head<'_>) -> (Operation, Result<Admission, Response>) {
        let admission = Admission::in_pieces(Counter::default());
        (Operation::UNKNOWN, Ok(admission))
    }

    fn who(&self, _: Head<'_>) -> Option<String> {
        None
    }

    fn refuse(&self, _: Head<'_>, fault: Fault) -> Response {
        let status = if fault == Fault::Internal { 500 } else { 400 };
        Response::new(status, "text/plain", Body::Static("refused"))
    }
}

/// Has nothing to say.
struct Silent;

impl Publisher for Silent {
    fn publish(&self, _: &mut dyn FnMut(u64, &Text) -> bool) -> Vec<u64> {
        Vec::new()
    }

    fn next(&self, _: u64) -> Next {
        Next::Wait
    }

    fn quiet(&self, _: u64) -> Option<Text> {
        None
    }

    fn unwanted(&self) -> Vec<u64> {
        Vec::new()
    }
}

fn send(address: SocketAddr, body: &[u8], announced: usize) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    let head =
        format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let _ = client.write_all(body); // it may be answered before
    let _ = client.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    answer
}

#[test]
fn a_body_of_any_length_comes_in_pieces_through_the_plain_door() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let parts = Parts {
        socket,
        workers: 1,
        door: Arc::new(Plain),
        service: Box::new(Counting),
        pool: Pool::new(),
        streams: (never(), Arc::new(Silent)),
        monitor: Arc::default(),
        slow_log: None,
    };
    let server = Server::start(parts).unwrap();
    for length in [
        0,
        1,
        1024,
        PIECE - 1,
        PIECE,
        PIECE + 1,
        5 * PIECE,
        5 * PIECE + 7,
    ] {
        let answer = send(address, &vec![b'x'; length], length);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{length}: {answer}");
        assert!(
            answer.ends_with(&format!("\r\n{length} bytes")),
            "{length}: {answer}"
        );
    }
    for length in [10, 2000, PIECE + 10] {
        let answer = send(address, &vec![b'x'; length], 3 * PIECE);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
    }
    let answer = send(address, &vec![b'!'; 2 * PIECE], 2 * PIECE);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(&format!("\r\n{PIECE} bytes")), "{answer}");
    let answer = send(address, &vec![b'?'; 2 * PIECE], 2 * PIECE);
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(server.drain(Duration::from_secs(10)), 0);
}
