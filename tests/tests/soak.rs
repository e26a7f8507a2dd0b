//! The soak: mixed traffic of real clients, over the plain hop and over the tunnel, while much goes wrong. What a
//! client would have been answered directly, it is answered through the gateway.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    env,
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use egress_tests::{
    ca::{Authority, issue_pem},
    mtls, plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{self, SOON, until, until_is},
};
use serde_json::Value;

const GATEWAY_SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// A host that a service entry alone names, and one whose TLS the gateway originates.
const WWW: &str = "www.example.com";
const PAYMENTS: &str = "payments.example.com";
/// A host that rules route, some ports of it into the tunnel.
const PACKAGES: &str = "packages.example.org";
/// Where [`plan::MOVING`] may be.
const PLACES: [&str; 2] = [plan::TCP_SERVICE, plan::LEDGER];

const HTTP1: u16 = 8080;
const HTTP2: u16 = 8081;
/// HTTP from pods that reaches the server inside TLS, on the other port.
const ORIGINATED: u16 = 8082;
const SECURE: u16 = 8444;
/// TLS that passes the gateway.
const PASSED: u16 = 9443;
/// The same in the tunnel.
const TUNNEL_HTTP1: u16 = 9080;
const TUNNEL_HTTP2: u16 = 9081;
const TUNNEL_PASSED: u16 = 9444;
/// Raw TCP, which the outside echoes.
const RAW: u16 = plan::TCP_PORTS[1];
const TUNNEL_RAW: u16 = plan::TCP_PORTS[2];

/// Clients in the tunnel whose every request has a connection to itself.
const TUNNELLED: [&str; 3] =
    ["curl in the tunnel", "curl for TLS passthrough in the tunnel", "raw TCP in the tunnel"];

/// Between two requests of a client: the machine has other things to do.
const PACE: Duration = Duration::from_millis(100);

/// Seconds of traffic; the long form is for people: `EGRESS_SOAK_SECONDS=3600`.
fn soak() -> Duration {
    let seconds = env::var("EGRESS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// How long a client waits for an answer, in this machine's seconds.
fn limit() -> String {
    (20 * wait::patience()).to_string()
}

/// A service entry with these ports: number, protocol.
fn entry(host: &str, ports: &[(u16, &str)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  resolution: DNS
  ports:
",
        name = host.replace('.', "-"),
    );
    for (port, protocol) in ports {
        writeln!(text, "  - {{number: {port}, name: p{port}, protocol: {protocol}}}").unwrap();
    }
    text + "---\n"
}

/// `connect` is the time that a connect may take: another value is another cluster.
fn rule(host: &str, connect: u32, more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {host}
  trafficPolicy:
    connectionPool: {{tcp: {{connectTimeout: {connect}s}}}}
{more}---
",
        name = host.replace('.', "-"),
    )
}

/// How a port comes to the gateway.
#[derive(Clone, Copy)]
enum Hop {
    Plain,
    Tunnel,
}

/// What the gateway decides by.
#[derive(Clone, Copy)]
enum Decided {
    Host,
    ServerName,
    Port,
}

/// Ports of a host that rules route through the gateway.
type Routed<'a> = &'a [(u16, Decided, Hop)];

/// The gateway's servers and the rules for a host. `dir` has the gateway's certificates.
fn routes(host: &str, ports: Routed<'_>, dir: &str) -> String {
    let name = host.replace('.', "-");
    let certificates = format!(
        "{{mode: MUTUAL, serverCertificate: {dir}/cert-chain.pem, privateKey: {dir}/key.pem, \
         caCertificates: {dir}/root-cert.pem}}"
    );
    let sni = format!(", sniHosts: [{host}]");
    let (mut servers, mut lists) = (String::new(), [const { String::new() }; 3]);
    let [http, tls, tcp] = [0, 1, 2];
    for (port, decided, hop) in ports {
        let (protocol, mode) = match (decided, hop) {
            (Decided::Host, Hop::Plain) => ("HTTP", "{}"),
            (Decided::ServerName, Hop::Plain) => ("TLS", "{mode: PASSTHROUGH}"),
            (Decided::Port, Hop::Plain) => ("TCP", "{}"),
            (Decided::Host, Hop::Tunnel) => ("HTTPS", &*certificates),
            (Decided::ServerName | Decided::Port, Hop::Tunnel) => ("TLS", &*certificates),
        };
        let mode = if mode == "{}" { String::new() } else { format!("\n    tls: {mode}") };
        let number = format!("{{number: {port}, name: p{port}, protocol: {protocol}}}");
        writeln!(servers, "  - port: {number}\n    hosts: [{host}]{mode}").unwrap();
        let subset = if matches!(hop, Hop::Tunnel) { ", subset: tunnel" } else { "" };
        // What is inside of the tunnel's TLS is bytes at the gateway.
        let [(into, at_mesh), (out, at_gateway)] = match (decided, hop) {
            (Decided::Host, _) => [(http, ""); 2],
            (Decided::ServerName, Hop::Plain) => [(tls, &*sni); 2],
            (Decided::ServerName, Hop::Tunnel) => [(tls, &*sni), (tcp, "")],
            (Decided::Port, _) => [(tcp, ""); 2],
        };
        let mut rule = |list: usize, gateway: &str, more: &str, to: &str| {
            let condition = format!("{{gateways: [{gateway}], port: {port}{more}}}");
            let to = format!("{{destination: {{host: {to}, port: {{number: {port}}}}}}}");
            writeln!(lists[list], "  - match: [{condition}]\n    route: [{to}]").unwrap();
        };
        rule(into, "mesh", at_mesh, &format!("{GATEWAY_SERVICE}{subset}"));
        rule(out, &name, at_gateway, host);
    }
    let lists = ["http", "tls", "tcp"].into_iter().zip(lists);
    let lists = lists.filter(|(_, rules)| !rules.is_empty());
    let lists: String = lists.map(|(list, rules)| format!("  {list}:\n{rules}")).collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  selector: {{istio: egressgateway}}
  servers:
{servers}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  gateways: [mesh, {name}]
{lists}---
"
    )
}

/// All of it.
fn resources(dir: &str, connect: u32) -> String {
    let packages: Routed<'_> = &[
        (PASSED, Decided::ServerName, Hop::Plain),
        (TUNNEL_HTTP1, Decided::Host, Hop::Tunnel),
        (TUNNEL_HTTP2, Decided::Host, Hop::Tunnel),
        (TUNNEL_PASSED, Decided::ServerName, Hop::Tunnel),
        (TUNNEL_RAW, Decided::Port, Hop::Tunnel),
    ];
    let moving: Routed<'_> = &[
        (HTTP1, Decided::Host, Hop::Plain),
        (PASSED, Decided::ServerName, Hop::Plain),
        (RAW, Decided::Port, Hop::Plain),
    ];
    let tunnel: String = [TUNNEL_HTTP1, TUNNEL_HTTP2, TUNNEL_PASSED, TUNNEL_RAW]
        .map(|port| {
            let tls = format!("{{mode: ISTIO_MUTUAL, sni: {PACKAGES}}}");
            format!("      - {{port: {{number: {port}}}, tls: {tls}}}\n")
        })
        .concat();
    let target = format!("HTTP2, targetPort: {SECURE}");
    let originated =
        format!("    tls: {{mode: SIMPLE, caCertificates: {dir}/roots.pem, sni: {PAYMENTS}}}\n");
    [
        entry(WWW, &[(HTTP1, "HTTP"), (HTTP2, "HTTP2")]),
        rule(WWW, connect, ""),
        entry(PAYMENTS, &[(ORIGINATED, &target)]),
        rule(PAYMENTS, connect, &originated),
        entry(
            PACKAGES,
            &[
                (PASSED, "TLS"),
                (TUNNEL_HTTP1, "HTTP"),
                (TUNNEL_HTTP2, "HTTP2"),
                (TUNNEL_PASSED, "TLS"),
                (TUNNEL_RAW, "TCP"),
            ],
        ),
        rule(PACKAGES, connect, ""),
        routes(PACKAGES, packages, dir),
        entry(plan::MOVING, &[(HTTP1, "HTTP"), (PASSED, "TLS"), (RAW, "TCP")]),
        rule(plan::MOVING, connect, ""),
        routes(plan::MOVING, moving, dir),
        format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: gateway}}
spec:
  host: {GATEWAY_SERVICE}
  subsets:
  - name: tunnel
    trafficPolicy:
      portLevelSettings:
{tunnel}"
        ),
    ]
    .concat()
}

/// nginx, which ends each connection after twenty requests: HTTP/1.1 and HTTP/2, in clear and inside TLS. It reads
/// the bodies of requests for `/read` before it answers. In one process, so that it ends with it.
fn nginx_conf(dir: &str) -> String {
    let answer = "location / { return 200 \"$request_method $server_protocol\\n\"; }";
    let server = |addresses: &[&str], port: u16, how: &str, name: &str| {
        let listen = addresses.iter().map(|address| format!("listen {address}:{port}{how};"));
        let certificate = match how.contains("ssl") {
            true => {
                format!("ssl_certificate {dir}/{name}.pem; ssl_certificate_key {dir}/{name}.key;")
            }
            false => String::new(),
        };
        format!(
            "  server {{ {listen} server_name {name}; {certificate} {answer}
    location /read {{ proxy_pass http://{WEB}:{HTTP1}/; }} }}\n",
            listen = listen.collect::<String>(),
            WEB = plan::WEB,
        )
    };
    let (web, everywhere) = ([plan::WEB], [plan::WEB, PLACES[0], PLACES[1]]);
    let servers = [
        server(&everywhere, HTTP1, "", WWW),
        server(&web, HTTP2, " http2", WWW),
        server(&web, SECURE, " ssl http2", PAYMENTS),
        server(&web, PASSED, " ssl http2", PACKAGES),
        server(&PLACES, PASSED, " ssl http2", plan::MOVING),
        server(&web, TUNNEL_HTTP1, "", PACKAGES),
        server(&web, TUNNEL_HTTP2, " http2", PACKAGES),
        server(&web, TUNNEL_PASSED, " ssl http2", PACKAGES),
    ];
    format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr notice;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 20;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
{servers}}}
",
        servers = servers.concat(),
    )
}

/// The counters of what [`faults`] takes away. Nobody dials the address that a host has left.
const FAULTS: [&str; 3] = ["names", "hosts", "tunnel"];

/// What goes wrong at the gateway in a second of the traffic, as rules of nftables. In each ten seconds the
/// name servers are away for four, the hosts at one address are silent for two, nothing comes back through the tunnel
/// for one, and the address that [`plan::MOVING`] has left refuses connections once answers with it have grown too
/// old.
fn faults(second: u32) -> Vec<String> {
    let mut rules = Vec::new();
    let phase = second % 10;
    if (1..5).contains(&phase) {
        rules.push("meta l4proto {tcp, udp} th dport 53 counter name names drop".to_owned());
    }
    if (5..7).contains(&phase) {
        rules.push(format!("ip daddr {} counter name hosts drop", plan::WEB));
    }
    if phase == 8 {
        rules.push(format!("tcp sport {} counter name tunnel drop", mtls::TUNNEL));
    }
    if phase == 9 {
        let left = place(second + 10);
        rules.push(format!("ip daddr {left} meta l4proto tcp reject with tcp reset"));
    }
    rules
}

/// Where [`plan::MOVING`] is in a second: it moves every ten.
fn place(second: u32) -> &'static str {
    PLACES[usize::from((second / 10).is_multiple_of(2))]
}

/// `HOST PORT SECONDS LIMIT held|fresh`: has bytes echoed, on a connection for each time or on one for all.
const RAW_CLIENT: &str = r#"
import socket, sys, time

host, port, seconds, limit, kind = sys.argv[1:]
end = time.monotonic() + float(seconds)
total = failed = 0
stream = None
while time.monotonic() < end:
    total += 1
    try:
        if stream is None:
            stream = socket.create_connection((host, int(port)), int(limit))
        data = b"%d\n" % total * 500
        stream.sendall(data)
        got = b""
        while len(got) < len(data):
            part = stream.recv(65536)
            if not part:
                raise OSError("closed")
            got += part
        assert got == data
        if kind == "fresh":
            stream.close()
            stream = None
    except OSError as error:
        failed += 1
        stream = None
        print(f"{total}: {error}", flush=True)
    time.sleep(0.1)
print(f"{total} times, {failed} failed", flush=True)
"#;

/// What became of a client's requests.
#[derive(Debug)]
struct Outcome {
    client: String,
    requests: u64,
    failures: Vec<String>,
}

impl Outcome {
    /// h2load's: `requests: 400 total, 400 started, 400 done, 400 succeeded, 0 failed, …`. The last ones may be under
    /// way when the time is up, which it counts as done or not at all.
    fn of_h2load(client: &str, output: &str) -> Self {
        let line = output.lines().find(|line| line.starts_with("requests: ")).unwrap_or_default();
        let number = |what: &str| -> Option<u64> {
            let mut parts = line.trim_start_matches("requests: ").split(", ");
            parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        let good = output.contains(" 0 failed, 0 errored, 0 timeout")
            && output.contains(", 0 3xx, 0 4xx, 0 5xx");
        let failures = if good { Vec::new() } else { vec![output.to_owned()] };
        let requests = number("succeeded").unwrap_or_default();
        Self { client: client.to_owned(), requests, failures }
    }

    fn of_raw(client: &str, output: &str) -> Self {
        let total = output.lines().last().and_then(|line| line.split_once(" times, "));
        let mut failures: Vec<String> = output.lines().map(str::to_owned).collect();
        let good = failures.pop().is_some_and(|last| last.ends_with(" 0 failed"));
        if !good && failures.is_empty() {
            failures.push(output.to_owned());
        }
        let requests = total.and_then(|(total, _)| total.parse().ok()).unwrap_or_default();
        Self { client: client.to_owned(), requests, failures }
    }
}

struct World {
    testbed: Testbed,
    nginx: Process,
    gateway: Process,
    node: Process,
}

impl World {
    fn new() -> Self {
        let testbed = Testbed::test(1).unwrap();
        testbed.prepare_mtls(1).unwrap();
        let mesh = mtls::mesh(1).replace("direct: deny", "direct: registry");
        testbed.apply_mesh(&mesh).unwrap();
        let dir = testbed.dir();
        let authority = Authority::new("Soak authority").unwrap();
        fs::write(dir.join("gateway/roots.pem"), authority.pem()).unwrap();
        for name in [PAYMENTS, PACKAGES, plan::MOVING] {
            let (certificate, key) = issue_pem(&authority, name).unwrap();
            fs::write(dir.join(format!("{name}.pem")), certificate).unwrap();
            fs::write(dir.join(format!("{name}.key")), key).unwrap();
        }
        let path = dir.join("nginx.conf");
        fs::write(&path, nginx_conf(&dir.to_string_lossy())).unwrap();
        let args = ["-e", "stderr", "-c", &path.to_string_lossy()];
        let nginx = testbed.outside().start(&dir, "nginx", "nginx", &args).unwrap();
        testbed.apply("soak.yaml", &resources(&certificates(&testbed), 10)).unwrap();
        let gateway = testbed.start_gateway_mtls(0).unwrap();
        let node = testbed.start_node_mtls().unwrap();
        Self { testbed, nginx, gateway, node }
    }

    /// What ended in another way than it should, according to the gateway, the node and nginx.
    fn failures(&self) -> String {
        let failed = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|line| {
                let code = line["response_code"].as_u64().unwrap_or_default();
                let flags = line["response_flags"].as_str().unwrap_or("-");
                code >= 400 || flags != "-"
            })
        };
        let (log, said) = (self.gateway.stdout(), self.nginx.stderr());
        let lines = log.lines().filter(failed);
        let lines = lines.chain(said.lines().filter(|line| line.contains("[error]")));
        let lines: Vec<&str> = lines.collect();
        format!("{}\n{}\n{}", lines.join("\n"), self.gateway.stderr(), self.node.stderr())
    }

    /// Curl in the pod: the status, and how it ended.
    fn curl(&self, url: &str) -> String {
        let roots = self.testbed.dir().join("gateway/roots.pem");
        let ended = "%{http_code} after %{time_total} s, exit code %{exitcode} %{errormsg}";
        let limit = limit();
        let limits = ["-s", "--max-time", &limit, "--cacert", &roots.to_string_lossy()];
        let shown = ["-o", "/dev/null", "-w", ended, url];
        self.testbed.pod().run("curl", &[limits, shown].concat()).unwrap().stdout
    }

    /// Asks for these in turn until the time is up.
    fn ask(&self, client: &str, start: Instant, urls: &[String]) -> Outcome {
        let mut outcome = Outcome { client: client.to_owned(), requests: 0, failures: Vec::new() };
        for url in urls.iter().cycle().take_while(|_| start.elapsed() < soak()) {
            let asked = start.elapsed();
            let status = self.curl(url);
            outcome.requests += 1;
            if !status.starts_with("200 ") {
                outcome.failures.push(format!("{url} at {asked:?}: {status}"));
            }
            thread::sleep(PACE);
        }
        outcome
    }
}

/// Where the gateway's certificates are, and the roots of the outside's.
fn certificates(testbed: &Testbed) -> String {
    testbed.dir().join("gateway").to_string_lossy().into_owned()
}

fn plain(host: &str, port: u16) -> String {
    format!("http://{host}:{port}/")
}

fn secure(host: &str, port: u16) -> String {
    format!("https://{host}:{port}/")
}

/// A client that runs by itself, and how its output is read.
struct Load {
    name: &'static str,
    process: Process,
    outcome: fn(&str, &str) -> Outcome,
}

/// Clients that run for as long as the traffic.
fn loads(testbed: &Testbed) -> Vec<Load> {
    let (dir, seconds) = (testbed.dir(), soak().as_secs().to_string());
    let body = dir.join("payload");
    fs::write(&body, vec![b'x'; 1000]).unwrap();
    let body = body.to_string_lossy();
    let start = |pod: &Place, name: &str, program: &str, args: &[&str]| {
        let log = name.replace('/', "-");
        pod.start(&dir, &log, program, args).unwrap()
    };
    let h2load = |name, host: &str, port, args: &[&str]| {
        let url = plain(host, port) + if args.contains(&"-d") { "read" } else { "" };
        // At a pace: the machine has other things to do.
        let all = ["-D", &seconds, "-c", "2", "-m", "4", "-N", "30", "--rps", "20"];
        let process = start(testbed.pod(), name, "h2load", &[&all, args, &[&*url]].concat());
        Load { name, process, outcome: Outcome::of_h2load }
    };
    let raw = |name, host: &str, port: u16, kind: &str| {
        let args = ["-c", RAW_CLIENT, host, &port.to_string(), &seconds, &limit(), kind];
        let process = start(testbed.pod(), name, "/usr/bin/python3", &args);
        Load { name, process, outcome: Outcome::of_raw }
    };
    let post = ["-d", &*body];
    vec![
        h2load("HTTP/2", WWW, HTTP2, &[]),
        h2load("HTTP/2 with bodies", WWW, HTTP2, &post),
        h2load("HTTP/1.1", WWW, HTTP1, &["--h1"]),
        h2load("TLS origination", PAYMENTS, ORIGINATED, &[]),
        h2load("TLS origination with bodies", PAYMENTS, ORIGINATED, &post),
        h2load("HTTP/1.1 in the tunnel", PACKAGES, TUNNEL_HTTP1, &["--h1"]),
        h2load("HTTP/2 in the tunnel", PACKAGES, TUNNEL_HTTP2, &[]),
        h2load("HTTP/2 with bodies in the tunnel", PACKAGES, TUNNEL_HTTP2, &post),
        raw("raw TCP", plan::MOVING, RAW, "fresh"),
        raw(TUNNELLED[2], PACKAGES, TUNNEL_RAW, "fresh"),
        raw("a long connection in the tunnel", PACKAGES, TUNNEL_RAW, "held"),
    ]
}

/// Mixed traffic while the configuration is replaced each second, the server ends connections every twenty
/// requests, and all of [`faults`]: nothing fails, for none of the clients.
#[test]
fn mixed_traffic_loses_no_request_to_reloads_goaways_silence_moves_and_lost_name_servers() {
    let world = World::new();
    let testbed = &world.testbed;
    let curls = [
        ("curl", vec![plain(plan::MOVING, HTTP1), plain(WWW, HTTP1), plain(WWW, HTTP2)]),
        ("curl for TLS origination", vec![plain(PAYMENTS, ORIGINATED)]),
        ("curl for TLS passthrough", vec![secure(plan::MOVING, PASSED), secure(PACKAGES, PASSED)]),
        (TUNNELLED[0], vec![plain(PACKAGES, TUNNEL_HTTP1), plain(PACKAGES, TUNNEL_HTTP2)]),
        (TUNNELLED[1], vec![secure(PACKAGES, TUNNEL_PASSED)]),
    ];
    for url in curls.iter().flat_map(|(_, urls)| urls) {
        until_is(SOON, url, || world.curl(url), |seen| seen.starts_with("200 "))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", world.failures()));
    }
    let gateway = testbed.gateway(0);
    let nft = |args: &str| {
        let done = gateway.run("nft", &[args]).unwrap();
        assert!(done.ok(), "{args}: {done:?}");
    };
    nft("add table inet fault");
    nft("add chain inet fault out { type filter hook output priority 0 ; }");
    FAULTS.iter().for_each(|fault| nft(&format!("add counter inet fault {fault}")));
    let streams = || testbed.node_metric("egress_tunnel_streams_total").unwrap();
    let accepted = || testbed.stat(0, "egress.config.accepted").unwrap();
    let (before, configured) = (streams(), accepted());
    let mut loads = loads(testbed);
    let start = Instant::now();
    // What goes wrong does so whether or not a client waits for its answer.
    let go_wrong = || {
        for second in 0.. {
            if start.elapsed() >= soak() {
                break;
            }
            let text = resources(&certificates(testbed), 10 + second % 2);
            testbed.apply("soak.yaml", &text).unwrap();
            testbed.point(plan::MOVING, place(second)).unwrap();
            let rules = faults(second).into_iter();
            let rules: String =
                rules.map(|rule| format!("add rule inet fault out {rule}; ")).collect();
            nft(&format!("flush chain inet fault out; {rules}"));
            let next = start + Duration::from_secs(u64::from(second) + 1);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        nft("flush chain inet fault out");
    };
    let mut outcomes: Vec<Outcome> = thread::scope(|scope| {
        scope.spawn(go_wrong);
        let asking: Vec<_> = curls
            .iter()
            .map(|(client, urls)| scope.spawn(|| world.ask(client, start, urls)))
            .collect();
        asking.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for Load { name, process, outcome } in &mut loads {
        until(2 * SOON, name, || process.ended()).unwrap();
        outcomes.push(outcome(name, &process.stdout()));
    }
    for Outcome { client, requests, failures } in &outcomes {
        println!("{client}: {requests} requests, {} failed", failures.len());
    }
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", world.failures());
    // Each of them was at work until the end, and all that should go wrong did.
    let seconds = soak().as_secs() / u64::from(wait::patience());
    assert!(outcomes.iter().all(|outcome| outcome.requests >= seconds / 4), "{outcomes:?}");
    let done = gateway.run("nft", &["list", "counters", "table", "inet", "fault"]).unwrap();
    for fault in FAULTS {
        let (_, counted) = done.stdout.split_once(&format!("counter {fault} {{")).unwrap();
        let packets = counted.trim().strip_prefix("packets ").and_then(|rest| rest.split_once(' '));
        assert!(packets.is_some_and(|(packets, _)| packets != "0"), "{fault}: {done:?}");
    }
    let reloads = accepted() - configured;
    assert!(reloads >= seconds / 4, "{reloads} configurations");
    // A connection has twenty requests of HTTP/2, and then GOAWAY.
    let asked = outcomes
        .iter()
        .filter(|outcome| ["HTTP/2", "HTTP/2 with bodies"].contains(&&*outcome.client));
    let asked: u64 = asked.map(|outcome| outcome.requests).sum();
    let opened = format!("cluster.outbound|{HTTP2}||{WWW}.upstream_cx_total");
    let opened = testbed.stat(0, &opened).unwrap();
    assert!(opened >= asked / 20, "{opened} connections, {asked} requests");
    // What should be in the tunnel was.
    let fresh = outcomes.iter().filter(|outcome| TUNNELLED.contains(&&*outcome.client));
    let connections: u64 = fresh.map(|outcome| outcome.requests).sum();
    let seen = streams() - before;
    assert!(seen >= connections, "{seen} streams, {connections} connections");
    // The forbidden twins, at the same ports.
    for port in [HTTP1, TUNNEL_HTTP1] {
        let refused = testbed.curl_status(&[&plain("evil.example.net", port)]).unwrap();
        assert!(refused == "403" || refused.starts_with("curl: "), "{port}: {refused}");
    }
    for port in [PASSED, TUNNEL_PASSED] {
        let refused = testbed.curl_status(&["-k", &secure("evil.example.net", port)]).unwrap();
        assert!(refused.starts_with("curl: "), "{port}: {refused}");
    }
    let metrics = testbed.admin(0, "stats/prometheus").unwrap();
    assert!(metrics.lines().any(|line| line == "egress_panics_total 0"), "{metrics}");
}
