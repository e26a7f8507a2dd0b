//! Whose resources count for whose requests, on real traffic: two workloads in two namespaces, and a gateway in a third
//! one. What leaves with TLS, what leaves in clear, and what is refused because the TLS that a rule asks for cannot be
//! had.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    cluster::Cluster,
    outside::Seen,
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};
use serde_json::Value;

const GATEWAY_SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";
/// The namespaces of the pod and of its neighbour.
const TEAMS: [&str; 2] = ["team-a", "team-b"];
/// Below this the external web server has a certificate for every name.
const DOMAIN: &str = "wild.example.com";
const SIMPLE: &str = "trafficPolicy: {tls: {mode: SIMPLE}}";
const CLEAR: &str = "trafficPolicy: {tls: {mode: DISABLE}}";
const NO_TLS: &str = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";

/// Answers every request with its second argument: the port and the answer.
const NAMED_SERVER: &str = "
import http.server, sys
class Named(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(self.headers['Host'] + self.path, flush=True)
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), Named).serve_forever()
";
/// The ports of two such servers, which answer `first` and `second`.
const FIRST: u16 = 18500;
const SECOND: u16 = 18501;

/// The pod is a workload of the first namespace, its neighbour one of the second.
struct Site {
    gateway: Process,
    _node: Process,
    servers: [Process; 2],
    pods: Cluster,
    testbed: Testbed,
}

impl Site {
    /// The rules are in force from the beginning.
    fn new(rules: &str, points: &[&'static str]) -> Self {
        let testbed = Testbed::test(1).unwrap();
        let pods = Cluster::grow(&testbed).unwrap();
        let [first, second] = TEAMS;
        let mesh = format!(
            "{}accessLogEncoding: JSON\nworkloads:\n\
             - {{name: w, namespace: {first}, addresses: [{}], interface: {}}}\n\
             - {{name: w, namespace: {second}, addresses: [{}], interface: {}}}\n",
            mesh_yaml(1).replace("direct: registry\n", ""),
            plan::POD,
            plan::POD_INTERFACE,
            plan::NEIGHBOUR,
            plan::NEIGHBOUR_INTERFACE,
        );
        testbed.apply_mesh(&mesh).unwrap();
        testbed.apply("rules.yaml", rules).unwrap();
        for host in points {
            testbed.point(host, plan::WEB).unwrap();
        }
        let servers = [("first", FIRST), ("second", SECOND)].map(|(name, port)| {
            testbed.serve_python(name, NAMED_SERVER, &[&port.to_string(), name]).unwrap()
        });
        let own = ["--namespace", "egress-system"].map(str::to_owned);
        let gateway = testbed.start_gateway_with(0, &own).unwrap();
        let node = testbed.start_node_with(&pods.node_args(&testbed)).unwrap();
        // Until the first answer to its health check the node refuses what is routed to the gateway.
        let healthy = |metrics: &String| {
            let is =
                |line: &str| line.starts_with("egress_gateway_healthy{") && line.ends_with(" 1");
            metrics.lines().any(is)
        };
        let metrics = || testbed.node_metrics().unwrap();
        until_is(SOON, "the gateway to be healthy", metrics, healthy).unwrap();
        Self { gateway, _node: node, servers, pods, testbed }
    }

    fn places(&self) -> [&Place; 2] {
        [self.testbed.pod(), &self.pods.neighbour]
    }

    /// The bodies, and then the statuses, of requests from a namespace; DNS does not know the hosts.
    fn asks(&self, team: &str, host: &str, port: u16, path: &str) -> String {
        let place = self.places()[TEAMS.iter().position(|known| *known == team).unwrap()];
        let (to, url) =
            (format!("{host}:{port}:{}", plan::WEB), format!("http://{host}:{port}{path}"));
        let args = ["-s", "-m", "10", "--resolve", &to, "-w", "\n%{http_code} %{redirect_url}\n"];
        place.run("curl", &[&args[..], &[&url]].concat()).unwrap().stdout
    }

    /// The requests that the two named servers had, host and path.
    fn served(&self) -> [Vec<String>; 2] {
        self.servers.each_ref().map(|server| server.stdout().lines().map(Into::into).collect())
    }

    /// That is what they had. A server's line follows its answer.
    fn have_served(&self, expected: &[Vec<String>; 2]) {
        let what = "what the servers had";
        until_is(SOON, what, || self.served(), |served| served == expected).unwrap();
    }

    /// The line of the gateway's log for the only request for this.
    fn logged(&self, host: &str, path: &str) -> Value {
        let is_it = |line: &Value| {
            let authority = line["authority"].as_str().unwrap_or_default();
            authority.split(':').next() == Some(host) && line["path"] == path
        };
        let find = || {
            let text = self.gateway.stdout();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(is_it)
        };
        until(SOON, &format!("a line for {host}{path}"), find).unwrap()
    }

    /// The only request for this is refused at the gateway, for this reason, and nothing is dialled.
    fn is_refused(&self, host: &str, path: &str, answer: &str, reason: &str) {
        let line = self.logged(host, path);
        assert!(answer.ends_with("\n403 \n") && answer.contains(reason), "{host}: {answer}");
        assert_eq!(line["response_code"], 403, "{line}");
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["response_flags"], "NR", "{line}");
        assert_eq!(line["upstream_host"], Value::Null, "{line}");
        assert_eq!(line["upstream_cluster"], "BlackHoleCluster", "{line}");
    }
}

/// A resource as `NAMESPACE/NAME`; `more` is more of its metadata.
fn dated(kind: &str, full: &str, more: &str, spec: &str) -> String {
    let (namespace, name) = full.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}{more}}}\nspec: {spec}\n---\n"
    )
}

fn resource(kind: &str, full: &str, spec: &str) -> String {
    dated(kind, full, "", spec)
}

fn host(name: &str) -> String {
    format!("{name}.{DOMAIN}")
}

/// A service entry with this port; the rest of its specification begins with a comma.
fn entry(full: &str, host: &str, port: u16, more: &str) -> String {
    let ports = format!("ports: [{{number: {port}, name: http, protocol: HTTP}}]");
    resource("ServiceEntry", full, &format!("{{hosts: ['{host}'], {ports}{more}}}"))
}

/// That host is at this port of the external web server's address.
fn at(port: u16) -> String {
    format!(
        ", resolution: STATIC, endpoints: [{{address: {}, ports: {{http: {port}}}}}]",
        plan::WEB
    )
}

fn rule(full: &str, host: &str, more: &str) -> String {
    resource("DestinationRule", full, &format!("{{host: '{host}', {more}}}"))
}

fn servers(ports: &[u16]) -> String {
    let server = |port: &u16| {
        format!("{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: ['*']}}")
    };
    let servers = ports.iter().map(server).collect::<Vec<_>>().join(", ");
    let spec = format!("{{selector: {{istio: egressgateway}}, servers: [{servers}]}}");
    resource("Gateway", "istio-system/egress", &spec)
}

/// Leads a host through the gateway on these ports; `first` are rules that come first.
fn through(host: &str, ports: &[u16], first: &str) -> String {
    let each = |port: &u16| {
        let to = |host: &str, subset: &str| {
            format!(
                "route: [{{destination: {{host: '{host}', port: {{number: {port}}}{subset}}}}}]"
            )
        };
        format!(
            "{{match: [{{gateways: [mesh], port: {port}}}], {}}}, \
             {{match: [{{gateways: [istio-system/egress], port: {port}}}], {}}}",
            to(GATEWAY_SERVICE, ""),
            to(host, ""),
        )
    };
    let rules = ports.iter().map(each).collect::<Vec<_>>().join(", ");
    format!("{{hosts: ['{host}'], gateways: [mesh, istio-system/egress], http: [{first}{rules}]}}")
}

fn routes(full: &str, host: &str) -> String {
    resource("VirtualService", full, &through(host, &[80], ""))
}

/// How a request leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Tls,
    Clear,
    /// Not at all, and these rules are named.
    Refused(&'static [&'static str]),
}

/// Rules for one host, whose service entry and routes are in the first namespace, and how requests of each namespace
/// leave.
struct Case {
    name: &'static str,
    rules: &'static [(&'static str, &'static str, &'static str)],
    leaves: [Leaves; 2],
}

const fn case(
    name: &'static str,
    rules: &'static [(&'static str, &'static str, &'static str)],
    leaves: Leaves,
) -> Case {
    Case { name, rules, leaves: [leaves; 2] }
}

/// The look-up order is Istio's: the gateway's own namespace, the service's, the root namespace.
const LOOK_UP: &[Case] = &[
    case("none", &[], Leaves::Clear),
    case("gateways", &[("egress-system/r1", SIMPLE, "")], Leaves::Tls),
    case("services", &[("team-a/r2", SIMPLE, "")], Leaves::Tls),
    case("root", &[("istio-system/r3", SIMPLE, "")], Leaves::Tls),
    case(
        "gateways-first",
        &[
            ("egress-system/r4", SIMPLE, ""),
            ("team-a/s4", CLEAR, ""),
            ("istio-system/t4", CLEAR, ""),
        ],
        Leaves::Tls,
    ),
    case(
        "gateways-clear",
        &[("egress-system/r5", CLEAR, ""), ("team-a/s5", SIMPLE, "")],
        Leaves::Clear,
    ),
    case(
        "services-second",
        &[("team-a/r6", SIMPLE, ""), ("istio-system/s6", CLEAR, "")],
        Leaves::Tls,
    ),
    case(
        "services-clear",
        &[("team-a/r7", CLEAR, ""), ("istio-system/s7", SIMPLE, "")],
        Leaves::Clear,
    ),
    case(
        "exported-to-gateway",
        &[("team-a/r8", SIMPLE, ", exportTo: [egress-system]")],
        Leaves::Tls,
    ),
    // A rule that the gateway does not see takes the place of none.
    case(
        "unseen-clear",
        &[("team-a/r9", CLEAR, ", exportTo: ['.']"), ("istio-system/s9", SIMPLE, "")],
        Leaves::Tls,
    ),
];

/// A rule that asks for TLS and cannot be applied refuses the destination, and each has its twin that can be.
const UNAVAILABLE: &[Case] = &[
    case("hidden", &[("team-a/u1", SIMPLE, ", exportTo: ['.']")], Leaves::Refused(&["team-a/u1"])),
    case(
        "elsewhere",
        &[("team-a/u2", SIMPLE, ", exportTo: [team-b]")],
        Leaves::Refused(&["team-a/u2"]),
    ),
    case(
        "overruled",
        &[("egress-system/u3", NO_TLS, ""), ("team-a/v3", SIMPLE, "")],
        Leaves::Refused(&["egress-system/u3", "team-a/v3"]),
    ),
    // Of a third namespace, it is for that namespace's workloads alone.
    Case {
        name: "third",
        rules: &[("team-b/u4", SIMPLE, "")],
        leaves: [Leaves::Clear, Leaves::Refused(&["team-b/u4"])],
    },
    case(
        "conflict",
        &[("team-a/a5", NO_TLS, ""), ("team-a/b5", SIMPLE, "")],
        Leaves::Refused(&["team-a/a5", "team-a/b5"]),
    ),
    case("conflict-clear", &[("team-a/a6", CLEAR, ""), ("team-a/b6", SIMPLE, "")], Leaves::Clear),
    // The mesh's own certificates are none for the outside.
    case(
        "mesh",
        &[("team-a/u7", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", "")],
        Leaves::Refused(&["team-a/u7"]),
    ),
    // Subsets of all rules, and the first policy that there is.
    case(
        "merged",
        &[("team-a/a8", "subsets: [{name: s, labels: {v: '1'}}]", ""), ("team-a/b8", SIMPLE, "")],
        Leaves::Tls,
    ),
];

#[test]
fn rules_are_looked_up_as_istio_does_and_their_tls_is_spoken_or_nothing_is_sent() {
    const BELOW: [&str; 2] = ["other.below.example.com", "www.below.example.com"];
    let mut rules = servers(&[80]);
    let mut asked = Vec::new();
    for Case { name, rules: of_host, leaves } in LOOK_UP.iter().chain(UNAVAILABLE) {
        let host = host(name);
        let tls = leaves.iter().any(|leaves| matches!(leaves, Leaves::Tls));
        rules += &entry(&format!("team-a/{name}"), &host, 80, &at(if tls { 443 } else { 80 }));
        rules += &routes(&format!("team-a/{name}"), &host);
        for (full, policy, more) in *of_host {
            rules += &rule(full, &host, &format!("{policy}{more}"));
        }
        asked.push((host, *leaves));
    }
    // A rule for one host below a wildcard, which has one cluster for all of them.
    rules += &entry("team-a/below", "*.below.example.com", 80, ", resolution: DYNAMIC_DNS");
    rules += &routes("team-a/below", "*.below.example.com");
    rules += &rule("team-a/www", BELOW[1], SIMPLE);
    asked.push((BELOW[0].into(), [Leaves::Clear; 2]));
    asked.push((BELOW[1].into(), [Leaves::Refused(&["team-a/www"]); 2]));

    let site = Site::new(&rules, &BELOW);
    for (host, leaves) in &asked {
        for (team, leaves) in TEAMS.into_iter().zip(leaves) {
            let path = format!("/{team}");
            let answer = site.asks(team, host, 80, &path);
            let seen = site.testbed.record().take();
            let what =
                format!("{host} of {team}: {seen:?}\n{answer:.300}\n{}", site.gateway.stderr());
            let (status, expected) = match leaves {
                Leaves::Tls => {
                    let server_name = Some(host.clone());
                    (200, vec![Seen::Https { server_name, host: host.clone(), path: path.clone() }])
                }
                Leaves::Clear => (301, vec![Seen::Http { host: host.clone(), path: path.clone() }]),
                Leaves::Refused(by) => {
                    site.is_refused(host, &path, &answer, "tls_policy_unavailable");
                    for name in *by {
                        assert!(answer.contains(&format!("DestinationRule {name}")), "{what}");
                    }
                    assert_eq!(seen, [], "{what}");
                    continue;
                }
            };
            assert_eq!(seen, expected, "{what}");
            let line = site.logged(host, &path);
            assert_eq!(line["workload_namespace"], team, "{line}");
            assert_eq!(line["response_code"], status, "{what}");
            assert_eq!(line["reason"], Value::Null, "{line}");
            if !host.ends_with(".below.example.com") {
                assert_eq!(line["upstream_cluster"], format!("outbound|80||{host}"), "{line}");
            }
        }
    }
}

/// A rule whose roots are not there sends nothing until they are.
#[test]
fn tls_without_its_files_is_spoken_with_nobody_until_they_are_there() {
    let hosts = ["missing-80", "missing-443"].map(host);
    let rules = |roots: &str| {
        let mut rules = servers(&[80]);
        for (host, port) in hosts.iter().zip([80, 443]) {
            let name = format!("team-a/at-{port}");
            let tls =
                format!("trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: '{roots}'}}}}");
            rules += &entry(&name, host, 80, &at(port));
            rules += &routes(&name, host);
            rules += &rule(&name, host, &tls);
        }
        rules
    };
    let site = Site::new(&rules("/nowhere/ca.pem"), &[]);
    let seen = || site.testbed.record().take();
    for host in &hosts {
        let answer = site.asks("team-a", host, 80, "/before");
        assert!(answer.ends_with("\n503 \n") && answer.contains("/nowhere/ca.pem"), "{answer}");
        let line = site.logged(host, "/before");
        assert_eq!(line["reason"], "tls_policy_unavailable", "{line}");
        assert_eq!(line["response_flags"], "UF", "{line}");
        // Not even a connection to the server of TLS, which would note one that ends before a byte.
        assert_eq!(seen(), [], "{host}");
    }
    // The twin, with no other change than the path of the file.
    let roots = site.testbed.dir().join("ca.pem");
    site.testbed.apply("rules.yaml", &rules(&roots.to_string_lossy())).unwrap();
    let [in_clear, over_tls] = &hosts;
    let answers = || site.asks("team-a", over_tls, 80, "/after");
    let answer = until_is(SOON, "an answer over TLS", answers, |text| text.ends_with("\n200 \n"));
    answer.unwrap_or_else(|error| panic!("{error:#}\n{}", site.gateway.stderr()));
    let expected = Seen::Https {
        server_name: Some(over_tls.clone()),
        host: over_tls.clone(),
        path: "/after".into(),
    };
    assert_eq!(seen(), [expected]);
    // A server that speaks no TLS still gets no request.
    let answer = site.asks("team-a", in_clear, 80, "/after");
    assert!(answer.ends_with("\n503 \n"), "{answer}");
    assert_eq!(site.logged(in_clear, "/after")["reason"], "upstream_tls");
    assert_eq!(seen(), []);
}

/// Rules of one host are one: the subsets of both, and the only policy there is for the whole of it.
#[test]
fn rules_of_one_host_are_merged() {
    let subset = |name: &str, policy: &str| {
        format!("subsets: [{{name: {name}, labels: {{version: {name}}}{policy}}}]")
    };
    // By its path a request goes to a subset.
    let led = |host: &str, subsets: [&str; 2]| {
        let rules = subsets.map(|subset| {
            let to = |host: &str, subset: &str| {
                format!("route: [{{destination: {{host: '{host}', port: {{number: 80}}{subset}}}}}]")
            };
            format!(
                "{{match: [{{gateways: [istio-system/egress], port: 80, uri: {{prefix: /{subset}}}}}], {}}}, ",
                to(host, &format!(", subset: {subset}"))
            )
        });
        resource(
            "VirtualService",
            &format!("team-a/{}", host.split('.').next().unwrap()),
            &through(host, &[80], &rules.concat()),
        )
    };
    let [both, half, mixed, kept] = ["both", "half", "mixed", "kept"].map(host);
    let mut rules = servers(&[80]);
    let endpoint = |name: &str, port: u16| {
        let address = plan::WEB;
        format!("{{address: {address}, ports: {{http: {port}}}, labels: {{version: {name}}}}}")
    };
    for host in [&both, &half] {
        let [first, second] = [endpoint("first", FIRST), endpoint("second", SECOND)];
        let more = format!(", resolution: STATIC, endpoints: [{first}, {second}]");
        rules += &entry(&format!("team-a/{}", host.split('.').next().unwrap()), host, 80, &more);
        rules += &led(host, ["first", "second"]);
        rules += &rule("team-a/a", host, &subset("first", ""))
            .replace("name: a,", &format!("name: a-{host},"));
    }
    rules += &rule("team-a/b", &both, &subset("second", ""));
    // A subset's pool of the one, TLS of the other.
    let once = ", trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}";
    for (host, name, policy) in [(&mixed, "mixed", once), (&kept, "kept", "")] {
        let secure = endpoint("first", 443);
        let more = format!(", resolution: STATIC, endpoints: [{secure}]");
        rules += &entry(&format!("team-a/{name}"), host, 80, &more);
        rules += &led(host, ["first", "first"]);
        rules += &rule(&format!("team-a/a-{name}"), host, &subset("first", policy));
        rules += &rule(&format!("team-a/b-{name}"), host, SIMPLE);
    }
    let site = Site::new(&rules, &[]);

    for (host, path, expected) in [
        (&both, "/first", Some("first")),
        (&both, "/second", Some("second")),
        (&half, "/first", Some("first")),
        // Its twin without the second rule.
        (&half, "/second", None),
    ] {
        let answer = site.asks("team-a", host, 80, path);
        let line = site.logged(host, path);
        match expected {
            Some(name) => {
                assert_eq!(answer, format!("{name}\n200 \n"), "{host}");
                assert_eq!(line["upstream_cluster"], format!("outbound|80|{name}|{host}"));
            }
            None => site.is_refused(host, path, &answer, "no_gateway_route"),
        }
    }
    let expected =
        [vec![format!("{both}/first"), format!("{half}/first")], vec![format!("{both}/second")]];
    site.have_served(&expected);

    for (host, connections) in [(&mixed, 3), (&kept, 1)] {
        let to = format!("{host}:80:{}", plan::WEB);
        let urls = format!("http://{host}/first?n=[1-3]");
        let args = ["-o", "/dev/null", "--resolve", &to, "-w", "%{http_code}\n", &urls];
        assert_eq!(site.testbed.curl(&args).unwrap().stdout, "200\n".repeat(3), "{host}");
        let seen = site.testbed.record().take();
        let expected = (1..=3).map(|number| Seen::Https {
            server_name: Some(host.clone()),
            host: host.clone(),
            path: format!("/first?n={number}"),
        });
        assert_eq!(seen, expected.collect::<Vec<_>>());
        let stat = |name: &str| {
            site.testbed.stat(0, &format!("cluster.outbound|80|first|{host}.{name}")).unwrap()
        };
        assert_eq!(stat("upstream_cx_total"), connections, "{host}");
        assert_eq!(stat("ssl.handshake"), connections, "{host}");
    }
}

/// What tenants say is theirs: an entry that is exported to its own namespace answers nobody else, and of virtual
/// services that overlap the own namespace's comes first, then the oldest.
#[test]
fn tenants_have_services_and_routes_of_their_own() {
    const OWN: &str = ", exportTo: ['.']";
    // Entries of one host: full name, port, the server, and to whom it is exported.
    type Entry = (&'static str, u16, u16, &'static str);
    // What a namespace gets on a port of the host: a server's name, or nothing.
    type Asked = (&'static str, u16, Option<&'static str>);
    let hosts: [(&str, &[Entry], &[Asked]); 5] = [
        (
            "public",
            &[("team-a/e1", 80, FIRST, "")],
            &[("team-a", 80, Some("first")), ("team-b", 80, Some("first"))],
        ),
        (
            "private",
            &[("team-a/e2", 80, FIRST, OWN)],
            &[("team-a", 80, Some("first")), ("team-b", 80, None)],
        ),
        (
            "disjoint",
            &[("team-a/e3", 80, FIRST, OWN), ("team-b/f3", 80, SECOND, OWN)],
            &[("team-a", 80, Some("first")), ("team-b", 80, Some("second"))],
        ),
        (
            "shadowed",
            &[("team-a/e4", 80, FIRST, ""), ("team-b/f4", 80, SECOND, OWN)],
            &[("team-a", 80, Some("first")), ("team-b", 80, Some("second"))],
        ),
        (
            "ports",
            &[("team-a/e5", 80, FIRST, ""), ("team-a/f5", 8080, SECOND, "")],
            &[
                ("team-a", 80, Some("first")),
                ("team-a", 8080, Some("second")),
                ("team-b", 8080, Some("second")),
            ],
        ),
    ];
    let mut rules = servers(&[80, 8080]);
    for (name, entries, _) in &hosts {
        let host = host(name);
        let ports: Vec<_> = if *name == "ports" { vec![80, 8080] } else { vec![80] };
        for (full, port, server, more) in *entries {
            rules += &entry(full, &host, *port, &format!("{}{more}", at(*server)));
        }
        let full = format!("istio-system/{name}");
        rules += &resource("VirtualService", &full, &through(&host, &ports, ""));
    }
    // Virtual services of the second namespace and of a third one, of either age.
    let overlaps = [("young", "2024-02-01", "/of-third"), ("old", "2024-01-01", "/of-team-b")];
    for (name, created, _) in overlaps {
        let host = host(name);
        rules += &entry(&format!("team-a/{name}"), &host, 80, &at(FIRST));
        for (namespace, created) in [("team-b", created), ("third", "2024-01-15")] {
            let redirect = format!(
                "{{match: [{{gateways: [mesh], port: 80}}], redirect: {{uri: /of-{namespace}}}}}, "
            );
            let more = format!(", creationTimestamp: '{created}T00:00:00Z'");
            let spec = through(&host, &[80], &redirect);
            rules += &dated("VirtualService", &format!("{namespace}/{name}"), &more, &spec);
        }
    }
    let site = Site::new(&rules, &[]);

    let mut expected = [const { Vec::new() }; 2];
    for (name, _, asked) in &hosts {
        let host = host(name);
        for (team, port, server) in *asked {
            let path = format!("/{team}/{port}");
            let answer = site.asks(team, &host, *port, &path);
            let Some(server) = server else {
                site.is_refused(&host, &path, &answer, "host_not_in_registry");
                continue;
            };
            let what = format!("{host}{path}: {}", site.gateway.stderr());
            assert_eq!(answer, format!("{server}\n200 \n"), "{what}");
            let (number, upstream) = if *server == "first" { (0, FIRST) } else { (1, SECOND) };
            let authority = if *port == 80 { host.clone() } else { format!("{host}:{port}") };
            expected[number].push(format!("{authority}{path}"));
            let line = site.logged(&host, &path);
            assert_eq!(line["upstream_host"], format!("{}:{upstream}", plan::WEB), "{line}");
            assert_eq!(line["upstream_cluster"], format!("outbound|{port}||{host}"), "{line}");
        }
    }
    for (name, _, oldest) in overlaps {
        let host = host(name);
        for (team, to) in [("team-a", oldest), ("team-b", "/of-team-b")] {
            let answer = site.asks(team, &host, 80, &format!("/{team}"));
            assert_eq!(answer, format!("\n301 http://{host}{to}\n"), "{host} of {team}");
        }
    }
    site.have_served(&expected);
}
