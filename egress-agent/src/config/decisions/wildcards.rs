//! Hosts that begin with a `*`.

use egress_ebpf::reason::Reason;

use crate::config::testing::{Gateway, errors, problems};

fn entry(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: apps}}\nspec:\n  \
         hosts: ['{host}']\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n"
    )
}

/// Suffixes within a label, as Envoy's virtual hosts take them.
#[test]
fn a_wildcard_may_begin_within_a_label() {
    let gateway = Gateway::new(&[&entry("*-pay.a.example")], "direct: registry\n");
    let ask = |host: &str| gateway.get(80, host, "/").map(|route| route.cluster.name.to_string());
    let own = "outbound|80||*-pay.a.example";
    assert_eq!(ask("de-pay.a.example").unwrap(), own);
    assert_eq!(ask("x.de-pay.a.example").unwrap(), own);
    for other in ["pay.a.example", "de-pay.a.example.evil.example", "depay.a.example"] {
        assert!(ask(other).is_err(), "{other}");
    }
    // The longer suffix is the more exact one.
    let both = [entry("*pay.a.example"), entry("*.a.example").replace("name: e", "name: f")];
    let gateway = Gateway::new(&[&both[0], &both[1]], "direct: registry\n");
    let ask = |host: &str| gateway.get(80, host, "/").map(|route| route.cluster.name.to_string());
    assert_eq!(ask("de-pay.a.example").unwrap(), "outbound|80||*pay.a.example");
    assert_eq!(ask("de.a.example").unwrap(), "outbound|80||*.a.example");
}

/// Istio compares the ends of names to find a rule: `*a.example` is for `a.example`, too, and what it asks for holds
/// there. A longer name of a rule comes before a shorter one.
#[test]
fn a_rule_within_a_label_is_for_the_name_itself() {
    const TLS: &str = "{tls: {mode: SIMPLE}}";
    const OTHER: &str = "{loadBalancer: {simple: RANDOM}}";
    const REFUSED: Result<bool, Reason> = Err(Reason::TlsPolicyUnavailable);
    let entry = entry("a.example").replace("  ports:", "  resolution: DNS\n  ports:");
    for (rules, expected) in [
        (&[("*a.example", TLS)][..], Ok(true)),
        (&[("*.a.example", TLS)], Ok(false)),
        (&[("*-a.example", TLS)], Ok(false)),
        (&[("*example", TLS)], Ok(true)),
        (&[("*a.example", TLS), ("*.example", OTHER)], Ok(true)),
        (&[("*a.example", OTHER), ("*.example", TLS)], REFUSED),
        (&[("*a.example", TLS), ("a.example", OTHER)], REFUSED),
        (&[("a.example", TLS), ("*a.example", OTHER)], Ok(true)),
        (&[("*a.example", OTHER)], Ok(false)),
    ] {
        let rule = |(number, (host, policy)): (usize, &(&str, &str))| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r{number}, namespace: apps}}\n\
                 spec: {{host: '{host}', trafficPolicy: {policy}}}\n"
            )
        };
        let mut texts = vec![entry.clone()];
        texts.extend(rules.iter().enumerate().map(rule));
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let route = Gateway::new(&texts, "direct: registry\n").get(80, "a.example", "/");
        let is_tls = route.map(|route| route.cluster.tls.is_some());
        assert_eq!(is_tls.map_err(|denied| denied.reason), expected, "{rules:?}");
        // Who has no effect is told so, and nobody else.
        let found = problems(&texts, "direct: registry\n");
        let idle = found.iter().filter(|found| found.code == Some("IST0174")).count();
        let expected =
            rules.iter().filter(|(host, _)| ["*.a.example", "*-a.example"].contains(host));
        assert_eq!(idle, expected.count(), "{rules:?}: {found:?}");
    }
}

#[test]
fn gateways_and_egress_policies_take_whole_labels() {
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: apps}\nspec: \
                   {selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*.a.example']}]}\n";
    let policy = "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: apps}\n\
                  spec: {rules: [{hosts: ['*.a.example'], ports: [{port: 80, protocol: HTTP}]}]}\n";
    for text in [gateway, policy] {
        assert!(!errors(&[text]).iter().any(|found| found.message.contains("whole labels")));
        let partial = text.replace("*.a", "*a");
        let found = errors(&[&partial]);
        assert!(found.iter().any(|found| found.message.contains("whole labels")), "{found:?}");
    }
}

const EN: &str = "en.wiki.example";

/// One server of the registry, and rules that lead all names below its domain there.
fn one_server(entry: &str, route: &str, to: &str) -> [String; 3] {
    let resource = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: apps}}\nspec: {spec}\n"
        )
    };
    let rule = |place: &str, to: &str| {
        format!(
            "{{match: [{{gateways: [{place}], port: 443, sniHosts: ['*.wiki.example']}}], \
             route: [{{destination: {{host: '{to}', port: {{number: 443}}}}}}]}}"
        )
    };
    let tls =
        [rule("mesh", "istio-egressgateway.istio-system.svc.cluster.local"), rule("egress", to)];
    let servers = "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: tls, protocol: TLS}, \
                   hosts: ['*.wiki.example'], tls: {mode: PASSTHROUGH}}]}";
    [
        resource(
            "ServiceEntry",
            "www",
            &format!("{{hosts: [www.wiki.example], resolution: DNS, {entry}}}"),
        ),
        resource("Gateway", "egress", servers),
        resource(
            "VirtualService",
            "wiki",
            &format!(
                "{{hosts: ['*.wiki.example'], gateways: [mesh, egress], {route}tls: [{}]}}",
                tls.join(", ")
            ),
        ),
    ]
}

/// As in Istio's task, the names need no entry of their own. Only the rule reaches them.
#[test]
fn a_rule_leads_names_without_an_entry_to_one_server() {
    const PORT: &str = "ports: [{number: 443, name: tls, protocol: HTTPS}]";
    const WWW: &str = "www.wiki.example";
    let exported = format!("{PORT}, exportTo: ['.']");
    for (entry, route, to, served) in [
        (PORT, "", WWW, true),
        // Whoever sees the rule has to see the server.
        (exported.as_str(), "", WWW, false),
        // The server has no such port, or it is none of TLS.
        ("ports: [{number: 8443, name: tls, protocol: HTTPS}]", "", WWW, false),
        ("ports: [{number: 443, name: tls, protocol: HTTP}]", "", WWW, false),
        // No rule leads to a server.
        (PORT, "", "*.wiki.example", false),
        // Strangers see no rule that is for one namespace.
        (exported.as_str(), "exportTo: ['.'], ", WWW, false),
    ] {
        let texts = one_server(entry, route, to);
        let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "direct: registry\n");
        let ask = |name: &str| gateway.tls(443, name).map(|route| route.cluster.name.to_string());
        let answer = ask(EN).map_err(|denied| denied.reason);
        let expected = if served {
            Ok("outbound|443||www.wiki.example".to_owned())
        } else {
            Err(Reason::HostNotInRegistry)
        };
        assert_eq!(answer, expected, "{entry} {route} {to}");
        for other in ["wiki.example", "en.other.example"] {
            let denied = ask(other).expect_err(other);
            assert_eq!(denied.reason, Reason::HostNotInRegistry, "{other}");
        }
        let found = problems(&texts.each_ref().map(String::as_str), "direct: registry\n");
        let told = found.iter().any(|problem| problem.message.contains("host_not_in_registry"));
        assert!(!served || !told, "{found:?}");
    }
}

/// A pod of the namespace sees what is for its namespace.
#[test]
fn names_without_an_entry_are_for_those_who_see_the_rule() {
    let port = "ports: [{number: 443, name: tls, protocol: TLS}], exportTo: ['.']";
    let texts = one_server(port, "exportTo: ['.'], ", "www.wiki.example");
    let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "direct: registry\n");
    let of = |address: &str| gateway.tls_from(&gateway.source(address), 443, EN);
    assert_eq!(&*of("10.0.0.5").unwrap().cluster.name.0, "outbound|443||www.wiki.example");
    assert_eq!(of("10.9.9.9").unwrap_err().reason, Reason::HostNotInRegistry);
}
