//! What isn't allowed by name is refused so that people and programs understand it: hosts that
//! aren't in the registry, and upstream certificates that don't hold.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    access_log::{self, Line},
    outside::Seen,
    plan,
    process::{Place, Process},
    resources::web_service,
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// What `BlackHoleCluster` took: requests, and connections that carried none.
fn black_hole(testbed: &Testbed) -> u64 {
    let counted =
        |name: &str| testbed.stat(0, &format!("cluster.BlackHoleCluster.upstream_{name}"));
    counted("rq_total").unwrap() + counted("cx_total").unwrap()
}

/// One host through the gateway, on port 80 and, as passthrough, on port 443.
fn routed(host: &str) -> String {
    let web = web_service("routed", host);
    format!(
        "{web}apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: [{host}]
  - port: {{number: 443, name: tls, protocol: TLS}}
    hosts: [{host}]
    tls: {{mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routed}}
spec:
  hosts: [{host}]
  gateways: [mesh, egress]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 80}}}}}}]
  - match: [{{gateways: [egress], port: 80}}]
    route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]
  tls:
  - match: [{{gateways: [mesh], port: 443, sniHosts: [{host}]}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 443}}}}}}]
  - match: [{{gateways: [egress], port: 443, sniHosts: [{host}]}}]
    route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]
"
    )
}

/// TLS origination for a host: the pod says http, the gateway speaks TLS.
fn originated(host: &str) -> String {
    let name = host.replace('.', "-");
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: http-tls, protocol: HTTP}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  gateways: [mesh, origination]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 443}}}}}}]
  - match: [{{gateways: [origination], port: 443}}]
    route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {host}
  trafficPolicy:
    portLevelSettings: [{{port: {{number: 443}}, tls: {{mode: SIMPLE}}}}]
"
    )
}

fn origination_gateway(hosts: &[&str]) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: origination}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 443, name: http, protocol: HTTP}}
    hosts: [{}]
",
        hosts.join(", ")
    )
}

#[test]
fn a_host_that_is_not_in_the_registry_is_refused_in_every_protocol() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply("routed.yaml", &routed(plan::HOST)).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    until_is(
        SOON,
        "the routed host to be served",
        || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap(),
        |seen| seen == "200",
    )
    .unwrap();
    assert_eq!(testbed.curl_status(&["http://edition.cnn.com/"]).unwrap(), "301");

    // HTTP: 403 with a body that names host and reason.
    let before = black_hole(&testbed);
    let http = testbed.curl(&["-w", "%{http_code}", "http://www.example.com/x"]).unwrap();
    assert!(http.stdout.ends_with("403"), "{http:?}");
    assert!(http.stdout.contains("www.example.com"), "{http:?}");
    assert!(http.stdout.contains("host_not_in_registry"), "{http:?}");
    let line = refused_line(&gateway, |line| line.authority == "www.example.com");
    assert_eq!((line.code, line.flags.as_str()), (403, "NR"), "{line:?}");
    assert_eq!(line.upstream_host, "-", "{line:?}");

    // TLS: a fatal alert, which curl calls a failed handshake.
    let tls = testbed.curl(&["-S", "https://www.example.com/"]).unwrap();
    assert_eq!(tls.code, 35, "{tls:?}");
    assert!(tls.stderr.contains("alert") || tls.stderr.contains("unrecognized name"), "{tls:?}");
    let line = refused_line(&gateway, |line| line.request == "- - -" && line.flags == "NR");
    assert_eq!((line.code, line.upstream_host.as_str()), (0, "-"), "{line:?}");
    // Who, and where to.
    assert!(line.downstream_remote.starts_with(plan::POD), "{line:?}");
    assert_eq!(line.server_name, "www.example.com");
    assert_eq!(line.upstream_cluster, "BlackHoleCluster");

    // Anything else on a routed port: a reset, not silence.
    let script = "exec 3<>/dev/tcp/203.0.113.9/443 && printf '\\1\\2\\3\\4garbage\\r\\n\\r\\n' >&3 && cat <&3";
    let tcp = testbed.pod().run("bash", &["-c", script]).unwrap();
    assert!(tcp.stderr.contains("reset"), "{tcp:?}");

    until_is(
        SOON,
        "the three to be counted in BlackHoleCluster",
        || black_hole(&testbed),
        |now| *now >= before + 3,
    )
    .unwrap();
    let seen = testbed.record().take();
    assert!(
        !seen.iter().any(|seen| matches!(seen,
            Seen::Http { host, .. } | Seen::Https { host, .. } if host.contains("example.com"))),
        "{seen:?}"
    );
    assert_eq!(capture.frames(), Vec::<String>::new());
}

#[test]
fn an_upstream_certificate_that_does_not_hold_fails_with_503_and_a_sentence() {
    let bad = [
        ("expired.example.com", "expired"),
        ("self-signed.example.com", "self-signed"),
        ("wrong-name.example.com", "other.example.com"),
        ("unknown-ca.example.com", "unknown issuer"),
        // A good certificate, but roots of its own that can't be read.
        ("www.example.com", "/no/such/ca.pem"),
    ];
    let testbed = Testbed::test(1).unwrap();
    let mesh = egress_tests::testbed::mesh_yaml(1);
    testbed.apply_mesh(&format!("{mesh}accessLogFormat: istio\n")).unwrap();
    let mut hosts: Vec<&str> = bad.iter().map(|(host, _)| *host).collect();
    hosts.push(plan::HOST);
    testbed.apply("gateway.yaml", &origination_gateway(&hosts)).unwrap();
    for host in &hosts {
        let mut rule = originated(host);
        if *host == "www.example.com" {
            rule = rule.replace("mode: SIMPLE", "mode: SIMPLE, caCertificates: /no/such/ca.pem");
        }
        testbed.apply(&format!("{host}.yaml"), &rule).unwrap();
    }
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let good = || testbed.curl_status(&["http://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the good certificate to be accepted", good, |seen| seen == "200").unwrap();
    testbed.record().take();

    for (host, word) in bad {
        let url = format!("http://{host}/secret");
        let done = testbed.curl(&["-w", "%{http_code}", &url]).unwrap();
        assert!(done.stdout.ends_with("503"), "{host}: {done:?}");
        let line = until(SOON, &format!("a line about {host}"), || {
            let log = gateway.stdout();
            log.lines()
                .find(|line| line.contains(host) && line.contains(" 503 "))
                .map(str::to_owned)
        })
        .unwrap();
        assert!(line.contains(" 503 UF "), "{line}");
        // `%UPSTREAM_TRANSPORT_FAILURE_REASON%` is the first quoted field after the flags.
        let reason = line.split(" 503 UF").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap();
        assert!(reason.contains(word), "{host}: {reason}");
    }
    // A server knows a moment later that its handshake was broken off.
    let mut seen = Vec::new();
    until(SOON, "four broken handshakes", || {
        seen.extend(testbed.record().take());
        (seen.len() >= 4).then_some(())
    })
    .unwrap();
    assert!(
        seen.iter().all(|seen| *seen == Seen::HandshakeFailed),
        "nothing but broken handshakes may reach them: {seen:?}"
    );
}

/// The last line of the gateway's log that is meant.
fn refused_line(gateway: &Process, meant: impl Fn(&Line) -> bool) -> Line {
    until(SOON, "a line about the refusal", || {
        access_log::lines(&gateway.stdout()).into_iter().rfind(&meant)
    })
    .unwrap_or_else(|error| panic!("{error:#}:\n{}", gateway.stdout()))
}

/// What glibc's getaddrinfo does with each address of a name; then a datagram.
const SORT: &str = "
import errno, socket, sys
sent = sys.argv[1] == 'send'
for family, to in (socket.AF_INET, sys.argv[2]), (socket.AF_INET6, sys.argv[3]):
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect((to, 53))
        print(asked.getsockname()[0])
        if sent:
            try:
                asked.send(b'secret')
            except PermissionError as error:
                print(errno.errorcode[error.errno])
";

#[test]
fn a_udp_connect_that_sends_nothing_is_no_refusal() {
    let testbed = Testbed::test(1).unwrap();
    testbed.apply("routed.yaml", &routed(plan::HOST)).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let url = "https://edition.cnn.com/";
    let served = || testbed.curl_status(&[url]).unwrap();
    until_is(SOON, "the routed host to be served", served, |seen| seen == "200").unwrap();
    let refused = || -> u64 {
        let metrics = testbed.node_metrics().unwrap();
        let denied = metrics.lines().filter(|line| {
            line.starts_with("egress_verdicts_total") && line.contains("reason=\"protocol\"")
        });
        denied.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let before = refused();
    let from = |place: &Place, what: &str| {
        let args = ["-c", SORT, what, plan::ATTACKER, plan::ATTACKER_V6];
        let done = place.run("/usr/bin/python3", &args).unwrap();
        assert!(done.ok(), "{done:?}");
        done.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };

    // Names with several addresses, and the same by hand: nothing is sent, nothing is refused.
    for _ in 0..5 {
        assert_eq!(served(), "200");
    }
    assert_eq!(from(testbed.pod(), "sort"), [plan::POD, plan::POD_V6]);
    from(&testbed.host_network(), "sort");
    assert_eq!(refused(), before);
    assert!(!node.stdout().contains("(protocol)"), "{}", node.stdout());

    // The datagram is refused, and said so.
    for place in [testbed.pod(), &testbed.host_network()] {
        let said = from(place, "send");
        assert_eq!(said.iter().filter(|line| *line == "EPERM").count(), 2, "{said:?}");
    }
    until_is(SOON, "the datagrams to be counted", refused, |now| *now >= before + 4).unwrap();
    until(SOON, "an event", || node.stdout().contains("DENIED (protocol)").then_some(())).unwrap();
    assert_eq!(capture.frames(), Vec::<String>::new());
}
