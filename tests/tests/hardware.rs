//! What a pod says of others on its link: whose hardware address is whose, and what became of packets
//! that it was never sent.
#![expect(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

use egress_tests::{
    cluster::Cluster,
    container::container,
    denied::Wall,
    plan,
    process::{Finished, Place},
    testbed::Testbed,
    wait::{SOON, until},
};

const NEIGHBOUR_MAC: &str = "02:00:0a:f4:01:14";
const ERROR: &str = include_str!("../src/icmp.py");

/// Whether the node's bridge takes the pod's port for that of this hardware address.
fn is_at_pods_port(testbed: &Testbed, hardware: &str) -> bool {
    let shown = testbed.app().run("bridge", &["fdb", "show", "dev", plan::POD_INTERFACE]).unwrap();
    assert!(shown.ok(), "{shown:?}");
    shown.stdout.contains(hardware)
}

/// Whether the neighbour is answered by the node.
fn is_served(cluster: &Cluster) -> bool {
    cluster.neighbour.run("ping", &["-c1", "-W1", plan::POD_ROUTER]).unwrap().ok()
}

#[test]
fn a_neighbours_hardware_address_gets_nobody_its_traffic() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let elsewhere = testbed.outside_cgroup();
    let forge = || {
        let frame =
            ["eth0", plan::POD_ROUTER_MAC, "udp", plan::POD, plan::POD_ROUTER, "53", NEIGHBOUR_MAC];
        testbed.frame(&elsewhere, &frame).unwrap()
    };
    // Without enforcement the bridge takes the pod's port for the neighbour's.
    assert!(is_served(&cluster));
    until(SOON, "the pod to have the neighbour's port", || {
        // What the neighbour says of itself meanwhile moves it back.
        forge();
        is_at_pods_port(&testbed, NEIGHBOUR_MAC).then_some(())
    })
    .unwrap();
    until(SOON, "the neighbour to speak, and have its port again", || {
        (is_served(&cluster) && !is_at_pods_port(&testbed, NEIGHBOUR_MAC)).then_some(())
    })
    .unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_at(&["pod"], "a forged frame", &["spoofed_hardware"], || Ok(forge())).unwrap();
    assert!(!is_at_pods_port(&testbed, NEIGHBOUR_MAC), "the frame got to the bridge");
    // Nor does the pod become the neighbour by taking its address for its own, and not after the agent
    // has looked again either.
    let ask = |hardware| {
        let script = format!("ip link set eth0 address {hardware}; $ASK udp 10.10.0.2:7007");
        container(&elsewhere, &script)
    };
    wall.stops_at(&["pod"], "the pod itself", &["spoofed_hardware"], || ask(NEIGHBOUR_MAC))
        .unwrap();
    let mut ended = node;
    ended.end().unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_at(&["pod"], "the pod after a restart", &["spoofed_hardware"], || {
        ask(NEIGHBOUR_MAC)
    })
    .unwrap();
    assert!(!is_at_pods_port(&testbed, NEIGHBOUR_MAC), "the pod's frames got to the bridge");
    assert!(is_served(&cluster));
    // With its own it is itself again.
    let done = ask("02:00:0a:f4:01:0a").unwrap();
    assert!(done.ok(), "{done:?}");
}

/// What the neighbour takes for the largest packet on its way to a gateway, if it learned of one.
fn path_mtu(cluster: &Cluster, gateway: &str) -> Option<u32> {
    let shown = cluster.neighbour.run("ip", &["route", "get", gateway]).unwrap();
    assert!(shown.ok(), "{shown:?}");
    let mut words = shown.stdout.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

#[test]
fn nobody_lowers_a_neighbours_path_mtu_to_a_gateway() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let (pod, elsewhere) = (testbed.pod(), &testbed.outside_cgroup());
    let ways =
        [(plan::NEIGHBOUR, plan::GATEWAYS[0], 700), (plan::NEIGHBOUR_V6, "fd00:10:10::11", 1300)];
    let forge =
        |place: &Place, (to, gateway, mtu): (&str, &str, u32)| -> anyhow::Result<Finished> {
            let mtu = mtu.to_string();
            place.run("/usr/bin/python3", &["-c", ERROR, to, to, gateway, &mtu])
        };
    for way in ways {
        let (_, gateway, mtu) = way;
        assert_eq!(path_mtu(&cluster, gateway), None);
        let sent = forge(elsewhere, way).unwrap();
        until(SOON, &format!("the neighbour to believe it; {sent:?}"), || {
            (path_mtu(&cluster, gateway) == Some(mtu)).then_some(())
        })
        .unwrap();
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        let flushed = cluster.neighbour.run("ip", &[family, "route", "flush", "cache"]).unwrap();
        assert!(flushed.ok(), "{flushed:?}");
        assert_eq!(path_mtu(&cluster, gateway), None);
    }
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let capture = testbed.capture().unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    // By the pod's interface alone, and by its sockets.
    for (place, hook) in [(elsewhere, "pod"), (pod, "packet")] {
        for way in ways {
            let what = format!("{way:?} at {hook}");
            wall.stops(&what, &["forged_error"], || forge(place, way)).unwrap();
            assert_eq!(path_mtu(&cluster, way.1), None, "{what}");
        }
    }
    // An error about what the neighbour sent the pod gets there.
    let refused = "import socket, sys\n\
        s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.settimeout(10)\ns.connect((sys.argv[1], 9))\ns.send(b'x')\n\
        try:\n    s.recv(9)\nexcept ConnectionRefusedError:\n    print('refused')\n";
    for own in [plan::POD, plan::POD_V6] {
        let done = cluster.neighbour.run("/usr/bin/python3", &["-c", refused, own]).unwrap();
        assert_eq!(done.stdout.trim(), "refused", "{own}: {done:?}");
    }
}
