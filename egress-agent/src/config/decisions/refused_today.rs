//! What a current API server refuses of a resource, and older ones took: it is in force here, with a warning.

use crate::config::{
    Severity,
    testing::{compiled, problems},
};

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: apps}
spec: {hosts: [a.example], resolution: DNS, ports: [{number: 80, name: h, protocol: HTTP}, {number: 443, name: t, protocol: TLS}]}
";

fn resource(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: x, namespace: apps}}\nspec: {spec}\n"
    )
}

/// The warnings about the resource itself.
fn warnings(text: &str) -> Vec<String> {
    let compiled = compiled(&[ENTRY, text], "direct: registry\n");
    let own = compiled.warnings.iter().filter(|problem| problem.file == "2.yaml");
    own.filter(|problem| problem.severity == Severity::Warning)
        .map(|problem| problem.message.clone())
        .collect()
}

/// A rule for HTTP, with more of it.
fn http(more: &str) -> String {
    let to = "route: [{destination: {host: a.example, port: {number: 80}}}]";
    resource("VirtualService", &format!("{{hosts: [a.example], http: [{{{to}{more}}}]}}"))
}

fn gateway(port: &str, hosts: &str) -> String {
    resource(
        "Gateway",
        &format!(
            "{{selector: {{istio: egressgateway}}, servers: [{{port: {{{port}}}, hosts: {hosts}}}]}}"
        ),
    )
}

fn rule(policy: &str) -> String {
    resource("DestinationRule", &format!("{{host: a.example, trafficPolicy: {policy}}}"))
}

/// Two servers, of which the second one's port has this name.
fn two_servers(second: &str) -> String {
    let server = |number: u16, name: &str| {
        format!("{{port: {{number: {number}, name: {name}, protocol: HTTP}}, hosts: [a.example]}}")
    };
    let servers = format!("{}, {}", server(80, "h"), server(81, second));
    resource("Gateway", &format!("{{selector: {{istio: egressgateway}}, servers: [{servers}]}}"))
}

/// What is written for TLS and has none is said to be without it.
#[test]
fn settings_of_tls_without_a_mode_are_warned_of() {
    let expected = "has no effect with mode DISABLE, which is the default";
    let says = |text: &str| warnings(text).iter().filter(|text| text.contains(expected)).count();
    for field in [
        "sni: a.example",
        "caCertificates: /ca.pem",
        "clientCertificate: /c.pem, privateKey: /k.pem",
        "credentialName: c",
        "caCrl: /crl.pem",
        "subjectAltNames: [a.example]",
        "insecureSkipVerify: true",
    ] {
        for mode in ["", "mode: DISABLE, "] {
            assert_eq!(says(&rule(&format!("{{tls: {{{mode}{field}}}}}"))), 1, "{mode}{field}");
        }
    }
    for tls in ["{mode: DISABLE}", "{}", "{mode: SIMPLE, sni: a.example}"] {
        assert_eq!(says(&rule(&format!("{{tls: {tls}}}"))), 0, "{tls}");
    }
}

/// What says how to verify a certificate contradicts what says not to.
#[test]
fn nothing_is_verified_and_something_is_a_contradiction() {
    let all =
        |tls: &str| problems(&[ENTRY, &rule(&format!("{{tls: {tls}}}"))], "direct: registry\n");
    let skip = "insecureSkipVerify: true";
    for tls in [
        format!("{{mode: SIMPLE, {skip}, caCertificates: /ca.pem}}"),
        format!("{{mode: SIMPLE, {skip}, caCrl: /crl.pem}}"),
        format!("{{mode: SIMPLE, {skip}, subjectAltNames: [a.example]}}"),
        format!("{{mode: SIMPLE, {skip}, credentialName: c}}"),
        format!(
            "{{mode: MUTUAL, {skip}, clientCertificate: /c, privateKey: /k, caCertificates: /ca.pem}}"
        ),
    ] {
        let found: Vec<_> =
            all(&tls).into_iter().filter(|p| p.severity == Severity::Error).collect();
        let [problem] = &found[..] else { panic!("{tls}: {found:?}") };
        assert!(
            problem.to_string().contains("insecureSkipVerify: true verifies nothing"),
            "{problem}"
        );
    }
    for tls in [
        format!("{{mode: SIMPLE, {skip}}}"),
        format!("{{mode: SIMPLE, {skip}, sni: a.example}}"),
        format!("{{mode: MUTUAL, {skip}, clientCertificate: /c, privateKey: /k}}"),
        format!("{{mode: MUTUAL, {skip}, credentialName: c}}"),
        "{mode: SIMPLE, insecureSkipVerify: false, caCertificates: /ca.pem}".to_owned(),
    ] {
        assert!(all(&tls).iter().all(|problem| problem.severity == Severity::Warning), "{tls}");
    }
}

/// Every duration of Istio's four kinds that is in force here: below 1ms, with a part of a millisecond, at 1ms, and
/// what `check` says of the first two. Istio's validation and its definitions refuse both; one that would stop all traffic,
/// or has no meaning, is an error.
#[test]
fn durations_that_istio_refuses_are_refused_or_warned_of() {
    const WARNED: &str = "refuses durations below 1ms";
    const PARTS: &str = "refuses parts of a millisecond";
    const LEAST: &str = "expected at least 1ms";
    type Written<'w> = &'w dyn Fn(&str) -> String;
    let durations: [(Written<'_>, &str); 11] = [
        (&|time| http(&format!(", timeout: {time}")), WARNED),
        (&|time| http(&format!(", retries: {{attempts: 1, perTryTimeout: {time}}}")), WARNED),
        (&|time| http(&format!(", retries: {{attempts: 1, backoff: {time}}}")), LEAST),
        (
            &|time| {
                http(&format!(
                    ", fault: {{delay: {{fixedDelay: {time}, percentage: {{value: 1}}}}}}"
                ))
            },
            WARNED,
        ),
        (
            &|time| {
                http(&format!(
                    ", fault: {{delay: {{exponentialDelay: {time}, percentage: {{value: 1}}}}}}"
                ))
            },
            WARNED,
        ),
        (&|time| rule(&format!("{{connectionPool: {{tcp: {{connectTimeout: {time}}}}}}}")), LEAST),
        (&|time| rule(&format!("{{connectionPool: {{tcp: {{idleTimeout: {time}}}}}}}")), WARNED),
        (
            &|time| {
                rule(&format!("{{connectionPool: {{tcp: {{maxConnectionDuration: {time}}}}}}}"))
            },
            LEAST,
        ),
        (&|time| rule(&format!("{{connectionPool: {{http: {{idleTimeout: {time}}}}}}}")), WARNED),
        (&|time| rule(&format!("{{outlierDetection: {{baseEjectionTime: {time}}}}}")), WARNED),
        (&|time| rule(&format!("{{loadBalancer: {{warmup: {{duration: {time}}}}}}}")), LEAST),
    ];
    let said = |text: &str| {
        let found = problems(&[ENTRY, text], "direct: registry\n");
        let own = found.iter().filter(|problem| problem.file == "2.yaml");
        own.map(ToString::to_string).collect::<Vec<_>>()
    };
    for (of, short) in durations {
        for (time, expected) in [
            ("0s", short),
            ("0.999ms", short),
            ("1us", short),
            ("1.5ms", PARTS),
            ("1000001us", PARTS),
        ] {
            let found = said(&of(time));
            assert!(found.iter().any(|said| said.contains(expected)), "{}: {found:?}", of(time));
        }
        for time in ["1ms", "0.002s", "2000us", "1500ms", "100.001s", "1h0.5s"] {
            let found = said(&of(time));
            let is_it =
                |said: &String| [WARNED, PARTS, LEAST].iter().any(|text| said.contains(text));
            assert!(!found.iter().any(is_it), "{}: {found:?}", of(time));
        }
        let negative = said(&of("-1s"));
        assert!(negative.iter().any(|said| said.contains("expected a duration")), "{negative:?}");
    }
    // Browsers count seconds.
    let cors = |time: &str| {
        http(&format!(", corsPolicy: {{allowOrigins: [{{exact: 'https://b'}}], maxAge: {time}}}"))
    };
    for (time, expected) in [
        ("0s", WARNED),
        ("0.5s", "expected whole seconds"),
        ("1ms", "expected whole seconds"),
        ("1.5s", "expected whole seconds"),
    ] {
        let found = said(&cors(time));
        assert!(found.iter().any(|said| said.contains(expected)), "{time}: {found:?}");
    }
    for time in ["1s", "24h", "1000ms"] {
        assert_eq!(said(&cors(time)), Vec::<String>::new(), "{time}");
    }
    // The old name of `warmup.duration`. The kernel counts seconds between probes.
    for (policy, expected) in [
        ("{loadBalancer: {warmupDurationSecs: 0s}}", LEAST),
        ("{loadBalancer: {warmupDurationSecs: 0.5ms}}", LEAST),
        ("{connectionPool: {tcp: {tcpKeepalive: {time: 1ms}}}}", "expected 1s to 32767s"),
        ("{connectionPool: {tcp: {tcpKeepalive: {interval: 0s}}}}", "expected 1s to 32767s"),
    ] {
        let found = said(&rule(policy));
        assert!(found.iter().any(|said| said.contains(expected)), "{policy}: {found:?}");
    }
}

#[test]
fn each_is_warned_of_and_its_current_form_is_not() {
    let many: Vec<_> = (0..257).map(|n| format!("h{n}.example")).collect();
    let many = format!("[{}]", many.join(", "));
    let named = "number: 80, name: h, protocol: HTTP";
    for (old, current, expected) in [
        (http(", websocketUpgrade: true"), http(""), "has no such field"),
        (
            http(", fault: {abort: {httpStatus: 500, percent: 1}}"),
            http(", fault: {abort: {httpStatus: 500, percentage: {value: 1}}}"),
            "an API server drops it",
        ),
        (
            http(", fault: {abort: {httpStatus: 500, percent: 1}}"),
            http(", fault: {delay: {fixedDelay: 1s, percent: 1}}"),
            "an API server drops it",
        ),
        (
            rule("{outlierDetection: {consecutiveErrors: 3}}"),
            rule("{outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 2}}"),
            "Istio ignores this field",
        ),
        (
            rule("{outlierDetection: {consecutiveErrors: 3, consecutive5xxErrors: 3}}"),
            rule("{outlierDetection: {consecutiveErrors: 0, consecutive5xxErrors: 3}}"),
            "has no effect beside consecutive5xxErrors",
        ),
        (http(", timeout: 0s"), http(", timeout: 1s"), "refuses durations below 1ms"),
        (http(", timeout: 1us"), http(", timeout: 1ms"), "refuses durations below 1ms"),
        (
            http(", retries: {attempts: 1, perTryTimeout: 0s}"),
            http(", retries: {attempts: 1, perTryTimeout: 1ms}"),
            "refuses durations below 1ms",
        ),
        (
            http(", fault: {delay: {fixedDelay: 0s, percentage: {value: 1}}}"),
            http(", fault: {delay: {fixedDelay: 1ms, percentage: {value: 1}}}"),
            "refuses durations below 1ms",
        ),
        (
            rule("{connectionPool: {tcp: {idleTimeout: 0s}}}"),
            rule("{connectionPool: {tcp: {idleTimeout: 1ms}}}"),
            "refuses durations below 1ms",
        ),
        (
            rule("{connectionPool: {http: {idleTimeout: 0s}}}"),
            rule("{connectionPool: {http: {idleTimeout: 1ms}}}"),
            "refuses durations below 1ms",
        ),
        (
            rule("{outlierDetection: {baseEjectionTime: 0s}}"),
            // The lifetime of a cookie may be none.
            rule("{loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}}}}"),
            "refuses durations below 1ms",
        ),
        (
            resource(
                "VirtualService",
                "{hosts: [a.example], http: [{redirect: {port: 8080, derivePort: FROM_REQUEST_PORT}}]}",
            ),
            resource("VirtualService", "{hosts: [a.example], http: [{redirect: {port: 8080}}]}"),
            "takes one of the two",
        ),
        (
            resource(
                "VirtualService",
                "{hosts: [a.example], tls: [{match: [{port: 443, sni_hosts: [a.example]}], route: [{destination: {host: a.example, port: {number: 443}}}]}]}",
            ),
            resource(
                "VirtualService",
                "{hosts: [a.example], tls: [{match: [{port: 443, sniHosts: [a.example]}], route: [{destination: {host: a.example, port: {number: 443}}}]}]}",
            ),
            "old spelling",
        ),
        (
            gateway("number: 80, protocol: HTTP", "['*']"),
            gateway(named, "['*']"),
            "port without a name",
        ),
        (gateway(named, "[]"), gateway(named, "['*']"), "list without hosts"),
        (
            resource("Gateway", "{selector: {istio: egressgateway}, servers: []}"),
            gateway(named, "['*']"),
            "a Gateway without servers",
        ),
        (two_servers("h"), two_servers("other"), "two ports of one name"),
        (gateway(named, &many), gateway(named, "['*']"), "more than 256 hosts"),
    ] {
        let says = |text: &str| warnings(text).iter().any(|message| message.contains(expected));
        assert!(says(&old), "{expected}: {:?}", warnings(&old));
        assert!(!says(&current), "{expected}: {:?}", warnings(&current));
    }
}

/// What an API server refuses by the definitions of policies is in force with a warning, or refused where it can not be
/// understood.
#[test]
fn so_is_that_of_policies() {
    let policy = |group: &str, kind: &str, spec: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: istio-system}}\nspec: {spec}\n"
        )
    };
    let istio = |source: &str| {
        let spec = format!("{{action: ALLOW, rules: [{{from: [{{source: {{{source}}}}}]}}]}}");
        policy("security.istio.io/v1", "AuthorizationPolicy", &spec)
    };
    let ours = |host: &str, labels: usize| {
        let labels: Vec<_> = (0..labels).map(|n| format!("l{n}: v")).collect();
        let spec = format!(
            "{{podSelector: {{matchLabels: {{{}}}}}, rules: [{{hosts: ['{host}'], ports: [{{port: 80, protocol: HTTP}}]}}]}}",
            labels.join(", ")
        );
        policy("egress-enforcer.io/v1alpha1", "EgressPolicy", &spec)
    };
    let accounts = "refuses serviceAccounts beside principals or namespaces";
    let spelling = "an API server refuses this spelling";
    for (old, current, expected) in [
        (
            istio("serviceAccounts: [apps/a], principals: [x]"),
            istio("serviceAccounts: [apps/a]"),
            accounts,
        ),
        (
            istio("serviceAccounts: [apps/a], namespaces: [apps]"),
            istio("principals: [x]"),
            accounts,
        ),
        (
            istio("notServiceAccounts: [apps/a], notNamespaces: [apps]"),
            istio("notServiceAccounts: [apps/a]"),
            accounts,
        ),
        (ours("A.example", 1), ours("a.example", 1), spelling),
        (ours("a.example.", 1), ours("*.a.example", 1), spelling),
        (ours("*.A.example", 1), ours("*.a.example", 1), spelling),
    ] {
        let says = |text: &str| warnings(text).iter().any(|message| message.contains(expected));
        assert!(says(&old), "{old}: {:?}", warnings(&old));
        assert!(!says(&current), "{current}: {:?}", warnings(&current));
    }
    for (labels, is_refused) in [(65, true), (64, false)] {
        let text = ours("a.example", labels);
        let problems = problems(&[ENTRY, &text], "");
        let refused = problems.iter().any(|problem| {
            problem.severity != Severity::Warning && problem.message.contains("refuses so many")
        });
        assert_eq!(refused, is_refused, "{problems:#?}");
    }
}
