//! A field that isn't supported draws one message, which names it and says why: nothing follows about what it
//! would have said.

use std::collections::BTreeSet;

use crate::config::{Severity, testing::problems};

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: apps}
spec:
  hosts: [a.example]
  addresses: [198.51.100.1]
  resolution: DNS
  ports:
  - {number: 80, name: h, protocol: HTTP}
  - {number: 443, name: t, protocol: TLS}
  - {number: 5432, name: d, protocol: TCP}
";

/// Kind, field, and a resource in which nothing else is wrong.
const CASES: [(&str, &str, &str); 24] = [
    (
        "ServiceEntry",
        "spec.workloadSelector",
        "{hosts: [w.example], resolution: STATIC, ports: [{number: 80, name: h, protocol: HTTP}], workloadSelector: {labels: {app: a}}}",
    ),
    (
        "ServiceEntry",
        "spec.endpoints[].network",
        "{hosts: [w.example], resolution: STATIC, ports: [{number: 80, name: h, protocol: HTTP}], endpoints: [{address: 198.51.100.2, network: n}]}",
    ),
    (
        "ServiceEntry",
        "spec.endpoints[].serviceAccount",
        "{hosts: [w.example], resolution: STATIC, ports: [{number: 80, name: h, protocol: HTTP}], endpoints: [{address: 198.51.100.2, serviceAccount: s}]}",
    ),
    (
        "Gateway",
        "spec.servers[].port.targetPort",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP, targetPort: 8080}, hosts: [a.example]}]}",
    ),
    (
        "Gateway",
        "spec.servers[].bind",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example], bind: 192.0.2.10}]}",
    ),
    (
        "Gateway",
        "spec.servers[].defaultEndpoint",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example], defaultEndpoint: '127.0.0.1:80'}]}",
    ),
    (
        "Gateway",
        "spec.servers[].tls.insecureSkipVerify",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: c, insecureSkipVerify: true}}]}",
    ),
    // What the field would have named is not said to be missing.
    (
        "Gateway",
        "spec.servers[].tls.caCertCredentialName",
        "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a.example], tls: {mode: MUTUAL, serverCertificate: /c.pem, privateKey: /k.pem, caCertCredentialName: c}}]}",
    ),
    ("DestinationRule", "loadBalancer.zoneAwareLbSetting", "{enabled: true}"),
    ("DestinationRule", "connectionPool.http.http2KeepAlive", "{interval: 1s}"),
    ("DestinationRule", "outlierDetection.outlierDetectionHttpErrorCodes", "[500]"),
    ("DestinationRule", "outlierDetection.interval", "1s"),
    ("DestinationRule", "outlierDetection.minHealthPercent", "50"),
    ("DestinationRule", "retryBudget.budgetInterval", "1s"),
    (
        "VirtualService",
        "spec.http[].match[].statPrefix",
        "{hosts: [a.example], http: [{match: [{uri: {prefix: /}, statPrefix: s}], route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.http[].retries.retryRemoteLocalities",
        "{hosts: [a.example], http: [{retries: {attempts: 1, retryRemoteLocalities: true}, route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.http[].retries.retryIgnorePreviousHosts",
        "{hosts: [a.example], http: [{retries: {attempts: 1, retryIgnorePreviousHosts: true}, route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    // Nor is another way to say it asked for.
    (
        "VirtualService",
        "spec.http[].fault.abort.http2Error",
        "{hosts: [a.example], http: [{fault: {abort: {http2Error: NO_ERROR, percentage: {value: 1}}}, route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.http[].route[].destination.port.name",
        "{hosts: [a.example], http: [{route: [{destination: {host: a.example, port: {name: h}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.http[].mirror.port.name",
        "{hosts: [a.example], http: [{mirror: {host: a.example, port: {name: h}}, route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.http[].mirrors[].destination.port.name",
        "{hosts: [a.example], http: [{mirrors: [{destination: {host: a.example, port: {name: h}}}], route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.tls[].match[].sourceSubnet",
        "{hosts: [a.example], tls: [{match: [{sniHosts: [a.example], port: 443, sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: a.example, port: {number: 443}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.tls[].route[].destination.port.name",
        "{hosts: [a.example], tls: [{match: [{sniHosts: [a.example], port: 443}], route: [{destination: {host: a.example, port: {name: t}}}]}]}",
    ),
    (
        "VirtualService",
        "spec.tcp[].route[].destination.port.name",
        "{hosts: [a.example], tcp: [{match: [{port: 5432}], route: [{destination: {host: a.example, port: {name: d}}}]}]}",
    ),
];

/// `a.b.c: value` as nested mappings.
fn nested(path: &str, value: &str) -> String {
    match path.split_once('.') {
        Some((first, rest)) => format!("{first}: {{{}}}", nested(rest, value)),
        None => format!("{path}: {value}"),
    }
}

/// All cases: a field of a traffic policy is one of three.
fn cases() -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    for (kind, field, text) in CASES {
        if kind != "DestinationRule" {
            all.push((kind, field.to_owned(), text.to_owned()));
            continue;
        }
        let policy = nested(field, text);
        let port = format!("portLevelSettings: [{{port: {{number: 80}}, {policy}}}]");
        let (own, of_port) = ("", "portLevelSettings[].");
        // A port has no budget of its own.
        let both = [(own, policy), (of_port, port)];
        for (within, policy) in &both[..if field.starts_with("retryBudget") { 1 } else { 2 }] {
            let rule = format!("{{host: a.example, trafficPolicy: {{{policy}}}}}");
            all.push((kind, format!("spec.trafficPolicy.{within}{field}"), rule));
            let rule =
                format!("{{host: a.example, subsets: [{{name: s, trafficPolicy: {{{policy}}}}}]}}");
            all.push((kind, format!("spec.subsets[].trafficPolicy.{within}{field}"), rule));
        }
    }
    let name = "portLevelSettings: [{port: {name: h}, tls: {mode: SIMPLE}}]";
    for (field, rule) in [
        ("spec", format!("{{host: a.example, trafficPolicy: {{{name}}}}}")),
        (
            "spec.subsets[]",
            format!("{{host: a.example, subsets: [{{name: s, trafficPolicy: {{{name}}}}}]}}"),
        ),
    ] {
        let field = format!("{field}.trafficPolicy.portLevelSettings[].port.name");
        all.push(("DestinationRule", field, rule));
    }
    all
}

/// What the reference says isn't supported of Istio's four kinds: kind, field, and whether it is refused.
fn listed() -> BTreeSet<(String, String, bool)> {
    let page = include_str!("../../../../docs/reference/istio-fields.md");
    let mut listed = BTreeSet::new();
    for section in page.split("\n## ").skip(1) {
        let (kind, rows) = section.split_once('\n').unwrap();
        if !["ServiceEntry", "Gateway", "DestinationRule", "VirtualService"].contains(&kind) {
            continue;
        }
        for row in rows.lines() {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let [_, field, what @ ("refused" | "ignored"), ..] = cells[..] else { continue };
            let field = field.trim_matches('`').to_owned();
            listed.insert((kind.to_owned(), field, what == "refused"));
        }
    }
    listed
}

#[test]
fn each_draws_one_message_that_names_it() {
    let listed = listed();
    let mut shown = BTreeSet::new();
    for (kind, field, spec) in cases() {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: apps}}\nspec: {spec}\n"
        );
        let found = problems(&[ENTRY, &text], "direct: registry\n");
        let [problem] = &found[..] else { panic!("{field}: {found:#?}") };
        let place = (problem.file.as_str(), problem.line, problem.field.as_deref());
        let told = problem.field.clone().unwrap_or_default().replace("[0]", "[]");
        assert_eq!(told, field, "{problem}");
        assert_eq!((place.0, place.1), ("2.yaml", Some(4)), "{problem}");
        let refused = problem.severity != Severity::Warning;
        let begins = if refused { "not supported: " } else { "has no effect: " };
        assert!(problem.message.starts_with(begins), "{problem}");
        shown.insert((kind.to_owned(), field, refused));
    }
    assert_eq!(shown, listed);
    assert!(listed.len() > 30, "{}", listed.len());
}

/// The twin: where the same is missing and no such field stands for it, it is said to be.
#[test]
fn what_is_missing_is_named_where_nothing_stands_for_it() {
    for (kind, spec, expected) in [
        (
            "VirtualService",
            "{hosts: [a.example], http: [{fault: {abort: {percentage: {value: 1}}}, route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
            "no status is given",
        ),
        (
            "VirtualService",
            "{hosts: [a.example], http: [{route: [{destination: {host: a.example}}]}]}",
            "has several ports",
        ),
        (
            "Gateway",
            "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a.example], tls: {mode: MUTUAL, serverCertificate: /c.pem, privateKey: /k.pem}}]}",
            "needs the roots",
        ),
        (
            "Gateway",
            "{selector: {istio: egressgateway}, servers: [{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: c, cipherSuites: [AES128-SHA]}}]}",
            "AES128-SHA is not spoken",
        ),
    ] {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: apps}}\nspec: {spec}\n"
        );
        let found = problems(&[ENTRY, &text], "direct: registry\n");
        let [problem] = &found[..] else { panic!("{spec}: {found:#?}") };
        assert!(problem.message.contains(expected), "{problem}");
    }
}
