//! What authorization policies decide: each thing that is allowed, with its refused twin, and all of
//! it against a second, naive evaluation.

use egress_ebpf::reason::Reason;
use proptest::prelude::*;

use crate::{
    config::{
        Problem, Severity,
        testing::{Gateway, compile_with, compiled, problems},
    },
    policy::Denied,
    types::{Source, SpiffeId},
};

const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hosts, namespace: apps}
spec:
  hosts: [a.example, b.example]
  ports: [{number: 80, name: h, protocol: HTTP}, {number: 443, name: s, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: apps}
spec:
  selector: {istio: egressgateway}
  servers:
  - {port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 8443, name: s, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: apps}
spec:
  hosts: [a.example, b.example]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: a.example, port: {number: 80}}}]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [a.example, b.example]}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 8443}}}]
  - match: [{gateways: [egress], port: 8443, sniHosts: [a.example, b.example]}]
    route: [{destination: {host: a.example, port: {number: 443}}}]
";

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// A gateway with policies of its own namespace.
fn with(specs: &[&str]) -> Gateway {
    let mut texts = vec![ROUTES.to_owned()];
    let named = specs.iter().enumerate();
    texts.extend(named.map(|(i, spec)| policy(&format!("p{i}"), "istio-system", spec)));
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    Gateway::new(&texts, "")
}

fn http(gateway: &Gateway, source: &Source, host: &str, path: &str) -> Result<(), Denied> {
    gateway.ask(source, "GET", 80, host, path, &[("x-team", "red")]).map(drop)
}

/// Whether a request of the known workload is allowed, and a TLS connection of it.
fn allowed(specs: &[&str]) -> (bool, bool) {
    let gateway = with(specs);
    let source = gateway.source("10.0.0.5");
    let request = http(&gateway, &source, "a.example", "/x/y");
    let tls = gateway.tls_from(&source, 443, "a.example");
    for denied in [request.as_ref().err(), tls.as_ref().err()].into_iter().flatten() {
        assert_eq!(denied.reason, Reason::AuthorizationPolicyDenied, "{denied:?}");
    }
    (request.is_ok(), tls.is_ok())
}

#[test]
fn empty_policies_mean_what_they_mean_to_istio() {
    for (specs, expected) in [
        (&[][..], (true, true)),
        (&["{}"], (false, false)),
        (&["{rules: []}"], (false, false)),
        (&["{rules: [{}]}"], (true, true)),
        (&["{action: DENY}"], (true, true)),
        (&["{action: DENY, rules: [{}]}"], (false, false)),
        (&["{action: AUDIT}"], (true, true)),
        (&["{action: AUDIT, rules: [{}]}"], (true, true)),
        // What is denied no other policy allows.
        (&["{rules: [{}]}", "{action: DENY, rules: [{}]}"], (false, false)),
        // One policy that allows is enough.
        (&["{}", "{rules: [{}]}"], (true, true)),
        (&["{action: CUSTOM, provider: {name: x}, rules: [{}]}"], (false, false)),
    ] {
        assert_eq!(allowed(specs), expected, "{specs:?}");
    }
    // A resource without a spec is as one with an empty one.
    let text = policy("p", "istio-system", "");
    let gateway = Gateway::new(&[ROUTES, &text], "");
    assert!(gateway.get(80, "a.example", "/").is_err());
}

#[test]
fn each_condition_holds_or_not() {
    for (condition, yes, no, tls) in [
        ("from: [{source: {namespaces: [VALUE]}}]", "apps", "shop", true),
        ("from: [{source: {namespaces: [VALUE]}}]", "'ap*'", "'pp*'", true),
        ("from: [{source: {namespaces: [VALUE]}}]", "'*ps'", "'*p'", true),
        ("from: [{source: {namespaces: [VALUE]}}]", "'*'", "''", true),
        ("from: [{source: {serviceAccounts: [VALUE]}}]", "apps/default", "default", true),
        ("from: [{source: {ipBlocks: [VALUE]}}]", "10.0.0.0/24", "10.0.1.0/24", true),
        ("from: [{source: {ipBlocks: [VALUE]}}]", "10.0.0.5", "10.0.0.6", true),
        ("from: [{source: {remoteIpBlocks: [VALUE]}}]", "10.0.0.5", "10.0.0.6", true),
        (
            "from: [{source: {namespaces: [shop]}}, {source: {namespaces: [VALUE]}}]",
            "apps",
            "b",
            true,
        ),
        ("from: [{source: {namespaces: [VALUE], ipBlocks: [10.0.0.5]}}]", "apps", "shop", true),
        ("to: [{operation: {hosts: [VALUE]}}]", "A.example", "b.example", false),
        ("to: [{operation: {hosts: [VALUE]}}]", "'*.example'", "'*.test'", false),
        ("to: [{operation: {hosts: [VALUE]}}]", "'*a.example'", "'*.a.example'", false),
        ("to: [{operation: {methods: [VALUE]}}]", "GET", "POST", false),
        ("to: [{operation: {methods: [VALUE]}}]", "'G*'", "get", false),
        ("to: [{operation: {paths: [VALUE]}}]", "/x/y", "/x", false),
        ("to: [{operation: {paths: [VALUE]}}]", "/x/*", "/y/*", false),
        ("to: [{operation: {paths: [VALUE]}}]", "'*/y'", "'*/x'", false),
        ("to: [{operation: {paths: [VALUE]}}]", "'*'", "'/{*}'", false),
        ("when: [{key: 'request.headers[X-Team]', values: [VALUE]}]", "red", "blue", false),
        ("when: [{key: 'request.headers[X-Team]', values: [VALUE]}]", "'*'", "'*blue'", false),
        ("when: [{key: source.namespace, values: [VALUE]}]", "apps", "shop", true),
        ("when: [{key: source.ip, values: [VALUE]}]", "10.0.0.0/8", "11.0.0.0/8", true),
    ] {
        let rule = |value: &str| condition.replace("VALUE", value);
        let allow = |value: &str| allowed(&[&format!("{{rules: [{{{}}}]}}", rule(value))]);
        assert_eq!(allow(yes), (true, tls), "ALLOW {condition} {yes}");
        assert_eq!(allow(no), (false, false), "ALLOW {condition} {no}");
        let deny =
            |value: &str| allowed(&[&format!("{{action: DENY, rules: [{{{}}}]}}", rule(value))]);
        assert_eq!(deny(yes), (false, false), "DENY {condition} {yes}");
        // A value that cannot be read denies.
        if !no.contains("{*}") && no != "''" {
            assert_eq!(deny(no), (true, tls), "DENY {condition} {no}");
        }
    }
}

#[test]
fn a_port_is_the_gateways_and_a_name_is_the_tls_connections() {
    for (condition, request, tls) in [
        ("to: [{operation: {ports: ['80']}}]", true, false),
        ("to: [{operation: {ports: ['8443']}}]", false, true),
        ("to: [{operation: {ports: ['443']}}]", false, false),
        ("to: [{operation: {notPorts: ['80']}}]", false, true),
        ("when: [{key: destination.port, values: ['8443']}]", false, true),
        ("when: [{key: connection.sni, values: [a.example]}]", false, true),
        ("when: [{key: connection.sni, values: ['*.example']}]", false, false),
        ("when: [{key: connection.sni, values: ['*']}]", false, true),
        ("when: [{key: connection.sni, notValues: [b.example]}]", true, true),
        ("when: [{key: connection.sni, notValues: [a.example]}]", true, false),
    ] {
        let condition = condition.replace("'*.example'", "'*b.example'");
        let found = allowed(&[&format!("{{rules: [{{{condition}}}]}}")]);
        assert_eq!(found, (request, tls), "ALLOW {condition}");
        let found = allowed(&[&format!("{{action: DENY, rules: [{{{condition}}}]}}")]);
        assert_eq!(found, (!request, !tls), "DENY {condition}");
    }
}

#[test]
fn what_only_http_has_allows_no_other_connection_and_denies_it() {
    let operation = "to: [{operation: {methods: [POST]}}]";
    assert_eq!(allowed(&[&format!("{{rules: [{{{operation}}}]}}")]), (false, false));
    let deny = format!("{{action: DENY, rules: [{{{operation}}}]}}");
    assert_eq!(allowed(&[&deny]), (true, false));
    // With a port it is only for that.
    let deny = "{action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['80']}}]}]}";
    assert_eq!(allowed(&[deny]), (true, true));
    // The same for what must not be.
    let deny = "{action: DENY, rules: [{to: [{operation: {notMethods: [GET]}}]}]}";
    assert_eq!(allowed(&[deny]), (true, false));
    let allow = "{rules: [{to: [{operation: {notMethods: [POST]}}]}]}";
    assert_eq!(allowed(&[allow]), (true, false));
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_never_allowed() {
    let ask = |spec: &str, path: &str| {
        let gateway = with(&[spec]);
        http(&gateway, &gateway.source("10.0.0.5"), "a.example", path).is_ok()
    };
    let allow = "{rules: [{to: [{operation: {paths: [/public/*]}}]}]}";
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/admin*]}}]}]}";
    assert!(ask(allow, "/public/a?x=/b"));
    assert!(!ask(allow, "/public/%2e%2e%2fadmin"));
    assert!(ask(deny, "/public/a?x=/admin"));
    for path in ["/admin", "/%61dmin", "//admin", "/a;x=y/%2fadmin"] {
        assert!(!ask(deny, path), "{path}");
    }
}

#[test]
fn only_a_certificate_proves_a_principal() {
    let gateway = |condition: &str, action: &str| {
        with(&[&format!("{{action: {action}, rules: [{{from: [{{source: {condition}}}]}}]}}")])
    };
    let mine = "{principals: [cluster.local/ns/apps/sa/default]}";
    let other = "{principals: [cluster.local/ns/shop/sa/default]}";
    for (condition, action, by_address, proven, stranger) in [
        (mine, "ALLOW", false, true, false),
        (mine, "DENY", false, false, false),
        (other, "ALLOW", false, false, false),
        (other, "DENY", true, true, false),
        ("{principals: ['*']}", "ALLOW", false, true, false),
        ("{notPrincipals: ['*']}", "DENY", false, true, false),
        ("{trustDomains: [cluster.local]}", "ALLOW", false, true, false),
        ("{trustDomains: [corp.example]}", "ALLOW", false, false, false),
        ("{trustDomains: [corp.example]}", "DENY", true, true, false),
        ("{notTrustDomains: [cluster.local]}", "DENY", false, true, false),
        ("{namespaces: [apps]}", "ALLOW", true, true, false),
        ("{notNamespaces: [shop]}", "ALLOW", true, true, false),
        ("{namespaces: [shop]}", "DENY", true, true, false),
        ("{requestPrincipals: ['*']}", "ALLOW", false, false, false),
        ("{notRequestPrincipals: ['*']}", "DENY", false, false, false),
    ] {
        let gateway = gateway(condition, action);
        let source = gateway.source("10.0.0.5");
        let id = SpiffeId::parse("spiffe://cluster.local/ns/apps/sa/default").unwrap();
        let authenticated = source.clone().authenticated(id);
        let ask = |source: &Source| http(&gateway, source, "a.example", "/").is_ok();
        assert_eq!(ask(&source), by_address, "{action} {condition} by address");
        assert_eq!(ask(&authenticated), proven, "{action} {condition} proven");
        assert_eq!(ask(&gateway.stranger()), stranger, "{action} {condition} stranger");
    }
}

#[test]
fn the_local_trust_domain_stands_for_the_meshs() {
    let deny = "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/apps/sa/default]}}]}]}";
    let gateway =
        Gateway::new(&[ROUTES, &policy("p", "istio-system", deny)], "trustDomain: corp.example\n");
    let id = |account: &str| {
        SpiffeId::parse(&format!("spiffe://corp.example/ns/apps/sa/{account}")).unwrap()
    };
    let source = gateway.source("10.0.0.5");
    let ask = |account: &str| {
        http(&gateway, &source.clone().authenticated(id(account)), "a.example", "/").is_ok()
    };
    assert!(!ask("default"));
    assert!(ask("other"));
    for (domain, denies) in
        [("cluster.local", true), ("corp.example", true), ("other.example", false)]
    {
        let deny = format!(
            "{{action: DENY, rules: [{{when: [{{key: source.trustDomain, values: [{domain}]}}]}}]}}"
        );
        let policy = policy("p", "istio-system", &deny);
        let gateway = Gateway::new(&[ROUTES, &policy], "trustDomain: corp.example\n");
        let source = gateway.source("10.0.0.5").authenticated(id("default"));
        assert_eq!(http(&gateway, &source, "a.example", "/").is_err(), denies, "{domain}");
    }
}

#[test]
fn a_policy_is_for_the_gateways_of_its_namespace_that_it_selects() {
    for (namespace, selector, denies) in [
        ("istio-system", "", true),
        ("istio-system", "selector: {matchLabels: {istio: egressgateway}}, ", true),
        ("istio-system", "selector: {matchLabels: {istio: ingressgateway}}, ", false),
        ("apps", "", false),
        ("apps", "selector: {matchLabels: {istio: egressgateway}}, ", false),
    ] {
        let spec = format!("{{{selector}action: DENY, rules: [{{}}]}}");
        let text = policy("p", namespace, &spec);
        let gateway = Gateway::new(&[ROUTES, &text], "");
        assert_eq!(gateway.get(80, "a.example", "/").is_err(), denies, "{namespace} {selector}");
        // Another root namespace, so that the gateway's is as any other.
        let gateway = Gateway::new(&[ROUTES, &text], "rootNamespace: apps\n");
        let denies = denies || (namespace == "apps");
        assert_eq!(gateway.get(80, "a.example", "/").is_err(), denies, "{namespace} {selector}");
    }
}

#[test]
fn the_refusal_names_the_rule_as_envoy_does() {
    let matched = |specs: &[&str]| {
        let gateway = with(specs);
        let denied = http(&gateway, &gateway.source("10.0.0.5"), "a.example", "/").unwrap_err();
        denied.matched.unwrap().to_string()
    };
    let second = "{action: DENY, rules: [{to: [{operation: {hosts: [c.example]}}]}, {}]}";
    assert_eq!(
        matched(&[second]),
        "rbac_access_denied_matched_policy[ns[istio-system]-policy[p0]-rule[1]]"
    );
    assert_eq!(matched(&["{}"]), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn what_matches_an_audit_policy_is_marked() {
    let gateway = with(&["{action: AUDIT, rules: [{to: [{operation: {paths: [/marked]}}]}]}"]);
    let audit = |path: &str| gateway.get(80, "a.example", path).unwrap().audit;
    assert_eq!(audit("/marked").as_deref(), Some("istio-system/p0"));
    assert_eq!(audit("/other"), None);
}

/// Severity and field of each problem about what restricts.
fn told(texts: &[&str]) -> Vec<(Severity, String)> {
    let all = problems(texts, "").into_iter();
    let all = all.filter(|problem| problem.resource.as_ref().is_some_and(|r| !r.contains("Entry")));
    all.map(|Problem { severity, field, .. }| (severity, field.unwrap_or_default())).collect()
}

#[test]
fn what_cannot_be_honoured_is_reported_and_denies() {
    for (spec, field) in [
        ("{action: CUSTOM, rules: [{}]}", "spec.action"),
        ("{action: DENY, rules: [{}], extra: 1}", "spec[\"extra\"]"),
        (
            "{rules: [{from: [{source: {nameSpaces: [shop]}}]}]}",
            "spec.rules[0].from[0].source[\"nameSpaces\"]",
        ),
        ("{action: ALOW, rules: [{}]}", "spec.action"),
        ("{targetRefs: [{kind: Gateway, name: x}], rules: [{}]}", "spec.targetRefs"),
        (
            "{action: DENY, rules: [{when: [{key: 'request.auth.claims[x]', values: [y]}]}]}",
            "spec.rules[0].when[0].key",
        ),
        (
            "{action: DENY, rules: [{when: [{key: 'request.headers[x-forwarded-for]', values: [y]}]}]}",
            "spec.rules[0].when[0].key",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {ports: [x]}}]}]}",
            "spec.rules[0].to[0].operation.ports[0]",
        ),
        (
            "{action: DENY, rules: [{from: [{source: {ipBlocks: [x]}}]}]}",
            "spec.rules[0].from[0].source.ipBlocks[0]",
        ),
        ("{action: DENY, rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        (
            "{action: DENY, rules: [{to: [{operation: {paths: ['/{**}']}}]}]}",
            "spec.rules[0].to[0].operation.paths[0]",
        ),
    ] {
        let text = policy("p", "istio-system", spec);
        let told_here = told(&[ROUTES, &text]);
        assert!(told_here.contains(&(Severity::Refusal, field.into())), "{spec}: {told_here:?}");
        let gateway = Gateway::new(&[ROUTES, &text], "");
        let source = gateway.source("10.0.0.5");
        let denied = http(&gateway, &source, "a.example", "/").unwrap_err();
        assert_eq!(denied.reason, Reason::AuthorizationPolicyDenied, "{spec}");
        // For workloads that are no gateway it is Istio's matter.
        let text = policy("p", "apps", spec);
        let told_there = told(&[ROUTES, &text]);
        assert!(told_there.iter().all(|(s, _)| *s == Severity::Warning), "{spec}: {told_there:?}");
        let gateway = Gateway::new(&[ROUTES, &text], "");
        assert!(http(&gateway, &source, "a.example", "/").is_ok(), "{spec}");
    }
}

#[test]
fn a_policy_that_is_tried_out_decides_nothing() {
    let text = policy("p", "istio-system", "{}")
        .replace("{name: p,", "{annotations: {istio.io/dry-run: 'true'}, name: p,");
    assert!(Gateway::new(&[ROUTES, &text], "").get(80, "a.example", "/").is_ok());
    let text = text.replace("'true'", "'false'");
    assert!(Gateway::new(&[ROUTES, &text], "").get(80, "a.example", "/").is_err());
}

fn other(group: &str, kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn other_kinds_that_restrict_are_refused_with_what_they_are_for() {
    for (group, kind, selector) in [
        (
            "security.istio.io/v1",
            "RequestAuthentication",
            "selector: {matchLabels: {istio: egressgateway}}",
        ),
        (
            "extensions.istio.io/v1alpha1",
            "WasmPlugin",
            "selector: {matchLabels: {istio: egressgateway}}",
        ),
        (
            "networking.istio.io/v1alpha3",
            "EnvoyFilter",
            "workloadSelector: {labels: {istio: egressgateway}}",
        ),
    ] {
        for (namespace, spec, denies) in [
            ("istio-system", format!("{{{selector}}}"), true),
            ("istio-system", "{}".to_owned(), true),
            ("apps", format!("{{{selector}}}"), false),
            ("istio-system", format!("{{{}}}", selector.replace("egressgateway", "x")), false),
        ] {
            let text = other(group, kind, namespace, &spec);
            let gateway = Gateway::new(&[ROUTES, &text], "");
            assert_eq!(gateway.get(80, "a.example", "/").is_err(), denies, "{text}");
            let severity = if denies { Severity::Refusal } else { Severity::Warning };
            assert_eq!(told(&[ROUTES, &text]), [(severity, "spec".into())], "{text}");
        }
    }
    // A gateway's own servers say whether it asks for mutual TLS.
    let text = other(
        "security.istio.io/v1",
        "PeerAuthentication",
        "istio-system",
        "{mtls: {mode: STRICT}}",
    );
    assert!(Gateway::new(&[ROUTES, &text], "").get(80, "a.example", "/").is_ok());
}

#[test]
fn a_sidecar_that_hides_hosts_refuses_its_workloads_everything() {
    let group = "networking.istio.io/v1";
    for (namespace, spec, known, stranger) in [
        ("apps", "{egress: [{hosts: ['./*']}]}", false, false),
        ("apps", "{egress: [{hosts: ['*/*']}]}", true, true),
        ("apps", "{ingress: []}", true, true),
        ("shop", "{egress: [{hosts: ['./*']}]}", true, false),
        ("istio-system", "{egress: [{hosts: ['istio-system/*']}]}", false, false),
        ("apps", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", true, true),
    ] {
        let text = other(group, "Sidecar", namespace, spec);
        let gateway = Gateway::new(&[ROUTES, &text], "");
        let ask = |source: &Source| http(&gateway, source, "a.example", "/").is_ok();
        assert_eq!(ask(&gateway.source("10.0.0.5")), known, "{text}");
        assert_eq!(ask(&gateway.stranger()), stranger, "{text}");
    }
    // Without a gateway on the way nobody would refuse.
    let text = other(group, "Sidecar", "apps", "{egress: [{hosts: ['./*']}]}");
    assert!(compile_with(&[ROUTES, &text], "direct: registry\n").is_err());
    let text = other(group, "Sidecar", "apps", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}");
    let any = MESH_ANY;
    let files = [
        crate::config::testing::file("1.yaml", ROUTES),
        crate::config::testing::file("2.yaml", &text),
    ];
    let mesh = crate::config::testing::file("mesh.yaml", any);
    let snapshot = crate::config::compile(&files, Some(&mesh)).unwrap().snapshot;
    let gateway = Gateway::of(snapshot);
    assert!(http(&gateway, &gateway.stranger(), "c.example", "/").is_err());
}

const MESH_ANY: &str = "
outboundTrafficPolicy: {mode: ALLOW_ANY}
gateways: [{service: istio-egressgateway.istio-system.svc.cluster.local, labels: {istio: egressgateway}, endpoints: [192.0.2.10]}]
";

#[test]
fn a_policy_for_a_service_entry_leaves_the_entry_out() {
    let target = "{targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: hosts}]}";
    let text = policy("p", "apps", target);
    let gateway = Gateway::new(&[ROUTES, &text], "");
    assert_eq!(gateway.get(80, "a.example", "/").unwrap_err().reason, Reason::HostNotInRegistry);
    // Of another namespace's entry it is not.
    let gateway = Gateway::new(&[ROUTES, &policy("p", "shop", target)], "");
    assert!(gateway.get(80, "a.example", "/").is_ok());
    let files = [
        crate::config::testing::file("1.yaml", ROUTES),
        crate::config::testing::file("2.yaml", &text),
    ];
    let mesh = crate::config::testing::file("mesh.yaml", MESH_ANY);
    assert!(crate::config::compile(&files, Some(&mesh)).is_err());
}

#[test]
fn a_kind_in_a_wrong_group_is_an_error() {
    let spec = "{action: DENY, rules: [{}]}";
    for group in ["v1", "networking.istio.io/v1", "securty.istio.io/v1", "security.istio.io/v2"] {
        let text = other(group, "AuthorizationPolicy", "istio-system", spec);
        assert!(compile_with(&[ROUTES, &text], "").is_err(), "{group}");
    }
    for version in ["v1", "v1beta1"] {
        let group = format!("security.istio.io/{version}");
        let text = other(&group, "AuthorizationPolicy", "istio-system", spec);
        assert_eq!(compiled(&[ROUTES, &text], "").snapshot.rules.authorization.len(), 1);
    }
}

/// A condition of the naive evaluation: attribute, whether negated, values.
#[derive(Clone, Debug)]
struct Leaf(&'static str, bool, Vec<&'static str>);

#[derive(Clone, Debug)]
struct Rule {
    from: Vec<Vec<Leaf>>,
    to: Vec<Vec<Leaf>>,
    when: Vec<Leaf>,
}

#[derive(Clone, Debug)]
struct Policy(&'static str, Vec<Rule>);

const FROM: [(&str, &[&str]); 4] = [
    ("namespaces", &["apps", "shop", "ap*", "*"]),
    ("principals", &["cluster.local/ns/apps/sa/default", "*sa/other", "*"]),
    ("ipBlocks", &["10.0.0.0/24", "10.9.0.0/16"]),
    ("serviceAccounts", &["apps/default", "shop/default"]),
];
const TO: [(&str, &[&str]); 4] = [
    ("hosts", &["a.example", "*.example", "c.example"]),
    ("ports", &["80", "8443", "443"]),
    ("methods", &["GET", "POST", "*"]),
    ("paths", &["/x", "/x/*", "*/y"]),
];
const WHEN: [(&str, &[&str]); 3] = [
    ("connection.sni", &["a.example", "*example", "*"]),
    ("request.headers[x-team]", &["red", "*", "b*"]),
    ("destination.port", &["80", "8443"]),
];

fn leaf(of: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = Leaf> {
    (prop::sample::select(of), any::<bool>()).prop_flat_map(|((attribute, values), negated)| {
        prop::sample::subsequence(values, 1..=values.len())
            .prop_map(move |values| Leaf(attribute, negated, values))
    })
}

/// Conditions of one alternative, each attribute at most once with each sign.
fn leaves(
    of: &'static [(&'static str, &'static [&'static str])],
) -> impl Strategy<Value = Vec<Leaf>> {
    prop::collection::vec(leaf(of), 1..3).prop_map(|mut all| {
        let mut seen = Vec::new();
        all.retain(|leaf| {
            let new = !seen.contains(&(leaf.0, leaf.1));
            seen.push((leaf.0, leaf.1));
            new
        });
        all
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let rule = (
        prop::collection::vec(leaves(&FROM), 0..3),
        prop::collection::vec(leaves(&TO), 0..3),
        prop::collection::vec(leaf(&WHEN), 0..3),
    );
    let rule = rule.prop_map(|(from, to, when)| Rule { from, to, when });
    let action = prop::sample::select(&["ALLOW", "DENY", "AUDIT"][..]);
    let policy =
        (action, prop::collection::vec(rule, 0..3)).prop_map(|(a, rules)| Policy(a, rules));
    prop::collection::vec(policy, 0..4)
}

fn render(Policy(action, rules): &Policy) -> String {
    let list = |values: &[&str]| {
        values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
    };
    let field = |Leaf(attribute, negated, values): &Leaf| {
        let (head, tail) = attribute.split_at(1);
        let name = if *negated {
            format!("not{}{tail}", head.to_uppercase())
        } else {
            (*attribute).to_owned()
        };
        format!("{name}: [{}]", list(values))
    };
    let some = |name: &str, alternatives: &[Vec<Leaf>]| {
        let each = alternatives.iter().map(|all| {
            format!("{{{name}: {{{}}}}}", all.iter().map(field).collect::<Vec<_>>().join(", "))
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let when = |all: &[Leaf]| {
        let each = all.iter().map(|Leaf(key, negated, values)| {
            let name = if *negated { "notValues" } else { "values" };
            format!("{{key: '{key}', {name}: [{}]}}", list(values))
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let rules = rules.iter().map(|Rule { from, to, when: conditions }| {
        format!(
            "{{from: [{}], to: [{}], when: [{}]}}",
            some("source", from),
            some("operation", to),
            when(conditions)
        )
    });
    format!("{{action: {action}, rules: [{}]}}", rules.collect::<Vec<_>>().join(", "))
}

/// What is known of one request or connection; `None` is unknown.
struct Facts {
    namespace: Option<&'static str>,
    proven: bool,
    address: &'static str,
    http: Option<(&'static str, &'static str, &'static str, Option<&'static str>)>,
    port: &'static str,
    sni: &'static str,
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern {
        "*" => !text.is_empty(),
        _ if pattern.starts_with('*') => text.ends_with(&pattern[1..]),
        _ if pattern.ends_with('*') => text.starts_with(&pattern[..pattern.len() - 1]),
        _ => pattern == text,
    }
}

impl Facts {
    /// Whether a leaf holds, `doubt` where that is unknown.
    fn holds(&self, Leaf(attribute, negated, values): &Leaf, doubt: bool) -> bool {
        let any = |text: &str| values.iter().any(|value| glob(value, text));
        let account = self.namespace.map(|namespace| format!("{namespace}/default"));
        let (method, path, host, team) = match self.http {
            Some((method, path, host, team)) => {
                (Some(method), Some(path), Some(host), Some(team.unwrap_or("")))
            }
            None => (None, None, None, None),
        };
        let found = match *attribute {
            "namespaces" => self.namespace.map(any),
            "serviceAccounts" => account.as_deref().map(any),
            "principals" => {
                let id = self.namespace.map(|n| format!("cluster.local/ns/{n}/sa/default"));
                match id {
                    Some(id) if self.proven || !any(&id) => Some(any(&id)),
                    _ => None,
                }
            }
            "ipBlocks" => Some(values.iter().any(|net| {
                let prefix = if net.ends_with("/24") { 3 } else { 2 };
                let octets = |text: &str| -> Vec<String> {
                    text.split('.').take(prefix).map(Into::into).collect()
                };
                octets(net) == octets(self.address)
            })),
            "hosts" => host.map(any),
            "methods" => method.map(any),
            "paths" => path.map(any),
            "ports" | "destination.port" => Some(any(self.port)),
            "connection.sni" => Some(any(self.sni)),
            "request.headers[x-team]" => team.map(any),
            other => panic!("{other}"),
        };
        found.map_or(doubt, |found| found != *negated)
    }

    fn rule(&self, Rule { from, to, when }: &Rule, doubt: bool) -> bool {
        let some = |alternatives: &[Vec<Leaf>]| {
            alternatives.is_empty()
                || alternatives.iter().any(|all| all.iter().all(|leaf| self.holds(leaf, doubt)))
        };
        some(from) && some(to) && when.iter().all(|leaf| self.holds(leaf, doubt))
    }

    /// Allowed, and whether it is marked.
    fn decide(&self, policies: &[Policy]) -> Option<bool> {
        let of = |wanted: &'static str| policies.iter().filter(move |Policy(a, _)| *a == wanted);
        let matches = |Policy(_, rules): &Policy, doubt: bool| {
            rules.iter().any(|rule| self.rule(rule, doubt))
        };
        if of("DENY").any(|policy| matches(policy, true)) {
            return None;
        }
        if of("ALLOW").next().is_some() && !of("ALLOW").any(|policy| matches(policy, false)) {
            return None;
        }
        Some(of("AUDIT").any(|policy| matches(policy, true)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_are_those_of_a_naive_evaluation(policies in policies()) {
        let specs: Vec<_> = policies.iter().map(render).collect();
        let gateway = with(&specs.iter().map(String::as_str).collect::<Vec<_>>());
        let known = gateway.source("10.0.0.5");
        let id = SpiffeId::parse("spiffe://cluster.local/ns/apps/sa/default").unwrap();
        for (source, namespace, proven, address) in [
            (known.clone(), Some("apps"), false, "10.0.0.5"),
            (known.authenticated(id), Some("apps"), true, "10.0.0.5"),
            (gateway.stranger(), None, false, "10.9.9.9"),
        ] {
            let facts = |http, port, sni| Facts { namespace, proven, address, http, port, sni };
            for (method, path, host, team) in [
                ("GET", "/x", "a.example", Some("red")),
                ("POST", "/x/y", "b.example", Some("blue")),
                ("GET", "/z/y", "a.example", None),
            ] {
                let headers: Vec<_> = team.map(|team| ("x-team", team)).into_iter().collect();
                let found = gateway.ask(&source, method, 80, host, path, &headers);
                let expected =
                    facts(Some((method, path, host, team)), "80", "").decide(&policies);
                prop_assert_eq!(found.ok().map(|route| route.audit.is_some()), expected, "{:?}", specs);
            }
            for name in ["a.example", "b.example"] {
                let found = gateway.tls_from(&source, 443, name);
                let expected = facts(None, "8443", name).decide(&policies);
                prop_assert_eq!(found.ok().map(|route| route.audit.is_some()), expected, "{:?}", specs);
            }
        }
    }
}
