//! The sockets of a network namespace: listing them and closing them (sock_diag(7)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_packet_core::NLM_F_ACK;
use rustix::net::netlink::SOCK_DIAG;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Message, attributes, connect, dump, exchange};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`, include/uapi/linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `INET_DIAG_CGROUP_ID`, include/uapi/linux/inet_diag.h; Linux 5.9.
const CGROUP_ID: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_TIME_WAIT`, `TCP_CLOSE` (also a UDP socket without a peer) and `TCP_LISTEN`.
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// Which sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP, and MPTCP's subflows.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Its number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// `struct inet_diag_sockid`: ports and addresses in network byte order.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct Id {
    local_port: [u8; 2],
    remote_port: [u8; 2],
    local: [u8; 16],
    remote: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Reply {
    family: u8,
    state: u8,
    timer: u8,
    retransmissions: u8,
    id: Id,
    expires: u32,
    receive_queue: u32,
    write_queue: u32,
    user: u32,
    inode: u32,
}

/// A socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its own address.
    pub local: SocketAddr,
    /// Its peer's; `None` for one that listens or has no peer.
    pub remote: Option<SocketAddr>,
    /// The cgroup that it was made in.
    pub cgroup: Option<u64>,
    family: u8,
    id: Id,
}

/// All sockets of a protocol in the network namespace of the calling thread, but those of
/// connections that have ended.
///
/// # Errors
/// The kernel can't be asked.
pub fn list(protocol: Protocol) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let request = Request {
            family,
            protocol: protocol.number(),
            extensions: 0,
            pad: 0,
            states: !(1 << TIME_WAIT),
            id: Id::default(),
        };
        let request = Message { kind: BY_FAMILY, payload: request.as_bytes().to_vec() };
        let answer = dump(Some(SOCK_DIAG), &request)?;
        sockets.extend(answer.iter().filter_map(|message| socket(message, protocol)));
    }
    Ok(sockets)
}

fn socket(message: &Message, protocol: Protocol) -> Option<Socket> {
    let (reply, rest) = Reply::read_from_prefix(&message.payload).ok()?;
    let Reply { family, state, id, .. } = reply;
    let local = address(family, id.local, id.local_port)?;
    let remote = address(family, id.remote, id.remote_port)?;
    let has_peer = state != LISTEN && state != CLOSE && !remote.ip().is_unspecified();
    let cgroup = attributes(rest).find(|(kind, _)| *kind == CGROUP_ID);
    let cgroup = cgroup.and_then(|(_, id)| Some(u64::from_ne_bytes(id.get(..8)?.try_into().ok()?)));
    Some(Socket { protocol, local, remote: has_peer.then_some(remote), cgroup, family, id })
}

fn address(family: u8, bytes: [u8; 16], port: [u8; 2]) -> Option<SocketAddr> {
    let ip = match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        // An IPv6 socket can have an IPv4 peer.
        AF_INET6 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// Closes a socket of [`list()`]: its owner gets `ECONNABORTED`. In the same network namespace, with
/// `CAP_NET_ADMIN`. Minimum kernel version: 4.9, with `CONFIG_INET_DIAG_DESTROY`.
///
/// # Errors
/// `NotFound` if it was closed in the meantime, `Unsupported` without that option.
pub fn destroy(socket: &Socket) -> io::Result<()> {
    let request = Request {
        family: socket.family,
        protocol: socket.protocol.number(),
        extensions: 0,
        pad: 0,
        states: u32::MAX,
        id: socket.id,
    };
    let request = Message { kind: DESTROY, payload: request.as_bytes().to_vec() };
    exchange(&connect(Some(SOCK_DIAG))?, &request, NLM_F_ACK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    fn find(protocol: Protocol, local: SocketAddr) -> Option<Socket> {
        list(protocol).unwrap().into_iter().find(|socket| socket.local == local)
    }

    #[test]
    fn a_connection_is_listed_with_its_cgroup_and_closed() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let at = listener.local_addr().unwrap();
            let (mut one, _other) = (TcpStream::connect(at).unwrap(), listener.accept().unwrap());
            let local = one.local_addr().unwrap();
            let found = find(Protocol::Tcp, local).unwrap();
            assert_eq!(found.remote, Some(at));
            assert!(found.cgroup.is_some_and(|id| id > 0), "{found:?}");
            assert_eq!(find(Protocol::Tcp, at).unwrap().remote, None, "it listens");
            destroy(&found).unwrap();
            assert_eq!(one.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!(destroy(&found).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_udp_socket_has_a_peer_or_none() {
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.connect(other.local_addr().unwrap()).unwrap();
        let found = find(Protocol::Udp, one.local_addr().unwrap()).unwrap();
        assert_eq!(found.remote, Some(other.local_addr().unwrap()));
        assert_eq!(find(Protocol::Udp, other.local_addr().unwrap()).unwrap().remote, None);
        destroy(&found).unwrap();
        assert!(one.recv(&mut [0]).is_err());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), at.port());
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.connect(&mapped.into()).unwrap();
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let found = find(Protocol::Tcp, local).unwrap();
        assert_eq!((found.remote, found.family), (Some(at), AF_INET6));
    }
}
