//! The parser of the kernel programs reads what is built here as what it is meant to be.

use egress_ebpf::{packet as kernel, reason::Reason};

use super::*;

const V4: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)));

fn v6() -> (IpAddr, IpAddr) {
    ("fd00::5".parse().unwrap(), "2001:db8::9".parse().unwrap())
}

fn read(packet: &[u8]) -> kernel::Packet {
    kernel::ip(&packet, 0, ether_type(packet))
}

/// Whether the ones' complement sum over everything is zero, as a receiver checks it.
fn sums_up(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> bool {
    checksum(&[&pseudo_header(source, destination, protocol, bytes.len()), bytes]) == 0
}

#[test]
fn datagrams_and_segments_are_whole() {
    for (source, destination) in [V4, v6()] {
        let (from, to) = (SocketAddr::new(source, 4000), SocketAddr::new(destination, 53));
        // An odd length: the sum pads it.
        for payload in [b"odd".as_slice(), b"even", b""] {
            let datagram = udp(from, to, payload);
            assert!(sums_up(source, destination, protocol::UDP, &datagram));
            let packet = read(&ip(source, destination, protocol::UDP, &datagram));
            assert_eq!((packet.flaw, packet.flow.protocol), (None, 17));
            assert_eq!(packet.flow.destination_port.get(), 53);
            assert_eq!(packet.flow.source_port.get(), 4000);

            let segment = tcp(from, to, flags::SYN, payload);
            assert!(sums_up(source, destination, protocol::TCP, &segment));
            let packet = read(&ip(source, destination, protocol::TCP, &segment));
            assert_eq!((packet.flaw, packet.flow.protocol), (None, 6));
            assert_eq!(packet.flow.destination_port.get(), 53);
        }
    }
    let echo = echo_request(v6().0, v6().1, 7, b"data");
    assert!(sums_up(v6().0, v6().1, protocol::ICMPV6, &echo));
    assert_eq!(checksum(&[&echo_request(V4.0, V4.1, 7, b"data")]), 0);
    // The header's sum covers its options.
    let packet = ip(V4.0, V4.1, protocol::UDP, b"");
    assert_eq!(checksum(&[&packet[..20]]), 0);
}

#[test]
fn wrappings_are_what_the_wall_takes_them_for() {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = V4 else { panic!("IPv4") };
    let options = ipv4(source, destination, protocol::UDP, &[1, 1, 1, 0], (7, 0), b"");
    assert_eq!(read(&options).flaw, Some(Reason::IpOptions));
    assert_eq!(checksum(&[&options[..24]]), 0);

    let (source, destination) = v6();
    for kind in [0, protocol::ROUTING, protocol::DESTINATION] {
        let body = extension(kind, protocol::UDP, &udp_v6(b"payload"));
        assert_eq!(read(&ip(source, destination, kind, &body)).flaw, Some(Reason::ExtensionHeader));
    }
    for (source, destination) in [V4, v6()] {
        for (offset, more) in [(0, true), (8, false), (8, true)] {
            // The first one has the header, with the length of the whole.
            let part = &udp_v6(b"payload!")[..8];
            let piece = fragment(source, destination, protocol::UDP, (7, offset, more), part);
            let packet = read(&piece);
            assert!(packet.flow.fragment, "{offset} {more}");
            assert_eq!(packet.flaw, None, "{offset} {more}");
            assert_eq!(packet.flow.protocol, 17);
        }
        let whole = fragment(source, destination, protocol::UDP, (7, 0, false), &udp_v6(b""));
        assert_eq!(read(&whole).flow.fragment, destination.is_ipv6(), "a header all the same");
    }
}

fn udp_v6(payload: &[u8]) -> Vec<u8> {
    udp(SocketAddr::new(v6().0, 1), SocketAddr::new(v6().1, 2), payload)
}

#[test]
fn neighbours_understand_each_other() {
    let mac = [2, 0, 0, 0, 0, 5];
    let (own, router) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
    let asked = arp_request(mac, own, router);
    let sender =
        kernel::ArpSender { hardware: mac, addr: egress_ebpf::addr::Addr::v4(own.octets()) };
    assert_eq!(kernel::arp_sender(&&asked[..], 14), Some(sender));
    assert_eq!(claimed_mac(&asked, own.into()), None, "a question claims nothing");
    let claim = arp_claim(mac, router);
    assert_eq!(claimed_mac(&claim, router.into()), Some(mac));
    assert_eq!(claimed_mac(&claim, own.into()), None);
    for end in 0..claim.len() - 10 {
        assert_eq!(claimed_mac(&claim[..end], own.into()), None, "{end}");
    }

    let (own, router): (Ipv6Addr, Ipv6Addr) =
        ("fd00::5".parse().unwrap(), "fd00::1".parse().unwrap());
    let discovered = |frame: Vec<u8>| {
        let packet = read(&frame[14..]);
        (packet.neighbour, packet.target)
    };
    let target = egress_ebpf::addr::Addr::v6(router.octets());
    assert_eq!(
        discovered(neighbour_solicitation(mac, own, router)),
        (kernel::Neighbour::Solicitation, target)
    );
    let frame = neighbour_advertisement(mac, own, router);
    assert_eq!(claimed_mac(&frame, router.into()), Some(mac));
    assert_eq!(discovered(frame), (kernel::Neighbour::Advertisement, target));
    assert_eq!(discovered(router_advertisement(mac, own)).0, kernel::Neighbour::RouterOnly);
}
