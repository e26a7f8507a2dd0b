//! Exemptions from enforcement: what each opens, and that nothing else is open, to nobody else.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    capture::Capture,
    denied::Wall,
    kubernetes::{MESH, TestCluster},
    plan,
    process::{Finished, Process},
    wait::{SOON, until_is},
};
use serde_json::json;

/// Asks a DNS server for a name, over UDP or TCP: exit code 0 where it answers.
const QUERY: &str = r#"
import socket, struct, sys
server, port, transport = sys.argv[1], int(sys.argv[2]), sys.argv[3]
name = b"".join(bytes([len(part)]) + part.encode() for part in "edition.cnn.com".split(".")) + b"\0"
query = struct.pack("!6H", 4711, 256, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
asking.settimeout(3)
asking.connect((server, port))
asking.send(query if transport == "udp" else struct.pack("!H", len(query)) + query)
answer = asking.recv(4096)
sys.exit(0 if len(answer) > 1 else 2)
"#;

fn with(exemptions: &str) -> String {
    format!("{MESH}exemptions:\n{exemptions}\n")
}

fn dns() -> String {
    with(&format!(
        "- name: cluster-dns\n  namespaces: [shop]\n  labels: {{k8s-app: kube-dns}}\n  to:\n  \
         - cidrs: [{}]\n    ports: [{{port: 53, protocol: UDP}}, {{port: 53}}]",
        plan::OUTSIDE_DNS
    ))
}

/// A cluster with its agent, its pod and a capture.
struct Site {
    node: Process,
    capture: Capture,
    cluster: TestCluster,
}

impl Site {
    fn new(mesh: &str) -> Self {
        let mut cluster = TestCluster::new().unwrap();
        cluster.apply_mesh(mesh);
        let node = cluster.start_node(&[]).unwrap();
        let capture = cluster.testbed.capture().unwrap();
        cluster.run_pod().unwrap();
        Self { node, capture, cluster }
    }

    fn query(&self, server: &str, port: &str, transport: &str) -> anyhow::Result<Finished> {
        let place = &self.cluster.pod.place;
        place.run("/usr/bin/python3", &["-c", QUERY, server, port, transport])
    }

    fn answers(&self, server: &str, port: &str, transport: &str) {
        let ok = || self.query(server, port, transport).unwrap().ok();
        let what = format!("an answer of {server} at {transport} port {port}");
        until_is(SOON, &what, ok, |ok| *ok)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.node.stderr()));
        self.capture.take();
    }

    fn is_denied(&self, server: &str, port: &str, transport: &str) {
        let wall =
            Wall { testbed: &self.cluster.testbed, node: &self.node, capture: &self.capture };
        let reason = if transport == "udp" { "protocol" } else { "no_route" };
        let what = format!("{transport} to {server} at port {port}");
        wall.stops(&what, &[reason], || self.query(server, port, transport)).unwrap();
    }

    /// Until the pod's policy has changed; after it, one attempt tells.
    fn until_denied(&self, server: &str, port: &str, transport: &str) {
        let denied = || !self.query(server, port, transport).unwrap().ok();
        until_is(SOON, "the exemption to end", denied, |denied| *denied).unwrap();
        self.capture.take();
        self.is_denied(server, port, transport);
    }
}

#[test]
fn dns_servers_reach_their_upstreams_and_nothing_else() {
    let site = Site::new(&dns());
    let dns = plan::OUTSIDE_DNS;
    // A pod of the same namespace without the label.
    site.is_denied(dns, "53", "udp");
    site.is_denied(dns, "53", "tcp");
    site.cluster.announce(json!({"k8s-app": "kube-dns"}));
    site.answers(dns, "53", "udp");
    site.answers(dns, "53", "tcp");
    // Another port there, the port elsewhere, and another protocol.
    site.is_denied(dns, "80", "tcp");
    site.is_denied(plan::ATTACKER, "53", "udp");
    site.is_denied(plan::ATTACKER, "9999", "udp");
    site.is_denied(plan::ATTACKER, "22", "tcp");
    // It is said in the log and in status.
    let sentence = format!(
        "cluster-dns (namespaces shop; labels k8s-app=kube-dns) reaches {dns}/32 at UDP port 53, \
         {dns}/32 at TCP port 53"
    );
    assert!(site.node.stderr().contains(&format!("exempt from enforcement: {sentence}")));
    assert!(site.cluster.status_of_node().unwrap().contains(&sentence));
    // It ends with the label, and with its entry.
    site.cluster.announce(json!({"app": "web"}));
    site.until_denied(dns, "53", "udp");
    site.cluster.announce(json!({"k8s-app": "kube-dns"}));
    site.answers(dns, "53", "udp");
    site.cluster.apply_mesh(MESH);
    site.until_denied(dns, "53", "udp");
    let status = site.cluster.status_of_node().unwrap();
    assert!(!status.contains("cluster-dns"), "{status}");
}

#[test]
fn a_network_plug_in_is_not_judged_and_its_neighbour_is() {
    let cni = |account: &str| {
        with(&format!("- {{name: cni, namespaces: [shop], serviceAccounts: [{account}]}}"))
    };
    // The pod's service account is `default`.
    let site = Site::new(&cni("calico-node"));
    site.is_denied(plan::ATTACKER, "9999", "udp");
    site.is_denied(plan::ATTACKER, "22", "tcp");
    site.cluster.apply_mesh(&cni("default"));
    site.answers(plan::ATTACKER, "9999", "udp");
    site.answers(plan::ATTACKER, "22", "tcp");
    let status = site.cluster.status_of_node().unwrap();
    let sentence = "cni (namespaces shop; service accounts default) is not judged";
    assert!(status.contains(sentence), "{status}");
    site.cluster.apply_mesh(&cni("calico-node"));
    site.until_denied(plan::ATTACKER, "9999", "udp");
    site.until_denied(plan::ATTACKER, "22", "tcp");
}
