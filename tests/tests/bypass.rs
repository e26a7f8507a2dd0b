//! Every way around that we know of. `testbed.rs` shows that each of them works without the agent;
//! here each is refused, with its reason in an event and in a counter, and the capture outside
//! stays empty.

use egress_tests::{
    capture::Capture,
    manifests::Walkthrough,
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, until, until_is},
};

/// An attempt: how, whether the kernel refuses it to its face (else it is dropped on the way), and
/// the reasons that may be given.
type Attempt<'a> = (&'a [&'a str], Face, &'a [&'a str]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Face {
    /// The system call fails.
    Refused,
    /// It is sent, and never arrives.
    Dropped,
}

const UDP: &str = "9999";

#[test]
fn no_way_around_lets_a_packet_out() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();
    assert_eq!(capture.frames(), Vec::<String>::new());

    let inside: &[Attempt<'_>] = &[
        (&["tcp", plan::ATTACKER, "22"], Face::Refused, &["no_route"]),
        (&["tcp", plan::ATTACKER_V6, "22"], Face::Refused, &["no_route"]),
        (&["tcp-mapped", plan::ATTACKER, "22"], Face::Refused, &["no_route"]),
        (&["mptcp", plan::ATTACKER, "22"], Face::Refused, &["no_route"]),
        (&["fastopen", plan::ATTACKER, "22"], Face::Refused, &["no_route"]),
        (&["tcp", plan::METADATA, "80"], Face::Refused, &["denied_prefix"]),
        (&["udp", plan::ATTACKER, UDP], Face::Refused, &["protocol", "no_route"]),
        (&["udp", plan::ATTACKER_V6, UDP], Face::Refused, &["protocol", "no_route"]),
        (&["udp", plan::ATTACKER, "443"], Face::Refused, &["protocol", "no_route"]),
        (&["udp", plan::METADATA, UDP], Face::Refused, &["denied_prefix"]),
        (&["udp-connected", plan::ATTACKER, UDP], Face::Refused, &["protocol", "no_route"]),
        (&["udp-mapped", plan::ATTACKER, UDP], Face::Refused, &["protocol", "no_route"]),
        // From here on no connect hook fires; the packets are dropped.
        (&["udplite", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["ping-socket", plan::ATTACKER], Face::Dropped, &["protocol"]),
        (&["ping-socket", plan::ATTACKER_V6], Face::Dropped, &["protocol"]),
        (&["raw-icmp", plan::ATTACKER], Face::Dropped, &["protocol"]),
        (&["raw-icmp", plan::ATTACKER_V6], Face::Dropped, &["protocol"]),
        (&["raw-ip", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["raw-options", plan::ATTACKER, UDP], Face::Dropped, &["ip_options"]),
        (&["raw-spoofed", plan::ATTACKER, UDP], Face::Dropped, &["spoofed_source", "protocol"]),
        (&["ipip", plan::ATTACKER], Face::Dropped, &["protocol"]),
        (&["packet", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["vlan", plan::ATTACKER, UDP], Face::Dropped, &["ether_type"]),
    ];
    for attempt in inside {
        fails(&testbed, testbed.pod(), &node, &capture, *attempt);
    }

    // A process in the pod's network but not in its cgroup: only the wall is left.
    let elsewhere = testbed.outside_cgroup();
    let outside: &[Attempt<'_>] = &[
        (&["tcp", plan::ATTACKER, "22"], Face::Dropped, &["no_route", "not_redirected"]),
        // Even to the port and address that the gateway would serve.
        (&["tcp", plan::WEB, "443"], Face::Dropped, &["not_redirected"]),
        (&["tcp", plan::WEB_V6, "443"], Face::Dropped, &["not_redirected"]),
        (&["udp", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["udp", plan::METADATA, UDP], Face::Dropped, &["denied_prefix"]),
        (&["packet", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["ping-socket", plan::ATTACKER], Face::Dropped, &["protocol"]),
    ];
    for attempt in outside {
        fails(&testbed, &elsewhere, &node, &capture, *attempt);
    }

    // A workload on the host's network has no pod interface; the uplink judges it.
    let host = testbed.host_network();
    let on_host: &[Attempt<'_>] = &[
        (&["tcp", plan::ATTACKER, "22"], Face::Refused, &["no_route"]),
        (&["udplite", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
        (&["packet-uplink", plan::ATTACKER, UDP], Face::Dropped, &["protocol"]),
    ];
    for attempt in on_host {
        fails(&testbed, &host, &node, &capture, *attempt);
    }
    let allowed = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "https://edition.cnn.com/"];
    assert_eq!(host.run("curl", &allowed).unwrap().stdout, "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
    // The same frame of the node's own process leaves: it is the cgroup that makes the difference.
    testbed.probe_from(testbed.app(), &["packet-uplink", plan::ATTACKER, UDP]).unwrap();
    until(SOON, "the node's own frame", || (!capture.take().is_empty()).then_some(())).unwrap();

    // The gateway's own ports, on its address.
    for port in ["15000", "15021", "22"] {
        let probe = testbed.probe(&["tcp", plan::GATEWAYS[0], port]).unwrap();
        assert_eq!(probe.code, 1, "{port}: {probe:?}");
    }
    // By address instead of name: the gateway knows no such host.
    assert_eq!(testbed.curl_status(&["-k", "https://198.51.100.10/"]).unwrap(), "curl: (35)");
    // An allowed name on the attacker's address: the gateway dials its own resolution.
    let resolve = format!("edition.cnn.com:443:{}", plan::ATTACKER);
    let lied = testbed.curl_status(&["--resolve", &resolve, "https://edition.cnn.com/"]);
    assert_eq!(lied.unwrap(), "200");

    // Replies of allowed connections, DNS and the allowed way still work.
    assert_eq!(served(), "200");
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// Makes an attempt and checks everything about it.
fn fails(
    testbed: &Testbed,
    from: &Place,
    node: &Process,
    capture: &Capture,
    (way, face, reasons): Attempt<'_>,
) {
    let events_before = node.stdout().len();
    let counted_before = denied(testbed, reasons);
    let Ok(probe) = testbed.probe_from(from, way) else { panic!("{way:?}: no probe") };
    let text = probe.stdout.trim();
    match face {
        Face::Refused => assert_eq!(probe.code, 1, "{way:?} must be refused: {text}"),
        // The kernel may tell the sender of what it dropped.
        Face::Dropped => assert_ne!(probe.code, 0, "{way:?} must not be answered: {text}"),
    }
    let event = until(SOON, &format!("an event for {way:?} with {reasons:?}"), || {
        let events = node.stdout();
        let new = events.get(events_before..)?;
        let about = |line: &&str| {
            line.contains("DENIED") && reasons.iter().any(|reason| line.contains(reason))
        };
        new.lines().find(about).map(str::to_owned)
    });
    if let Err(error) = event {
        panic!("{error:#}; probe: {text}; events since:\n{}", &node.stdout()[events_before..]);
    }
    let counted = until_is(
        SOON,
        &format!("{way:?} to be counted as {reasons:?}"),
        || denied(testbed, reasons),
        |now| *now > counted_before,
    );
    assert!(counted.is_ok(), "{counted:?}");
    assert_eq!(capture.frames(), Vec::<String>::new(), "{way:?} leaked");
}

/// What the node counted as denied for these reasons.
fn denied(testbed: &Testbed, reasons: &[&str]) -> u64 {
    let metrics = testbed.node_metrics().unwrap_or_default();
    metrics
        .lines()
        .filter(|line| line.contains("action=\"deny\""))
        .filter(|line| reasons.iter().any(|reason| line.contains(&format!("\"{reason}\""))))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
