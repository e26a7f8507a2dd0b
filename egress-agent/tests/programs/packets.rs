//! Packets through `pod_ingress`, `uplink_egress` and `cgroup_egress`.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt as _, path::PathBuf};

use egress_ebpf::{
    abi::{UNKNOWN_POLICY, action, hook, lost, mode},
    reason::Reason,
    verdict::{CGROUP_PASS, CGROUP_REFUSE, TC_DROP, TC_NEXT},
};

use crate::kernel::{
    AUDITED, AUDITED_REDIRECT, DEFAULT_POLICY, EXEMPT, IFINDEX, Kernel, TCP, addr,
};

const UDP: u8 = 17;
const POD: &str = "10.0.0.5";
const POD6: &str = "fd00::5";

/// An Ethernet frame with a packet whose transport header names `port`.
pub(crate) fn frame(protocol: u8, from: &str, to: &str, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut payload = vec![0xc0, 1, high, low];
    payload.extend(match protocol {
        TCP => [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0].as_slice(),
        _ => &[0, 8, 0, 0],
    });
    ethernet(protocol, from, to, &payload)
}

/// An Ethernet frame from the pod's interface, with a packet of the version of its addresses.
pub(crate) fn ethernet(protocol: u8, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5];
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = (length + 20).to_be_bytes();
            frame.extend([8, 0, 0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = length.to_be_bytes();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("{from} and {to} are of two families"),
    }
    frame.extend(payload);
    frame
}

fn arp(sender: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 5, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 5]);
    frame.extend(sender);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    frame
}

/// The id of the cgroup that this process is in.
pub(crate) fn own_cgroup() -> u64 {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .expect("no cgroup2 is mounted; this test needs one");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    fs::metadata(PathBuf::from(mount).join(own)).unwrap().ino()
}

/// However many gateways there are: each is open at its routed port, and nowhere else.
#[test]
fn each_of_thirty_two_gateways_is_open_at_its_routed_port_alone() {
    let mut kernel = Kernel::usual();
    let gateways: Vec<String> =
        (0..32).map(|number| format!("198.51.100.{}", 100 + number)).collect();
    for gateway in &gateways {
        kernel.gateway(gateway, 443);
    }
    // Verdicts that are looked up, that are kept, and that were kept.
    for epoch in [0, 1, 1] {
        kernel.epoch(epoch);
        for (gateway, port) in
            gateways.iter().flat_map(|gateway| [443, 80, 15008].map(|port| (gateway, port)))
        {
            let result = if port == 443 { TC_NEXT } else { TC_DROP };
            let frame = frame(TCP, POD, gateway, port);
            assert_eq!(kernel.classify("pod_ingress", &frame, 0), result, "{gateway} {port}");
        }
        let none = frame(TCP, POD, "198.51.100.132", 443);
        assert_eq!(kernel.classify("pod_ingress", &none, 0), TC_DROP);
    }
}

#[test]
fn a_pod_is_held_to_its_walls() {
    let mut kernel = Kernel::usual();
    let routed = frame(TCP, POD, "198.51.100.7", 443);
    let mut options = frame(TCP, POD, "10.1.2.3", 80);
    options[14] = 0x46;
    let mut vlan = frame(TCP, POD, "10.1.2.3", 80);
    vlan[12] = 0x81;
    vlan[13] = 0;
    let cases = [
        (frame(TCP, POD, "10.1.2.3", 80), TC_NEXT, Reason::Internal),
        (frame(UDP, POD, "10.1.2.3", 53), TC_NEXT, Reason::Internal),
        (frame(UDP, POD6, "fd00::99", 53), TC_NEXT, Reason::Internal),
        (frame(TCP, POD, "10.1.2.3", 6635), TC_NEXT, Reason::Internal),
        (frame(UDP, POD, "10.1.2.3", 6635), TC_DROP, Reason::Encapsulation),
        (frame(TCP, POD, "10.9.0.10", 443), TC_NEXT, Reason::Gateway),
        (frame(TCP, POD, "203.0.113.80", 9000), TC_NEXT, Reason::Direct),
        (arp([10, 0, 0, 5]), TC_NEXT, Reason::Neighbour),
        (routed, TC_DROP, Reason::NotRedirected),
        (frame(TCP, POD, "198.51.100.7", 22), TC_DROP, Reason::NoRoute),
        (frame(TCP, POD6, "2001:db8::7", 443), TC_DROP, Reason::NotRedirected),
        (frame(TCP, POD6, "64:ff9b::a01:203", 80), TC_DROP, Reason::NoRoute),
        (frame(TCP, POD6, "::ffff:10.1.2.3", 80), TC_DROP, Reason::Malformed),
        (frame(UDP, POD, "198.51.100.7", 53), TC_DROP, Reason::Protocol),
        (frame(136, POD, "198.51.100.7", 53), TC_DROP, Reason::Protocol),
        (frame(1, POD, "198.51.100.7", 0), TC_DROP, Reason::Protocol),
        (frame(TCP, POD, "203.0.113.80", 9001), TC_DROP, Reason::NoRoute),
        (frame(TCP, POD, "10.9.0.10", 15000), TC_DROP, Reason::GatewayPort),
        (frame(UDP, POD, "10.9.0.10", 443), TC_DROP, Reason::GatewayPort),
        (frame(TCP, POD, "169.254.169.254", 80), TC_DROP, Reason::DeniedPrefix),
        (frame(TCP, POD, "169.254.169.253", 80), TC_NEXT, Reason::Internal),
        (frame(TCP, "10.0.0.6", "10.1.2.3", 80), TC_DROP, Reason::SpoofedSource),
        (frame(UDP, POD, "224.0.0.251", 5353), TC_DROP, Reason::Multicast),
        (frame(TCP, POD, "127.0.0.1", 80), TC_DROP, Reason::Malformed),
        (arp([10, 0, 0, 1]), TC_DROP, Reason::SpoofedNeighbour),
        (options, TC_DROP, Reason::IpOptions),
        (vlan, TC_DROP, Reason::EtherType),
    ];
    for (frame, expected, reason) in cases {
        let passed = if expected == TC_NEXT { action::ALLOW } else { action::DENY };
        let before = kernel.count(hook::POD, passed, reason, false);
        let result = kernel.classify("pod_ingress", &frame, 0);
        assert_eq!(result, expected, "{reason:?} for {frame:02x?}");
        let after = kernel.count(hook::POD, passed, reason, false);
        assert_eq!(after, before + 1, "{reason:?} isn't counted for {frame:02x?}");
    }
}

/// A pod that is not known yet: in-cluster traffic under its own addresses, and nothing else; in audit mode
/// everything passes and is counted. So does what comes from an interface that is in no list.
#[test]
fn an_unknown_pod_reaches_the_inside_and_is_audited_in_audit_mode() {
    let mut kernel = Kernel::usual();
    kernel.pod_interface(IFINDEX, UNKNOWN_POLICY);
    let allowed = [frame(UDP, POD, "10.1.2.3", 53), frame(TCP, POD6, "fd00::99", 443)];
    let denied = [
        (frame(TCP, POD, "10.9.0.10", 443), Reason::UnknownWorkload),
        (frame(TCP, POD, "203.0.113.80", 9000), Reason::UnknownWorkload),
        (frame(TCP, POD, "198.51.100.7", 443), Reason::UnknownWorkload),
        (frame(UDP, POD, "198.51.100.7", 53), Reason::UnknownWorkload),
        (frame(TCP, "10.0.0.6", "10.1.2.3", 80), Reason::SpoofedSource),
        (frame(TCP, POD, "169.254.169.254", 80), Reason::DeniedPrefix),
    ];
    for (mode, expected) in [(mode::ENFORCE, TC_DROP), (mode::AUDIT, TC_NEXT)] {
        kernel.unknown(mode);
        for frame in &allowed {
            assert_eq!(kernel.classify("pod_ingress", frame, 0), TC_NEXT, "{frame:02x?}");
        }
        for (frame, reason) in &denied {
            let audited = mode == mode::AUDIT;
            let before = kernel.count(hook::POD, action::DENY, *reason, audited);
            assert_eq!(kernel.classify("pod_ingress", frame, 0), expected, "{reason:?}");
            let after = kernel.count(hook::POD, action::DENY, *reason, audited);
            assert_eq!(after, before + 1, "{reason:?}");
        }
    }
    // Once it is known, its own policy counts.
    kernel.pod_interface(IFINDEX, DEFAULT_POLICY);
    let gateway = frame(TCP, POD, "10.9.0.10", 443);
    assert_eq!(kernel.classify("pod_ingress", &gateway, 0), TC_NEXT);

    let mut unlisted = Kernel::load(1);
    for (mode, expected) in [(mode::AUDIT, TC_NEXT), (mode::ENFORCE, TC_DROP)] {
        unlisted.unknown(mode);
        let audited = mode == mode::AUDIT;
        assert_eq!(unlisted.classify("pod_ingress", &allowed[0], 0), expected);
        let count = unlisted.count(hook::POD, action::DENY, Reason::UnknownInterface, audited);
        assert_eq!(count, 1);
    }
}

/// A message of neighbour discovery, or a report of multicast groups behind its hop-by-hop header, to whoever is on
/// the link, with more bytes in it.
fn of_link(kind: u8, to: &str, more: usize) -> Vec<u8> {
    let report = matches!(kind, 131 | 143);
    let mut payload = if report { vec![58, 0, 5, 2, 0, 0, 1, 0] } else { vec![] };
    payload.extend([kind, 0, 0, 0]);
    payload.extend(match kind {
        133 => vec![0; 4],
        // One group.
        143 => [&[0, 0, 0, 1, 4, 0, 0, 0, 0xff, 2][..], &[0; 14]].concat(),
        131 => [&[0, 0, 0, 0, 0xff, 2][..], &[0; 14]].concat(),
        // The pod's own address.
        _ => [&[0, 0, 0, 0, 0xfd][..], &[0; 14], &[5]].concat(),
    });
    payload.extend(vec![b'x'; more]);
    let mut frame = ethernet(if report { 0 } else { 58 }, POD6, to, &payload);
    frame[14 + 7] = if report { 1 } else { 255 };
    frame
}

/// An external router may be on the link.
#[test]
fn what_goes_to_the_link_carries_no_data_by_any_hook() {
    let mut kernel = Kernel::usual();
    kernel.workload(own_cgroup(), DEFAULT_POLICY);
    for (kind, to) in [
        (133, "ff02::2"),
        (135, "ff02::1:ff00:5"),
        (136, "ff02::1"),
        (131, "ff02::1234"),
        (143, "ff02::16"),
    ] {
        let reason =
            if !(133..=136).contains(&kind) { Reason::ExtensionHeader } else { Reason::Malformed };
        for more in [0, 24, 600] {
            let frame = of_link(kind, to, more);
            let trailed = [&of_link(kind, to, 0)[..], &vec![b'x'; more]].concat();
            for frame in [frame, trailed] {
                let [expected, passed] =
                    if more == 0 { [TC_NEXT, CGROUP_PASS] } else { [TC_DROP, CGROUP_REFUSE] };
                let counts = |kernel: &Kernel| {
                    [hook::POD, hook::UPLINK, hook::SKB]
                        .map(|hook| kernel.count(hook, action::DENY, reason, false))
                };
                let before = counts(&kernel);
                let what = format!("{more} bytes more in {kind}");
                assert_eq!(kernel.classify("pod_ingress", &frame, 0), expected, "{what}");
                assert_eq!(kernel.classify("uplink_egress", &frame, 0), expected, "{what}");
                assert_eq!(kernel.cgroup_egress(&frame), passed, "{what}");
                let refused = u64::from(more != 0);
                assert_eq!(counts(&kernel), before.map(|count| count + refused), "{what}");
            }
        }
    }
}

/// Every shorter packet is dropped by the real reads, too.
#[test]
fn what_ends_early_is_dropped() {
    let mut kernel = Kernel::usual();
    // The test run itself refuses what is shorter than an IP header.
    for (whole, shortest) in
        [(frame(TCP, POD, "10.1.2.3", 80), 34), (frame(UDP, POD6, "fd00::99", 53), 54)]
    {
        assert_eq!(kernel.classify("pod_ingress", &whole, 0), TC_NEXT);
        for length in shortest..whole.len() {
            let result = kernel.classify("pod_ingress", &whole[..length], 0);
            assert_eq!(result, TC_DROP, "{length} bytes of {whole:02x?}");
        }
    }
}

#[test]
fn empty_maps_deny_everything() {
    let mut kernel = Kernel::load(1);
    let inside = frame(TCP, POD, "10.1.2.3", 80);
    assert_eq!(kernel.classify("pod_ingress", &inside, 0), TC_DROP);
    assert_eq!(kernel.count(hook::POD, action::DENY, Reason::UnknownInterface, false), 1);
    assert_eq!(kernel.classify("uplink_egress", &inside, IFINDEX), TC_DROP);
    assert_eq!(kernel.count(hook::UPLINK, action::DENY, Reason::NoPolicy, false), 1);
    assert_eq!(kernel.cgroup_egress(&inside), CGROUP_REFUSE);
    assert_eq!(kernel.count(hook::SKB, action::DENY, Reason::NoPolicy, false), 1);
    let mut kernel = Kernel::usual();
    assert_eq!(kernel.classify("pod_ingress", &inside, 0), TC_NEXT);
    kernel.globals(0, 0);
    assert_eq!(kernel.classify("pod_ingress", &inside, 0), TC_DROP);
}

#[test]
fn audit_and_exemption_are_the_policys_alone() {
    let mut kernel = Kernel::usual();
    let unrouted = frame(TCP, POD, "198.51.100.7", 9);
    let routed = frame(TCP, POD, "198.51.100.7", 443);
    let counts = |kernel: &Kernel, reason| {
        [false, true].map(|audit| kernel.count(hook::POD, action::DENY, reason, audit))
    };
    for (mode, expected, counted, passed_over) in [
        (0, TC_DROP, [1, 0], [1, 0]),
        // Enforcement would have redirected the connection: its packets are no refusals.
        (1, TC_NEXT, [1, 1], [1, 0]),
        (2, TC_NEXT, [1, 1], [1, 0]),
        (3, TC_NEXT, [1, 2], [1, 0]),
        (4, TC_DROP, [2, 2], [2, 0]),
        (u32::MAX, TC_DROP, [3, 2], [3, 0]),
    ] {
        kernel.policy(DEFAULT_POLICY, mode);
        assert_eq!(kernel.classify("pod_ingress", &unrouted, 0), expected, "mode {mode}");
        assert_eq!(counts(&kernel, Reason::NoRoute), counted, "mode {mode}");
        assert_eq!(kernel.classify("pod_ingress", &routed, 0), expected, "mode {mode}");
        assert_eq!(counts(&kernel, Reason::NotRedirected), passed_over, "mode {mode}");
    }
}

#[test]
fn the_uplink_tells_pods_workloads_and_the_node_apart() {
    let mut kernel = Kernel::usual();
    let outward = frame(TCP, "192.0.2.1", "198.51.100.7", 443);
    let inward = frame(TCP, "10.1.0.1", "10.1.2.3", 443);
    // Forwarded.
    assert_eq!(kernel.classify("uplink_egress", &outward, IFINDEX), TC_DROP);
    assert_eq!(kernel.count(hook::UPLINK, action::DENY, Reason::NotRedirected, false), 1);
    assert_eq!(kernel.classify("uplink_egress", &inward, IFINDEX), TC_NEXT);
    // The node's own: the socket that the kernel lends here is in the node's namespace, and no
    // process has it open.
    assert_eq!(kernel.classify("uplink_egress", &inward, 0), TC_NEXT);
    assert_eq!(kernel.count(hook::UPLINK, action::ALLOW, Reason::Host, false), 1);
    assert_eq!(kernel.classify("uplink_egress", &outward, 0), TC_DROP);
    assert_eq!(kernel.count(hook::UPLINK, action::DENY, Reason::UnsolicitedAnswer, false), 1);
    // A workload on the host's network: the test's own process, whose socket the kernel lends.
    for (policy, expected) in [
        (DEFAULT_POLICY, TC_DROP),
        (AUDITED, TC_NEXT),
        (AUDITED_REDIRECT, TC_NEXT),
        (EXEMPT, TC_NEXT),
    ] {
        kernel.workload(own_cgroup(), policy);
        assert_eq!(kernel.classify("uplink_egress", &outward, 0), expected, "policy {policy}");
        assert_eq!(kernel.classify("uplink_egress", &inward, 0), TC_NEXT);
        // A source that nobody here has: whoever is asked inside would answer it outside.
        let forged = frame(TCP, "192.0.2.1", "10.1.2.3", 443);
        assert_eq!(kernel.classify("uplink_egress", &forged, 0), expected, "policy {policy}");
    }
}

#[test]
fn a_cgroups_packets_are_judged() {
    let mut kernel = Kernel::usual();
    let outward = frame(136, POD, "198.51.100.7", 53);
    assert_eq!(kernel.cgroup_egress(&frame(UDP, POD, "10.1.2.3", 53)), CGROUP_PASS);
    assert_eq!(kernel.cgroup_egress(&frame(UDP, POD, "127.0.0.1", 53)), CGROUP_PASS);
    assert_eq!(kernel.cgroup_egress(&frame(UDP, POD6, "::1", 53)), CGROUP_PASS);
    assert_eq!(kernel.cgroup_egress(&outward), CGROUP_REFUSE);
    assert_eq!(kernel.cgroup_egress(&frame(TCP, POD6, "2001:db8::7", 443)), CGROUP_REFUSE);
    for lenient in [AUDITED_REDIRECT, EXEMPT] {
        kernel.workload(own_cgroup(), lenient);
        assert_eq!(kernel.cgroup_egress(&outward), CGROUP_PASS, "policy {lenient} of the socket's");
    }
}

#[test]
fn a_drop_is_told_and_a_flood_of_them_is_not() {
    let mut kernel = Kernel::usual();
    let outward = frame(UDP, POD, "198.51.100.7", 53);
    assert_eq!(kernel.classify("pod_ingress", &outward, 0), TC_DROP);
    let inside = frame(UDP, POD, "10.1.2.3", 53);
    assert_eq!(kernel.classify("pod_ingress", &inside, 0), TC_NEXT);
    let [event] = kernel.events()[..] else { panic!("one event, for the drop alone") };
    assert!(event.time > 0);
    assert_eq!((event.ifindex, event.policy, event.cgroup), (IFINDEX, DEFAULT_POLICY, 0));
    assert_eq!((event.source, event.destination), (addr(POD), addr("198.51.100.7")));
    assert_eq!((event.source_port.get(), event.destination_port.get()), (0xc001, 53));
    assert_eq!((event.ether_type, event.protocol), (0x0800, UDP));
    assert_eq!((event.hook, event.action, event.audit), (hook::POD, action::DENY, 0));
    assert_eq!(Reason::from_code(event.reason), Some(Reason::Protocol));

    kernel.globals(1, 2);
    let told = |kernel: &mut Kernel| u64::try_from(kernel.events().len()).unwrap();
    let mut events = 0;
    for _ in 0..1000 {
        assert_eq!(kernel.classify("pod_ingress", &outward, 0), TC_DROP);
    }
    events += told(&mut kernel);
    let lost = kernel.lost(lost::RATE);
    assert_eq!(events + lost, 1000, "each is told or counted as lost");
    assert!(events < 100, "{events} of 1000 drops were told at two a second");
}
