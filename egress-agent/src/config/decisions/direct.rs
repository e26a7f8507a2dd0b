//! `direct: registry`: which ports are opened past every gateway.

use super::scopes::{entry, rule};
use crate::{
    config::{Severity, testing::compiled},
    policy::{NodeAction, NodeRoute},
};

const DIRECT: &str = "direct: registry\n";

/// How many addresses and names are opened, and what is refused.
fn opened(texts: &[&str]) -> (usize, Vec<String>) {
    let compiled = compiled(texts, DIRECT);
    let routes = compiled.snapshot.node.routes.iter();
    let opened = routes.filter(|route| route.action == NodeAction::Direct).count();
    let refusals = compiled.warnings.into_iter().filter(|p| p.severity == Severity::Refusal);
    (opened, refusals.map(|problem| problem.message).collect())
}

/// The node neither starts TLS nor counts connections: what a rule asks for is done at a gateway, or the port
/// is not opened.
#[test]
fn what_only_a_gateway_can_do_is_never_left_out_on_a_direct_connection() {
    let entry = |protocol: &str| {
        entry("aaa/a", "a.example", "").replace("80", "5432").replace("HTTP", protocol)
    };
    assert_eq!(opened(&[&entry("TCP")]), (1, Vec::new()));
    assert_eq!(opened(&[&entry("TLS")]), (1, Vec::new()));
    for (policy, asked) in [
        ("{tls: {mode: SIMPLE}}", "TLS"),
        ("{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}}", "TLS"),
        ("{portLevelSettings: [{port: {number: 5432}, tls: {mode: SIMPLE}}]}", "TLS"),
        ("{tls: {mode: ISTIO_MUTUAL}}", "TLS"),
        ("{tunnel: {protocol: CONNECT, targetHost: a.example, targetPort: 443}}", "a proxy"),
        ("{proxyProtocol: {version: V1}}", "the PROXY protocol"),
        ("{connectionPool: {tcp: {maxConnections: 3}}}", "a limit of connections"),
        ("{connectionPool: {tcp: {maxConnectionDuration: 1h}}}", "a limit of their duration"),
    ] {
        let rule = rule("aaa/r", "a.example", &format!("trafficPolicy: {policy}"));
        let (opened, refusals) = opened(&[&entry("TCP"), &rule]);
        assert_eq!(opened, 0, "{policy}");
        let told = format!("DestinationRule aaa/r asks for {asked}");
        let is_told = |refusal: &String| {
            refusal.starts_with(&told) && refusal.contains("does not open a.example port 5432")
        };
        assert!(refusals.iter().any(is_told), "{policy}: {refusals:?}");
    }
    // A rule of another namespace is for its own workloads, which the node's routes do not tell apart from
    // others. Where they do not see the service, it concerns nobody.
    let other =
        rule("team-b/r", "a.example", "trafficPolicy: {tls: {mode: SIMPLE}}, exportTo: ['.']");
    assert_eq!(opened(&[&entry("TCP"), &other]).0, 0);
    let own = entry("TCP").replace("resolution: DNS", "resolution: DNS, exportTo: ['.']");
    assert_eq!(opened(&[&own, &other]), (1, Vec::new()));
    // What the application has encrypted leaves as it is.
    let tls_on_tls = rule("aaa/r", "a.example", "trafficPolicy: {tls: {mode: SIMPLE}}");
    assert_eq!(opened(&[&entry("TLS"), &tls_on_tls]), (1, Vec::new()));
    for policy in [
        "{tls: {mode: DISABLE}}",
        "{loadBalancer: {simple: RANDOM}}",
        "{connectionPool: {tcp: {connectTimeout: 3s}}}",
        "{portLevelSettings: [{port: {number: 5433}, tls: {mode: SIMPLE}}]}",
    ] {
        let rule = rule("aaa/r", "a.example", &format!("trafficPolicy: {policy}"));
        assert_eq!(opened(&[&entry("TCP"), &rule]), (1, Vec::new()), "{policy}");
    }
}

/// A node sees addresses alone: what one service asks for holds for all that have its addresses.
#[test]
fn what_is_not_opened_for_one_service_is_opened_for_no_other() {
    let at = |full: &str, host: &str, port: u16, addresses: &str| {
        entry(full, host, &format!(", addresses: ['{addresses}']"))
            .replace("80", &port.to_string())
            .replace("HTTP", "TCP")
            .replace("resolution: DNS", "resolution: NONE")
    };
    let asking = at("aaa/a", "a.example", 5432, "203.0.113.9/32");
    let rule = rule("aaa/r", "a.example", "trafficPolicy: {tls: {mode: SIMPLE}}");
    for (other, expected) in [
        (at("aaa/b", "b.example", 5432, "203.0.113.0/24"), 0),
        (at("aaa/b", "b.example", 5432, "203.0.113.9/32"), 0),
        (at("aaa/b", "b.example", 5433, "203.0.113.0/24"), 1),
        (at("aaa/b", "b.example", 5432, "198.51.100.0/24"), 1),
    ] {
        for texts in [[&*asking, &*other, &*rule], [&*other, &*asking, &*rule]] {
            let (opened, refusals) = opened(&texts);
            assert_eq!(opened, expected, "{other}: {refusals:?}");
            assert_eq!(refusals.len(), 1, "{other}: {refusals:?}");
            let is_told = refusals[0].contains("nor the same addresses for ServiceEntry aaa/b");
            assert_eq!(is_told, expected == 0, "{refusals:?}");
        }
    }
}

/// What goes to a gateway is done there.
#[test]
fn a_wildcard_that_goes_to_a_gateway_is_not_closed() {
    let wildcard = entry("aaa/w", "*.wild.example", "").replace("80", "443").replace("HTTP", "TLS");
    let wildcard = wildcard.replace("resolution: DNS", "resolution: NONE");
    let limit = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}";
    let of_wildcard = rule("aaa/r", "*.wild.example", limit);
    let compiled = compiled(&[&wildcard, &of_wildcard], DIRECT);
    let is_led = |route: &NodeRoute| {
        matches!(route.action, NodeAction::Redirect { .. })
            && route.port.is_some_and(|p| p.0.get() == 443)
    };
    assert!(compiled.snapshot.node.routes.iter().any(is_led));
    assert!(compiled.warnings.iter().all(|problem| problem.severity == Severity::Warning));
    // And so is one host beside it, on the same port.
    let one = entry("aaa/a", "a.example", "").replace("80", "443").replace("HTTP", "TLS");
    let of_one = rule("aaa/s", "a.example", limit);
    assert_eq!(opened(&[&wildcard, &one, &of_one]), (0, Vec::new()));
}
