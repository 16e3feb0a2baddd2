//! Many clients that are up to no good.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{bind, connect, sockopt};

use crate::client::tcp_socket;
use crate::process::PATIENCE;

/// A pause between the bytes of a client that drips.
const DRIP: Duration = Duration::from_millis(20);

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// Clients that send something at once, and then a byte now and then.
pub struct Crowd {
    address: SocketAddr,
    opening: Vec<u8>,
    /// What they send byte by byte, again and again.
    drips: Vec<u8>,
    clients: Vec<Option<Member>>,
    /// How many connections have ended after an answer with that status; 0 stands for none.
    pub ended: BTreeMap<u16, usize>,
}

struct Member {
    stream: TcpStream,
    dripped: usize,
    answer: Vec<u8>,
}

impl Crowd {
    pub fn connect(
        address: SocketAddr,
        size: usize,
        opening: impl Into<Vec<u8>>,
        drips: &str,
    ) -> Crowd {
        let mut crowd = Crowd::new(address, size, opening, drips);
        crowd.refill();
        assert_eq!(crowd.connected(), size);
        crowd
    }

    /// One that has not connected yet.
    pub fn new(
        address: SocketAddr,
        size: usize,
        opening: impl Into<Vec<u8>>,
        drips: &str,
    ) -> Crowd {
        Crowd {
            address,
            opening: opening.into(),
            drips: drips.into(),
            clients: (0..size).map(|_| None).collect(),
            ended: BTreeMap::new(),
        }
    }

    /// How many connections have not been seen to end.
    pub fn connected(&self) -> usize {
        self.clients.iter().flatten().count()
    }

    /// Connects anew for each connection that has ended.
    pub fn refill(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.is_none()) {
            let Ok(mut stream) = TcpStream::connect_timeout(&self.address, CONNECTING) else {
                return; // nor would the others
            };
            if stream.write_all(&self.opening).is_ok() && stream.set_nonblocking(true).is_ok() {
                *client = Some(Member {
                    stream,
                    dripped: 0,
                    answer: Vec::new(),
                });
            }
        }
    }

    /// Each sends its next byte, and looks whether its connection has ended. Returns how many have not.
    pub fn drip(&mut self) -> usize {
        for client in &mut self.clients {
            let Some(member) = client else { continue };
            if !self.drips.is_empty() {
                let byte = self.drips[member.dripped % self.drips.len()];
                // Fails where the connection has ended, and what was answered can be read all the same.
                member.dripped += member.stream.write(&[byte]).unwrap_or(0);
            }
            if member.has_ended() {
                *self.ended.entry(member.status()).or_default() += 1;
                *client = None;
            }
        }
        self.connected()
    }

    /// Goes on dripping until the server has ended all connections.
    #[track_caller]
    pub fn drip_until_ended(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.drip() > 0 {
            let left = self.connected();
            assert!(Instant::now() < deadline, "{left} have not been ended");
            thread::sleep(DRIP);
        }
    }

    /// Checks that nobody was told anything else than one of these.
    #[track_caller]
    pub fn expect_ended_with(&self, statuses: &[u16]) {
        let ended = &self.ended;
        assert!(
            ended.keys().all(|status| statuses.contains(status)),
            "{ended:?}"
        );
    }
}

impl Member {
    /// Takes in what the server has sent. Says whether that was all.
    fn has_ended(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(bytes) => self.answer.extend(&buffer[..bytes]),
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    /// The last status that was answered.
    fn status(&self) -> u16 {
        let answer = String::from_utf8_lossy(&self.answer);
        let last = answer.rsplit("HTTP/1.1 ").next().unwrap();
        last.get(..3)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }
}

/// Begins to connect from another address of this machine.
pub fn begin_to_connect(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = tcp_socket();
    bind(&stream, &SocketAddr::from((source, 0)))?;
    stream.set_nonblocking(true)?;
    match connect(&stream, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

/// A client that has asked for something, and does not read the answer; nor is there room for much of it.
pub fn never_reader(address: SocketAddr, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = tcp_socket();
    sockopt::set_socket_recv_buffer_size(&stream, 4096)?;
    connect(&stream, &address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}
