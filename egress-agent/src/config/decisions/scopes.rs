//! Whose resources count for whose requests, and what is refused rather than sent in clear.

use egress_ebpf::reason::Reason;

use crate::{
    config::{
        Severity,
        testing::{Gateway, MESH, compile_with, errors, file, problems},
    },
    policy::{ClientTlsMode, Denied, Discovery, HttpRoute},
    types::{GatewayIdentity, Labels, Namespace},
};

const SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";
const MUTUAL: &str = "{mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /r}";
/// One workload in each of these namespaces, at 10.0.1.1 and on.
const NAMESPACES: [&str; 3] = ["aaa", "team-a", "team-b"];

fn resource(kind: &str, full: &str, spec: &str) -> String {
    let (namespace, name) = full.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

pub(super) fn entry(full: &str, host: &str, more: &str) -> String {
    resource(
        "ServiceEntry",
        full,
        &format!(
            "{{hosts: ['{host}'], ports: [{{number: 80, name: h, protocol: HTTP}}], resolution: DNS{more}}}"
        ),
    )
}

pub(super) fn rule(full: &str, host: &str, more: &str) -> String {
    resource("DestinationRule", full, &format!("{{host: '{host}', {more}}}"))
}

fn tls(mode: &str) -> String {
    format!("trafficPolicy: {{tls: {mode}}}")
}

fn gateway() -> String {
    resource(
        "Gateway",
        "istio-system/egress",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}",
    )
}

/// Leads `host` to the gateway, and on to `target`.
fn routes(full: &str, host: &str, target: &str, more: &str) -> String {
    resource("VirtualService", full, &format!(
        "{{hosts: ['{host}'], gateways: [mesh, istio-system/egress]{more}, http: [
          {{match: [{{gateways: [mesh], port: 80}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 80}}}}}}]}},
          {{match: [{{gateways: [istio-system/egress], port: 80}}], route: [{{destination: {{host: '{target}', port: {{number: 80}}}}}}]}}]}}"
    ))
}

/// The gateway in its own namespace, which is not the root.
fn asked(texts: &[String]) -> Gateway {
    asked_in(texts, "egress-system")
}

fn asked_in(texts: &[String], namespace: &str) -> Gateway {
    let mut mesh = MESH.to_owned();
    for (i, namespace) in (1..).zip(NAMESPACES) {
        mesh += &format!("- {{name: w, namespace: {namespace}, addresses: [10.0.1.{i}]}}\n");
    }
    let files: Vec<_> =
        texts.iter().enumerate().map(|(i, text)| file(&format!("{i}.yaml"), text)).collect();
    let compiled = crate::config::compile(&files, Some(&file("mesh.yaml", &mesh)));
    let compiled = compiled.unwrap_or_else(|problems| panic!("{problems}"));
    let labels = Labels::from([("istio".into(), "egressgateway".into())]);
    let namespace = Namespace(namespace.into());
    let identity = GatewayIdentity { labels, namespace, addresses: Vec::new() };
    Gateway(crate::policy::GatewayPolicy::new(compiled.snapshot.into(), &identity))
}

fn from(gateway: &Gateway, namespace: &str, host: &str) -> Result<HttpRoute, Denied> {
    let index = NAMESPACES.iter().position(|known| *known == namespace).unwrap() + 1;
    let source = gateway.source(&format!("10.0.1.{index}"));
    gateway.ask(&source, "GET", 80, host, "/", &[])
}

fn refused(answer: Result<HttpRoute, Denied>) -> (Reason, String) {
    let Denied { reason, detail, matched: _ } = answer.unwrap_err();
    (reason, detail)
}

#[test]
fn what_a_rule_means_follows_from_what_its_host_is() {
    let host = "my-nginx.mesh-external.svc.cluster.local";
    for (mode, mutual) in [("{mode: SIMPLE}", false), (MUTUAL, true)] {
        let gateway = asked(&[
            entry("team-a/nginx", host, ""),
            rule("istio-system/nginx", host, &tls(mode)),
            gateway(),
            routes("team-a/nginx", host, host, ""),
        ]);
        let route = from(&gateway, "team-a", host).unwrap();
        let tls = route.cluster.tls.as_ref().unwrap();
        assert_eq!(matches!(tls.mode, ClientTlsMode::Mutual { .. }), mutual, "{mode}");
    }
    // A gateway's service with a name of any form is a gateway's service.
    let mesh = MESH.replace(SERVICE, "gate.example");
    let texts = [rule("team-a/gate", "gate.example", &tls("{mode: ISTIO_MUTUAL}"))];
    let compiled =
        crate::config::compile(&[file("1.yaml", &texts[0])], Some(&file("mesh.yaml", &mesh)));
    assert!(compiled.unwrap_err().to_string().contains("its `principal`"));
    // The mesh's certificates are no TLS for the outside: refused, and never sent in clear, also
    // where a wildcard is for gateways as well.
    for host_of_rule in [host, "*.svc.cluster.local", "*.local"] {
        let gateway = asked(&[
            entry("team-a/nginx", host, ""),
            rule("istio-system/all", host_of_rule, &tls("{mode: ISTIO_MUTUAL}")),
            gateway(),
            routes("team-a/nginx", host, host, ""),
        ]);
        // Through the tunnel, where the rule asks for that too.
        let source = gateway.source("10.0.1.2");
        let answer = gateway.0.http(&crate::policy::HttpRequest {
            source: &source,
            entry: crate::policy::EntryPoint::Tunnel,
            port: crate::config::testing::original(80),
            host: &crate::types::Host::parse(host).unwrap(),
            authority: host,
            scheme: "http",
            method: &http::Method::GET,
            path_and_query: "/",
            headers: &http::HeaderMap::new(),
            server_name: None,
            remote: None,
        });
        let (reason, detail) = refused(answer);
        assert_eq!(reason, Reason::TlsPolicyUnavailable, "{host_of_rule}: {detail}");
        assert!(detail.contains("DestinationRule istio-system/all"), "{detail}");
    }
}

#[test]
fn rules_of_one_host_are_merged() {
    let subsets = "subsets: [{name: s, labels: {v: '1'}}]";
    let all = |rules: Vec<String>| {
        let mut texts = vec![
            entry("team-a/a", "a.example", ""),
            gateway(),
            routes("team-a/a", "a.example", "a.example", ""),
        ];
        texts.extend(rules);
        texts
    };
    // The first has subsets alone: the policy is the second's.
    let gateway = asked(&all(vec![
        rule("team-a/first", "a.example", subsets),
        rule("team-a/second", "a.example", &tls(MUTUAL)),
    ]));
    assert!(from(&gateway, "team-a", "a.example").unwrap().cluster.tls.is_some());
    // Both have one, and the first has no TLS settings: refused, with both named.
    let texts = all(vec![
        rule("team-a/first", "a.example", "trafficPolicy: {loadBalancer: {simple: RANDOM}}"),
        rule("team-a/second", "a.example", &tls("{mode: SIMPLE}")),
    ]);
    let (reason, detail) = refused(from(&asked(&texts), "team-a", "a.example"));
    assert_eq!(reason, Reason::TlsPolicyUnavailable);
    assert!(detail.contains("team-a/first") && detail.contains("team-a/second"), "{detail}");
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let told = errors(&texts);
    assert!(told[0].message.contains("team-a/second") && told[0].message.contains("team-a/first"));
    // Clear text that is asked for is no mistake.
    let gateway = asked(&all(vec![
        rule("team-a/first", "a.example", &tls("{mode: DISABLE}")),
        rule("team-a/second", "a.example", &tls("{mode: SIMPLE}")),
    ]));
    assert_eq!(from(&gateway, "team-a", "a.example").unwrap().cluster.tls, None);
    // Subsets of both without a conflict draw nothing.
    let texts = all(vec![
        rule("team-a/first", "a.example", subsets),
        rule("team-a/second", "a.example", "subsets: [{name: t}]"),
    ]);
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(problems(&texts, ""), []);
}

#[test]
fn the_gateways_namespace_comes_first_then_the_services_then_the_root() {
    let random = "trafficPolicy: {loadBalancer: {simple: RANDOM}, tls: {mode: DISABLE}}";
    let simple = &tls("{mode: SIMPLE}");
    // The rules, and whether the request leaves with TLS; `None` where it is refused.
    type Rules<'a> = &'a [(&'a str, &'a str, &'a str)];
    let cases: [(Rules<'_>, Option<bool>); 10] = [
        (&[("egress-system/r", simple, "")], Some(true)),
        (&[("team-a/r", simple, "")], Some(true)),
        (&[("istio-system/r", simple, "")], Some(true)),
        (&[("egress-system/r", random, ""), ("team-a/s", simple, "")], Some(false)),
        (&[("egress-system/r", simple, ""), ("team-a/s", random, "")], Some(true)),
        (&[("team-a/r", random, ""), ("istio-system/s", simple, "")], Some(false)),
        (&[("egress-system/r", simple, ", exportTo: ['.']")], Some(true)),
        (&[("team-a/r", simple, ", exportTo: [egress-system]")], Some(true)),
        // Not exported to the gateway: it asks for TLS and cannot be applied.
        (&[("team-a/r", simple, ", exportTo: ['.']")], None),
        (
            &[
                ("egress-system/r", "trafficPolicy: {loadBalancer: {simple: RANDOM}}", ""),
                ("team-a/s", simple, ""),
            ],
            None,
        ),
    ];
    for (rules, wanted) in cases {
        let mut texts = vec![
            entry("team-a/a", "a.example", ""),
            gateway(),
            routes("team-a/a", "a.example", "a.example", ""),
        ];
        texts.extend(
            rules
                .iter()
                .map(|(name, policy, more)| rule(name, "a.example", &format!("{policy}{more}"))),
        );
        let answer = from(&asked(&texts), "team-b", "a.example");
        match wanted {
            Some(tls) => {
                let route = answer.unwrap_or_else(|denied| panic!("{rules:?}: {denied:?}"));
                assert_eq!(route.cluster.tls.is_some(), tls, "{rules:?}");
            }
            None => {
                let (reason, detail) = refused(answer);
                assert_eq!(reason, Reason::TlsPolicyUnavailable, "{rules:?}: {detail}");
            }
        }
    }
}

#[test]
fn a_rule_of_a_third_namespace_is_for_its_own_workloads() {
    let texts = [
        entry("team-a/a", "a.example", ""),
        rule("team-b/r", "a.example", &tls("{mode: SIMPLE}")),
        gateway(),
        routes("team-a/a", "a.example", "a.example", ""),
    ];
    let told = problems(&texts.each_ref().map(String::as_str), "");
    let told = told.iter().find(|p| p.severity == Severity::Warning).unwrap();
    assert_eq!(told.resource.as_deref(), Some("DestinationRule team-b/r"));
    let gateway = asked(&texts);
    assert_eq!(from(&gateway, "team-a", "a.example").unwrap().cluster.tls, None);
    let (reason, detail) = refused(from(&gateway, "team-b", "a.example"));
    assert_eq!(reason, Reason::TlsPolicyUnavailable);
    assert!(detail.contains("team-b/r"), "{detail}");
}

#[test]
fn a_rule_for_one_host_of_a_wildcard_is_not_passed_over() {
    let wildcard =
        entry("team-a/a", "*.a.example", "").replace("resolution: DNS", "resolution: NONE");
    let texts = [
        wildcard,
        rule("team-a/r", "www.a.example", &tls("{mode: SIMPLE}")),
        gateway(),
        routes("team-a/a", "*.a.example", "*.a.example", ""),
    ];
    let gateway = asked(&texts);
    assert!(from(&gateway, "team-a", "other.a.example").is_ok());
    let (reason, _) = refused(from(&gateway, "team-a", "www.a.example"));
    assert_eq!(reason, Reason::TlsPolicyUnavailable);
}

fn endpoint(route: &HttpRoute) -> String {
    match &route.cluster.discovery {
        Discovery::Static(endpoints) => endpoints[0].addr.to_string(),
        Discovery::Dns(names) => names[0].0.to_string(),
        Discovery::Request(port) => port.to_string(),
    }
}

#[test]
fn a_service_entry_answers_those_who_see_it_alone() {
    let fixed = |full: &str, address: &str, more: &str| {
        entry(full, "a.example", &format!(", endpoints: [{{address: {address}}}]{more}"))
            .replace("resolution: DNS", "resolution: STATIC")
    };
    let texts = [
        fixed("aaa/a", "198.51.100.1", ", exportTo: ['.']"),
        fixed("team-b/a", "198.51.100.2", ", exportTo: ['.']"),
        gateway(),
        routes("istio-system/a", "a.example", "a.example", ""),
    ];
    let gateway = asked(&texts);
    let of = |namespace| from(&gateway, namespace, "a.example");
    assert_eq!(endpoint(&of("aaa").unwrap()), "198.51.100.1:80");
    assert_eq!(endpoint(&of("team-b").unwrap()), "198.51.100.2:80");
    assert_eq!(refused(of("team-a")).0, Reason::HostNotInRegistry);
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(problems(&texts, ""), []);

    // A private one is its own namespace's, a public one everybody else's.
    let texts = [
        fixed("aaa/a", "198.51.100.1", ""),
        fixed("team-b/a", "198.51.100.2", ", exportTo: ['.']"),
        super::scopes::gateway(),
        routes("istio-system/a", "a.example", "a.example", ""),
    ];
    let gateway = asked(&texts);
    for (namespace, address) in
        [("aaa", "198.51.100.1:80"), ("team-a", "198.51.100.1:80"), ("team-b", "198.51.100.2:80")]
    {
        assert_eq!(endpoint(&from(&gateway, namespace, "a.example").unwrap()), address);
    }
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    assert_eq!(problems(&texts, ""), []);
}

#[test]
fn entries_of_one_host_conflict_where_somebody_sees_both() {
    /// Without routes, they need another way to be in use.
    const DIRECT: &str = "direct: registry\n";
    let one = |full: &str, more: &str| entry(full, "a.example", more);
    let codes = |texts: &[String]| -> Vec<_> {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        problems(&texts, DIRECT).iter().map(|p| (p.code, p.severity)).collect()
    };
    let conflict = vec![(Some("IST0109"), Severity::Refusal)];
    assert_eq!(codes(&[one("aaa/a", ""), one("team-b/b", "")]), conflict);
    assert_eq!(codes(&[one("aaa/a", ""), one("aaa/b", "")]), conflict);
    assert_eq!(
        codes(&[one("aaa/a", ", exportTo: [x, y]"), one("team-b/b", ", exportTo: [y]")]),
        conflict
    );
    assert_eq!(codes(&[one("aaa/a", ", exportTo: [x]"), one("team-b/b", ", exportTo: [y]")]), []);
    assert_eq!(codes(&[one("aaa/a", ""), one("aaa/b", "").replace("80", "8080")]), []);
    let both = [one("aaa/a", ""), one("team-b/b", "")];
    let told = problems(&both.each_ref().map(String::as_str), DIRECT);
    assert!(told[0].message.contains("aaa/a"), "{}", told[0]);
    assert_eq!(told[0].resource.as_deref(), Some("ServiceEntry team-b/b"));
}

#[test]
fn routes_that_overlap_are_the_own_namespaces_first_then_the_oldest() {
    let texts = [
        entry("team-a/a", "a.example", ""),
        entry("team-a/b", "b.example", ""),
        entry("team-a/c", "c.example", ""),
        gateway(),
        routes("aaa/v", "a.example", "a.example", ""),
        routes("team-b/v", "a.example", "b.example", "").replace(
            "http: [",
            "http: [{match: [{gateways: [mesh], uri: {prefix: /b}}], redirect: {uri: /of-b}}, ",
        ),
    ];
    let gateway = asked(&texts);
    let redirects = |namespace: &str| {
        let index = NAMESPACES.iter().position(|known| *known == namespace).unwrap() + 1;
        let source = gateway.source(&format!("10.0.1.{index}"));
        let route = gateway.ask(&source, "GET", 80, "a.example", "/b", &[]).unwrap();
        route.action.redirect.is_some()
    };
    assert!(redirects("team-b"));
    assert!(!redirects("aaa") && !redirects("team-a"));
    // Age decides among the others, whatever the order of the files.
    let dated = |text: &str, created: &str| {
        text.replace("metadata: {", &format!("metadata: {{creationTimestamp: '{created}', "))
    };
    let [a, b, c, gate, first, second] = texts;
    let gateway = asked(&[
        a,
        b,
        c,
        gate,
        dated(&first, "2024-02-01T00:00:00Z"),
        dated(&second, "2024-01-01T00:00:00Z"),
    ]);
    let source = gateway.source("10.0.1.2");
    let route = gateway.ask(&source, "GET", 80, "a.example", "/b", &[]).unwrap();
    assert!(route.action.redirect.is_some());
    let both = [
        routes("aaa/v", "a.example", "a.example", ""),
        routes("team-b/v", "a.example", "a.example", ""),
    ];
    let told = compile_with(&both.each_ref().map(String::as_str), "").unwrap().warnings;
    let told = told.iter().find(|p| p.code == Some("IST0109")).unwrap();
    assert!(told.message.contains("aaa/v"), "{told}");
    assert_eq!(told.resource.as_deref(), Some("VirtualService team-b/v"));
}
