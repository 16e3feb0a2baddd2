use super::*;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

fn connection(socket: &TcpStream) -> Connection {
    let transfers = Transfers::new(Default::default(), Arc::default());
    let (client, fd) = (socket.peer_addr().unwrap(), socket.as_raw_fd());
    let cookie = socket::cookie(fd).unwrap();
    Connection::new(client, fd, cookie, &Arc::new(transfers))
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
    let linger = || Farewell::new(connection.hold().unwrap(), &connection.transfers);
    let mut farewells: Vec<_> = (0..FAREWELLS).map(|_| linger().unwrap()).collect();
    assert!(linger().is_none());
    farewells.pop();
    assert!(linger().is_some());
}

#[test]
fn a_connection_whose_request_has_just_been_read_is_not_idle() {
    let (_client, accepted) = accepted();
    let connection = connection(&accepted);
    connection.follow(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec());
    connection.shut_down_if_idle();
    assert!(!connection.is_void());
    connection.count_answer();
    connection.follow(&mut b"GET /".to_vec());
    connection.shut_down_if_idle();
    assert!(!connection.is_void());
    connection.follow(&mut b" HTTP/1.1\r\n\r\n".to_vec());
    connection.count_answer();
    connection.shut_down_if_idle();
    assert!(connection.is_void() && connection.has_ended());
}
