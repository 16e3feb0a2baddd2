//! Ports for programs that cannot be told to take a free one and to say which it is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the kernel gives to clients, which would take one of them sooner or later before it is listened on.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

/// An address that nobody listens on, different each time.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Tests that run in other processes at the same time begin somewhere else.
        let offset = (process::id().wrapping_mul(101) + next) % PORTS.len() as u32;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, (PORTS.start + offset) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
