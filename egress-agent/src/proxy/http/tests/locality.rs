//! Which endpoints get requests for where they and the gateway are.

use std::net::SocketAddr;

use super::harness::{Client, Gateway, Seen, Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
/// The gateway is there.
const HERE: &str = "localities:\n- {locality: us/a, addresses: [192.0.2.10]}\n";
const EJECT: &str =
    "outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100, baseEjectionTime: 1h}";

/// The statuses of so many requests, one after the other.
async fn ask(client: &mut Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        statuses.push(client.answer().await.unwrap().status);
    }
    statuses
}

fn requests(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(|seen| seen.requests.borrow().len()).collect()
}

/// A gateway in front of upstreams that answer this, each at its locality.
async fn start(
    upstreams: &[(&str, &'static str)],
    policy: &str,
    mesh: &str,
) -> (Gateway, Vec<Seen>) {
    let (mut addresses, mut seen): (Vec<(SocketAddr, u32)>, Vec<Seen>) = Default::default();
    for &(_, answer) in upstreams {
        let (address, at) = answering(answer).await;
        addresses.push((address, 1));
        seen.push(at);
    }
    let mut setup = Setup::new().endpoints("a.example", "HTTP", &addresses, policy);
    setup.localities(&upstreams.iter().map(|(place, _)| *place).collect::<Vec<_>>());
    setup.mesh = mesh.into();
    (setup.start().await, seen)
}

fn balanced(locality: &str, more: &str) -> String {
    format!("{{loadBalancer: {{simple: ROUND_ROBIN{locality}}}{more}}}")
}

#[test]
fn localities_get_the_shares_that_a_rule_gives_them() {
    local(async {
        let places = [("us/a", OK), ("us/b", OK), ("eu/a", OK)];
        let shares = balanced(
            ", localityLbSetting: {distribute: [{from: us/*, to: {us/a: 70, us/b: 30}}]}",
            "",
        );
        let (gateway, seen) = start(&places, &shares, HERE).await;
        assert_eq!(ask(&mut gateway.connect().await, 100).await, [200; 100]);
        let counts = requests(&seen);
        assert!((68..=72).contains(&counts[0]) && counts[0] + counts[1] == 100, "{counts:?}");
        // A gateway from elsewhere, one that does not know where it is, and a rule without shares.
        let elsewhere = HERE.replace("us/a", "ap");
        for (policy, mesh) in
            [(&shares, elsewhere.as_str()), (&shares, ""), (&balanced("", ""), HERE)]
        {
            let (gateway, seen) = start(&places, policy, mesh).await;
            ask(&mut gateway.connect().await, 90).await;
            assert_eq!(requests(&seen), [30, 30, 30], "{policy} {mesh}");
        }
    });
}

#[test]
fn the_nearest_are_asked_until_they_are_ejected() {
    local(async {
        let detecting = balanced("", &format!(", {EJECT}"));
        let (gateway, seen) = start(&[("eu", OK), ("us/a", OK)], &detecting, HERE).await;
        assert_eq!(ask(&mut gateway.connect().await, 10).await, [200; 10]);
        assert_eq!(requests(&seen), [0, 10]);
        // Two errors, and the other locality takes over.
        let (gateway, seen) = start(&[("eu", OK), ("us/a", ERROR)], &detecting, HERE).await;
        let statuses = ask(&mut gateway.connect().await, 10).await;
        assert_eq!((&statuses[..2], &statuses[2..]), (&[500; 2][..], &[200; 8][..]));
        assert_eq!(requests(&seen), [8, 2]);
        // Without outlier detection, switched off by the rule or for the mesh, and for a gateway that is nowhere.
        let off = balanced(", localityLbSetting: {enabled: false}", &format!(", {EJECT}"));
        let mesh_off = format!("{HERE}localityLbSetting: {{enabled: false}}\n");
        for (policy, mesh) in [
            (balanced("", ""), HERE),
            (off, HERE),
            (detecting.clone(), mesh_off.as_str()),
            (detecting, ""),
        ] {
            let (gateway, seen) = start(&[("eu", OK), ("us/a", OK)], &policy, mesh).await;
            ask(&mut gateway.connect().await, 10).await;
            assert_eq!(requests(&seen), [5, 5], "{policy} {mesh}");
        }
    });
}

#[test]
fn the_region_that_a_rule_names_takes_over() {
    local(async {
        let places = [("eu", OK), ("ap", OK), ("us/a", ERROR)];
        let named = balanced(
            ", localityLbSetting: {failover: [{from: us, to: ap}]}",
            &format!(", {EJECT}"),
        );
        let (gateway, seen) = start(&places, &named, HERE).await;
        ask(&mut gateway.connect().await, 12).await;
        assert_eq!(requests(&seen), [0, 10, 2]);
        let (gateway, seen) = start(&places, &balanced("", &format!(", {EJECT}")), HERE).await;
        ask(&mut gateway.connect().await, 12).await;
        assert_eq!(requests(&seen), [5, 5, 2]);
    });
}

#[test]
fn labels_come_before_the_locality_where_a_rule_names_them() {
    local(async {
        let named = |label: &str| {
            let setting = format!(", localityLbSetting: {{failoverPriority: [{label}]}}");
            balanced(&setting, &format!(", {EJECT}"))
        };
        // The second one has the label of the gateway.
        let (near, far) = ("us/a, labels: {tier: lead}", "eu, labels: {istio: egressgateway}");
        for (policy, answer, expected) in [
            (named("istio"), OK, [0, 10]),
            (named("istio=egressgateway"), OK, [0, 10]),
            // The gateway has not the label that is asked for, the first one has.
            (named("tier=lead"), OK, [10, 0]),
            // No endpoint has the value that is asked for.
            (named("istio=other"), OK, [5, 5]),
            // The gateway has no such label, and the second one neither.
            (named("tier"), OK, [0, 10]),
            // Where it errs the other one takes over.
            (named("istio"), ERROR, [8, 2]),
            // Without the setting the near one is preferred.
            (balanced("", &format!(", {EJECT}")), OK, [10, 0]),
        ] {
            let (gateway, seen) = start(&[(near, OK), (far, answer)], &policy, HERE).await;
            ask(&mut gateway.connect().await, 10).await;
            assert_eq!(requests(&seen), expected, "{policy}");
        }
    });
}
