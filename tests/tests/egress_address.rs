//! Static egress addresses: external hosts see a workload come from the address that is set for it, and where the
//! gateway does not have that address, the workload is refused and nobody else is.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    cluster::Cluster,
    plan,
    process::{Place, Process},
    testbed::{Testbed, mesh_yaml},
    wait::{SOON, until, until_is},
};
use serde_json::Value;

const PLAIN: &str = "http://edition.cnn.com/politics";
const SECURE: &str = "https://edition.cnn.com/politics";
/// A further address for the gateway's host.
const ADDRESS: &str = "10.10.0.101";

/// The pod is `web` of `shop`, its neighbour `job`.
fn mesh() -> String {
    format!(
        "{}accessLogEncoding: JSON\nworkloads:\n\
         - name: web\n  namespace: shop\n  labels: {{app: web}}\n  addresses: [{}]\n  interface: {}\n\
         - name: job\n  namespace: shop\n  labels: {{app: job}}\n  addresses: [{}]\n  interface: {}\n\
         egressAddresses:\n- name: web\n  addresses: [{ADDRESS}]\n  labels: {{app: web}}\n",
        mesh_yaml(1).replace("direct: registry\n", ""),
        plan::POD,
        plan::POD_INTERFACE,
        plan::NEIGHBOUR,
        plan::NEIGHBOUR_INTERFACE,
    )
}

const POLICY: &str = "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\n\
    metadata: {name: news, namespace: shop}\nspec:\n  rules:\n  - hosts: [edition.cnn.com]\n    \
    ports: [{port: 80, protocol: HTTP}, {port: 443, protocol: TLS}]\n";

fn status(place: &Place, url: &str) -> String {
    let args = ["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", url];
    place.run("curl", &args).unwrap().stdout
}

fn sees(place: &Place, url: &str, expected: &str) {
    let what = format!("{url} to give {expected}");
    until_is(SOON, &what, || status(place, url), |seen| seen == expected).unwrap();
}

/// The last line of the gateway's log for this workload that is as wanted.
fn logged(gateway: &Process, workload: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let find = || {
        let text = gateway.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.rev().find(|line| line["workload"] == workload && wanted(line))
    };
    until(SOON, &format!("a line for {workload}"), find).unwrap()
}

#[test]
fn a_workload_is_seen_at_its_address_or_not_at_all() {
    let testbed = Testbed::test(1).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    testbed.apply_mesh(&mesh()).unwrap();
    testbed.apply("policy.yaml", POLICY).unwrap();
    let gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let (pod, neighbour) = (testbed.pod(), &cluster.neighbour);

    // The gateway does not have it: nothing is dialled from another one.
    sees(neighbour, PLAIN, "301");
    sees(pod, PLAIN, "503");
    sees(pod, SECURE, "000");
    let reason = "egress_address_unavailable";
    let http = logged(&gateway, "web", |line| line["response_code"] == 503);
    let tls = logged(&gateway, "web", |line| line["requested_server_name"] == "edition.cnn.com");
    for line in [http, tls] {
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["response_flags"], "UF", "{line}");
        assert_eq!(line["upstream_local_address"], Value::Null, "{line}");
        let why = line["upstream_transport_failure_reason"].as_str().unwrap();
        assert!(why.contains(&format!("{ADDRESS} is no address of this gateway")), "{line}");
    }
    assert!(testbed.stat(0, &format!("egress.denied.{reason}")).unwrap() >= 2);
    let told = format!("{ADDRESS} of the egress addresses \"web\" is no address of this host");
    assert!(gateway.stderr().contains(&told), "{}", gateway.stderr());

    // Once it has, the next connection is dialled from it.
    let host = testbed.gateway(0);
    let add = ["address", "add", &format!("{ADDRESS}/24"), "dev", plan::UPLINK];
    assert!(host.run("ip", &add).unwrap().ok());
    let local =
        |line: &Value| line["upstream_local_address"].as_str().unwrap_or_default().to_owned();
    for (url, expected) in [(PLAIN, "301"), (SECURE, "200")] {
        sees(pod, url, expected);
        sees(neighbour, url, expected);
        let is_tls = url == SECURE;
        let wanted =
            |line: &Value| (line["protocol"] == Value::Null) == is_tls && !local(line).is_empty();
        let line = logged(&gateway, "web", wanted);
        assert!(local(&line).starts_with(&format!("{ADDRESS}:")), "{line}");
        let line = logged(&gateway, "job", wanted);
        assert!(local(&line).starts_with(&format!("{}:", plan::GATEWAYS[0])), "{line}");
    }
}
