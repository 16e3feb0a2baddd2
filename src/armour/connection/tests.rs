use super::*;
use crate::budget::Budget;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

fn connection(socket: &TcpStream) -> Connection {
    let transfers = Transfers::start(
        Default::default(),
        Arc::default(),
        Arc::new(Budget::new(u64::MAX)),
    );
    let (client, fd) = (socket.peer_addr().unwrap(), socket.as_raw_fd());
    let cookie = socket::cookie(fd).unwrap();
    Connection::new(client, fd, cookie, &transfers.unwrap())
}

fn accepted() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn the_number_of_refused_clients_that_linger_is_bounded() {
    let (_client, accepted) = accepted();
    let connection = connection(&accepted);
    let linger = || connection.farewell();
    let mut farewells: Vec<_> = (0..FAREWELLS).map(|_| linger().unwrap()).collect();
    assert!(linger().is_none());
    farewells.pop();
    assert!(linger().is_some());
}

#[test]
fn a_connection_whose_request_has_just_been_read_is_not_idle() {
    let (_client, accepted) = accepted();
    let connection = connection(&accepted);
    drop(connection.follow(b"GET / HTTP/1.0\r\n\r\n"));
    connection.shut_down_if_idle(Closing::Idle);
    assert!(!connection.has_ended());
    connection.count_answer();
    drop(connection.follow(b"GET /"));
    connection.shut_down_if_idle(Closing::Idle);
    assert!(!connection.has_ended());
    drop(connection.follow(b" HTTP/1.0\r\n\r\n"));
    connection.count_answer();
    connection.shut_down_if_idle(Closing::Idle);
    assert!(connection.has_ended());
}
