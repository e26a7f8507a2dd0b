//! Connections from external hosts to workloads, under an agent that enforces: the answers get out,
//! and nothing else does by the same door. The client is an external collaborator: whatever the
//! workload gets out to it is captured.
#![expect(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use egress_tests::{
    capture::Capture,
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// A server at every address: TCP greets and echoes, UDP echoes.
const SERVER: &str = r#"
import socket, sys, threading
port = int(sys.argv[1])
def tcp(family):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("", port))
    listener.listen()
    print("listening", flush=True)
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=echo, args=(connection,), daemon=True).start()
def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
def udp(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", port))
    print("listening", flush=True)
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(data, peer)
threads = [threading.Thread(target=what, args=(family,))
           for what in (tcp, udp) for family in (socket.AF_INET, socket.AF_INET6)]
for thread in threads:
    thread.start()
"#;

/// Asks a server from an address of its own, and says what came back.
const CLIENT: &str = r#"
import socket, sys
kind, source, address, port, size = sys.argv[1:6]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[6]) if len(sys.argv) > 6 else 10)
s.bind((source, int(sys.argv[7]) if len(sys.argv) > 7 else 0))
s.connect((address, int(port)))
data = b"x" * int(size)
s.sendall(data)
got = b""
while len(got) < len(data):
    more = s.recv(65536)
    if not more:
        break
    got += more
print("echoed" if got == data else "short")
"#;

/// What a workload with raw sockets sends to an external collaborator: FLAGS SOURCE-PORT ADDRESS
/// PORT. TCP with these flags, or a datagram where FLAGS is `udp`.
const FORGER: &str = r#"
import socket, struct, sys
flags, sport, address, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
v6 = ":" in address
protocol = 17 if flags == "udp" else 6
own = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("fd00:10:10::11" if v6 else "10.96.0.10", 53))
own = own.getsockname()[0]
data = b"the pod's secret"
if protocol == 17:
    body = struct.pack("!HHHH", sport, port, 8 + len(data), 0) + data
else:
    body = struct.pack("!HHIIBBHHH", sport, port, 1, 1, 0x50, int(flags, 16), 65535, 0, 0) + data
family = socket.AF_INET6 if v6 else socket.AF_INET
pack = lambda text: socket.inet_pton(family, text)
def total(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff or 0xffff
check = total(pack(own) + pack(address) + struct.pack("!II", len(body), protocol) + body)
at = 6 if protocol == 17 else 16
body = body[:at] + struct.pack("!H", check) + body[at + 2:]
s = socket.socket(family, socket.SOCK_RAW, protocol)
s.sendto(body, (address, 0))
"#;

const PORT: &str = "8080";
/// What a client outside asks a server for, on each family: its own address and the server's.
const FAMILIES: [(&str, &str); 2] =
    [(plan::ATTACKER, plan::POD), (plan::ATTACKER_V6, plan::POD_V6)];

fn serve(testbed: &Testbed, place: &Place, name: &str) -> Process {
    let server =
        place.start(&testbed.dir(), name, "/usr/bin/python3", &["-u", "-c", SERVER, PORT]).unwrap();
    until(SOON, "the server to listen", || (server.stdout().lines().count() == 4).then_some(()))
        .unwrap();
    server
}

/// What a client outside gets from a server: `echoed`, or nothing.
fn ask(testbed: &Testbed, args: &[&str]) -> String {
    ask_from(testbed.outside(), args)
}

/// What a client at this place gets.
fn ask_from(place: &Place, args: &[&str]) -> String {
    let mut all = vec!["-c", CLIENT];
    all.extend(args);
    place.run("/usr/bin/python3", &all).unwrap().stdout.trim().to_owned()
}

fn ping(testbed: &Testbed, from: &str, to: &str) -> bool {
    testbed.outside().run("ping", &["-c1", "-W2", "-I", from, to]).unwrap().ok()
}

/// A workload sends what nobody asked for; the capture stays empty.
fn forge(testbed: &Testbed, from: &Place, capture: &Capture, args: &[&str]) {
    let before = denied(testbed);
    let mut all = vec!["-c", FORGER];
    all.extend(args);
    let done = from.run("/usr/bin/python3", &all).unwrap();
    // The second line on the node refuses the system call, the enforcement points drop in silence.
    assert!(done.ok() || done.stderr.contains("Operation not permitted"), "{args:?}: {done:?}");
    until_is(SOON, &format!("{args:?} to be counted"), || denied(testbed), |now| *now > before)
        .unwrap();
    assert_eq!(capture.take(), Vec::<String>::new(), "{args:?}");
}

/// How often the node refused something that lacks a route.
fn denied(testbed: &Testbed) -> u64 {
    denied_for(testbed, &["no_route", "not_redirected", "protocol"])
}

/// How often the node refused something for one of these reasons.
fn denied_for(testbed: &Testbed, reasons: &[&str]) -> u64 {
    let metrics = testbed.node_metrics().unwrap_or_default();
    let refused = |line: &&str| {
        line.contains("action=\"deny\"")
            && reasons.iter().any(|reason| line.contains(&format!("\"{reason}\"")))
    };
    let lines = metrics.lines().filter(refused);
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_pods_servers_are_reached_from_outside_and_send_nothing_else_there() {
    let testbed = Testbed::test(0).unwrap();
    let node = testbed.start_node().unwrap();
    let _server = serve(&testbed, testbed.pod(), "server");
    for (client, server) in FAMILIES {
        for (kind, size) in [("tcp", "1000000"), ("udp", "100")] {
            let got = ask(&testbed, &[kind, client, server, PORT, size]);
            assert_eq!(got, "echoed", "{kind} to {server}: {}", node.stdout());
        }
        assert!(ping(&testbed, client, server), "{server}");
        // A closed port says so at once.
        let closed = ask(&testbed, &["tcp", client, server, "8081", "1"]);
        assert_eq!(closed, "", "{server}");
    }
    let metrics = testbed.node_metrics().unwrap();
    for hook in ["pod", "uplink", "skb"] {
        let replies =
            |line: &&str| line.contains("\"reply\"") && line.contains(&format!("hook=\"{hook}\""));
        assert!(metrics.lines().any(|line| replies(&line)), "{hook}: {metrics}");
    }

    // The pod on its own, with each of the enforcement points in turn: in its cgroup, and past it.
    let elsewhere = testbed.outside_cgroup();
    let capture = testbed.capture().unwrap();
    for place in [testbed.pod(), &elsewhere] {
        for to in [plan::ATTACKER, plan::ATTACKER_V6, plan::WEB] {
            // SYN; SYN and ACK; ACK; RST; FIN and ACK.
            for flags in ["02", "12", "10", "04", "11"] {
                forge(&testbed, place, &capture, &[flags, "8080", to, "50000"]);
            }
            forge(&testbed, place, &capture, &["udp", "8080", to, "50000"]);
        }
    }
    // While a flow is open: another port, another remote, a SYN of the pod's.
    for (client, server) in FAMILIES {
        let asked = ask(&testbed, &["udp", client, server, PORT, "100", "10", "50001"]);
        assert_eq!(asked, "echoed");
        let held = hold(&testbed, client, server);
        capture.take();
        let (other, open) =
            (if client == plan::ATTACKER { plan::WEB } else { plan::WEB_V6 }, "50002");
        for place in [testbed.pod(), &elsewhere] {
            for args in [
                ["udp", "8080", client, "50003"],
                ["udp", "8082", client, "50001"],
                ["udp", "8080", other, "50001"],
                ["10", "8080", client, "50003"],
                ["10", "8082", client, open],
                ["10", "8080", other, open],
                ["02", "8080", client, open],
            ] {
                forge(&testbed, place, &capture, &args);
            }
        }
        drop(held);
    }
}

/// A gateway that asks a server of a pod gets the answer: the DNS server of a cluster may run on an application node.
/// What the pod sends to a gateway on its own is refused, whatever the port.
#[test]
fn a_gateway_gets_the_answers_of_a_pods_server_and_nothing_else_of_the_pod() {
    let testbed = Testbed::test(1).unwrap();
    let gateway = testbed.gateway(0);
    let _serving = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let _server = serve(&testbed, testbed.pod(), "server");
    let (address, service) = (plan::GATEWAYS[0], "8090");
    let of_gateway = ["-u", "-c", SERVER, service];
    let listening =
        gateway.start(&testbed.dir(), "service", "/usr/bin/python3", &of_gateway).unwrap();
    until(SOON, "the gateway's host to listen", || {
        (listening.stdout().lines().count() == 4).then_some(())
    })
    .unwrap();
    for (kind, size) in [("tcp", "1000000"), ("udp", "100")] {
        let got = ask_from(gateway, &[kind, address, plan::POD, PORT, size]);
        assert_eq!(got, "echoed", "{kind}: {}", node.stdout());
    }
    for place in [testbed.pod(), &testbed.outside_cgroup()] {
        for kind in ["tcp", "udp"] {
            for port in [service, "15021", "15090"] {
                let refused = || denied_for(&testbed, &["gateway_port"]);
                let before = refused();
                let got = ask_from(place, &[kind, plan::POD, address, port, "100", "2"]);
                assert_eq!(got, "", "{kind} to the gateway's port {port}");
                until_is(SOON, "the refusal to be counted", refused, |now| *now > before).unwrap();
            }
        }
    }
}

/// A client that keeps a connection open until it is dropped.
fn hold(testbed: &Testbed, client: &str, server: &str) -> Process {
    let script = format!(
        "{CLIENT}\nsys.stdout.flush()\nsys.stdin = open('/dev/zero')\nimport time\ntime.sleep(600)"
    );
    let name = format!("held-{}", if server.contains(':') { 6 } else { 4 });
    let args = ["-u", "-c", &script, "tcp", client, server, PORT, "5", "10", "50002"];
    let held = testbed.outside().start(&testbed.dir(), &name, "/usr/bin/python3", &args).unwrap();
    until(SOON, "the connection", || held.stdout().contains("echoed").then_some(())).unwrap();
    held
}

#[test]
fn a_server_on_the_hosts_network_is_reached_from_outside() {
    let testbed = Testbed::test(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let host = testbed.host_network();
    let _server = serve(&testbed, &host, "server");
    for (client, server) in [(plan::ATTACKER, plan::APP), (plan::ATTACKER_V6, plan::APP_V6)] {
        assert_eq!(ask(&testbed, &["tcp", client, server, PORT, "1000000"]), "echoed");
        assert_eq!(ask(&testbed, &["udp", client, server, PORT, "100"]), "echoed");
    }
    let capture = testbed.capture().unwrap();
    for to in [plan::ATTACKER, plan::ATTACKER_V6] {
        for flags in ["02", "12", "10", "04", "udp"] {
            forge(&testbed, &host, &capture, &[flags, "8080", to, "50000"]);
        }
    }
    // A flow of the node's own service is no door for the workload: its raw sockets see the packets
    // of all, and count for nothing.
    let _service = start_node_service(&testbed);
    let spied = spy(&testbed, &host);
    let (client, node) = (plan::ATTACKER, plan::APP);
    assert_eq!(ask(&testbed, &["udp", client, node, "8090", "100", "10", "50004"]), "echoed");
    capture.take();
    forge(&testbed, &host, &capture, &["udp", "8090", client, "50004"]);
    drop(spied);
}

/// A server of the node itself, outside of the workload's cgroup.
fn start_node_service(testbed: &Testbed) -> Process {
    let args = ["-u", "-c", SERVER, "8090"];
    let service = testbed.app().start(&testbed.dir(), "service", "/usr/bin/python3", &args);
    let service = service.unwrap();
    until(SOON, "the node's service to listen", || {
        (service.stdout().lines().count() == 4).then_some(())
    })
    .unwrap();
    service
}

/// A raw socket of the workload's that receives every datagram of the host.
fn spy(testbed: &Testbed, host: &Place) -> Process {
    const SPY: &str = "import socket, time\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)\nprint('spying', flush=True)\n\
        print('saw', s.recv(2000)[20:24].hex(), flush=True)\ntime.sleep(600)";
    let args = ["-u", "-c", SPY];
    let spy = host.start(&testbed.dir(), "spy", "/usr/bin/python3", &args).unwrap();
    until(SOON, "the spy", || spy.stdout().contains("spying").then_some(())).unwrap();
    spy
}

/// A port of the node that leads to the pod: the uplink sees the node's address on both ways, the
/// pod's interface the pod's.
#[test]
fn a_translated_port_of_the_node_leads_to_the_pod_and_back() {
    let testbed = Testbed::test(0).unwrap();
    let rules = format!(
        "table ip nodeport {{ chain pre {{ type nat hook prerouting priority -100; \
           ip daddr {0} tcp dport 30080 dnat to {1}:{PORT}; \
           ip daddr {0} udp dport 30080 dnat to {1}:{PORT}; }}; \
         chain post {{ type nat hook postrouting priority 100; \
           tcp dport {PORT} ip daddr {1} ip saddr {2} masquerade; }}; }}",
        plan::APP,
        plan::POD,
        // One client is hidden from the pod, as `externalTrafficPolicy: Cluster` hides them.
        plan::WEB,
    );
    let applied = testbed.app().run("nft", &[rules.as_str()]).unwrap();
    assert!(applied.ok(), "{applied:?}");
    let _node = testbed.start_node().unwrap();
    let _server = serve(&testbed, testbed.pod(), "server");
    let ask = |kind, client| ask(&testbed, &[kind, client, plan::APP, "30080", "1000", "3"]);
    assert_eq!(ask("tcp", plan::ATTACKER), "echoed");
    assert_eq!(ask("udp", plan::ATTACKER), "echoed");
    assert_eq!(ask("tcp", plan::WEB), "echoed", "a client that the pod doesn't see");
}

/// A Service whose endpoint is an external collaborator: whatever that sends first, nothing
/// of the pod's gets there.
#[test]
fn a_collaborator_behind_a_service_opens_no_door() {
    let testbed = Testbed::test(0).unwrap();
    const SERVICE: &str = "10.96.0.99";
    // What the node itself would say to the collaborator (no such port) is left out of the capture.
    let rules = format!(
        "table ip service {{ chain pre {{ type nat hook prerouting priority -100; \
           ip daddr {SERVICE} dnat to {0}; }}; \
         chain post {{ type nat hook postrouting priority 100; \
           ip daddr {0} oifname {1} masquerade; }}; \
         chain own {{ type filter hook output priority 0; ip daddr {0} drop; }}; }}",
        plan::ATTACKER,
        plan::UPLINK,
    );
    let applied = testbed.app().run("nft", &[rules.as_str()]).unwrap();
    assert!(applied.ok(), "{applied:?}");
    // The twin: without the agent the pod gets out.
    let capture = testbed.capture().unwrap();
    let send = |args: &[&str]| {
        let mut all = vec!["-c", FORGER];
        all.extend(args);
        let done = testbed.outside_cgroup().run("/usr/bin/python3", &all).unwrap();
        assert!(done.ok(), "{done:?}");
    };
    send(&["udp", "31000", SERVICE, "4000"]);
    until(SOON, "the pod's datagram", || (!capture.take().is_empty()).then_some(())).unwrap();
    let _node = testbed.start_node().unwrap();
    capture.take();
    // The collaborator's packets to the address that the pod's have after the translation.
    let collaborator = |flags: &str, from: &str, to: &str| {
        let script = FORGER
            .replace("10.96.0.10", plan::APP)
            .replace("own = own.getsockname()[0]", &format!("own = '{}'", plan::ATTACKER))
            .replace("s.sendto(body", &format!("s.bind(('{}', 0)); s.sendto(body", plan::ATTACKER));
        let args = ["-c", &script, flags, from, plan::APP, to];
        let done = testbed.outside().run("/usr/bin/python3", &args).unwrap();
        assert!(done.ok(), "{done:?}");
    };
    let elsewhere = testbed.outside_cgroup();
    // Datagrams, whoever sends first.
    collaborator("udp", "4001", "31001");
    forge(&testbed, &elsewhere, &capture, &["udp", "31001", SERVICE, "4001"]);
    collaborator("udp", "4001", "31001");
    forge(&testbed, &elsewhere, &capture, &["udp", "31001", SERVICE, "4001"]);
    // The mid-stream pick-up: a bare ACK, then one that the collaborator's SYN came before.
    collaborator("02", "4002", "31002");
    forge(&testbed, &elsewhere, &capture, &["10", "31002", SERVICE, "4002"]);
    collaborator("02", "4002", "31002");
    forge(&testbed, &elsewhere, &capture, &["10", "31002", SERVICE, "4002"]);
    forge(&testbed, &elsewhere, &capture, &["14", "31002", SERVICE, "4002"]);
    // The simultaneous open: the pod's SYN, the collaborator's, the pod's SYN and ACK. The pod's
    // system, which knows of no such connection, would reset it.
    let quiet = "table ip quiet { chain out { type filter hook output priority 0; \
        tcp sport 31003 tcp flags & rst == rst drop; }; }";
    let applied = testbed.pod().run("nft", &[quiet]).unwrap();
    assert!(applied.ok(), "{applied:?}");
    forge(&testbed, &elsewhere, &capture, &["02", "31003", SERVICE, "4003"]);
    collaborator("02", "4003", "31003");
    forge(&testbed, &elsewhere, &capture, &["12", "31003", SERVICE, "4003"]);
    forge(&testbed, &elsewhere, &capture, &["10", "31003", SERVICE, "4003"]);
}

/// Sends itself datagrams over loopback, from an address outside that it gave itself. They may be refused.
const TO_ITSELF: &str = r#"
import socket, sys
outside, own = sys.argv[1:]
family = socket.AF_INET6 if ":" in own else socket.AF_INET
receiver = socket.socket(family, socket.SOCK_DGRAM)
receiver.bind((own, 9000))
receiver.settimeout(10)
for number in range(200):
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.bind((outside, 0))
    try:
        sender.sendto(b"x", (own, 9000))
        receiver.recvfrom(10)
    except PermissionError:
        pass
    sender.close()
print("sent")
"#;

/// How many inbound flows the node knows.
fn known_flows(testbed: &Testbed) -> u64 {
    let (control, pins) = (testbed.node_control(), testbed.pins());
    let args = ["status", "-o", "json", "--control"].map(str::to_owned);
    let args = args.into_iter().chain([control, pins].map(|path| path.display().to_string()));
    let mut args: Vec<String> = args.collect();
    args.insert(args.len() - 1, "--bpffs".into());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let status = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let maps = status["node"]["maps"].as_array().unwrap();
    maps.iter().find(|map| map["name"] == "FLOWS").unwrap()["entries"].as_u64().unwrap()
}

#[test]
fn what_a_workload_sends_to_itself_takes_no_place_in_the_table_of_flows() {
    let testbed = Testbed::test(0).unwrap();
    let node = testbed.start_node().unwrap();
    let pod = testbed.pod();
    for address in ["198.51.100.201/32", "2001:db8:bad::c9/128"] {
        pod.ns.ip(&["address", "add", address, "dev", "lo"]).unwrap();
    }
    let before = known_flows(&testbed);
    for (outside, own) in [("198.51.100.201", "127.0.0.1"), ("2001:db8:bad::c9", "::1")] {
        let args = ["-c", TO_ITSELF, outside, own];
        let sent = pod.run("/usr/bin/python3", &args).unwrap();
        assert_eq!(sent.stdout.trim(), "sent", "{sent:?}\n{}", node.stdout());
    }
    assert_eq!(known_flows(&testbed), before);
    // The twin: a client that is outside.
    let _server = serve(&testbed, pod, "server");
    assert_eq!(ask(&testbed, &["udp", plan::ATTACKER, plan::POD, PORT, "100"]), "echoed");
    assert!(known_flows(&testbed) > before);
}
