//! `direct: registry`: which ports are opened past every gateway.

use super::scopes::{entry, rule};
use crate::{
    config::{Severity, testing::compiled},
    policy::NodeAction,
};

/// The node neither starts TLS nor counts connections: what a rule asks for is done at a gateway, or the port
/// is not opened.
#[test]
fn what_only_a_gateway_can_do_is_never_left_out_on_a_direct_connection() {
    const DIRECT: &str = "direct: registry\n";
    let entry = |protocol: &str| {
        entry("aaa/a", "a.example", "").replace("80", "5432").replace("HTTP", protocol)
    };
    let opened = |texts: &[&str]| {
        let compiled = compiled(texts, DIRECT);
        let routes = compiled.snapshot.node.routes.iter();
        let opened = routes.filter(|route| route.action == NodeAction::Direct).count();
        let refusals = compiled.warnings.into_iter().filter(|p| p.severity == Severity::Refusal);
        (opened, refusals.map(|problem| problem.message).collect::<Vec<_>>())
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
            refusal.starts_with(&told)
                && refusal.contains("on a direct connection to a.example port 5432")
        };
        assert!(refusals.iter().any(is_told), "{policy}: {refusals:?}");
    }
    // One that nobody in the service's namespace sees is for its own namespace's workloads, which the node
    // tells apart by no route.
    let hidden =
        rule("team-b/r", "a.example", "trafficPolicy: {tls: {mode: SIMPLE}}, exportTo: ['.']");
    assert_eq!(opened(&[&entry("TCP"), &hidden]).0, 0);
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
