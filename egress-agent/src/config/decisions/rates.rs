//! Rate limits: for whom they hold, and what `check` says of those that can't.

use std::sync::Arc;

use crate::{
    config::testing::{Gateway, errors},
    policy::{Rate, RateLimit},
};

/// Two workloads, besides `sleep` of `apps` at 10.0.0.5.
const PODS: &str = "\
- {name: job, namespace: apps, labels: {app: job}, addresses: [10.0.0.6]}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
         metadata: {{name: {name}, namespace: apps}}\nspec: {spec}\n"
    )
}

fn entry(annotations: &str, ports: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: a, namespace: apps, annotations: {{{annotations}}}}}\n\
         spec: {{hosts: [a.example], resolution: DNS, ports: [{ports}]}}\n"
    )
}

const HTTP: &str = "{number: 80, name: h, protocol: HTTP}";
const TLS: &str = "{number: 443, name: t, protocol: TLS}";

fn labels<'a>(limits: impl Iterator<Item = &'a Arc<RateLimit>>) -> Vec<String> {
    let mut labels: Vec<_> = limits.map(|limit| limit.label.to_string()).collect();
    labels.sort_unstable();
    labels
}

#[test]
fn every_limit_of_a_rule_that_allows_it_holds() {
    let limited = policy(
        "limited",
        "{podSelector: {matchLabels: {app: sleep}}, rules: [
           {hosts: ['*.a.example'], ports: [{port: 80, protocol: HTTP}, {port: 443, protocol: TLS}],
            rateLimit: {requests: {perSecond: 10}, connections: {perSecond: 3, burst: 9}, bytes: {perSecond: 1000}}}]}",
    );
    let other = policy(
        "other",
        "{rules: [
           {hosts: [x.a.example], ports: [{port: 80, protocol: HTTP}], http: {methods: [GET]},
            rateLimit: {requests: {perSecond: 1, burst: 5}}},
           {hosts: [x.a.example], ports: [{port: 443, protocol: TLS}]}]}",
    );
    let gateway = Gateway::new(&[&limited, &other], PODS);
    let ask = |from: &str, method: &str| {
        let route = gateway.ask(&gateway.source(from), method, 80, "x.a.example", "/", &[]);
        route.map(|route| labels(route.rate_limits())).unwrap_or_default()
    };
    let (first, second) = (
        "EgressPolicy apps/limited, spec.rules[0]".to_owned(),
        "EgressPolicy apps/other, spec.rules[0]".to_owned(),
    );
    assert_eq!(ask("10.0.0.5", "GET"), [first.clone(), second.clone()]);
    // A limit is for what its own rule allows, and for the pods of its policy.
    assert_eq!(ask("10.0.0.5", "POST"), std::slice::from_ref(&first));
    assert_eq!(ask("10.0.0.6", "GET"), [second]);
    let connection = gateway.tls_from(&gateway.source("10.0.0.5"), 443, "x.a.example").unwrap();
    assert_eq!(labels(connection.rate_limits()), [first]);
    let limit = &connection.rates[0];
    assert_eq!(limit.requests, Some(Rate { per_second: 10, burst: 10 }));
    assert_eq!(limit.connections, Some(Rate { per_second: 3, burst: 9 }));
    assert_eq!(limit.bytes, Some(Rate { per_second: 1000, burst: 1000 }));
    let connection = gateway.tls_from(&gateway.source("10.0.0.6"), 443, "x.a.example").unwrap();
    assert_eq!(labels(connection.rate_limits()), Vec::<String>::new());
}

#[test]
fn a_service_entry_says_it_with_an_annotation() {
    let annotation = "egress-enforcer.io/rate-limit: '{requests: {perSecond: 10, burst: 20}}'";
    let gateway = Gateway::new(&[&entry(annotation, HTTP)], &format!("{PODS}direct: registry\n"));
    let route = gateway.ask(&gateway.source("10.0.0.5"), "GET", 80, "a.example", "/", &[]).unwrap();
    assert_eq!(labels(route.rate_limits()), ["ServiceEntry apps/a"]);
    let without = Gateway::new(&[&entry("", HTTP)], &format!("{PODS}direct: registry\n"));
    let route = without.ask(&without.source("10.0.0.5"), "GET", 80, "a.example", "/", &[]).unwrap();
    assert_eq!(labels(route.rate_limits()), Vec::<String>::new());
}

#[test]
fn a_limit_that_cannot_hold_is_refused() {
    for (annotation, ports, expected) in [
        ("rate-limit: '{requests: {perSecond: 0}}'", HTTP, "a rate of 0 would refuse everything"),
        ("rate-limit: '{requests: {perSecond: 1}}'", TLS, "requests are not counted"),
        ("rate-limit: '{connections: {perSecond: 1}}'", HTTP, "connections are not counted"),
        ("rate-limit: '{}'", HTTP, "a limit that limits nothing"),
        ("rate-limit: '{requests: {}}'", HTTP, "the field \"perSecond\" is missing"),
        ("rate-limit: 'ten'", HTTP, "wrong type"),
        ("rate-limit: ''", HTTP, "wrong value"),
        ("rate-limit: '{a: ['", HTTP, ""),
        (
            "rate-limits: '{requests: {perSecond: 1}}'",
            HTTP,
            "Did you mean egress-enforcer.io/rate-limit?",
        ),
    ] {
        let found = errors(&[&entry(&format!("egress-enforcer.io/{annotation}"), ports)]);
        assert!(found.iter().any(|p| p.message.contains(expected)), "{annotation}: {found:?}");
        assert!(found[0].resource.as_deref() == Some("ServiceEntry apps/a"), "{found:?}");
    }
    let elsewhere = entry("egress-enforcer.io/rate-limit: '{bytes: {perSecond: 1}}'", HTTP)
        .replace("kind: ServiceEntry", "kind: Gateway")
        .replace(
            "hosts: [a.example], resolution: DNS, ports: [{number: 80, name: h, protocol: HTTP}]",
            "servers: []",
        );
    let found = errors(&[&elsewhere]);
    assert!(found.iter().any(|p| p.message.contains("a Gateway can't have")), "{found:?}");
    // Both kinds of ports: each limit holds where it can.
    let both =
        "egress-enforcer.io/rate-limit: '{requests: {perSecond: 1}, connections: {perSecond: 1}}'";
    assert_eq!(errors(&[&entry(both, &format!("{HTTP}, {TLS}"))]), []);
    // In a policy it allows nothing, and holds nothing else back.
    let text = policy(
        "p",
        "{rules: [{hosts: [a.example], ports: [{port: 443, protocol: TLS}], rateLimit: {requests: {perSecond: 1}}}]}",
    );
    let found = errors(&[&text]);
    assert!(found.iter().any(|p| p.message.contains("requests are not counted")), "{found:?}");
}
