//! An HTTP/1.1 client that can also do what a well-behaved one would not.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde_json::{Value, json};

use crate::process::PATIENCE;

/// A socket that is not connected yet. Servers that are started meanwhile must not inherit it.
pub fn tcp_socket() -> TcpStream {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .unwrap()
        .into()
}

/// A connection to a server.
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Checks status and body at once.
    #[track_caller]
    pub fn expect(&self, status: u16, text: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!((self.status, &*body), (status, text));
    }

    /// The body, which must be JSON and say so.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Checks that this is a success of the JSON API with exactly that body.
    #[track_caller]
    pub fn expect_json(&self, text: &str) {
        self.json();
        self.expect(200, text);
    }

    /// Checks that this is a success of the JSON API with that data.
    #[track_caller]
    pub fn expect_data(&self, data: Value) {
        assert_eq!(
            (self.status, self.json()),
            (200, json!({"status": "ok", "data": data}))
        );
    }

    /// Checks that this is an error of the JSON API, with these details; null if it has none. Returns the message.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str, details: Value) -> String {
        let mut body = self.json();
        let message = body["error"]["message"].take();
        let mut expected = json!({"status": "error", "error": {"code": code, "message": null}});
        if !details.is_null() {
            expected["error"]["details"] = details;
        }
        assert_eq!((self.status, body), (status, expected), "{message}");
        let message = message.as_str().unwrap();
        assert!(!message.is_empty());
        message.to_owned()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Client> {
        Client::on(TcpStream::connect(address)?)
    }

    /// Goes on with a connection that was made elsewhere.
    pub fn on(stream: TcpStream) -> std::io::Result<Client> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            reader: BufReader::new(stream),
        })
    }

    /// Waits for so long, and then fails.
    pub fn set_patience(&self, patience: Duration) {
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends a request and reads the answer.
    pub fn send(&mut self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send_with("", method, path, body)
    }

    /// The same with more headers, each with its line end.
    pub fn send_with(
        &mut self,
        headers: &str,
        method: &str,
        path: &str,
        body: impl AsRef<[u8]>,
    ) -> Response {
        let body = body.as_ref();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        self.write([head.as_bytes(), body].concat());
        self.read(method)
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Writes as much as the server takes.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Whether something can be read: an answer, or the end.
    pub fn has_news(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        let nothing = matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock);
        !nothing || !self.reader.buffer().is_empty()
    }

    /// Reads the answer to a request of that method.
    pub fn read(&mut self, method: &str) -> Response {
        self.try_read(method).unwrap()
    }

    /// Reads an answer, or fails as the connection does.
    pub fn try_read(&mut self, method: &str) -> std::io::Result<Response> {
        let mut response = self.try_read_head()?;
        let Response {
            status,
            headers,
            body,
        } = &mut response;
        if method == "HEAD" || [204, 304].contains(status) || *status < 200 {
            // May announce a body, and has none.
        } else if let Some(length) = headers.get("content-length") {
            assert_eq!(headers.get("transfer-encoding"), None);
            body.resize(length.parse().unwrap(), 0);
            self.reader.read_exact(body)?;
        } else if let Some(encoding) = headers.get("transfer-encoding") {
            assert_eq!(encoding, "chunked");
            while self.read_chunk(body)? {}
        } else {
            assert_eq!(headers["connection"], "close", "a body without an end");
            self.reader.read_to_end(body)?;
        }
        Ok(response)
    }

    /// Reads the head of an answer, and leaves its body to be read.
    pub fn try_read_head(&mut self) -> std::io::Result<Response> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        assert!(line.starts_with("HTTP/1.1 "), "{line:?}");
        let status = line[9..12].parse().unwrap();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => {
                    let earlier = headers.insert(name.to_ascii_lowercase(), value.to_owned());
                    assert_eq!(earlier, None, "header {name} twice");
                }
                None => break,
            }
        }
        Ok(Response {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// What comes behind what has been read.
    pub fn into_reader(self) -> BufReader<TcpStream> {
        self.reader
    }

    /// Reads a chunk. Returns whether there is another.
    fn read_chunk(&mut self, body: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = line.strip_suffix("\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        let start = body.len();
        body.resize(start + length + 2, 0);
        self.reader.read_exact(&mut body[start..])?;
        assert!(body.ends_with(b"\r\n"), "a chunk's end");
        body.truncate(start + length);
        Ok(length > 0)
    }

    /// Checks that the server closes the connection without sending anything more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well, where the server did not want what was still coming.
        let _ = self.reader.read_to_end(&mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
