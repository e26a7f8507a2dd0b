//! How destinations are reached: settings of destination rules, and addresses to dial from.

use std::time::Duration;

use egress_ebpf::reason::Reason;

use crate::{
    config::testing::{Gateway, compiled, errors, problems},
    policy::{
        Cluster, ConnectTarget, HashKey, HashTable, LoadBalancer, ProxyMethod, ProxyProtocol,
        RetryBudget, Warmup,
    },
    types::{Host, Port},
};

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: apps}
spec:
  hosts: [a.example]
  resolution: DNS
  ports:
  - {number: 80, name: h, protocol: HTTP}
  - {number: 443, name: t, protocol: TLS}
  - {number: 3128, name: p, protocol: TCP}
";

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: a, namespace: apps}}\nspec: {{host: a.example, trafficPolicy: {policy}}}\n"
    )
}

/// The cluster of a port under this traffic policy.
fn cluster(policy: &str, port: u16) -> Cluster {
    let compiled = compiled(&[ENTRY, &rule(policy)], "");
    let name = format!("outbound|{port}||a.example");
    let clusters = &compiled.snapshot.rules.clusters;
    let found = clusters.iter().find(|cluster| cluster.name.to_string() == name);
    Cluster::clone(found.unwrap_or_else(|| panic!("{name}")))
}

#[test]
fn hashes_have_a_key_and_a_table() {
    let hash = |text: &str| {
        let cluster = cluster(&format!("{{loadBalancer: {{consistentHash: {text}}}}}"), 80);
        let hash = cluster.hash.unwrap();
        (hash.key.clone(), hash.table)
    };
    let ring = |minimum| HashTable::Ring { minimum };
    let header = HashKey::Header(http::HeaderName::from_static("x-user"));
    assert_eq!(hash("{httpHeaderName: X-User}"), (Some(header), ring(1024)));
    assert_eq!(hash("{httpHeaderName: ':authority'}"), (Some(HashKey::Authority), ring(1024)));
    assert_eq!(hash("{useSourceIp: true, minimumRingSize: 7}"), (Some(HashKey::SourceIp), ring(7)));
    assert_eq!(
        hash("{httpQueryParameterName: u, ringHash: {minimumRingSize: 9}}"),
        (Some(HashKey::Query("u".into())), ring(9))
    );
    let (key, table) =
        hash("{httpCookie: {name: user, path: /p, ttl: 5s}, maglev: {tableSize: 101}}");
    assert_eq!(table, HashTable::Maglev { size: 101 });
    let Some(HashKey::Cookie(cookie)) = key else { panic!("{key:?}") };
    assert_eq!((&*cookie.name, cookie.ttl), ("user", Some(Duration::from_secs(5))));
    assert_eq!(&*cookie.attributes, "; Path=/p; HttpOnly");
    assert_eq!(hash("{}").0, None);
    assert_eq!(cluster("{loadBalancer: {simple: RANDOM}}", 80).hash, None);
}

#[test]
fn settings_beyond_a_port_hold_on_every_port() {
    let all = "retryBudget: {percent: 5}, proxyProtocol: {version: V2}";
    for more in ["", ", portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]"]
    {
        let cluster = cluster(&format!("{{{all}{more}}}"), 80);
        assert_eq!(cluster.retry_budget, Some(RetryBudget { percent: 5.0, minimum: 3 }), "{more}");
        assert_eq!(cluster.proxy_protocol, Some(ProxyProtocol::V2), "{more}");
    }
    let warm = cluster("{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 60s}}}", 80);
    let duration = Duration::from_secs(60);
    let expected = Warmup { duration, minimum_percent: 10.0, aggression: 1.0 };
    assert_eq!((warm.load_balancer, warm.warmup), (LoadBalancer::RoundRobin, Some(expected)));
    assert_eq!(cluster("{loadBalancer: {warmupDurationSecs: 60s}}", 80).warmup, Some(expected));
    assert_eq!(cluster("{connectionPool: {http: {maxRetries: 4}}}", 80).most_retries(100), 4);
    let budget = cluster("{retryBudget: {percent: 10, minRetryConcurrency: 2}}", 80);
    assert_eq!((budget.most_retries(100), budget.most_retries(0)), (10, 2));
}

#[test]
fn a_tunnel_is_for_tls_and_tcp_alone() {
    let tunnel = "{tunnel: {targetHost: target.example, targetPort: 8443}}";
    let host = Host::parse("target.example").unwrap();
    let port = Port::new(8443).unwrap();
    let target = ConnectTarget { method: ProxyMethod::Connect, host, port, credential: None };
    assert_eq!(cluster(tunnel, 3128).connect, Some(target));
    let gateway = Gateway::new(&[ENTRY, &rule(tunnel)], "direct: registry\n");
    assert!(gateway.tls(443, "a.example").is_ok());
    let refused = gateway.get(80, "a.example", "/").unwrap_err();
    assert!(refused.detail.contains("tunnel"), "{refused:?}");
    // An annotation names what the proxy is shown.
    let credential = |name: &str, policy: &str| {
        let key = "egress-enforcer.io/tunnel-credential";
        let annotated = format!("{{name: a, annotations: {{{key}: '{name}'}}");
        rule(policy).replace("{name: a", &annotated)
    };
    let shown = compiled(&[ENTRY, &credential("apps.proxy", tunnel)], "");
    let clusters = shown.snapshot.rules.clusters.iter();
    let targets: Vec<_> = clusters.filter_map(|cluster| cluster.connect.as_ref()).collect();
    assert!(!targets.is_empty());
    assert!(targets.iter().all(|target| target.credential.as_deref() == Some("apps.proxy")));
    for (name, policy) in [("../etc", tunnel), ("apps.proxy", "{loadBalancer: {simple: RANDOM}}")] {
        let found = errors(&[ENTRY, &credential(name, policy)]);
        assert!(found.iter().any(|p| p.message.contains("credential")), "{name}: {found:?}");
    }
    // Without a tunnel HTTP is served, and TLS in TLS is refused with it alone.
    let plain = Gateway::new(&[ENTRY, &rule("{tls: {mode: DISABLE}}")], "direct: registry\n");
    assert!(plain.get(80, "a.example", "/").is_ok());
}

#[test]
fn a_namespace_names_its_own_credentials_and_the_root_names_any() {
    let tunnel = "{tunnel: {targetHost: target.example, targetPort: 8443}}";
    let on_a_port = "{portLevelSettings: [{port: {number: 443}, loadBalancer: {simple: RANDOM}}], \
                     tunnel: {targetHost: target.example, targetPort: 8443}}";
    let named = |name: &str, namespace: &str, policy: &str| {
        let key = "egress-enforcer.io/tunnel-credential";
        let annotated =
            format!("{{name: a, namespace: {namespace}, annotations: {{{key}: '{name}'}}");
        rule(policy).replace("{name: a, namespace: apps", &annotated)
    };
    for policy in [tunnel, on_a_port] {
        for (name, namespace) in
            [("apps.proxy", "apps"), ("corp", "istio-system"), ("apps.proxy", "istio-system")]
        {
            let rule = named(name, namespace, policy);
            let gateway = Gateway::new(&[ENTRY, &rule], "direct: registry\n");
            let route = gateway.tls(443, "a.example").unwrap();
            let target = route.cluster.connect.as_ref().unwrap();
            assert_eq!(target.credential.as_deref(), Some(name), "{namespace}");
        }
        for name in ["corp", "apps", "appsx.proxy", "shop.proxy", "a.apps.proxy"] {
            let rule = named(name, "apps", policy);
            // The way to the proxy is refused, with and without the credential.
            let gateway = Gateway::new(&[ENTRY, &rule], "direct: registry\n");
            let refused = gateway.tls(443, "a.example").unwrap_err();
            assert!(refused.detail.contains("not one of its namespace"), "{name}: {refused:?}");
            let found = errors(&[ENTRY, &rule]);
            let told = found.iter().find(|p| p.message.contains("root namespace (istio-system)"));
            let told = told.unwrap_or_else(|| panic!("{name}: {found:?}"));
            assert_eq!(told.found, Some(format!("{name:?}")));
            assert_eq!(told.expected.as_deref(), Some("a name that begins with \"apps.\""));
            assert!(told.field.as_deref().is_some_and(|at| at.contains("tunnel-credential")));
            assert_eq!(told.resource.as_deref(), Some("DestinationRule apps/a"));
        }
    }
    // A refused name affects no other rule.
    let others = Gateway::new(&[ENTRY, &named("corp", "shop", tunnel)], "direct: registry\n");
    assert!(others.tls(443, "a.example").unwrap().cluster.connect.is_none());
}

#[test]
fn what_istio_refuses_is_refused() {
    for (policy, expected) in [
        ("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}", "two methods"),
        ("{loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: x}}}", "one key"),
        ("{loadBalancer: {consistentHash: {httpCookie: {ttl: 0s}}}}", "\"name\" is missing"),
        ("{loadBalancer: {consistentHash: {httpCookie: {name: 'a b'}}}}", "part of a cookie"),
        (
            "{loadBalancer: {consistentHash: {httpCookie: {name: a, path: '/;x'}}}}",
            "part of a cookie",
        ),
        (
            "{loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{name: X}, {name: x}]}}}}",
            "part of a cookie",
        ),
        ("{loadBalancer: {consistentHash: {httpHeaderName: 'a b'}}}", "no header's name"),
        ("{loadBalancer: {consistentHash: {maglev: {tableSize: 100}}}}", "Maglev"),
        ("{loadBalancer: {consistentHash: {maglev: {tableSize: 5000011}}}}", "Maglev"),
        ("{loadBalancer: {consistentHash: {maglev: {}, ringHash: {}}}}", "give one"),
        ("{loadBalancer: {consistentHash: {maglev: {}, minimumRingSize: 5}}}", "only one of"),
        ("{loadBalancer: {warmup: {}}}", "\"duration\" is missing"),
        ("{loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}}", "not a percentage"),
        ("{loadBalancer: {warmup: {duration: 1s, aggression: 0}}}", "no load would ever come"),
        ("{retryBudget: {percent: 101}}", "not a percentage"),
        ("{proxyProtocol: {version: V3}}", "wrong value"),
        ("{tunnel: {targetHost: a.example}}", "\"targetPort\" is missing"),
        ("{tunnel: {targetHost: 'a b', targetPort: 1}}", "a DNS name"),
        ("{tunnel: {protocol: PUT, targetHost: b.example, targetPort: 1}}", "wrong value"),
        ("{tunnel: {targetHost: b.example, targetPort: 1}, proxyProtocol: {}}", "together"),
    ] {
        let found = errors(&[ENTRY, &rule(policy)]);
        let says = |p: &crate::config::Problem| {
            p.message.contains(expected)
                || p.expected.as_ref().is_some_and(|e| e.contains(expected))
        };
        assert!(found.iter().any(says), "{policy}: {found:?}");
    }
}

/// Routes for a.example through the gateway, with an annotation.
fn routed(annotation: &str) -> String {
    format!("
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress, namespace: apps}}
spec: {{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 80, name: h, protocol: HTTP}}, hosts: [a.example]}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a, namespace: apps, annotations: {{{annotation}}}}}
spec:
  hosts: [a.example]
  gateways: [mesh, egress]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 80}}}}}}]
  - match: [{{gateways: [egress], port: 80}}]
    route: [{{destination: {{host: a.example, port: {{number: 80}}}}}}]
")
}

#[test]
fn a_route_or_a_workload_says_where_it_is_dialled_from() {
    const MORE: &str = "\
- {name: job, namespace: apps, labels: {app: job}, addresses: [10.0.0.6]}
egressAddresses:
- {name: jobs, addresses: [203.0.113.1, 2001:db8::1], labels: {app: job}}
- {name: apps, addresses: [203.0.113.2], namespaces: [apps]}
- {name: partner, addresses: [203.0.113.3]}
- {name: pool, addresses: [203.0.113.4, 203.0.113.5]}
- {name: shop, addresses: [203.0.113.6], namespaces: [shop]}
";
    let from = |annotation: &str, source: &str| {
        let gateway = Gateway::new(&[ENTRY, &routed(annotation)], MORE);
        let route = gateway.ask(&gateway.source(source), "GET", 80, "a.example", "/", &[]).unwrap();
        route.from.map(|from| from.addresses.clone()).unwrap_or_default()
    };
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    // The first entry that selects the workload; an unknown source is in none.
    assert_eq!(from("", "10.0.0.6"), [ip("203.0.113.1"), ip("2001:db8::1")]);
    assert_eq!(from("", "10.0.0.5"), [ip("203.0.113.2")]);
    assert_eq!(from("", "10.9.9.9"), Vec::<std::net::IpAddr>::new());
    // The route comes before, by a name or by addresses.
    let named = "egress-enforcer.io/egress-address: partner";
    let listed = "egress-enforcer.io/egress-address: '203.0.113.4, 203.0.113.5'";
    for source in ["10.0.0.6", "10.0.0.5", "10.9.9.9"] {
        assert_eq!(from(named, source), [ip("203.0.113.3")]);
        assert_eq!(from(listed, source), [ip("203.0.113.4"), ip("203.0.113.5")]);
    }
    // A namespace says what is for it or for everyone, the root namespace anything.
    for (named, addresses) in [
        ("apps", &["203.0.113.2"][..]),
        ("203.0.113.2", &["203.0.113.2"][..]),
        ("'203.0.113.2, 203.0.113.5'", &["203.0.113.2", "203.0.113.5"][..]),
    ] {
        let addresses: Vec<_> = addresses.iter().map(|text| ip(text)).collect();
        assert_eq!(
            from(&format!("egress-enforcer.io/egress-address: {named}"), "10.0.0.5"),
            addresses
        );
    }
    for named in ["shop", "jobs", "203.0.113.1", "203.0.113.6", "'203.0.113.4, 203.0.113.9'"] {
        let own = routed(&format!("egress-enforcer.io/egress-address: {named}"));
        let gateway = Gateway::new(&[ENTRY, &own], MORE);
        let refused = gateway.get(80, "a.example", "/").unwrap_err();
        assert_eq!(refused.reason, Reason::EgressAddressUnavailable, "{named}: {refused:?}");
        let found = problems(&[ENTRY, &own], MORE);
        let told: Vec<_> =
            found.iter().filter(|p| p.message.contains("not for the namespace apps")).collect();
        assert_eq!(told.len(), 1, "{named}: {found:?}");
        assert_eq!(told[0].found, Some(format!("{:?}", named.trim_matches('\''))));
        let expected = "one of \"apps\", \"partner\", \"pool\", or addresses of theirs";
        assert_eq!(told[0].expected.as_deref(), Some(expected));
        let root = own.replace("namespace: apps", "namespace: istio-system");
        let gateway = Gateway::new(&[ENTRY, &root], MORE);
        assert!(gateway.get(80, "a.example", "/").unwrap().from.is_some(), "{named}");
    }
    // A Gateway says it for all that its servers route; a route comes before.
    let of_gateway = |annotation: &str, own: &str| {
        let before = "{name: egress, namespace: apps}";
        let after = format!("{{name: egress, namespace: apps, annotations: {{{annotation}}}}}");
        routed(own).replacen(before, &after, 1)
    };
    let from_gateway = |text: &str| {
        let gateway = Gateway::new(&[ENTRY, text], MORE);
        gateway.get(80, "a.example", "/").map(|route| route.from.unwrap().addresses.clone())
    };
    assert_eq!(from_gateway(&of_gateway(named, "")).unwrap(), [ip("203.0.113.3")]);
    assert_eq!(from_gateway(&of_gateway(named, listed)).unwrap()[0], ip("203.0.113.4"));
    let foreign = of_gateway("egress-enforcer.io/egress-address: shop", "");
    let refused = from_gateway(&foreign).unwrap_err();
    assert_eq!(refused.reason, Reason::EgressAddressUnavailable, "{refused:?}");
    let unknown = problems(&[ENTRY, &routed("egress-enforcer.io/egress-address: partners")], MORE);
    let told: Vec<_> = unknown.iter().filter(|p| p.message.contains("dial from")).collect();
    assert_eq!(told.len(), 1, "{unknown:?}");
    for (entry, expected) in [
        ("{name: x, addresses: []}", "nothing to dial from"),
        ("{name: x, addresses: [example.com]}", "not an address"),
        ("{name: 203.0.113.9, addresses: [203.0.113.9]}", "told from a list"),
        ("{name: apps, addresses: [203.0.113.9]}", "given twice"),
    ] {
        let found = problems(&[ENTRY], &format!("{MORE}- {entry}\n"));
        assert!(found.iter().any(|p| p.message.contains(expected)), "{entry}: {found:?}");
    }
}

#[test]
fn a_wildcard_without_a_service_entry_is_explained() {
    let text = routed("").replace("a.example", "'*.a.example'").replace("name: '*.", "name: ");
    let found = problems(&[&text], "");
    let says = |part: &str| found.iter().any(|problem| problem.message.contains(part));
    assert!(says("hosts: ['*.a.example'], resolution NONE or DYNAMIC_DNS"), "{found:?}");
}
