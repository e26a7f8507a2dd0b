//! An enforcement point that breaks the cluster gets switched off: in-cluster traffic keeps working
//! under enforcement, of every kind and in both directions. Beside each stands the same thing to
//! the outside, which is refused.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    cluster::ask,
    denied::Enforced,
    plan,
    process::{Finished, Place},
    services::{self, Service},
    sh,
    wait::{SOON, until_is},
};

/// More than a path MTU, but less than a datagram's limit.
const FRAGMENTED: [&str; 2] = ["9000", "60000"];

/// HTTP, TCP in bulk, UDP, UDP in fragments, and echo requests of both sizes.
fn reaches(from: &Place, to: &str, what: &str) {
    let host = if to.contains(':') { format!("[{to}]") } else { to.to_owned() };
    let url = format!("http://{host}:{}/2000000", plan::PEER_HTTP);
    let curl = ["-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"];
    let got = from.run("curl", &[&curl[..], &[&url]].concat()).unwrap();
    assert_eq!(got.stdout, "200 2000000", "HTTP {what}: {got:?}");
    let echo = |protocol: &str, bytes: &str| {
        let done = ask(from, protocol, to, plan::PEER_ECHO, &["--bytes", bytes]).unwrap();
        assert!(done.ok(), "{protocol} of {bytes} bytes {what}: {done:?}");
    };
    echo("tcp", "1000000");
    for bytes in ["100"].iter().chain(&FRAGMENTED) {
        echo("udp", bytes);
    }
    for size in ["56", "8000"] {
        let ping = from.run("ping", &["-c1", "-W2", "-s", size, to]).unwrap();
        assert!(ping.ok(), "ping -s {size} {what}: {ping:?}");
    }
}

/// What must be refused, though its like to the inside passes.
fn refused(
    hosts: &Enforced,
    what: &str,
    reasons: &[&str],
    attempt: impl FnOnce() -> anyhow::Result<Finished>,
) {
    hosts.wall().stops(what, reasons, attempt).unwrap();
}

#[test]
fn pods_and_nodes_reach_each_other_in_every_direction() {
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, cluster, testbed, .. } = &hosts;
    let (pod, on_host) = (testbed.pod(), testbed.host_network());

    for (from, to, what) in [
        (pod, [plan::NEIGHBOUR, plan::NEIGHBOUR_V6], "to a pod on the same node"),
        (&cluster.neighbour, [plan::POD, plan::POD_V6], "from a pod on the same node"),
        (pod, [plan::REMOTE_POD, plan::REMOTE_POD_V6], "to a pod on another node"),
        (&cluster.remote_pod, [plan::POD, plan::POD_V6], "from a pod on another node"),
        (pod, [plan::APP, plan::APP_V6], "to its own node"),
        // As the kubelet probes.
        (testbed.app(), [plan::POD, plan::POD_V6], "from its own node"),
        (pod, [plan::REMOTE, plan::REMOTE_V6], "to another node"),
        (&cluster.remote, [plan::POD, plan::POD_V6], "from another node"),
        (&on_host, [plan::REMOTE_POD, plan::REMOTE_POD_V6], "from a host's pod"),
        (&cluster.remote_pod, [plan::APP, plan::APP_V6], "to the host of a host's pod"),
    ] {
        for to in to {
            reaches(from, to, what);
        }
    }
    assert_eq!(capture.frames(), Vec::<String>::new());

    for to in [plan::ATTACKER, plan::ATTACKER_V6] {
        let udp =
            |from: &Place, bytes: &str| ask(from, "udp", to, plan::UDP_PORT, &["--bytes", bytes]);
        refused(&hosts, "TCP", &["no_route"], || ask(pod, "tcp", to, 22, &[]));
        refused(&hosts, "UDP", &["protocol"], || udp(pod, "100"));
        refused(&hosts, "UDP in fragments", &["protocol"], || udp(pod, "9000"));
        // Past the socket's hooks, the fragments themselves are judged.
        refused(&hosts, "fragments", &["fragment"], || udp(&testbed.outside_cgroup(), "9000"));
        for size in ["56", "8000"] {
            refused(&hosts, "ping", &["protocol"], || {
                pod.run("ping", &["-c1", "-W1", "-s", size, to])
            });
        }
    }
}

#[test]
fn services_lead_to_pods_and_nodes_but_not_out() {
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, cluster, testbed, .. } = &hosts;
    let (pod, on_host) = (testbed.pod(), testbed.host_network());
    let service = |protocol, address, endpoint| Service { protocol, address, endpoint };
    let inside = [
        service("tcp", "10.96.1.1:80", "10.244.1.20:8080"),
        service("tcp", "10.96.1.2:80", "10.244.2.10:8080"),
        service("tcp", "[fd00:10:96::2]:80", "[fd00:10:244:2::10]:8080"),
        // The pod itself; a node (as the API server); an external address; a node's port.
        service("tcp", "10.96.1.3:80", "10.244.1.10:8080"),
        service("tcp", "10.96.0.1:443", "10.10.0.2:8080"),
        service("tcp", "10.10.0.77:80", "10.244.1.20:8080"),
        service("tcp", "10.10.0.1:30080", "10.244.2.10:8080"),
        service("udp", "10.96.1.1:7", "10.244.1.20:7007"),
        service("udp", "10.96.1.2:7", "10.244.2.10:7007"),
        service("udp", "[fd00:10:96::2]:7", "[fd00:10:244:2::10]:7007"),
    ];
    services::apply(testbed, &inside).unwrap();
    for (from, whose) in
        [(pod, "a pod"), (&on_host, "a host's pod"), (&cluster.neighbour, "another")]
    {
        for Service { protocol, address, .. } in &inside {
            if *protocol == "tcp" {
                let url = format!("http://{address}/300000");
                let args =
                    ["-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{size_download}", &url];
                let got = from.run("curl", &args).unwrap();
                assert_eq!(got.stdout, "300000", "{whose} to {address}: {got:?}");
                continue;
            }
            let (to, port) = split(address);
            for bytes in ["100"].iter().chain(&FRAGMENTED) {
                let echo = ask(from, "udp", to, port, &["--bytes", bytes]).unwrap();
                assert!(echo.ok(), "{whose} to {address}, {bytes} bytes: {echo:?}");
            }
        }
    }
    // From a pod on another node, by the app node's port.
    let port = cluster.remote_pod.run("curl", &["-sf", "-m5", "http://10.10.0.1:30080/"]).unwrap();
    assert!(port.ok(), "{port:?}");
    assert_eq!(capture.frames(), Vec::<String>::new());

    // The same addresses, but endpoints outside.
    services::apply(
        testbed,
        &[
            service("tcp", "10.96.1.1:80", "203.0.113.9:22"),
            service("tcp", "[fd00:10:96::2]:80", "[2001:db8:bad::9]:22"),
            service("udp", "10.96.1.1:7", "203.0.113.9:9999"),
            service("udp", "[fd00:10:96::2]:7", "[2001:db8:bad::9]:9999"),
        ],
    )
    .unwrap();
    for to in ["10.96.1.1", "fd00:10:96::2"] {
        refused(&hosts, "TCP over a Service", &["no_route"], || ask(pod, "tcp", to, 80, &[]));
        refused(&hosts, "UDP over a Service", &["protocol"], || ask(pod, "udp", to, 7, &[]));
        let large = || ask(pod, "udp", to, 7, &["--bytes", "9000"]);
        refused(&hosts, "fragments over a Service", &["protocol", "fragment"], large);
    }
}

fn split(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host.trim_matches(['[', ']']), port.parse().unwrap())
}

/// A path whose routers have a smaller MTU than its ends: their ICMP errors must get through.
#[test]
fn icmp_errors_get_through() {
    const NARROW: &str = "1300";
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, cluster, testbed, .. } = &hosts;
    let pod = testbed.pod();
    // Each node is the narrow router of one direction; a route's MTU is no interface's.
    for (node, interface, to) in [
        (&cluster.remote, plan::POD_INTERFACE, [plan::REMOTE_POD, plan::REMOTE_POD_V6]),
        (testbed.app(), "cni0", [plan::POD, plan::POD_V6]),
    ] {
        for to in to {
            let family = if to.contains(':') { "-6" } else { "-4" };
            let mtu = ["route", "replace", to, "dev", interface, "mtu", "lock", NARROW];
            node.ns.ip(&[&[family], &mtu[..]].concat()).unwrap();
        }
    }
    for (to, back) in [(plan::REMOTE_POD, plan::POD), (plan::REMOTE_POD_V6, plan::POD_V6)] {
        let echo = ask(pod, "tcp", to, plan::PEER_ECHO, &["--bytes", "1000000"]).unwrap();
        assert!(echo.ok(), "{to}: {echo:?}");
        // Both ends were told.
        for (end, other) in [(pod, to), (&cluster.remote_pod, back)] {
            let known = end.ns.ip(&["route", "get", other]).unwrap();
            assert!(known.contains(&format!("mtu {NARROW}")), "{known}");
        }
    }

    // As traceroute does it: the hops tell of themselves, the pod's own node first.
    for (hops, router, router_v6) in
        [("1", plan::POD_ROUTER, plan::POD_ROUTER_V6), ("2", plan::REMOTE, plan::REMOTE_V6)]
    {
        for (to, router) in [(plan::REMOTE_POD, router), (plan::REMOTE_POD_V6, router_v6)] {
            let ping = pod.run("ping", &["-n", "-c1", "-W2", "-t", hops, to]).unwrap();
            let told = ping.stdout.contains(router) && ping.stdout.contains("xceeded");
            assert!(told, "{hops} hops to {to}: {ping:?}");
        }
    }
    // A closed port, at either end: dig says so at once where the error arrives.
    let closed = |from: &Place, to: &str| {
        let at = format!("@{to}");
        let dig = from.run("dig", &[&at, "-p", "9", "+tries=1", "+timeout=3", "x.test"]).unwrap();
        assert!(dig.stdout.contains("refused"), "{to}: {dig:?}");
    };
    for to in [plan::REMOTE_POD, plan::REMOTE_POD_V6] {
        closed(pod, to);
    }
    for to in [plan::POD, plan::POD_V6] {
        closed(&cluster.remote_pod, to);
    }
    assert_eq!(capture.frames(), Vec::<String>::new());

    // An ICMP error of the pod's own making is about what its receiver sent to the pod, and carries
    // nothing out.
    let error = r"import socket, struct, sys
to, quoted = sys.argv[1:]
addresses = socket.inet_aton(to) + socket.inet_aton(quoted)
quote = struct.pack('!BBHIBBH', 0x45, 0, 28, 0, 64, 17, 0) + addresses + struct.pack('!4H', 9, 9, 8, 0)
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.sendto(b'\3\4' + bytes(4) + b'\5\0' + quote, (to, 0))
sys.exit(2)";
    let send = |to, quoted| pod.run("python3", &["-c", error, to, quoted]);
    assert_eq!(send(plan::REMOTE_POD, plan::POD).unwrap().code, 2);
    for (to, quoted, reason) in [
        (plan::REMOTE_POD, plan::NEIGHBOUR, "forged_error"),
        (plan::ATTACKER, plan::NEIGHBOUR, "forged_error"),
        (plan::ATTACKER, plan::POD, "protocol"),
    ] {
        refused(&hosts, "an ICMP error", &[reason], || send(to, quoted));
    }
}

#[test]
fn neighbours_are_found_and_chatter_harms_nobody() {
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, cluster, testbed, .. } = &hosts;
    let pod = testbed.pod();
    let everybody = [pod, testbed.app(), &cluster.neighbour, &cluster.remote, &cluster.remote_pod];
    let peers = [
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_V6,
        plan::POD_ROUTER,
        plan::POD_ROUTER_V6,
        plan::REMOTE_POD,
        plan::REMOTE_POD_V6,
    ];
    let all_answer = |when: &str| {
        for to in peers {
            let ping = || pod.run("ping", &["-c1", "-W1", to]).unwrap();
            until_is(SOON, &format!("{to} {when}"), ping, Finished::ok).unwrap();
        }
    };
    for place in everybody {
        place.ns.ip(&["neigh", "flush", "all"]).unwrap();
    }
    all_answer("from scratch");
    // The other way round: the pod is asked.
    for place in everybody {
        place.ns.ip(&["neigh", "flush", "all"]).unwrap();
    }
    for to in [plan::POD, plan::POD_V6] {
        for from in [testbed.app(), &cluster.neighbour, &cluster.remote_pod] {
            let ping = || from.run("ping", &["-c1", "-W1", to]).unwrap();
            until_is(SOON, &format!("{to} to be found"), ping, Finished::ok).unwrap();
        }
    }

    // A bridge that forwards groups only to ports that reported for them: without the pod's
    // reports, nobody would find it over IPv6.
    let app = &testbed.app().ns;
    let snoop = "mcast_snooping 1 mcast_querier 1 mcast_query_interval 100 \
                 mcast_query_response_interval 50 mcast_startup_query_interval 100";
    let bridge = ["link", "set", "cni0", "type", "bridge"];
    app.ip(&bridge.into_iter().chain(snoop.split_whitespace()).collect::<Vec<_>>()).unwrap();
    let groups = || sh("bridge", &["-n", app.name(), "mdb", "show", "dev", "cni0"]).unwrap();
    let reported = |groups: &String| {
        let of_pod = |line: &str| line.contains("port pod0") && line.contains("ff02::1:ff00:10");
        groups.lines().any(of_pod)
    };
    until_is(SOON, "the pod's report", groups, reported).unwrap();
    for place in everybody {
        place.ns.ip(&["neigh", "flush", "all"]).unwrap();
    }
    let found = cluster.neighbour.run("ping", &["-c1", "-W3", plan::POD_V6]).unwrap();
    assert!(found.ok(), "{found:?}");

    // Chatter for groups (mDNS here) is refused and disturbs nothing.
    for group in ["224.0.0.251", "ff02::fb"] {
        refused(&hosts, "mDNS", &["multicast"], || ask(pod, "udp", group, 5353, &[]));
    }
    all_answer("after chatter");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

fn dig(from: &Place, server: &str, over: &str) -> anyhow::Result<Finished> {
    let at = format!("@{server}");
    from.run("dig", &[&at, "+short", over, "+tries=1", "+timeout=2", plan::HOST])
}

#[test]
fn dns_of_the_cluster_answers_over_udp_and_tcp() {
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, testbed, .. } = &hosts;
    let service =
        |protocol| Service { protocol, address: "10.96.0.53:53", endpoint: "10.244.2.10:53" };
    services::apply(testbed, &[service("udp"), service("tcp")]).unwrap();
    let (pod, on_host) = (testbed.pod(), testbed.host_network());
    for from in [pod, &on_host] {
        // On the node, and a Service's.
        for server in [plan::CLUSTER_DNS, "10.96.0.53"] {
            for over in ["+notcp", "+tcp"] {
                let answer = dig(from, server, over).unwrap();
                assert_eq!(answer.stdout.trim(), plan::WEB, "{server} {over}: {answer:?}");
            }
        }
    }
    assert_eq!(capture.frames(), Vec::<String>::new());
    for from in [pod, &on_host] {
        for server in [plan::OUTSIDE_DNS, "2001:db8::53"] {
            refused(&hosts, "DNS over UDP", &["protocol"], || dig(from, server, "+notcp"));
            refused(&hosts, "DNS over TCP", &["no_route"], || dig(from, server, "+tcp"));
        }
    }
}

/// Asks the server of its second argument whatever it is asked at the address of its first one.
const STUB: &str = r"import socket, sys
stub = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stub.bind((sys.argv[1], 53))
print('bound', flush=True)
while True:
    query, client = stub.recvfrom(4096)
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.settimeout(10)
    upstream.sendto(query, (sys.argv[2], 53))
    stub.sendto(upstream.recv(4096), client)";

/// What `docs/operations.md` says of the host's own resolver: it is on loopback, and asks whom it likes, because it
/// is no workload. One that is a workload is refused, as is a workload that asks an external resolver by itself.
#[test]
fn the_hosts_own_stub_resolver_asks_whom_it_likes() {
    const HOSTS_OWN: &str = "127.0.0.53";
    const WORKLOADS: &str = "127.0.0.54";
    let hosts = Enforced::cluster().unwrap();
    let Enforced { capture, testbed, .. } = &hosts;
    let on_host = testbed.host_network();
    let start = |place: &Place, address: &str| {
        let args = ["-c", STUB, address, plan::OUTSIDE_DNS];
        let stub = place.start(&testbed.dir(), address, "/usr/bin/python3", &args).unwrap();
        until_is(SOON, address, || stub.stdout(), |said| said.contains("bound")).unwrap();
        stub
    };
    let _stubs = [start(testbed.app(), HOSTS_OWN), start(&on_host, WORKLOADS)];

    assert_eq!(capture.take(), Vec::<String>::new());
    let answer = dig(&on_host, HOSTS_OWN, "+notcp").unwrap();
    assert_eq!(answer.stdout.trim(), plan::WEB, "{answer:?}");
    let asked = capture.take();
    let is_of_the_stub = |frame: &String| frame.contains(plan::OUTSIDE_DNS);
    assert!(!asked.is_empty() && asked.iter().all(is_of_the_stub), "{asked:#?}");

    refused(&hosts, "DNS past the stub", &["protocol"], || {
        dig(&on_host, plan::OUTSIDE_DNS, "+notcp")
    });
    refused(&hosts, "DNS of a stub that is a workload", &["protocol"], || {
        dig(&on_host, WORKLOADS, "+notcp")
    });
}
