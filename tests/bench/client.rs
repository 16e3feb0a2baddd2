//! A client for what is asked beside the load: filling, checking, probing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to a server, over HTTP/1.1.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream);
        Ok(Client { reader })
    }

    /// Sends a request as it is. Returns the body of a success; any other answer is an error.
    pub fn send(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.send_and_read(request, |part| body.extend_from_slice(part))? {
            200 => Ok(body),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    }

    /// Sends a request and lets go of the answer's body, which may have any size. Returns the status.
    pub fn send_and_skip(&mut self, request: &[u8]) -> io::Result<u16> {
        self.send_and_read(request, |_| {})
    }

    /// Sends a request whose answer is received later.
    pub fn begin(&mut self, request: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(request)
    }

    /// Receives the answer to a request that was begun, which has to be a success.
    pub fn receive(&mut self) -> io::Result<()> {
        match self.read(|_| {})? {
            200 => Ok(()),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    }

    fn send_and_read(&mut self, request: &[u8], take: impl FnMut(&[u8])) -> io::Result<u16> {
        self.begin(request)?;
        self.read(take)
    }

    fn read(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<u16> {
        let status = self.read_line()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = number(value, 10)?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        if chunked {
            loop {
                let length = number(&self.read_line()?, 16)?;
                self.read_part(length, &mut take)?;
                self.read_line()?;
                if length == 0 {
                    break;
                }
            }
        } else {
            self.read_part(length, &mut take)?;
        }
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|digits| digits.parse().ok());
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn read_part(&mut self, mut length: usize, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            let part = self.reader.fill_buf()?;
            let part = &part[..part.len().min(length)];
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(part);
            let taken = part.len();
            self.reader.consume(taken);
            length -= taken;
        }
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn number(digits: &str, radix: u32) -> io::Result<usize> {
    usize::from_str_radix(digits, radix).map_err(io::Error::other)
}

/// A connection to Redis itself, past webdis: for filling, which over HTTP would take long.
pub struct Redis {
    reader: BufReader<TcpStream>,
}

impl Redis {
    pub fn connect(address: SocketAddr) -> io::Result<Redis> {
        let reader = BufReader::new(TcpStream::connect(address)?);
        Ok(Redis { reader })
    }

    /// Sends a command. Returns its answer, of those kinds that have one line or are a text.
    pub fn send(&mut self, words: &[&str]) -> io::Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.reader.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("-", error)) => Err(io::Error::other(error.to_owned())),
            Some(("$", length)) => {
                let mut text = vec![0; number(length, 10)? + 2]; // its line end as well
                self.reader.read_exact(&mut text)?;
                text.truncate(text.len() - 2);
                String::from_utf8(text).map_err(io::Error::other)
            }
            Some((_, answer)) => Ok(answer.to_owned()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
