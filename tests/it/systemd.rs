//! What the server tells systemd, and the socket that it takes from it. The test stands in for systemd.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{self, Command};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::directory::Directory;
use crate::process::{PATIENCE, Server, forget_own_settings};

/// systemd's end of the socket that it is told things by.
struct Listening(UnixDatagram);

impl Listening {
    fn at(address: &SocketAddr) -> Listening {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Listening(socket)
    }

    /// The next message's first line.
    fn next(&self) -> String {
        let mut told = [0; 1000];
        let length = self.0.recv(&mut told).expect("another message");
        let told = String::from_utf8_lossy(&told[..length]);
        told.lines().next().unwrap_or_default().into()
    }

    /// Whether nothing is said for a while.
    fn is_left_alone(&self) -> bool {
        let while_ = Duration::from_millis(500);
        self.0.set_read_timeout(Some(while_)).unwrap();
        self.0.recv(&mut [0; 100]).is_err()
    }
}

fn command(notify: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threadkv"));
    command.arg("--port=0").env("NOTIFY_SOCKET", notify);
    command
}

#[test]
fn it_says_that_it_loads_serves_and_stops() {
    let directory = Directory::new();
    let path = format!("{}.notify", directory.path_str());
    let systemd = Listening::at(&SocketAddr::from_pathname(&path).unwrap());
    let mut command = command(&path);
    command.args(["--working-dir", directory.path_str()]);
    let mut server = Server::spawn(command);
    assert_eq!(systemd.next(), "EXTEND_TIMEOUT_USEC=120000000");
    assert_eq!(systemd.next(), "READY=1");
    server.put("/kv/a", "1").expect(200, "");
    server.signal("-TERM");
    assert_eq!(systemd.next(), "STOPPING=1");
    assert_eq!(server.wait().0.code(), Some(0));
    fs::remove_file(path).unwrap();
}

#[test]
fn it_says_that_it_is_alive_where_that_is_asked_for() {
    let name = format!("threadkv-test-{}", process::id());
    let systemd = Listening::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let mut asked = command(&format!("@{name}"));
    asked.env("WATCHDOG_USEC", "200000");
    let server = Server::spawn(asked);
    while systemd.next() != "READY=1" {}
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(systemd.next(), "WATCHDOG=1");
    }
    assert!(started.elapsed() >= Duration::from_millis(350));
    drop(server);

    // Another process is asked.
    let systemd = loop {
        // What the first one has said last is still there.
        systemd.0.set_nonblocking(true).unwrap();
        if systemd.0.recv(&mut [0; 100]).is_err() {
            systemd.0.set_nonblocking(false).unwrap();
            break systemd;
        }
    };
    let mut other = command(&format!("@{name}"));
    other
        .env("WATCHDOG_USEC", "200000")
        .env("WATCHDOG_PID", "1");
    let _server = Server::spawn(other);
    while systemd.next() != "READY=1" {}
    assert!(systemd.is_left_alone());
}

#[test]
fn nobody_at_the_socket_is_a_warning() {
    for nobody in ["/there/is/nobody", "vsock:2:1234"] {
        let server = Server::spawn(command(nobody));
        assert!(server.has_seen(&format!("NOTIFY_SOCKET \"{nobody}\": ")));
        server.put("/kv/a", "1").expect(200, "");
    }
}

/// Passes a socket as systemd does, as descriptor 3.
fn with_socket(socket: impl Into<OwnedFd>, options: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3>&1 >/dev/null"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_threadkv")]);
    command.args(options).stdout(socket.into());
    command
}

#[test]
fn it_serves_on_a_socket_of_systemds() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let pass = || socket.try_clone().unwrap();
    let mut server = Server::spawn(with_socket(pass(), &["--port=1"]));
    assert_eq!(server.address, address);
    assert!(server.has_seen(&format!(
        "--host and --port have no effect: systemd has passed a socket that listens on {address}"
    )));
    let mut idle = server.connect();
    idle.send("PUT", "/kv/a", "1").expect(200, "");
    let started = Instant::now();
    server.signal("-TERM");
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
    idle.expect_end();

    // Whoever comes while none is there is served by the next one.
    let mut early = Client::try_connect(address).unwrap();
    early.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let server = Server::spawn(with_socket(pass(), &[]));
    assert!(!server.has_seen("[WARN]"));
    early.read("GET").expect(404, "key not found\n");
}

#[test]
fn what_is_in_flight_on_a_socket_of_systemds_finishes() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = Server::spawn(with_socket(socket.try_clone().unwrap(), &[]));
    let mut idle = server.connect();
    idle.send("GET", "/kv/a", "").expect(404, "key not found\n");
    let mut upload = crate::shutdown::upload(&server);
    let started = Instant::now();
    server.signal("-TERM");
    server.wait_for_log("draining");
    upload.write("v".repeat(500_000));
    let answer = upload.read("PUT");
    answer.expect(200, "");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
    let next = Server::spawn(with_socket(socket, &[]));
    next.get("/kv/a").expect(404, "key not found\n");
}

/// While the server drains, newcomers wait for the next one.
#[test]
fn a_server_that_drains_leaves_newcomers_to_the_next_one() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = Server::spawn(with_socket(socket.try_clone().unwrap(), &[]));
    let mut upload = crate::shutdown::upload(&server);
    server.signal("-TERM");
    server.wait_for_log("draining");
    let mut newcomers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for newcomer in &mut newcomers {
        newcomer.write("GET /kv/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    upload.write("v".repeat(500_000));
    upload.read("PUT").expect(200, "");
    assert_eq!(server.wait().0.code(), Some(0));
    let _next = Server::spawn(with_socket(socket, &[]));
    for newcomer in &mut newcomers {
        newcomer.read("GET").expect(404, "key not found\n");
    }
}

#[test]
fn a_socket_of_another_kind_is_one_line() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (unix, _) = UnixDatagram::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    let others = TcpListener::bind("0.0.0.0:0").unwrap();
    let sockets: [(OwnedFd, &str); 5] = [
        (udp.into(), "it is no TCP socket; expected ListenStream="),
        (unix.into(), "it is no TCP socket"),
        (connected.into(), "it does not listen"),
        (file.into(), "Socket operation on non-socket"),
        (others.into(), "lets other machines in: give --auth"),
    ];
    for (socket, why) in sockets {
        let mut command = with_socket(socket, &[]);
        forget_own_settings(&mut command);
        let (status, said) = Server::try_spawn(command).err().expect(why);
        assert_eq!(status.code(), Some(1));
        assert!(said.len() == 1 && said[0].contains(why), "{said:?}");
    }
}

/// The units of the README, as systemd sees them. Without systemd there is nobody to ask.
#[test]
fn the_units_of_the_readme_are_in_order() {
    let readme = include_str!("../../README.md");
    let units: Vec<&str> = readme
        .split("```ini\n")
        .skip(1)
        .map(|it| it.split("```").next().unwrap())
        .collect();
    let directory = Directory::new();
    fs::create_dir_all(directory.path()).unwrap();
    let [service, socket] = units[..] else {
        panic!("{units:?}")
    };
    // It looks for the program, too.
    let service = service.replace("/usr/local/bin/threadkv", env!("CARGO_BIN_EXE_threadkv"));
    let path = |name: &str| directory.path().join(name);
    fs::write(path("threadkv.service"), service).unwrap();
    fs::write(path("threadkv.socket"), socket).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .args([path("threadkv.service"), path("threadkv.socket")])
        .output();
    let Ok(output) = verify else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !said.contains("threadkv"),
        "{said}"
    );
}
