//! What a current API server refuses of a resource, and older ones took: it is in force here, with a warning.

use crate::config::{Severity, testing::compiled};

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

#[test]
fn each_is_warned_of_and_its_current_form_is_not() {
    let many: Vec<_> = (0..257).map(|n| format!("h{n}.example")).collect();
    let many = format!("[{}]", many.join(", "));
    let named = "number: 80, name: h, protocol: HTTP";
    for (old, current, expected) in [
        (http(", websocketUpgrade: true"), http(""), "has no such field"),
        (http(", timeout: 0s"), http(", timeout: 1s"), "refuses durations below 1ms"),
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
        (gateway(named, &many), gateway(named, "['*']"), "more than 256 hosts"),
    ] {
        let says = |text: &str| warnings(text).iter().any(|message| message.contains(expected));
        assert!(says(&old), "{expected}: {:?}", warnings(&old));
        assert!(!says(&current), "{expected}: {:?}", warnings(&current));
    }
}
