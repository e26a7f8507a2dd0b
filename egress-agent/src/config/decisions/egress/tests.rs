//! `EgressPolicy` and `ClusterEgressPolicy`: what they allow to whom, and what they don't.

use egress_ebpf::reason::Reason;

use crate::{
    config::{
        Severity,
        testing::{Gateway, compiled, errors, original, problems},
    },
    policy::{
        Denied, DirectTarget, Discovery, Hop, HttpRoute, NodeAction, PortMode, TlsConnection,
        TlsRoute,
    },
    types::Source,
};

pub(super) const SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";
/// More workloads, besides `sleep` of `apps` at 10.0.0.5.
const PODS: &str = "\
- {name: job, namespace: apps, labels: {app: job}, addresses: [10.0.0.6]}
- {name: web, namespace: shop, labels: {app: web}, addresses: [10.0.0.7]}
";
pub(super) const SLEEP: &str = "10.0.0.5";
pub(super) const JOB: &str = "10.0.0.6";
pub(super) const WEB: &str = "10.0.0.7";
/// Nobody knows who this is.
pub(super) const STRANGER: &str = "10.9.9.9";

pub(super) fn policy(full: &str, spec: &str) -> String {
    let (namespace, name) = full.split_once('/').unwrap();
    format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn cluster_policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: ClusterEgressPolicy\n\
         metadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

pub(super) fn istio(kind: &str, full: &str, spec: &str) -> String {
    let (namespace, name) = full.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

pub(super) fn gateway(texts: &[String]) -> Gateway {
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    Gateway::new(&texts, PODS)
}

/// A rule for HTTP on port 80, with more of it.
fn http(host: &str, more: &str) -> String {
    format!("{{hosts: ['{host}'], ports: [{{port: 80, protocol: HTTP}}]{more}}}")
}

/// A rule for TLS on port 443.
fn tls(host: &str) -> String {
    format!("{{hosts: ['{host}'], ports: [{{port: 443, protocol: TLS}}]}}")
}

fn get(gateway: &Gateway, from: &str, host: &str) -> Result<HttpRoute, Denied> {
    gateway.ask(&gateway.source(from), "GET", 80, host, "/", &[])
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Denied>) -> Reason {
    answer.unwrap_err().reason
}

#[test]
fn one_policy_decides_as_five_of_istios_resources() {
    let five = [
        istio("ServiceEntry", "apps/api", "{hosts: [api.example.net], exportTo: ['.'], resolution: DNS, ports: [{number: 80, name: h, protocol: HTTP}, {number: 443, name: o, protocol: HTTP}]}"),
        istio("Gateway", "istio-system/egress", "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}"),
        istio("DestinationRule", "apps/gateway", &format!("{{host: {SERVICE}, subsets: [{{name: api}}]}}")),
        istio("VirtualService", "apps/api", &format!("{{hosts: [api.example.net], gateways: [mesh, istio-system/egress], exportTo: ['.'], http: [
          {{match: [{{gateways: [mesh], port: 80, sourceLabels: {{app: sleep}}, method: {{exact: GET}}, uri: {{prefix: /v1/}}}}, {{gateways: [mesh], port: 80, sourceLabels: {{app: sleep}}, method: {{exact: HEAD}}, uri: {{prefix: /v1/}}}}], route: [{{destination: {{host: {SERVICE}, subset: api, port: {{number: 80}}}}}}]}},
          {{match: [{{gateways: [istio-system/egress], port: 80}}], route: [{{destination: {{host: api.example.net, port: {{number: 443}}}}}}]}}]}}")),
        istio("DestinationRule", "apps/api", "{host: api.example.net, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}}"),
    ];
    let one = [policy(
        "apps/api",
        "{podSelector: {matchLabels: {app: sleep}}, rules: [{hosts: [api.example.net], ports: [{port: 80, protocol: HTTP}], originateTLS: {}, http: {methods: [GET, HEAD], paths: [/v1/]}}]}",
    )];
    let (istio, ours) = (gateway(&five), gateway(&one));
    let mut allowed = 0;
    for from in [SLEEP, JOB, WEB, STRANGER] {
        for method in ["GET", "HEAD", "POST"] {
            for (number, host) in [
                (80, "api.example.net"),
                (80, "www.example.net"),
                (80, "x.api.example.net"),
                (443, "api.example.net"),
                (8080, "api.example.net"),
            ] {
                for path in ["/v1/users", "/v1/", "/v2/", "/", "/v1/%2e%2e/admin", "/v1//x"] {
                    let ask = |gateway: &Gateway| {
                        gateway.ask(&gateway.source(from), method, number, host, path, &[])
                    };
                    let what = format!("{from} {method} {host}:{number}{path}");
                    match (ask(&istio), ask(&ours)) {
                        (Ok(istio), Ok(ours)) => {
                            allowed += 1;
                            assert_eq!(istio.cluster, ours.cluster, "{what}");
                            let named = HttpRoute { name: None, ..ours };
                            assert_eq!(istio, named, "{what}");
                        }
                        (Err(_), Err(_)) => {}
                        differ => panic!("{what}: {differ:?}"),
                    }
                }
            }
        }
    }
    assert_eq!(allowed, 6);
    assert_eq!(istio.0.snapshot().node.routes, ours.0.snapshot().node.routes);
}

#[test]
fn tls_passes_as_with_istios_resources() {
    let istio_texts = [
        istio("ServiceEntry", "apps/api", "{hosts: ['*.example.net'], exportTo: ['.'], ports: [{number: 443, name: t, protocol: TLS}]}"),
        istio("Gateway", "istio-system/egress", "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: t, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}]}"),
        istio("VirtualService", "apps/api", &format!("{{hosts: ['*.example.net'], gateways: [mesh, istio-system/egress], exportTo: ['.'], tls: [
          {{match: [{{gateways: [mesh], port: 443, sniHosts: ['*.example.net'], sourceLabels: {{app: sleep}}}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 443}}}}}}]}},
          {{match: [{{gateways: [istio-system/egress], port: 443, sniHosts: ['*.example.net']}}], route: [{{destination: {{host: '*.example.net', port: {{number: 443}}}}}}]}}]}}")),
    ];
    let one = [policy(
        "apps/api",
        &format!(
            "{{podSelector: {{matchLabels: {{app: sleep}}}}, rules: [{}]}}",
            tls("*.example.net")
        ),
    )];
    let (istio, ours) = (gateway(&istio_texts), gateway(&one));
    let mut allowed = 0;
    for from in [SLEEP, JOB, WEB, STRANGER] {
        for (number, name) in [
            (443, "a.example.net"),
            (443, "example.net"),
            (443, "a.example.org"),
            (80, "a.example.net"),
        ] {
            let ask =
                |gateway: &Gateway| gateway.tls_from(&gateway.source(from), number, name).ok();
            assert_eq!(ask(&istio), ask(&ours), "{from} {name}:{number}");
            allowed += usize::from(ask(&ours).is_some());
        }
    }
    assert_eq!(allowed, 1);
    assert_eq!(istio.0.snapshot().node.routes, ours.0.snapshot().node.routes);
}

#[test]
fn the_policies_that_select_a_pod_add_up_and_no_other_counts() {
    let only = |label: &str, rules: &[String]| {
        format!("{{podSelector: {{matchLabels: {{app: {label}}}}}, rules: [{}]}}", rules.join(", "))
    };
    let gateway = gateway(&[
        policy("apps/sleep", &only("sleep", &[http("*.example.com", ""), tls("a.example")])),
        policy("apps/sleep-too", &only("sleep", &[http("b.example", "")])),
        policy("apps/job", &only("job", &[http("www.example.com", ", http: {methods: [POST]}")])),
        policy(
            "shop/all",
            &format!("{{rules: [{}]}}", http("www.example.com", ", http: {paths: [/shop]}")),
        ),
    ]);
    // A wildcard of one policy and a name below it in another: neither hides the other.
    for (from, host, allowed) in [
        (SLEEP, "www.example.com", true),
        (SLEEP, "other.example.com", true),
        (SLEEP, "b.example", true),
        (SLEEP, "a.example", false),
        (SLEEP, "c.example", false),
        (JOB, "other.example.com", false),
        (JOB, "b.example", false),
        (JOB, "www.example.com", false),
        (WEB, "www.example.com", false),
        (WEB, "b.example", false),
        (STRANGER, "www.example.com", false),
    ] {
        assert_eq!(get(&gateway, from, host).is_ok(), allowed, "{from} {host}");
    }
    let ask = |from, method, path| {
        gateway.ask(&gateway.source(from), method, 80, "www.example.com", path, &[]).is_ok()
    };
    assert!(ask(JOB, "POST", "/") && !ask(JOB, "PUT", "/"));
    assert!(ask(WEB, "POST", "/shop/1") && !ask(WEB, "POST", "/shopping"));
    assert!(ask(SLEEP, "POST", "/") && ask(SLEEP, "DELETE", "/shopping"));
    assert!(gateway.tls_from(&gateway.source(SLEEP), 443, "a.example").is_ok());
    assert!(gateway.tls_from(&gateway.source(JOB), 443, "a.example").is_err());
}

#[test]
fn a_refusal_names_the_policy_and_what_it_allows() {
    let limited = http("api.example.net", ", http: {methods: [GET, HEAD], paths: [/v1/]}");
    let gateway = gateway(&[policy("apps/api", &format!("{{rules: [{limited}]}}"))]);
    let source = gateway.source(SLEEP);
    let refused = gateway.ask(&source, "POST", 80, "api.example.net", "/v1/x", &[]).unwrap_err();
    assert_eq!(refused.reason, Reason::EgressPolicyDenied);
    assert_eq!(
        refused.detail,
        "no policy allows POST to api.example.net port 80; EgressPolicy apps/api allows HTTP there, \
         GET, HEAD on /v1/"
    );
    let refused = gateway.tls_from(&source, 80, "api.example.net").unwrap_err();
    assert_eq!(refused.reason, Reason::EgressPolicyDenied);
    // Where policies are in use, a refusal names them beside Istio's resources, whoever asks; and TLS alike.
    let unnamed = |host: &str| {
        format!("no ServiceEntry and no EgressPolicy for this workload names {host} with port 80")
    };
    for from in [SLEEP, WEB, STRANGER] {
        let refused = get(&gateway, from, "www.example.net").unwrap_err();
        assert_eq!(
            (refused.reason, refused.detail),
            (Reason::HostNotInRegistry, unnamed("www.example.net")),
            "{from}"
        );
        let refused = gateway.tls_from(&gateway.source(from), 80, "www.example.net").unwrap_err();
        assert_eq!(refused.detail, unnamed("www.example.net"), "{from}");
    }
    let without = self::gateway(&[]);
    let refused = get(&without, SLEEP, "www.example.net").unwrap_err();
    assert_eq!(refused.detail, "no ServiceEntry names www.example.net with port 80");
    // To a pod that it does not select it says nothing, not even that the host is known.
    let refused = get(&gateway, WEB, "api.example.net").unwrap_err();
    assert_eq!(
        (refused.reason, refused.detail),
        (Reason::HostNotInRegistry, unnamed("api.example.net"))
    );
    // A path that servers read in two ways decides nothing.
    let twice = gateway.ask(&source, "GET", 80, "api.example.net", "/v1/..%2fadmin", &[]);
    assert_eq!(reason(twice), Reason::BadRequest);
    let route = gateway.ask(&source, "GET", 80, "api.example.net", "/v1/x", &[]).unwrap();
    assert_eq!(route.name.as_deref(), Some("EgressPolicy apps/api"));
}

#[test]
fn a_policy_for_the_cluster_is_for_the_namespaces_that_it_selects() {
    let namespace = |name: &str, labels: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
    };
    let one = |selector: &str| {
        gateway(&[
            namespace("shop", "{tier: front, restricted: 'yes'}"),
            cluster_policy(
                "all",
                &format!("{{namespaceSelector: {selector}, rules: [{}]}}", http("a.example", "")),
            ),
        ])
    };
    for (selector, in_shop, in_apps) in [
        ("{}", true, true),
        ("{matchLabels: {tier: front}}", true, false),
        ("{matchLabels: {tier: back}}", false, false),
        ("{matchLabels: {kubernetes.io/metadata.name: apps}}", false, true),
        ("{matchExpressions: [{key: tier, operator: In, values: [back, front]}]}", true, false),
        // Nobody knows the labels of `apps`.
        ("{matchExpressions: [{key: restricted, operator: DoesNotExist}]}", false, false),
        ("{matchExpressions: [{key: tier, operator: NotIn, values: [back]}]}", true, false),
    ] {
        let gateway = one(selector);
        assert_eq!(get(&gateway, WEB, "a.example").is_ok(), in_shop, "{selector}");
        assert_eq!(get(&gateway, SLEEP, "a.example").is_ok(), in_apps, "{selector}");
        assert!(get(&gateway, STRANGER, "a.example").is_err(), "{selector}");
    }
}

#[test]
fn istios_resources_and_policies_add_up() {
    let routes = [
        istio("ServiceEntry", "shop/a", "{hosts: [a.example], ports: [{number: 80, name: h, protocol: HTTP}], resolution: DNS}"),
        istio("Gateway", "istio-system/egress", "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}"),
        istio("VirtualService", "shop/a", &format!("{{hosts: [a.example], gateways: [mesh, istio-system/egress], http: [
          {{match: [{{gateways: [mesh], port: 80}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 80}}}}}}]}},
          {{match: [{{gateways: [istio-system/egress], port: 80}}], route: [{{destination: {{host: a.example, port: {{number: 80}}}}}}]}}]}}")),
    ];
    let mut texts = routes.to_vec();
    texts.push(policy(
        "apps/a",
        &format!(
            "{{podSelector: {{matchLabels: {{app: sleep}}}}, rules: [{}, {}]}}",
            http("a.example", ", http: {methods: [POST]}"),
            http("b.example", "")
        ),
    ));
    let both = gateway(&texts);
    for (from, host, allowed) in [
        (SLEEP, "a.example", true),
        (SLEEP, "b.example", true),
        (JOB, "a.example", true),
        (JOB, "b.example", false),
        (STRANGER, "a.example", true),
    ] {
        assert_eq!(get(&both, from, host).is_ok(), allowed, "{from} {host}");
    }
    // What restricts is asked after both.
    texts.push("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: istio-system}\nspec: {action: DENY, rules: [{to: [{operation: {hosts: [b.example]}}]}]}\n".into());
    let guarded = gateway(&texts);
    assert_eq!(reason(get(&guarded, SLEEP, "b.example")), Reason::AuthorizationPolicyDenied);
    assert!(get(&guarded, SLEEP, "a.example").is_ok());
}

const ANY: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY}\n";

/// The settings of `testdata/mesh.yaml` with the hosts outside the registry let through.
fn allowing_any(texts: &[String]) -> Gateway {
    let files: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| crate::config::testing::file(&format!("{i}.yaml"), text))
        .collect();
    let mesh = crate::config::testing::MESH
        .replace("outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n", ANY);
    assert!(mesh.contains(ANY));
    let mesh = crate::config::testing::file("mesh.yaml", &format!("{mesh}{PODS}"));
    Gateway::of(crate::config::compile(&files, Some(&mesh)).unwrap().snapshot)
}

#[test]
fn a_policy_confines_its_pods_where_everything_is_allowed() {
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: sleep}}}}, rules: [{}]}}",
        http("a.example", ", http: {methods: [GET]}")
    );
    let gateway = allowing_any(&[policy("apps/a", &spec)]);
    assert!(get(&gateway, SLEEP, "a.example").is_ok());
    let refused = get(&gateway, SLEEP, "b.example").unwrap_err();
    assert_eq!(refused.reason, Reason::EgressPolicyDenied);
    assert!(refused.detail.contains("EgressPolicy apps/a confines"), "{}", refused.detail);
    let post = gateway.ask(&gateway.source(SLEEP), "POST", 80, "a.example", "/", &[]);
    assert_eq!(reason(post), Reason::EgressPolicyDenied);
    let secure = gateway.tls_from(&gateway.source(SLEEP), 443, "b.example");
    assert_eq!(reason(secure), Reason::EgressPolicyDenied);
    // Its neighbours are not concerned.
    assert!(get(&gateway, JOB, "b.example").is_ok());
    assert!(gateway.tls_from(&gateway.source(JOB), 443, "b.example").is_ok());
}

#[test]
fn audit_lets_pass_what_no_policy_allows_and_marks_it() {
    let spec = |mode: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: sleep}}}}, mode: {mode}, rules: [{}, {}]}}",
            http("a.example", ", originateTLS: {port: 8443}, http: {methods: [GET]}"),
            tls("t.example")
        )
    };
    let asked = |gateway: &Gateway| {
        let source = gateway.source(SLEEP);
        let audit = |route: Result<HttpRoute, Denied>| route.map(|route| route.audit);
        let post = gateway.ask(&source, "POST", 80, "a.example", "/", &[]);
        let secure = gateway.tls_from(&source, 443, "u.example").map(|route| route.audit);
        [
            audit(get(gateway, SLEEP, "a.example")),
            audit(post),
            audit(get(gateway, SLEEP, "b.example")),
            secure,
        ]
        .map(|answer| answer.map_err(|denied| denied.reason))
    };
    let mark = Some("EgressPolicy apps/a".into());
    let registry = gateway(&[policy("apps/a", &spec("Audit"))]);
    let any = allowing_any(&[policy("apps/a", &spec("Audit"))]);
    for gateway in [&registry, &any] {
        let seen = asked(gateway);
        assert_eq!(seen, [Ok(None), Ok(mark.clone()), Ok(mark.clone()), Ok(mark.clone())]);
        // As the rule for the host says, and not in clear.
        let post = gateway.ask(&gateway.source(SLEEP), "POST", 80, "a.example", "/", &[]).unwrap();
        assert_eq!(&*post.cluster.name.0, "outbound|8443||a.example");
        assert!(post.cluster.tls.is_some());
        let other = get(gateway, SLEEP, "b.example").unwrap();
        assert_eq!(&*other.cluster.name.0, "PassthroughCluster");
    }
    assert!(get(&registry, JOB, "b.example").is_err());
    // Enforced, or enforced by another policy, or by one that can't be read.
    let closed = [
        Ok(None),
        Err(Reason::EgressPolicyDenied),
        Err(Reason::HostNotInRegistry),
        Err(Reason::HostNotInRegistry),
    ];
    assert_eq!(asked(&gateway(&[policy("apps/a", &spec("Enforce"))])), closed);
    for other in ["{rules: []}", "{podSelektor: {}, rules: []}", "{rules: 1}", "7"] {
        let texts = [policy("apps/a", &spec("Audit")), policy("apps/b", other)];
        assert_eq!(asked(&gateway(&texts)), closed, "{other}");
    }
    // One of other pods doesn't enforce on these.
    let texts = [
        policy("apps/a", &spec("Audit")),
        policy("apps/b", "{podSelector: {matchLabels: {app: job}}, rules: []}"),
        policy("shop/b", "{rules: []}"),
    ];
    assert_eq!(asked(&gateway(&texts))[2], Ok(mark));
    // A denial stays one.
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: istio-system}\nspec: {action: DENY, rules: [{}]}\n";
    let denied = gateway(&[policy("apps/a", &spec("Audit")), deny.into()]);
    assert_eq!(reason(get(&denied, SLEEP, "b.example")), Reason::AuthorizationPolicyDenied);
}

#[test]
fn raw_tcp_is_told_apart_by_a_port_of_its_own() {
    let tcp = |host: &str| format!("{{hosts: ['{host}'], ports: [{{port: 5432, protocol: TCP}}]}}");
    let texts = [
        policy(
            "apps/db",
            &format!(
                "{{podSelector: {{matchLabels: {{app: sleep}}}}, rules: [{}]}}",
                tcp("db.example")
            ),
        ),
        policy(
            "shop/db",
            &format!("{{rules: [{}, {}]}}", tcp("db.example.org"), tcp("203.0.113.7")),
        ),
        // HTTP on the same port is no obstacle.
        policy(
            "shop/web",
            "{rules: [{hosts: [web.example], ports: [{port: 5432, protocol: HTTP}]}]}",
        ),
    ];
    let gateway = gateway(&texts);
    let node = &gateway.0.snapshot().node;
    let at = |wanted: &str| {
        let mut routes =
            node.routes.iter().filter_map(|route| match (&route.target, route.action) {
                (DirectTarget::Name(host), NodeAction::Redirect { port: Some(at), .. })
                    if host.to_string() == wanted =>
                {
                    Some(at.0.get())
                }
                (DirectTarget::Net(net), NodeAction::Redirect { port: Some(at), .. })
                    if net.to_string() == wanted =>
                {
                    Some(at.0.get())
                }
                _ => None,
            });
        routes.next().unwrap()
    };
    let (one, other, ip) = (at("db.example"), at("db.example.org"), at("203.0.113.7/32"));
    assert!(one != other && other != ip && [one, other, ip].iter().all(|port| *port >= 20_000));
    let to = |from: &str, at: u16| {
        gateway
            .0
            .tcp(&gateway.source(from), original(at))
            .map(|route| route.cluster.name.0.to_string())
    };
    assert_eq!(gateway.mode(one), PortMode::Tcp);
    assert_eq!(gateway.mode(5432), PortMode::Detect);
    assert_eq!(to(SLEEP, one).unwrap(), "outbound|5432||db.example");
    assert_eq!(to(WEB, other).unwrap(), "outbound|5432||db.example.org");
    let route = gateway.0.tcp(&gateway.source(WEB), original(ip)).unwrap();
    assert!(matches!(route.cluster.discovery, Discovery::Static(_)));
    for (from, at) in [(JOB, one), (WEB, one), (SLEEP, other), (SLEEP, ip), (STRANGER, one)] {
        assert_eq!(reason(to(from, at)), Reason::NoRoute, "{from} {at}");
    }
    // The same service of two namespaces has one port.
    let again = compiled(&[&texts[0], &texts[0].replace("apps", "shop")], PODS);
    assert_eq!(again.snapshot.node.routes.len(), 1);
}

/// Policies for raw TCP to other names on one port, for other pods.
#[test]
fn raw_tcp_to_an_address_of_no_service_reaches_the_only_name_that_the_pod_is_allowed() {
    let db = |full: &str, app: &str, host: &str| {
        policy(
            full,
            &format!(
                "{{podSelector: {{matchLabels: {{app: {app}}}}}, rules: [{{hosts: [{host}], ports: [{{port: 5432, protocol: TCP}}]}}]}}"
            ),
        )
    };
    let two = [db("apps/db", "sleep", "db.example"), db("shop/db", "web", "db.example.org")];
    let asked = |more: &[String], from: &str| {
        let gateway = gateway(&[&two[..], more].concat());
        let shared = &gateway.0.snapshot().rules.shared_tcp;
        let at = shared.first_key_value().unwrap().0.0;
        let route = gateway.0.tcp(&gateway.source(from), crate::types::OriginalPort(at));
        route.map(|route| route.cluster.name.0.to_string()).map_err(|denied| denied.reason)
    };
    assert_eq!(asked(&[], SLEEP).unwrap(), "outbound|5432||db.example");
    assert_eq!(asked(&[], WEB).unwrap(), "outbound|5432||db.example.org");
    for from in [JOB, STRANGER] {
        assert_eq!(asked(&[], from), Err(Reason::NoRoute), "{from}");
    }
    // Of two names nobody could tell which was meant, whichever resources they are of.
    let more = [db("apps/log", "sleep", "log.example")];
    assert_eq!(asked(&more, SLEEP), Err(Reason::EgressPolicyDenied));
    assert_eq!(asked(&more, WEB).unwrap(), "outbound|5432||db.example.org");
    let istio = [
        istio("ServiceEntry", "apps/queue", "{hosts: [queue.example], exportTo: ['.'], resolution: DNS, ports: [{number: 5432, name: t, protocol: TCP}]}"),
        istio("Gateway", "apps/queue", "{selector: {istio: egressgateway}, servers: [{port: {number: 15432, name: t, protocol: TCP}, hosts: [queue.example]}]}"),
        istio("VirtualService", "apps/queue", &format!("{{hosts: [queue.example], exportTo: ['.'], gateways: [mesh, queue], tcp: [
          {{match: [{{gateways: [mesh], port: 5432}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 15432}}}}}}]}},
          {{match: [{{gateways: [queue], port: 15432}}], route: [{{destination: {{host: queue.example, port: {{number: 5432}}}}}}]}}]}}")),
    ];
    assert_eq!(asked(&istio, SLEEP), Err(Reason::NoRoute));
    assert_eq!(asked(&istio, JOB).unwrap(), "outbound|5432||queue.example");
    assert_eq!(asked(&istio, WEB).unwrap(), "outbound|5432||db.example.org");
}

#[test]
fn a_destination_rule_for_the_gateway_asks_for_the_tunnel() {
    let rule = istio(
        "DestinationRule",
        "istio-system/gateway",
        &format!("{{host: {SERVICE}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}"),
    );
    let rules = format!("{{rules: [{}, {}]}}", http("a.example", ""), tls("a.example"));
    let all = format!(
        "{{namespaceSelector: {{}}, rules: [{}, {}]}}",
        http("a.example", ""),
        tls("a.example")
    );
    for text in [policy("apps/a", &rules), cluster_policy("a", &all)] {
        let gateway = gateway(&[rule.clone(), text]);
        let source: Source = gateway.source(SLEEP);
        assert_eq!(reason(get(&gateway, SLEEP, "a.example")), Reason::PlaintextHop);
        assert_eq!(reason(gateway.tls_from(&source, 443, "a.example")), Reason::PlaintextHop);
        let through = gateway.0.tls(&TlsConnection {
            source: &source,
            port: original(443),
            server_name: &crate::types::Host::parse("a.example").unwrap(),
            hop: Hop::Tunnel,
            encrypted: false,
        });
        assert!(matches!(through, Ok(TlsRoute::Forward(_))), "{through:?}");
        for route in &gateway.0.snapshot().node.routes {
            assert!(matches!(route.action, NodeAction::Redirect { hop: Hop::Tunnel, .. }));
        }
    }
}

#[test]
fn destination_rules_for_the_host_count() {
    let rule = |full: &str, tls: &str| {
        istio(
            "DestinationRule",
            full,
            &format!("{{host: a.example, trafficPolicy: {{tls: {tls}}}}}"),
        )
    };
    let plain = policy("apps/a", &format!("{{rules: [{}]}}", http("a.example", "")));
    let secure =
        policy("apps/a", &format!("{{rules: [{}]}}", http("a.example", ", originateTLS: {}")));
    // TLS that is asked for is there, whoever asks.
    let one = gateway(&[plain.clone(), rule("apps/r", "{mode: SIMPLE}")]);
    assert!(get(&one, SLEEP, "a.example").unwrap().cluster.tls.is_some());
    // TLS that can't be applied is refused, and not left out.
    for text in [&plain, &secure] {
        let one = gateway(&[text.clone(), rule("apps/r", "{mode: ISTIO_MUTUAL}")]);
        assert_eq!(reason(get(&one, SLEEP, "a.example")), Reason::TlsPolicyUnavailable);
    }
    // What the policy asks for is verified.
    let insecure = rule("apps/r", "{mode: SIMPLE, insecureSkipVerify: true, sni: b.example}");
    let route = get(&gateway(&[secure.clone(), insecure]), SLEEP, "a.example").unwrap();
    let tls = route.cluster.tls.clone().unwrap();
    assert!(!tls.insecure_skip_verify);
    assert_eq!(tls.sni.unwrap().to_string(), "b.example");
    // And no other namespace's rule counts, nor `DISABLE`.
    let disabled = get(
        &gateway(&[secure, rule("shop/r", "{mode: DISABLE}"), rule("apps/r", "{mode: DISABLE}")]),
        SLEEP,
        "a.example",
    );
    assert!(disabled.unwrap().cluster.tls.is_some());
}

/// The one refusal that a policy draws, and that it allows nothing.
fn refused(spec: &str) -> (String, String, String) {
    let text = policy("apps/bad", spec);
    let all = errors(&[&text]);
    let first = all.first().unwrap_or_else(|| panic!("nothing is wrong with {spec}"));
    assert!(all.iter().all(|problem| problem.severity == Severity::Refusal), "{all:?}");
    assert_eq!(first.resource.as_deref(), Some("EgressPolicy apps/bad"), "{spec}");
    let good = policy("apps/good", &format!("{{rules: [{}]}}", http("good.example", "")));
    let gateway = gateway(&[text, good]);
    assert!(get(&gateway, SLEEP, "a.example").is_err(), "{spec}");
    // It holds nothing else back.
    assert!(get(&gateway, SLEEP, "good.example").is_ok(), "{spec}");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&first.field), text(&first.found), format!("{} {}", first.message, text(&first.expected)))
}

#[test]
fn what_cannot_be_honoured_is_an_error_that_denies() {
    let a = http("a.example", "");
    let with = |more: &str| format!("{{rules: [{a}], {more}}}");
    let rule = |rule: &str| format!("{{rules: [{a}, {rule}]}}");
    let on = |host: &str, protocol: &str, more: &str| {
        rule(&format!("{{hosts: ['{host}'], ports: [{{port: 81, protocol: {protocol}}}]{more}}}"))
    };
    for (spec, field, found, said) in [
        (
            with("gateway: {namespace: istio-system, name: egressgateway}"),
            "spec.gateway",
            "egressgateway.istio-system.svc.cluster.local",
            "istio-egressgateway.istio-system",
        ),
        (with("gateway: {name: x}"), "spec.gateway.namespace", "nothing", "missing"),
        (with("mode: audit"), "spec.mode", "the text \"audit\"", "Enforce"),
        (
            with("podSelector: {matchLabel: {a: b}}"),
            "spec.podSelector[\"matchLabel\"]",
            "",
            "matchLabels",
        ),
        (with("podselector: {}"), "spec[\"podselector\"]", "", "podSelector"),
        (
            with("podSelector: {matchLabels: {a: 'x y'}}"),
            "spec.podSelector.matchLabels[\"a\"]",
            "\"x y\"",
            "label",
        ),
        (
            with("podSelector: {matchLabels: {'-a': x}}"),
            "spec.podSelector.matchLabels[\"-a\"]",
            "\"-a\"",
            "label",
        ),
        (
            with("podSelector: {matchExpressions: [{key: a, operator: In}]}"),
            "spec.podSelector.matchExpressions[0].values",
            "nothing",
            "at least one value",
        ),
        (
            with("podSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}"),
            "spec.podSelector.matchExpressions[0].values",
            "1 values",
            "none",
        ),
        (with("namespaceSelector: {}"), "spec[\"namespaceSelector\"]", "", "unknown field"),
        (
            rule("{hosts: [], ports: [{port: 81, protocol: HTTP}]}"),
            "spec.rules[1].hosts",
            "an empty list",
            "at least one",
        ),
        (
            rule("{hosts: [b.example], ports: []}"),
            "spec.rules[1].ports",
            "an empty list",
            "at least one",
        ),
        (rule("{hosts: [b.example]}"), "spec.rules[1].ports", "nothing", "missing"),
        (
            rule("{hosts: [b.example], ports: [{port: 0, protocol: TLS}]}"),
            "spec.rules[1].ports[0].port",
            "the number 0",
            "65535",
        ),
        (
            rule("{hosts: [b.example], ports: [{port: 81}]}"),
            "spec.rules[1].ports[0].protocol",
            "nothing",
            "missing",
        ),
        (
            rule(
                "{hosts: [b.example], ports: [{port: 81, protocol: TLS}, {port: 81, protocol: TLS}]}",
            ),
            "spec.rules[1].ports[1].port",
            "81",
            "once",
        ),
        (on("*", "HTTP", ""), "spec.rules[1].hosts[0]", "\"*\"", "bare *"),
        (on("b_.example/", "HTTP", ""), "spec.rules[1].hosts[0]", "\"b_.example/\"", "DNS name"),
        (on("*.b.example", "TCP", ""), "spec.rules[1].hosts[0]", "\"*.b.example\"", "wildcard"),
        (on("203.0.113.1", "TLS", ""), "spec.rules[1].hosts[0]", "\"203.0.113.1\"", "server name"),
        (on("127.0.0.1", "TCP", ""), "spec.rules[1].hosts[0]", "\"127.0.0.1\"", "never dials"),
        (on("b.example", "UDP", ""), "spec.rules[1].ports[0].protocol", "the text \"UDP\"", "TCP"),
        (
            on("b.example", "TLS", ", originateTLS: {}"),
            "spec.rules[1].ports[0].protocol",
            "TLS",
            "originateTLS is for",
        ),
        (
            on("b.example", "TCP", ", originateTLS: {}"),
            "spec.rules[1].ports[0].protocol",
            "TCP",
            "originateTLS is for",
        ),
        (
            on("b.example", "TLS", ", http: {methods: [GET]}"),
            "spec.rules[1].ports[0].protocol",
            "TLS",
            "http is for",
        ),
        (
            on("b.example", "HTTP", ", http: {method: [GET]}"),
            "spec.rules[1].http[\"method\"]",
            "",
            "methods",
        ),
        (
            on("b.example", "HTTP", ", http: {methods: [get]}"),
            "spec.rules[1].http.methods[0]",
            "\"get\"",
            "capitals",
        ),
        (
            on("b.example", "HTTP", ", http: {methods: ['']}"),
            "spec.rules[1].http.methods[0]",
            "\"\"",
            "capitals",
        ),
        (
            on("b.example", "HTTP", ", http: {paths: [v1]}"),
            "spec.rules[1].http.paths[0]",
            "\"v1\"",
            "path",
        ),
        (
            on("b.example", "HTTP", ", http: {paths: ['/v1/*']}"),
            "spec.rules[1].http.paths[0]",
            "\"/v1/*\"",
            "wildcard",
        ),
        (
            on("b.example", "HTTP", ", http: {paths: ['/a/../b']}"),
            "spec.rules[1].http.paths[0]",
            "\"/a/../b\"",
            "dot segments",
        ),
        (
            on("b.example", "HTTP", ", http: {paths: ['/a//b']}"),
            "spec.rules[1].http.paths[0]",
            "\"/a//b\"",
            "path",
        ),
        (
            on("b.example", "HTTP", ", http: {paths: ['/a%2Fb']}"),
            "spec.rules[1].http.paths[0]",
            "\"/a%2Fb\"",
            "escapes",
        ),
        (
            on("b.example", "HTTP", ", originateTls: {}"),
            "spec.rules[1][\"originateTls\"]",
            "",
            "originateTLS",
        ),
        (
            rule("{hosts: [a.example], ports: [{port: 80, protocol: TLS}]}"),
            "spec.rules[1].ports[0].protocol",
            "TLS",
            "another protocol in an earlier rule",
        ),
        ("{}".into(), "spec.rules", "nothing", "missing"),
        ("[]".into(), "spec", "a list", "mapping"),
        ("".into(), "spec", "nothing", "missing"),
    ] {
        let (at, what, text) = refused(&spec);
        assert_eq!((&*at, &*what), (field, found), "{spec}");
        assert!(text.contains(said), "{spec}: {text}");
    }
    // An empty list is no mistake: such a policy allows nothing.
    assert_eq!(problems(&[&policy("apps/none", "{rules: []}")], ""), []);
}

#[test]
fn policies_of_one_namespace_agree_on_what_a_host_speaks() {
    let of = |full: &str, protocol: &str| {
        policy(
            full,
            &format!(
                "{{rules: [{{hosts: [a.example], ports: [{{port: 80, protocol: {protocol}}}]}}]}}"
            ),
        )
    };
    let texts = [of("apps/first", "HTTP"), of("apps/second", "TLS"), of("shop/third", "TLS")];
    let told = errors(&texts.each_ref().map(String::as_str));
    assert_eq!(told.len(), 1, "{told:?}");
    let problem = &told[0];
    assert_eq!(problem.resource.as_deref(), Some("EgressPolicy apps/second"));
    assert_eq!(problem.field.as_deref(), Some("spec.rules[0].ports[0].protocol"));
    assert_eq!(
        (problem.found.as_deref(), problem.expected.as_deref()),
        (Some("TLS"), Some("HTTP"))
    );
    let gateway = gateway(&texts);
    assert!(get(&gateway, SLEEP, "a.example").is_ok());
    assert!(gateway.tls_from(&gateway.source(SLEEP), 80, "a.example").is_err());
    // Another namespace's policies are its own affair.
    assert!(gateway.tls_from(&gateway.source(WEB), 80, "a.example").is_ok());
    assert!(get(&gateway, WEB, "a.example").is_err());
}

#[test]
fn all_of_one_port_goes_to_one_gateway() {
    let mesh = crate::config::testing::MESH.replace(
        "workloads:",
        "- service: other.istio-system.svc.cluster.local\n  labels: {istio: other}\n  endpoints: [192.0.2.11]\nworkloads:",
    );
    let by = |full: &str, gateway: &str, number: u16| {
        policy(
            full,
            &format!(
                "{{gateway: {{namespace: istio-system, name: {gateway}}}, rules: [{{hosts: [a.example], ports: [{{port: {number}, protocol: HTTP}}]}}]}}"
            ),
        )
    };
    let texts = [
        by("apps/first", "istio-egressgateway", 80),
        by("apps/second", "other", 80),
        by("apps/third", "other", 81),
    ];
    let files: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| crate::config::testing::file(&format!("{i}.yaml"), text))
        .collect();
    let mesh = crate::config::testing::file("mesh.yaml", &mesh);
    let compiled = crate::config::compile(&files, Some(&mesh)).unwrap();
    let told: Vec<_> =
        compiled.warnings.iter().filter(|problem| problem.severity == Severity::Refusal).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].resource.as_deref(), Some("EgressPolicy apps/second"));
    assert_eq!(told[0].field.as_deref(), Some("spec.rules[0].ports[0].port"));
    assert_eq!(told[0].expected.as_deref(), Some(SERVICE));
    let groups: Vec<_> = compiled
        .snapshot
        .node
        .routes
        .iter()
        .map(|route| match route.action {
            NodeAction::Redirect { group, .. } => (route.port, group),
            NodeAction::Direct => panic!("{route:?}"),
        })
        .collect();
    assert_eq!(groups, [(Some(original(80)), 0), (Some(original(81)), 1)]);
    // A gateway serves what is sent through it alone.
    let gateway = Gateway::of(compiled.snapshot);
    let ask = |number| gateway.ask(&gateway.source(SLEEP), "GET", number, "a.example", "/", &[]);
    assert!(ask(80).is_ok());
    assert_eq!(reason(ask(81)), Reason::HostNotServed);
}

#[test]
fn the_kinds_are_known_by_their_group() {
    let good = policy("apps/a", "{rules: []}");
    for (from, to, said) in [
        ("egress-enforcer.io/v1alpha1", "egress-enforcer.io/v1", "egress-enforcer.io/v1alpha1"),
        ("egress-enforcer.io/v1alpha1", "networking.istio.io/v1", "egress-enforcer.io/v1alpha1"),
        ("EgressPolicy", "EgressPolicies", "Did you mean EgressPolicy?"),
        ("EgressPolicy", "ClusterEgresPolicy", "Did you mean ClusterEgressPolicy?"),
        ("{name: a, namespace: apps}", "{name: A}", "no valid name"),
    ] {
        let problems = errors(&[&good.replace(from, to)]);
        let text = format!("{problems:?}");
        assert!(problems.iter().any(|p| p.severity == Severity::Error), "{text}");
        assert!(text.contains(said), "{text}");
    }
    let twice = errors(&[&good, &good]);
    assert!(twice[0].message.contains("defined twice"), "{twice:?}");
    // Written for a namespace, it would be taken for one that restricts itself to it.
    let in_namespace = cluster_policy("a", "{namespaceSelector: {}, rules: []}")
        .replace("{name: a}", "{name: a, namespace: apps}");
    let told = problems(&[&in_namespace], "");
    assert!(told[0].message.contains("is in no namespace"), "{told:?}");
}
