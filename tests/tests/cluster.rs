//! Bypass techniques that a cluster offers: workloads without an interface of their own or with
//! more than one, Services and NAT rules that lead outward, the gateway's own ports and addresses.
//! Each is tried first where nothing enforces, and gets out.
//!
//! Packet sockets of workloads on the host's network are in `sockets.rs`; how each empty selector,
//! empty list and unknown value is told is in the tests of `egress-agent`'s `config`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use anyhow::Result;
use egress_tests::{
    cgroup,
    cluster::{Cluster, ask},
    denied::{Wall, all_get_out, attempt},
    manifests::Walkthrough,
    plan,
    process::{Finished, Place},
    services::{self, Service},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until_is},
};

/// An echo of UDP at the attacker's.
fn udp(from: &Place, to: &str) -> Result<Finished> {
    ask(from, "udp", to, plan::UDP_PORT, &[])
}

fn tcp(from: &Place, to: &str) -> Result<Finished> {
    ask(from, "tcp", to, 22, &[])
}

/// Asks a peer inside, who must answer.
fn answers(from: &Place, to: &str, more: &[&str]) {
    for protocol in ["tcp", "udp"] {
        let done = ask(from, protocol, to, plan::PEER_ECHO, more).unwrap();
        assert!(done.ok(), "{protocol} to {to}: {done:?}");
    }
}

#[test]
fn a_pod_on_the_hosts_network_gets_no_further_than_another() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let pod = testbed.host_network();
    // A group of its own making, below the pod's.
    let below = pod.cgroup.join("below");
    cgroup::create(&below).unwrap();
    let below = Place { cgroup: below, ..pod.clone() };
    let service = |protocol, address, endpoint| Service { protocol, address, endpoint };
    let outward = [
        service("tcp", "10.96.1.1:22", "203.0.113.9:22"),
        service("udp", "10.96.1.1:9999", "203.0.113.9:9999"),
    ];
    services::apply(&testbed, &outward).unwrap();

    let (system_call, packet): (&[&str], &[&str]) = (&["connect", "sendmsg"], &["skb"]);
    let mut attempts = vec![
        attempt("UDP-Lite", &["sendmsg", "skb"], &["protocol"], || {
            testbed.probe_from(&pod, &["udplite", plan::ATTACKER, "9999"])
        }),
        attempt("raw IP", packet, &["protocol"], || {
            testbed.probe_from(&pod, &["raw-ip", plan::ATTACKER, "9999"])
        }),
        attempt("TCP over a Service", packet, &["no_route"], || tcp(&pod, "10.96.1.1")),
        attempt("UDP over a Service", packet, &["protocol"], || udp(&pod, "10.96.1.1")),
        // A host inside would answer to the outside, on the attacker's behalf.
        attempt("a forged source", packet, &["spoofed_source"], || {
            testbed.frame(&pod, &["raw", "-", "echo", plan::ATTACKER, plan::REMOTE])
        }),
        // So would who is asked for its hardware address, at the one that the question gives.
        attempt(
            "a question for another node's hardware address",
            packet,
            &["spoofed_source"],
            || {
                let raw = format!("raw:{}", plan::UPLINK);
                let to =
                    [raw.as_str(), plan::OUTSIDE_MAC, "ask", plan::ATTACKER_V6, plan::REMOTE_V6];
                testbed.frame(&pod, &to)
            },
        ),
        attempt("a forged source, to the node", packet, &["spoofed_source"], || {
            testbed.frame(&pod, &["raw", "-", "echo", plan::ATTACKER, plan::APP])
        }),
    ];
    for from in [&pod, &below] {
        for to in [plan::ATTACKER, plan::ATTACKER_V6] {
            let name = from.cgroup.display();
            let routes: &[&str] = &["no_route"];
            attempts.extend([
                attempt(format!("TCP to {to} of {name}"), system_call, routes, || tcp(from, to)),
                attempt(format!("UDP to {to} of {name}"), system_call, &["protocol"], || {
                    udp(from, to)
                }),
                attempt(format!("ping to {to} of {name}"), &[], &["protocol"], || {
                    from.run("ping", &["-c1", "-W1", to])
                }),
            ]);
        }
    }
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    for ns in [&testbed.app().ns, &cluster.remote.ns] {
        ns.forget_neighbour(plan::ATTACKER_V6).unwrap();
    }
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();

    // Inside everything is as it was; and it is the workload that is judged, not its host.
    for to in [plan::REMOTE_POD, plan::REMOTE_POD_V6, plan::NEIGHBOUR] {
        answers(&pod, to, &[]);
    }
    assert_eq!(capture.take(), Vec::<String>::new());
    assert!(udp(testbed.app(), plan::ATTACKER).unwrap().ok());
}

/// A macvlan interface on the uplink and one by another veth, as Multus gives them to pods. The
/// enforcement point at the pod's interface doesn't see what leaves by these.
#[test]
fn a_second_interface_is_no_way_out() {
    const MAC: &str = "02:00:0a:0a:00:50";
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let (app, pod) = (&testbed.app().ns, testbed.pod());
    app.ip(&[
        "link",
        "add",
        "mv0",
        "link",
        plan::UPLINK,
        "address",
        MAC,
        "type",
        "macvlan",
        "mode",
        "bridge",
    ])
    .unwrap();
    app.ip(&["link", "set", "mv0", "netns", pod.ns.name(), "name", "net1"]).unwrap();
    app.ip(&[
        "link",
        "add",
        "extra0",
        "type",
        "veth",
        "peer",
        "name",
        "net2",
        "netns",
        pod.ns.name(),
    ])
    .unwrap();
    app.ip(&["addr", "add", "10.244.77.1/24", "dev", "extra0"]).unwrap();
    app.ip(&["link", "set", "extra0", "up"]).unwrap();
    testbed.outside().ns.ip(&["route", "add", "10.244.77.0/24", "via", plan::APP]).unwrap();
    for (interface, address) in
        [("net1", "10.10.0.50/24"), ("net1", "fd00:10:10::50/64"), ("net2", "10.244.77.2/24")]
    {
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        pod.ns.ip(&[&["addr", "add", address, "dev", interface], nodad].concat()).unwrap();
        pod.ns.ip(&["link", "set", interface, "up"]).unwrap();
    }
    // A network behind the pod, which forwards for it.
    let inner = testbed.inner(pod, "inner", "10.99.0").unwrap();
    let by = |interface: &'static str, to: &'static str| {
        let via = match (interface, to.contains(':')) {
            ("net1", false) => plan::ROUTER,
            ("net1", true) => plan::ROUTER_V6,
            _ => "10.244.77.1",
        };
        let family = if to.contains(':') { "-6" } else { "-4" };
        pod.ns.ip(&[family, "route", "replace", to, "via", via, "dev", interface]).map(|_| to)
    };
    // Processes that aren't in the pod's group, so that only the uplink judges.
    let elsewhere = testbed.outside_cgroup();
    let uplink: &[&str] = &["uplink"];
    let frame = |kind| ["net1", plan::OUTSIDE_MAC, kind, "10.10.0.50", plan::ATTACKER, "9999"];
    let attempts = [
        attempt("TCP by macvlan", &["connect"], &["no_route"], || {
            tcp(pod, by("net1", plan::ATTACKER)?)
        }),
        attempt("IPv6 by macvlan", &["connect"], &["no_route"], || {
            tcp(pod, by("net1", plan::ATTACKER_V6)?)
        }),
        attempt("a packet socket's frame", uplink, &["protocol"], || {
            testbed.frame(pod, &frame("udp"))
        }),
        // Nor does the node's own address make it the node's, or a client's port a DHCP client's.
        attempt("a frame in the uplink's name", uplink, &["protocol"], || {
            testbed.frame(&elsewhere, &[&frame("udp")[..], &[plan::APP_MAC]].concat())
        }),
        attempt("a DHCP request to the outside", uplink, &["protocol"], || {
            testbed.frame(&elsewhere, &frame("dhcp"))
        }),
        attempt("a DHCP request to the link", uplink, &["multicast"], || {
            let [interface, hardware, kind, ..] = frame("dhcp");
            let to = [interface, hardware, kind, "0.0.0.0", "255.255.255.255", "67"];
            testbed.frame(&elsewhere, &to)
        }),
        attempt("a DHCP request in the uplink's name", uplink, &["protocol"], || {
            testbed.frame(&elsewhere, &[&frame("dhcp")[..], &[plan::APP_MAC]].concat())
        }),
        // Nobody told the agent who is behind that one.
        attempt("TCP by a veth", uplink, &["unknown_workload"], || {
            tcp(&elsewhere, by("net2", plan::ATTACKER)?)
        }),
        attempt("UDP by a veth", uplink, &["unknown_workload"], || {
            udp(&elsewhere, by("net2", plan::ATTACKER)?)
        }),
        attempt("TCP forwarded", uplink, &["no_route"], || {
            by("net1", plan::ATTACKER)?;
            tcp(&inner, plan::ATTACKER)
        }),
        attempt("UDP forwarded", uplink, &["protocol"], || {
            by("net1", plan::ATTACKER)?;
            udp(&inner, plan::ATTACKER)
        }),
        attempt("UDP of another group", uplink, &["protocol"], || {
            udp(&elsewhere, by("net1", plan::ATTACKER)?)
        }),
        // A host inside is asked in the attacker's name, and would answer him.
        attempt("an echo of a host inside", uplink, &["spoofed_source"], || {
            let [interface, _, _, ..] = frame("echo");
            let to = [interface, plan::REMOTE_MAC, "echo", plan::ATTACKER, plan::REMOTE];
            testbed.frame(&elsewhere, &to)
        }),
        attempt("a datagram to a host inside", uplink, &["spoofed_source"], || {
            let [interface, _, _, ..] = frame("udp");
            let to = [interface, plan::REMOTE_MAC, "udp", plan::ATTACKER, plan::REMOTE, "9"];
            testbed.frame(&elsewhere, &to)
        }),
        attempt("a question for a neighbour", uplink, &["spoofed_source"], || {
            let [interface, router, ..] = frame("ask");
            let to = [interface, router, "ask", plan::ATTACKER_V6, plan::REMOTE_V6];
            testbed.frame(&elsewhere, &to)
        }),
        // The pod's own system is asked in the attacker's name, and would answer him.
        attempt("an echo reply", uplink, &["protocol"], || {
            by("net1", plan::ATTACKER)?;
            testbed.frame(pod, &["lo", "00:00:00:00:00:00", "echo", plan::ATTACKER, "10.10.0.50"])
        }),
    ];
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    for ns in [&testbed.app().ns, &cluster.remote.ns] {
        ns.forget_neighbour(plan::ATTACKER_V6).unwrap();
    }
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();

    // The inside is reached by either.
    by("net2", plan::APP).unwrap();
    for (from, to) in [("10.10.0.50", plan::REMOTE), ("10.244.77.2", plan::APP)] {
        answers(pod, to, &["--from", from]);
    }
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// A Service, an external IP, a node's port or any other rule of the node that leads outward: the
/// pod's enforcement point sees an in-cluster address, the uplink what became of it.
#[test]
fn services_with_endpoints_outside_lead_nowhere() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let pod = testbed.pod();
    let service = |protocol, address, endpoint| Service { protocol, address, endpoint };
    let outward = [
        service("tcp", "10.96.1.1:80", "203.0.113.9:22"),
        service("udp", "10.96.1.1:7", "203.0.113.9:9999"),
        service("tcp", "[fd00:10:96::1]:80", "[2001:db8:bad::9]:22"),
        service("udp", "[fd00:10:96::1]:7", "[2001:db8:bad::9]:9999"),
        // An external IP of the inside, and a node's port.
        service("tcp", "10.10.0.77:80", "203.0.113.9:22"),
        service("tcp", "10.10.0.1:30080", "203.0.113.9:22"),
        // A name's address that a route serves, but not by this way; and the cloud's metadata.
        service("tcp", "10.96.1.2:443", "198.51.100.10:443"),
        service("tcp", "10.96.1.3:80", "169.254.169.254:22"),
        // The gateway's own ports.
        service("tcp", "10.96.1.4:80", "10.10.0.11:15000"),
        service("udp", "10.96.1.4:7", "10.10.0.11:15008"),
    ];
    services::apply(&testbed, &outward).unwrap();
    let reasons = |endpoint: &str| -> &'static [&'static str] {
        match endpoint {
            "198.51.100.10:443" => &["not_redirected"],
            "169.254.169.254:22" => &["denied_prefix"],
            gateway if gateway.starts_with("10.10.0.11") => &["gateway_port"],
            _ => &["no_route", "protocol"],
        }
    };
    let attempts = outward.map(|Service { protocol, address, endpoint }| {
        let (to, port) = address.rsplit_once(':').unwrap();
        let (to, port) = (to.trim_matches(['[', ']']), port.parse().unwrap());
        let what = format!("{protocol} {address} to {endpoint}");
        attempt(what, &["uplink"], reasons(endpoint), move || ask(pod, protocol, to, port, &[]))
    });
    let capture = testbed.capture().unwrap();
    // The gateway isn't outside, and has no such ports yet.
    all_get_out(&capture, &attempts[..8]).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_all(&attempts).unwrap();

    // An external IP of the outside is refused before it could lead inside.
    let inward = service("tcp", "203.0.113.77:22", "10.244.1.20:7007");
    let inside = service("tcp", "10.96.1.1:80", "10.244.2.10:7007");
    let egress = service("tcp", "10.96.1.5:443", "10.10.0.11:443");
    services::apply(&testbed, &[inward, inside, egress]).unwrap();
    let external = || ask(pod, "tcp", "203.0.113.77", 22, &[]);
    wall.stops_at(&["connect"], "an external IP", &["no_route"], external).unwrap();
    // The twin of the first, and the gateway's own Service.
    assert!(ask(pod, "tcp", "10.96.1.1", 80, &[]).unwrap().ok());
    // By either, and without a redirect, it decides by name.
    for to in ["::10.96.1.5:443", "::10.10.0.11:443"] {
        let by = |url| testbed.curl_status(&["-k", "--connect-to", to, url]).unwrap();
        assert_eq!(by("https://edition.cnn.com/"), "200", "{to}");
        assert_eq!(by("https://evil.example.net/"), "curl: (35)", "{to}");
    }
    assert_eq!(served(), "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// Names that lead to where the gateway must not go, from the gateway's own place in the network.
const TRAPS: &[&str] = &[
    "inside",
    "inside-v6",
    "pod",
    "loopback",
    "loopback-v6",
    "unspecified",
    "link-local",
    "link-local-v6",
    "metadata",
    "metadata-v6",
    "multicast",
    "broadcast",
    "gateway",
    "mapped",
    "mapped-metadata",
    "nat64",
    "nat64-local",
    "sixtofour",
    "teredo",
    "siit",
    "compatible",
    "isatap",
    "isatap-metadata",
    "node",
];

#[test]
fn the_gateway_goes_to_no_inside_address_whatever_a_name_resolves_to() {
    let testbed = Testbed::test(1).unwrap();
    // The most that policy can allow: any host, on any port. A node has an address outside, where it would
    // be reached.
    let node = format!(
        "nodes: [{{name: app, principal: spiffe://cluster.local/ns/n/sa/s, addresses: [{}, {}]}}]\n",
        plan::APP,
        plan::NODE_OUTSIDE
    );
    let any = mesh_yaml(1).replace("REGISTRY_ONLY", "ALLOW_ANY");
    testbed.apply_mesh(&format!("{any}{node}")).unwrap();
    let outside = format!("{}/32", plan::NODE_OUTSIDE);
    testbed.app().ns.ip(&["addr", "add", &outside, "dev", "lo"]).unwrap();
    testbed.outside().ns.ip(&["route", "add", &outside, "via", plan::APP]).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let ask = |url: &str| {
        let to = format!("::{}", plan::ATTACKER);
        testbed.curl(&["-w", " %{http_code}", "--connect-to", &to, url]).unwrap().stdout
    };
    let allowed = || ask("http://www.example.com/plain");
    until_is(SOON, "an ordinary name", allowed, |said| said.ends_with(" 200")).unwrap();
    testbed.record().take();

    let names = TRAPS.iter().map(|name| format!("{name}.trap.example.com"));
    // An address in place of a name is one of these, too.
    let literals = [
        "169.254.169.254",
        "10.96.0.10",
        "127.0.0.1",
        "10.10.0.11",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a0a:b]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:10:10::1]",
    ];
    for host in names.chain(literals.map(str::to_owned)) {
        for port in ["", ":15000", ":15021", ":8443"] {
            let url = format!("http://{host}{port}/latest/meta-data/");
            let said = ask(&url);
            let refused = said.ends_with(" 403") && said.contains("refused");
            assert!(refused || (said.ends_with(" 000") && !port.is_empty()), "{url}: {said:?}");
        }
        let tls = testbed
            .curl_status(&[
                "-k",
                "--connect-to",
                &format!("::{}", plan::ATTACKER),
                &format!("https://{host}/"),
            ])
            .unwrap();
        assert!(tls.starts_with("curl: (35)"), "{host}: {tls}");
    }
    assert_eq!(testbed.record().take(), Vec::new());
    assert_eq!(allowed().split(' ').next_back(), Some("200"));
    assert_eq!(capture.frames(), Vec::<String>::new());
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

#[test]
fn tunnel_and_admin_ports_are_for_no_pod() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply_mesh(&mesh_yaml(1).replace("REGISTRY_ONLY", "ALLOW_ANY")).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    let (pod, elsewhere, on_host) =
        (testbed.pod(), testbed.outside_cgroup(), testbed.host_network());
    let mut attempts = Vec::new();
    for port in [15008, 15000, 15021, 15090] {
        for protocol in ["tcp", "udp"] {
            for (from, hooks) in [
                (pod, &["connect", "sendmsg"] as &[&str]),
                (&elsewhere, &["pod"]),
                (&on_host, &["connect", "sendmsg"]),
            ] {
                let what = format!("{protocol} to port {port} at {hooks:?}");
                attempts.push(attempt(what, hooks, &["gateway_port"], move || {
                    ask(from, protocol, plan::GATEWAYS[0], port, &[])
                }));
            }
            // The same port elsewhere is refused too.
            let what = format!("{protocol} to port {port} outside");
            attempts.push(attempt(what, &[], &["no_route", "protocol"], move || {
                ask(pod, protocol, plan::ATTACKER, port, &[])
            }));
        }
    }
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();
    // They are there: the node itself gets through.
    let ready = format!("http://{}:15021/healthz/ready", plan::GATEWAYS[0]);
    assert!(testbed.app().run("curl", &["-sf", "-m5", &ready]).unwrap().ok());
    assert_eq!(served(), "200");
}

/// A count of the node's metrics.
fn counted(testbed: &Testbed, series: &str) -> Option<u64> {
    let metrics = testbed.node_metrics().ok()?;
    let line = metrics.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Mistakes in `mesh.yaml` that a careless reading would take for "all": what is refused of it, and
/// what the agent says.
const MISTAKES: &[(&str, &str)] = &[
    ("enforcementOverrides: [{name: a, mode: audit}]", "selects nothing"),
    ("enforcementOverrides: [{name: a, labels: {}, mode: audit}]", "selects nothing"),
    ("enforcementOverrides: [{name: a, namespaces: [], mode: audit}]", "no namespaces"),
    ("enforcementOverrides: [{name: a, namespaces: [dev], mode: exempt}]", "enforce audit"),
    ("enforcement: off", "enforce audit"),
    ("direct: all", "deny registry"),
    ("outboundTrafficPolicy: {mode: ALLOW}", "ALLOW"),
];

#[test]
fn what_is_empty_or_unknown_means_nothing() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let pod = testbed.pod();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let good = format!(
        "{}workloads:\n- name: job\n  namespace: dev\n  addresses: [{}, \"{}\"]\n  cgroups: [{}]\n",
        mesh_yaml(1),
        plan::POD,
        plan::POD_V6,
        cgroup::below_mount(&pod.cgroup).unwrap()
    );
    testbed.apply_mesh(&good).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    let inside = || ask(pod, "udp", plan::REMOTE, plan::PEER_ECHO, &[]).unwrap().code;
    let outside = || udp(pod, plan::ATTACKER).unwrap().code;
    let attempts = [
        attempt("TCP", &["connect"], &["no_route"], || tcp(pod, plan::ATTACKER)),
        attempt("UDP", &["sendmsg"], &["protocol"], || udp(pod, plan::ATTACKER_V6)),
    ];
    let all_is_well = || {
        until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
        until_is(SOON, "the inside", inside, |code| *code == 0).unwrap();
        until_is(SOON, "the outside to be denied", outside, |code| *code != 0).unwrap();
        capture.take();
        wall.stops_all(&attempts).unwrap();
    };
    all_is_well();

    // Refused: the last good one stays.
    for (mistake, said) in MISTAKES {
        let key = mistake.split(':').next().unwrap();
        let mut lines: Vec<&str> = good.lines().collect();
        if let Some(at) = lines.iter().position(|line| line.starts_with(key)) {
            let nested = lines[at + 1..].iter().take_while(|line| line.starts_with("  ")).count();
            lines.drain(at..=at + nested);
        }
        lines.push(mistake);
        let rejected = || counted(&testbed, "egress_config_reloads_total{result=\"rejected\"}");
        let (before, from) = (rejected(), node.stderr().len());
        testbed.apply_mesh(&lines.join("\n")).unwrap();
        until_is(SOON, mistake, rejected, |now| *now > before).unwrap();
        let told = || node.stderr()[from..].contains(said);
        until_is(SOON, &format!("{mistake}: {said}"), told, |told| *told).unwrap();
        all_is_well();
    }

    // A set that selects nobody sets no mode; with the pod in it, it is.
    let batch = |namespace: &str| {
        let set = format!("{{name: batch, namespaces: [{namespace}], mode: audit}}");
        testbed.apply_mesh(&format!("{good}enforcementOverrides: [{set}]\n")).unwrap();
        let mode = || counted(&testbed, "egress_enforcement_mode{set=\"batch\",mode=\"audit\"}");
        until_is(SOON, "the set", mode, |mode| *mode == Some(1)).unwrap();
    };
    batch("nobody");
    all_is_well();
    batch("dev");
    until_is(SOON, "audit mode", outside, |code| *code == 0).unwrap();
    testbed.apply_mesh(&good).unwrap();
    all_is_well();

    // No networks are inside: none is reached but by the gateway.
    let line = good.lines().find(|line| line.starts_with("clusterCidrs: ")).unwrap();
    testbed.apply_mesh(&good.replace(line, "clusterCidrs: []")).unwrap();
    until_is(SOON, "the inside to be denied", inside, |code| *code != 0).unwrap();
    capture.take();
    wall.stops_all(&attempts).unwrap();
    testbed.apply_mesh(&good).unwrap();
    all_is_well();

    // A gateway without endpoints: no way at all.
    let endpoints = format!("endpoints: [{}]", plan::GATEWAYS[0]);
    testbed.apply_mesh(&good.replace(&endpoints, "endpoints: []")).unwrap();
    until_is(SOON, "the allowed way to be shut", served, |seen| seen != "200").unwrap();
    wall.stops_all(&attempts).unwrap();
    testbed.apply_mesh(&good).unwrap();
    all_is_well();
}
