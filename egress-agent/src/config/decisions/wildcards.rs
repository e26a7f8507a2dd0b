//! Hosts that begin with a `*`.

use egress_ebpf::reason::Reason;

use crate::{
    config::testing::{Gateway, compiled, errors, problems},
    policy::NodeAction,
};

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

/// The hosts of the table below, and one that no rule is for.
const SERVICES: [&str; 4] = ["a.example", "xa.example", "x.a.example", "b.test"];
/// Which of [`SERVICES`] a virtual service with a host is for, as Istio's `host.Name` compares them.
const RULED: [(&str, [bool; 4]); 6] = [
    ("a.example", [true, false, false, false]),
    ("*a.example", [true, true, true, false]),
    ("*.a.example", [false, false, true, false]),
    ("*-a.example", [false, false, false, false]),
    ("*example", [true, true, true, false]),
    ("*.example", [true, true, true, false]),
];
const SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";

fn services(port: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: apps}}\n\
         spec: {{hosts: [{}], resolution: DNS, ports: [{port}]}}\n",
        SERVICES.join(", ")
    )
}

fn route(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: apps}}\n\
         spec: {spec}\n"
    )
}

/// Rules of a `VirtualService` that restrict hold for every host that Istio applies them to: at the mesh, and where they
/// lead to a gateway, whose server names the host itself or any.
#[test]
fn a_virtual_service_within_a_label_is_for_the_name_itself() {
    let http = services("{number: 80, name: h, protocol: HTTP}");
    let to_b = "route: [{destination: {host: b.test, port: {number: 80}}}]";
    for (host, ruled) in RULED {
        let at_mesh = route("r", &format!("{{hosts: ['{host}'], http: [{{{to_b}}}]}}"));
        let at_gateway = route(
            "r",
            &format!(
                "{{hosts: ['{host}'], gateways: [mesh, egress], http: [\
                 {{match: [{{gateways: [mesh]}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 8080}}}}}}]}}, \
                 {{match: [{{gateways: [egress]}}], {to_b}}}]}}"
            ),
        );
        let gateway = |hosts: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: egress, namespace: apps}}\n\
                 spec: {{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 8080, name: h, protocol: HTTP}}, \
                 hosts: [{hosts}]}}]}}\n"
            )
        };
        for texts in [
            [&http, &at_mesh, ""],
            [&http, &at_gateway, &gateway("'*'")],
            [&http, &at_gateway, &gateway("a.example, xa.example, x.a.example, b.test")],
        ] {
            let gateway = Gateway::new(&texts, "direct: registry\n");
            let found = SERVICES.map(|asked| {
                let route = gateway.get(80, asked, "/").unwrap();
                route.cluster.name.0.ends_with("||b.test")
            });
            // Without a rule each is sent to itself.
            let expected = [ruled[0], ruled[1], ruled[2], true];
            assert_eq!(found, expected, "{host} {texts:?}");
        }
        // An exact name is more specific than every other.
        let own = route(
            "own",
            "{hosts: [a.example], http: [{route: [{destination: {host: xa.example, port: {number: 80}}}]}]}",
        );
        if host != "a.example" {
            let gateway = Gateway::new(&[&http, &at_mesh, &own], "direct: registry\n");
            let chosen = gateway.get(80, "a.example", "/").unwrap().cluster.name.0.to_string();
            assert_eq!(chosen, "outbound|80||xa.example", "{host}");
        }
    }
}

/// A rule for server names is for the same ones, and no such port is opened past the gateway that it leads to.
#[test]
fn server_names_within_a_label_are_for_the_name_itself() {
    let tls = services("{number: 443, name: t, protocol: TLS}");
    for (host, ruled) in RULED {
        let spec = format!(
            "{{hosts: ['{host}'], tls: [{{match: [{{sniHosts: ['{host}'], port: 443}}], \
             route: [{{destination: {{host: b.test, port: {{number: 443}}}}}}]}}]}}"
        );
        let gateway = Gateway::new(&[&tls, &route("r", &spec)], "direct: registry\n");
        let found = SERVICES.map(|asked| {
            let route = gateway.tls(443, asked).unwrap();
            route.cluster.name.0.ends_with("||b.test")
        });
        assert_eq!(found, [ruled[0], ruled[1], ruled[2], true], "{host}");

        let spec = spec
            .replace("b.test, port: {number: 443}", &format!("{SERVICE}, port: {{number: 443}}"));
        let opened = compiled(&[&tls, &route("r", &spec)], "direct: registry\n");
        let opened = opened.snapshot.node.routes.iter();
        let opened = opened.filter(|route| route.action == NodeAction::Direct).count();
        assert_eq!(opened, ruled.iter().filter(|ruled| !**ruled).count(), "{host}");
    }
}

/// What `check` says of such hosts.
#[test]
fn what_is_said_of_hosts_within_a_label_fits_what_they_are_for() {
    let entry = |host: &str| {
        entry(host).replace("  ports:", "  resolution: DNS\n  ports:").replace("HTTP", "TLS")
    };
    let tls = |hosts: &str, name: &str| {
        format!(
            "{{hosts: [{hosts}], tls: [{{match: [{{sniHosts: ['{name}'], port: 80}}], \
             route: [{{destination: {{host: a.example}}}}]}}]}}"
        )
    };
    for (spec, expected) in [
        (tls("'*a.example'", "a.example"), None),
        (tls("'*a.example'", "*a.example"), None),
        (tls("'*.a.example'", "a.example"), Some("isn't within the VirtualService's hosts")),
        (tls("a.example", "*a.example"), Some("isn't within the VirtualService's hosts")),
        (tls("'*a.example', a.example", "a.example"), Some("it overlaps with *a.example")),
        (tls("a.example, '*a.example'", "a.example"), Some("it overlaps with a.example")),
        (tls("'*-a.example', a.example", "a.example"), Some("no ServiceEntry has *-a.example")),
    ] {
        let found = problems(&[&entry("a.example"), &route("r", &spec)], "direct: registry\n");
        let said: Vec<_> = found.iter().map(|found| found.message.as_str()).collect();
        match expected {
            // The name itself is the only one that the registry has.
            None => {
                let fits = |said: &&str| said.contains("have single hosts of *a.example alone");
                assert!(said.iter().all(fits), "{spec}: {said:?}");
            }
            Some(expected) => {
                assert!(said.iter().any(|said| said.contains(expected)), "{spec}: {said:?}");
            }
        }
    }
}

/// A service that is declared so has longer names alone: Envoy finds no virtual host for the name itself, and neither
/// sends it anywhere.
#[test]
fn a_service_entry_within_a_label_does_not_allow_the_name_itself() {
    let gateway = Gateway::new(&[&entry("*a.example")], "direct: registry\n");
    let ask = |host: &str| gateway.get(80, host, "/").map_err(|denied| denied.reason).map(drop);
    for host in ["xa.example", "x.a.example"] {
        assert_eq!(ask(host), Ok(()), "{host}");
    }
    for host in ["a.example", "b.test"] {
        assert_eq!(ask(host), Err(Reason::HostNotInRegistry), "{host}");
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
