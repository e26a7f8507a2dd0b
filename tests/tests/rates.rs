//! Rate limits of egress policies, from pods with curl: what is within them passes, what is beyond them is
//! refused, and another workload that asks the same host is not affected.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::{Duration, Instant};

use egress_tests::{
    cluster::Cluster,
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
