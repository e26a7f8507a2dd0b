//! Authorization policies of the gateway, from a pod: what they allow over HTTP and TLS, and each
//! time what they deny.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    access_log::{self, Line},
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};

const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec:
  hosts: [edition.cnn.com, www.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: shop}
spec:
  selector: {istio: egressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [edition.cnn.com, www.example.com]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: edition.cnn.com, port: {number: 80}}}]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [edition.cnn.com, www.example.com]}]
    route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 443}}}]
  - match: [{gateways: [egress], port: 443, sniHosts: [edition.cnn.com]}]
    route: [{destination: {host: edition.cnn.com, port: {number: 443}}}]
  - match: [{gateways: [egress], port: 443, sniHosts: [www.example.com]}]
    route: [{destination: {host: www.example.com, port: {number: 443}}}]
";
const PAGE: &str = "http://edition.cnn.com/politics";
const OTHER_PAGE: &str = "http://edition.cnn.com/sport";
const SECURE: &str = "https://edition.cnn.com/politics";
const OTHER_SECURE: &str = "https://www.example.com/politics";
const POLICY: &str = "policy.yaml";

/// Applies a policy for the gateway.
fn apply(testbed: &Testbed, spec: &str) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: web, \
         namespace: istio-system}}\nspec:\n  selector: {{matchLabels: {{istio: egressgateway}}}}\n{spec}"
    );
    testbed.apply(POLICY, &text).unwrap();
}

/// Waits until curl sees this for each page, `curl` standing for any of its errors.
fn sees(testbed: &Testbed, expected: [(&str, &str); 4]) {
    for (url, expected) in expected {
        let ask = || testbed.curl_status(&[url]).unwrap();
        let fits = |seen: &String| match expected {
            "curl" => seen.starts_with("curl: "),
            status => seen == status,
        };
        until_is(SOON, &format!("{url} to give {expected}"), ask, fits).unwrap();
    }
}

fn logged(gateway: &Process, what: &str, wanted: impl Fn(&Line) -> bool) -> Line {
    let find = || access_log::lines(&gateway.stdout()).into_iter().rev().find(|line| wanted(line));
    until(SOON, what, find).unwrap()
}

#[test]
fn policies_decide_about_requests_and_server_names() {
    let testbed = Testbed::test(1).unwrap();
    let mesh = format!(
        "{}workloads:\n- name: web\n  namespace: shop\n  addresses: [{}]\n  interface: {}\n",
        mesh_yaml(1),
        plan::POD,
        plan::POD_INTERFACE
    );
    testbed.apply_mesh(&mesh).unwrap();
    testbed.apply("routes.yaml", ROUTES).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let everything = [(PAGE, "301"), (OTHER_PAGE, "301"), (SECURE, "200"), (OTHER_SECURE, "200")];
    let nothing = [(PAGE, "403"), (OTHER_PAGE, "403"), (SECURE, "curl"), (OTHER_SECURE, "curl")];
    sees(&testbed, everything);

    // What no rule allows is denied.
    apply(
        &testbed,
        "  rules:\n  - to: [{operation: {hosts: [edition.cnn.com], methods: [GET], paths: [/politics]}}]\n  \
         - when: [{key: connection.sni, values: [edition.cnn.com]}]\n",
    );
    let some = [(PAGE, "301"), (OTHER_PAGE, "403"), (SECURE, "200"), (OTHER_SECURE, "curl")];
    sees(&testbed, some);
    let none = "rbac_access_denied_matched_policy[none]";
    let line = logged(&gateway, "the request's line", |line| {
        line.code == 403 && line.request == "GET /sport HTTP/1.1"
    });
    assert!(line.text.contains(none) && line.flags == "-", "{line:?}");
    let line = logged(&gateway, "the connection's line", |line| {
        line.request == "- - -" && line.server_name == "www.example.com" && line.text.contains(none)
    });
    assert_eq!(line.upstream_host, "-", "{line:?}");

    // A rule that denies counts for more.
    apply(
        &testbed,
        &format!(
            "  action: DENY\n  rules:\n  - from: [{{source: {{ipBlocks: [{}]}}}}]\n",
            plan::POD
        ),
    );
    sees(&testbed, nothing);
    logged(&gateway, "the denying rule", |line| {
        line.text
            .contains("rbac_access_denied_matched_policy[ns[istio-system]-policy[web]-rule[0]]")
    });
    let body = testbed.curl(&[PAGE]).unwrap().stdout;
    assert!(body.contains("AuthorizationPolicy istio-system/web"), "{body}");
    apply(&testbed, "  action: DENY\n  rules:\n  - from: [{source: {ipBlocks: [192.0.2.1]}}]\n");
    sees(&testbed, everything);

    // Who asks.
    apply(&testbed, "  rules:\n  - from: [{source: {namespaces: [other]}}]\n");
    sees(&testbed, nothing);
    apply(&testbed, "  rules:\n  - from: [{source: {namespaces: [shop]}}]\n");
    sees(&testbed, everything);

    // What cannot be honoured denies.
    apply(&testbed, "  action: CUSTOM\n  provider: {name: opa}\n  rules: [{}]\n");
    sees(&testbed, nothing);
    testbed.delete(POLICY).unwrap();
    sees(&testbed, everything);
}
