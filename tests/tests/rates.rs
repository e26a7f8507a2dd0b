//! Rate limits of egress policies and of annotated service entries, from pods with curl and over raw TCP: what is
//! within them passes, what is beyond them is refused, and another workload that asks the same host is not affected.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::{Duration, Instant};

use egress_tests::{
    cluster::Cluster,
    mtls,
    outside::PAGE_BYTES,
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};
use serde_json::Value;

const PLAIN: &str = "http://edition.cnn.com/politics";
const OTHER_PLAIN: &str = "http://www.example.com/";
const SECURE: &str = "https://edition.cnn.com/politics";
const OTHER_SECURE: &str = "https://www.example.com/";
/// More than a limit of one a second lets through while they are made.
const COUNT: usize = 40;
/// Bytes a second, and at once: the page takes more than seven seconds.
const RATE: f64 = 20_000.0;
const BURST: f64 = 500.0;

/// The pod is `web` of `shop`, its neighbour `job`.
fn mesh() -> String {
    format!(
        "{}accessLogEncoding: JSON\nworkloads:\n\
         - name: web\n  namespace: shop\n  labels: {{app: web}}\n  addresses: [{}]\n  interface: {}\n\
         - name: job\n  namespace: shop\n  labels: {{app: job}}\n  addresses: [{}]\n  interface: {}\n",
        mesh_yaml(1).replace("direct: registry\n", ""),
        plan::POD,
        plan::POD_INTERFACE,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_INTERFACE,
    )
}

/// The same with the app node's identity, for a tunnel.
fn mesh_mtls() -> String {
    let node = format!(
        "nodes:\n- name: app\n  principal: {}\n  addresses: [{}, \"{}\"]\n",
        mtls::NODE_ID,
        plan::APP,
        plan::APP_V6,
    );
    mesh().replace("  labels: {app", "  node: app\n  serviceAccount: default\n  labels: {app")
        + &node
}

fn policy(port: &str, limit: &str) -> String {
    format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
         metadata: {{name: news, namespace: shop}}\nspec:\n  rules:\n  \
         - hosts: [edition.cnn.com, www.example.com]\n    ports: [{port}]\n{limit}"
    )
}

/// What so many requests give.
fn statuses(place: &Place, url: &str, count: usize) -> Vec<u16> {
    place.statuses(url, count).unwrap()
}

/// What a limit of one a second lets through since then.
fn tokens(since: Instant, burst: usize) -> usize {
    burst + usize::try_from(since.elapsed().as_secs()).unwrap() + 1
}

fn count(statuses: &[u16], wanted: u16) -> usize {
    statuses.iter().filter(|status| **status == wanted).count()
}

fn sees(place: &Place, url: &str, expected: u16) {
    let what = format!("{url} to give {expected}");
    let seen = || statuses(place, url, 1);
    until_is(SOON, &what, seen, |seen| seen == &[expected]).unwrap();
}

/// The refusals in the gateway's log, once there are so many of them.
fn refusals(gateway: &Process, wanted: usize) -> Vec<Value> {
    let find = || {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<_> = lines.filter(|line| line["reason"] == "rate_limited").collect();
        (found.len() >= wanted).then_some(found)
    };
    until(SOON, "the refusals to be logged", find).unwrap()
}

#[test]
fn a_workload_is_held_to_its_rate_and_no_other_is() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh()).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    let refused = || testbed.stat(0, "egress.denied.rate_limited").unwrap();

    // Requests. Without a limit all pass.
    let http = "{port: 80, protocol: HTTP}";
    testbed.apply("policy.yaml", &policy(http, "")).unwrap();
    sees(pod, PLAIN, 301);
    assert_eq!(count(&statuses(pod, PLAIN, COUNT), 301), COUNT);
    assert_eq!(refused(), 0);
    let limit = "    rateLimit: {requests: {perSecond: 1, burst: 3}}\n";
    testbed.apply("policy.yaml", &policy(http, limit)).unwrap();
    let limited = || {
        let began = Instant::now();
        (statuses(pod, PLAIN, COUNT), tokens(began, 3))
    };
    let holds = |(seen, _): &(Vec<u16>, usize)| count(seen, 429) > 0;
    let (seen, most) = until_is(SOON, "the limit to hold", limited, holds).unwrap();
    assert_eq!(count(&seen, 301) + count(&seen, 429), COUNT, "{seen:?}");
    // Those of the time before the limit held are none of it.
    let held = seen.iter().skip_while(|status| **status != 429);
    assert!(held.filter(|status| **status == 301).count() <= most, "{seen:?}");
    let before = refusals(&gateway, count(&seen, 429));
    for line in &before {
        assert_eq!(line["response_code"], 429, "{line}");
        assert_eq!(line["response_flags"], "RL", "{line}");
        assert_eq!(line["authority"], "edition.cnn.com", "{line}");
        assert_eq!(line["workload"], "web", "{line}");
    }
    assert!(refused() >= u64::try_from(before.len()).unwrap());
    // Each workload and each host has tokens of its own.
    assert_eq!(statuses(pod, OTHER_PLAIN, 1), [301]);
    assert_eq!(statuses(neighbour, PLAIN, 1), [301]);

    // Connections: each curl makes one.
    let tls = "{port: 443, protocol: TLS}";
    let limit = "    rateLimit: {connections: {perSecond: 1, burst: 2}}\n";
    testbed.apply("policy.yaml", &policy(tls, limit)).unwrap();
    sees(neighbour, OTHER_SECURE, 200);
    let connect = || statuses(pod, SECURE, 1) == [200];
    let began = Instant::now();
    let passed = (0..COUNT).filter(|_| connect()).count();
    let most = tokens(began, 2);
    assert!((1..COUNT.min(most + 1)).contains(&passed), "{passed} of at most {most}");
    assert_eq!(statuses(neighbour, SECURE, 1), [200]);
    let lines = refusals(&gateway, before.len() + 1);
    let closed: Vec<_> = lines.iter().filter(|line| line["response_code"] == 0).collect();
    assert!(!closed.is_empty());
    for line in closed {
        assert_eq!(line["response_flags"], "RL", "{line}");
        assert_eq!(line["requested_server_name"], "edition.cnn.com", "{line}");
        assert_eq!(line["connection_termination_details"], "local_rate_limited", "{line}");
    }

    // Bytes: a transfer waits and arrives whole, no sooner than the limit lets it.
    let limit = format!("    rateLimit: {{bytes: {{perSecond: {RATE}, burst: {BURST}}}}}\n");
    let whole = "    rateLimit: {connections: {perSecond: 1000}}\n";
    let body = || {
        let began = Instant::now();
        let body = pod.run("curl", &["-s", "-m", "60", SECURE]).unwrap().stdout;
        (body, began.elapsed())
    };
    testbed.apply("policy.yaml", &policy(tls, whole)).unwrap();
    let all = || (0..COUNT).all(|_| connect());
    until_is(SOON, "the old limit to end", all, |all| *all).unwrap();
    let (expected, at_once) = body();
    assert_eq!(expected.len(), PAGE_BYTES);
    // The page alone, without what TLS and HTTP add, and less the burst.
    let least =
        Duration::from_secs_f64((f64::from(u32::try_from(PAGE_BYTES).unwrap()) - BURST) / RATE);
    assert!(at_once < least, "{at_once:?}");
    testbed.apply("policy.yaml", &policy(tls, &limit)).unwrap();
    let (seen, took) =
        until_is(SOON, "the limit to hold", body, |(_, took)| *took >= least).unwrap();
    assert!(seen == expected, "{took:?}");
}

/// The service over raw TCP, which echoes.
const TCP_HOST: &str = "tcp.example.com";
const TCP_PORT: u16 = plan::TCP_PORTS[1];
/// At once, at one a second.
const TCP_BURST: usize = 3;

/// Makes so many connections, one after the other, and prints how each went. A reset counts as refused whichever call
/// sees it first.
const CONNECTIONS: &str = r#"
import socket, sys
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as stream:
            stream.sendall(b"ping")
            print({b"ping": "served", b"": "refused"}[stream.recv(4, socket.MSG_WAITALL)])
    except (ConnectionResetError, BrokenPipeError):
        print("refused")
"#;

/// How so many connections went: whether each was served.
fn connections(place: &Place, count: usize) -> Vec<bool> {
    let (port, number) = (TCP_PORT.to_string(), count.to_string());
    let args = ["-c", CONNECTIONS, plan::TCP_SERVICE, &port, &number];
    let done = place.run("/usr/bin/python3", &args).unwrap();
    let lines = done.stdout.lines().map(|line| line == "served");
    if done.ok() { lines.collect() } else { panic!("{done:?}") }
}

/// The way from the node to the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hop {
    Plain,
    Tunnel,
}

/// Which resource sets the limit.
#[derive(Clone, Copy)]
enum Form {
    Policy,
    Annotation,
}

/// What leads to the service, with a limit.
fn tcp_resources(hop: Hop, form: Form) -> String {
    let limit = format!("{{connections: {{perSecond: 1, burst: {TCP_BURST}}}}}");
    let service = "istio-egressgateway.istio-system.svc.cluster.local";
    let (server, rule) = match hop {
        Hop::Plain => ("protocol: TCP}", String::new()),
        Hop::Tunnel => (
            "protocol: TLS}\n    tls: {mode: ISTIO_MUTUAL}",
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: hop}}\n\
                 spec: {{host: {service}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}\n"
            ),
        ),
    };
    let resources = match form {
        Form::Policy => format!(
            "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
             metadata: {{name: db, namespace: shop}}\nspec:\n  rules:\n  - hosts: [{TCP_HOST}]\n    \
             ports: [{{port: {TCP_PORT}, protocol: TCP}}]\n    rateLimit: {limit}\n"
        ),
        Form::Annotation => format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: db, namespace: shop, annotations: {{egress-enforcer.io/rate-limit: '{limit}'}}}}
spec:
  hosts: [{TCP_HOST}]
  addresses: [{address}]
  ports: [{{number: {TCP_PORT}, name: tcp, protocol: TCP}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress, namespace: shop}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - hosts: ['*']
    port: {{number: 15432, name: tcp, {server}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: db, namespace: shop}}
spec:
  hosts: [{TCP_HOST}]
  gateways: [mesh, egress]
  tcp:
  - match: [{{gateways: [mesh], port: {TCP_PORT}}}]
    route: [{{destination: {{host: {service}, port: {{number: 15432}}}}}}]
  - match: [{{gateways: [egress], port: 15432}}]
    route: [{{destination: {{host: {TCP_HOST}, port: {{number: {TCP_PORT}}}}}}}]
",
            address = plan::TCP_SERVICE,
        ),
    };
    resources + &rule
}

/// Connections within the rate are served, and those beyond it refused and recorded with their reason, until the rate
/// allows more; the neighbour, whom the same resource limits, has connections of its own.
fn holds_raw_tcp_to_its_rate(hop: Hop, form: Form, label: &str) {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let args = cluster.node_args(&testbed);
    let (gateway, _node) = match hop {
        Hop::Plain => {
            testbed.apply_mesh(&mesh()).unwrap();
            testbed.apply("tcp.yaml", &tcp_resources(hop, form)).unwrap();
            (testbed.start_gateway(0).unwrap(), testbed.start_node_with(&args).unwrap())
        }
        Hop::Tunnel => {
            testbed.prepare_mtls(1).unwrap();
            testbed.apply_mesh(&mesh_mtls()).unwrap();
            testbed.apply("tcp.yaml", &tcp_resources(hop, form)).unwrap();
            let args = [args, testbed.identity_args("node"), Testbed::tunnel_args()].concat();
            (testbed.start_gateway_mtls(0).unwrap(), testbed.start_node_with(&args).unwrap())
        }
    };
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);
    let refused = || testbed.stat(0, "egress.denied.rate_limited").unwrap();
    let one = || connections(neighbour, 1);
    until_is(SOON, "the service to answer", one, |seen| seen == &[true]).unwrap();
    assert_eq!(refused(), 0, "{}", gateway.stdout());

    let began = Instant::now();
    let seen = connections(pod, COUNT);
    let most = tokens(began, TCP_BURST);
    let served = seen.iter().filter(|served| **served).count();
    assert_eq!(seen.len(), COUNT);
    assert_eq!(seen[..TCP_BURST], [true; TCP_BURST], "{seen:?}");
    assert!(served < COUNT && served <= most, "{served} of at most {most}: {seen:?}");
    // The other workload is not limited by it.
    assert_eq!(connections(neighbour, 1), [true], "{}", gateway.stdout());

    let beyond = COUNT - served;
    let lines = refusals(&gateway, beyond);
    assert_eq!(lines.len(), beyond, "{lines:#?}");
    for line in &lines {
        assert_eq!(line["response_code"], 0, "{line}");
        assert_eq!(line["response_flags"], "RL", "{line}");
        assert_eq!(line["connection_termination_details"], "local_rate_limited", "{line}");
        assert_eq!(line["upstream_cluster"], format!("outbound|{TCP_PORT}||{TCP_HOST}"), "{line}");
        assert_eq!(line["upstream_host"], Value::Null, "{line}");
        assert_eq!(line["workload"], "web", "{line}");
    }
    assert_eq!(refused(), u64::try_from(beyond).unwrap());
    // `flows` says which resource sets the limit.
    let control = testbed.gateway_control(0).to_string_lossy().into_owned();
    let args = ["flows", "--control", &control, "--reason", "rate_limited", "--last", "1000"];
    let flows = testbed.app().run(&testbed.agent().to_string_lossy(), &args).unwrap();
    let why = format!(
        ": {label} allows each workload 1 connections a second to each host, {TCP_BURST} at once"
    );
    let explained = flows.stdout.lines().filter(|line| line.ends_with(&why)).count();
    assert_eq!(explained, beyond, "{flows:?}");
    let through = testbed.node_metric("egress_tunnel_streams_total").unwrap();
    assert_eq!(through > 0, hop == Hop::Tunnel, "{through}");
    // A second later there is one more.
    until_is(SOON, "the pod to be served again", || connections(pod, 1), |seen| seen == &[true])
        .unwrap();
}

#[test]
fn raw_tcp_beyond_its_rate_is_refused() {
    holds_raw_tcp_to_its_rate(Hop::Plain, Form::Policy, "EgressPolicy shop/db, spec.rules[0]");
    holds_raw_tcp_to_its_rate(Hop::Plain, Form::Annotation, "ServiceEntry shop/db");
}

#[test]
fn raw_tcp_beyond_its_rate_is_refused_in_the_tunnel() {
    holds_raw_tcp_to_its_rate(Hop::Tunnel, Form::Policy, "EgressPolicy shop/db, spec.rules[0]");
    holds_raw_tcp_to_its_rate(Hop::Tunnel, Form::Annotation, "ServiceEntry shop/db");
}
