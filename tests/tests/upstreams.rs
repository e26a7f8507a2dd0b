//! Settings of destination rules and matches of virtual services, on real traffic: how much a new endpoint gets, which
//! endpoint is set aside, when a silent connection ends, and which pods a route is for.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{cell::Cell, ops::RangeInclusive};

use egress_tests::{
    access_log,
    cluster::{self, Cluster},
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};

const GATEWAY_SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// Answers every request with 500: the port.
const FAULTY_SERVER: &str = "
import http.server, sys
class Fault(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(500)
        self.send_header('Content-Length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), Fault).serve_forever()
";

/// Holds a connection until the other side ends it: address and port.
const HOLDER: &str = "
import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
stream.settimeout(None)
stream.sendall(b'hello')
print(stream.recv(5).decode(), flush=True)
try:
    stream.recv(1)
except OSError:
    pass
print('ended', flush=True)
";

struct Site {
    /// Connections of the pod that were begun to be held.
    held: Cell<usize>,
    gateway: Process,
    _node: Process,
    testbed: Testbed,
}

impl Site {
    /// A gateway with so many workers.
    fn new(workers: usize) -> Self {
        let testbed = Testbed::test(1).unwrap();
        let gateway =
            testbed.start_gateway_with(0, &["--workers".into(), workers.to_string()]).unwrap();
        let node = testbed.start_node().unwrap();
        Self { held: Cell::new(0), gateway, _node: node, testbed }
    }

    fn apply(&self, text: &str) {
        self.testbed.apply("rules.yaml", text).unwrap();
    }

    fn stat(&self, host: &str, name: &str) -> u64 {
        self.testbed.stat(0, &format!("cluster.outbound|80||{host}.{name}")).unwrap()
    }

    /// A pod's connection that stays: what it sends comes back.
    fn holds(&self, port: u16) -> Process {
        let args = ["-c", HOLDER, plan::TCP_SERVICE, &port.to_string()];
        let start = || {
            let number = self.held.replace(self.held.get() + 1);
            let (dir, name) = (self.testbed.dir(), format!("held-{number}"));
            let held = self.testbed.pod().start(&dir, &name, "python3", &args);
            let mut held = held.unwrap();
            let known = until(SOON, "an echo, or none", || {
                let answered = held.stdout().ends_with("hello\n");
                (answered || held.ended().is_some()).then_some(answered)
            });
            known.unwrap().then_some(held)
        };
        // The configuration may not be in force yet.
        until(SOON, "a connection that stays", start).unwrap()
    }
}

/// A service entry for HTTP; the rest of its specification is indented by two.
fn entry(host: &str, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {}}}
spec:
  hosts: [{host}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
{more}---
",
        host.replace('.', "-")
    )
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {}}}
spec:
  host: {host}
  trafficPolicy: {policy}
---
",
        host.replace('.', "-")
    )
}

/// The TCP service through the gateway on these ports, where the conditions of the two stages hold besides.
fn tcp(ports: &[u16], at_mesh: &str, at_gateway: &str) -> String {
    let each = |line: &dyn Fn(&u16) -> String| ports.iter().map(line).collect::<String>();
    let entry = each(&|port| format!("  - {{number: {port}, name: tcp-{port}, protocol: TCP}}\n"));
    let servers = each(&|port| {
        let port = format!("{{number: {port}, name: tcp-{port}, protocol: TCP}}");
        format!("  - {{port: {port}, hosts: [tcp.example.com]}}\n")
    });
    let routes = each(&|port| {
        let to = |host: &str| {
            format!("route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]")
        };
        let subnets = format!("destinationSubnets: [{}/32]", plan::TCP_SERVICE);
        format!(
            "  - match: [{{gateways: [mesh], port: {port}, {subnets}{at_mesh}}}]\n    {}\n  \
             - match: [{{gateways: [egress], port: {port}{at_gateway}}}]\n    {}\n",
            to(GATEWAY_SERVICE),
            to("tcp.example.com"),
        )
    });
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: tcp}}
spec:
  hosts: [tcp.example.com]
  addresses: [{}]
  resolution: DNS
  ports:
{entry}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec:
  selector: {{istio: egressgateway}}
  servers:
{servers}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: tcp}}
spec:
  hosts: [tcp.example.com]
  gateways: [mesh, egress]
  tcp:
{routes}---
",
        plan::TCP_SERVICE
    )
}

/// An address that a host of DNS gets in addition has the part of its share that `warmup` says, whichever worker is
/// asked; without `warmup`, and when it is over, it has its whole share.
#[test]
fn a_new_address_warms_up() {
    const ROUND: usize = 20;
    const ROUNDS: usize = 10;
    /// Of 200 requests half, or one to ten: five standard deviations about 100 and about 18.
    const HALF: RangeInclusive<usize> = 65..=135;
    const LITTLE: RangeInclusive<usize> = 1..=38;
    let hosts = [
        ("even.example.com", "{loadBalancer: {simple: LEAST_REQUEST}}", HALF),
        (
            "turns.example.com",
            "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 3600s, minimumPercent: 10}}}",
            LITTLE,
        ),
        (
            "least.example.com",
            "{loadBalancer: {warmup: {duration: 3600s, minimumPercent: 10}}}",
            LITTLE,
        ),
        ("grown.example.com", "{loadBalancer: {warmup: {duration: 1s}}}", HALF),
    ];
    let site = Site::new(2);
    let mut rules = String::new();
    for (host, policy, _) in &hosts {
        site.testbed.point(host, plan::WEB).unwrap();
        rules += &entry(host, "  resolution: DNS\n");
        rules += &rule(host, policy);
    }
    site.apply(&rules);
    let mut number = 0;
    // Where the requests of one curl went. Every curl is a connection, which any of the workers takes.
    let mut ask = |host: &str| -> [usize; 2] {
        number += 1;
        let path = format!("/{number}");
        let statuses = site.testbed.pod().statuses(&format!("http://{host}{path}"), ROUND).unwrap();
        if statuses != [301; ROUND] {
            return [0; 2];
        }
        let lines = || {
            let mut lines = access_log::lines(&site.gateway.stdout());
            lines.retain(|line| line.request.starts_with(&format!("GET {path}?")));
            lines
        };
        let lines = until_is(SOON, "the log", lines, |lines| lines.len() == ROUND).unwrap();
        [plan::WEB, plan::TCP_SERVICE].map(|address| {
            lines.iter().filter(|line| line.upstream_host == format!("{address}:80")).count()
        })
    };
    for (host, ..) in &hosts {
        // Both workers know the first address.
        for _ in 0..ROUNDS {
            until_is(SOON, host, || ask(host), |went| *went == [ROUND, 0]).unwrap();
        }
    }
    for (host, ..) in &hosts {
        site.testbed.point_to_all(host, &[plan::WEB, plan::TCP_SERVICE]).unwrap();
    }
    for (host, policy, expected) in &hosts {
        until_is(SOON, "the second address", || ask(host)[1], |went| *went > 0).unwrap();
        let mut went = || (0..ROUNDS).map(|_| ask(host)[1]).sum::<usize>();
        // One second passes while it is asked.
        until_is(SOON, policy, &mut went, |went| expected.contains(went)).unwrap();
        assert!(expected.contains(&went()), "{policy}");
    }
}

/// One connection is allowed for all hosts of a wildcard. Whoever has work gets it, whichever worker and host had it.
#[test]
fn the_only_connection_of_a_wildcard_serves_every_host_and_worker() {
    let site = Site::new(2);
    let quoted = |text: String| {
        text.replace("*-example-com", "wildcard").replace("*.example.com", "'*.example.com'")
    };
    let wildcard = "*.example.com";
    let policy = "{connectionPool: {tcp: {maxConnections: 1}}}";
    let resources = entry(wildcard, "  resolution: DYNAMIC_DNS\n") + &rule(wildcard, policy);
    site.apply(&quoted(resources));
    let urls = ["http://www.example.com/", "http://tcp.example.com/"];
    let ask = |url: &str| site.testbed.curl_status(&[url]).unwrap();
    for url in urls {
        until_is(SOON, url, || ask(url), |seen| seen == "301").unwrap();
    }
    // Each curl is a connection, which any of the two workers takes.
    let seen: Vec<String> = urls.iter().cycle().take(40).map(|url| ask(url)).collect();
    assert!(seen.iter().all(|status| status == "301"), "{seen:?}\n{}", site.gateway.stdout());
    assert_eq!(site.stat(wildcard, "upstream_cx_active"), 1);
    assert!(site.stat(wildcard, "upstream_cx_total") > 2);
}

/// Failures of connections and answers with 5xx set an endpoint aside each by its own number, or by one for both.
#[test]
fn failures_of_connections_and_faulty_answers_are_counted_as_asked() {
    const FAULTY: &str = "18500";
    const REFUSING: &str = "18501";
    const COUNT: usize = 20;
    let site = Site::new(1);
    let _faulty = site.testbed.serve_python("faulty", FAULTY_SERVER, &[FAULTY]).unwrap();
    let split = |connections: u32, answers: u32| {
        format!(
            "splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: {connections}, \
             consecutive5xxErrors: {answers}"
        )
    };
    // The rule, and how many failures of connections and answers with 500 it takes; all where they do not count.
    let all = COUNT / 2;
    let cases = [
        ("connections", split(3, 0), 3, all),
        ("answers", split(1000, 4), all, 4),
        ("both", split(2, 5), 2, 5),
        ("together", "consecutive5xxErrors: 3".to_owned(), 3, 3),
    ];
    let host = |kind: &str, name: &str| format!("{kind}.{name}.example.com");
    let mut rules = String::new();
    for (name, detection, ..) in &cases {
        for (kind, port) in [("refusing", REFUSING), ("faulty", FAULTY)] {
            let host = host(kind, name);
            rules += &entry(
                &host,
                &format!(
                    "  resolution: STATIC\n  endpoints:\n  - address: {}\n  \
                     - {{address: {}, ports: {{http: {port}}}}}\n",
                    plan::WEB,
                    plan::TCP_SERVICE
                ),
            );
            let detection = format!("{detection}, baseEjectionTime: 1h, maxEjectionPercent: 100");
            rules += &rule(
                &host,
                &format!(
                    "{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{{detection}}}}}"
                ),
            );
        }
    }
    // A host that comes last, which shows that all of them are in force.
    rules += &entry("www.example.com", "  resolution: DNS\n");
    site.apply(&rules);
    let last = || site.testbed.curl_status(&["http://www.example.com/"]).unwrap();
    until_is(SOON, "the rules to be in force", last, |seen| seen == "301").unwrap();

    for (name, detection, connections, answers) in &cases {
        // DNS does not know the names; the gateway has their endpoints.
        let statuses = |host: &str| {
            let to = format!("{host}:80:{}", plan::WEB);
            let urls = format!("http://{host}/?n=[1-{COUNT}]");
            let args = ["-o", "/dev/null", "--resolve", &to, "-w", "%{http_code}\\n", &urls];
            site.testbed.curl(&args).unwrap().stdout
        };
        let refusing = host("refusing", name);
        // The next address is tried at once.
        assert_eq!(statuses(&refusing), "301\n".repeat(COUNT), "{detection}");
        let failed = site.stat(&refusing, "upstream_cx_connect_fail");
        assert_eq!(failed, u64::try_from(*connections).unwrap(), "{detection}");
        let faulty = host("faulty", name);
        let seen = statuses(&faulty);
        assert_eq!(seen.matches("500").count(), *answers, "{detection}: {seen}");
        assert_eq!(seen.matches("301").count(), COUNT - answers, "{detection}: {seen}");
        for (host, failures) in [(&refusing, connections), (&faulty, answers)] {
            let ejected = site.stat(host, "outlier_detection.ejections_active");
            assert_eq!(ejected, u64::from(*failures < all), "{host}: {detection}");
        }
    }
}

/// An endpoint that is set aside stays so while its rule is there, whatever else changes, and gets requests again as
/// soon as the rule is gone.
#[test]
fn an_endpoint_is_set_aside_as_long_as_its_rule_is_there() {
    const FAULTY: &str = "18500";
    const COUNT: usize = 20;
    const HOST: &str = "faulty.example.com";
    let site = Site::new(1);
    let _faulty = site.testbed.serve_python("faulty", FAULTY_SERVER, &[FAULTY]).unwrap();
    let service = entry(
        HOST,
        &format!(
            "  resolution: STATIC\n  endpoints:\n  - address: {}\n  \
             - {{address: {}, ports: {{http: {FAULTY}}}}}\n",
            plan::WEB,
            plan::TCP_SERVICE
        ),
    );
    let turns = "loadBalancer: {simple: ROUND_ROBIN}";
    let detection = "outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 1h, maxEjectionPercent: 100}";
    let ejecting = rule(HOST, &format!("{{{turns}, {detection}}}"));
    let elsewhere = rule("www.example.com", &format!("{{{turns}, {detection}}}"));
    let to = format!("{HOST}:80:{}", plan::WEB);
    let status = |url: &str| site.testbed.curl_status(&["--resolve", &to, url]).unwrap();
    // Of so many requests on one connection of the client, those that the endpoint answered.
    let faults = || {
        let urls = format!("http://{HOST}/?n=[1-{COUNT}]");
        let args = ["-o", "/dev/null", "--resolve", &to, "-w", "%{http_code}\\n", &urls];
        let seen = site.testbed.curl(&args).unwrap().stdout;
        let [faults, answers] = ["500\n", "301\n"].map(|status| seen.matches(status).count());
        assert_eq!(faults + answers, COUNT, "{seen}");
        faults
    };
    let ejected = || site.stat(HOST, "outlier_detection.ejections_active");
    // A host that comes last says that the rest is in force.
    let applied = |number: usize, rules: &str| {
        let last = format!("marker-{number}.example.com");
        let more = format!("  resolution: STATIC\n  endpoints:\n  - address: {}\n", plan::WEB);
        site.apply(&format!("{service}{rules}{}", entry(&last, &more)));
        let to = format!("{last}:80:{}", plan::WEB);
        let url = format!("http://{last}/");
        let seen = || site.testbed.curl_status(&["--resolve", &to, &url]).unwrap();
        until_is(SOON, "the rules to be in force", seen, |seen| seen == "301").unwrap();
    };

    applied(1, &ejecting);
    assert_eq!((faults(), ejected()), (3, 1));
    // Another rule that comes ends nothing.
    applied(2, &format!("{ejecting}{elsewhere}"));
    assert_eq!((faults(), ejected()), (0, 1));
    // The rule stays, without outlier detection.
    applied(3, &rule(HOST, &format!("{{{turns}}}")));
    assert_eq!((faults(), ejected()), (COUNT / 2, 0));
    // What comes again begins anew.
    applied(4, &ejecting);
    assert_eq!((faults(), ejected()), (3, 1));
    assert_eq!(faults(), 0);
    // The whole rule is gone.
    applied(5, "");
    until_is(
        SOON,
        "the endpoint to be asked",
        || status(&format!("http://{HOST}/")),
        |seen| seen == "500",
    )
    .unwrap();
    assert_eq!(ejected(), 0);
}

/// Seconds until the next probe on the only connection of the gateway to or from this address and port, by its timer.
fn probe_due(gateway: &Place, filter: &str) -> f64 {
    let timer = || {
        let args = ["-Htno", "state", "established", filter];
        let text = gateway.run("ss", &args).unwrap().stdout;
        let timers: Vec<_> = text.lines().filter_map(|line| line.split("timer:(").nth(1)).collect();
        let [timer] = timers[..] else { return None };
        let left = timer.strip_prefix("keepalive,")?.split(',').next()?;
        Some(seconds(left))
    };
    until(SOON, filter, timer).unwrap()
}

/// `4min59sec`, `9.5sec` or `750ms`, as `ss` writes it.
fn seconds(text: &str) -> f64 {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse::<f64>().unwrap() / 1000.0;
    }
    let (minutes, rest) = text.split_once("min").unwrap_or(("0", text));
    let rest = rest.strip_suffix("sec").filter(|rest| !rest.is_empty()).unwrap_or("0");
    minutes.parse::<f64>().unwrap() * 60.0 + rest.parse::<f64>().unwrap()
}

/// `tcpKeepalive` of the mesh and of a rule set when connections to the destination are probed. Those of pods are
/// probed as before. A destination that falls silent is noticed, where the rule says so soon, and elsewhere not yet.
#[test]
fn silent_destinations_are_probed_as_the_rule_says() {
    const PORTS: [u16; 2] = [5432, 8443];
    let site = Site::new(1);
    let gateway = site.testbed.gateway(0);
    let routes = tcp(&PORTS, "", "");
    let mesh = mesh_yaml(1);
    let keepalive =
        |settings: &str| format!("{{connectionPool: {{tcp: {{tcpKeepalive: {settings}}}}}}}");
    // The product's own, the mesh's, a rule's.
    for (name, mesh, rules, expected) in [
        ("own", mesh.clone(), routes.clone(), 60.0),
        ("mesh", format!("{mesh}tcpKeepalive: {{time: 600s}}\n"), routes.clone(), 600.0),
        (
            "rule",
            format!("{mesh}tcpKeepalive: {{time: 600s}}\n"),
            routes.clone() + &rule("tcp.example.com", &keepalive("{time: 300s}")),
            300.0,
        ),
    ] {
        site.testbed.apply_mesh(&mesh).unwrap();
        site.apply(&rules);
        let upstream = format!("dst {}", plan::TCP_SERVICE);
        let is_set = |due: &f64| (expected - 20.0..=expected).contains(due);
        let probed = || {
            let _held = site.holds(PORTS[0]);
            (probe_due(gateway, &upstream), probe_due(gateway, &format!("dst {}", plan::POD)))
        };
        let is_wanted = |(up, down): &(f64, f64)| is_set(up) && (55.0..=75.0).contains(down);
        until_is(SOON, name, probed, is_wanted).unwrap();
    }

    // Two probes, a second between them, on one port; an hour of silence on the other.
    site.testbed.apply_mesh(&mesh).unwrap();
    let [soon, late] =
        [keepalive("{time: 1s, interval: 1s, probes: 2}"), keepalive("{time: 3600s}")]
            .map(|policy| policy[1..policy.len() - 1].to_owned());
    let settings = format!(
        "{{portLevelSettings: [{{port: {{number: {}}}, {soon}}}, {{port: {{number: {}}}, {late}}}]}}",
        PORTS[0], PORTS[1]
    );
    site.apply(&(routes + &rule("tcp.example.com", &settings)));
    let due = || {
        let _held = site.holds(PORTS[1]);
        probe_due(gateway, &format!("dst {}:{}", plan::TCP_SERVICE, PORTS[1]))
    };
    until_is(SOON, "the rule to be in force", due, |due| *due > 3500.0).unwrap();
    let [soon, late] = PORTS.map(|port| site.holds(port));
    let silence = format!(
        "table ip silence {{ chain in {{ type filter hook input priority 0; ip daddr {} drop; }}; }}",
        plan::TCP_SERVICE
    );
    assert!(!soon.stdout().contains("ended"));
    assert!(site.testbed.outside().run("nft", &[&silence]).unwrap().ok());
    until(SOON, "the end of the silent connection", || {
        soon.stdout().contains("ended").then_some(())
    })
    .unwrap();
    assert!(!late.stdout().contains("ended"));
}

/// A connection that waits for the next request is probed as well: it leaves the pool when its host has fallen silent.
#[test]
fn an_idle_connection_to_a_host_that_fell_silent_leaves_the_pool() {
    const SOON_KNOWN: &str = "www.example.com";
    const LATE_KNOWN: &str = "payments.example.com";
    let site = Site::new(1);
    let keepalive = |host: &str, settings: &str| {
        let policy = format!("{{connectionPool: {{tcp: {{tcpKeepalive: {settings}}}}}}}");
        entry(host, "  resolution: DNS\n") + &rule(host, &policy)
    };
    site.apply(
        &(keepalive(SOON_KNOWN, "{time: 1s, interval: 1s, probes: 2}")
            + &keepalive(LATE_KNOWN, "{time: 3600s}")),
    );
    let connections = || {
        let page = site.testbed.admin(0, "clusters").unwrap();
        [SOON_KNOWN, LATE_KNOWN].map(|host| {
            let series = format!("outbound|80||{host}::{}:80::cx_active::", plan::WEB);
            page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
        })
    };
    for host in [SOON_KNOWN, LATE_KNOWN] {
        let ask = || site.testbed.curl_status(&[&format!("http://{host}/")]).unwrap();
        until_is(SOON, host, ask, |seen| seen == "301").unwrap();
    }
    assert_eq!(connections(), [Some(1), Some(1)]);
    let silence = format!(
        "table ip silence {{ chain in {{ type filter hook input priority 0; ip daddr {} drop; }}; }}",
        plan::WEB
    );
    assert!(site.testbed.outside().run("nft", &[&silence]).unwrap().ok());
    until_is(SOON, "the end of one", connections, |seen| seen[0] == Some(0)).unwrap();
    assert_eq!(connections(), [Some(0), Some(1)]);
    // The host is back: a connection of its own serves the next request.
    assert!(site.testbed.outside().run("nft", &["delete table ip silence"]).unwrap().ok());
    assert_eq!(site.testbed.curl_status(&[&format!("http://{SOON_KNOWN}/")]).unwrap(), "301");
}

#[test]
fn a_tcp_connection_counts_as_active_on_the_clusters_page_until_it_ends() {
    const PORT: u16 = 5432;
    let site = Site::new(1);
    site.apply(&tcp(&[PORT], "", ""));
    let series =
        format!("outbound|{PORT}||tcp.example.com::{}:{PORT}::cx_active::", plan::TCP_SERVICE);
    let active = || {
        let page = site.testbed.admin(0, "clusters").unwrap();
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
    };
    let held = [site.holds(PORT), site.holds(PORT)];
    until_is(SOON, "both", active, |seen| *seen == Some(2)).unwrap();
    let [one, other] = held;
    drop(one);
    until_is(SOON, "the other one", active, |seen| *seen == Some(1)).unwrap();
    drop(other);
    until_is(SOON, "none", active, |seen| *seen == Some(0)).unwrap();
}

/// `sourceSubnet` of a TCP match, at either stage: a pod of the subnet is served, its neighbour is not.
#[test]
fn a_tcp_route_is_for_pods_of_its_source_subnet() {
    const PORT: u16 = 5432;
    let testbed = Testbed::test(1).unwrap();
    let pods = Cluster::grow(&testbed).unwrap();
    let mesh = format!(
        "{}workloads:\n- {{name: web, namespace: shop, addresses: [{}], interface: {}}}\n\
         - {{name: job, namespace: shop, addresses: [{}], interface: {}}}\n",
        mesh_yaml(1).replace("direct: registry\n", ""),
        plan::POD,
        plan::POD_INTERFACE,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_INTERFACE,
    );
    testbed.apply_mesh(&mesh).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&pods.node_args(&testbed)).unwrap();
    let is_served = |from: &Place| {
        let asked = cluster::ask(from, "tcp", plan::TCP_SERVICE, PORT, &[]).unwrap();
        asked.ok()
    };
    let served = || [testbed.pod(), &pods.neighbour].map(is_served);
    // 10.244.1.10 is in the first, 10.244.1.20 in the second; a single address is a subnet too.
    let cases = [
        ("", [true, true]),
        (", sourceSubnet: 10.244.1.0/28", [true, false]),
        (", sourceSubnet: 10.244.1.16/28", [false, true]),
        (", sourceSubnet: 10.244.1.10", [true, false]),
        (", sourceSubnet: 10.244.2.0/24", [false, false]),
    ];
    assert_eq!(served(), [false, false]);
    for (condition, expected) in cases {
        for (at_mesh, at_gateway) in [(condition, ""), ("", condition)] {
            testbed.apply("rules.yaml", &tcp(&[PORT], at_mesh, at_gateway)).unwrap();
            let what = format!("mesh {at_mesh:?}, gateway {at_gateway:?}");
            until_is(SOON, &what, served, |served| *served == expected).unwrap();
        }
    }
}
