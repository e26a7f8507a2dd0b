//! `delegate`: what merged rules decide, and what is said about those that are not merged.

use egress_ebpf::reason::Reason;

use crate::config::testing::{Gateway, compile_with, problems};

const BASE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: apps}
spec:
  hosts: [a.example, b.example, c.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: apps}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";

fn service(name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, \
         namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The rule that leads to the gateway.
const LEADING: &str = "{match: [{gateways: [mesh]}], route: [{destination: {host: \
                       istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}}]}";

/// A virtual service for both stages; `rules` are the gateway's.
fn root(rules: &str) -> String {
    let spec =
        format!("{{hosts: [a.example], gateways: [mesh, egress], http: [{LEADING}, {rules}]}}");
    service("apps/root", &spec)
}

fn to(host: &str) -> String {
    format!("route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]")
}

/// The host that a path leads to, or the reason of a refusal.
fn leads(texts: &[&str], path: &str) -> Result<String, Reason> {
    let gateway = Gateway::new(&[&[BASE], texts].concat(), "");
    let route = gateway.get(80, "a.example", path).map_err(|denied| denied.reason)?;
    Ok(route.host.to_string())
}

#[test]
fn a_merged_rule_has_the_conditions_of_both() {
    let root = root(&format!(
        "{{name: root, match: [{{gateways: [egress], uri: {{prefix: /api/}}}}], timeout: 7s, \
         delegate: {{name: api, namespace: team}}}}, {{{}}}",
        to("c.example")
    ));
    let delegate = service(
        "team/api",
        &format!(
            "{{http: [{{name: v1, match: [{{uri: {{prefix: /api/v1}}, method: {{exact: GET}}}}], {}}}, \
             {{match: [{{uri: {{exact: /api/v2}}}}], timeout: 3s, {}}}, \
             {{match: [{{uri: {{prefix: /other}}}}], {}}}]}}",
            to("a.example"),
            to("b.example"),
            to("b.example"),
        ),
    );
    let texts = [root.as_str(), &delegate];
    let host = |name: &str| Ok(name.to_owned());
    for (path, expected) in [
        ("/api/v1/x", host("a.example")),
        ("/api/v2", host("b.example")),
        // Neither rule of the delegate: the next one of the root decides.
        ("/api/v3", host("c.example")),
        ("/other", host("c.example")),
    ] {
        assert_eq!(leads(&texts, path), expected, "{path}");
    }
    let gateway = Gateway::new(&[BASE, &root, &delegate], "");
    let route = gateway.get(80, "a.example", "/api/v1/x").unwrap();
    assert_eq!(route.timeout.unwrap().as_secs(), 7);
    assert_eq!(route.name.as_deref(), Some("root-v1"));
    let other = gateway.ask(&gateway.stranger(), "POST", 80, "a.example", "/api/v1/x", &[]);
    assert_eq!(other.unwrap().host.to_string(), "c.example");
    let route = gateway.get(80, "a.example", "/api/v2").unwrap();
    assert_eq!(route.timeout.unwrap().as_secs(), 3);
    // The rule that does not fit is named, in the file of the delegate.
    let told = compile_with(&[BASE, &root, &delegate], "").unwrap().warnings;
    let told: Vec<_> = told.iter().map(|p| (p.resource.as_deref(), p.field.as_deref())).collect();
    assert_eq!(told, [(Some("VirtualService team/api"), Some("spec.http[2]"))]);
}

#[test]
fn what_cannot_be_delegated_is_refused_and_not_passed_on() {
    let root = root(&format!(
        "{{match: [{{gateways: [egress], uri: {{prefix: /api}}}}], delegate: {{name: api, namespace: team}}}}, {{{}}}",
        to("c.example")
    ));
    let delegate = |more: &str| {
        let spec = format!("{{{more} http: [{{{}}}]}}", to("b.example"));
        service("team/api", &spec)
    };
    let hidden = delegate("exportTo: ['.'],");
    let hosted = delegate("hosts: [b.example], gateways: [apps/egress],");
    let shown = delegate("exportTo: [apps],");
    assert_eq!(leads(&[&root, &shown], "/api"), Ok("b.example".into()));
    for other in [None, Some(&hidden), Some(&hosted)] {
        let texts: Vec<_> =
            [Some(&root), other].into_iter().flatten().map(String::as_str).collect();
        assert_eq!(leads(&texts, "/api"), Err(Reason::NoGatewayRoute), "{other:?}");
        assert_eq!(leads(&texts, "/"), Ok("c.example".into()));
    }
}

#[test]
fn a_condition_on_the_source_is_never_lost() {
    let root =
        root("{match: [{gateways: [egress], sourceNamespace: shop}], delegate: {name: api}}");
    let delegate = |condition: &str| {
        service(
            "apps/api",
            &format!("{{http: [{{match: [{{{condition}}}], {}}}]}}", to("b.example")),
        )
    };
    // A source that is not known is in no namespace.
    assert_eq!(leads(&[&root, &delegate("uri: {prefix: /}")], "/"), Err(Reason::NoMatchingRule));
    assert_eq!(
        leads(&[&root, &delegate("sourceNamespace: other")], "/"),
        Err(Reason::NoMatchingRule)
    );
}

#[test]
fn problems_of_delegates_are_told_once_with_their_place() {
    let root = root(
        "{match: [{gateways: [egress], uri: {prefix: /a}}], timeout: 0s, delegate: {name: api}}",
    );
    let api = service(
        "apps/api",
        &format!(
            "{{gateways: [egress], http: [{{{}}}, {{{}}}]}}",
            to("gone.example"),
            to("b.example")
        ),
    );
    let unused = service("apps/unused", &format!("{{http: [{{{}}}]}}", to("b.example")));
    let told = problems(&[BASE, &root, &api, &unused], "");
    let told: Vec<_> = told
        .iter()
        .map(|p| (p.resource.as_deref().unwrap(), p.field.as_deref().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            // `c.example` has no route here.
            ("ServiceEntry apps/web", "spec.hosts"),
            ("VirtualService apps/root", "spec.http[1].timeout"),
            ("VirtualService apps/api", "spec.http[0].route[0].destination.host"),
            ("VirtualService apps/api", "spec.gateways[0]"),
            ("VirtualService apps/unused", "spec"),
        ]
    );
    for (spec, wanted) in [
        ("{tcp: [{route: [{destination: {host: b.example, port: {number: 80}}}]}]}", "delegate to"),
        ("{http: [{delegate: {name: root}}]}", "cannot delegate again"),
        ("{}", "delegate to"),
    ] {
        let told = problems(&[BASE, &root, &service("apps/api", spec)], "");
        assert!(told.iter().any(|problem| problem.message.contains(wanted)), "{spec}: {told:?}");
    }
}
