//! What is accepted, what is refused, and how it is said.

use std::{fs, time::Duration};

use proptest::prelude::*;

use super::{
    RawFile, Severity, compile,
    testing::{MESH, compile_with, compiled, errors, file, problems},
};
use crate::policy::{
    AccessLogEncoding, ClientTlsMode, Direct, Discovery, ENCAPSULATION_PORTS, Enforcement,
    HttpVersion, LoadBalancer, OutboundMode, PathNormalization,
};
use crate::types::Port;

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn entry(spec: &str) -> String {
    resource("ServiceEntry", "entry", spec)
}

/// A service entry with these hosts, ports and more.
fn service(hosts: &str, protocol: &str, more: &str) -> String {
    entry(&format!(
        "{{hosts: [{hosts}], ports: [{{number: 443, name: p, protocol: {protocol}}}], {more}}}"
    ))
}

/// Asserts that exactly one error is found, with this in its text.
fn one_error(texts: &[&str], wanted: &str) {
    let found = errors(texts);
    assert_eq!(found.len(), 1, "{wanted}: {found:#?}");
    assert!(found[0].to_string().contains(wanted), "{wanted}: {}", found[0]);
    assert!(found[0].line.is_some(), "{}", found[0]);
}

#[test]
fn service_entries_as_istio_validates_them() {
    for (hosts, protocol, more) in [
        ("a.example", "HTTP", "resolution: DNS"),
        ("a.example, b.example", "TLS", "resolution: DNS"),
        ("'*.a.example'", "TLS", ""),
        ("'*.a.example'", "TLS", "resolution: NONE, location: MESH_EXTERNAL"),
        ("'*.a.example'", "TLS", "resolution: DYNAMIC_DNS"),
        ("'*.a.example'", "HTTP", "resolution: DNS, endpoints: [{address: b.example}]"),
        ("a.example", "TCP", "resolution: NONE, addresses: [198.51.100.0/24]"),
        (
            "a.example",
            "TCP",
            "resolution: STATIC, addresses: [198.51.100.0/24], endpoints: [{address: 198.51.100.1}]",
        ),
        ("a.example", "HTTP", "resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.example}]"),
        (
            "a.example",
            "HTTP",
            "resolution: STATIC, endpoints: [{address: 198.51.100.1, ports: {p: 8443}, weight: 2}]",
        ),
        ("a.example", "GRPC", "exportTo: ['.', other]"),
        ("a.example", "http", "subjectAltNames: [b.example]"),
        ("a.example", "HTTP", "endpoints: []"),
        ("a.example", "HTTP", "endpoints:"),
    ] {
        assert_eq!(errors(&[&service(hosts, protocol, more)]), [], "{hosts} {protocol} {more}");
    }
    for (hosts, protocol, more, wanted) in [
        ("'*'", "TLS", "", "a bare * would let everything out"),
        ("'a.*.example'", "TLS", "", "expected a DNS name"),
        ("a.example, a.example", "TLS", "", "listed twice"),
        ("a.example, A.EXAMPLE.", "TLS", "", "listed twice"),
        ("a b", "TLS", "", "expected a DNS name"),
        ("a.example", "QUIC", "", "unknown protocol"),
        ("a.example", "HTPS", "", "Did you mean HTTPS?"),
        ("a.example", "TLS", "resolution: dns", "expected one of NONE STATIC"),
        ("a.example", "TLS", "workloadSelector: {}", "not supported"),
        ("'*.a.example'", "TLS", "resolution: DNS", "can't be resolved by DNS"),
        ("'*.a.example'", "TLS", "resolution: DNS_ROUND_ROBIN", "can't be resolved by DNS"),
        ("a.example", "TLS", "resolution: STATIC", "needs endpoints"),
        (
            "a.example",
            "TLS",
            "resolution: NONE, endpoints: [{address: 198.51.100.1}]",
            "takes no endpoints",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: b.example}]",
            "takes addresses",
        ),
        (
            "a.example",
            "TLS",
            "resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.example}, {address: c.example}]",
            "at most one",
        ),
        ("a.example", "TLS", "resolution: DYNAMIC_DNS", "wildcard hosts only"),
        ("'*.a.example'", "TCP", "resolution: DYNAMIC_DNS", "needs ports"),
        (
            "'*.a.example'",
            "TLS",
            "resolution: DYNAMIC_DNS, addresses: [198.51.100.1]",
            "neither addresses",
        ),
        ("a.example", "TLS", "resolution: DNS, addresses: [198.51.100.0/24]", "networks need"),
        ("a.example", "TLS", "addresses: [nonsense]", "not an address"),
        (
            "a.example, b.example",
            "TCP",
            "resolution: DNS, addresses: [198.51.100.1]",
            "can't be told apart",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: 127.0.0.1}]",
            "never dials",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: 169.254.169.254}]",
            "never dials",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: '::ffff:127.0.0.1'}]",
            "never dials",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: 192.0.2.10}]",
            "never dials",
        ),
        (
            "a.example",
            "TLS",
            "resolution: DNS, endpoints: [{address: '64:ff9b::7f00:1'}]",
            "never dials",
        ),
        (
            "a.example",
            "TLS",
            "resolution: STATIC, endpoints: [{address: 'unix:/x'}]",
            "Unix sockets",
        ),
        (
            "a.example",
            "TLS",
            "resolution: DNS, endpoints: [{address: b.example, ports: {q: 1}}]",
            "no port named",
        ),
        ("a.example", "TLS", "resolution: DNS, endpoints: [{}]", "\"address\" is missing"),
    ] {
        one_error(&[&service(hosts, protocol, more)], wanted);
    }
}

#[test]
fn what_is_not_egress_is_passed_over() {
    let inside = [
        service(
            "a.example",
            "TLS",
            "location: MESH_INTERNAL, resolution: STATIC, endpoints: [{address: 10.0.0.7}]",
        ),
        service("a.example", "TLS", "resolution: STATIC, workloadSelector: {labels: {app: x}}"),
        entry("{hosts: [a.example]}"),
    ];
    for inside in inside {
        let outside = service("b.example", "TLS", "").replace("name: entry", "name: outside");
        let compiled = compiled(&[&inside, &outside], "");
        assert!(!compiled.warnings.is_empty(), "{inside}");
        let known: Vec<_> =
            compiled.snapshot.rules.services.iter().map(|s| s.host.to_string()).collect();
        assert_eq!(known, ["b.example"], "{inside}");
    }
}

#[test]
fn fields_of_wrong_type_are_told_with_place_found_and_expected() {
    for (spec, field, found, expected) in [
        (
            "{hosts: a.example, ports: [{number: 80, name: p}]}",
            "spec.hosts",
            "the text \"a.example\"",
            "a list",
        ),
        (
            "{hosts: [1], ports: [{number: 80, name: p}]}",
            "spec.hosts[0]",
            "the number 1",
            "text (put",
        ),
        (
            "{hosts: [a.example], ports: [{number: \"80\", name: p}]}",
            "spec.ports[0].number",
            "the text \"80\"",
            "a port number",
        ),
        (
            "{hosts: [a.example], ports: [{number: 0, name: p}]}",
            "spec.ports[0].number",
            "the number 0",
            "from 1 to 65535",
        ),
        (
            "{hosts: [a.example], ports: [{number: 65536, name: p}]}",
            "spec.ports[0].number",
            "the number 65536",
            "from 1 to 65535",
        ),
        (
            "{hosts: [a.example], ports: [{number: -1, name: p}]}",
            "spec.ports[0].number",
            "the number -1",
            "from 1 to 65535",
        ),
        ("{hosts: [a.example], ports: [{number: 80}]}", "spec.ports[0].name", "nothing", "text"),
        ("{hosts: [a.example], ports: [80]}", "spec.ports[0]", "the number 80", "a mapping"),
        ("{hosts: [a.example], ports: {number: 80}}", "spec.ports", "a mapping", "a list"),
        ("{ports: [{number: 80, name: p}]}", "spec.hosts", "nothing", "list of text"),
        ("[]", "spec", "a list", "a mapping"),
        ("", "spec", "nothing", "a mapping"),
    ] {
        let text = entry(spec);
        let found_errors = errors(&[&text]);
        assert_eq!(found_errors.len(), 1, "{spec}: {found_errors:#?}");
        let problem = &found_errors[0];
        assert_eq!(problem.field.as_deref(), Some(field), "{spec}");
        assert_eq!(problem.found.as_deref(), Some(found), "{spec}");
        assert!(
            problem.expected.as_ref().unwrap().starts_with(expected)
                || problem.expected.as_ref().unwrap().contains(expected),
            "{spec}: {problem}"
        );
        assert_eq!(problem.resource.as_deref(), Some("ServiceEntry default/entry"));
        assert_eq!(problem.line, Some(4), "{spec}");
    }
}

#[test]
fn resources_that_are_none() {
    for (text, wanted) in [
        ("just text\n", "not a resource"),
        ("- a\n- b\n", "not a resource"),
        ("kind: Gateway\n", "\"apiVersion\" is missing"),
        ("apiVersion: networking.istio.io/v1\n", "\"kind\" is missing"),
        ("apiVersion: networking.istio.io/v1\nkind: [x]\n", "\"kind\" is missing or no text"),
        ("apiVersion: networking.istio.io/v2\nkind: Gateway\n", "unknown version"),
        ("apiVersion: networking.istio/v1\nkind: Gateway\n", "wrong apiVersion"),
        ("apiVersion: v1\nkind: ServiceEntry\n", "wrong apiVersion"),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualServise\n",
            "Did you mean VirtualService?",
        ),
        ("apiVersion: networking.istio.io/v1\nkind: Gateway\n", "no valid name"),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: Upper}\n",
            "no valid name",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: 1}\n",
            "no valid name",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a, namespace: a.b}\n",
            "no valid namespace",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n",
            "\"spec\" is missing",
        ),
        ("apiVersion: v1\nkind: List\n", "a List without items"),
        ("a: {b: [}\n", "isn't valid YAML"),
        ("a: 1\na: 2\n", "isn't valid YAML"),
    ] {
        one_error(&[text], wanted);
    }
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
        "apiVersion: apps/v1\nkind: Deployment\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\n",
        "apiVersion: networking.istio.io/v1\nkind: ProxyConfig\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n",
    ] {
        let found = problems(&[text], "");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].message.starts_with("ignored"), "{}", found[0]);
    }
}

#[test]
fn lists_and_namespaces() {
    let one = service("a.example", "TLS", "resolution: DNS");
    let indented: String = one.lines().map(|line| format!("  {line}\n")).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n-{}", &indented[1..]);
    assert_eq!(compiled(&[&list], "").snapshot.rules.services.len(), 1);
    one_error(&[&one, &one], "is defined twice; the other one is at 1.yaml:1");
    let other = one.replace("{name: entry}", "{name: entry, namespace: other}");
    assert_eq!(errors(&[&one, &other])[0].code, Some("IST0109"));
}

#[test]
fn every_broken_document_is_told_in_one_go() {
    let text = format!(
        "a: [\n---\n{}---\n{}---\nb: }}\n",
        service("a b", "TLS", ""),
        resource("Gateway", "g", "{servers: [{port: {number: 1}}]}")
    );
    let found = errors(&[&text, "kind: x\n"]);
    let lines: Vec<_> = found.iter().map(|p| (p.file.as_str(), p.line)).collect();
    assert_eq!(lines.len(), 6, "{found:#?}");
    assert!(lines.contains(&("2.yaml", Some(1))));
    assert!(found.iter().filter(|p| p.message.contains("YAML")).count() == 2);
}

#[test]
fn too_much_is_refused() {
    let text = format!("# {}\n", "x".repeat(4 << 20));
    let problems = compile(&[RawFile { path: "a.yaml".into(), text }], None).unwrap_err();
    assert!(problems.0[0].message.contains("too large"));
    let rule = "{hosts: [a.example], http: [{match: [{uri: {regex: '(a{1,1000}){1,1000}'}}], directResponse: {status: 200}}]}";
    one_error(&[&resource("VirtualService", "v", rule)], "expected a regular expression");
}

#[test]
fn mesh_settings() {
    let full = "direct: registry\npathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\ndefaultConfig: {gatewayTopology: {numTrustedProxies: 2}}\nnat64Prefixes: ['2001:db8:64::/48']\nenforcement: audit\naccessLogFile: ''\naccessLogEncoding: JSON\ntrustDomain: td\nrootNamespace: root\nclusterCidrs: [10.1.2.3/8, 'fd00::/8']\ndeniedCidrs: [198.51.100.0/24]\nencapsulationPorts: [7000, 4789, 7000]\n";
    let mesh = compiled(&[], full).snapshot.mesh;
    assert_eq!((mesh.direct, mesh.enforcement), (Direct::Registry, Enforcement::Audit));
    assert_eq!((mesh.access_log_file, mesh.access_log_encoding), (None, AccessLogEncoding::Json));
    assert_eq!((&*mesh.trust_domain.to_string(), &*mesh.root_namespace.0), ("td", "root"));
    assert_eq!(mesh.cluster_cidrs[0].to_string(), "10.0.0.0/8");
    assert_eq!(mesh.path_normalization, PathNormalization::DecodeAndMergeSlashes);
    assert_eq!((mesh.trusted_proxies, mesh.nat64_prefixes[0].prefix_len()), (2, 48));
    let denied: Vec<_> = mesh.denied_cidrs.iter().map(ToString::to_string).collect();
    assert!(
        denied.contains(&"198.51.100.0/24".into()) && denied.contains(&"169.254.0.0/16".into())
    );
    assert_eq!(mesh.gateways[0].endpoints.len(), 1);
    let ports: Vec<u16> = mesh.encapsulation_ports.iter().map(|port| port.get()).collect();
    assert_eq!(ports, [4789, 7000]);
    let default = compile(&[], None).unwrap().snapshot.mesh;
    assert_eq!((default.outbound, default.direct), (OutboundMode::RegistryOnly, Direct::Deny));
    assert_eq!(default.access_log_file.as_deref(), Some("/dev/stdout"));
    assert_eq!((default.path_normalization, default.trusted_proxies), (PathNormalization::Base, 0));
    for (name, wanted) in [
        ("DEFAULT", PathNormalization::Base),
        ("NONE", PathNormalization::None),
        ("BASE", PathNormalization::Base),
        ("MERGE_SLASHES", PathNormalization::MergeSlashes),
    ] {
        let more = format!("pathNormalization: {{normalization: {name}}}\n");
        assert_eq!(compiled(&[], &more).snapshot.mesh.path_normalization, wanted);
    }
    let tunnels = ENCAPSULATION_PORTS.map(|port| Port::new(port).unwrap());
    assert_eq!(default.encapsulation_ports, tunnels.into());
    assert!(compiled(&[], "encapsulationPorts: []\n").snapshot.mesh.encapsulation_ports.is_empty());

    for (more, wanted) in [
        ("direct: yes\n", "expected one of deny registry"),
        ("enforcement: off\n", "expected one of enforce audit"),
        ("clusterCidrs: [10.0.0.0/33]\n", "not an address"),
        ("encapsulationPorts: [0]\n", "expected a port number"),
        ("accessLogFormat: '%NONSENSE%'\n", "NONSENSE"),
        ("accessLogEncoding: XML\n", "expected one of TEXT JSON"),
        ("pathNormalization: {normalization: ALL}\n", "expected one of DEFAULT NONE BASE"),
        ("nat64Prefixes: ['2001:db8::/60']\n", "no prefix of NAT64"),
        ("nat64Prefixes: [10.0.0.0/8]\n", "no prefix of NAT64"),
    ] {
        let found = compile_with(&[], more).unwrap_err();
        assert!(found.to_string().contains(wanted), "{found}");
    }
    for (text, wanted) in [
        ("gateways: [{service: g.ns, labels: {}, endpoints: [192.0.2.1]}]\n", "without labels"),
        ("gateways: [{service: g.ns, labels: {a: b}, endpoints: [g.example]}]\n", "not an address"),
        (
            "gateways: [{service: g.ns, labels: {a: b}, endpoints: [192.0.2.1]}, {service: g.ns, labels: {a: b}, endpoints: [192.0.2.1]}]\n",
            "listed twice",
        ),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("- a\n", "expected a mapping"),
    ] {
        let found = compile(&[], Some(&file("mesh.yaml", text))).unwrap_err();
        assert!(found.to_string().contains(wanted), "{found}");
    }
    for (more, wanted) in [
        ("enforcementOverrides: [{name: a, mode: audit}]\n", "selects nothing"),
        ("enforcementOverrides: [{name: a, labels: {}, mode: audit}]\n", "selects nothing"),
        ("enforcementOverrides: [{name: a, namespaces: [], mode: audit}]\n", "no namespaces"),
        ("enforcementOverrides: [{name: a, namespaces: [b]}]\n", "\"mode\" is missing"),
        ("enforcementOverrides: [{namespaces: [b], mode: audit}]\n", "\"name\" is missing"),
        ("enforcementOverrides: [{name: a, namespaces: [b], mode: exempt}]\n", "enforce audit"),
        ("enforcementOverrides: [{name: a b, namespaces: [b], mode: audit}]\n", "letters, digits"),
        ("enforcementOverrides: [{name: default, namespaces: [b], mode: audit}]\n", "in no set"),
    ] {
        let found = compile_with(&[], more).unwrap_err();
        assert_eq!(found.count().0, 1, "{found}");
        assert!(found.to_string().contains(wanted), "{found}");
    }
    let found = compile(&[file("x/mesh.yaml", "direct: registry\n")], None).unwrap();
    assert_eq!(found.snapshot.mesh.direct, Direct::Registry);
    let wrapped = compile(
        &[],
        Some(&file("m.yaml", "meshConfig: {outboundTrafficPolicy: {mode: ALLOW_ANY}}\n")),
    );
    assert_eq!(wrapped.unwrap().snapshot.mesh.outbound, OutboundMode::AllowAny);
}

/// The first set that a workload is in counts; who is in none has the mesh's mode.
#[test]
fn sets_of_workloads() {
    let text = "enforcement: enforce\n\
        enforcementOverrides:\n\
        - {name: pinned, namespaces: [dev], labels: {app: ledger}, mode: enforce}\n\
        - {name: batch, namespaces: [dev, test], mode: audit}\n\
        - {name: jobs, labels: {app: job}, mode: audit}\n\
        workloads:\n\
        - {name: a, namespace: dev, labels: {app: ledger}, addresses: [10.0.0.1]}\n\
        - {name: b, namespace: test, labels: {app: job}, addresses: [10.0.0.2]}\n\
        - {name: c, labels: {app: job}, cgroups: [/jobs//c/], interface: veth-c}\n\
        - {name: d, addresses: [10.0.0.4]}\n";
    let compiled = compile(&[], Some(&file("mesh.yaml", text))).unwrap();
    let mesh = compiled.snapshot.mesh;
    let sets: Vec<_> = mesh.sets().collect();
    let names: Vec<_> = sets.iter().map(|set| (set.name, set.mode)).collect();
    use Enforcement::{Audit, Enforce};
    let wanted = [("default", Enforce), ("pinned", Enforce), ("batch", Audit), ("jobs", Audit)];
    assert_eq!(names, wanted);
    assert_eq!(sets[2].selector.unwrap().to_string(), "namespaces dev, test");
    assert!(sets[0].selector.is_none());
    let of: Vec<_> = mesh.workloads.iter().map(|workload| mesh.set_of(workload)).collect();
    assert_eq!(of, [1, 2, 3, 0]);
    let c = &mesh.workloads[2];
    assert_eq!(c.cgroups, [std::path::Path::new("/jobs/c")]);
    assert_eq!((c.interface.as_deref(), c.addresses.len()), (Some("veth-c"), 0));
    // Whoever reads the log or runs `check` sees what isn't enforced.
    let warned: Vec<_> = compiled.warnings.iter().map(|p| p.field.as_deref().unwrap()).collect();
    assert_eq!(warned, ["enforcementOverrides[1].mode", "enforcementOverrides[2].mode"]);
}

/// `redirect` is about audit mode alone, and is never a way to enforce less.
#[test]
fn audit_with_redirects() {
    use Enforcement::{Audit, AuditRedirect, Enforce};
    let of = |text: &str| {
        let compiled = compile(&[], Some(&file("mesh.yaml", text))).unwrap();
        let fields = compiled.warnings.iter().map(|p| p.field.clone().unwrap()).collect::<Vec<_>>();
        (compiled.snapshot.mesh.enforcement, fields.join(" "))
    };
    for (text, mode, warned) in [
        ("enforcement: audit\nredirect: true\n", AuditRedirect, "enforcement"),
        ("enforcement: audit\nredirect: false\n", Audit, "enforcement"),
        ("enforcement: enforce\nredirect: true\n", Enforce, "redirect"),
        ("enforcement: enforce\nredirect: false\n", Enforce, "redirect"),
        ("redirect: true\n", Enforce, "redirect"),
    ] {
        assert_eq!(of(text), (mode, warned.to_owned()), "{text}");
    }
    let set = "enforcementOverrides: [{name: a, namespaces: [b], mode: audit, redirect: true}]\n";
    let mesh = compile(&[], Some(&file("mesh.yaml", set))).unwrap().snapshot.mesh;
    assert_eq!((mesh.enforcement, mesh.overrides[0].mode), (Enforce, AuditRedirect));
}

fn rule(spec: &str) -> String {
    resource("DestinationRule", "rule", spec)
}

const FILES: &str = "clientCertificate: /c.pem, privateKey: /k.pem";

#[test]
fn destination_rules() {
    let registry = service("a.example", "HTTP", "resolution: DNS");
    for (policy, wanted) in [
        ("{tls: {mode: ISTIO_MUTUAL}}", "for the way to a gateway of the mesh"),
        ("{tls: {mode: MUTUAL}}", "needs clientCertificate and privateKey"),
        ("{tls: {mode: MUTUAL, clientCertificate: /c.pem}}", "privateKey"),
        ("{tls: {mode: SIMPEL}}", "expected one of DISABLE"),
        ("{tls: {mode: SIMPLE, sni: 192.0.2.1}}", "a server name is no address"),
        ("{tls: {mode: SIMPLE, credentialName: ../x}}", "not a credential's name"),
        ("{tls: {mode: SIMPLE, credentialName: x, caCertificates: /r}}", "stands for all files"),
        ("{tls: {mode: MUTUAL, credentialName: x, caCrl: /r}}", "stands for all files"),
        ("{tls: {mode: SIMPLE, insecureSkipVerify: 'true'}}", "expected `true` or `false`"),
        ("{connectionPool: {tcp: {maxConnections: 0}}}", "refuse everything"),
        ("{connectionPool: {tcp: {connectTimeout: 10}}}", "expected a duration"),
        ("{connectionPool: {tcp: {connectTimeout: 0s}}}", "no connection could be made"),
        ("{connectionPool: {tcp: {connectTimeout: 0.9ms}}}", "no connection could be made"),
        ("{loadBalancer: {warmupDurationSecs: 0s}}", "an endpoint that is never new"),
        ("{connectionPool: {tcp: {tcpKeepalive: {probes: 0}}}}", "not a number of probes"),
        ("{connectionPool: {tcp: {tcpKeepalive: {probes: 128}}}}", "not a number of probes"),
        ("{connectionPool: {tcp: {tcpKeepalive: {time: 100ms}}}}", "expected 1s to 32767s"),
        ("{connectionPool: {tcp: {tcpKeepalive: {interval: 10h}}}}", "expected 1s to 32767s"),
        ("{outlierDetection: {maxEjectionPercent: 101}}", "not a percentage"),
        ("{portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}", "listed twice"),
        ("{tunnel: {targetHost: b.example, targetPort: 443}, proxyProtocol: {}}", "together"),
    ] {
        one_error(
            &[&registry, &rule(&format!("{{host: a.example, trafficPolicy: {policy}}}"))],
            wanted,
        );
    }
    one_error(
        &[&registry, &rule("{host: a.example, subsets: [{name: s}, {name: s}]}")],
        "defined twice",
    );
    one_error(
        &[&registry, &rule("{host: a.example, workloadSelector: {}, exportTo: ['*']}")],
        "its own namespace alone",
    );
    one_error(
        &[&rule(
            "{host: istio-egressgateway.istio-system.svc.cluster.local, workloadSelector: {}}",
        )],
        "one for all",
    );
    one_error(&[&registry, &rule("{host: a.example, exportTo: ['~']}")], "in force for nobody");
    let both = &registry.replace("hosts:", "exportTo: ['.', '*'], hosts:");
    one_error(&[both], "a contradiction");
    for gateway in
        ["istio-egressgateway.istio-system.svc.cluster.local", "istio-egressgateway.istio-system"]
    {
        for (mode, wanted) in [
            ("SIMPLE", "both ends prove who they are"),
            ("MUTUAL", "needs clientCertificate, privateKey and caCertificates"),
            ("ISTIO_MUTUAL", "the node's own certificate"),
        ] {
            let text = rule(&format!(
                "{{host: {gateway}, trafficPolicy: {{tls: {{mode: {mode}, {FILES}}}}}}}"
            ));
            one_error(&[&text], wanted);
        }
    }
    let gone = problems(&[&rule("{host: nowhere.example}")], "");
    assert_eq!(gone[0].code, Some("IST0174"));
}

#[test]
fn a_service_entry_below_svc_cluster_local_takes_tls_of_any_files_without_a_hint() {
    const HOST: &str = "my-nginx.mesh-external.svc.cluster.local";
    let registry = service(HOST, "HTTP", "resolution: DNS");
    let text = |mode: &str, files: &str| {
        rule(&format!("{{host: {HOST}, trafficPolicy: {{tls: {{mode: {mode}, {files}}}}}}}"))
    };
    for (mode, files) in [("SIMPLE", ""), ("MUTUAL", FILES)] {
        let found = problems(&[&registry, &text(mode, files)], "direct: registry\n");
        assert!(found.is_empty(), "{mode}: {found:#?}");
        // Without the service entry nothing has the host: that is said, and nothing of gateways.
        let found = problems(&[&text(mode, files)], "");
        let codes: Vec<_> = found.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Some("IST0174")], "{mode}: {found:#?}");
        assert!(!found[0].to_string().contains("gateway of the mesh"), "{mode}: {}", found[0]);
    }
    one_error(&[&registry, &text("ISTIO_MUTUAL", FILES)], "for the way to a gateway of the mesh");
}

#[test]
fn port_over_subset_over_rule_and_the_most_specific_host() {
    let registry = entry(
        "{hosts: [a.b.example], ports: [{number: 80, name: h, protocol: HTTP}, {number: 443, name: s, protocol: HTTPS}], resolution: DNS}",
    );
    let rules = [
        rule("{host: '*.example', trafficPolicy: {loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE}}}"),
        resource("DestinationRule", "near", &format!("{{host: '*.b.example', trafficPolicy: {{
            loadBalancer: {{simple: ROUND_ROBIN}}, connectionPool: {{tcp: {{maxConnections: 7}}}},
            portLevelSettings: [{{port: {{number: 443}}, tls: {{mode: MUTUAL, sni: x.example, {FILES}}}}}]}},
            subsets: [{{name: plain}}, {{name: own, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}},
                {{name: port, trafficPolicy: {{portLevelSettings: [{{port: {{number: 443}}, tls: {{mode: SIMPLE, insecureSkipVerify: true}}}}]}}}}]}}")),
    ];
    let destinations = ["plain", "own", "port"].map(|subset| {
        format!("{{match: [{{uri: {{exact: /{subset}}}}}], route: [{{destination: {{host: a.b.example, subset: {subset}, port: {{number: 443}}}}}}]}}")
    });
    let routes = resource(
        "VirtualService",
        "v",
        &format!("{{hosts: [a.b.example], http: [{}]}}", destinations.join(", ")),
    );
    let compiled = compiled(&[&registry, &rules[0], &rules[1], &routes], "");
    assert!(compiled.warnings.iter().any(|p| p.code == Some("IST0129")));
    let cluster = |name: &str| {
        let all = &compiled.snapshot.rules.clusters;
        all.iter().find(|c| c.name.to_string() == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let http = cluster("outbound|80||a.b.example");
    assert_eq!((http.load_balancer, http.pool.max_connections), (LoadBalancer::RoundRobin, 7));
    assert_eq!(http.tls, None);
    let https = cluster("outbound|443||a.b.example");
    assert_eq!(
        (https.load_balancer, https.pool.max_connections),
        (LoadBalancer::LeastRequest, u32::MAX)
    );
    let tls = https.tls.as_ref().unwrap();
    assert!(matches!(tls.mode, ClientTlsMode::Mutual { .. }));
    assert_eq!(tls.sni.as_ref().unwrap().to_string(), "x.example");
    assert_eq!(cluster("outbound|443|plain|a.b.example").tls, https.tls);
    assert_eq!(cluster("outbound|443|own|a.b.example").load_balancer, LoadBalancer::Random);
    let own = cluster("outbound|443|port|a.b.example");
    assert!(own.tls.as_ref().unwrap().insecure_skip_verify);
    assert_eq!(own.pool.max_connections, u32::MAX);
}

#[test]
fn times_of_connections_are_the_rules_or_the_meshs() {
    let registry = service("a.example", "TLS", "resolution: DNS");
    let pool = |texts: &[&str], mesh: &str| compiled(texts, mesh).snapshot.rules.clusters[0].pool;
    let minute = Duration::from_secs(60);
    let with = |tcp: &str| {
        let policy = format!("{{connectionPool: {{tcp: {tcp}}}}}");
        rule(&format!("{{host: a.example, trafficPolicy: {policy}}}"))
    };
    let default = pool(&[&registry], "");
    assert_eq!((default.tcp_idle_timeout, default.keepalive), (Some(60 * minute), None));
    assert_eq!(pool(&[&registry, &with("{idleTimeout: 60s}")], "").tcp_idle_timeout, Some(minute));
    assert_eq!(pool(&[&registry, &with("{idleTimeout: 0s}")], "").tcp_idle_timeout, None);
    let mesh = "tcpKeepalive: {time: 60s}\n";
    let meshs = pool(&[&registry], mesh).keepalive.unwrap();
    assert_eq!((meshs.time, meshs.probes), (minute, 3));
    let own = with("{tcpKeepalive: {probes: 3, time: 10s, interval: 2.5s}}");
    let own = pool(&[&registry, &own], mesh).keepalive.unwrap();
    assert_eq!((own.probes, own.time.as_secs(), own.interval.as_secs()), (3, 10, 2));
    let refused = problems(&[&registry], "direct: registry\nstreamIdleTimeout: 0s\n");
    assert!(refused[0].to_string().contains("would never end"), "{refused:?}");
}

#[test]
fn groups_of_the_key_exchange_are_the_meshs() {
    use crate::policy::KeyGroup;
    let texts = [
        service("a.example", "HTTPS", "resolution: DNS"),
        rule("{host: a.example, trafficPolicy: {tls: {mode: SIMPLE}}}"),
    ];
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let groups = |mesh: &str| {
        let compiled = compiled(&texts, mesh);
        let tls = compiled.snapshot.rules.clusters.iter().find_map(|c| c.tls.as_ref());
        tls.unwrap().key_groups.0.to_vec()
    };
    assert_eq!(groups(""), KeyGroup::ALL);
    assert_eq!(groups("tlsDefaults: {ecdhCurves: []}\n"), KeyGroup::ALL);
    let off = "tlsDefaults: {ecdhCurves: [P-256, X25519]}\n";
    assert_eq!(groups(off), [KeyGroup::P256, KeyGroup::X25519]);
    for (curves, wanted) in [("P-521", "expected one of"), ("P-256, P-256", "listed twice")] {
        let mesh = format!("tlsDefaults: {{ecdhCurves: [{curves}]}}\n");
        let found = problems(&texts, &mesh);
        assert!(found.iter().any(|p| p.to_string().contains(wanted)), "{found:?}");
    }
}

#[test]
fn discovery_follows_the_resolution() {
    let found = |text: &str| compiled(&[text], "").snapshot.rules.clusters[0].clone();
    let dns = found(&service("a.example", "HTTP", "resolution: DNS"));
    assert!(matches!(&dns.discovery, Discovery::Dns(names) if names.len() == 1));
    let target = found(&entry(
        "{hosts: [a.example], ports: [{number: 80, name: p, protocol: HTTP2, targetPort: 8080}], resolution: DNS, endpoints: [{address: x.example}, {address: y.example, ports: {p: 81}}]}",
    ));
    let Discovery::Dns(names) = &target.discovery else { panic!() };
    let ports: Vec<_> = names.iter().map(|(host, port)| (host.to_string(), port.get())).collect();
    assert_eq!(ports, [("x.example".into(), 8080), ("y.example".into(), 81)]);
    assert_eq!(target.http, HttpVersion::Http2);
    assert_eq!(dns.load_balancer, LoadBalancer::LeastRequest);
    let one = found(&service("a.example", "HTTP", "resolution: DNS_ROUND_ROBIN"));
    assert_eq!(one.load_balancer, LoadBalancer::First);
    let wild = found(&service("'*.a.example'", "TLS", ""));
    assert!(matches!(wild.discovery, Discovery::Request(port) if port.get() == 443));
    let fixed = found(&service(
        "a.example",
        "TLS",
        "resolution: STATIC, endpoints: [{address: 198.51.100.1, weight: 3}]",
    ));
    let Discovery::Static(endpoints) = &fixed.discovery else { panic!() };
    assert_eq!(
        (endpoints[0].addr.to_string(), endpoints[0].weight),
        ("198.51.100.1:443".into(), 3)
    );
}

#[test]
fn gateways() {
    let gateway = |server: &str| {
        resource(
            "Gateway",
            "g",
            &format!("{{selector: {{istio: egressgateway}}, servers: [{server}]}}"),
        )
    };
    for server in [
        "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example]}",
        "{port: {number: 80, name: h, protocol: HTTPS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}",
        "{port: {number: 443, name: h, protocol: TLS}, hosts: ['*/*.example', ./a.example, ns/b.example], tls: {mode: PASSTHROUGH}}",
        "{port: {number: 9000, name: h, protocol: TCP}, hosts: ['*']}",
        "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example], tls: {httpsRedirect: true}}",
    ] {
        assert_eq!(problems(&[&gateway(server)], ""), [], "{server}");
    }
    for (server, wanted) in [
        (
            "{port: {number: 443, name: h, protocol: HTTPS}, hosts: [a.example]}",
            "needs tls settings",
        ),
        (
            "{port: {number: 443, name: h, protocol: TLS}, hosts: [a.example], tls: {mode: AUTO_PASSTHROUGH}}",
            "forwards by virtual services only",
        ),
        (
            "{port: {number: 443, name: h, protocol: TLS}, hosts: [a.example], tls: {serverCertificate: /c}}",
            "mode SIMPLE needs",
        ),
        (
            "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example], tls: {mode: PASSTHROUGH}}",
            "no TLS but httpsRedirect",
        ),
        (
            "{port: {number: 80, name: h, protocol: TCP}, hosts: [a.example], tls: {mode: PASSTHROUGH}}",
            "only TLS can be passed through",
        ),
        ("{port: {number: 80, name: h, protocol: HTTP}, hosts: [a/b/c]}", "expected a DNS name"),
        (
            "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example], defaultEndpoint: x}",
            "not supported",
        ),
        ("{port: {number: 80, name: h}, hosts: [a.example]}", "\"protocol\" is missing"),
        ("{hosts: [a.example]}", "\"port\" is missing"),
    ] {
        one_error(&[&gateway(server)], wanted);
    }
    let none = problems(
        &[&resource(
            "Gateway",
            "g",
            "{servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example]}]}",
        )],
        "",
    );
    assert!(none[0].message.contains("for no process"), "{none:?}");
    let server = "{port: {number: 80, name: h, protocol: HTTP}, hosts: [a.example]}";
    let twice = problems(&[&gateway(server), &gateway(server).replace("name: g", "name: g2")], "");
    assert_eq!(twice[0].code, Some("IST0145"));
}

const GATEWAY: &str = "istio-egressgateway.istio-system.svc.cluster.local";

#[test]
fn virtual_services_refused() {
    let registry = service("a.example", "HTTP", "resolution: DNS");
    let to = "route: [{destination: {host: a.example}}]";
    for (spec, wanted) in [
        ("{hosts: [a.example]}".to_owned(), "without rules"),
        (format!("{{hosts: ['*'], http: [{{{to}}}]}}"), "a bare * is not allowed"),
        (format!("{{hosts: [a.example, a.example], http: [{{{to}}}]}}"), "listed twice"),
        (format!("{{hosts: [a.example], http: [{{{to}, redirect: {{uri: /}}}}]}}"), "a rule does one thing"),
        ("{hosts: [a.example], http: [{match: [{uri: {exact: /}}]}]}".into(), "a rule does one thing"),
        (format!("{{hosts: [a.example], http: [{{{to}, corsPolicy: {{allowMethods: [FETCH]}}}}]}}"), "not a method"),
        (format!("{{hosts: [a.example], http: [{{{to}, corsPolicy: {{allowHeaders: ['a b']}}}}]}}"), "not a header name"),
        (format!("{{hosts: [a.example], http: [{{{to}, corsPolicy: {{allowOrigins: [{{}}]}}}}]}}"), "no origin is allowed"),
        (format!("{{hosts: [a.example], http: [{{{to}, corsPolicy: {{maxAge: 1.5s}}}}]}}"), "browsers count seconds"),
        (format!("{{hosts: [a.example], http: [{{{to}, delegate: {{name: x}}}}]}}"), "a rule does one thing"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{uri: {{exact: /, prefix: /}}}}]}}]}}"), "only one condition"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{uri: {{regex: '('}}}}]}}]}}"), "expected a regular expression"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{uri: {{regex: 'a)|(b'}}}}]}}]}}"), "expected a regular expression"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{headers: {{':path': {{exact: /}}}}}}]}}]}}"), "pseudo-headers"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{headers: {{'a b': {{}}}}}}]}}]}}"), "not a header name"),
        (format!("{{hosts: [a.example], http: [{{{to}, headers: {{response: {{set: {{host: x}}}}}}}}]}}"), "use rewrite.authority"),
        (format!("{{hosts: [a.example], http: [{{{to}, headers: {{response: {{remove: [content-length]}}}}}}]}}"), "frames the message"),
        (format!("{{hosts: [a.example], http: [{{{to}, headers: {{request: {{set: {{x: \"a\\r\nb\"}}}}}}}}]}}"), "not a header value"),
        (format!("{{hosts: [a.example], http: [{{{to}, headers: {{request: {{set: {{x: '50%'}}}}}}}}]}}"), "for a percent sign"),
        (format!("{{hosts: [a.example], http: [{{{to}, headers: {{response: {{add: {{x: '%HOSTNAME%'}}}}}}}}]}}"), "unknown operator"),
        (format!("{{hosts: [a.example], http: [{{{to}, timeout: soon}}]}}"), "expected a duration"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{attempts: 1, retryOn: 5xy}}}}]}}"), "unknown condition"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{attempts: 101}}}}]}}"), "too many attempts"),
        (format!("{{hosts: [a.example], http: [{{{to}, rewrite: {{uri: 'a b'}}}}]}}"), "not a path"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{abort: {{httpStatus: 99}}}}}}]}}"), "not the status"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}}}]}}"), "not a percentage"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{abort: {{percentage: {{value: 1}}}}}}}}]}}"), "no status is given"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{abort: {{httpStatus: 500, grpcStatus: '1', percentage: {{value: 1}}}}}}}}]}}"), "there is one answer"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{abort: {{grpcStatus: UNAVAILABEL, percentage: {{value: 1}}}}}}}}]}}"), "Did you mean UNAVAILABLE"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{abort: {{grpcStatus: '17', percentage: {{value: 1}}}}}}}}]}}"), "not a status of gRPC"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{delay: {{percentage: {{value: 1}}}}}}}}]}}"), "no delay is given"),
        (format!("{{hosts: [a.example], http: [{{{to}, fault: {{delay: {{fixedDelay: 1s, exponentialDelay: 1s, percentage: {{value: 1}}}}}}}}]}}"), "a request waits once"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{attempts: 1, backoff: 0.5ms}}}}]}}"), "at least 1ms"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{backoff: 1s}}}}]}}"), "retries that are never made"),
        ("{hosts: [a.example], http: [{directResponse: {status: 200, body: {bytes: 'Zg='}}}]}".into(), "not the bytes of a body"),
        ("{hosts: [a.example], http: [{directResponse: {status: 200, body: {bytes: Zg==, string: f}}}]}".into(), "there is one body"),
        ("{hosts: [a.example], http: [{redirect: {uri: /, redirectCode: 200}}]}".into(), "not a redirect's status"),
        ("{hosts: [a.example], http: [{redirect: {}}]}".into(), "the very same place"),
        ("{hosts: [a.example], http: [{redirect: {redirectCode: 302}}]}".into(), "the very same place"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{uri: {{regex: ''}}}}]}}]}}"), "would match everything"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{uri: {{prefix: ''}}}}]}}]}}"), "would match everything"),
        (format!("{{hosts: [a.example], http: [{{{to}, match: [{{headers: {{x: {{prefix: ''}}}}}}]}}]}}"), "would match everything"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{attempts: 1, retryOn: '600'}}}}]}}"), "unknown condition"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{attempts: 0, retryOn: 5xx}}}}]}}"), "retries that are never made"),
        (format!("{{hosts: [a.example], http: [{{{to}, retries: {{perTryTimeout: 1s}}}}]}}"), "retries that are never made"),
        (format!("{{hosts: [a.example], exportTo: ['~'], http: [{{{to}}}]}}"), "in force for nobody"),
        (format!("{{hosts: [a.example], exportTo: [default, '.'], http: [{{{to}}}]}}"), "listed twice"),
        ("{hosts: [a.example], http: [{redirect: {scheme: ftp}}]}".into(), "unknown scheme"),
        ("{hosts: [a.example], http: [{directResponse: {status: 42}}]}".into(), "not the status"),
        ("{hosts: [a.example], http: [{route: [{destination: {host: a.example}, weight: 0}, {destination: {host: a.example}}]}]}".into(), "nothing could be routed"),
        ("{hosts: [a.example], tls: [{match: [{sniHosts: [b.example]}], route: [{destination: {host: a.example}}]}]}".into(), "isn't within the VirtualService's hosts"),
        ("{hosts: [a.example], tls: [{route: [{destination: {host: a.example}}]}]}".into(), "\"match\" is missing"),
    ] {
        one_error(&[&registry, &resource("VirtualService", "v", &spec)], wanted);
    }
}

#[test]
fn references_to_nothing_are_errors_that_hold_nothing_back() {
    let registry = service("a.example", "HTTP", "resolution: DNS");
    for (destination, code, wanted) in [
        ("{host: b.example}", "IST0101", "no ServiceEntry has the host b.example"),
        ("{host: a.exampel}", "IST0101", "Did you mean a.example?"),
        ("{host: reviews}", "IST0101", "reviews.default.svc.cluster.local is neither"),
        ("{host: a.example, port: {number: 80}}", "IST0101", "has no port 80"),
        ("{host: a.example, subset: s}", "IST0101", "has the subset \"s\""),
        (
            "{host: istio-egressgateway.istio-system.svc.cluster.local, subset: s, port: {number: 80}}",
            "IST0101",
            "has the subset \"s\"",
        ),
        ("{host: istio-egressgateway.istio-system.svc.cluster.local}", "IST0112", "say which"),
        (
            "{host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}",
            "IST0132",
            "where no Gateway serves it",
        ),
    ] {
        let text = resource(
            "VirtualService",
            "v",
            &format!("{{hosts: [a.example], http: [{{route: [{{destination: {destination}}}]}}]}}"),
        );
        let compiled = compiled(&[&registry, &text], "");
        let found: Vec<_> =
            compiled.warnings.iter().filter(|p| p.severity == Severity::Refusal).collect();
        assert_eq!(found.len(), 1, "{destination}: {found:#?}");
        assert_eq!(found[0].code, Some(code), "{}", found[0]);
        assert!(found[0].message.contains(wanted), "{wanted}: {}", found[0]);
    }
    let gateways = resource(
        "VirtualService",
        "v",
        "{hosts: [a.example], gateways: [gone, ns/gone2], http: [{route: [{destination: {host: a.example}}]}]}",
    );
    let found = problems(&[&registry, &gateways], "");
    assert!(
        found[0].message.contains("no Gateway default/gone;")
            && found[1].message.contains("no Gateway ns/gone2;"),
        "{found:#?}"
    );
}

#[test]
fn rules_that_never_match_are_told() {
    let registry = service("a.example", "HTTP", "resolution: DNS");
    let to = "route: [{destination: {host: a.example}}]";
    for (rules, code) in [
        (format!("{{{to}}}, {{{to}, match: [{{uri: {{exact: /}}}}]}}"), "IST0130"),
        (
            format!(
                "{{{to}, match: [{{uri: {{exact: /}}}}]}}, {{{to}, match: [{{uri: {{exact: /}}}}]}}"
            ),
            "IST0130",
        ),
        (
            format!(
                "{{{to}, match: [{{uri: {{exact: /}}}}]}}, {{{to}, match: [{{uri: {{exact: /}}}}, {{uri: {{exact: /b}}}}]}}"
            ),
            "IST0131",
        ),
        (format!("{{{to}, match: [{{gateways: [other]}}]}}"), "IST0130"),
    ] {
        let text =
            resource("VirtualService", "v", &format!("{{hosts: [a.example], http: [{rules}]}}"));
        let found = problems(&[&registry, &text], "");
        assert_eq!(
            found.iter().filter_map(|p| p.code).collect::<Vec<_>>(),
            [code],
            "{rules}: {found:#?}"
        );
    }
    let one = resource("VirtualService", "v", &format!("{{hosts: [a.example], http: [{{{to}}}]}}"));
    let twice = problems(&[&registry, &one, &one.replace("name: v", "name: w")], "");
    let codes: Vec<_> = twice.iter().filter_map(|problem| problem.code).collect();
    assert_eq!(codes, ["IST0109"], "{twice:#?}");
}

#[test]
fn the_way_through_the_gateway_is_checked_to_its_end() {
    let registry = service("a.example", "TLS", "resolution: DNS");
    let gateway = |host: &str, protocol: &str| {
        resource(
            "Gateway",
            "g",
            &format!(
                "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 443, name: h, protocol: {protocol}}}, hosts: [{host}]{}}}]}}",
                if protocol == "TLS" { ", tls: {mode: PASSTHROUGH}" } else { "" }
            ),
        )
    };
    let first = format!(
        "{{match: [{{gateways: [mesh], port: 443, sniHosts: [a.example]}}], route: [{{destination: {{host: {GATEWAY}, port: {{number: 443}}}}}}]}}"
    );
    let second = "{match: [{gateways: [g], port: 443, sniHosts: [a.example]}], route: [{destination: {host: a.example}}]}";
    let routes = |rules: &str| {
        resource(
            "VirtualService",
            "v",
            &format!("{{hosts: [a.example], gateways: [mesh, g], tls: [{rules}]}}"),
        )
    };
    let all = routes(&format!("{first}, {second}"));
    assert_eq!(problems(&[&registry, &gateway("a.example", "TLS"), &all], ""), []);
    one_error(&[&registry, &gateway("b.example", "TLS"), &all], "where no Gateway serves it");
    one_error(&[&registry, &gateway("a.example", "HTTP"), &all], "by a rule for Tls");
    one_error(
        &[&registry, &gateway("a.example", "TLS"), &routes(&first)],
        "no rule with gateways [default/g] routes it on",
    );
}

/// `check`'s text on whole files, word for word. `EGRESS_BLESS=1` writes them anew.
#[test]
fn golden_files() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/golden");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let result = if name.starts_with("mesh-") {
            compile(&[], Some(&file(name, &text)))
        } else {
            compile(&[file(name, &text)], Some(&file("mesh.yaml", MESH)))
        };
        let found = match result {
            Ok(compiled) => super::Problems(compiled.warnings),
            Err(problems) => problems,
        };
        let found = format!("{found}\n");
        let golden = path.with_extension("txt");
        if std::env::var_os("EGRESS_BLESS").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&golden).unwrap_or_default(), "{name}");
        count += 1;
    }
    assert!(count >= 3);
}

/// Everything valid that the fixtures have, as one text to break.
fn corpus() -> String {
    [
        include_str!("testdata/2-tls-origination/registry.yaml"),
        include_str!("testdata/2-tls-origination/egress.yaml"),
        include_str!("testdata/2-tls-origination/routes.yaml"),
        include_str!("testdata/3-https/egress-and-routes.yaml"),
        include_str!("testdata/golden/many.yaml"),
    ]
    .join("---\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_makes_it_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~\n]{0,6}", 0_usize..12), 1..8),
        mesh in any::<bool>(),
    ) {
        let mut text = corpus();
        for (at, insert, cut) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, &insert);
        }
        let settings = file("mesh.yaml", if mesh { &text } else { MESH });
        // Whatever comes out is fine, as long as something comes out and says where.
        match compile(&[file("a.yaml", &text)], Some(&settings)) {
            Ok(compiled) => prop_assert!(compiled.warnings.iter().all(|p| !p.to_string().is_empty())),
            Err(problems) => prop_assert!(problems.count().0 > 0),
        }
    }

    #[test]
    fn bytes_are_no_resource(text in "\\PC{0,200}") {
        let found = compile(&[file("a.yaml", &text)], None);
        prop_assert!(found.is_err() || found.is_ok_and(|c| c.snapshot.rules.services.is_empty()));
    }
}

/// A gateway with one server.
fn with_server(server: &str) -> String {
    let spec = format!("{{selector: {{istio: egressgateway}}, servers: [{server}]}}");
    resource("Gateway", "g", &spec)
}

/// A gateway's server for HTTPS with these TLS settings.
fn https(tls: &str) -> String {
    with_server(&format!(
        "{{port: {{number: 443, name: h, protocol: HTTPS}}, hosts: [a.example], tls: {{{tls}}}}}"
    ))
}

const SERVER_FILES: &str = "serverCertificate: /c, privateKey: /k, caCertificates: /r";

#[test]
fn servers_that_end_tls_refused() {
    let pin = "NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=";
    for (tls, wanted) in [
        ("mode: SIMPLE, privateKey: /k".to_owned(), "mode SIMPLE needs the server's certificate"),
        ("mode: SIMPLE, serverCertificate: /c".into(), "mode SIMPLE needs its key"),
        ("mode: MUTUAL, serverCertificate: /c, privateKey: /k".into(), "needs the roots"),
        ("mode: OPTIONAL_MUTUAL, serverCertificate: /c, privateKey: /k".into(), "needs the roots"),
        (format!("mode: ISTIO_MUTUAL, {SERVER_FILES}"), "the gateway's own certificate"),
        ("mode: ISTIO_MUTUAL, credentialName: a".into(), "the gateway's own certificate"),
        ("mode: MUTUAL, credentialName: a, caCrl: /l".into(), "stands for all files"),
        ("mode: SIMPLE, credentialName: ../a".into(), "not a credential's name"),
        ("mode: SIMPLE, credentialName: 'kubernetes://a'".into(), "not a credential's name"),
        ("mode: AUTO_PASSTHROUGH".into(), "by virtual services only"),
        (
            format!("mode: SIMPLE, {SERVER_FILES}, maxProtocolVersion: TLSV1_1"),
            "nothing would be left",
        ),
        (
            format!(
                "mode: MUTUAL, {SERVER_FILES}, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2"
            ),
            "no version is left",
        ),
        (
            format!("mode: MUTUAL, {SERVER_FILES}, minProtocolVersion: TLSV9"),
            "expected one of TLS_AUTO",
        ),
        (
            format!("mode: MUTUAL, {SERVER_FILES}, cipherSuites: [AES128-SHA]"),
            "no cipher suite is left",
        ),
        (
            format!("mode: MUTUAL, {SERVER_FILES}, verifyCertificateSpki: [abc]"),
            "not a fingerprint",
        ),
        (
            format!("mode: MUTUAL, {SERVER_FILES}, verifyCertificateHash: ['{pin}']"),
            "not a fingerprint",
        ),
        ("mode: MUTUAL, credentialName: a, credentialNames: [b]".into(), "not both"),
        (
            "mode: SIMPLE, serverCertificate: /c, tlsCertificates: [{serverCertificate: /d, privateKey: /k}]"
                .into(),
            "not both",
        ),
        (
            "mode: SIMPLE, tlsCertificates: [{serverCertificate: /c, privateKey: /k}, {serverCertificate: /d}]"
                .into(),
            "needs its key",
        ),
        ("mode: SIMPLE, credentialNames: [a, ../b]".into(), "not a credential's name"),
        ("mode: MUTUAL, credentialNames: [a, b], caCrl: /l".into(), "stands for all files"),
        ("mode: ISTIO_MUTUAL, credentialNames: [a, b]".into(), "the gateway's own certificate"),
    ] {
        let all = errors(&[&https(&tls)]);
        assert!(all.iter().any(|p| p.to_string().contains(wanted)), "{tls}: {all:?}");
    }
    let tcp =
        "{port: {number: 443, name: h, protocol: TCP}, hosts: [a.example], tls: {mode: MUTUAL}}";
    one_error(&[&with_server(tcp)], "expected protocol TLS or HTTPS");
}

#[test]
fn a_list_of_one_certificate_is_that_certificate() {
    let of = |tls: &str| {
        let servers = compiled(&[&https(tls)], "").snapshot.rules.servers;
        format!("{:?}", servers[0].protocol)
    };
    let named = of("mode: SIMPLE, credentialName: web");
    assert_eq!(of("mode: SIMPLE, credentialNames: [web]"), named);
    assert_eq!(
        of(&format!("mode: MUTUAL, tlsCertificates: [{{{SERVER_FILES}}}]")),
        of(&format!("mode: MUTUAL, {SERVER_FILES}"))
    );
}

#[test]
fn every_certificate_of_a_list_is_one_of_the_server() {
    use crate::policy::{CredentialFiles, CredentialSource, ServerProtocol, ServerTls};
    let of = |tls: &str| -> ServerTls {
        let compiled = compiled(&[&https(tls)], "");
        let ServerProtocol::Terminate(tls) = &compiled.snapshot.rules.servers[0].protocol else {
            panic!("{tls}")
        };
        ServerTls::clone(tls)
    };
    let named = |name: &str| CredentialSource::Named(name.into());
    let three = of("mode: MUTUAL, credentialNames: [a, b, a, c]");
    let (a, b, c) = (named("a"), named("b"), named("c"));
    assert_eq!(three.certificates().collect::<Vec<_>>(), [&a, &b, &c]);
    let uses = compiled(&[&https("mode: SIMPLE, credentialNames: [a, b]")], "");
    let names: Vec<_> = uses.snapshot.credential_uses.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["a", "b"]);
    let files = |certificate: &str, key: &str, roots: Option<&str>, crl: Option<&str>| {
        CredentialSource::Files(CredentialFiles {
            certificate: certificate.into(),
            private_key: key.into(),
            ca_certificates: roots.map(Into::into),
            ca_crl: crl.map(Into::into),
        })
    };
    // Clients are held to one set of roots: the server's, or the first entry's.
    for roots in ["caCertificates: /r", "unused: x"] {
        let tls = of(&format!(
            "mode: MUTUAL, {roots}, caCrl: /l, tlsCertificates: [{{serverCertificate: /c, privateKey: /k, \
             caCertificates: /r}}, {{serverCertificate: /d, privateKey: /e, caCertificates: /other}}]"
        ));
        assert_eq!(tls.credential, files("/c", "/k", Some("/r"), Some("/l")), "{roots}");
        assert_eq!(tls.other_certificates, [files("/d", "/e", None, None)], "{roots}");
    }
}

#[test]
fn servers_that_end_tls() {
    use crate::policy::{
        CipherSuite, CredentialFiles, CredentialSource, InnerProtocol, ServerProtocol,
        ServerTlsMode, TlsVersion,
    };
    let settings = |text: &str| {
        let servers = compiled(&[text], "trustDomain: td\n").snapshot.rules.servers;
        let protocol = &servers[0].protocol;
        let ServerProtocol::Terminate(tls) = protocol else { panic!("{protocol}") };
        (**tls).clone()
    };
    let files = CredentialSource::Files(CredentialFiles {
        certificate: "/c".into(),
        private_key: "/k".into(),
        ca_certificates: Some("/r".into()),
        ca_crl: Some("/l".into()),
    });
    let tls = settings(&https(&format!(
        "mode: MUTUAL, {SERVER_FILES}, caCrl: /l, minProtocolVersion: TLSV1_3, subjectAltNames: [x], \
         cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384, AES128-SHA]"
    )));
    assert_eq!((&tls.mode, &tls.credential), (&ServerTlsMode::Mutual, &files));
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::V1_3, TlsVersion::V1_3));
    assert_eq!((tls.inside, tls.subject_alt_names), (InnerProtocol::Http, vec!["x".to_owned()]));
    assert_eq!(tls.cipher_suites, [CipherSuite::RsaAes256]);
    let own = settings(&https("mode: ISTIO_MUTUAL"));
    assert_eq!(own.credential, CredentialSource::Own);
    assert_eq!(
        own.mode,
        ServerTlsMode::IstioMutual(crate::types::TrustDomain::parse("td").unwrap())
    );
    assert_eq!((own.min_version, own.max_version), (TlsVersion::V1_2, TlsVersion::V1_3));
    let named = settings(&https("credentialName: a-b"));
    assert_eq!(named.mode, ServerTlsMode::Simple);
    assert_eq!(named.credential, CredentialSource::Named("a-b".into()));
    let raw = "{port: {number: 443, name: h, protocol: TLS}, hosts: [a.example], tls: {mode: OPTIONAL_MUTUAL, credentialName: a}}";
    assert_eq!(settings(&with_server(raw)).inside, InnerProtocol::Tcp);
    // What has no effect is told.
    let told = problems(
        &[&https(&format!(
            "mode: SIMPLE, {SERVER_FILES}, subjectAltNames: [x], minProtocolVersion: TLSV1_0"
        ))],
        "",
    );
    let told: Vec<_> = told.iter().map(|p| &*p.message).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    let bad = problems(&[], "trustDomain: Bad\n");
    assert!(bad[0].to_string().contains("found 'B' in the trust domain"), "{bad:?}");
}
