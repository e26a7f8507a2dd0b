//! Static egress addresses: external hosts see a workload come from the address that is set for it, and where the
//! gateway does not have that address, the workload is refused and nobody else is.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;

use egress_tests::{
    ca::{Authority, issue_pem},
    cluster::Cluster,
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};
use serde_json::Value;

const PLAIN: &str = "http://edition.cnn.com/politics";
const SECURE: &str = "https://edition.cnn.com/politics";
/// Further addresses for the gateway's host.
const ADDRESS: &str = "10.10.0.101";
const POOL: [&str; 2] = ["10.10.0.102", "10.10.0.103"];
/// The host has it only after a while.
const LATE: &str = "10.10.0.104";
/// Where the server listens that answers with the address it sees.
const MIRROR_PORT: &str = "18600";

/// Answers with the client's address: the port.
const MIRROR_SERVER: &str = "
import http.server, sys
class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(self.headers['host'], body.decode(), flush=True)
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), Mirror).serve_forever()
";

/// The pod is `web` of `shop`, its neighbour `job`.
fn mesh() -> String {
    format!(
        "{}accessLogEncoding: JSON\nworkloads:\n\
         - name: web\n  namespace: shop\n  labels: {{app: web}}\n  addresses: [{}]\n  interface: {}\n\
         - name: job\n  namespace: shop\n  labels: {{app: job}}\n  addresses: [{}]\n  interface: {}\n\
         egressAddresses:\n- name: web\n  addresses: [{ADDRESS}]\n  labels: {{app: web}}\n",
        mesh_yaml(1).replace("direct: registry\n", ""),
        plan::POD,
        plan::POD_INTERFACE,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_INTERFACE,
    )
}

const POLICY: &str = "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
    metadata: {name: news, namespace: shop}\nspec:\n  rules:\n  - hosts: [edition.cnn.com]\n    \
    ports: [{port: 80, protocol: HTTP}, {port: 443, protocol: TLS}]\n";

fn status(place: &Place, url: &str) -> String {
    let args = ["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", url];
    place.run("curl", &args).unwrap().stdout
}

fn sees(place: &Place, url: &str, expected: &str) {
    let what = format!("{url} to give {expected}");
    until_is(SOON, &what, || status(place, url), |seen| seen == expected).unwrap();
}

/// The last line of the gateway's log for this workload that is as wanted.
fn logged(gateway: &Process, workload: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let find = || {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.rev().find(|line| line["workload"] == workload && wanted(line))
    };
    until(SOON, &format!("a line for {workload}"), find).unwrap()
}

#[test]
fn a_workload_is_seen_at_its_address_or_not_at_all() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh()).unwrap();
    testbed.apply("policy.yaml", POLICY).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);

    // The gateway does not have it: nothing is dialled from another one.
    sees(neighbour, PLAIN, "301");
    sees(pod, PLAIN, "503");
    sees(pod, SECURE, "000");
    let reason = "egress_address_unavailable";
    let http = logged(&gateway, "web", |line| line["response_code"] == 503);
    let tls = logged(&gateway, "web", |line| line["requested_server_name"] == "edition.cnn.com");
    for line in [http, tls] {
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["response_flags"], "UF", "{line}");
        assert_eq!(line["upstream_local_address"], Value::Null, "{line}");
        let why = line["upstream_transport_failure_reason"].as_str().unwrap();
        assert!(why.contains(&format!("{ADDRESS} is no address of this gateway")), "{line}");
    }
    assert!(testbed.stat(0, &format!("egress.denied.{reason}")).unwrap() >= 2);
    let told = format!("{ADDRESS} of the egress addresses \"web\" is no address of this host");
    assert!(gateway.stderr().contains(&told), "{}", gateway.stderr());

    // Once it has, the next connection is dialled from it.
    let host = testbed.gateway(0);
    let add = ["address", "add", &format!("{ADDRESS}/24"), "dev", plan::UPLINK];
    assert!(host.run("ip", &add).unwrap().ok());
    let local =
        |line: &Value| line["upstream_local_address"].as_str().unwrap_or_default().to_owned();
    for (url, expected) in [(PLAIN, "301"), (SECURE, "200")] {
        sees(pod, url, expected);
        sees(neighbour, url, expected);
        let is_tls = url == SECURE;
        let wanted =
            |line: &Value| (line["protocol"] == Value::Null) == is_tls && !local(line).is_empty();
        let line = logged(&gateway, "web", wanted);
        assert!(local(&line).starts_with(&format!("{ADDRESS}:")), "{line}");
        let line = logged(&gateway, "job", wanted);
        assert!(local(&line).starts_with(&format!("{}:", plan::GATEWAYS[0])), "{line}");
    }
}

/// A namespace has several addresses: its workloads are seen at these, and nobody else is.
#[test]
fn a_namespace_is_seen_at_the_addresses_of_its_pool() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let mesh = mesh().replace("name: job\n  namespace: shop", "name: job\n  namespace: jobs");
    let (mesh, _) = mesh.split_once("egressAddresses:").unwrap();
    let pool = format!(
        "egressAddresses:\n- name: jobs\n  addresses: [{}]\n  namespaces: [jobs]\n",
        POOL.join(", ")
    );
    testbed.apply_mesh(&format!("{mesh}{pool}")).unwrap();
    testbed.apply("policy.yaml", POLICY).unwrap();
    testbed.apply("jobs.yaml", &POLICY.replace("namespace: shop", "namespace: jobs")).unwrap();
    for address in POOL {
        let add = ["address", "add", &format!("{address}/24"), "dev", plan::UPLINK];
        assert!(testbed.gateway(0).run("ip", &add).unwrap().ok());
    }
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    for (url, expected) in [(PLAIN, "301"), (SECURE, "200")] {
        sees(pod, url, expected);
        sees(neighbour, url, expected);
        let local =
            |line: &Value| line["upstream_local_address"].as_str().unwrap_or_default().to_owned();
        let is_tls = url == SECURE;
        let wanted =
            |line: &Value| (line["protocol"] == Value::Null) == is_tls && !local(line).is_empty();
        let line = logged(&gateway, "job", wanted);
        assert!(
            POOL.iter().any(|address| local(&line).starts_with(&format!("{address}:"))),
            "{line}"
        );
        let line = logged(&gateway, "web", wanted);
        assert!(local(&line).starts_with(&format!("{}:", plan::GATEWAYS[0])), "{line}");
    }
}

/// A host outside that is routed through the gateway, with these annotations of the Gateway and the `VirtualService`.
fn routed(host: &str, of_gateway: &str, of_route: &str) -> String {
    let name = host.replace('.', "-");
    let metadata = |address: &str| {
        let annotation =
            format!(", annotations: {{egress-enforcer.io/egress-address: {address:?}}}");
        let annotation = if address.is_empty() { "" } else { &*annotation };
        format!("apiVersion: networking.istio.io/v1\nmetadata: {{name: {name}{annotation}}}")
    };
    let (plain, of_gateway, of_route) = (metadata(""), metadata(of_gateway), metadata(of_route));
    format!(
        "kind: ServiceEntry
{plain}
spec:
  hosts: [{host}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: {}, ports: {{http: {MIRROR_PORT}}}}}]
---
kind: Gateway
{of_gateway}
spec:
  selector: {{istio: egressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{host}]}}]
---
kind: VirtualService
{of_route}
spec:
  hosts: [{host}]
  gateways: [mesh, {name}]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 80}}}}}}]
  - match: [{{gateways: [{name}], port: 80}}]
    route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]
---
",
        plan::WEB
    )
}

/// What an annotation says is what the server outside sees: of a route, of a Gateway, the route before the Gateway,
/// an address of a pool. Without one it is the gateway's usual address, and one that the gateway lacks is refused.
#[test]
fn a_route_or_a_gateway_says_which_address_the_outside_sees() {
    let pool = POOL.join(", ");
    let usual = [plan::GATEWAYS[0]];
    let cases: [(&str, &str, &str, &[&str]); 6] = [
        ("plain.example.com", "", "", &usual),
        ("route.example.com", "", "tenant", &[ADDRESS]),
        ("gateway.example.com", "tenant", "", &[ADDRESS]),
        ("both.example.com", "tenant", POOL[0], &POOL[..1]),
        ("pool.example.com", "", "pool", &POOL),
        ("listed.example.com", &pool, "", &POOL),
    ];
    let testbed = Testbed::test(1).unwrap();
    let host = testbed.gateway(0);
    let add = |address: &str| {
        let args = ["address", "add", &format!("{address}/24"), "dev", plan::UPLINK];
        assert!(host.run("ip", &args).unwrap().ok());
    };
    [ADDRESS, POOL[0], POOL[1]].iter().for_each(|address| add(address));
    testbed
        .apply_mesh(&format!(
            "{}accessLogEncoding: JSON\negressAddresses:\n- {{name: tenant, addresses: [{ADDRESS}]}}\n\
             - {{name: pool, addresses: [{pool}]}}\n- {{name: late, addresses: [{LATE}]}}\n",
            mesh_yaml(1)
        ))
        .unwrap();
    let mirror = testbed.serve_python("mirror", MIRROR_SERVER, &[MIRROR_PORT]).unwrap();
    let late = "late.example.com";
    let all =
        cases.iter().map(|(host, of_gateway, of_route, _)| routed(host, of_gateway, of_route));
    let all: String = all.chain([routed(late, "", "late")]).collect();
    testbed.apply("routes.yaml", &all).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let ask = |host: &str| {
        let url = format!("http://{host}/");
        let at = format!("{host}:80:{}", plan::WEB);
        testbed.curl(&["--resolve", &at, "-w", " %{http_code}", &url]).unwrap().stdout
    };
    for (host, _, _, expected) in cases {
        let answers = expected.iter().map(|address| format!("{address} 200")).collect::<Vec<_>>();
        let first = until_is(SOON, host, || ask(host), |seen| answers.contains(seen)).unwrap();
        // A workload keeps to one address of a pool.
        for _ in 0..3 {
            assert_eq!(ask(host), first, "{host}");
        }
    }
    // The gateway has not the address: the server sees nothing, the route alone is refused.
    let refused = ask(late);
    assert!(refused.ends_with(" 503"), "{refused}");
    let line = |code: u16| {
        let wanted = |line: &Value| line["authority"] == late && line["response_code"] == code;
        let find = || {
            let text = gateway.stdout();
            let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.find(wanted)
        };
        until(SOON, "a line", find).unwrap()
    };
    let log = line(503);
    assert_eq!(log["reason"], "egress_address_unavailable", "{log}");
    assert_eq!(
        (&log["response_flags"], &log["upstream_local_address"]),
        (&"UF".into(), &Value::Null)
    );
    assert!(!mirror.stdout().contains(late), "{}", mirror.stdout());
    let told = format!("{LATE} of the egress addresses \"late\" is no address of this host");
    assert!(gateway.stderr().contains(&told), "{}", gateway.stderr());
    let status = || {
        let control = testbed.gateway_control(0).to_string_lossy().into_owned();
        let agent = testbed.agent().to_string_lossy().into_owned();
        host.run(&agent, &["status", "--control", &control]).unwrap()
    };
    let wrong = status();
    assert!(wrong.code == 1 && wrong.stdout.contains(&told), "{wrong:?}");
    assert!(ask("plain.example.com").ends_with(" 200"));
    // Once it has, it is what the server sees.
    add(LATE);
    let expected = format!("{LATE} 200");
    until_is(SOON, late, || ask(late), |seen| *seen == expected).unwrap();
    let log = line(200);
    let local = log["upstream_local_address"].as_str().unwrap();
    assert!(local.starts_with(&format!("{LATE}:")), "{log}");
    let healthy = status();
    assert!(!healthy.stdout.contains("egress addresses"), "{healthy:?}");
}

/// Where it listens that answers in clear, inside TLS and in HTTP with the address it sees.
const SPEAKER_PORT: &str = "18601";
/// The gateway has it only in the last part of the test.
const V6: &str = "fd00:10:10::101";

/// Answers with the client's address, and prints what it was asked in and by whom: the port, certificate and key.
const SPEAKER: &str = r#"
import socket, ssl, sys, threading

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])

def serve(stream, peer):
    kind = "tls" if stream.recv(1, socket.MSG_PEEK) == b"\x16" else "clear"
    if kind == "tls":
        stream = context.wrap_socket(stream, server_side=True)
    asked = stream.recv(65536)
    if asked.startswith(b"GET"):
        length = len(peer)
        stream.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode())
    stream.sendall(peer.encode())
    print(kind, peer, flush=True)
    stream.close()

server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    stream, peer = server.accept()
    peer = peer[0].removeprefix("::ffff:")
    threading.Thread(target=serve, args=(stream, peer), daemon=True).start()
"#;

/// What an application speaks to a host, and where its server is.
#[derive(Clone, Copy)]
enum Speaks {
    Tls,
    /// On this port of [`plan::TCP_SERVICE`].
    Tcp(u16),
    /// HTTP, to a server that has an address of IPv6 alone.
    HttpToV6,
}

/// A host that is routed through the gateway, with these annotations of the Gateway and the `VirtualService`.
fn spoken(host: &str, speaks: Speaks, of_gateway: &str, of_route: &str) -> String {
    let name = host.replace('.', "-");
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let metadata = |address: &str| {
        let annotation =
            format!(", annotations: {{egress-enforcer.io/egress-address: {address:?}}}");
        let annotation = if address.is_empty() { "" } else { &*annotation };
        format!("apiVersion: networking.istio.io/v1\nmetadata: {{name: {name}{annotation}}}")
    };
    let (plain, of_gateway, of_route) = (metadata(""), metadata(of_gateway), metadata(of_route));
    let (port, protocol, at) = match speaks {
        Speaks::Tls => (443, "TLS", plan::WEB),
        Speaks::Tcp(port) => (port, "TCP", plan::WEB),
        Speaks::HttpToV6 => (80, "HTTP", plan::WEB_V6),
    };
    let (list, addresses, tls, mesh, egress) = match speaks {
        Speaks::Tls => {
            let names = format!(", sniHosts: [{host}]");
            ("tls", String::new(), ", tls: {mode: PASSTHROUGH}", names.clone(), names)
        }
        Speaks::Tcp(_) => (
            "tcp",
            format!("  addresses: [{}]\n", plan::TCP_SERVICE),
            "",
            format!(", destinationSubnets: [{}/32]", plan::TCP_SERVICE),
            String::new(),
        ),
        Speaks::HttpToV6 => ("http", String::new(), "", String::new(), String::new()),
    };
    format!(
        "kind: ServiceEntry
{plain}
spec:
  hosts: [{host}]
{addresses}  ports: [{{number: {port}, name: own, protocol: {protocol}}}]
  resolution: STATIC
  endpoints: [{{address: \"{at}\", ports: {{own: {SPEAKER_PORT}}}}}]
---
kind: Gateway
{of_gateway}
spec:
  selector: {{istio: egressgateway}}
  servers: [{{port: {{number: {port}, name: own, protocol: {protocol}}}, hosts: [{host}]{tls}}}]
---
kind: VirtualService
{of_route}
spec:
  hosts: [{host}]
  gateways: [mesh, {name}]
  {list}:
  - match: [{{gateways: [mesh], port: {port}{mesh}}}]
    route: [{{destination: {{host: {service}, port: {{number: {port}}}}}}}]
  - match: [{{gateways: [{name}], port: {port}{egress}}}]
    route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]
---
"
    )
}

/// What a pod hears of a host: the address that its server sees, or nothing of it.
fn heard(testbed: &Testbed, host: &str, speaks: Speaks) -> String {
    const RAW: &str = "import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
stream.sendall(b'hello')
print(stream.recv(64).decode(), end='')";
    let curl = |port: u16, url: &str| {
        let at = format!("{host}:{port}:{}", plan::WEB);
        testbed.curl(&["-k", "--resolve", &at, "-w", " %{http_code}", url]).unwrap().stdout
    };
    match speaks {
        Speaks::Tls => curl(443, &format!("https://{host}/")),
        Speaks::HttpToV6 => curl(80, &format!("http://{host}/")),
        Speaks::Tcp(port) => {
            let args = ["-c", RAW, plan::TCP_SERVICE, &port.to_string()];
            testbed.pod().run("/usr/bin/python3", &args).unwrap().stdout
        }
    }
}

/// TLS that is passed through and raw TCP come from the address that an annotation names, of a route or of a Gateway,
/// and so does a request to a server of IPv6. Where the gateway lacks the address, or none of it is of the server's
/// family, nothing is sent.
#[test]
fn tls_raw_tcp_and_ipv6_leave_from_the_annotated_address_or_not_at_all() {
    let testbed = Testbed::test(1).unwrap();
    let host = testbed.gateway(0);
    let add = |address: &str| {
        let length = if address.contains(':') { 64 } else { 24 };
        let address = format!("{address}/{length}");
        let flags = if length == 64 { &["nodad"][..] } else { &[] };
        let args = [&["address", "add", &address, "dev", plan::UPLINK], flags].concat();
        let done = host.run("ip", &args).unwrap();
        assert!(done.ok(), "{done:?}");
    };
    add(ADDRESS);
    testbed
        .apply_mesh(&format!(
            "{}accessLogEncoding: JSON\negressAddresses:\n\
             - {{name: tenant, addresses: [{ADDRESS}]}}\n- {{name: late, addresses: [{LATE}]}}\n\
             - {{name: both, addresses: [{ADDRESS}, '{V6}']}}\n",
            mesh_yaml(1)
        ))
        .unwrap();
    let authority = Authority::new("An authority").unwrap();
    let (certificate, key) = issue_pem(&authority, "tls.example.com").unwrap();
    let file = |name: &str, text: String| {
        let path = testbed.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("own.crt", certificate), file("own.key", key));
    let speaker =
        testbed.serve_python("speaker", SPEAKER, &[SPEAKER_PORT, &certificate, &key]).unwrap();
    // The host, what is spoken, the annotations, and what its server sees.
    let served = [
        ("usual.example.com", Speaks::Tls, "", "", format!("{} 200", plan::GATEWAYS[0])),
        ("route.example.com", Speaks::Tls, "", "tenant", format!("{ADDRESS} 200")),
        ("gateway.example.com", Speaks::Tls, "tenant", "", format!("{ADDRESS} 200")),
        ("raw.example.com", Speaks::Tcp(5432), "", "both", ADDRESS.to_owned()),
    ];
    let refused = [
        ("late.example.com", Speaks::Tls, "", "late", format!("{LATE} 200")),
        ("late-raw.example.com", Speaks::Tcp(8443), "late", "", LATE.to_owned()),
        ("six.example.com", Speaks::HttpToV6, "", "both", format!("{V6} 200")),
    ];
    // Its addresses are of the other family.
    let never = ("four.example.com", Speaks::HttpToV6, "", "tenant");
    let all = served
        .iter()
        .chain(&refused)
        .map(|(host, speaks, of_gateway, of_route, _)| spoken(host, *speaks, of_gateway, of_route));
    let all: String = all.chain([spoken(never.0, never.1, never.2, never.3)]).collect();
    testbed.apply("routes.yaml", &all).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    for (host, speaks, _, _, expected) in &served {
        until_is(SOON, host, || heard(&testbed, host, *speaks), |seen| seen == expected).unwrap();
    }
    // Without the address nothing reaches the server, from whatever address. It writes its line after it has answered.
    let written = || speaker.stdout();
    let all = |text: &String| text.lines().count() == served.len();
    let before = until_is(SOON, "a line for each that was served", written, all).unwrap();
    for (host, speaks) in
        refused.iter().map(|(host, speaks, ..)| (*host, *speaks)).chain([(never.0, never.1)])
    {
        let seen = heard(&testbed, host, speaks);
        let nothing = match speaks {
            Speaks::Tls => seen == " 000",
            Speaks::Tcp(_) => seen.is_empty(),
            Speaks::HttpToV6 => seen.ends_with(" 503"),
        };
        assert!(nothing, "{host}: {seen}");
    }
    let reasons = || testbed.stat(0, "egress.denied.egress_address_unavailable").unwrap();
    until_is(SOON, "four refusals", reasons, |count| *count == 4).unwrap();
    let refusals = || -> Vec<Value> {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["reason"] == "egress_address_unavailable").collect()
    };
    let lines = until_is(SOON, "four lines", refusals, |lines| lines.len() == 4).unwrap();
    for line in &lines {
        assert_eq!(line["response_flags"], "UF", "{line}");
        assert_eq!(line["upstream_local_address"], Value::Null, "{line}");
    }
    let of_v6 = lines.iter().filter(|line| line["response_code"] == 503);
    assert_eq!(of_v6.count(), 2, "{lines:#?}");
    assert_eq!(speaker.stdout(), before);
    // Once the gateway has them, they are what the server sees.
    add(LATE);
    add(V6);
    for (host, speaks, _, _, expected) in &refused {
        until_is(SOON, host, || heard(&testbed, host, *speaks), |seen| seen == expected).unwrap();
    }
    let seen = heard(&testbed, never.0, never.1);
    assert!(seen.ends_with(" 503"), "{seen}");
    let wanted = [
        format!("tls {}", plan::GATEWAYS[0]),
        format!("tls {ADDRESS}"),
        format!("clear {ADDRESS}"),
        format!("tls {LATE}"),
        format!("clear {LATE}"),
        format!("clear {V6}"),
    ];
    let has_all = |text: &String| wanted.iter().all(|line| text.lines().any(|own| own == line));
    until_is(SOON, "a line for each address", written, has_all).unwrap();
}

/// Holds as many connections to each `ADDRESS PORT` as are served, and writes how many.
const HOLD: &str = r#"
import socket, struct, sys

def served(address, port):
    connection = socket.socket()
    # The ports are free again at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        connection.connect((address, port))
        connection.sendall(b"x")
        return connection if connection.recv(1) == b"x" else None
    except OSError:
        return None

held = []
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    before = len(held)
    while connection := served(address, int(port)):
        held.append(connection)
    print(len(held) - before, end=" ")
"#;

/// Local ports that the gateway's host has in the test below.
const PORTS: usize = 32;

/// The connections from an egress address to a destination are as many as there are local ports, whatever there is to
/// another destination.
#[test]
fn local_ports_of_an_egress_address_count_for_each_destination_on_its_own() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh()).unwrap();
    let destinations =
        [(plan::LEDGER, plan::LEDGER, 5432), ("tcp.example.com", plan::TCP_SERVICE, 8443)];
    let rules = destinations.map(|(host, _, port)| {
        format!("  - hosts: [{host}]\n    ports: [{{port: {port}, protocol: TCP}}]\n")
    });
    let policy = POLICY.split("  rules:").next().unwrap();
    testbed.apply("policy.yaml", &format!("{policy}  rules:\n{}", rules.concat())).unwrap();
    let host = testbed.gateway(0);
    let add = ["address", "add", &format!("{ADDRESS}/24"), "dev", plan::UPLINK];
    assert!(host.run("ip", &add).unwrap().ok());
    let gateway = testbed.start_gateway(0).unwrap();
    // Ports that it listens at by itself are of the range before.
    let range = format!("20000 {}", 20_000 + PORTS - 1);
    host.ns.sysctl("ipv4/ip_local_port_range", &range).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let ports = destinations.map(|(_, _, port)| port.to_string());
    let mut args = vec!["-c", HOLD];
    for ((_, address, _), port) in destinations.iter().zip(&ports) {
        args.extend([address, port.as_str()]);
    }
    let held = || testbed.pod().run("/usr/bin/python3", &args).unwrap().stdout;
    let expected = format!("{PORTS} {PORTS} ");
    until_is(SOON, "as many to each as there are ports", held, |held| *held == expected).unwrap();
    let local =
        |line: &Value| line["upstream_local_address"].as_str().unwrap_or_default().to_owned();
    let locals = || -> Vec<String> {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| local(&line)).filter(|local| !local.is_empty()).collect()
    };
    let each = |all: &Vec<String>| all.len() >= 2 * PORTS;
    let all = until_is(SOON, "a line for each connection", locals, each).unwrap();
    assert!(all.iter().all(|local| local.starts_with(&format!("{ADDRESS}:"))), "{all:?}");
}
