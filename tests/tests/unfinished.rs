//! Packets that say something else once they have been judged: a checksum that is filled in over an
//! address or a port, at a pod's interface and at the uplink. The app node's uplink fills checksums in, as every real device does.

use std::{
    io::{self, Write as _},
    net::UdpSocket,
    time::Duration,
};

use egress_tests::{
    cluster::Cluster,
    container::container,
    denied::{Wall, all_get_out, attempt},
    plan,
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

/// What is sent, to in-cluster addresses where nobody is, and how it ends when it has left.
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

/// What a workload on the host's network sends by the uplink itself, and how it ends when it has left.
const REWRITTEN_AT_UPLINK: [(&str, &str, &str); 4] = [
    ("the node's destination", "csum uplink 10.244.99.9 20 10 cb00", "> 203.0.99.9"),
    ("the node's source", "csum uplink 10.244.99.9 20 8 0114", " 10.10.1.20 > 10.244.99.9"),
    (
        "the node's IPv6 destination",
        "csum uplink fd00:10:99::9 20 18 2001",
        "> 20010010009900000000000000000009",
    ),
    (
        "the node's IPv6 source",
        "csum uplink fd00:10:99::9 20 16 0020",
        " fd000010001000000000000000000020 > fd000010009900000000000000000009",
    ),
];

/// The same datagrams with the place that is right: the checksum of their UDP header.
const AS_IT_SHOULD_BE: [(&str, &str); 3] = [
    ("csum eth0 10.244.99.9 34 6 1234", " 10.244.1.10 > 10.244.99.9"),
    ("csum eth0 fd00:10:99::9 54 6 1234", "> fd000010009900000000000000000009"),
    ("csum tap fd00:10:99::9 54 6 1234", "> fd000010009900000000000000000009"),
];

#[test]
fn a_checksum_that_is_filled_in_later_changes_nothing_that_was_judged() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let (elsewhere, on_host) = (testbed.outside_cgroup(), testbed.host_network());
    let (pod, on_host) = (&elsewhere, &on_host);
    let capture = testbed.capture().unwrap();
    let leaves = |place: &Place, (what, args, expected): (&str, &str, &str)| {
        capture.take();
        let sent = send(place, args).unwrap();
        until(SOON, &format!("{what}: {expected:?} outside; {sent:?}"), || {
            capture.take().iter().any(|frame| frame.ends_with(expected)).then_some(())
        })
        .unwrap();
    };
    // Without enforcement each leaves with another workload's address, or for somewhere else.
    REWRITTEN.iter().for_each(|row| leaves(pod, *row));
    REWRITTEN_AT_UPLINK.iter().for_each(|row| leaves(on_host, *row));
    the_port_changes(&testbed, pod);
    capture.take();
    let refused: &[&str] = &["partial_checksum"];
    let at_pod =
        REWRITTEN.map(|(what, args, _)| attempt(what, &["pod"], refused, move || send(pod, args)));
    // Where the kernel asks BPF security modules, there is no such socket.
    let hooks: &[&str] = &["uplink", "socket"];
    let refused: &[&str] = &["partial_checksum", "socket_family"];
    let at_uplink = REWRITTEN_AT_UPLINK
        .map(|(what, args, _)| attempt(what, hooks, refused, move || send(on_host, args)));
    let attempts: Vec<_> = at_pod.into_iter().chain(at_uplink).collect();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    for checksums in [Checksums::Filled, Checksums::Left] {
        uplink_checksums(&testbed.app().ns, checksums).unwrap();
        wall.stops_all(&attempts).unwrap();
        // What the pod's own kernel leaves to be filled in is as it should be.
        for ask in ["udp 10.10.0.2:7007", "tcp 10.244.2.10:7007", "udp [fd00:10:10::2]:7007"] {
            for place in [pod, on_host] {
                let done = container(place, &format!("$ASK {ask}")).unwrap();
                assert!(done.ok(), "{ask}, {checksums:?}: {done:?}");
            }
        }
        AS_IT_SHOULD_BE.iter().for_each(|(args, expected)| leaves(pod, (args, args, expected)));
    }
}

/// What the metadata of an `AF_XDP` socket ask for, and how it ends when it has left.
const BY_XDP: [(&str, &str, &str); 2] = [
    ("the destination, by AF_XDP", "xdp eth0 10.244.99.9 20 10 cb00", "> 203.0.99.9"),
    (
        "the IPv6 source, by AF_XDP",
        "xdp eth0 fd00:10:99::9 20 16 0020",
        " fd000010024400010000000000000020 > fd000010009900000000000000000009",
    ),
];

/// Metadata of a frame ask for a checksum anywhere in it, and for a time at which it leaves.
#[test]
fn what_the_metadata_of_an_xdp_socket_ask_for_changes_nothing_that_was_judged() {
    let testbed = Testbed::test(0).unwrap();
    let elsewhere = testbed.outside_cgroup();
    let pod = &elsewhere;
    let capture = testbed.capture().unwrap();
    let launch = format!("launch eth0 {}", plan::ATTACKER);
    // The checksum since Linux 6.8, the time since 6.14.
    let is_known = |args: &str| {
        let sent = send(pod, args).unwrap();
        if sent.code == 3 {
            // Past the harness, which shows only the output of tests that fail. Nobody may be listening.
            writeln!(io::stderr(), "not applicable: {args}: {}", sent.stdout.trim()).ok();
            return false;
        }
        assert_eq!(sent.code, 2, "{args}: {sent:?}");
        true
    };
    let by_xdp: Vec<_> = BY_XDP.into_iter().filter(|(_, args, _)| is_known(args)).collect();
    let has_launch = is_known(&launch);
    let leaves = |(what, args, expected): (&str, &str, &str)| {
        capture.take();
        let sent = send(pod, args).unwrap();
        until(SOON, &format!("{what}: {expected:?} outside; {sent:?}"), || {
            capture.take().iter().any(|frame| frame.ends_with(expected)).then_some(())
        })
        .unwrap();
    };
    by_xdp.iter().for_each(|row| leaves(*row));
    let attacker = format!("> {}", plan::ATTACKER);
    if has_launch {
        leaves(("a frame with a time", &launch, &attacker));
    }
    let node = testbed.start_node().unwrap();
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    let hooks: &[&str] = &["pod"];
    let refused: &[&str] = &["partial_checksum"];
    // The twins: the right checksum, and inside.
    if !by_xdp.is_empty() {
        let judged = |row: &(&'static str, &'static str, &str)| {
            let (what, args, _) = *row;
            attempt(what, hooks, refused, move || send(pod, args))
        };
        wall.stops_all(&by_xdp.iter().map(judged).collect::<Vec<_>>()).unwrap();
        leaves(("the right checksum", "xdp eth0 10.244.99.9 34 6 1234", "> 10.244.99.9"));
    }
    if has_launch {
        wall.stops_at(hooks, "a frame with a time", &["protocol"], || send(pod, &launch)).unwrap();
        leaves(("a frame with a time, inside", "launch eth0 10.244.99.9", "> 10.244.99.9"));
    }
}

/// A header about segmentation decides how a packet is cut up. Whatever it says, what leaves has the source and the
/// destination that were judged.
#[test]
fn no_header_about_segmentation_changes_what_was_judged() {
    let testbed = Testbed::test(0).unwrap();
    let elsewhere = testbed.outside_cgroup();
    let pod = &elsewhere;
    let capture = testbed.capture().unwrap();
    let outside = format!("gso eth0 {}", plan::ATTACKER);
    let from_tap = format!("gso tap {}", plan::ATTACKER_V6);
    let all = [("segments, outside", &outside), ("segments from a tap, outside", &from_tap)];
    let attempts = all.map(|(what, args)| {
        attempt(what, &["pod"], &["protocol", "partial_checksum"], move || send(pod, args))
    });
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node().unwrap();
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    for checksums in [Checksums::Filled, Checksums::Left] {
        uplink_checksums(&testbed.app().ns, checksums).unwrap();
        wall.stops_all(&attempts).unwrap();
        for (args, expected) in [
            ("gso eth0 10.244.99.9", " 10.244.1.10 > 10.244.99.9"),
            (
                "gso eth0 fd00:10:99::9",
                " fd000010024400010000000000000010 > fd000010009900000000000000000009",
            ),
            (
                "gso tap fd00:10:99::9",
                " fd000010024400010000000000000010 > fd000010009900000000000000000009",
            ),
        ] {
            capture.take();
            let sent = send(pod, args).unwrap();
            assert_eq!(sent.code, 2, "{args}: {sent:?}");
            let arrived = until(SOON, &format!("{args} outside; {sent:?}"), || {
                let frames = capture.take();
                (!frames.is_empty()).then_some(frames)
            })
            .unwrap();
            let odd: Vec<_> = arrived.iter().filter(|frame| !frame.ends_with(expected)).collect();
            assert_eq!(odd, [""; 0], "{args}, {checksums:?}");
        }
    }
}

/// The capture doesn't show ports: somebody who listens at the other one gets the datagram.
fn the_port_changes(testbed: &Testbed, pod: &Place) {
    let outside = &testbed.outside().ns;
    outside.ip(&["addr", "add", "10.244.99.9/32", "dev", "lo"]).expect("ip");
    let socket =
        outside.enter(|| UdpSocket::bind("10.244.99.9:53")).expect("setns").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    // This one is sent to port 7007.
    let sent = send(pod, "csum eth0 10.244.99.9 34 2 0035").expect("python3");
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).unwrap_or_else(|error| {
        panic!("nothing arrived at the other port: {error}; {sent:?}");
    });
    assert!(buffer[..length].starts_with(b"the pod's secret"), "{:?}", &buffer[..length]);
    outside.ip(&["addr", "del", "10.244.99.9/32", "dev", "lo"]).expect("ip");
}
