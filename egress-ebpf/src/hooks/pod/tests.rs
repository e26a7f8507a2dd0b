//! Who a pod may say that it is, at its interface.

use proptest::prelude::*;

use super::super::{ForwardPath, Namespace, Socket, Workload, pod, skb, uplink};
use crate::{
    abi::{PodPort, UNKNOWN_POLICY, UNKNOWN_TABLE, pod_hardware},
    addr::Addr,
    decide::PolicyRules,
    packet::protocol,
    reason::Reason,
    testing::{
        GATEWAY, IFINDEX, INSIDE, INSIDE6, MAC, OUTSIDE, OUTSIDE6, POD, POD6, POLICY, World, arp,
        frame, ip, ip_frame, neighbour, port, tcp, udp,
    },
    verdict::{CGROUP_PASS, Mode, TC_NEXT},
};

const PASS: bool = true;
const DROP: bool = false;
const OTHER: [u8; 6] = [0x02, 0x42, 0x0a, 0, 0, 0x09];

fn at(world: &World, frame: &[u8]) -> (bool, Reason) {
    let judgement = pod(&frame, IFINDEX, false, world);
    (judgement.tc() == TC_NEXT, judgement.reason())
}

fn at_pod(frame: &[u8]) -> (bool, Reason) {
    at(&World::usual(), frame)
}

/// The frame with another source.
fn sent_from(hardware: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&hardware);
    frame
}

/// What a pod may send, with its own hardware address.
fn honest() -> Vec<Vec<u8>> {
    let own_link = std::net::IpAddr::from(Addr::link_local(MAC)).to_string();
    vec![
        ip_frame(&tcp(POD, INSIDE, 80)),
        ip_frame(&tcp(POD6, INSIDE6, 80)),
        ip_frame(&neighbour(135, POD6, "ff02::1:ff00:99", INSIDE6)),
        ip_frame(&neighbour(135, "::", "ff02::1:ff00:5", POD6)),
        ip_frame(&neighbour(136, POD6, "ff02::1", POD6)),
        ip_frame(&neighbour(133, &own_link, "ff02::2", "::")),
        ip_frame(&neighbour(133, "::", "ff02::2", "::")),
        frame(0x0806, &arp(1, POD, INSIDE)),
        frame(0x0806, &arp(1, "0.0.0.0", INSIDE)),
    ]
}

#[test]
fn a_frame_comes_from_the_pods_hardware_address() {
    for frame in honest() {
        assert!(at_pod(&frame).0, "{frame:02x?}");
        for other in [OTHER, [0; 6], [0xff; 6], [0x02, 0, 0, 0, 0, 1]] {
            let forged = sent_from(other, frame.clone());
            assert_eq!(at_pod(&forged), (DROP, Reason::SpoofedHardware), "{forged:02x?}");
        }
    }
}

#[test]
fn an_address_that_derives_from_the_frame_is_not_the_pods() {
    let theirs = std::net::IpAddr::from(Addr::link_local(OTHER)).to_string();
    for packet in [
        neighbour(135, &theirs, "ff02::1:ff00:99", INSIDE6),
        neighbour(136, &theirs, "ff02::1", &theirs),
        tcp(&theirs, INSIDE6, 80),
    ] {
        let forged = sent_from(OTHER, ip_frame(&packet));
        assert_eq!(at_pod(&forged), (DROP, Reason::SpoofedHardware));
    }
}

/// A world in which this is known of the pod's hardware address.
fn checking(check: u16) -> World {
    let mut world = World::usual();
    world.interfaces.insert(IFINDEX, PodPort { check, ..port(POLICY) });
    world
}

#[test]
fn a_pod_whose_hardware_address_is_not_known_sends_nothing() {
    for check in [pod_hardware::UNKNOWN, 3, u16::MAX] {
        for frame in honest() {
            assert_eq!(at(&checking(check), &frame), (DROP, Reason::SpoofedHardware));
        }
    }
}

#[test]
fn where_it_cannot_be_looked_up_the_addresses_alone_are_checked() {
    let world = checking(pod_hardware::ANY);
    for frame in honest() {
        assert!(at(&world, &frame).0, "{frame:02x?}");
    }
    let elsewhere = sent_from(OTHER, ip_frame(&tcp(POD, INSIDE, 80)));
    assert_eq!(at(&world, &elsewhere), (PASS, Reason::Internal));
    let spoofed = ip_frame(&tcp("10.0.0.6", INSIDE, 80));
    assert_eq!(at(&world, &spoofed), (DROP, Reason::SpoofedSource));
}

#[test]
fn arp_gives_the_frames_own_hardware_address() {
    for sender in [POD, "0.0.0.0"] {
        for operation in [1, 2] {
            let whole = frame(0x0806, &arp(operation, sender, INSIDE));
            assert_eq!(at_pod(&whole), (PASS, Reason::Neighbour));
            let mut forged = whole.clone();
            forged[14 + 8..14 + 14].copy_from_slice(&OTHER);
            assert_eq!(at_pod(&forged), (DROP, Reason::SpoofedHardware));
            assert_eq!(at_pod(&sent_from(OTHER, forged)), (DROP, Reason::SpoofedHardware));
        }
    }
}

/// A frame of neighbour discovery with options.
fn with_options(kind: u8, options: &[u8]) -> Vec<u8> {
    let to = if kind == 133 { "ff02::2" } else { "ff02::1" };
    let mut packet = neighbour(kind, POD6, to, POD6);
    packet.extend(options);
    let payload = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    ip_frame(&packet)
}

fn option(kind: u8, length: u8, hardware: [u8; 6]) -> Vec<u8> {
    [&[kind, length][..], &hardware].concat()
}

#[test]
fn every_option_with_a_hardware_address_gives_the_pods() {
    let nonce = option(14, 1, [1, 2, 3, 4, 5, 6]);
    for kind in [133, 135, 136] {
        for own in [1, 2] {
            let (good, bad) = (option(own, 1, MAC), option(own, 1, OTHER));
            for options in [
                good.clone(),
                [&good[..], &nonce].concat(),
                [&nonce[..], &good].concat(),
                [&good[..], &good].concat(),
            ] {
                let frame = with_options(kind, &options);
                assert_eq!(at_pod(&frame), (PASS, Reason::Neighbour), "{kind} {options:02x?}");
            }
            let refused = [
                bad.clone(),
                [&good[..], &bad].concat(),
                [&nonce[..], &bad].concat(),
                // Of lengths that a reader may take for another's.
                option(own, 0, MAC),
                [&option(own, 2, MAC)[..], &bad].concat(),
                [&option(14, 2, MAC)[..], &[0; 8]].concat(),
                option(14, 0, MAC),
            ];
            let malformed = [
                // More than anybody sends.
                [&good[..], &nonce, &bad].concat(),
                [&good[..], &nonce, &good].concat(),
                good[..7].to_vec(),
                [&good[..], &[1]].concat(),
            ];
            let refused = refused.map(|options| (options, Reason::SpoofedHardware));
            let malformed = malformed.map(|options| (options, Reason::Malformed));
            for (options, reason) in refused.into_iter().chain(malformed) {
                let verdict = at_pod(&with_options(kind, &options));
                assert_eq!(verdict, (DROP, reason), "{kind} {options:02x?}");
            }
        }
    }
}

/// An ICMP error that quotes a packet.
fn error(kind: u8, from: &str, to: &str, quoted: &[u8]) -> Vec<u8> {
    let number = if from.contains(':') { protocol::ICMPV6 } else { protocol::ICMP };
    ip(number, from, to, &[&[kind, 0, 0, 0, 0, 0, 0x02, 0x40][..], quoted].concat())
}

const ERRORS: [(&str, &str, &str, &[u8]); 2] =
    [(POD, INSIDE, "10.0.0.6", &[3, 11, 12]), (POD6, INSIDE6, "fd00::6", &[1, 2, 3, 4])];
const FORGED: (bool, Reason) = (DROP, Reason::ForgedError);

#[test]
fn behind_an_arp_message_there_is_padding_and_nothing_else() {
    let world = World::usual();
    let stranger = ForwardPath {
        came_in_on: 0,
        pod: 0,
        by_unknown_port: false,
        namespace: Namespace::Other,
        socket: Socket::None,
    };
    let message = frame(0x0806, &arp(1, POD, INSIDE));
    for length in message.len()..message.len() + 40 {
        let mut padded = message.clone();
        padded.resize(length, b'x');
        let passes = length <= 60;
        let reason = if passes { Reason::Neighbour } else { Reason::Malformed };
        assert_eq!(at_pod(&padded), (passes, reason), "{length}");
        let judgement = uplink(&padded.as_slice(), stranger, None, false, &world);
        assert_eq!((judgement.tc() == TC_NEXT, judgement.reason()), (passes, reason), "{length}");
    }
}

#[test]
fn an_icmp_error_is_about_a_packet_that_came_to_the_pod() {
    for (own, inside, neighbour, kinds) in ERRORS {
        for kind in kinds {
            let to_inside = |quoted: &[u8]| at_pod(&ip_frame(&error(*kind, own, inside, quoted)));
            assert_eq!(to_inside(&tcp(inside, own, 80)), (PASS, Reason::Internal), "{kind}");
            assert_eq!(to_inside(&udp(inside, own, 80)), (PASS, Reason::Internal), "{kind}");
            // What somebody else was sent, what it did not send, what the pod itself sent.
            assert_eq!(to_inside(&tcp(inside, neighbour, 80)), FORGED, "{kind}");
            assert_eq!(to_inside(&tcp(neighbour, own, 80)), FORGED, "{kind}");
            assert_eq!(to_inside(&tcp(own, inside, 80)), FORGED, "{kind}");
            // A quote of the other version, or none.
            let other = if own == POD { tcp(INSIDE6, POD6, 80) } else { tcp(INSIDE, POD, 80) };
            assert_eq!(to_inside(&other), FORGED, "{kind}");
            let whole = if own == POD { 28 } else { 48 };
            for length in 0..whole {
                assert_eq!(to_inside(&tcp(inside, own, 80)[..length]), FORGED, "{kind} {length}");
            }
            assert_eq!(to_inside(&tcp(inside, own, 80)[..whole]), (PASS, Reason::Internal));
        }
    }
}

#[test]
fn redirects_and_unknown_errors_are_nobodys() {
    for kind in [4, 5, 9] {
        let packet = error(kind, POD, INSIDE, &tcp(INSIDE, POD, 80));
        assert_eq!(at_pod(&ip_frame(&packet)), FORGED, "{kind}");
    }
    for kind in [0, 5, 100, 101, 127] {
        let packet = error(kind, POD6, INSIDE6, &tcp(INSIDE6, POD6, 80));
        assert_eq!(at_pod(&ip_frame(&packet)), FORGED, "{kind}");
    }
}

#[test]
fn a_quote_that_ends_in_the_frames_padding_is_none() {
    let whole = error(3, POD, INSIDE, &tcp(INSIDE, POD, 80));
    let mut short = whole.clone();
    short[2..4].copy_from_slice(&(20_u16 + 8 + 20 + 7).to_be_bytes());
    assert_eq!(at_pod(&ip_frame(&short)), FORGED);
    let whole = error(2, POD6, INSIDE6, &tcp(INSIDE6, POD6, 80));
    let mut short = whole.clone();
    short[4..6].copy_from_slice(&(8_u16 + 40 + 7).to_be_bytes());
    assert_eq!(at_pod(&ip_frame(&short)), FORGED);
}

#[test]
fn a_quote_that_names_another_destination_behind_its_header_is_none() {
    // IPv4 options, or a later fragment of something.
    let mut options = tcp(INSIDE, POD, 80);
    options[0] = 0x46;
    let mut later = tcp(INSIDE, POD, 80);
    later[7] = 9;
    for quoted in [options, later] {
        assert_eq!(at_pod(&ip_frame(&error(3, POD, INSIDE, &quoted))), FORGED);
    }
    // Extension headers of IPv6: a routing header's last segment is the destination.
    for next in [0, 43, 44, 51, 60, 135, 139, 140, 253] {
        let quoted = ip(next, INSIDE6, POD6, &[6, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(at_pod(&ip_frame(&error(2, POD6, INSIDE6, &quoted))), FORGED, "{next}");
    }
}

#[test]
fn a_socket_and_a_workload_at_the_uplink_forge_no_errors_either() {
    let world = World::usual();
    let workload = Some(Workload { policy: POLICY, cgroup: 9 });
    let way = ForwardPath {
        came_in_on: 0,
        pod: 0,
        by_unknown_port: false,
        namespace: Namespace::Node,
        socket: Socket::Process,
    };
    for (own, inside, neighbour, kinds) in ERRORS {
        for kind in kinds {
            for (quoted, expected) in [(inside, (PASS, Reason::Internal)), (neighbour, FORGED)]
                .map(|(from, expected)| (tcp(from, own, 80), expected))
            {
                let packet = error(*kind, own, inside, &quoted);
                let ether_type = if own == POD { 0x0800 } else { 0x86dd };
                let judgement = skb(&&packet[..], ether_type, POLICY, 9, &world);
                let passes = judgement.cgroup_skb() == CGROUP_PASS;
                assert_eq!((passes, judgement.reason()), expected, "{kind}");
                let judgement = uplink(&&ip_frame(&packet)[..], way, workload, false, &world);
                assert_eq!((judgement.tc() == TC_NEXT, judgement.reason()), expected, "{kind}");
            }
        }
    }
}

#[test]
fn an_icmp_error_in_fragments_is_refused() {
    let mut v4 = error(3, POD, INSIDE, &tcp(INSIDE, POD, 80));
    v4[6] = 0x20;
    assert_eq!(at_pod(&ip_frame(&v4)), (DROP, Reason::ForgedError));
    let whole = error(2, POD6, INSIDE6, &tcp(INSIDE6, POD6, 80));
    let fragment = [&[protocol::ICMPV6, 0, 0, 1, 0, 0, 0, 1][..], &whole[40..]].concat();
    assert_eq!(at_pod(&ip_frame(&ip(44, POD6, INSIDE6, &fragment))), (DROP, Reason::ForgedError));
    // An echo request in fragments is none.
    let echo = [&[protocol::ICMPV6, 0, 0, 1, 0, 0, 0, 1, 128][..], &[0; 15]].concat();
    assert_eq!(at_pod(&ip_frame(&ip(44, POD6, INSIDE6, &echo))), (PASS, Reason::Internal));
}

/// A world in which unknown workloads are in this mode.
fn unknown_in(mode: Mode) -> World {
    let mut world = World::usual();
    world.policies.insert(UNKNOWN_POLICY, PolicyRules { mode, table: UNKNOWN_TABLE });
    world
}

#[test]
fn an_unknown_pod_speaks_for_its_own_addresses_and_stays_in_the_cluster() {
    let world = unknown_in(Mode::Enforce).with_policy(UNKNOWN_POLICY);
    for frame in honest() {
        assert!(at(&world, &frame).0, "{frame:02x?}");
        let forged = sent_from(OTHER, frame);
        assert_eq!(at(&world, &forged), (DROP, Reason::SpoofedHardware), "{forged:02x?}");
    }
    let dns = ip_frame(&udp(POD, INSIDE, 53));
    assert_eq!(at(&world, &dns), (PASS, Reason::Internal));
    let spoofed = ip_frame(&udp("10.0.0.6", INSIDE, 53));
    assert_eq!(at(&world, &spoofed), (DROP, Reason::SpoofedSource));
    for (from, to) in [(POD, OUTSIDE), (POD6, OUTSIDE6), (POD, GATEWAY)] {
        let out = ip_frame(&tcp(from, to, 443));
        assert_eq!(at(&world, &out), (DROP, Reason::UnknownWorkload), "{to}");
    }
    // The twin: the gateway is open to the pod once it is known.
    let known = unknown_in(Mode::Enforce);
    assert_eq!(at(&known, &ip_frame(&tcp(POD, GATEWAY, 443))), (PASS, Reason::Gateway));
}

/// Who is behind it may turn out to be anybody, so it has the mode of unknown workloads.
#[test]
fn an_interface_that_is_not_listed_is_audited_only_where_unknown_workloads_are() {
    for (mode, passes) in [(Mode::Enforce, DROP), (Mode::Audit, PASS)] {
        let mut world = unknown_in(mode);
        world.interfaces.clear();
        for frame in honest() {
            let judgement = pod(&&frame[..], IFINDEX, false, &world);
            let seen = (judgement.tc() == TC_NEXT, judgement.reason(), judgement.policy());
            assert_eq!(seen, (passes, Reason::UnknownInterface, UNKNOWN_POLICY), "{mode:?}");
        }
    }
    let empty = World { generation: 1, ..World::default() };
    assert!(!at(&empty, &honest()[0]).0, "an empty map denies");
}

proptest! {
    #[test]
    fn an_unknown_pod_sends_nothing_from_another_address(
        source: [u8; 4], destination: [u8; 4], port: u16, datagram: bool,
    ) {
        let world = unknown_in(Mode::Enforce).with_policy(UNKNOWN_POLICY);
        let [source, destination] = [source, destination].map(|addr| std::net::Ipv4Addr::from(addr).to_string());
        prop_assume!(source != POD);
        let packet = if datagram { udp } else { tcp };
        let (passes, _) = at(&world, &ip_frame(&packet(&source, &destination, port)));
        prop_assert!(!passes);
        // From its own it reaches what is in the cluster at most.
        let (passes, reason) = at(&world, &ip_frame(&packet(POD, &destination, port)));
        prop_assert!(!passes || reason == Reason::Internal, "{destination}: {reason:?}");
    }

    #[test]
    fn no_other_hardware_address_passes(hardware: [u8; 6], which in 0_usize..9) {
        prop_assume!(hardware != MAC);
        let frame = sent_from(hardware, honest()[which].clone());
        prop_assert_eq!(at_pod(&frame), (DROP, Reason::SpoofedHardware));
    }
}
