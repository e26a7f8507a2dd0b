//! Ports at which in-cluster hosts may take packets out of datagrams: closed to workloads, at every hook that judges
//! datagrams.

use egress_tests::{
    cluster::Cluster,
    denied::{Attempt, Wall, all_get_out, attempt},
    process::{Finished, Place},
    testbed::Testbed,
    wait::{SOON, until},
};

/// A datagram: connected or not, ADDRESS PORT. Exit code: 1 refused by the kernel, 2 sent.
const SENDER: &str = r#"
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
try:
    if kind == "connected":
        s.connect((address, port))
        s.send(b"a packet")
    else:
        s.sendto(b"a packet", (address, port))
except OSError as error:
    print(error)
    sys.exit(1)
sys.exit(2)
"#;

const PORTS: [(&str, u16); 3] = [("MPLS in UDP", 6635), ("GUE", 6080), ("ESP in UDP", 4500)];
/// In the cluster, and with no route but the default one: what is sent there is seen outside.
const INSIDE: [&str; 2] = ["10.244.99.9", "fd00:10:99::9"];

fn send(from: &Place, kind: &str, address: &str, port: u16) -> anyhow::Result<Finished> {
    from.run("/usr/bin/python3", &["-c", SENDER, kind, address, &port.to_string()])
}

#[test]
fn every_hook_closes_the_ports_of_tunnels() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    // Nobody under enforcement, behind a bridge of no pods: the uplink alone sees what it sends.
    let other = testbed.inner(testbed.app(), "other", "10.244.9").unwrap();
    let (pod, elsewhere, on_host) =
        (testbed.pod(), testbed.outside_cgroup(), testbed.host_network());
    let reasons: &[&str] = &["encapsulation"];
    let mut attempts: Vec<Attempt<'_>> = Vec::new();
    for (name, port) in PORTS {
        for address in INSIDE {
            let from: [(&str, &Place, &str, &[&str]); 5] = [
                ("a pod's sendto", pod, "unconnected", &["sendmsg"]),
                ("a pod's connected socket", pod, "connected", &["skb"]),
                ("a socket of another cgroup", &elsewhere, "unconnected", &["pod"]),
                ("a socket on the node's network", &on_host, "connected", &["skb"]),
                ("another network", &other, "unconnected", &["uplink"]),
            ];
            for (what, place, kind, hooks) in from {
                // That network has no IPv6.
                if what == "another network" && address.contains(':') {
                    continue;
                }
                attempts.push(attempt(
                    format!("{name}, {what}, to {address}"),
                    hooks,
                    reasons,
                    move || send(place, kind, address, port),
                ));
            }
        }
    }
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_all(&attempts).unwrap();
    // The twin: another port of the same hosts.
    for (place, address) in
        [pod, &elsewhere, &on_host].into_iter().flat_map(|place| INSIDE.map(|to| (place, to)))
    {
        capture.take();
        let sent = send(place, "unconnected", address, 4501).unwrap();
        assert_eq!(sent.code, 2, "{sent:?}");
        until(SOON, "another port", || (!capture.take().is_empty()).then_some(())).unwrap();
    }
}
