//! A packet socket on an interface, which sends and receives whole frames.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::raw::{bind, link_address};

/// Every ethertype.
const EVERY: u16 = 3;

/// A socket for whole frames on an interface, receiving everything.
///
/// # Errors
/// What the kernel said: `EPERM` without `CAP_NET_RAW`.
pub(super) fn open(index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    bind(&socket, &link_address(EVERY, index, [0; 6]))?;
    Ok(socket)
}

/// Sends a frame.
///
/// # Errors
/// What the kernel said.
pub(super) fn send(socket: &Socket, frame: &[u8]) -> io::Result<()> {
    socket.send(frame).map(drop)
}

/// The next frame before `end`.
pub(super) fn receive(mut socket: &Socket, end: Instant) -> Option<Vec<u8>> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return None;
    }
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
    let mut buffer = vec![0; 65_536];
    let count = socket.read(&mut buffer).ok()?;
    buffer.truncate(count);
    Some(buffer)
}
