use proptest::prelude::*;

use super::*;
use crate::testing::{
    INSIDE, INSIDE6, MAC, OUTSIDE, OUTSIDE6, POD, POD6, addr, arp, group, groups, neighbour,
    report, tcp, tcp_header, udp,
};

fn read4(bytes: &[u8]) -> Packet {
    ip(&bytes, 0, ether_type::IPV4)
}

fn read6(bytes: &[u8]) -> Packet {
    ip(&bytes, 0, ether_type::IPV6)
}

#[test]
fn ports_and_addresses_are_in_network_order() {
    let packet = read4(&tcp(POD, OUTSIDE, 443));
    assert_eq!(packet.flaw, None);
    assert_eq!(packet.flow.source, addr(POD));
    assert_eq!(packet.flow.destination, addr(OUTSIDE));
    assert_eq!(packet.flow.source_port.get(), 0xc001);
    assert_eq!(packet.flow.destination_port, PortBe([1, 0xbb]));
    assert_eq!((packet.flow.protocol, packet.flow.fragment), (6, false));
    let packet = read6(&udp(POD6, INSIDE6, 53));
    assert_eq!(packet.flaw, None);
    assert_eq!((packet.flow.source, packet.flow.destination), (addr(POD6), addr(INSIDE6)));
    assert_eq!(packet.flow.destination_port.get(), 53);
}

#[test]
fn every_prefix_is_malformed() {
    let nd = neighbour(135, POD6, "ff02::1", INSIDE6);
    let packets = [
        tcp(POD, OUTSIDE, 443),
        udp(POD, INSIDE, 53),
        tcp(POD6, INSIDE6, 1),
        udp(POD6, INSIDE6, 1),
        nd,
        neighbour(133, POD6, "ff02::2", "::"),
        behind(neighbour(136, POD6, "ff02::1", POD6), &[0; 16]),
    ];
    for packet in packets {
        let version = if packet[0] >> 4 == 4 { ether_type::IPV4 } else { ether_type::IPV6 };
        assert_eq!(ip(&packet.as_slice(), 0, version).flaw, None);
        for length in 0..packet.len() {
            let read = ip(&&packet[..length], 0, version);
            assert_eq!(read.flaw, Some(Reason::Malformed), "{length} bytes of {packet:02x?}");
        }
    }
}

#[test]
fn padding_behind_a_packet_changes_nothing() {
    let mut padded = tcp(POD, OUTSIDE, 443);
    let plain = read4(&padded);
    padded.extend([0xff; 26]);
    assert_eq!(read4(&padded), plain);
}

#[test]
fn a_header_may_not_hide_behind_a_short_length() {
    // The bytes of a TCP header are there, but the packet says that it ends before them.
    for (at, value) in [(3, 20), (3, 39), (3, 19)] {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet[at] = value;
        assert_eq!(read4(&packet).flaw, Some(Reason::Malformed), "total length {value}");
    }
    let mut packet = tcp(POD6, INSIDE6, 443);
    packet[5] = 19;
    assert_eq!(read6(&packet).flaw, Some(Reason::Malformed));
}

#[test]
fn a_length_of_zero_is_only_for_what_no_length_can_tell() {
    let big = |bytes: usize| {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet.resize(bytes, 0);
        packet[2..4].copy_from_slice(&[0, 0]);
        read4(&packet).flaw
    };
    assert_eq!(big(0x1_0000), None);
    assert_eq!(big(0xffff), Some(Reason::Malformed));
}

#[test]
fn versions_must_agree_with_the_ethertype() {
    assert_eq!(read4(&tcp(POD6, INSIDE6, 1)).flaw, Some(Reason::Malformed));
    assert_eq!(read6(&tcp(POD, INSIDE, 1)).flaw, Some(Reason::Malformed));
    let other = ip(&tcp(POD, INSIDE, 1).as_slice(), 0, 0x8847);
    assert_eq!(other.flaw, Some(Reason::EtherType));
}

#[test]
fn ipv4_options_are_told_with_their_destination() {
    for words in 6..=15 {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet[0] = 0x40 | words;
        let read = read4(&packet);
        assert_eq!((read.flaw, read.flow.destination), (Some(Reason::IpOptions), addr(OUTSIDE)));
    }
    let mut packet = tcp(POD, OUTSIDE, 443);
    packet[0] = 0x44;
    assert_eq!(read4(&packet).flaw, Some(Reason::Malformed));
}

#[test]
fn only_the_first_ipv4_fragment_has_ports() {
    for (flags, fragment, port) in [
        ([0x20, 0], true, 443),
        ([0, 1], true, 0),
        ([0x20, 1], true, 0),
        ([0x1f, 0xff], true, 0),
        ([0x40, 0], false, 443),
        ([0x80, 0], false, 443),
    ] {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet[6..8].copy_from_slice(&flags);
        let read = read4(&packet);
        assert_eq!((read.flaw, read.flow.fragment), (None, fragment), "{flags:02x?}");
        assert_eq!(read.flow.destination_port.get(), port);
        let signal = if port == 0 { Signal::Other } else { Signal::Syn };
        assert_eq!(read.signal, signal);
    }
}

#[test]
fn a_header_is_not_cut_by_fragments() {
    for (protocol, whole) in [(6, tcp_header(443)), (17, vec![0xc0, 1, 0, 53, 0xff, 0xff, 0, 0])] {
        let read = |length: usize| {
            let mut packet = crate::testing::ip(protocol, POD, INSIDE, &whole[..length]);
            packet[6] = 0x20;
            read4(&packet).flaw
        };
        for length in 0..whole.len() {
            assert_eq!(read(length), Some(Reason::Malformed), "{length} bytes of {protocol}");
        }
        assert_eq!(read(whole.len()), None, "a datagram's length is the whole's");
    }
}

#[test]
fn signals_are_told_by_flags_types_and_codes() {
    for flags in 0..=u8::MAX {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet[33] = flags;
        let [fin, syn, rst, ack] = [1, 2, 4, 16].map(|bit| flags & bit != 0);
        let expected = match (syn, ack, rst, fin) {
            (true, false, false, false) => Signal::Syn,
            (true, true, false, false) => Signal::SynAck,
            (false, true, false, false) => Signal::Ack,
            (false, true, false, true) => Signal::Fin,
            (false, false, true, false) => Signal::Rst,
            (false, true, true, false) => Signal::RstAck,
            _ => Signal::Other,
        };
        assert_eq!(read4(&packet).signal, expected, "{flags:02x}");
    }
    assert_eq!(read4(&udp(POD, INSIDE, 53)).signal, Signal::Datagram);
    for (protocol, from, to, request, answer) in
        [(1, POD, INSIDE, 8, 0), (58, POD6, INSIDE6, 128, 129)]
    {
        for kind in 0..=u8::MAX {
            for code in [0, 1] {
                let packet =
                    crate::testing::ip(protocol, from, to, &[kind, code, 0, 0, 7, 9, 0, 0]);
                let read = if protocol == 1 { read4(&packet) } else { read6(&packet) };
                let (signal, echo) = match (kind, code) {
                    (kind, 0) if kind == request => (Signal::EchoRequest, [7, 9]),
                    (kind, 0) if kind == answer => (Signal::EchoReply, [7, 9]),
                    (3 | 4 | 5 | 9 | 11 | 12, _) if protocol == 1 => (Signal::Error, [0, 0]),
                    (0..=127, _) if protocol == 58 => (Signal::Error, [0, 0]),
                    _ => (Signal::Other, [0, 0]),
                };
                assert_eq!((read.signal, read.echo), (signal, PortBe(echo)), "{kind} {code}");
            }
        }
    }
    // Each version's ICMP means nothing in the other's packets.
    let crossed = crate::testing::ip(58, POD, INSIDE, &[128, 0, 0, 0, 7, 9, 0, 0]);
    assert_eq!(read4(&crossed).signal, Signal::Other);
    let crossed = crate::testing::ip(1, POD6, INSIDE6, &[8, 0, 0, 0, 7, 9, 0, 0]);
    assert_eq!(read6(&crossed).signal, Signal::Other);
}

#[test]
fn ipv6_extension_headers_are_told() {
    for header in [0, 43, 51, 60, 135, 139, 140, 253] {
        let packet = crate::testing::ip(header, POD6, INSIDE6, &tcp_header(1));
        assert_eq!(read6(&packet).flaw, Some(Reason::ExtensionHeader), "{header}");
        let fragment = crate::testing::ip(44, POD6, INSIDE6, &[header, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(read6(&fragment).flaw, Some(Reason::ExtensionHeader), "{header} in a fragment");
    }
    let twice = crate::testing::ip(44, POD6, INSIDE6, &[44, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(read6(&twice).flaw, Some(Reason::ExtensionHeader));
}

#[test]
fn only_the_first_ipv6_fragment_has_ports() {
    let payload = |offset: u16| {
        let [high, low] = (offset << 3 | 1).to_be_bytes();
        [&[6, 0, high, low, 0, 0, 0, 1], tcp_header(443).as_slice()].concat()
    };
    for (offset, port) in [(0, 443), (1, 0), (0x1fff, 0)] {
        let read = read6(&crate::testing::ip(44, POD6, INSIDE6, &payload(offset)));
        assert_eq!((read.flaw, read.flow.fragment, read.flow.protocol), (None, true, 6));
        assert_eq!(read.flow.destination_port.get(), port);
    }
    for length in [7, 8, 27] {
        let short = crate::testing::ip(44, POD6, INSIDE6, &payload(0)[..length]);
        assert_eq!(read6(&short).flaw, Some(Reason::Malformed));
    }
}

#[test]
fn mapped_addresses_never_come_over_a_wire() {
    let inside = "::ffff:10.1.2.3";
    assert_eq!(read6(&tcp(POD6, inside, 1)).flaw, Some(Reason::Malformed));
    assert_eq!(read6(&tcp(inside, INSIDE6, 1)).flaw, Some(Reason::Malformed));
    // Other ways of wrapping an IPv4 address are addresses of their own.
    for wrapped in ["::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1"] {
        let read = read6(&tcp(POD6, wrapped, 1));
        assert_eq!((read.flaw, read.flow.destination.is_v4()), (None, false), "{wrapped}");
    }
}

#[test]
fn transport_headers_must_fit_their_own_length() {
    for (offset, denied) in [(0x50, false), (0x40, true), (0x00, true), (0x60, true)] {
        let mut packet = tcp(POD, OUTSIDE, 443);
        packet[20 + 12] = offset;
        assert_eq!(read4(&packet).flaw.is_some(), denied, "TCP data offset {offset:#x}");
    }
    for (length, denied) in [(9, false), (8, false), (7, true), (10, true), (0, true)] {
        let mut packet = udp(POD, INSIDE, 53);
        packet[20 + 5] = length;
        assert_eq!(read4(&packet).flaw.is_some(), denied, "UDP length {length}");
    }
}

#[test]
fn neighbour_discovery_is_told_apart() {
    let target = addr(INSIDE6);
    let whole = |kind| read6(&neighbour(kind, POD6, "ff02::1", INSIDE6));
    let read = |kind| whole(kind).neighbour;
    assert_eq!(read(133), Neighbour::RouterSolicitation);
    assert_eq!(read(134), Neighbour::RouterOnly);
    assert_eq!(read(135), Neighbour::Solicitation);
    assert_eq!(whole(135).target, target);
    assert_eq!(read(136), Neighbour::Advertisement);
    assert_eq!(whole(136).target, target);
    assert_eq!(read(137), Neighbour::RouterOnly);
    assert_eq!(read(128), Neighbour::No);
    for kind in [135, 136] {
        let mapped = neighbour(kind, POD6, "ff02::1", "::ffff:10.1.2.3");
        assert_eq!(read6(&mapped).flaw, Some(Reason::Malformed), "{kind} for an IPv4 address");
    }
    for kind in 133..=137 {
        let mut routed = neighbour(kind, POD6, "ff02::1", INSIDE6);
        routed[7] = 254;
        assert_eq!(read6(&routed).flaw, Some(Reason::Malformed), "{kind} over a router");
    }
}

/// The packet with more in it.
fn behind(mut packet: Vec<u8>, more: &[u8]) -> Vec<u8> {
    packet.extend(more);
    let payload = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

/// Whoever is on the link gets it.
#[test]
fn behind_neighbour_discovery_there_are_two_options_and_nothing_else() {
    for kind in [133, 135, 136] {
        for (to, target) in [("ff02::1", INSIDE6), ("fe80::1", INSIDE6), (INSIDE6, INSIDE6)] {
            let whole = neighbour(kind, POD6, to, target);
            for length in 0..1400 {
                let read = read6(&behind(whole.clone(), &vec![b'x'; length]));
                if matches!(length, 0 | 8 | 16) {
                    assert_eq!(read.flaw, None, "{kind} and {length} bytes");
                    assert_ne!(read.neighbour, Neighbour::No);
                } else {
                    assert_eq!(read.flaw, Some(Reason::Malformed), "{kind} and {length} bytes");
                    assert_eq!(read.neighbour, Neighbour::No);
                }
                // In the frame, behind what IPv6 says that there is.
                let trailed = [&whole[..], &vec![b'x'; length]].concat();
                let flaw = (length != 0).then_some(Reason::Malformed);
                assert_eq!(read6(&trailed).flaw, flaw, "{kind} and {length} bytes of the frame's");
            }
        }
    }
}

#[test]
fn a_report_of_groups_tells_groups_and_nothing_else() {
    let refused = Some(Reason::ExtensionHeader);
    let flaw = |kind, body: &[u8]| read6(&report(kind, POD6, "ff02::16", body)).flaw;
    for number in 0..=u8::MAX {
        let expected = if (1..=16).contains(&number) { None } else { refused };
        assert_eq!(flaw(143, &groups(number)), expected, "{number} groups");
    }
    let wholes = [(131, group()), (132, group()), (143, groups(1)), (143, groups(16))];
    for (kind, body) in &wholes {
        let packet = report(*kind, POD6, "ff02::16", body);
        let read = read6(&packet);
        assert_eq!((read.flaw, read.neighbour), (None, Neighbour::ListenerReport));
        assert_eq!(read.flow.protocol, 58);
        // Shorter, longer, or with something behind it in the frame.
        for length in 0..body.len() {
            assert_eq!(flaw(*kind, &body[..length]), refused, "{kind} of {length} bytes");
        }
        for length in 0..packet.len() {
            assert!(read6(&packet[..length]).flaw.is_some(), "{length} bytes of {kind}");
        }
        for length in 1..700 {
            let data = vec![b'x'; length];
            assert_eq!(flaw(*kind, &[&body[..], &data].concat()), refused, "{kind} and {length}");
            let trailed = [&packet[..], &data].concat();
            assert_eq!(read6(&trailed).flaw, refused, "{kind} and {length} of the frame's");
        }
        // To one host it tells no groups, nor to those of other links.
        for to in ["fe80::1", INSIDE6, OUTSIDE6, "ff0e::16", "ff05::16", "::1"] {
            let read = read6(&report(*kind, POD6, to, body));
            assert_eq!((read.flaw, read.neighbour), (refused, Neighbour::No), "{kind} to {to}");
        }
    }
    // No room for a source.
    let with_source = [&[0, 0, 0, 1, 5, 0, 0, 1, 0xff, 0x3e][..], &[0; 14], &[b'x'; 16]].concat();
    assert_eq!(flaw(143, &with_source), refused);
}

#[test]
fn arp_says_who_speaks() {
    let sender = |bytes: &[u8]| arp_sender(&bytes, 0);
    let pod = ArpSender { hardware: MAC, addr: addr(POD) };
    assert_eq!(sender(&arp(1, POD, INSIDE)), Some(pod));
    assert_eq!(sender(&arp(2, POD, INSIDE)), Some(pod));
    assert_eq!(sender(&arp(3, POD, INSIDE)), None, "reverse ARP");
    for byte in 0..6 {
        let mut wrong = arp(1, POD, INSIDE);
        wrong[byte] ^= 1;
        assert_eq!(sender(&wrong), None, "byte {byte}");
    }
    for length in 0..28 {
        assert_eq!(sender(&arp(1, POD, INSIDE)[..length]), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn hostile_bytes_are_read_inside_their_bounds(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        offset in 0_u32..130,
        v6: bool,
    ) {
        let version = if v6 { ether_type::IPV6 } else { ether_type::IPV4 };
        let packet = ip(&bytes.as_slice(), offset, version);
        let length = if v6 { 40 } else { 20 };
        if bytes.len() < offset as usize + length {
            prop_assert_eq!(packet.flaw, Some(Reason::Malformed));
        }
        prop_assert!(packet.flaw.is_some() || packet.flow.destination.is_v4() != v6);
        let _ = (Ethernet::read(&bytes.as_slice()), arp_sender(&bytes.as_slice(), offset));
    }

    /// However long it is and whatever is in it, what goes to the link has bounds.
    #[test]
    fn what_is_of_the_link_is_short(
        kind in prop::sample::select(vec![131_u8, 132, 133, 135, 136, 143]),
        number in 0_u8..40,
        more in prop::collection::vec(any::<u8>(), 0..900),
        trailer in 0_usize..3,
        changes in prop::collection::vec((0_usize..90, any::<u8>()), 0..3),
    ) {
        let body = if kind == 143 { groups(number) } else { group() };
        let whole = match kind {
            133..=136 => neighbour(kind, POD6, "ff02::1", INSIDE6),
            _ => report(kind, POD6, "ff02::16", &body),
        };
        let mut packet = behind(whole, &more);
        packet.extend(vec![b'x'; trailer]);
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        let read = read6(&packet);
        if read.flaw.is_none() {
            match read.neighbour {
                Neighbour::No | Neighbour::RouterOnly => {}
                Neighbour::RouterSolicitation => prop_assert!(packet.len() <= 40 + 8 + 16),
                Neighbour::Solicitation | Neighbour::Advertisement => {
                    prop_assert!(packet.len() <= 40 + 24 + 16);
                }
                Neighbour::ListenerReport => {
                    prop_assert!(packet.len() <= 40 + 16 + 16 * 20);
                    prop_assert!(packet[24..26] == [0xff, 2]);
                }
            }
        }
    }

    /// Headers that are right but for a few bytes reach deeper.
    #[test]
    fn nearly_right_packets_are_judged_by_their_own_addresses(
        port: u16,
        v6: bool,
        changes in prop::collection::vec((0_usize..64, any::<u8>()), 0..4),
    ) {
        let mut packet = if v6 { tcp(POD6, INSIDE6, port) } else { tcp(POD, OUTSIDE, port) };
        for (at, value) in changes {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        let version = if v6 { ether_type::IPV6 } else { ether_type::IPV4 };
        let read = ip(&packet.as_slice(), 0, version);
        if read.flaw.is_none() {
            let destination = if v6 {
                Addr::v6(packet[24..40].try_into().unwrap())
            } else {
                Addr::v4(packet[16..20].try_into().unwrap())
            };
            prop_assert_eq!(read.flow.destination, destination);
            for length in 0..packet.len() {
                let less = ip(&&packet[..length], 0, version);
                prop_assert!(less.flaw.is_some() || less.flow == read.flow);
            }
        }
    }
}
