//! What the node's own system would answer to the outside for somebody who asks it in an outside
//! address's name: a workload on the host's network, or a pod at whose interface there is no program.
//! Each gets out where nothing enforces. What the outside asks is answered as ever.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    cluster::{Cluster, ask},
    denied::{Attempt, Wall, all_get_out, attempt},
    plan,
    process::Place,
    testbed::Testbed,
    wait::{SOON, START, until_is},
};

/// A frame with a source of the sender's choice: INTERFACE ROUTER KIND SOURCE ADDRESS PORT.
const FORGER: &str = r#"
import fcntl, socket, struct, sys
interface, router, kind, source, address = sys.argv[1:6]
port = int(sys.argv[6])
v6 = ":" in source
pack = lambda text: socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, text)
data = b"the pod's secret"
protocol, at, body = {
    "echo": (58 if v6 else 1, 2, struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0x77, 1) + data),
    "udp": (17, 6, struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data),
    "syn": (6, 16, struct.pack("!HHIIBBHHH", 40000, port, 0x73656372, 0, 0x50, 2, 65535, 0, 0)),
    "ack": (6, 16, struct.pack("!HHIIBBHHH", 40000, port, 1, 0x73656372, 0x50, 16, 65535, 0, 0)),
    "answer": (6, 16, struct.pack("!HHIIBBHHH", port, 40000, 1, 0x73656373, 0x50, 18, 65535, 0, 0) + data),
}[kind]
def check(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)
pseudo = b"" if protocol == 1 else pack(source) + pack(address) + struct.pack("!II", len(body), protocol)
body = body[:at] + check(pseudo + body) + body[at + 2:]
if v6:
    packet = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + pack(source) + pack(address) + body
else:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    head += pack(source) + pack(address)
    packet = head[:10] + check(head) + head[12:] + body
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((interface, 0))
own = fcntl.ioctl(s, 0x8927, struct.pack("256s", interface.encode()))[18:24]
s.send(bytes.fromhex(router.replace(":", "")) + own + (b"\x86\xdd" if v6 else b"\x08\x00") + packet)
sys.exit(2)
"#;

/// An ICMP error: TO SOURCE DESTINATION MTU.
const ERROR: &str = include_str!("../src/icmp.py");

/// An IPv6 socket with another's address, as any user may have it: KIND SOURCE ADDRESS.
const FREE_BINDER: &str = r#"
import socket, sys
kind, source, address = sys.argv[1:4]
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
s.settimeout(0.5)
s.bind(socket.getaddrinfo(source, 0)[0][4])
try:
    if kind == "udp":
        s.sendto(b"the pod's secret", (address, 9))
    else:
        s.connect((address, 9))
except OSError as error:
    print(error)
    sys.exit(1)
sys.exit(2)
"#;

/// Asks a closed port: `told` where somebody says so.
const CLOSED: &str = r#"
import socket, sys
kind, source, address = sys.argv[1:4]
s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET,
                  socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
s.settimeout(10)
s.bind((source, 0))
try:
    s.connect((address, 9))
    s.send(b"x")
    s.recv(1)
except ConnectionRefusedError:
    print("told")
"#;

/// An echo by a socket that isn't connected, as resolvers use them.
const UNCONNECTED: &str = r#"
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(b"x", (address, port))
print(s.recvfrom(100)[0].decode())
"#;

const PYTHON: &str = "/usr/bin/python3";
/// Where the node's end of the late pod's interface is.
const ROUTER: [&str; 2] = ["10.244.9.1", "fd00:10:244:9::1"];
const ROUTER_MAC: &str = "02:00:0a:63:00:01";
/// A client outside, and the node, on each family.
const FAMILIES: [(&str, &str); 2] =
    [(plan::ATTACKER, plan::APP), (plan::ATTACKER_V6, plan::APP_V6)];

/// A pod that no agent knows of: nothing is attached to its interface.
fn late_pod(testbed: &Testbed) -> Place {
    let app = testbed.app();
    let late = testbed.inner(app, "late", "10.244.9").unwrap();
    app.ns.ip(&["addr", "add", &format!("{}/64", ROUTER[1]), "dev", "late", "nodad"]).unwrap();
    check_sources(testbed, Sources::Any);
    late
}

/// Which sources the node's kernel takes on an interface (`rp_filter`).
#[derive(Clone, Copy, Debug)]
enum Sources {
    /// Any.
    Any,
    /// Those that there is a route to, by whatever interface: any, where there is a default route.
    Routed,
}

fn check_sources(testbed: &Testbed, sources: Sources) {
    let filter = match sources {
        Sources::Any => 0,
        Sources::Routed => 2,
    };
    for interface in ["all", "late"] {
        let setting = format!("net.ipv4.conf.{interface}.rp_filter={filter}");
        assert!(testbed.app().run("sysctl", &["-qw", &setting]).unwrap().ok());
    }
}

/// A port of the node at which nobody listens.
const NOBODY: &str = "9";

/// What the late pod asks the node in the attacker's name: kinds and ports.
struct Questions<'a> {
    late: &'a Place,
    router: &'a str,
    asked: &'a [(&'a str, &'a str)],
    to: [[&'a str; 2]; 2],
}

impl<'a> Questions<'a> {
    fn attempts(&self, hooks: &'a [&'a str], reasons: &'a [&'a str]) -> Vec<Attempt<'a>> {
        let mut attempts = Vec::new();
        let (late, router) = (self.late, self.router);
        for (source, to) in [plan::ATTACKER, plan::ATTACKER_V6].into_iter().zip(self.to) {
            for (to, (kind, port)) in
                to.iter().flat_map(|to| self.asked.iter().map(move |it| (*to, *it)))
            {
                let what = format!("{kind} from {source} to {to} {port}");
                attempts.push(attempt(what, hooks, reasons, move || {
                    late.run(PYTHON, &["-c", FORGER, "eth0", router, kind, source, to, port])
                }));
            }
        }
        attempts
    }
}

/// What a socket with the attacker's address asks the node itself. Linux routes no IPv4 packet of a
/// socket with an address that isn't the host's, so for IPv4 it takes a raw one.
fn from_sockets<'a>(
    testbed: &'a Testbed,
    from: &'a Place,
    hooks: &'a [&'a str],
    reasons: &'a [&'a str],
) -> Vec<Attempt<'a>> {
    let mut attempts = Vec::new();
    for to in ["::1", plan::APP_V6] {
        for kind in ["udp", "tcp"] {
            attempts.push(attempt(format!("{kind} to {to}"), hooks, reasons, move || {
                from.run(PYTHON, &["-c", FREE_BINDER, kind, plan::ATTACKER_V6, to])
            }));
        }
    }
    for to in ["127.0.0.1", plan::APP] {
        attempts.push(attempt(format!("an echo request to {to}"), hooks, reasons, move || {
            testbed.frame(from, &["raw", "-", "echo", plan::ATTACKER, to])
        }));
    }
    attempts
}

/// A question for a neighbour's hardware address, which is answered at the one that the question gives: the
/// router's.
fn asks_for<'a>(testbed: &'a Testbed, from: &'a Place, wanted: &'a str) -> Attempt<'a> {
    let what = format!("a question for the hardware address of {wanted}");
    attempt(what, &["skb"], &["spoofed_source"], move || {
        let raw = format!("raw:{}", plan::UPLINK);
        testbed.frame(from, &[&raw, plan::OUTSIDE_MAC, "ask", plan::ATTACKER_V6, wanted])
    })
}

#[test]
fn the_nodes_system_answers_nobody_outside_who_did_not_ask() {
    let testbed = Testbed::test(0).unwrap();
    let late = late_pod(&testbed);
    // As kube-proxy sets it.
    for interface in ["all", "lo", plan::UPLINK] {
        let setting = format!("net.ipv4.conf.{interface}.route_localnet=1");
        assert!(testbed.app().run("sysctl", &["-qw", &setting]).unwrap().ok());
    }
    let on_host = testbed.host_network();
    let uplink: &[&str] = &["uplink"];
    let asked = ["echo", "udp", "syn", "ack"].map(|kind| (kind, NOBODY));
    let to = [[ROUTER[0], plan::APP], [ROUTER[1], plan::APP_V6]];
    let questions = Questions { late: &late, router: ROUTER_MAC, asked: &asked, to };
    let questions = questions.attempts(uplink, &["unsolicited_answer"]);
    let mut of_workload = from_sockets(&testbed, &on_host, &["skb"], &["spoofed_source"]);
    of_workload.push(asks_for(&testbed, &on_host, plan::APP_V6));
    // In no workload's cgroup: what asks isn't judged, what would be answered is.
    let reasons = &["unsolicited_answer", "spoofed_source"];
    let of_node = from_sockets(&testbed, testbed.app(), uplink, reasons);
    let capture = testbed.capture().unwrap();
    for attempts in [&questions, &of_workload, &of_node] {
        all_get_out(&capture, attempts).unwrap();
    }
    check_sources(&testbed, Sources::Routed);
    all_get_out(&capture, &questions).unwrap();
    testbed.app().ns.forget_neighbour(plan::ATTACKER_V6).unwrap();
    let mut node = testbed.start_node().unwrap();
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    for attempts in [&questions, &of_workload, &of_node] {
        wall.stops_all(attempts).unwrap();
    }
    check_sources(&testbed, Sources::Any);
    wall.stops_all(&questions).unwrap();
    // It needs no agent, however that ended.
    let try_all = |ended: &str| {
        for sources in [Sources::Any, Sources::Routed] {
            check_sources(&testbed, sources);
            for attempt in questions.iter().chain(&of_workload).chain(&of_node) {
                (attempt.run)().unwrap();
            }
            assert_eq!(capture.frames(), Vec::<String>::new(), "{ended}, {sources:?}");
        }
    };
    node.kill();
    try_all("killed");
    let mut node = testbed.start_node().unwrap();
    assert!(node.end().unwrap().success());
    try_all("asked to end");
}

/// Nor do other hosts in the cluster answer for it: what it sends them in the name of the outside does not leave the
/// node.
#[test]
fn a_pod_that_nobody_knows_asks_no_host_inside_in_the_name_of_the_outside() {
    const OWN_V6: &str = "fd00:10:244:9::2";
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let late = late_pod(&testbed);
    late.ns.ip(&["addr", "add", &format!("{OWN_V6}/64"), "dev", "eth0", "nodad"]).unwrap();
    late.ns.ip(&["-6", "route", "add", "default", "via", ROUTER[1]]).unwrap();
    let back = ["-6", "route", "add", "fd00:10:244:9::/64", "via", plan::APP_V6];
    cluster.remote.ns.ip(&back).unwrap();
    let (uplink, echo): (&[&str], _) = (&["uplink"], plan::PEER_ECHO.to_string());
    let asked = [
        ("echo", NOBODY),
        ("udp", echo.as_str()),
        ("udp", NOBODY),
        ("syn", echo.as_str()),
        ("ack", NOBODY),
    ];
    let to = [[plan::REMOTE, plan::REMOTE_POD], [plan::REMOTE_V6, plan::REMOTE_POD_V6]];
    let questions = Questions { late: &late, router: ROUTER_MAC, asked: &asked, to };
    let questions = questions.attempts(uplink, &["spoofed_source"]);
    // Its own address is in the cluster.
    let asks_inside = || {
        for to in [plan::REMOTE, plan::REMOTE_V6] {
            assert!(late.run("ping", &["-c1", "-W5", to]).unwrap().ok(), "{to}");
            for protocol in ["udp", "tcp"] {
                assert!(ask(&late, protocol, to, plan::PEER_ECHO, &[]).unwrap().ok(), "{to}");
            }
        }
    };
    // An error about a packet that its receiver never sent there.
    let late = &late;
    let forged = [(plan::REMOTE, plan::POD), (plan::REMOTE_V6, plan::POD_V6)].map(|(to, other)| {
        attempt(format!("an ICMP error to {to}"), uplink, &["forged_error"], move || {
            late.run(PYTHON, &["-c", ERROR, to, to, other, "1300"])
        })
    });
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &questions).unwrap();
    asks_inside();
    let mut node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_all(&questions).unwrap();
    wall.stops_all(&forged).unwrap();
    asks_inside();
    let counted = wall.denied(uplink, &["spoofed_source"]);
    // It needs no agent.
    node.kill();
    node.wait(SOON).unwrap();
    for attempt in &questions {
        (attempt.run)().unwrap();
    }
    asks_inside();
    assert_eq!(capture.frames(), Vec::<String>::new(), "after the agent was killed");
    let node = testbed.start_agent(testbed.app(), "again", &cluster.node_args(&testbed)).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let expected = counted + u64::try_from(questions.len()).unwrap();
    let count = || wall.denied(uplink, &["spoofed_source"]);
    until_is(START, "what the kernel counted", count, |now| *now >= expected).unwrap();
}

/// The same over a bridge that other pods' interfaces are ports of. A program there stops it before
/// anybody can answer, a server of the node's own included.
#[test]
fn a_pod_that_appears_on_a_bridge_asks_nobody_in_anothers_name() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let late = late_pod(&testbed);
    let app = testbed.app();
    app.ns.ip(&["link", "set", "late", "master", "cni0"]).unwrap();
    let echo = plan::PEER_ECHO.to_string();
    let asked = [("udp", echo.as_str()), ("echo", NOBODY), ("udp", NOBODY), ("syn", echo.as_str())];
    let to = [[plan::POD_ROUTER, plan::APP], [plan::POD_ROUTER_V6, plan::APP_V6]];
    let questions = Questions { late: &late, router: plan::POD_ROUTER_MAC, asked: &asked, to };
    let questions = questions.attempts(&["pod"], &["spoofed_source"]);
    let capture = testbed.capture().unwrap();
    // The server listens at the node's address alone: at the bridge's the port is closed, which is
    // an answer too.
    all_get_out(&capture, &questions).unwrap();
    let mut node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&questions).unwrap();
    for (from, to) in [(testbed.pod(), plan::APP), (testbed.pod(), plan::REMOTE_POD_V6)] {
        assert!(ask(from, "udp", to, plan::PEER_ECHO, &[]).unwrap().ok(), "{to}");
    }
    node.kill();
    for attempt in &questions {
        (attempt.run)().unwrap();
    }
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// The same where pods are on no bridge: their interfaces are the node's own way to them. What looks for a
/// server's socket says no.
#[test]
fn a_server_of_the_node_answers_nobody_outside_who_did_not_ask() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let late = late_pod(&testbed);
    let echo = plan::PEER_ECHO.to_string();
    let asked = [("udp", echo.as_str()), ("syn", echo.as_str())];
    let to = [[plan::APP, plan::APP], [plan::APP_V6, plan::APP_V6]];
    let questions = Questions { late: &late, router: ROUTER_MAC, asked: &asked, to };
    let questions = questions.attempts(&["pod"], &["spoofed_source"]);
    let capture = testbed.capture().unwrap();
    for sources in [Sources::Any, Sources::Routed] {
        check_sources(&testbed, sources);
        all_get_out(&capture, &questions).unwrap();
    }
    let mut node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    for sources in [Sources::Any, Sources::Routed] {
        check_sources(&testbed, sources);
        Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&questions).unwrap();
    }
    // Who asks in his own name is answered, and so is the outside.
    let own_name = || {
        for (from, to) in [(&late, plan::APP), (testbed.pod(), plan::APP)] {
            for kind in ["udp", "tcp"] {
                assert!(ask(from, kind, to, plan::PEER_ECHO, &[]).unwrap().ok(), "{kind} {to}");
            }
        }
        for to in [plan::APP, plan::APP_V6] {
            let port = plan::PEER_ECHO.to_string();
            let args = ["-c", UNCONNECTED, to, &port];
            assert!(testbed.outside().run(PYTHON, &args).unwrap().ok(), "{to}");
        }
    };
    own_name();
    node.kill();
    capture.take();
    for attempt in &questions {
        (attempt.run)().unwrap();
    }
    assert_eq!(capture.frames(), Vec::<String>::new());
    own_name();
}

/// An interface of a pod's own on the uplink: its hardware address, and its addresses.
struct OnUplink {
    hardware: &'static str,
    addresses: [&'static str; 2],
}

const FIRST: OnUplink =
    OnUplink { hardware: "02:00:0a:0a:00:50", addresses: ["10.10.0.50", "fd00:10:10::50"] };
const SECOND: OnUplink =
    OnUplink { hardware: "02:00:0a:0a:00:51", addresses: ["10.10.0.51", "fd00:10:10::51"] };

impl OnUplink {
    fn give(&self, testbed: &Testbed, pod: &Place) {
        let app = &testbed.app().ns;
        let link = ["link", "add", "mv0", "link", plan::UPLINK, "address", self.hardware];
        app.ip(&[&link[..], &["type", "macvlan", "mode", "bridge"]].concat()).unwrap();
        app.ip(&["link", "set", "mv0", "netns", pod.ns.name(), "name", "net1"]).unwrap();
        let [v4, v6] = self.addresses;
        pod.ns.ip(&["addr", "add", &format!("{v4}/24"), "dev", "net1"]).unwrap();
        pod.ns.ip(&["addr", "add", &format!("{v6}/64"), "dev", "net1", "nodad"]).unwrap();
        pod.ns.ip(&["link", "set", "net1", "up"]).unwrap();
    }
}

/// Two macvlan interfaces on an uplink send each other frames by the uplink: what one asks the other in an
/// external address's name came by no wire, and is nothing to answer.
#[test]
fn what_interfaces_on_the_uplink_ask_each_other_lets_no_answer_out() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    FIRST.give(&testbed, testbed.pod());
    SECOND.give(&testbed, &cluster.neighbour);
    let elsewhere = testbed.outside_cgroup();
    let forge = |router: &str, kind: &str, source: &str, to: &str| {
        elsewhere.run(PYTHON, &["-c", FORGER, "net1", router, kind, source, to, "40001"])
    };
    let outside = [plan::ATTACKER, plan::ATTACKER_V6];
    let attempts: Vec<_> = outside
        .into_iter()
        .zip(FIRST.addresses)
        .map(|(client, own)| {
            attempt(format!("an answer to {client}"), &["uplink"], &["no_route"], move || {
                let asked = forge(SECOND.hardware, "syn", client, own)?;
                anyhow::ensure!(asked.code == 2, "{asked:?}");
                forge(plan::OUTSIDE_MAC, "answer", own, client)
            })
        })
        .collect();
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();
    // They talk to each other and to the inside as ever.
    let from = ["--from", FIRST.addresses[0]];
    assert!(ask(&elsewhere, "tcp", plan::REMOTE, plan::PEER_ECHO, &from).unwrap().ok());
    let ping = ["-c1", "-W5", "-I", "net1", SECOND.addresses[0]];
    assert!(elsewhere.run("ping", &ping).unwrap().ok());
}

/// A host inside that is asked by the link-local address of the outside's router answers the router. A socket
/// takes that address without a privilege.
#[test]
fn nobody_asks_the_inside_by_a_routers_link_local_address() {
    // What derives from its hardware address.
    const ROUTER_LINK: &str = "fe80::aff:fe0a:fe";
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    FIRST.give(&testbed, testbed.pod());
    let (on_host, elsewhere) = (testbed.host_network(), testbed.outside_cgroup());
    let source = format!("{ROUTER_LINK}%{}", plan::UPLINK);
    let reasons: &[&str] = &["spoofed_source"];
    let by_socket = ["udp", "tcp"].map(|kind| {
        let (on_host, source) = (&on_host, &source);
        attempt(format!("{kind} of a socket"), &["skb"], reasons, move || {
            on_host.run(PYTHON, &["-c", FREE_BINDER, kind, source, plan::REMOTE_V6])
        })
    });
    let by_frame = ["echo", "udp", "syn"].map(|kind| {
        let elsewhere = &elsewhere;
        attempt(format!("{kind} by macvlan"), &["uplink"], reasons, move || {
            let args = ["net1", plan::REMOTE_MAC, kind, ROUTER_LINK, plan::REMOTE_V6, NOBODY];
            elsewhere.run(PYTHON, &[&["-c", FORGER], &args[..]].concat())
        })
    });
    let attempts: Vec<_> = by_socket.into_iter().chain(by_frame).collect();
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();
    // By an address of its own the workload asks, and finds its neighbours.
    testbed.app().ns.forget_neighbour(plan::REMOTE_V6).unwrap();
    assert!(ask(&on_host, "udp", plan::REMOTE_V6, plan::PEER_ECHO, &[]).unwrap().ok());
}

#[test]
fn the_node_itself_asks_and_is_asked_as_ever() {
    let testbed = Testbed::test(0).unwrap();
    let node = testbed.start_node().unwrap();
    let (app, outside) = (testbed.app(), testbed.outside());
    for (client, server) in FAMILIES {
        // It asks.
        let port = plan::UDP_PORT.to_string();
        assert!(app.run("ping", &["-c1", "-W5", client]).unwrap().ok(), "{client}");
        assert!(ask(app, "tcp", client, 22, &[]).unwrap().ok(), "{client}");
        assert!(ask(app, "udp", client, plan::UDP_PORT, &[]).unwrap().ok(), "{client}");
        let resolver = app.run(PYTHON, &["-c", UNCONNECTED, client, &port]).unwrap();
        assert_eq!(resolver.stdout.trim(), "x", "{resolver:?}");
        // It is asked.
        let ping = ["-c1", "-W5", "-I", client, server];
        assert!(outside.run("ping", &ping).unwrap().ok(), "{server}");
        for kind in ["tcp", "udp"] {
            let told = outside.run(PYTHON, &["-c", CLOSED, kind, client, server]).unwrap();
            assert_eq!(told.stdout.trim(), "told", "{kind} to {server}: {told:?}");
        }
    }
    // Somebody traces the way to a pod.
    for (client, pod) in [(plan::ATTACKER, plan::POD), (plan::ATTACKER_V6, plan::POD_V6)] {
        let trace = ["-c1", "-W5", "-t1", "-I", client, pod];
        let hop = outside.run("ping", &trace).unwrap();
        assert!(hop.stdout.contains("exceeded"), "{hop:?}");
    }
    let metrics = testbed.node_metrics().unwrap();
    let refused = metrics.lines().find(|line| line.contains("unsolicited_answer"));
    let counted = refused.is_some_and(|line| !line.ends_with(" 0"));
    assert!(!counted, "{refused:?}: {}", node.stdout());
}
