//! The agent goes, enforcement stays; only `detach` removes it.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::fs;

use egress_tests::{
    denied::Wall,
    manifests::Walkthrough,
    netns::{End, link},
    plan,
    process::Process,
    sh,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, START, until, until_is},
};

const URL: &str = "https://edition.cnn.com/";

#[test]
fn enforcement_outlives_the_agent_until_detach() {
    let testbed = Testbed::test(1).unwrap();
    let files = Walkthrough::example().unwrap();
    files.passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    let attack = || testbed.probe(&["tcp", plan::ATTACKER, "22"]).unwrap().code;
    let wall = || testbed.probe(&["packet", plan::ATTACKER, "9999"]).unwrap().code;
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();

    // A second agent on the same pins refuses to start, and disturbs nothing.
    let mut second = testbed.start_agent(testbed.app(), "second", &testbed.node_args()).unwrap();
    let status = second.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(3), "{}", second.stderr());
    assert!(second.stderr().contains("another egress-agent"), "{}", second.stderr());
    assert_eq!((served().as_str(), attack()), ("200", 1));
    // Nor can enforcement be taken away under it.
    let detach = ["detach", "--bpffs", &testbed.pins().to_string_lossy()].map(str::to_owned);
    let mut early = testbed.start_agent(testbed.app(), "early", &detach).unwrap();
    assert_eq!(early.wait(SOON).unwrap().code(), Some(3), "{}", early.stderr());

    // kill -9: what was allowed goes on, what was refused stays refused.
    node.kill();
    assert_eq!((served().as_str(), attack(), wall()), ("200", 1, 2));
    // A new agent adopts the pins, and follows changes again.
    let mut node = testbed.start_node().unwrap();
    assert_eq!((served().as_str(), attack(), wall()), ("200", 1, 2));
    files.passthrough.delete(&testbed).unwrap();
    until_is(SOON, "the deleted route to be refused", served, |seen| seen != "200").unwrap();

    // A requested end leaves it too.
    assert!(node.end().unwrap().success(), "{}", node.stderr());
    assert_eq!((attack(), wall()), (1, 2));
    assert_eq!(capture.frames(), Vec::<String>::new());

    // Only detach opens the way.
    let mut detached = testbed.start_agent(testbed.app(), "detach", &detach).unwrap();
    assert!(detached.wait(SOON).unwrap().success(), "{}", detached.stderr());
    // A probe waits for a second, which is short on a busy machine.
    until_is(SOON, "what was refused", || (attack(), wall()), |codes| *codes == (0, 0)).unwrap();
    assert!(!capture.frames().is_empty());
}

/// A value of the node's metrics.
fn metric(testbed: &Testbed, name: &str) -> Option<u64> {
    let metrics = testbed.node_metrics().ok()?;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn readiness(testbed: &Testbed) -> String {
    let url = "http://127.0.0.1:15020/healthz/ready";
    testbed.app().run("curl", &["-s", "-w", " %{http_code}", url]).unwrap().stdout
}

/// The pod's interface goes, and comes again with the addresses that it had.
fn recreate(testbed: &Testbed) {
    let (pod, app) = (&testbed.pod().ns, &testbed.app().ns);
    app.ip(&["link", "del", plan::POD_INTERFACE]).unwrap();
    let (v4, router) = (format!("{}/24", plan::POD), format!("{}/24", plan::POD_ROUTER));
    link(
        &End { ns: pod, name: "eth0", mac: "02:00:0a:f4:01:0a", addresses: &[&v4] },
        &End {
            ns: app,
            name: plan::POD_INTERFACE,
            mac: plan::POD_ROUTER_MAC,
            addresses: &[&router],
        },
    )
    .unwrap();
    pod.ip(&["route", "add", "default", "via", plan::POD_ROUTER]).unwrap();
}

#[test]
fn a_pod_that_is_up_before_its_policy_reaches_only_the_inside_until_it_is_known() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let capture = testbed.capture().unwrap();
    // A pattern, and no word of who is behind the interface.
    let unknown: Vec<String> = testbed
        .node_args()
        .into_iter()
        .map(|arg| if arg.starts_with(plan::POD_INTERFACE) { "pod*".into() } else { arg })
        .collect();
    let mut node = testbed.start_node_with(&unknown).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let packet = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    let inside = || testbed.pod().run("ping", &["-c1", "-W1", plan::APP]).unwrap().ok();
    until_is(SOON, "the inside", inside, |reached| *reached).unwrap();
    wall.stops("a packet of an unknown pod", &["unknown_workload"], packet).unwrap();
    let direct = format!("https://{}/", plan::GATEWAYS[0]);
    let gateway = || testbed.pod().run("curl", &["-sk", "-m", "3", &direct]);
    wall.stops("the gateway, for an unknown pod", &["unknown_workload"], gateway).unwrap();
    assert!(node.end().unwrap().success());

    // The twin: known, the inside and the allowed way are open, and nothing else.
    let node = testbed.start_agent(testbed.app(), "known", &testbed.node_args()).unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert!(testbed.pod().run("ping", &["-c1", "-W2", plan::APP]).unwrap().ok());
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops("a packet of a known pod", &["protocol"], packet).unwrap();
}

/// Without what a gateway still sends to the pod while that has no interface: the node forwards it to its default
/// route, like anything to an address without a route of its own.
fn of_the_pod(frames: Vec<String>) -> Vec<String> {
    let to_pod = format!("{} > {}", plan::GATEWAYS[0], plan::POD);
    frames.into_iter().filter(|frame| !frame.ends_with(&to_pod)).collect()
}

#[test]
fn an_interface_that_is_made_again_is_behind_the_wall_with_and_without_an_agent() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();

    recreate(&testbed);
    until_is(SOON, "the way over the new interface", served, |seen| seen == "200").unwrap();
    let repairs = || metric(&testbed, "egress_repairs_total{kind=\"interface\"}");
    until_is(SOON, "the repair to be counted", repairs, |count| *count == Some(1)).unwrap();
    assert_eq!(of_the_pod(capture.take()), Vec::<String>::new());
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let packet = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    wall.stops("a packet on the new interface", &["protocol"], packet).unwrap();

    // Without an agent there is no program on it; the uplink's drops what comes from it.
    node.kill();
    recreate(&testbed);
    assert_ne!(packet().unwrap().code, 0);
    let elsewhere = testbed.outside_cgroup();
    let bypass = testbed.probe_from(&elsewhere, &["tcp", plan::ATTACKER, "22"]).unwrap();
    assert_ne!(bypass.code, 0, "{bypass:?}");
    assert_eq!(of_the_pod(capture.take()), Vec::<String>::new());
    let node = testbed.start_agent(testbed.app(), "again", &testbed.node_args()).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops("a packet after the start", &["protocol"], packet).unwrap();
}

/// Files of a configuration with many hosts, each with resources of its own.
fn many_hosts(hosts: usize) -> Vec<(String, String)> {
    const A_FILE: usize = 2000;
    let resources = |number: usize| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e{number}}}\n\
             spec: {{hosts: [h{number}.many.example], ports: [{{number: 443, name: tls, protocol: \
             TLS}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: \
             {{name: r{number}}}\nspec: {{hosts: [h{number}.many.example], gateways: \
             [istio-egressgateway], tls: [{{match: [{{port: 443, sniHosts: [h{number}.many.example]}}], \
             route: [{{destination: {{host: h{number}.many.example, port: {{number: 443}}}}}}]}}]}}\n---\n"
        )
    };
    let numbers: Vec<usize> = (0..hosts).collect();
    let files = numbers.chunks(A_FILE).enumerate();
    files
        .map(|(file, part)| {
            (format!("many{file}.yaml"), part.iter().copied().map(resources).collect())
        })
        .collect()
}

/// A compilation that takes seconds delays nothing else: a new interface is enforced meanwhile, the node
/// answers, and what was allowed and denied before is.
#[test]
fn an_interface_is_enforced_while_a_large_configuration_is_compiled() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    let since = |earlier: usize, what: &str| node.stderr()[earlier..].contains(what);

    // A machine may be so quick that the configuration is compiled before the interface is there: then
    // there are more hosts.
    let meanwhile = (1..=4).any(|round| {
        let earlier = node.stderr().len();
        let repairs = || metric(&testbed, "egress_repairs_total{kind=\"interface\"}").unwrap_or(0);
        let before = repairs();
        for (name, text) in many_hosts(20_000 * round) {
            testbed.apply(&name, &text).unwrap();
        }
        until_is(START, "the compiler", || since(earlier, "compiling"), |begun| *begun).unwrap();
        recreate(&testbed);
        until_is(START, "the repair", repairs, |count| *count > before).unwrap();
        until_is(START, "the way over the new interface", served, |seen| seen == "200").unwrap();
        let packet = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
        let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
        wall.stops("a packet on the new interface", &["protocol"], packet).unwrap();
        let meanwhile = !since(earlier, "is in force");
        until_is(START, "the large configuration", || since(earlier, "is in force"), |done| *done)
            .unwrap();
        meanwhile
    });
    assert!(
        meanwhile,
        "each time the new interface was enforced only afterwards:\n{}",
        node.stderr()
    );
    assert_eq!(served(), "200");
}

/// A pod may do what it likes with its own interface: the others don't suffer.
#[test]
fn a_pod_that_deletes_its_own_interface_leaves_the_node_ready() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert!(readiness(&testbed).ends_with(" 200"));
    testbed.pod().ns.ip(&["link", "del", "eth0"]).unwrap();
    let gone = format!("interface {} is gone", plan::POD_INTERFACE);
    until(SOON, "the agent to notice", || node.stderr().contains(&gone).then_some(())).unwrap();
    // It is told, by `status` too, and is no reason to take the node out of service.
    let (control, pins) = (testbed.node_control(), testbed.pins());
    let (control, pins) = (control.to_string_lossy(), pins.to_string_lossy());
    let args = ["status", "--control", &control, "--bpffs", &pins];
    let status = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
    assert!(status.stdout.contains(&gone), "{status:?}");
    let ready = readiness(&testbed);
    assert!(ready.ends_with(" 200"), "{ready}");
    assert_eq!(metric(&testbed, "egress_ready"), Some(1));
}

#[test]
fn what_is_detached_by_hand_is_attached_again_and_counted() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let links = testbed.pins().join(format!("v{}", egress_ebpf::abi::ABI_VERSION)).join("links");
    let pins = || -> Vec<String> {
        let entries = fs::read_dir(&links).unwrap();
        entries.map(|entry| entry.unwrap().path().to_string_lossy().into_owned()).collect()
    };
    let repairs =
        |kind: &str| metric(&testbed, &format!("egress_repairs_total{{kind=\"{kind}\"}}")).unwrap();
    let tcx = pins().iter().any(|pin| pin.contains("-if-"));
    let detached = repairs("detached");
    for pin in pins().iter().filter(|pin| !pin.contains("-clsact-")) {
        sh("bpftool", &["link", "detach", "pinned", pin]).unwrap();
    }
    if !tcx {
        let app = &testbed.app().ns;
        sh("tc", &["-n", app.name(), "filter", "del", "dev", plan::POD_INTERFACE, "ingress"])
            .unwrap();
    }
    // Its cgroup and at least one interface: what it says once for each place.
    until_is(SOON, "the repairs", || repairs("detached"), |count| *count >= detached + 2).unwrap();
    let pinned = repairs("pin");
    for pin in pins().iter().filter(|pin| !pin.contains("-clsact-")) {
        fs::remove_file(pin).unwrap();
    }
    // Without tcx only the cgroup's programs are links: one place less has pins.
    let places = if tcx { 2 } else { 1 };
    until_is(SOON, "the pins", || repairs("pin"), |count| *count >= pinned + places).unwrap();
    assert!(node.stderr().contains("was detached from"), "{}", node.stderr());

    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let connect = || testbed.probe(&["tcp", plan::ATTACKER, "22"]);
    wall.stops("a connection after the repair", &["no_route"], connect).unwrap();
    let packet = || testbed.probe(&["packet", plan::ATTACKER, "9999"]);
    wall.stops("a packet after the repair", &["protocol"], packet).unwrap();
    assert_eq!(testbed.curl_status(&[URL]).unwrap(), "200");
}

#[test]
fn a_full_map_denies_the_new_and_says_so() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert!(readiness(&testbed).ends_with(" 200"));

    // One prefix more than the map holds, and something new that is allowed beside it.
    let most = egress_ebpf::abi::capacity::PREFIXES;
    let prefixes = (0..=most).map(|number| format!("\"2001:db8:f:{number:x}::/64\""));
    let many = prefixes.collect::<Vec<_>>().join(", ");
    let mesh = mesh_yaml(1);
    testbed.apply_mesh(&format!("{mesh}deniedCidrs: [{many}]\n")).unwrap();
    let behind = || metric(&testbed, "egress_maps_behind");
    until_is(SOON, "the maps to be behind", behind, |value| *value == Some(1)).unwrap();
    let ready = readiness(&testbed);
    assert!(ready.ends_with(" 503") && ready.contains("DENIED"), "{ready}");
    testbed
        .apply(
            "new.yaml",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: new}}\n\
                 spec:\n  hosts: [new.example.com]\n  addresses: [{0}]\n  ports:\n  \
                 - {{number: 22, name: tcp, protocol: TCP}}\n  resolution: STATIC\n  \
                 endpoints:\n  - address: {0}\n",
                plan::ATTACKER
            ),
        )
        .unwrap();
    let accepted = || metric(&testbed, "egress_config_reloads_total{result=\"accepted\"}");
    until_is(SOON, "the new snapshot", accepted, |count| *count >= Some(3)).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let connect = || testbed.probe(&["tcp", plan::ATTACKER, "22"]);
    wall.stops("the new service", &["no_route"], connect).unwrap();
    // What was in force stays.
    assert_eq!(served(), "200");

    // The twin: with room for it the new one is served.
    testbed.apply_mesh(&mesh).unwrap();
    until_is(SOON, "the new service", || connect().unwrap().code, |code| *code == 0).unwrap();
    assert!(readiness(&testbed).ends_with(" 200"));
    assert_eq!(behind(), Some(0));
}

/// What the application asked for is kept in a table that forgets, so it is never full; one that
/// doesn't forget takes its place here.
#[test]
fn a_connect_whose_destination_cannot_be_kept_is_refused() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let mut node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&[URL]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    node.kill();
    let maps = testbed.pins().join(format!("v{}/maps", egress_ebpf::abi::ABI_VERSION));
    let map = maps.join("ORIGINAL_DST");
    fs::remove_file(&map).unwrap();
    let map = map.to_string_lossy();
    let (most, size) = (
        egress_ebpf::abi::capacity::ORIGINAL_DST,
        size_of::<egress_ebpf::abi::OriginalDst>().to_string(),
    );
    let table = ["map", "create", &map, "type", "hash", "key", "8", "value", &size];
    sh("bpftool", &[&table[..], &["entries", &most.to_string(), "name", "full"]].concat()).unwrap();
    let each = |change: &str, keys: std::ops::Range<u32>, value: &str| {
        let line = |key: u32| {
            let [a, b, c, d] = key.to_le_bytes();
            format!("map {change} pinned {map} key {a} {b} {c} {d} 255 255 255 255 {value}\n")
        };
        let path = testbed.dir().join("batch");
        fs::write(&path, keys.map(line).collect::<String>()).unwrap();
        sh("bpftool", &["batch", "file", &path.to_string_lossy()]).unwrap();
    };
    let zeros = "0 ".repeat(size.parse().unwrap());
    each("update", 0..most, &format!("value {zeros}"));

    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let dial = || testbed.pod().run("curl", &["-s", "-m", "5", URL]);
    wall.stops_at(&["connect"], "the connect", &["original_dst_full"], dial).unwrap();
    // With room for it, it is redirected again.
    each("delete", 0..10, "");
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
}

/// Opens sockets, waits for a file, and says what became of each.
const OLD_SOCKETS: &str = r#"
import errno, os, socket, sys, time
attacker, web, inside, go = sys.argv[1:]

def tcp(address, port):
    return socket.create_connection((address, port), 5)

def udp(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((address, 9999))
    return s

listener = socket.create_server(("0.0.0.0", 6000))
sockets = {
    "attacker": tcp(attacker, 22),
    "unredirected": tcp(web, 8443),
    "datagrams": udp(attacker),
    "inside": tcp(inside, 7000),
}
print("listening", flush=True)
sockets["accepted"] = listener.accept()[0]

def ask(s):
    s.settimeout(5)
    s.sendall(b"hello")
    return "answered" if s.recv(100) else "ended"

for name, s in sockets.items():
    if name != "accepted":
        print("before", name, ask(s), flush=True)
print("open", flush=True)
while not os.path.exists(go):
    time.sleep(0.05)
for name, s in sockets.items():
    try:
        if name == "accepted":
            s.settimeout(5)
            data = s.recv(100)
            s.sendall(data)
            print("after", name, data.decode(), flush=True)
        else:
            print("after", name, ask(s), flush=True)
    except OSError as error:
        print("after", name, errno.errorcode.get(error.errno, "timeout"), flush=True)
"#;

/// Echoes what one connection after another sends.
const ECHO: &str = r#"
import socket, sys, threading
listener = socket.create_server((sys.argv[1], 7000))
print("listening", flush=True)
def serve(s):
    while data := s.recv(100):
        s.sendall(data)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// Dials the pod, waits for a file, and asks.
const FROM_OUTSIDE: &str = r#"
import os, socket, sys, time
address, go = sys.argv[1:]
s = socket.create_connection((address, 6000), 10)
print("connected", flush=True)
while not os.path.exists(go):
    time.sleep(0.05)
s.settimeout(10)
s.sendall(b"still-there")
print(s.recv(100).decode(), flush=True)
"#;

#[test]
fn sockets_that_were_open_before_are_closed_if_they_are_not_allowed() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let dir = testbed.dir();
    let python = "/usr/bin/python3";
    let says = |process: &Process, what: &str| {
        until(SOON, what, || process.stdout().contains(what).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}: {}{}", process.stdout(), process.stderr()));
    };
    let echo = testbed.app().start(&dir, "echo", python, &["-c", ECHO, plan::APP]).unwrap();
    says(&echo, "listening");
    let go = dir.join("go");
    let go_text = go.to_string_lossy();
    let args = ["-c", OLD_SOCKETS, plan::ATTACKER, plan::WEB, plan::APP, &go_text];
    let old = testbed.pod().start(&dir, "old", python, &args).unwrap();
    says(&old, "listening");
    let args = ["-c", FROM_OUTSIDE, plan::POD, &go_text];
    let client = testbed.outside().start(&dir, "client", python, &args).unwrap();
    says(&client, "connected");
    says(&old, "open");
    for name in ["attacker", "unredirected", "datagrams", "inside"] {
        assert!(old.stdout().contains(&format!("before {name} answered")), "{}", old.stdout());
    }

    let capture = testbed.capture().unwrap();
    let node = testbed.start_node().unwrap();
    let destroyed = || metric(&testbed, "egress_sockets_destroyed_total");
    until_is(SOON, "three sockets to be closed", destroyed, |count| *count == Some(3)).unwrap();
    capture.take();
    fs::write(&go, "").unwrap();
    says(&old, "after accepted");
    for name in ["attacker", "unredirected"] {
        assert!(old.stdout().contains(&format!("after {name} ECONNABORTED")), "{}", old.stdout());
    }
    // A UDP socket loses its peer.
    assert!(old.stdout().contains("after datagrams EDESTADDRREQ"), "{}", old.stdout());
    // The twins: what is allowed survives, and so does what was begun outside.
    assert!(old.stdout().contains("after inside answered"), "{}", old.stdout());
    assert!(old.stdout().contains("after accepted still-there"), "{}", old.stdout());
    says(&client, "still-there");
    assert_eq!(destroyed(), Some(3));
    let line = format!("-> {}:22, which is not allowed (no_route)", plan::ATTACKER);
    assert!(node.stderr().contains(&line), "{}", node.stderr());

    // A policy that gets stricter closes what it no longer allows.
    let cluster = plan::CLUSTER_CIDRS[0];
    let narrow = mesh_yaml(1).replace(&format!("\"{cluster}\""), "10.10.99.0/24");
    let held = ["-c", HELD, plan::APP];
    let held = testbed.pod().start(&dir, "held", python, &held).unwrap();
    says(&held, "open");
    testbed.apply_mesh(&narrow).unwrap();
    says(&held, "ECONNABORTED");
}

/// Holds a connection until it breaks.
const HELD: &str = r#"
import errno, socket, sys
s = socket.create_connection((sys.argv[1], 7000), 5)
print("open", flush=True)
s.settimeout(60)
try:
    s.recv(1)
    print("ended", flush=True)
except OSError as error:
    print(errno.errorcode.get(error.errno, "timeout"), flush=True)
"#;
