//! Packets that say something else once they have been judged: a checksum that is filled in over an
//! address or a port. The app node's uplink fills checksums in, as every real device does.

use egress_tests::{
    cluster::Cluster,
    container::container,
    denied::{Wall, attempt},
    process::{Finished, Place},
    testbed::Testbed,
    wait::{SOON, until},
    wiring::{Checksums, uplink_checksums},
};

const SCRIPT: &str = include_str!("../src/unfinished.py");

/// Sends one with a container's capabilities.
fn send(place: &Place, args: &str) -> anyhow::Result<Finished> {
    container(place, &format!("exec /usr/bin/python3 -c '{SCRIPT}' {args}"))
}

/// What is sent, to inside addresses where nobody is, and how it ends when it has left.
const REWRITTEN: [(&str, &str, &str); 6] = [
    ("the destination", "csum eth0 10.244.99.9 20 10 cb00", "> 203.0.99.9"),
    ("the source", "csum eth0 10.244.99.9 20 8 0114", " 10.244.1.20 > 10.244.99.9"),
    ("the port", "csum eth0 10.244.99.9 34 2 0035", " 10.244.1.10 > 10.244.99.9"),
    (
        "the IPv6 destination",
        "csum eth0 fd00:10:99::9 20 18 2001",
        "> 20010010009900000000000000000009",
    ),
    (
        "the IPv6 source",
        "csum eth0 fd00:10:99::9 20 16 0020",
        " fd000010024400010000000000000020 > fd000010009900000000000000000009",
    ),
    (
        "the IPv6 destination, from a tap interface",
        "csum tap fd00:10:99::9 20 18 2001",
        "> 20010010009900000000000000000009",
    ),
];

#[test]
fn a_checksum_that_is_filled_in_later_changes_nothing_that_was_judged() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let elsewhere = testbed.outside_cgroup();
    let capture = testbed.capture().unwrap();
    // Without enforcement each leaves as somebody else's, or for somewhere else.
    for (what, args, expected) in REWRITTEN {
        capture.take();
        let sent = send(&elsewhere, args).unwrap();
        until(SOON, &format!("{what}: {expected:?} outside; {sent:?}"), || {
            capture.take().iter().any(|frame| frame.ends_with(expected)).then_some(())
        })
        .unwrap();
    }
    let refused: &[&str] = &["partial_checksum"];
    let pod = &elsewhere;
    let attempts =
        REWRITTEN.map(|(what, args, _)| attempt(what, &["pod"], refused, move || send(pod, args)));
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    for checksums in [Checksums::Filled, Checksums::Left] {
        uplink_checksums(&testbed.app().ns, checksums).unwrap();
        wall.stops_all(&attempts).unwrap();
        // What the pod's own kernel leaves to be filled in is as it should be.
        for ask in ["udp 10.10.0.2:7007", "tcp 10.244.2.10:7007", "udp [fd00:10:10::2]:7007"] {
            let done = container(&elsewhere, &format!("$ASK {ask}")).unwrap();
            assert!(done.ok(), "{ask}, {checksums:?}: {done:?}");
        }
    }
}
