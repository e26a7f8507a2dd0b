//! The Gateway API's resources: what Istio's tasks say with them, and what the Gateway API says of each part. The
//! texts of the tasks are Istio's own.

use egress_ebpf::reason::Reason;

use crate::{
    config::{
        Problem, Severity, StatusReason,
        testing::{Gateway, compile_with, compiled, problems},
    },
    policy::{ClientTlsMode, Denied, Discovery, HttpRoute, NodeAction, ServerTlsMode, TlsRoute},
};

const HOST: &str = "edition.cnn.com";

const ENTRY: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: cnn
spec:
  hosts:
  - edition.cnn.com
  ports:
  - number: 80
    name: http-port
    protocol: HTTP
  - number: 443
    name: https
    protocol: HTTPS
  resolution: DNS
";

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: cnn-egress-gateway
  annotations:
    networking.istio.io/service-type: ClusterIP
spec:
  gatewayClassName: istio
  listeners:
  - name: http
    hostname: edition.cnn.com
    port: 80
    protocol: HTTP
    allowedRoutes:
      namespaces:
        from: Same
";

const TO_GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: direct-cnn-to-egress-gateway
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: cnn
  rules:
  - backendRefs:
    - name: cnn-egress-gateway-istio
      port: 80
";

const FROM_GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: forward-cnn-from-egress-gateway
spec:
  parentRefs:
  - name: cnn-egress-gateway
  hostnames:
  - edition.cnn.com
  rules:
  - backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: edition.cnn.com
      port: 80
";

const PASSTHROUGH: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: cnn-egress-gateway
  annotations:
    networking.istio.io/service-type: ClusterIP
spec:
  gatewayClassName: istio
  listeners:
  - name: tls
    hostname: edition.cnn.com
    port: 443
    protocol: TLS
    tls:
      mode: Passthrough
    allowedRoutes:
      namespaces:
        from: Same
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata:
  name: direct-cnn-to-egress-gateway
spec:
  parentRefs:
  - kind: ServiceEntry
    group: networking.istio.io
    name: cnn
  rules:
  - backendRefs:
    - name: cnn-egress-gateway-istio
      port: 443
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TLSRoute
metadata:
  name: forward-cnn-from-egress-gateway
spec:
  parentRefs:
  - name: cnn-egress-gateway
  hostnames:
  - edition.cnn.com
  rules:
  - backendRefs:
    - kind: Hostname
      group: networking.istio.io
      name: edition.cnn.com
      port: 443
";

const ORIGINATION: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: originate-tls-for-edition-cnn-com
spec:
  host: edition.cnn.com
  trafficPolicy:
    loadBalancer:
      simple: ROUND_ROBIN
    portLevelSettings:
    - port:
        number: 443
      tls:
        mode: SIMPLE
";

/// The task's resources, with the route from the gateway on replaced.
fn task(from_gateway: &str) -> [&str; 4] {
    [ENTRY, GATEWAY, TO_GATEWAY, from_gateway]
}

fn reason<T: std::fmt::Debug>(result: Result<T, Denied>) -> Reason {
    result.unwrap_err().reason
}

fn cluster(route: Result<HttpRoute, Denied>) -> String {
    route.unwrap_or_else(|denied| panic!("{}", denied.detail)).cluster.name.to_string()
}

/// The route from the gateway on with these rules.
fn rules(rules: &str) -> String {
    let head = FROM_GATEWAY.split("  rules:").next().unwrap();
    format!("{head}  rules:\n{rules}")
}

const BACKEND: &str =
    "{kind: Hostname, group: networking.istio.io, name: edition.cnn.com, port: 80}";

#[test]
fn http_through_the_gateway() {
    let compiled = compiled(&task(FROM_GATEWAY), "");
    assert_eq!(compiled.warnings, []);
    let actions: Vec<_> = compiled.snapshot.node.routes.iter().map(|route| route.action).collect();
    assert!(matches!(actions[..], [NodeAction::Redirect { group: 0, .. }]), "{actions:?}");
    let gateway = Gateway::of(compiled.snapshot);
    assert_eq!(cluster(gateway.get(80, HOST, "/politics")), "outbound|80||edition.cnn.com");
    assert_eq!(reason(gateway.get(80, "other.example", "/")), Reason::HostNotInRegistry);
    assert_eq!(reason(gateway.get(8080, HOST, "/")), Reason::HostNotInRegistry);
    assert_eq!(reason(gateway.tls(443, HOST)), Reason::NoGatewayRoute);
}

#[test]
fn each_part_of_the_way_is_needed() {
    for (texts, expected) in [
        (vec![ENTRY, GATEWAY, FROM_GATEWAY], Reason::NoGatewayRoute),
        (vec![ENTRY, GATEWAY, TO_GATEWAY], Reason::NoMatchingRule),
        (vec![ENTRY, TO_GATEWAY, FROM_GATEWAY], Reason::NoGatewayRoute),
        (vec![GATEWAY, TO_GATEWAY, FROM_GATEWAY], Reason::HostNotInRegistry),
    ] {
        let gateway = Gateway::new(&texts, "");
        assert_eq!(reason(gateway.get(80, HOST, "/")), expected, "{texts:?}");
    }
}

#[test]
fn tls_origination_at_the_gateway() {
    let onward = FROM_GATEWAY.replace("port: 80", "port: 443");
    let with = [ENTRY, GATEWAY, TO_GATEWAY, &onward, ORIGINATION];
    let gateway = Gateway::new(&with, "");
    let route = gateway.get(80, HOST, "/politics").unwrap();
    assert_eq!(route.cluster.name.to_string(), "outbound|443||edition.cnn.com");
    assert_eq!(route.cluster.tls.as_ref().unwrap().mode, ClientTlsMode::Simple);
    // Without the rule nothing is sent in clear text.
    let gateway = Gateway::new(&with[..4], "");
    assert_eq!(reason(gateway.get(80, HOST, "/politics")), Reason::WrongProtocol);
}

#[test]
fn tls_is_passed_through() {
    let gateway = Gateway::new(&[ENTRY, PASSTHROUGH], "");
    let route = gateway.tls(443, HOST).unwrap();
    assert_eq!(route.cluster.name.to_string(), "outbound|443||edition.cnn.com");
    assert_eq!(reason(gateway.tls(443, "other.example")), Reason::HostNotInRegistry);
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::NoGatewayRoute);
    let options = "mode: Passthrough\n      options: {a.example/b: c}";
    let with = PASSTHROUGH.replace("mode: Passthrough", options);
    assert!(Gateway::new(&[ENTRY, &with], "").tls(443, HOST).is_err());
}

#[test]
fn a_wildcard_leads_to_one_host_or_to_each_of_its_own() {
    let wild = ENTRY.replace("edition.cnn.com", "'*.wikipedia.org'").replace("DNS", "NONE");
    let routes = PASSTHROUGH.replace("edition.cnn.com", "'*.wikipedia.org'");
    let gateway = Gateway::new(&[&wild, &routes], "");
    let route = gateway.tls(443, "de.wikipedia.org").unwrap();
    assert_eq!(route.host.as_ref().unwrap().to_string(), "de.wikipedia.org");
    assert_eq!(reason(gateway.tls(443, "wikipedia.org")), Reason::HostNotInRegistry);
    // Istio's task sends all of them to one host, which has an entry of its own.
    let one = routes.replace("\n      name: '*.wikipedia.org'", "\n      name: www.wikipedia.org");
    let www =
        ENTRY.replace("edition.cnn.com", "www.wikipedia.org").replace("name: cnn", "name: www");
    let gateway = Gateway::new(&[&wild, &one, &www], "");
    let route = gateway.tls(443, "de.wikipedia.org").unwrap();
    assert_eq!(route.cluster.name.to_string(), "outbound|443||www.wikipedia.org");
}

#[test]
fn raw_tcp_through_the_gateway() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: db}\nspec:\n  hosts: \
                 [db.example]\n  addresses: [203.0.113.9]\n  ports: [{number: 5432, name: tcp, protocol: TCP}]\n  \
                 resolution: STATIC\n  endpoints: [{address: 203.0.113.9}]\n";
    let routes = |port: u16| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: db}}\nspec:\n  \
             gatewayClassName: egress-enforcer\n  listeners: [{{name: tcp, port: {port}, protocol: TCP}}]\n---\n\
             apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {{name: to}}\nspec:\n  \
             parentRefs: [{{kind: ServiceEntry, group: networking.istio.io, name: db}}]\n  rules: [{{backendRefs: \
             [{{name: db-egress-enforcer, port: {port}}}]}}]\n---\napiVersion: \
             gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {{name: on}}\nspec:\n  parentRefs: \
             [{{name: db}}]\n  rules: [{{backendRefs: [{{kind: Hostname, group: networking.istio.io, name: \
             db.example, port: 5432}}]}}]\n"
        )
    };
    let gateway = Gateway::new(&[entry, &routes(15432)], "");
    assert_eq!(gateway.tcp(15432).unwrap().cluster.name.to_string(), "outbound|5432||db.example");
    assert_eq!(reason(gateway.tcp(5432)), Reason::NoRoute);
    // A port that names decide on is not taken away from them, and nothing else is held back.
    let conflicting = routes(80);
    let mut texts = task(FROM_GATEWAY).to_vec();
    texts.extend([entry, conflicting.as_str()]);
    let gateway = Gateway::new(&texts, "");
    assert_eq!(cluster(gateway.get(80, HOST, "/")), "outbound|80||edition.cnn.com");
    assert_eq!(reason(gateway.tcp(80)), Reason::NoRoute);
    let told = problems(&texts, "");
    assert!(
        told.iter().any(|p| p.message.contains("the gateway's port 80 is used by HTTPRoute")),
        "{told:?}"
    );
}

#[test]
fn classes_of_others_are_passed_over() {
    let other = GATEWAY.replace("gatewayClassName: istio", "gatewayClassName: nginx");
    let texts = [ENTRY, &other, TO_GATEWAY, FROM_GATEWAY];
    assert_eq!(reason(Gateway::new(&texts, "").get(80, HOST, "/")), Reason::NoGatewayRoute);
    // What only a controller of others can read is no concern of ours.
    let odd = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: odd}\nspec:\n  \
               parentRefs: [{name: cnn-egress-gateway}]\n  rules: [{filters: [{type: ExtensionRef, extensionRef: \
               {group: a.example, kind: B, name: c}}]}]\n";
    let told = problems(&[&other, odd], "");
    assert!(
        told.iter().all(|problem| problem.message.contains("another controller's class")),
        "{told:?}"
    );
}

#[test]
fn a_gateway_serves_the_routes_that_it_allows() {
    let route = |namespace: &str| {
        let route =
            FROM_GATEWAY.replace("metadata:\n", &format!("metadata:\n  namespace: {namespace}\n"));
        route.replace(
            "- name: cnn-egress-gateway",
            "- name: cnn-egress-gateway\n    namespace: default",
        )
    };
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {egress: allowed}}\n";
    for (allowed, from, serves) in [
        ("{from: Same}", "default", true),
        ("{from: Same}", "shop", false),
        ("{}", "shop", false),
        ("{from: All}", "shop", true),
        ("{from: None}", "default", false),
        ("{from: Selector, selector: {matchLabels: {egress: allowed}}}", "shop", true),
        ("{from: Selector, selector: {matchLabels: {egress: allowed}}}", "other", false),
        (
            "{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: other}}}",
            "other",
            true,
        ),
        ("{from: Selector, selector: {matchLabels: {'a b': c}}}", "shop", false),
        ("{from: Selector}", "shop", false),
    ] {
        let gateway = GATEWAY.replace("\n        from: Same", &format!(" {allowed}"));
        let texts = [ENTRY, &gateway, TO_GATEWAY, &route(from), namespace];
        let decided = Gateway::new(&texts, "").get(80, HOST, "/");
        assert_eq!(decided.is_ok(), serves, "{allowed} {from}");
        let told = problems(&texts, "");
        assert_eq!(told.is_empty(), serves, "{allowed} {from}: {told:?}");
    }
}

#[test]
fn a_route_names_listeners_by_section_port_and_kind() {
    for (parent, serves) in [
        ("", true),
        ("    sectionName: http\n", true),
        ("    sectionName: other\n", false),
        ("    port: 80\n", true),
        ("    port: 8080\n", false),
    ] {
        let route = FROM_GATEWAY.replace(
            "  - name: cnn-egress-gateway\n",
            &format!("  - name: cnn-egress-gateway\n{parent}"),
        );
        let decided = Gateway::new(&task(&route), "").get(80, HOST, "/");
        assert_eq!(decided.is_ok(), serves, "{parent}");
    }
    let kinds = GATEWAY.replace("from: Same\n", "from: Same\n      kinds: [{kind: GRPCRoute}]\n");
    let texts = [ENTRY, &kinds, TO_GATEWAY, FROM_GATEWAY];
    assert_eq!(reason(Gateway::new(&texts, "").get(80, HOST, "/")), Reason::NoMatchingRule);
}

#[test]
fn hosts_are_those_that_listener_and_route_share() {
    for (listener, route, serves) in [
        ("hostname: edition.cnn.com", "[edition.cnn.com]", true),
        ("hostname: '*.cnn.com'", "[edition.cnn.com]", true),
        ("hostname: edition.cnn.com", "['*.cnn.com']", true),
        ("hostname: edition.cnn.com", "[]", true),
        ("hostname: ''", "[edition.cnn.com]", true),
        ("hostname: '*.cnn.com'", "[edition.bbc.com]", false),
        ("hostname: money.cnn.com", "[edition.cnn.com]", false),
        ("hostname: edition.cnn.com", "['a b']", false),
    ] {
        let gateway = GATEWAY.replace("hostname: edition.cnn.com", listener);
        let onward = FROM_GATEWAY.replace("\n  - edition.cnn.com", &format!(" {route}"));
        let texts = [ENTRY, &gateway, TO_GATEWAY, &onward];
        let decided = Gateway::new(&texts, "").get(80, HOST, "/");
        assert_eq!(decided.is_ok(), serves, "{listener} {route}");
    }
}

/// A listener that names a host more exactly has it for itself.
#[test]
fn listeners_keep_apart() {
    let gateway = GATEWAY.replace(
        "  - name: http\n",
        "  - {name: wide, hostname: '*.cnn.com', port: 80, protocol: HTTP}\n  - name: http\n",
    );
    let on = |section: &str| {
        FROM_GATEWAY.replace(
            "  - name: cnn-egress-gateway\n",
            &format!("  - name: cnn-egress-gateway\n    sectionName: {section}\n"),
        )
    };
    let decided = |section: &str| {
        Gateway::new(&[ENTRY, &gateway, TO_GATEWAY, &on(section)], "").get(80, HOST, "/")
    };
    assert!(decided("http").is_ok());
    assert_eq!(reason(decided("wide")), Reason::NoMatchingRule);
    let wild = on("wide").replace("\n  - edition.cnn.com", "\n  - '*.cnn.com'");
    let decide = Gateway::new(&[ENTRY, &gateway, TO_GATEWAY, &wild], "");
    assert_eq!(reason(decide.get(80, HOST, "/")), Reason::NoMatchingRule);
}

#[test]
fn an_egress_address_that_is_none_refuses_the_route_alone() {
    let annotated = "metadata:\n  annotations: {egress-enforcer.io/egress-address: bad}\n";
    let onward = FROM_GATEWAY.replace("metadata:\n", annotated);
    let decided = Gateway::new(&task(&onward), "").get(80, HOST, "/");
    assert_eq!(reason(decided), Reason::EgressAddressUnavailable);
}

#[test]
fn references_that_cannot_be_read_are_told() {
    let route = FROM_GATEWAY.replace("parentRefs:", "parentRef:");
    let policy = POLICY.replace("targetRefs:", "targetRef:");
    let kindless = POLICY.replace("kind: ServiceEntry, ", "");
    for (text, field) in [(&route, "parentRef"), (&policy, "targetRef"), (&kindless, "kind")] {
        let told = problems(&[ENTRY, GATEWAY, TO_GATEWAY, text], "");
        let mut fields = told.iter().filter_map(|problem| problem.field.as_deref());
        assert!(fields.any(|own| own.contains(field)), "{field}: {told:?}");
    }
}

/// Two namespaces have Gateways for one host, which the same gateway serves: each has its own routes.
#[test]
fn gateways_of_several_namespaces_keep_apart() {
    let in_shop = |text: &str| text.replace("metadata:\n", "metadata:\n  namespace: apps\n");
    let other = FROM_GATEWAY
        .replace("name: edition.cnn.com\n      port: 80", "name: other.example\n      port: 80");
    let entry = in_shop(ENTRY).replace("resolution: DNS\n", "resolution: DNS\n  exportTo: ['.']\n");
    let target = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: other}\nspec: {hosts: \
                  [other.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n";
    let texts = [
        ENTRY,
        GATEWAY,
        TO_GATEWAY,
        FROM_GATEWAY,
        target,
        &entry,
        &in_shop(GATEWAY),
        &in_shop(TO_GATEWAY),
        &in_shop(&other),
    ];
    let gateway = Gateway::new(&texts, "");
    assert_eq!(cluster(gateway.get(80, HOST, "/")), "outbound|80||edition.cnn.com");
    let sleep = gateway.source("10.0.0.5");
    let decided = gateway.ask(&sleep, "GET", 80, HOST, "/", &[]);
    assert_eq!(cluster(decided), "outbound|80||other.example");
}

/// A route in another namespace than the service's is for that namespace alone.
#[test]
fn a_consumer_route_is_for_its_own_namespace() {
    let gateway = GATEWAY.replace("from: Same", "from: All");
    let route = TO_GATEWAY
        .replace("metadata:\n", "metadata:\n  namespace: apps\n")
        .replace("name: cnn\n", "name: cnn\n    namespace: default\n")
        .replace("- name: cnn-egress", "- namespace: default\n      name: cnn-egress");
    let decide = Gateway::new(&[ENTRY, &gateway, &route, FROM_GATEWAY], "");
    let sleep = decide.source("10.0.0.5");
    assert!(decide.ask(&sleep, "GET", 80, HOST, "/", &[]).is_ok());
    assert_eq!(reason(decide.get(80, HOST, "/")), Reason::NoGatewayRoute);
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    let external = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: \
                    shop}\nspec: {hosts: [api.shop.svc.cluster.local], resolution: STATIC, endpoints: [{address: \
                    203.0.113.9}], ports: [{number: 80, name: http, protocol: HTTP}]}\n";
    let onward = rules("  - backendRefs: [{name: api, namespace: shop, port: 80}]\n");
    let grant = |from: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: \
             shop}}\nspec: {{from: [{{group: gateway.networking.k8s.io, {from}}}], to: [{{group: '', {to}}}]}}\n"
        )
    };
    for (grant, serves) in [
        (grant("kind: HTTPRoute, namespace: default", "kind: Service"), true),
        (grant("kind: HTTPRoute, namespace: default", "kind: Service, name: api"), true),
        (grant("kind: HTTPRoute, namespace: default", "kind: Service, name: other"), false),
        (grant("kind: HTTPRoute, namespace: default", "kind: Secret"), false),
        (grant("kind: TCPRoute, namespace: default", "kind: Service"), false),
        (grant("kind: HTTPRoute, namespace: other", "kind: Service"), false),
        // One that is not understood grants nothing.
        (grant("kind: HTTPRoute, namespace: default, until: today", "kind: Service"), false),
        (String::new(), false),
    ] {
        let gateway = Gateway::new(&[ENTRY, GATEWAY, TO_GATEWAY, &onward, external, &grant], "");
        let decided = gateway.get(80, HOST, "/");
        match decided {
            Ok(_) => assert!(serves, "{grant}"),
            Err(denied) => {
                assert!(!serves, "{grant}: {}", denied.detail);
                assert_eq!(denied.reason, Reason::InvalidRoute);
                assert!(denied.detail.contains("no ReferenceGrant of shop"), "{}", denied.detail);
            }
        }
    }
}

#[test]
fn what_a_backend_cannot_be_is_refused() {
    for (backend, why) in [
        ("{kind: Hostname, group: networking.istio.io, name: edition.cnn.com}", "port is not said"),
        (
            "{kind: Hostname, group: networking.istio.io, name: edition.cnn.com, namespace: a, port: 80}",
            "no namespace",
        ),
        (
            "{kind: ServiceEntry, group: networking.istio.io, name: cnn, port: 80}",
            "of kind Hostname",
        ),
        ("{kind: Bucket, group: example.com, name: cnn, port: 80}", "is not known"),
        ("{name: edition.cnn.com, port: 80}", "not the name of a Service"),
        ("{kind: Hostname, group: networking.istio.io, name: bad..host, port: 80}", "is no host"),
        ("{name: 'bad!svc', port: 80}", "there is no Service"),
        ("{name: '*', port: 80}", "there is no Service"),
    ] {
        let onward = rules(&format!("  - backendRefs: [{backend}]\n"));
        let denied = Gateway::new(&task(&onward), "").get(80, HOST, "/").unwrap_err();
        assert_eq!(denied.reason, Reason::InvalidRoute, "{backend}");
        assert!(denied.detail.contains(why), "{backend}: {}", denied.detail);
    }
    // Nothing is copied to what is no host.
    let onward = rules(&format!(
        "  - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: 'bad!svc', port: 80}}}}}}]\n    \
         backendRefs: [{BACKEND}]\n"
    ));
    assert!(Gateway::new(&task(&onward), "").get(80, HOST, "/").unwrap().mirrors.is_empty());
    // Shares of nothing.
    for backends in ["[]", &format!("[{}]", BACKEND.replace("port: 80", "port: 80, weight: 0"))] {
        let onward = rules(&format!("  - backendRefs: {backends}\n"));
        assert_eq!(
            reason(Gateway::new(&task(&onward), "").get(80, HOST, "/")),
            Reason::InvalidRoute
        );
    }
}

/// What the route's conditions show is decided where the fault is found.
#[test]
fn the_reason_of_a_route_is_its_faults_and_not_a_word_of_the_message() {
    let found = |from_gateway: &str| {
        let all = problems(&task(from_gateway), "").into_iter();
        let own = all.filter(|problem| problem.severity != Severity::Warning);
        own.filter_map(|problem| problem.status_reason).collect::<Vec<_>>()
    };
    let backend =
        |backend: &str| found(&rules(&format!("  - backendRefs: [{{{backend}, port: 80}}]\n")));
    assert_eq!(backend("name: 'man!kind'"), [StatusReason::BackendNotFound]);
    assert_eq!(backend("name: api, namespace: shop"), [StatusReason::RefNotPermitted]);
    for kind in ["kind: Bucket, group: x", "kind: ServiceEntry, group: networking.istio.io"] {
        assert_eq!(backend(&format!("{kind}, name: cnn")), [StatusReason::InvalidKind]);
    }
    // Where the host of a good reference leads is found out later: the place says enough.
    assert_eq!(backend("name: mankind"), []);

    let parent = |from: &str, to: &str| {
        assert!(FROM_GATEWAY.contains(from));
        found(&FROM_GATEWAY.replace(from, to))
    };
    let hosts = parent("hostnames:\n  - edition", "hostnames:\n  - takes-no");
    assert_eq!(hosts, [StatusReason::NoMatchingListenerHostname]);
    let elsewhere =
        parent("name: cnn-egress-gateway\n", "name: cnn-egress-gateway\n    sectionName: x\n");
    assert_eq!(elsewhere, [StatusReason::NoMatchingParent]);
    let section = "name: cnn-egress-gateway\n    port: 80\n";
    assert_eq!(parent("name: cnn-egress-gateway\n", section), []);
    assert_eq!(found(FROM_GATEWAY), []);
}

#[test]
fn the_most_specific_match_wins_whatever_the_order() {
    let rule = |name: &str, matches: &str| {
        format!("  - {{name: {name}, matches: [{matches}], backendRefs: [{BACKEND}]}}\n")
    };
    let all = [
        rule("any", "{}"),
        rule("query", "{path: {value: /v1}, queryParams: [{name: a, value: b}]}"),
        rule("prefix", "{path: {value: /v1}}"),
        rule("longer", "{path: {value: /v1/users/}}"),
        rule("headers", "{path: {value: /v1}, headers: [{name: x-a, value: b}]}"),
        rule("method", "{path: {value: /v1}, method: POST}"),
        rule("exact", "{path: {type: Exact, value: /v1/users/me}}"),
        rule("regex", "{path: {type: RegularExpression, value: '/v[0-9]+/.*'}}"),
    ];
    for reverse in [false, true] {
        let mut order: Vec<&str> = all.iter().map(String::as_str).collect();
        if reverse {
            order.reverse();
        }
        let gateway = Gateway::new(&task(&rules(&order.concat())), "");
        let stranger = gateway.stranger();
        let chosen = |method: &str, path: &str, headers: &[(&'static str, &'static str)]| {
            let route = gateway.ask(&stranger, method, 80, HOST, path, headers).unwrap();
            route.name.as_deref().unwrap_or_default().to_owned()
        };
        for (method, path, expected) in [
            ("GET", "/", "any"),
            ("GET", "/v1", "prefix"),
            ("GET", "/v1/", "prefix"),
            ("GET", "/v10", "any"),
            ("GET", "/v1?a=b", "query"),
            ("GET", "/v1?a=c", "prefix"),
            ("GET", "/v1/users", "longer"),
            ("GET", "/v1/users/you", "longer"),
            ("GET", "/v1/users/me", "exact"),
            ("GET", "/v1/usersx", "prefix"),
            ("GET", "/v2/x", "regex"),
            ("POST", "/v1?a=b", "method"),
        ] {
            assert_eq!(chosen(method, path, &[]), expected, "{method} {path} {reverse}");
        }
        assert_eq!(chosen("GET", "/v1?a=b", &[("x-a", "b")]), "headers");
        assert_eq!(chosen("POST", "/v1", &[("x-a", "b")]), "method");
    }
}

#[test]
fn of_two_routes_the_oldest_wins_and_their_rules_are_one_list() {
    let route = |name: &str, created: &str, path: &str| {
        FROM_GATEWAY
            .replace(
                "name: forward-cnn-from-egress-gateway",
                &format!("name: {name}\n  creationTimestamp: '{created}'"),
            )
            .replace(
                "  - backendRefs:",
                &format!(
                    "  - name: {name}\n    matches: [{{path: {{value: {path}}}}}]\n    backendRefs:"
                ),
            )
    };
    let rule = |texts: &[&str], path: &str| {
        let mut all = vec![ENTRY, GATEWAY, TO_GATEWAY];
        all.extend(texts);
        Gateway::new(&all, "").get(80, HOST, path).unwrap().name.unwrap().to_string()
    };
    let (old, new) =
        (route("b", "2026-01-01T00:00:00Z", "/a"), route("a", "2026-02-01T00:00:00Z", "/a"));
    assert_eq!(rule(&[&new, &old], "/a"), "b");
    let same = route("a", "2026-01-01T00:00:00Z", "/a");
    assert_eq!(rule(&[&old, &same], "/a"), "a");
    let longer = route("c", "2026-03-01T00:00:00Z", "/a/b");
    assert_eq!(rule(&[&old, &longer], "/a/b/c"), "c");
}

#[test]
fn filters_timeouts_and_retries_have_their_effect() {
    let onward = rules(&format!(
        "  - matches: [{{path: {{value: /v1}}}}]\n    timeouts: {{request: 3s, backendRequest: 1s}}\n    retry: \
         {{attempts: 3, codes: [502, 503], backoff: 100ms}}\n    filters:\n    - {{type: RequestHeaderModifier, \
         requestHeaderModifier: {{set: [{{name: X-A, value: 100%}}, {{name: x-a, value: no}}], remove: [x-b]}}}}\n    \
         - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /v2/}}}}}}\n    \
         backendRefs: [{BACKEND}]\n  - matches: [{{path: {{value: /old}}}}]\n    filters: [{{type: RequestRedirect, \
         requestRedirect: {{scheme: https, path: {{type: ReplaceFullPath, replaceFullPath: /new}}}}}}]\n  - \
         matches: [{{path: {{value: /full}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{hostname: \
         b.example, path: {{type: ReplaceFullPath, replaceFullPath: '/all$1'}}}}}}]\n    backendRefs: [{BACKEND}]\n  - \
         matches: [{{path: {{value: /moved/}}}}]\n    filters: [{{type: RequestRedirect, requestRedirect: \
         {{statusCode: 308, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /to}}}}}}]\n"
    ));
    let compiled = compiled(&task(&onward), "");
    assert_eq!(compiled.warnings, []);
    let gateway = Gateway::of(compiled.snapshot);
    for (path, rewritten) in
        [("/v1", "/v2"), ("/v1/", "/v2/"), ("/v1/users?x=/v1/", "/v2/users?x=/v1/")]
    {
        let route = gateway.get(80, HOST, path).unwrap();
        assert_eq!(route.action.rewrite_path.as_deref(), Some(rewritten), "{path}");
        assert_eq!(route.timeout.map(|timeout| timeout.as_secs()), Some(3));
        assert_eq!(route.retry.attempts, 3);
        assert_eq!(route.retry.per_try_timeout.map(|timeout| timeout.as_secs()), Some(1));
        assert_eq!(route.retry.retry_on.statuses, [502, 503]);
        let set = format!("{:?}", route.action.request_headers.set);
        assert!(set.contains("\"100%\"") && !set.contains("no"), "{set}");
    }
    let route = gateway.get(80, HOST, "/full/x").unwrap();
    assert_eq!(route.action.rewrite_path.as_deref(), Some("/all$1"));
    assert_eq!(route.action.rewrite_authority.as_deref(), Some("b.example"));
    let redirected = format!("{:?}", gateway.get(80, HOST, "/old/x").unwrap());
    assert!(
        redirected.contains("302") && redirected.contains("https://edition.cnn.com/new"),
        "{redirected}"
    );
    assert_eq!(reason(gateway.get(80, HOST, "/v10")), Reason::NoMatchingRule);
    for (path, location) in [
        ("/moved", "http://edition.cnn.com/to"),
        ("/moved/x?y=z", "http://edition.cnn.com/to/x?y=z"),
    ] {
        let route = gateway.get(80, HOST, path).unwrap();
        let (status, found) = route.action.redirect.clone().unwrap();
        assert_eq!((status.as_u16(), &*found), (308, location), "{path}");
    }
}

/// What cannot be carried out refuses what it is for, with the name of the field, and nothing else.
#[test]
fn what_is_not_supported_refuses_its_rule_alone() {
    for (wrong, why) in [
        (
            "filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]",
            "extensionRef",
        ),
        ("filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC}}]", "externalAuth"),
        ("sessionPersistence: {sessionName: a}", "sessionPersistence"),
        ("filters: [{type: URLRewrite}]", "settings of URLRewrite"),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: c}]}}]",
            "header",
        ),
        ("retry: {attempts: 101}", "too many"),
        ("retry: {codes: [999]}", "condition"),
        ("backendRefsX: []", "backendRefsX"),
    ] {
        let onward = rules(&format!(
            "  - {{name: wrong, matches: [{{path: {{value: /wrong}}}}], backendRefs: [{BACKEND}], {wrong}}}\n  - \
             {{name: right, backendRefs: [{BACKEND}]}}\n"
        ));
        let compiled = compiled(&task(&onward), "");
        let told: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
        assert!(
            told.iter().any(|text| text.contains(": refused: ") && text.contains(why)),
            "{wrong}: {told:?}"
        );
        let gateway = Gateway::of(compiled.snapshot);
        assert_eq!(reason(gateway.get(80, HOST, "/wrong/x")), Reason::InvalidRoute, "{wrong}");
        assert!(gateway.get(80, HOST, "/right").is_ok(), "{wrong}");
    }
}

/// A condition that cannot be read leaves open what the route's other rules are for.
#[test]
fn a_condition_that_cannot_be_read_refuses_the_route() {
    for wrong in [
        "{path: {type: RegularExpression, value: '('}}",
        "{path: {type: RegularExpression, value: '(a'}}",
        "{path: {value: /b}, headers: [{type: RegularExpression, name: x-a, value: '(a'}]}",
        "{path: {type: Glob, value: /a}}",
        "{headers: [{name: 'a b', value: c}]}",
        "{cookies: [{name: a}]}",
    ] {
        let onward = rules(&format!(
            "  - {{matches: [{wrong}], backendRefs: [{BACKEND}]}}\n  - {{backendRefs: [{BACKEND}]}}\n"
        ));
        let gateway = Gateway::new(&task(&onward), "");
        assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::InvalidRoute, "{wrong}");
    }
}

#[test]
fn methods_of_grpc_are_paths() {
    let route = |matches: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: grpc}}\nspec:\n  \
             parentRefs: [{{name: cnn-egress-gateway}}]\n  rules: [{{matches: [{matches}], backendRefs: [{BACKEND}]}}]\n"
        )
    };
    for (matches, path, serves) in [
        ("{method: {service: a.B, method: C}}", "/a.B/C", true),
        ("{method: {service: a.B, method: C}}", "/a.B/D", false),
        ("{method: {service: a.B}}", "/a.B/D", true),
        ("{method: {service: a.B}}", "/a.BC/D", false),
        ("{method: {method: C}}", "/x.Y/C", true),
        ("{method: {method: C}}", "/x.Y/Z/C", false),
        (
            "{method: {type: RegularExpression, service: 'a\\.[BC]|d', method: 'X.*'}}",
            "/a.C/Xy",
            true,
        ),
        (
            "{method: {type: RegularExpression, service: 'a\\.[BC]|d', method: 'X.*'}}",
            "/a.D/Xy",
            false,
        ),
        ("{headers: [{name: x-a, value: b}]}", "/a.B/C", false),
    ] {
        let route = route(matches);
        let gateway = Gateway::new(&task(&route), "");
        let decided = gateway.ask(&gateway.stranger(), "POST", 80, HOST, path, &[]);
        assert_eq!(decided.is_ok(), serves, "{matches} {path}");
    }
}

#[test]
fn listeners_say_what_became_of_them_and_why() {
    let gateway = |listeners: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: cnn-egress-gateway}}\nspec:\n  \
             gatewayClassName: istio\n  listeners: [{listeners}]\n"
        )
    };
    let of = |listeners: &str| {
        let compiled = compiled(&[ENTRY, &gateway(listeners), FROM_GATEWAY], "");
        let key = "Gateway.gateway.networking.k8s.io default/cnn-egress-gateway";
        let found = compiled.listeners[key].clone();
        let served: Vec<_> = found.iter().map(|listener| listener.is_served).collect();
        let own = compiled.warnings.into_iter().filter(|p| p.resource.as_deref() == Some(key));
        let reasons = own.filter(|p| p.severity == Severity::Refusal).map(|p| p.status_reason);
        (found, served, reasons.collect::<Vec<_>>())
    };
    let decide =
        |listeners: &str| Gateway::new(&[ENTRY, &gateway(listeners), TO_GATEWAY, FROM_GATEWAY], "");
    let host = "hostname: edition.cnn.com";
    let good = format!("{{name: a, {host}, port: 80, protocol: HTTP}}");
    let fine = decide(&good);
    assert!(fine.ask(&fine.stranger(), "GET", 80, HOST, "/", &[]).is_ok());
    let (found, served, reasons) = of(&good);
    assert_eq!((served, reasons), (vec![true], vec![]));
    assert_eq!(found[0].kinds, ["HTTPRoute", "GRPCRoute"]);
    assert_eq!(
        found[0].routes.iter().collect::<Vec<_>>(),
        ["HTTPRoute default/forward-cnn-from-egress-gateway"]
    );
    // Other ones beside it: what is wrong with one holds the other one not back.
    let web = "certificateRefs: [{name: web}]";
    for (other, is_served, reason) in [
        (format!("{{name: b, {host}, port: 443, protocol: HTTPS, tls: {{{web}}}}}"), true, None),
        (
            format!("{{name: b, {host}, port: 443, protocol: HTTPS}}"),
            false,
            Some(StatusReason::InvalidCertificateRef),
        ),
        (
            format!(
                "{{name: b, {host}, port: 443, protocol: HTTPS, tls: {{certificateRefs: []}}}}"
            ),
            false,
            Some(StatusReason::InvalidCertificateRef),
        ),
        (
            format!(
                "{{name: b, {host}, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: x, \
                 namespace: other}}]}}}}"
            ),
            false,
            Some(StatusReason::RefNotPermitted),
        ),
        (
            format!("{{name: b, {host}, port: 53, protocol: UDP}}"),
            false,
            Some(StatusReason::UnsupportedProtocol),
        ),
        (
            format!(
                "{{name: b, {host}, port: 81, protocol: HTTP, allowedRoutes: {{kinds: [{{kind: \
                 TCPRoute}}, {{kind: HTTPRoute}}]}}}}"
            ),
            true,
            Some(StatusReason::InvalidRouteKinds),
        ),
        // Another port, or another host.
        (format!("{{name: b, {host}, port: 81, protocol: HTTP}}"), true, None),
        ("{name: b, hostname: other.example, port: 80, protocol: HTTP}".into(), true, None),
    ] {
        let (_, served, reasons) = of(&format!("{good}, {other}"));
        assert_eq!(served, [true, is_served], "{other}");
        assert_eq!(reasons.into_iter().flatten().next(), reason, "{other}");
    }
    // Neither of two that have a host at a port is served.
    let secure = format!("{{name: a, {host}, port: 443, protocol: HTTPS, tls: {{{web}}}}}");
    for (one, other, reason) in [
        (&good, good.replace("name: a", "name: b"), StatusReason::HostnameConflict),
        (
            &secure,
            format!("{{name: b, {host}, port: 443, protocol: TLS, tls: {{mode: Passthrough}}}}"),
            StatusReason::ProtocolConflict,
        ),
        (
            &good,
            secure.replace("443", "80").replace("name: a", "name: b"),
            StatusReason::ProtocolConflict,
        ),
    ] {
        let (_, served, reasons) = of(&format!("{one}, {other}"));
        assert_eq!(served, [false, false], "{other}");
        assert_eq!(reasons, [Some(reason), Some(reason)], "{other}");
        let decide = decide(&format!("{one}, {other}"));
        assert!(decide.ask(&decide.stranger(), "GET", 80, HOST, "/", &[]).is_err(), "{other}");
        for port in [80, 443] {
            let inside = decide.tls_route(&decide.stranger(), port, HOST);
            assert!(!matches!(inside, Ok(TlsRoute::Terminate(_))), "{other}: {inside:?}");
        }
    }
}

#[test]
fn tls_ends_at_a_listener_as_its_options_say() {
    let gateway = |tls: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: cnn-egress-gateway}}\nspec:\n  \
             gatewayClassName: istio\n  listeners: [{{name: https, hostname: edition.cnn.com, port: 443, protocol: \
             HTTPS, tls: {tls}}}]\n"
        )
    };
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: \
                 certs}\nspec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}], to: \
                 [{group: '', kind: Secret, name: shared}]}\n";
    let option = |mode: &str| format!("options: {{gateway.istio.io/tls-terminate-mode: {mode}}}");
    for (tls, mode) in [
        ("{certificateRefs: [{name: web}]}".into(), Some(ServerTlsMode::Simple)),
        (
            format!("{{mode: Terminate, certificateRefs: [{{name: web}}], {}}}", option("MUTUAL")),
            Some(ServerTlsMode::Mutual),
        ),
        (
            format!("{{certificateRefs: [{{name: web}}], {}}}", option("OPTIONAL_MUTUAL")),
            Some(ServerTlsMode::OptionalMutual),
        ),
        (
            "{certificateRefs: [{name: shared, namespace: certs}]}".into(),
            Some(ServerTlsMode::Simple),
        ),
        ("{certificateRefs: [{name: other, namespace: certs}]}".into(), None),
        ("{certificateRefs: [{name: web}, {name: more}]}".into(), Some(ServerTlsMode::Simple)),
        ("{certificateRefs: [{name: web}, {name: more}, {name: most}]}".into(), None),
        ("{certificateRefs: []}".into(), None),
        // One that may not be referred to is not shown; the other one is.
        (
            "{certificateRefs: [{name: other, namespace: certs}, {name: web}]}".into(),
            Some(ServerTlsMode::Simple),
        ),
        ("{certificateRefs: [{name: web, kind: X}, {name: more, kind: X}]}".into(), None),
        // Its roots say who is let in.
        (
            format!(
                "{{certificateRefs: [{{name: other, namespace: certs}}, {{name: web}}], {}}}",
                option("MUTUAL")
            ),
            None,
        ),
        ("{certificateRefs: [{name: web, kind: ConfigMap}]}".into(), None),
        ("{mode: Passthrough}".into(), None),
        ("{}".into(), None),
        (format!("{{certificateRefs: [{{name: web}}], {}}}", option("SOMETIMES")), None),
        (
            "{certificateRefs: [{name: web}], options: {example.com/min-version: '1.3'}}".into(),
            None,
        ),
        (
            "{certificateRefs: [{name: web}], frontendValidation: {caCertificateRefs: []}}".into(),
            None,
        ),
    ] {
        let text = gateway(&tls);
        let decide = Gateway::new(&[ENTRY, &text, FROM_GATEWAY, grant], "");
        let decided = decide.tls_route(&decide.stranger(), 443, HOST);
        match (decided, mode) {
            (Ok(TlsRoute::Terminate(to)), Some(mode)) => {
                assert_eq!(to.tls.mode, mode, "{tls}");
                assert!(decide.get_inside(&to, HOST, "/").is_ok());
                assert!(decide.get_inside(&to, "other.example", "/").is_err());
            }
            (decided, None) => assert!(decided.is_err(), "{tls}: {decided:?}"),
            (decided, Some(_)) => panic!("{tls}: {decided:?}"),
        }
    }
    // Both ends prove who they are: Istio's destination rule for the Gateway's service asks for it.
    let mutual = GATEWAY.replace(
        "port: 80\n    protocol: HTTP",
        &format!("port: 80\n    protocol: HTTPS\n    tls: {{{}}}", option("ISTIO_MUTUAL")),
    );
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: mtls}\nspec: {host: \
                cnn-egress-gateway-istio.default.svc.cluster.local, trafficPolicy: {portLevelSettings: [{port: \
                {number: 80}, tls: {mode: ISTIO_MUTUAL, sni: edition.cnn.com}}]}}\n";
    let texts = [ENTRY, &mutual, TO_GATEWAY, FROM_GATEWAY, rule];
    let compiled = compiled(&texts, "");
    assert!(compiled.snapshot.mesh.gateways[0].tunnel.is_some());
    assert_eq!(reason(Gateway::of(compiled.snapshot).get(80, HOST, "/")), Reason::PlaintextHop);
}

const POLICY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata:
  name: cnn
spec:
  targetRefs:
  - {group: networking.istio.io, kind: ServiceEntry, name: cnn, sectionName: https}
  validation:
    hostname: edition.cnn.com
    wellKnownCACertificates: System
";

#[test]
fn a_policy_starts_tls_to_its_backend_and_never_leaves_it_in_clear() {
    let onward = FROM_GATEWAY.replace("port: 80", "port: 443");
    let decide = |policy: &str, more: &str| {
        Gateway::new(&[ENTRY, GATEWAY, TO_GATEWAY, &onward, policy, more], "").get(80, HOST, "/")
    };
    let route = decide(POLICY, "").unwrap();
    let tls = route.cluster.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.mode, tls.sni.as_ref().unwrap().to_string()),
        (&ClientTlsMode::Simple, HOST.into())
    );
    assert_eq!(tls.subject_alt_names, [HOST]);
    let roots = "caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]";
    let own = POLICY
        .replace("wellKnownCACertificates: System", roots)
        .replace(", sectionName: https", "");
    let names = "\n    subjectAltNames: [{type: URI, uri: 'spiffe://a/b'}, {type: Hostname, hostname: b.example}]";
    let route = decide(&(own.trim_end().to_owned() + names + "\n"), "").unwrap();
    let tls = route.cluster.tls.as_ref().unwrap();
    assert_eq!(tls.mode, ClientTlsMode::SimpleNamed("roots".into()));
    assert_eq!(tls.subject_alt_names, ["spiffe://a/b", "b.example"]);
    for (policy, why) in [
        (POLICY.replace("    wellKnownCACertificates: System\n", ""), "whom to trust"),
        (POLICY.replace("System", "Mine"), "wrong value"),
        (
            POLICY.replace(
                "wellKnownCACertificates: System",
                &format!("{roots}\n    wellKnownCACertificates: System"),
            ),
            "one too many",
        ),
        (POLICY.replace("  validation:", "  options: {a.example/b: c}\n  validation:"), "option"),
        (POLICY.replace("    hostname: edition", "    hostname: 192.0.2.1 #"), "no address"),
    ] {
        // Not on port 80 either, which speaks clear text.
        let policy = policy.replace(", sectionName: https", "");
        let denied = decide(&policy, "").unwrap_err();
        assert_eq!(denied.reason, Reason::TlsPolicyUnavailable, "{policy}: {}", denied.detail);
        let gateway = Gateway::new(&[ENTRY, GATEWAY, TO_GATEWAY, FROM_GATEWAY, &policy], "");
        assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::TlsPolicyUnavailable);
        let told = problems(&[ENTRY, GATEWAY, TO_GATEWAY, &onward, &policy], "");
        assert!(told.iter().any(|problem| problem.message.contains(why)), "{why}: {told:?}");
    }
    // An older rule for the same host says nothing of TLS: the policy counts.
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: lb, creationTimestamp: \
                '2020-01-01T00:00:00Z'}\nspec: {host: edition.cnn.com, trafficPolicy: {loadBalancer: {simple: \
                RANDOM}}}\n";
    assert!(decide(POLICY, rule).unwrap().cluster.tls.is_some());
    let limited = rule
        .replace("loadBalancer: {simple: RANDOM}", "connectionPool: {tcp: {maxConnections: 7}}");
    let cluster = decide(POLICY, &limited).unwrap().cluster;
    assert_eq!((cluster.tls.is_some(), cluster.pool.max_connections), (true, 7));
}

#[test]
fn policies_for_several_sections_are_one() {
    let target = |section: &str| {
        format!(
            "  - {{group: networking.istio.io, kind: ServiceEntry, name: cnn, sectionName: {section}}}\n"
        )
    };
    let both = POLICY.replace(&target("https"), &(target("https") + &target("http-port")));
    let onward = FROM_GATEWAY.replace("port: 80", "port: 443");
    for route in [FROM_GATEWAY, &onward] {
        let gateway = Gateway::new(&[ENTRY, GATEWAY, TO_GATEWAY, route, &both], "");
        assert!(gateway.get(80, HOST, "/").unwrap().cluster.tls.is_some(), "{route}");
    }
}

#[test]
fn a_policy_for_a_gateway_refuses_what_leads_there() {
    for host in ["cnn-egress-gateway-istio", "*"] {
        let target = format!("kind: Hostname, name: '{host}.default.svc.cluster.local'");
        let policy = POLICY.replace("kind: ServiceEntry, name: cnn, sectionName: https", &target);
        let texts = [ENTRY, GATEWAY, TO_GATEWAY, FROM_GATEWAY, &policy];
        let decided = Gateway::new(&texts, "").get(80, HOST, "/");
        assert_eq!(reason(decided), Reason::InvalidRoute, "{host}");
    }
}

/// A cluster's gateways read Secrets of their own namespace alone.
#[test]
fn in_a_cluster_credentials_are_those_of_the_gateways_namespace() {
    let world = |text: &str| {
        let discovered = crate::config::Discovered {
            gateways: Some(Default::default()),
            ..crate::config::Discovered::default()
        };
        let files: Vec<_> = [ENTRY, GATEWAY, TO_GATEWAY, FROM_GATEWAY, text]
            .iter()
            .map(|text| crate::config::testing::file("a.yaml", text))
            .collect();
        let mesh = crate::config::testing::file("mesh.yaml", crate::config::testing::MESH);
        let compiled = crate::config::compile_in(&discovered, &files, Some(&mesh)).unwrap();
        compiled.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let with = |kind: &str| {
        let roots = format!("caCertificateRefs: [{{group: '', kind: {kind}, name: roots}}]");
        POLICY.replace("wellKnownCACertificates: System", &roots)
    };
    // A ConfigMap is of the policy's own namespace.
    assert!(!world(&with("ConfigMap")).contains("refused"), "{}", world(&with("ConfigMap")));
    assert!(
        world(&with("Secret"))
            .contains("gateways read Secrets of their own namespace (istio-system)")
    );
    assert!(!world(POLICY).contains("refused"), "{}", world(POLICY));
}

#[test]
fn addresses_choose_the_gateway() {
    let more = "- service: other.istio-system.svc.cluster.local\n  labels: {istio: other}\n  endpoints: [192.0.2.20]\n";
    let mesh = |more: &str| {
        let (head, tail) = crate::config::testing::MESH.split_once("workloads:").unwrap();
        format!("{head}{more}workloads:{tail}")
    };
    for (addresses, selector) in [
        ("", "egressgateway"),
        ("  addresses: [{type: Hostname, value: other.istio-system.svc.cluster.local}]\n", "other"),
        ("  addresses: [{value: 192.0.2.20}]\n", "other"),
        ("  addresses: [{type: Hostname, value: none}]\n", ""),
        ("  addresses: [{type: NamedAddress, value: other}]\n", ""),
    ] {
        let gateway = format!("{GATEWAY}{addresses}");
        let files = [crate::config::testing::file("a.yaml", &gateway)];
        let settings = crate::config::testing::file("mesh.yaml", &mesh(more));
        let compiled = crate::config::compile(&files, Some(&settings)).unwrap();
        let servers = &compiled.snapshot.rules.servers;
        let found = servers.first().map_or("", |server| server.selector["istio"].as_str());
        assert_eq!(found, selector, "{addresses}");
        let told = compiled.warnings.iter().any(|problem| problem.code == Some("IST0101"));
        assert_eq!(told, selector.is_empty(), "{addresses}: {:?}", compiled.warnings);
    }
    // A service of its own is found by its name.
    let own = "- service: cnn-egress-gateway-istio.default.svc.cluster.local\n  labels: {own: yes-it-is}\n  endpoints: \
               [192.0.2.30]\n";
    let files = [ENTRY, GATEWAY, TO_GATEWAY, FROM_GATEWAY]
        .map(|text| crate::config::testing::file("a.yaml", text));
    let settings = crate::config::testing::file("mesh.yaml", &mesh(own));
    let compiled = crate::config::compile(&files, Some(&settings)).unwrap();
    assert!(matches!(
        compiled.snapshot.node.routes[0].action,
        NodeAction::Redirect { group: 1, .. }
    ));
}

/// Nobody attaches an Istio resource to a listener past its `allowedRoutes`.
#[test]
fn a_virtual_service_cannot_name_a_listener() {
    let service = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: {hosts: \
                   [edition.cnn.com], gateways: [default/cnn-egress-gateway/http], http: [{route: [{destination: \
                   {host: edition.cnn.com, port: {number: 80}}}]}]}\n";
    let texts = [ENTRY, GATEWAY, TO_GATEWAY, service];
    let gateway = Gateway::new(&texts, "");
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::NoMatchingRule);
    assert!(
        problems(&texts, "").iter().any(|problem| problem.message.contains("there is no Gateway"))
    );
}

/// The first kind of routes alone is not enough: versions that no release serves are errors, as for Istio's kinds.
#[test]
fn versions_are_those_that_releases_serve() {
    for (kind, version, known) in [
        ("HTTPRoute", "v1", true),
        ("HTTPRoute", "v1beta1", true),
        ("HTTPRoute", "v1alpha2", false),
        ("TLSRoute", "v1", true),
        ("TLSRoute", "v1alpha3", true),
        ("TCPRoute", "v1alpha2", true),
        ("BackendTLSPolicy", "v1alpha3", true),
        ("ReferenceGrant", "v1beta1", true),
        ("GRPCRoute", "v1", true),
        ("Gateway", "v1beta1", true),
        ("Gateway", "v1alpha1", false),
        ("UDPRoute", "v1", true),
        ("GatewayClass", "v1", true),
    ] {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"
        );
        assert_eq!(compile_with(&[&text], "").is_ok(), known, "{kind} {version}");
    }
}

/// The endpoints stay those of the service entry.
#[test]
fn a_backend_is_reached_as_its_service_entry_says() {
    let gateway = Gateway::new(&task(FROM_GATEWAY), "");
    let route = gateway.get(80, HOST, "/").unwrap();
    let names = match &route.cluster.discovery {
        Discovery::Dns(names) => {
            names.iter().map(|(host, port)| format!("{host}:{port}")).collect()
        }
        other @ (Discovery::Static(_) | Discovery::Request(_)) => vec![format!("{other:?}")],
    };
    assert_eq!(names, ["edition.cnn.com:80"]);
}

/// Without names a `TLSRoute` is for those of its parents, as the Gateway API has it; only its oldest version may say so.
#[test]
fn a_tls_route_without_hostnames_is_for_the_names_of_its_parents() {
    let names = "  hostnames:\n  - edition.cnn.com\n";
    assert!(PASSTHROUGH.contains(names));
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: cnn, namespace: default}\n\
                 spec: {hosts: [edition.cnn.com, www.cnn.com], resolution: DNS, \
                 ports: [{number: 443, name: tls, protocol: TLS}]}\n";
    for (version, warned) in [("v1alpha2", 0), ("v1alpha3", 2), ("v1", 2)] {
        for names in [names, "  hostnames: []\n", ""] {
            let routes = PASSTHROUGH
                .replace("/v1alpha2", &format!("/{version}"))
                .replace("  hostnames:\n  - edition.cnn.com\n", names);
            let gateway = Gateway::new(&[entry, &routes], "");
            let route = gateway.tls(443, HOST).unwrap();
            assert_eq!(&*route.cluster.name.0, "outbound|443||edition.cnn.com");
            // The listener is for one name, whatever the route says.
            assert!(gateway.tls(443, "www.cnn.com").is_err());
            let all = problems(&[entry, &routes], "");
            let about =
                |problem: &&Problem| problem.message.contains("API server refuses a TLSRoute");
            let told: Vec<_> = all.iter().filter(about).collect();
            // The one for the mesh has none.
            let expected = if names.contains("edition") { warned / 2 } else { warned };
            assert_eq!(told.len(), expected, "{version} {names:?}: {all:#?}");
            for problem in told {
                assert_eq!(problem.field.as_deref(), Some("spec.hostnames"), "{problem}");
                assert_eq!(problem.severity, Severity::Warning, "{problem}");
            }
        }
    }
}
