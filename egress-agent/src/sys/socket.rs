//! Listening sockets, and options of connected ones.

use std::{
    io,
    mem::offset_of,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::raw::set_option;

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

/// Queues of connections that wait to be accepted, for each worker at an address. Each takes two descriptors.
pub const QUEUES: u32 = 16;

/// As [`listeners`], but [`QUEUES`] for each worker, and every source waits in one of a worker's: whoever opens
/// connections faster than they are accepted fills its own, and those who share that queue are all whose
/// connections the kernel then turns away. The first `workers` listeners are the first queue's, one of each
/// worker, and so on.
///
/// # Errors
/// As of [`listeners`], and the kernel has no room for the program.
pub fn queues(addr: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let count = u32::try_from(workers.max(1)).map_err(io::Error::other)?;
    let queues = usize::try_from(QUEUES).map_err(io::Error::other)?;
    let listeners = listeners(addr, workers.max(1).saturating_mul(queues))?;
    if let Some(first) = listeners.first() {
        choose(first, &by_source(count))?;
    }
    Ok(listeners)
}

/// Has a program choose who of the group of listeners gets a connection (Linux 4.6).
fn choose(listener: &TcpListener, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    // A `sock_fprog`, whose padding is zeros here.
    let mut value = length.to_ne_bytes().to_vec();
    value.resize(offset_of!(libc::sock_fprog, filter), 0);
    value.extend(program.as_ptr().expose_provenance().to_ne_bytes());
    // The kernel copies the program, which lives as long as this call.
    set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &value)
}

/// Which listener a connection gets: the queue by its source address, the worker by its source port, so that one
/// source's connections are spread over all workers. Classic BPF (Documentation/networking/filter.rst); what it
/// answers is the listener's number.
fn by_source(workers: u32) -> [libc::sock_filter; 26] {
    /// Where the IP header is (`SKF_NET_OFF`, include/uapi/linux/filter.h).
    const NET: u32 = 0xfff0_0000;
    /// Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4); the upper bits count.
    const GOLDEN: u32 = 0x9e37_79b9;
    const LOAD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_MEMORY: u16 = 0x60;
    const STORE: u16 = 0x02;
    const SHIFT_RIGHT: u16 = 0x74;
    const MULTIPLY: u16 = 0x24;
    const MODULO: u16 = 0x94;
    const XOR_X: u16 = 0xac;
    const ADD_X: u16 = 0x0c;
    const TO_X: u16 = 0x07;
    const JUMP: u16 = 0x05;
    const JUMP_EQUAL: u16 = 0x15;
    const ANSWER: u16 = 0x16;
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    [
        step(LOAD_BYTE, NET),
        step(SHIFT_RIGHT, 4),
        libc::sock_filter { code: JUMP_EQUAL, jt: 4, jf: 0, k: 6 },
        // IPv4: port, address.
        step(LOAD_HALF, NET + 20),
        step(STORE, 0),
        step(LOAD, NET + 12),
        step(JUMP, 9),
        // IPv6.
        step(LOAD_HALF, NET + 40),
        step(STORE, 0),
        step(LOAD, NET + 8),
        step(TO_X, 0),
        step(LOAD, NET + 16),
        step(XOR_X, 0),
        step(TO_X, 0),
        step(LOAD, NET + 20),
        step(XOR_X, 0),
        // The address's queue.
        step(MULTIPLY, GOLDEN),
        step(SHIFT_RIGHT, u32::BITS - QUEUES.ilog2()),
        step(MULTIPLY, workers),
        step(TO_X, 0),
        // The port's worker. Clients' ports are all odd, or all even.
        step(LOAD_MEMORY, 0),
        step(MULTIPLY, GOLDEN),
        step(SHIFT_RIGHT, 16),
        step(MODULO, workers),
        step(ADD_X, 0),
        step(ANSWER, 0),
    ]
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

/// Has the kernel choose the port of a socket that is bound to an address and port 0 when it connects, not when it is
/// bound (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2). Then connections to different destinations may have the same port.
///
/// # Errors
/// What the kernel said.
pub fn bind_without_port(socket: &impl AsFd) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
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

    /// Where connections from an address and some ports wait: queue and worker of each.
    fn waiting(listeners: &[TcpListener], from: &str, workers: usize) -> Vec<(usize, usize)> {
        const CONNECTIONS: usize = 32;
        let to = listeners[0].local_addr().unwrap();
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                client.bind(&SockAddr::from(from)).unwrap();
                client.connect(&SockAddr::from(to)).unwrap();
                client
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < clients.len() {
            for (number, listener) in listeners.iter().enumerate() {
                while listener.accept().is_ok() {
                    seen.push((number / workers, number % workers));
                }
            }
        }
        seen
    }

    #[test]
    fn a_source_waits_in_one_queue_of_each_worker() {
        const WORKERS: usize = 2;
        for (at, sources) in [
            ("127.0.0.1", (1..=64).map(|last| format!("127.0.1.{last}")).collect::<Vec<_>>()),
            ("::1", vec!["::1".to_owned()]),
        ] {
            let listeners = queues(SocketAddr::new(at.parse().unwrap(), 0), WORKERS).unwrap();
            assert_eq!(listeners.len(), WORKERS * QUEUES as usize);
            let mut queues = std::collections::HashSet::new();
            for source in &sources {
                let seen = waiting(&listeners, source, WORKERS);
                let (queue, _) = seen[0];
                assert!(seen.iter().all(|(other, _)| *other == queue), "{source}: {seen:?}");
                for worker in 0..WORKERS {
                    assert!(seen.iter().any(|(_, other)| *other == worker), "{source}: {seen:?}");
                }
                queues.insert(queue);
            }
            assert!(sources.len() == 1 || queues.len() > 8, "{queues:?}");
        }
    }

    #[test]
    fn a_source_that_fills_its_queue_turns_away_none_of_another_queue() {
        let listeners = queues(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let to = listeners[0].local_addr().unwrap();
        for listener in &listeners {
            // The kernel queues one connection more than the backlog says.
            SockRef::from(listener).listen(1).unwrap();
        }
        let queue_of = |source: &str| waiting_once(&listeners, to, source);
        let first = queue_of("127.0.1.1");
        let other = (2..255)
            .map(|last| format!("127.0.1.{last}"))
            .find(|source| queue_of(source) != first)
            .unwrap();
        let connect = |source: &str| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            client.bind(&SockAddr::from(SocketAddr::new(source.parse().unwrap(), 0))).unwrap();
            let _under_way = client.connect(&SockAddr::from(to));
            client
        };
        let flood: Vec<_> = (0..16).map(|_| connect("127.0.1.1")).collect();
        // What waits is more than the queue holds, and others are served.
        for _ in 0..16 {
            assert_ne!(queue_of(&other), first);
        }
        drop(flood);
    }

    /// The queue in which one connection from there waits.
    fn waiting_once(listeners: &[TcpListener], to: SocketAddr, from: &str) -> usize {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SockAddr::from(SocketAddr::new(from.parse().unwrap(), 0))).unwrap();
        client.connect(&SockAddr::from(to)).unwrap();
        let own = client.local_addr().unwrap().as_socket();
        loop {
            for (number, listener) in listeners.iter().enumerate() {
                if let Ok((_, peer)) = listener.accept()
                    && Some(peer) == own
                {
                    return number;
                }
            }
        }
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
