//! Connections that are sent to the node's tunnel listener, and their records. The listener is on
//! loopback.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
};

use egress_agent::{
    bpf::{Record, Records},
    types::{GatewayPort, OriginalDst, Port},
};
use egress_ebpf::{
    abi::{Tunnel, action, hook, route_action},
    addr::{Addr, PortBe},
    reason::Reason,
};

use crate::{
    kernel::{DEFAULT_POLICY, Kernel, addr},
    sockets::{Cgroup, ECONNREFUSED},
};

/// The port at the gateway that the route means.
const ROUTED: u16 = 8443;

/// A cgroup whose port 443 leads through the tunnel, to a gateway that nobody dials.
struct Node {
    kernel: Kernel,
    cgroup: Cgroup,
    v4: TcpListener,
    v6: TcpListener,
    records: Records,
}

impl Node {
    fn new(name: &str) -> Self {
        let mut kernel = Kernel::usual();
        kernel.route(443, None, route_action::TUNNEL, ROUTED);
        kernel.group(&["192.0.2.10"]);
        let cgroup = Cgroup::new(name);
        kernel.workload(cgroup.id(), DEFAULT_POLICY);
        cgroup.attach(&mut kernel);
        let mut map = |name: &str| kernel.ebpf.take_map(name).unwrap();
        let records = Records::open(map("TUNNELED"), map("ORIGINAL_DST")).unwrap();
        let (v4, v6) = (listen("127.0.0.1:0"), listen("[::1]:0"));
        let mut node = Self { kernel, cgroup, v4, v6, records };
        node.listen(true, true);
        node
    }

    /// Tells the kernel of the listeners, or of one or none.
    fn listen(&mut self, v4: bool, v6: bool) {
        let end = |listener: &TcpListener, there: bool| {
            let at = listener.local_addr().unwrap();
            let addr = if there { at.ip().into() } else { Addr::UNSPECIFIED };
            (addr, PortBe::new(if there { at.port() } else { 0 }))
        };
        let ((v4, port_v4), (v6, port_v6)) = (end(&self.v4, v4), end(&self.v6, v6));
        self.kernel.tunnel(Tunnel { v4, v6, port_v4, port_v6 });
    }

    fn refused(&self, reason: Reason) -> u64 {
        self.kernel.count(hook::CONNECT, action::DENY, reason, false)
    }

    fn expected(&self, original: &str) -> Record {
        Record {
            original: OriginalDst(original.parse().unwrap()),
            group: 0,
            gateway_port: Port::new(ROUTED).map(GatewayPort),
            policy: DEFAULT_POLICY,
            cgroup: self.cgroup.id(),
            cookie: 0,
        }
    }

    /// The record, but for the socket's cookie.
    fn take(&self, from: SocketAddr) -> Option<Record> {
        let found = self.records.take(from)?;
        assert_ne!(found.cookie, 0, "{found:?}");
        Some(Record { cookie: 0, ..found })
    }
}

fn listen(at: &str) -> TcpListener {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Whom the listener has at the door: a connect that has succeeded waits there.
fn accept(listener: &TcpListener) -> Option<SocketAddr> {
    match listener.accept() {
        Ok((_stream, from)) => Some(from),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_tunnelled_connect_reaches_the_listener_with_its_record() {
    let mut node = Node::new("tunnel");
    for (to, original, v6) in [
        ("198.51.100.7:443", "198.51.100.7:443", false),
        ("[::ffff:198.51.100.8]:443", "198.51.100.8:443", false),
        ("[2001:db8::7]:443", "[2001:db8::7]:443", true),
    ] {
        let peer = node.cgroup.call("connect", to).unwrap();
        assert_eq!(peer, to.parse().unwrap(), "getpeername shows what was asked for");
        let (listener, other) = if v6 { (&node.v6, &node.v4) } else { (&node.v4, &node.v6) };
        let from = accept(listener).unwrap_or_else(|| panic!("nobody came for {to}"));
        assert_eq!(accept(other), None);
        let found = node.records.take(from).unwrap();
        assert_eq!(Record { cookie: 0, ..found }, node.expected(original), "{to}");
        assert_eq!(node.take(from), None, "a record is taken once");
        // The process is the one that the event names, and no other socket's.
        let process = node.records.process(found.cookie, found.original).unwrap();
        assert_eq!(node.records.process(found.cookie + 1, found.original), None);
        let events = node.kernel.events();
        let [event] = events[..] else { panic!("one event for {to}, not {events:?}") };
        assert_eq!(
            event.destination,
            addr(&original.parse::<SocketAddr>().unwrap().ip().to_string())
        );
        assert_eq!((event.hook, event.action), (hook::CONNECT, action::REDIRECT));
        assert_eq!(Reason::from_code(event.reason), Some(Reason::Tunneled));
        assert_eq!(event.source_port.get(), from.port());
        assert_eq!((event.pid, event.cgroup), (process.pid, process.cgroup));
        assert!(process.pid != 0 && process.command.is_some(), "{process:?}");
        assert_eq!((event.gateway, event.gateway_port.get()), (Addr::UNSPECIFIED, 0));
    }
    assert_eq!(node.kernel.count(hook::CONNECT, action::REDIRECT, Reason::Tunneled, false), 3);
}

#[test]
fn a_listener_of_one_family_serves_the_sockets_that_reach_it() {
    let mut node = Node::new("families");
    node.listen(true, false);
    node.cgroup.call("connect", "[2001:db8::7]:443").unwrap();
    let from = accept(&node.v4).unwrap();
    assert_eq!(node.take(from), Some(node.expected("[2001:db8::7]:443")));
    node.listen(false, true);
    node.cgroup.call("connect", "[::ffff:198.51.100.8]:443").unwrap();
    let from = accept(&node.v6).unwrap();
    assert_eq!(node.take(from), Some(node.expected("198.51.100.8:443")));
    assert_eq!(node.cgroup.call("connect", "198.51.100.7:443"), Err(ECONNREFUSED));
    assert_eq!(node.refused(Reason::NoTunnel), 1);
    assert_eq!((accept(&node.v4), accept(&node.v6)), (None, None));
}

#[test]
fn without_a_listener_or_a_healthy_gateway_a_connect_is_refused_at_once() {
    let mut node = Node::new("nowhere");
    node.listen(false, false);
    for to in ["198.51.100.7:443", "[::ffff:198.51.100.8]:443", "[2001:db8::7]:443"] {
        assert_eq!(node.cgroup.call("connect", to), Err(ECONNREFUSED), "{to}");
    }
    assert_eq!(node.refused(Reason::NoTunnel), 3);
    node.listen(true, true);
    node.kernel.group(&[]);
    assert_eq!(node.cgroup.call("connect", "198.51.100.7:443"), Err(ECONNREFUSED));
    assert_eq!(node.refused(Reason::NoHealthyGateway), 1);
    assert_eq!((accept(&node.v4), accept(&node.v6)), (None, None));
    // The gateway's addresses needn't be of the socket's family: it isn't the socket that goes there.
    node.kernel.group(&["fd00::10"]);
    node.cgroup.call("connect", "198.51.100.7:443").unwrap();
    assert!(accept(&node.v4).is_some());
}

#[test]
fn who_dials_the_listener_directly_has_no_record() {
    let mut node = Node::new("direct");
    for listener in [&node.v4, &node.v6] {
        let at = listener.local_addr().unwrap();
        assert_eq!(node.cgroup.call("connect", &at.to_string()), Ok(at));
        let from = accept(listener).unwrap();
        assert_eq!(node.take(from), None);
    }
    // The twin: the same port, through the tunnel.
    let source = free_port();
    node.cgroup.call_with("connect-from", "198.51.100.7:443", &[source]).unwrap();
    let from = accept(&node.v4).unwrap();
    assert_eq!(from.port(), source);
    assert!(node.take(from).is_some());
}

/// In a network of his own anybody can have any address, and a listener at the node's. A record that
/// is made there must not become another's destination.
#[test]
fn what_another_network_claims_is_nobodys() {
    let mut node = Node::new("claim");
    let port = node.v4.local_addr().unwrap().port();
    for first in [true, false] {
        let source = free_port();
        let claim = |node: &mut Node| {
            let peer = node.cgroup.call_with("claim", "203.0.113.66:443", &[source, port]);
            assert_eq!(peer, Ok("203.0.113.66:443".parse().unwrap()));
        };
        if first {
            claim(&mut node);
        }
        node.cgroup.call_with("connect-from", "198.51.100.7:443", &[source]).unwrap();
        if !first {
            claim(&mut node);
        }
        let from = accept(&node.v4).unwrap();
        assert_eq!((from.port(), accept(&node.v4)), (source, None));
        assert_eq!(node.take(from), None, "claimed first: {first}");
    }
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
