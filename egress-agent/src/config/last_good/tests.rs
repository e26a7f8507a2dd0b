//! Objects of a cluster that are not valid, beside others that are.

use std::collections::BTreeMap;

use egress_ebpf::reason::Reason;
use serde_json::{Value, json};

use super::*;
use crate::config::testing::{Gateway, MESH, file};

const GATEWAY: &str = "istio-egressgateway.istio-system.svc.cluster.local";

fn object(kind: &str, name: &str, spec: &Value) -> RawFile {
    let text = json!({
        "apiVersion": "networking.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "istio-system", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    });
    file(&format!("{kind} istio-system/{name}"), &text.to_string())
}

fn entry(name: &str) -> RawFile {
    let ports = json!([
        {"number": 80, "name": "http", "protocol": "HTTP"},
        {"number": 443, "name": "tls", "protocol": "TLS"},
    ]);
    object(
        "ServiceEntry",
        name,
        &json!({"hosts": [format!("{name}.example")], "ports": ports, "resolution": "DNS"}),
    )
}

fn servers() -> RawFile {
    let hosts = json!(["*.example"]);
    let servers = json!([
        {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": hosts},
        {"port": {"number": 443, "name": "tls", "protocol": "TLS"}, "hosts": hosts, "tls": {"mode": "PASSTHROUGH"}},
    ]);
    object("Gateway", "g", &json!({"selector": {"istio": "egressgateway"}, "servers": servers}))
}

/// Leads what is asked for `hosts` to `name`, through the gateway.
fn routes_for(name: &str, hosts: &[&str]) -> Value {
    let to = |host: String, port: u16| json!([{"destination": {"host": host, "port": {"number": port}}}]);
    json!({
        "hosts": hosts, "gateways": ["mesh", "g"],
        "http": [
            {"match": [{"gateways": ["mesh"], "port": 80}], "route": to(GATEWAY.into(), 80)},
            {"match": [{"gateways": ["g"], "port": 80}], "route": to(format!("{name}.example"), 80)},
        ],
        "tls": [
            {"match": [{"gateways": ["mesh"], "port": 443, "sniHosts": hosts}], "route": to(GATEWAY.into(), 443)},
            {"match": [{"gateways": ["g"], "port": 443, "sniHosts": hosts}], "route": to(format!("{name}.example"), 443)},
        ],
    })
}

fn routes(name: &str) -> RawFile {
    object("VirtualService", name, &routes_for(name, &[&format!("{name}.example")]))
}

fn rule(name: &str, policy: &Value) -> RawFile {
    object(
        "DestinationRule",
        name,
        &json!({"host": format!("{name}.example"), "trafficPolicy": policy}),
    )
}

/// The object with this value at a field of its `spec`.
fn with(file: &RawFile, field: &str, value: Value) -> RawFile {
    let mut object: Value = serde_json::from_str(&file.text).unwrap();
    object["spec"][field] = value;
    RawFile { path: file.path.clone(), text: object.to_string() }
}

/// A cluster as the gateway sees it.
#[derive(Default)]
struct Cluster {
    last: LastGood,
}

impl Cluster {
    fn apply(&mut self, files: &[RawFile]) -> (Gateway, Vec<Problem>) {
        self.apply_with(files, MESH)
    }

    fn apply_with(&mut self, files: &[RawFile], mesh: &str) -> (Gateway, Vec<Problem>) {
        let discovered = Discovered::default();
        let mesh = file("mesh.yaml", mesh);
        let compiled = self.last.compile(&discovered, files, Some(&mesh));
        let Compiled { snapshot, warnings, listeners: _ } =
            compiled.unwrap_or_else(|problems| panic!("{problems}"));
        (Gateway::of(snapshot), warnings)
    }
}

/// The reason for which a request for the host is refused, if it is.
fn refused(gateway: &Gateway, host: &str) -> Option<Reason> {
    gateway.get(80, host, "/").err().map(|denied| denied.reason)
}

fn refused_tls(gateway: &Gateway, host: &str) -> Option<Reason> {
    gateway.tls(443, host).err().map(|denied| denied.reason)
}

fn said(problems: &[Problem], name: &str) -> String {
    let of = problems.iter().filter(|problem| problem.file.ends_with(&format!("/{name}")));
    of.map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn an_object_that_is_not_valid_keeps_no_other_one_out_of_force() {
    let good = [servers(), entry("a"), routes("a"), entry("b")];
    let bad = [
        with(&routes("b"), "http", json!([{"route": []}])),
        with(&entry("c"), "resolution", json!("SOMETIMES")),
        with(&rule("b", &json!({})), "subsets", json!([{"labels": {}}])),
        with(&servers(), "servers", json!([{"hosts": []}])),
    ];
    for bad in bad {
        let mut files = good.to_vec();
        files.retain(|file| file.path != bad.path);
        let path = bad.path.clone();
        files.push(bad);
        let (gateway, problems) = Cluster::default().apply(&files);
        let problem = problems.iter().find(|problem| problem.file == path).unwrap();
        assert_eq!(problem.severity, Severity::Refusal, "{problem}");
        if !path.starts_with("Gateway") {
            assert_eq!(refused(&gateway, "a.example"), None, "{path}");
            assert_eq!(refused_tls(&gateway, "a.example"), None, "{path}");
        }
        assert!(refused(&gateway, "b.example").is_some(), "{path}");
        assert!(refused(&gateway, "c.example").is_some(), "{path}");
    }
}

#[test]
fn the_last_valid_version_of_an_object_stays_in_force() {
    let mut cluster = Cluster::default();
    let rest = [servers(), entry("a"), entry("b"), routes("b")];
    let apply = |cluster: &mut Cluster, routes: &RawFile| {
        let files: Vec<_> = rest.iter().chain([routes]).cloned().collect();
        cluster.apply(&files)
    };
    let (gateway, _) = apply(&mut cluster, &routes("a"));
    assert_eq!(refused(&gateway, "a.example"), None);
    let bad = with(&routes("a"), "tls", json!([{"match": [{"port": 70000}]}]));
    for _ in 0..2 {
        let (gateway, problems) = apply(&mut cluster, &bad);
        assert_eq!(refused(&gateway, "a.example"), None);
        assert!(said(&problems, "a").contains("the last valid version"), "{problems:?}");
    }
    // Who does not know what it was refuses what it is for.
    let (gateway, problems) = apply(&mut Cluster::default(), &bad);
    assert!(refused(&gateway, "a.example").is_some());
    assert!(refused_tls(&gateway, "a.example").is_some());
    assert!(said(&problems, "a").contains("what the object is for is refused"), "{problems:?}");
    assert_eq!(refused(&gateway, "b.example"), None, "the denied one's twin");
    // Deleted and made again, it is a new object.
    cluster.apply(&rest);
    let (gateway, _) = apply(&mut cluster, &bad);
    assert!(refused(&gateway, "a.example").is_some());
}

#[test]
fn an_object_that_is_not_valid_hides_nothing_that_it_would_refuse() {
    // A younger virtual service allows what the older one, which is not valid, would have answered itself.
    let older = with(&routes("a"), "http", json!([{"directResponse": {"status": 4030}}]));
    let text = routes_for("a", &["a.example"]);
    let younger = object("VirtualService", "younger", &text);
    let younger =
        RawFile { text: younger.text.replace("2026-01-01", "2026-02-01"), path: younger.path };
    let files = [servers(), entry("a"), older, younger.clone()];
    let (gateway, _) = Cluster::default().apply(&files);
    assert!(refused(&gateway, "a.example").is_some());
    assert!(refused_tls(&gateway, "a.example").is_some());
    let (gateway, _) = Cluster::default().apply(&[servers(), entry("a"), younger]);
    assert_eq!(refused(&gateway, "a.example"), None);
}

#[test]
fn a_rule_that_is_not_valid_lets_nothing_out_in_clear() {
    let rest = [servers(), entry("a"), routes("a")];
    let apply = |rule: Option<RawFile>| {
        let files: Vec<_> = rest.iter().cloned().chain(rule).collect();
        Cluster::default().apply(&files).0
    };
    assert_eq!(refused(&apply(None), "a.example"), None);
    let tls = json!({"tls": {"mode": "SIMPLE"}});
    assert_eq!(refused(&apply(Some(rule("a", &tls))), "a.example"), None);
    for wrong in [
        json!({"tls": {"mode": "SOMETIMES"}}),
        json!({"tls": {"mode": "SIMPLE"}, "loadBalancer": {"simple": "ANY"}}),
        json!(7),
    ] {
        let gateway = apply(Some(rule("a", &wrong)));
        let reason = refused(&gateway, "a.example");
        assert_eq!(reason, Some(Reason::TlsPolicyUnavailable), "{wrong}");
    }
}

/// What an API server takes, and no document in YAML may hold.
#[test]
fn an_object_is_read_as_the_api_server_has_it() {
    let odd =
        with(&routes("a"), "http", json!([{"match": [{"uri": {"exact": "/\u{7f}\u{fffe}"}}]}]));
    let mut deep = json!([]);
    (0..60).for_each(|_| deep = json!([deep]));
    let nested = with(&entry("b"), "x", deep);
    let (gateway, _) =
        Cluster::default().apply(&[servers(), entry("a"), odd, nested, entry("c"), routes("c")]);
    assert_eq!(refused(&gateway, "c.example"), None);
    assert!(refused(&gateway, "a.example").is_some());
}

#[test]
fn an_annotation_that_cannot_be_read_keeps_only_its_object_out_of_force() {
    let annotated = |kind: &str, group: &str, spec: Value| {
        let metadata = json!({
            "name": "odd", "namespace": "shop", "annotations": {"egress-enforcer.io/rate-limit": "x"},
        });
        let text = json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec});
        file(&format!("{kind} shop/odd"), &text.to_string())
    };
    for odd in [
        annotated("EgressPolicy", "egress-enforcer.io/v1alpha1", json!({"rules": []})),
        annotated("AuthorizationPolicy", "security.istio.io/v1", json!({})),
        annotated("Sidecar", "networking.istio.io/v1", json!({})),
        annotated("EnvoyFilter", "networking.istio.io/v1alpha3", json!({})),
    ] {
        let (gateway, problems) =
            Cluster::default().apply(&[servers(), entry("a"), routes("a"), odd.clone()]);
        // One that hides hosts is for sources that are not known, too.
        let hides = odd.path.starts_with("Sidecar");
        assert_eq!(refused(&gateway, "a.example").is_some(), hides, "{}", odd.path);
        assert!(said(&problems, "odd").contains("refused: "), "{problems:?}");
    }
}

#[test]
fn a_host_whose_entry_is_not_valid_is_not_one_that_nobody_has_named() {
    let mesh = MESH.replace("REGISTRY_ONLY", "ALLOW_ANY");
    let bad = with(&entry("a"), "resolution", json!("SOMETIMES"));
    let (gateway, _) = Cluster::default().apply_with(&[servers(), bad], &mesh);
    assert!(refused(&gateway, "a.example").is_some());
    assert!(refused_tls(&gateway, "a.example").is_some());
    let (gateway, _) = Cluster::default().apply_with(&[servers()], &mesh);
    assert_eq!(refused(&gateway, "a.example"), None, "the denied one's twin");
}

#[test]
fn an_object_for_all_namespaces_refuses_for_all_of_them() {
    let all = with(&with(&routes("a"), "exportTo", json!(["*"])), "http", json!([{}, 7]));
    let instead = refusing(&all, false).unwrap();
    assert!(instead.text.contains(r#""exportTo":["*"]"#), "{}", instead.text);
    let unreadable = refusing(&with(&all, "exportTo", json!([7])), false).unwrap();
    assert!(unreadable.text.contains(r#""exportTo":["*"]"#), "{}", unreadable.text);
}

#[test]
fn a_rule_that_does_not_speak_of_tls_asks_for_no_tunnel() {
    let host = "*.svc.cluster.local";
    let plain = object(
        "DestinationRule",
        "a",
        &json!({"host": host, "trafficPolicy": {"loadBalancer": 7}}),
    );
    assert_eq!(refusing(&plain, false), None);
    let tls = object(
        "DestinationRule",
        "a",
        &json!({"host": host, "subsets": [{"trafficPolicy": {"tls": 7}}]}),
    );
    assert!(refusing(&tls, false).is_some());
}

#[test]
fn what_may_not_be_absent_keeps_the_configuration_out_of_force() {
    let mut last = LastGood::default();
    let discovered = Discovered::default();
    let wrong = file("mesh.yaml", "outboundTrafficPolicy: {mode: SOMETIMES}\n");
    let problems = last.compile(&discovered, &[servers()], Some(&wrong)).unwrap_err();
    assert!(problems.to_string().contains("SOMETIMES"), "{problems}");
    let unknown = file("Namespace x", "no object");
    assert!(last.compile(&discovered, &[unknown], None).is_err());
}

/// Every object of a configuration with every field of its `spec` replaced by nonsense: nothing that the whole
/// configuration refuses is allowed, and what the object is not for stays as it is.
#[test]
fn no_wrong_field_allows_more() {
    let policy = json!({"tls": {"mode": "SIMPLE"}, "connectionPool": {"http": {"http1MaxPendingRequests": 1}}});
    let files = [
        servers(),
        entry("a"),
        routes("a"),
        rule("a", &policy),
        entry("b"),
        routes("b"),
        entry("c"),
    ];
    let hosts = ["a.example", "b.example", "c.example", "d.example", "example"];
    let asked = |gateway: &Gateway| -> BTreeMap<&str, (bool, bool)> {
        let one = |host| (refused(gateway, host).is_none(), refused_tls(gateway, host).is_none());
        hosts.iter().map(|host| (*host, one(host))).collect()
    };
    let whole = asked(&Cluster::default().apply(&files).0);
    // The rule asks for TLS around what is TLS already.
    assert_eq!(whole["a.example"], (true, false));
    assert_eq!(whole["b.example"], (true, true));
    assert_eq!(whole["d.example"], (false, false));
    let nonsense = [
        json!(null),
        json!(7),
        json!("?"),
        json!([7]),
        json!(["?"]),
        json!({"x": []}),
        json!([{}]),
    ];
    for (index, object) in files.iter().enumerate() {
        let fields: Value = serde_json::from_str(&object.text).unwrap();
        for field in fields["spec"].as_object().unwrap().keys() {
            // A rule without a host that can be read is for no host.
            if field == "host" {
                continue;
            }
            for value in &nonsense {
                let mut changed = files.to_vec();
                changed[index] = with(object, field, value.clone());
                let (gateway, _) = Cluster::default().apply(&changed);
                for (host, allowed) in asked(&gateway) {
                    let what = format!("{} with {field} {value}: {host}", object.path);
                    // An empty list or an absent field is valid, and may mean more than the one that was there.
                    let is_valid = value.is_null();
                    assert!(is_valid || allowed.0 <= whole[host].0, "{what}");
                    // What an application encrypts by itself needs no TLS of the gateway.
                    let is_rule = object.path.contains("DestinationRule");
                    assert!(is_valid || is_rule || allowed.1 <= whole[host].1, "{what}");
                    let other =
                        !object.path.contains("Gateway") && !object.path.ends_with(&host[..1]);
                    assert!(!other || allowed == whole[host], "{what}");
                }
            }
        }
    }
}
