//! Listening sockets, and options of connected ones.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Dead peers are found out although no byte is due: RFC 1122's two hours are too long for a
/// gateway whose clients vanish with their pods.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(75)).with_interval(Duration::from_secs(15));

/// As many listeners as asked for on one address, each for a worker of its own: the kernel spreads
/// connections over them (`SO_REUSEPORT`, Linux 3.9). An IPv6 address takes IPv4 too. What is
/// accepted inherits `TCP_NODELAY` and keep-alive, which saves calls on each connection.
///
/// # Errors
/// `AddrInUse` also where another process shares its port: two gateways would take each other's
/// connections unseen. `PermissionDenied` below port 1024 without `CAP_NET_BIND_SERVICE`.
pub fn listeners(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // A socket that doesn't share finds out whether somebody listens already. It stays bound to a
    // port that the kernel chose only as long as the first real one needs to learn it.
    let probe = socket(addr)?;
    probe.bind(&SockAddr::from(addr))?;
    let bound = probe.local_addr()?.as_socket().unwrap_or(addr);
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = socket(addr)?;
            // One alone shares with nobody: any process of the same user could join, as a workload on
            // the host's network that runs as root.
            socket.set_reuse_port(count > 1)?;
            socket.bind(&SockAddr::from(bound))?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Sets how a silent connection is probed, and switches probes on.
///
/// # Errors
/// A time of less than a second or more than 32767, or more than 127 probes (`tcp(7)`).
pub fn keep_alive(
    socket: &impl AsFd,
    time: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let settings = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(probes);
    SockRef::from(socket).set_tcp_keepalive(&settings)
}

/// Has the kernel give up a peer that acknowledges nothing of what it was sent, or has no room for more,
/// for so long (`TCP_USER_TIMEOUT`), and one that is probed in vain for so long.
///
/// A peer without room is given up although it answers: so this is for connections whose other end
/// always reads.
///
/// # Errors
/// The kernel refuses; the connection works without.
pub fn user_timeout(socket: &impl AsFd, limit: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(limit))
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = listeners(addr, 2).unwrap();
        let bound = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), bound);
        let error = super::listeners(bound, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn nobody_joins_one_that_listens_alone() {
        for (count, joins) in [(1, false), (2, true)] {
            let listeners = listeners(([127, 0, 0, 1], 0).into(), count).unwrap();
            let bound = listeners[0].local_addr().unwrap();
            let other = socket(bound).unwrap();
            other.set_reuse_port(true).unwrap();
            assert_eq!(other.bind(&SockAddr::from(bound)).is_ok(), joins, "{count} listeners");
        }
    }

    #[test]
    fn one_socket_takes_both_families() {
        let listeners = listeners((Ipv6Addr::UNSPECIFIED, 0).into(), 1).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
    }

    #[test]
    fn accepted_sockets_inherit_their_options() {
        let listeners = listeners(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let _client = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        let (accepted, _) = listeners[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
        user_timeout(&accepted, Duration::from_secs(7)).unwrap();
        let limit = SockRef::from(&accepted).tcp_user_timeout().unwrap();
        assert_eq!(limit, Some(Duration::from_secs(7)));
    }
}
