//! Sockets that no packet hook sees: who may make them.
#![expect(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use std::io::{self, Write as _};

use egress_tests::{
    container::container,
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// Makes a socket, and says `made` or the error's name.
const MAKE: &str = "import errno, socket, sys\n\
    family, kind, protocol = map(int, sys.argv[1:])\n\
    try:\n    socket.socket(family, kind, protocol)\n    print('made')\n\
    except OSError as error:\n    print(errno.errorcode[error.errno])\n";

const INET: i32 = 2;
const KEY: i32 = 15;
const PACKET: i32 = 17;
const RDS: i32 = 21;
const VSOCK: i32 = 40;
const XDP: i32 = 44;
const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const RAW: i32 = 3;

fn make(place: &Place, family: i32, kind: i32, protocol: i32) -> String {
    let [family, kind, protocol] = [family, kind, protocol].map(|number| number.to_string());
    let args = ["-c", MAKE, &family, &kind, &protocol];
    let done = place.run("/usr/bin/python3", &args).unwrap();
    assert!(done.ok(), "{done:?}");
    done.stdout.trim().to_owned()
}

fn refused(testbed: &Testbed) -> u64 {
    counted(testbed, "\"socket_family\"")
}

fn counted(testbed: &Testbed, reason: &str) -> u64 {
    let metrics = testbed.node_metrics().unwrap_or_default();
    let lines = metrics.lines().filter(|line| line.contains(reason));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Whether this kernel has no active BPF LSM: then the gap must be told, and there is nothing else
/// to test.
fn open_here(testbed: &Testbed, agent: &Process) -> bool {
    if !agent.stderr().contains("NOT refused") {
        return false;
    }
    let socket = testbed.node_control().to_string_lossy().into_owned();
    let args = ["-s", "--max-time", "10", "--unix-socket", &socket, "http://localhost/status"];
    let status = testbed.app().run("curl", &args).unwrap();
    assert!(status.stdout.contains("NOT refused"), "{status:?}");
    let told = agent.stderr();
    let told = told.lines().find(|line| line.contains("NOT refused")).unwrap_or_default();
    // Past the harness, which shows only the output of tests that fail. Nobody may be listening.
    writeln!(io::stderr(), "not applicable: {told}").ok();
    true
}

#[test]
fn packet_sockets_are_for_ones_own_network_and_others_for_nobody() {
    let testbed = Testbed::test(0).unwrap();
    let (pod, host, node) = (testbed.pod(), testbed.host_network(), testbed.app());
    let without = |place: &Place, family| make(place, family, RAW, 0);
    assert_eq!(without(&host, PACKET), "made", "without the agent");
    let mut agent = testbed.start_node().unwrap();
    if open_here(&testbed, &agent) {
        return;
    }

    let before = refused(&testbed);
    for (family, kind) in [(PACKET, RAW), (PACKET, DGRAM), (XDP, RAW), (KEY, RAW)] {
        assert_eq!(make(&host, family, kind, 0), "EPERM", "family {family} on the host's network");
        assert_ne!(make(node, family, kind, 2), "EPERM", "the node itself, family {family}");
    }
    until_is(SOON, "four refusals", || refused(&testbed) - before, |count| *count == 4).unwrap();
    until(SOON, "an event", || agent.stdout().contains("socket_family").then_some(())).unwrap();
    // In the pod's own network there is the enforcement point.
    assert_eq!(make(pod, PACKET, RAW, 0), "made");
    for place in [pod, &host] {
        assert_eq!(make(place, VSOCK, STREAM, 0), "EPERM");
        assert_eq!(make(place, RDS, 5, 0), "EPERM");
        // SMC, as a protocol of its own.
        assert_eq!(make(place, INET, STREAM, 256), "EPERM");
        assert_eq!(make(place, INET, STREAM, 6), "made");
        assert_eq!(make(place, INET, RAW, 17), "made");
    }

    // It outlives the agent, as everything does, and goes with the rest.
    agent.kill();
    agent.wait(SOON).unwrap();
    assert_eq!(without(&host, PACKET), "EPERM");
    let pins = testbed.pins().to_string_lossy().into_owned();
    let args = ["detach", "--bpffs", &pins];
    let detached = node.run(&testbed.agent().to_string_lossy(), &args).unwrap();
    assert!(detached.ok(), "{detached:?}");
    until_is(SOON, "the program to go", || without(&host, PACKET), |seen| seen == "made").unwrap();
}

/// Whatever audit mode is on for: it is made, and told.
#[test]
fn audit_mode_lets_them_be_made() {
    let testbed = Testbed::test(0).unwrap();
    let mesh = egress_tests::testbed::mesh_yaml(0);
    testbed.apply_mesh(&mesh.replace("enforcement: enforce", "enforcement: audit")).unwrap();
    let agent = testbed.start_node().unwrap();
    if open_here(&testbed, &agent) {
        return;
    }
    let host = testbed.host_network();
    until_is(SOON, "audit mode", || make(&host, PACKET, RAW, 0), |seen| seen == "made").unwrap();
    until(SOON, "an event", || agent.stdout().contains("socket_family").then_some(())).unwrap();
}

/// Asks rtnetlink for the interfaces of a namespace that it names by its id, with that in the first
/// message or behind another one; without an id for its own. Prints their names, or the error's.
const LINKS: &str = r#"
import errno, socket, struct, sys
def message(attributes, flags=0x301, index=0):
    body = struct.pack("BxHiII", 0, 0, index, 0, 0) + attributes
    return struct.pack("IHHII", 16 + len(body), 18, flags, 1, 0) + body
ids = [struct.pack("HHi", 8, 46, int(number)) for number in sys.argv[2:]]
sent = message(b"".join(ids))
if sys.argv[1] == "behind":
    sent = message(b"", 5, 1) + sent
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.settimeout(5)
try:
    s.send(sent)
except OSError as error:
    sys.exit(print(errno.errorcode[error.errno]))
names, left = [], 2 if sys.argv[1] == "behind" else 1
while left:
    data = s.recv(1 << 20)
    while data:
        length, kind = struct.unpack("IH", data[:6])
        if kind in (2, 3):
            left -= 1
        at = 32
        while kind == 16 and at + 4 <= length:
            size, attribute = struct.unpack("HH", data[at:at + 4])
            if attribute == 3:
                names.append(data[at + 4:at + size - 1].decode())
            at += (size + 3) & ~3
        data = data[(length + 3) & ~3:]
print(" ".join(names))
"#;

/// Has rtnetlink delete an interface, or make a macvlan interface on one, where a namespace's id says; without an id
/// in its own network. Prints `done`, or the error's name.
const CHANGE: &str = r#"
import errno, os, socket, struct, sys
def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
def text(value):
    return value.encode() + bytes(1)
def number(value):
    return struct.pack("i", int(value))
verb, name, ids = sys.argv[1], sys.argv[2], sys.argv[3:]
if verb == "delete":
    kind, flags = 17, 0x5
    attributes = attribute(3, text(name)) + b"".join(attribute(46, number(id)) for id in ids)
else:
    kind, flags, index = 16, 0x605, sys.argv[3]
    mode = attribute(2, attribute(1, number(4)))
    attributes = attribute(3, text(name)) + attribute(5, number(index)) + attribute(
        18, attribute(1, text("macvlan")) + mode)
    attributes += b"".join(attribute(37, number(id)) for id in ids[1:])
body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + attributes
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.settimeout(5)
try:
    s.send(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    code = -struct.unpack("i", s.recv(1 << 16)[16:20])[0]
except OSError as error:
    code = error.errno
print(errno.errorcode.get(code, code) if code else "done")
"#;

/// What becomes of a change that the pod asks for, with a container's capabilities and `CAP_NET_ADMIN`.
fn change(place: &Place, args: &str) -> String {
    let done = container(place, &format!("python3 -c '{CHANGE}' {args}")).unwrap();
    assert!(done.stderr.is_empty(), "{done:?}");
    done.stdout.trim().to_owned()
}

/// The index of an interface, if there is one of that name.
fn index(place: &Place, name: &str) -> Option<u32> {
    let shown = place.run("ip", &["-o", "link", "show", "dev", name]).unwrap();
    shown.ok().then(|| shown.stdout.split(':').next().unwrap().trim().parse().unwrap())
}

/// The interfaces that the pod lists with a container's capabilities and `CAP_NET_ADMIN`.
fn links(place: &Place, how: &str, id: &str) -> String {
    let script = format!("python3 -c '{LINKS}' {how} {id}");
    let done = container(place, &script).unwrap();
    assert!(done.stderr.is_empty(), "{done:?}");
    done.stdout.trim().to_owned()
}

/// The pod's namespace has an id for the node's, and rtnetlink asks for `CAP_NET_ADMIN` there.
#[test]
fn net_admin_in_a_pod_does_not_reach_the_nodes_network() {
    let testbed = Testbed::test(0).unwrap();
    let pod = testbed.pod();
    // The lowest ids are given first.
    let ids: Vec<String> = (0..8).map(|id: u32| id.to_string()).collect();
    let of_node = |id: &&String| links(pod, "first", id).contains(plan::POD_INTERFACE);
    let id = ids.iter().find(of_node).expect("an id for the node's namespace");
    for how in ["first", "behind"] {
        let seen = links(pod, how, id);
        assert!(seen.contains(plan::POD_INTERFACE), "without the agent: {seen}");
    }
    // A neighbour's interface is deleted, and one of the pod's own made on the uplink.
    let node = testbed.app();
    let uplink = index(node, plan::UPLINK).unwrap();
    let add = || {
        let args = ["link", "add", "other0", "type", "veth", "peer", "name", "other1"];
        assert!(node.run("ip", &args).unwrap().ok());
    };
    let (delete, stack) = (format!("delete other0 {id}"), format!("macvlan up0 {uplink} {id}"));
    add();
    assert_eq!(change(pod, &delete), "done", "without the agent");
    assert_eq!(index(node, "other0"), None);
    assert_eq!(change(pod, &stack), "done", "without the agent");
    assert_eq!(change(pod, "delete up0"), "done");
    add();
    let probe = || testbed.probe(&["netlink", plan::ATTACKER]).unwrap();
    let without = probe();
    assert_eq!(without.code, 0, "{without:?}");
    assert!(without.stdout.contains(plan::POD_INTERFACE), "{without:?}");
    let agent = testbed.start_node().unwrap();
    if open_here(&testbed, &agent) {
        return;
    }
    let before = counted(&testbed, "\"other_namespace\"");
    let refused = probe();
    assert_eq!((refused.code, &*refused.stdout), (1, "refused: asking rtnetlink: EPERM\n"));
    for how in ["first", "behind"] {
        assert_eq!(links(pod, how, id), "EPERM", "{how}");
        // The twin: its own.
        assert!(links(pod, how, "").contains("eth0"), "{how}");
    }
    for refused in [&delete, &stack] {
        assert_eq!(change(pod, refused), "EPERM", "{refused}");
    }
    assert!(index(node, "other0").is_some() && index(pod, "up0").is_none());
    let own = index(pod, plan::UPLINK).unwrap();
    assert_eq!(change(pod, &format!("macvlan up0 {own}")), "done", "on its own interface");
    assert_eq!(change(pod, "delete up0"), "done");
    let refusals = || counted(&testbed, "\"other_namespace\"");
    until_is(SOON, "the refusals", refusals, |now| *now >= before + 5).unwrap();
    until(SOON, "an event", || agent.stdout().contains("other_namespace").then_some(())).unwrap();
    // What a pod does with its own interfaces goes on.
    let own = "ip link add one type veth peer name two && ip link del one && ip address add \
               192.0.2.77/32 dev lo && ip address del 192.0.2.77/32 dev lo";
    let own = container(pod, own).unwrap();
    assert!(own.ok(), "{own:?}");
}
