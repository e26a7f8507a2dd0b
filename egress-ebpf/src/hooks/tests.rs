mod lookups;
mod node;
mod unfinished;

use proptest::prelude::*;

use super::*;
use crate::{
    packet::protocol,
    testing::{
        AUDITED, DIRECT, EXEMPT, FOREIGN, GATEWAY, IFINDEX, INSIDE, INSIDE6, MAC, METADATA,
        OUTSIDE, OUTSIDE6, POD, POD6, POLICY, World, addr, arp, flow, frame, group, groups, ip,
        ip_frame, neighbour, port, report, tcp, tcp_header, udp,
    },
    verdict::{CGROUP_PASS, CGROUP_REFUSE, Errno, TC_DROP, TC_NEXT},
};

fn judged(judgement: Judgement) -> (bool, Reason) {
    let reason = judgement.reason();
    let code = judgement.tc();
    assert!(code == TC_NEXT || code == TC_DROP);
    (code == TC_NEXT, reason)
}

fn at_pod(frame: &[u8]) -> (bool, Reason) {
    judged(pod(&frame, IFINDEX, false, &World::usual()))
}

fn from_pod(packet: &[u8]) -> (bool, Reason) {
    at_pod(&ip_frame(packet))
}

fn forwarded(packet: &[u8]) -> (bool, Reason) {
    judged(uplink(&ip_frame(packet).as_slice(), from(FOREIGN), None, false, &World::usual()))
}

/// To the uplink from an interface, without a note of a pod's.
const fn from(came_in_on: u32) -> ForwardPath {
    ForwardPath {
        came_in_on,
        pod: 0,
        by_unknown_port: false,
        namespace: Namespace::Node,
        socket: Socket::Process,
    }
}

const PASS: bool = true;
const DROP: bool = false;

#[test]
fn a_pod_reaches_the_cluster_the_gateway_and_what_is_direct() {
    assert_eq!(from_pod(&tcp(POD, INSIDE, 8080)), (PASS, Reason::Internal));
    assert_eq!(from_pod(&udp(POD, INSIDE, 53)), (PASS, Reason::Internal));
    assert_eq!(from_pod(&udp(POD6, INSIDE6, 53)), (PASS, Reason::Internal));
    assert_eq!(from_pod(&tcp(POD, GATEWAY, 443)), (PASS, Reason::Gateway));
    assert_eq!(from_pod(&tcp(POD, DIRECT, 9000)), (PASS, Reason::Direct));
}

#[test]
fn nothing_else_leaves_a_pod() {
    assert_eq!(from_pod(&tcp(POD, OUTSIDE, 443)), (DROP, Reason::NotRedirected));
    assert_eq!(from_pod(&tcp(POD, OUTSIDE, 22)), (DROP, Reason::NoRoute));
    assert_eq!(from_pod(&tcp(POD6, OUTSIDE6, 443)), (DROP, Reason::NotRedirected));
    assert_eq!(from_pod(&udp(POD, OUTSIDE, 53)), (DROP, Reason::Protocol));
    assert_eq!(from_pod(&tcp(POD, METADATA, 80)), (DROP, Reason::DeniedPrefix));
    assert_eq!(from_pod(&tcp(POD, GATEWAY, 15000)), (DROP, Reason::GatewayPort));
    assert_eq!(from_pod(&udp(POD, GATEWAY, 443)), (DROP, Reason::GatewayPort));
    assert_eq!(from_pod(&udp(POD, "255.255.255.255", 67)), (DROP, Reason::Multicast));
    assert_eq!(from_pod(&tcp(POD, "127.0.0.1", 80)), (DROP, Reason::Malformed));
    for protocol in [1, 4, 41, 47, 50, 132, 136] {
        let packet = ip(protocol, POD, OUTSIDE, &[0; 40]);
        assert_eq!(from_pod(&packet), (DROP, Reason::Protocol), "protocol {protocol}");
        let inside = ip(protocol, POD, INSIDE, &[0; 40]);
        let expected = if matches!(protocol, 1 | 132 | 136) {
            (PASS, Reason::Internal)
        } else {
            (DROP, Reason::Encapsulation)
        };
        assert_eq!(from_pod(&inside), expected, "protocol {protocol}");
    }
}

#[test]
fn a_source_must_be_the_interfaces_own() {
    for spoofed in ["10.0.0.6", INSIDE, "127.0.0.1", "0.0.0.0", OUTSIDE] {
        let packet = tcp(spoofed, INSIDE, 80);
        assert_eq!(from_pod(&packet), (DROP, Reason::SpoofedSource), "{spoofed}");
    }
    assert_eq!(from_pod(&tcp(INSIDE6, POD6, 80)), (DROP, Reason::SpoofedSource));
    // The same packet on an interface where the address isn't at home.
    let mut world = World::usual();
    world.interfaces.insert(8, port(POLICY));
    let frame = ip_frame(&tcp(POD, INSIDE, 80));
    assert_eq!(judged(pod(&frame.as_slice(), 8, false, &world)), (DROP, Reason::SpoofedSource));
}

#[test]
fn an_unknown_interface_is_closed() {
    let frame = ip_frame(&tcp(POD, INSIDE, 80));
    let unknown = pod(&frame.as_slice(), 9, false, &World::usual());
    assert_eq!(judged(unknown), (DROP, Reason::UnknownInterface));
    assert_eq!(at_pod(&frame), (PASS, Reason::Internal));
}

#[test]
fn other_ethertypes_and_tags_are_dropped() {
    let packet = tcp(POD, INSIDE, 80);
    for ether_type in [0x8100, 0x88a8, 0x8847, 0x8863, 0x88cc, 0x0600, 46, 0x22f0] {
        assert_eq!(
            at_pod(&frame(ether_type, &packet)),
            (DROP, Reason::EtherType),
            "{ether_type:x}"
        );
    }
    let tagged = pod(&ip_frame(&packet).as_slice(), IFINDEX, true, &World::usual());
    assert_eq!(judged(tagged), (DROP, Reason::EtherType));
    assert_eq!(at_pod(&frame(0x86dd, &packet)), (DROP, Reason::Malformed), "IPv4 called IPv6");
}

#[test]
fn options_headers_and_fragments_are_dropped() {
    for to in [OUTSIDE, INSIDE] {
        let mut options =
            ip(6, POD, to, &[&[0x83, 7, 4, 10, 0, 0, 1, 0], &tcp_header(80)[..]].concat());
        options[0] = 0x47;
        assert_eq!(from_pod(&options), (DROP, Reason::IpOptions), "{to}");
    }
    for to in [OUTSIDE6, INSIDE6] {
        let routing = ip(43, POD6, to, &[&[6, 0, 4, 0, 0, 0, 0, 0], &tcp_header(80)[..]].concat());
        assert_eq!(from_pod(&routing), (DROP, Reason::ExtensionHeader), "{to}");
    }
    let fragment = |to| {
        let mut packet = udp(POD, to, 53);
        packet[6] = 0x20;
        from_pod(&packet)
    };
    assert_eq!(fragment(OUTSIDE), (DROP, Reason::Fragment));
    assert_eq!(fragment(DIRECT), (DROP, Reason::Fragment));
    assert_eq!(fragment(INSIDE), (PASS, Reason::Internal));
}

#[test]
fn arp_speaks_for_the_pod_alone() {
    let arp = |operation, sender| at_pod(&frame(0x0806, &arp(operation, sender, INSIDE)));
    assert_eq!(arp(1, POD), (PASS, Reason::Neighbour));
    assert_eq!(arp(2, POD), (PASS, Reason::Neighbour));
    assert_eq!(arp(1, "0.0.0.0"), (PASS, Reason::Neighbour), "a probe claims nothing");
    assert_eq!(arp(1, INSIDE), (DROP, Reason::SpoofedNeighbour));
    assert_eq!(arp(2, "10.0.0.1"), (DROP, Reason::SpoofedNeighbour));
    assert_eq!(arp(3, POD), (DROP, Reason::Malformed));
}

#[test]
fn neighbour_discovery_speaks_for_the_pod_alone() {
    let nd = |kind, from, to, target| from_pod(&neighbour(kind, from, to, target));
    let passes = (PASS, Reason::Neighbour);
    let spoofed = (DROP, Reason::SpoofedNeighbour);
    let own_link = Addr::link_local(MAC);
    let own_link = std::net::IpAddr::from(own_link).to_string();
    let (own_link, other_link) = (own_link.as_str(), "fe80::1");
    // Solicitations.
    assert_eq!(nd(135, POD6, "ff02::1:ff00:99", INSIDE6), passes);
    assert_eq!(nd(135, own_link, "fe80::1", "fe80::1"), passes);
    assert_eq!(nd(135, INSIDE6, "ff02::1:ff00:99", INSIDE6), spoofed);
    assert_eq!(nd(135, other_link, "ff02::1:ff00:99", INSIDE6), spoofed);
    // Whether an address is free.
    assert_eq!(nd(135, "::", "ff02::1:ff00:5", POD6), passes);
    assert_eq!(nd(135, "::", "ff02::1:ff00:99", INSIDE6), spoofed);
    // Advertisements.
    assert_eq!(nd(136, POD6, "fe80::1", POD6), passes);
    assert_eq!(nd(136, own_link, "ff02::1", own_link), passes);
    assert_eq!(nd(136, POD6, "ff02::1", INSIDE6), spoofed);
    assert_eq!(nd(136, INSIDE6, "ff02::1", POD6), spoofed);
    // Routers.
    assert_eq!(nd(133, own_link, "ff02::2", "::"), passes);
    assert_eq!(nd(133, "::", "ff02::2", "::"), passes);
    assert_eq!(nd(133, other_link, "ff02::2", "::"), spoofed);
    assert_eq!(nd(134, own_link, "ff02::1", "::"), spoofed);
    assert_eq!(nd(137, own_link, "ff02::1", POD6), spoofed);
    // Discovery is no way out.
    assert_eq!(nd(135, POD6, OUTSIDE6, OUTSIDE6), (DROP, Reason::Protocol));
    assert_eq!(nd(136, POD6, OUTSIDE6, POD6), (DROP, Reason::Protocol));
    assert_eq!(nd(135, POD6, INSIDE6, INSIDE6), (PASS, Reason::Internal));
    assert_eq!(nd(135, POD6, "ff0e::1", INSIDE6), (DROP, Reason::Multicast));
}

#[test]
fn reports_of_groups_go_to_the_link_and_no_further() {
    let own_link = std::net::IpAddr::from(Addr::link_local(MAC)).to_string();
    let of = |kind: u8, from: &str, to: &str| {
        report(kind, from, to, &if kind == 143 { groups(3) } else { group() })
    };
    let dropped = (DROP, Reason::ExtensionHeader);
    for kind in [131, 132, 143] {
        for from in [own_link.as_str(), "::", POD6] {
            assert_eq!(from_pod(&of(kind, from, "ff02::16")), (PASS, Reason::Neighbour));
        }
        let stranger = from_pod(&of(kind, "fe80::1", "ff02::16"));
        assert_eq!(stranger, (DROP, Reason::SpoofedNeighbour));
        // Elsewhere it is a packet with an extension header.
        for to in [OUTSIDE6, INSIDE6, "ff0e::16", "fe80::1"] {
            assert_eq!(from_pod(&of(kind, POD6, to)), dropped, "{to}");
        }
        // A router might forward it.
        let mut far = of(kind, &own_link, "ff02::16");
        far[7] = 2;
        assert_eq!(from_pod(&far), dropped);
    }
    assert_eq!(from_pod(&of(130, &own_link, "ff02::1")), dropped, "a router's query");
    assert_eq!(from_pod(&of(128, &own_link, "ff02::16")), dropped, "an echo request");
    for header in
        [[17, 0, 5, 2, 0, 0, 1, 0], [58, 1, 5, 2, 0, 0, 1, 0], [58, 0, 0x8a, 2, 0, 0, 1, 0]]
    {
        let mut packet = of(143, &own_link, "ff02::16");
        packet[40..48].copy_from_slice(&header);
        assert_eq!(from_pod(&packet), dropped, "{header:?}");
    }
}

/// Whoever is on the link gets it, an external router too: see the tests of what is read.
#[test]
fn no_hook_lets_data_through_to_the_link() {
    let longer = |mut packet: Vec<u8>, more: usize| {
        packet.extend(vec![b'x'; more]);
        let payload = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        packet
    };
    let own_link = std::net::IpAddr::from(Addr::link_local(MAC)).to_string();
    let messages = [
        neighbour(133, &own_link, "ff02::2", "::"),
        neighbour(135, &own_link, "fe80::1", "fe80::1"),
        neighbour(136, &own_link, "fe80::1", &own_link),
        report(131, &own_link, "ff02::1234", &group()),
        report(143, &own_link, "ff02::16", &groups(2)),
    ];
    let world = World::usual();
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let stranger = ForwardPath { namespace: Namespace::Other, ..from(0) };
    for whole in messages {
        for (packet, passes) in
            [(whole.clone(), true), (longer(whole.clone(), 600), false), (longer(whole, 24), false)]
        {
            let frame = ip_frame(&packet);
            let at_uplink =
                |way, workload| judged(uplink(&frame.as_slice(), way, workload, false, &world));
            let at_socket = skb(&packet.as_slice(), ether_type::IPV6, POLICY, 1, &world);
            for (passed, reason) in [
                at_pod(&frame),
                at_uplink(from(0), workload),
                at_uplink(stranger, None),
                (at_socket.cgroup_skb() == CGROUP_PASS, at_socket.reason()),
            ] {
                assert_eq!(passed, passes, "{reason:?}: {packet:02x?}");
                assert!(
                    matches!(reason, Reason::Malformed | Reason::ExtensionHeader) != passes,
                    "{reason:?}"
                );
            }
        }
    }
}

#[test]
fn every_prefix_of_a_frame_that_passes_is_dropped() {
    let frames = [
        ip_frame(&tcp(POD, INSIDE, 80)),
        ip_frame(&tcp(POD, GATEWAY, 443)),
        ip_frame(&udp(POD6, INSIDE6, 53)),
        ip_frame(&neighbour(136, POD6, "fe80::1", POD6)),
        frame(0x0806, &arp(1, POD, INSIDE)),
    ];
    for whole in frames {
        assert!(at_pod(&whole).0);
        for length in 0..whole.len() {
            assert_eq!(at_pod(&whole[..length]), (DROP, Reason::Malformed), "{length} bytes");
        }
    }
}

#[test]
fn audit_lets_pass_and_says_why_not_and_enforcing_is_untouched() {
    let frame = ip_frame(&tcp("10.0.0.6", OUTSIDE, 443));
    let enforced = World::usual();
    let audited = World::usual().with_policy(AUDITED);
    let exempt = World::usual().with_policy(EXEMPT);
    let judge = |world: &World| pod(&frame.as_slice(), IFINDEX, false, world);
    assert_eq!(judged(judge(&enforced)), (DROP, Reason::SpoofedSource));
    assert_eq!(judged(judge(&audited)), (PASS, Reason::SpoofedSource));
    assert!(judge(&audited).audited() && !judge(&enforced).audited());
    assert_eq!(judged(judge(&exempt)), (PASS, Reason::Exempt));
}

#[test]
fn the_uplink_judges_what_is_forwarded() {
    assert_eq!(forwarded(&tcp(INSIDE, OUTSIDE, 443)), (DROP, Reason::NotRedirected));
    assert_eq!(forwarded(&udp(INSIDE, OUTSIDE, 53)), (DROP, Reason::Protocol));
    assert_eq!(forwarded(&tcp(INSIDE, METADATA, 80)), (DROP, Reason::DeniedPrefix));
    assert_eq!(forwarded(&tcp(INSIDE, GATEWAY, 443)), (PASS, Reason::Gateway));
    assert_eq!(forwarded(&tcp(INSIDE, INSIDE, 443)), (PASS, Reason::Internal));
    assert_eq!(forwarded(&tcp(INSIDE, DIRECT, 9000)), (PASS, Reason::Direct));
    assert_eq!(forwarded(&tcp(INSIDE, DIRECT, 9001)), (DROP, Reason::NoRoute));
    let nd = neighbour(135, INSIDE6, "ff02::1:ff00:1", "fd00::1");
    assert_eq!(forwarded(&nd), (PASS, Reason::Neighbour));
    let ra = neighbour(134, "fe80::1", "ff02::1", "::");
    assert_eq!(forwarded(&ra), (DROP, Reason::SpoofedNeighbour));
    let mut options = tcp(INSIDE, OUTSIDE, 443);
    options[0] = 0x46;
    assert_eq!(forwarded(&options), (DROP, Reason::IpOptions));
}

#[test]
fn the_uplink_leaves_the_node_alone_and_judges_its_workloads() {
    let frame = ip_frame(&tcp(INSIDE, OUTSIDE, 443));
    let judge = |came_in_on, policy: Option<PolicyId>| {
        let workload = policy.map(|policy| Workload { policy, cgroup: 1 });
        judged(uplink(&frame.as_slice(), from(came_in_on), workload, false, &World::usual()))
    };
    assert_eq!(judge(0, None), (PASS, Reason::Host));
    assert_eq!(judge(0, Some(POLICY)), (DROP, Reason::NotRedirected));
    assert_eq!(judge(FOREIGN, Some(POLICY)), (DROP, Reason::NotRedirected));
    assert_eq!(judge(FOREIGN, None), (DROP, Reason::NotRedirected));
    assert_eq!(judge(0, Some(EXEMPT)), (PASS, Reason::Exempt));
    assert_eq!(judge(0, Some(AUDITED)), (PASS, Reason::NotRedirected));
}

#[test]
fn the_uplink_judges_a_pods_packets_by_the_pods_policy() {
    let frame = ip_frame(&tcp(INSIDE, OUTSIDE, 443));
    let judge = |world: &World, came_in_on, pod| {
        let way = ForwardPath { pod, ..from(came_in_on) };
        judged(uplink(&frame.as_slice(), way, None, false, world))
    };
    let audited = World::usual().with_policy(AUDITED);
    assert_eq!(judge(&audited, IFINDEX, 0), (PASS, Reason::NotRedirected));
    assert_eq!(judge(&audited, FOREIGN, 0), (DROP, Reason::NotRedirected));
    assert_eq!(judge(&World::usual(), IFINDEX, 0), (DROP, Reason::NotRedirected));
    // Behind a bridge only the note tells.
    assert_eq!(judge(&audited, FOREIGN, IFINDEX), (PASS, Reason::NotRedirected));
    // A note that names no pod's interface gives no egress.
    assert_eq!(judge(&audited, IFINDEX, FOREIGN), (DROP, Reason::UnknownWorkload));
}

/// Its source may be anybody's, and a gateway might go by that.
#[test]
fn who_is_not_known_has_no_egress_by_the_uplink() {
    const LATE: u32 = 78;
    let to = |address, port| ip_frame(&tcp(POD, address, port));
    let ways = [
        ("a pod that is known", from(IFINDEX), true),
        ("the same, behind a bridge", ForwardPath { pod: IFINDEX, ..from(FOREIGN) }, true),
        ("another network", from(FOREIGN), true),
        ("a pod that no agent knows", from(LATE), false),
        (
            "the same, by a bridge of pods",
            ForwardPath { by_unknown_port: true, ..from(FOREIGN) },
            false,
        ),
    ];
    for (what, way, is_known) in ways {
        let judge = |address, port| {
            let frame = to(address, port);
            judged(uplink(&frame.as_slice(), way, None, false, &World::usual()))
        };
        let expected = |reason| {
            if is_known { (PASS, reason) } else { (DROP, Reason::UnknownWorkload) }
        };
        assert_eq!(judge(GATEWAY, 443), expected(Reason::Gateway), "{what}");
        assert_eq!(judge(DIRECT, 9000), expected(Reason::Direct), "{what}");
        assert_eq!(judge(INSIDE, 80), (PASS, Reason::Internal), "{what}");
        assert_eq!(judge(METADATA, 80), (DROP, Reason::DeniedPrefix), "{what}");
        // Whoever asked it is answered.
        let world = World::usual();
        let mut segment = tcp(OUTSIDE, POD, 22);
        segment[33] = 2;
        inward(&ip_frame(&segment).as_slice(), Scope::Uplink, false, &world);
        let mut answer = tcp(POD, OUTSIDE, 49153);
        answer[20..22].copy_from_slice(&22_u16.to_be_bytes());
        answer[33] = 0x12;
        let frame = ip_frame(&answer);
        let answered = judged(uplink(&frame.as_slice(), way, None, false, &world));
        assert_eq!(answered, (PASS, Reason::Reply), "{what}");
    }
}

#[test]
fn a_workloads_answer_needs_a_flow_that_the_uplink_saw() {
    let world = World::usual();
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let answer = || {
        let frame = ip_frame(&udp(POD, OUTSIDE, 53));
        judged(uplink(&frame.as_slice(), from(0), workload, false, &world))
    };
    // A packet of its own making, on an interface of its own making.
    let question = ip(protocol::UDP, OUTSIDE, POD, &[0, 53, 0xc0, 1, 0, 9, 0, 0, b'x']);
    to_socket(&question.as_slice(), 0x0800, protocol::UDP, IFINDEX, 1, &world);
    assert_eq!(answer(), (DROP, Reason::Protocol));
    inward(&ip_frame(&question).as_slice(), Scope::Uplink, false, &world);
    assert_eq!(answer(), (PASS, Reason::Reply));
}

/// A gateway asks the cluster's DNS servers for the hosts that it connects to, and those may be pods.
#[test]
fn a_pod_answers_a_gateway_that_asked_it_and_no_other() {
    let question = ip(protocol::UDP, GATEWAY, POD, &[0xc0, 1, 0, 53, 0, 9, 0, 0, b'x']);
    let answer_to =
        |to: &str, port: u8| ip(protocol::UDP, POD, to, &[0, 53, 0xc0, port, 0, 9, 0, 0, b'x']);
    let answer = answer_to(GATEWAY, 1);
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let verdicts = |world: &World, answer: &[u8]| {
        let framed = ip_frame(answer);
        let to = packet::ip(&answer, 0, 0x0800).flow;
        [
            socket(to, true, POLICY, 1, world).reason(),
            skb(&answer, 0x0800, POLICY, 1, world).reason(),
            judged(pod(&framed.as_slice(), IFINDEX, false, world)).1,
            judged(uplink(&framed.as_slice(), from(0), workload, false, world)).1,
        ]
    };
    let world = World::usual();
    assert_eq!(verdicts(&world, &answer), [Reason::GatewayPort; 4], "it has not asked");
    to_socket(&question.as_slice(), 0x0800, protocol::UDP, IFINDEX, 1, &world);
    inward(&ip_frame(&question).as_slice(), Scope::Pod(IFINDEX), false, &world);
    inward(&ip_frame(&question).as_slice(), Scope::Uplink, false, &world);
    assert_eq!(verdicts(&world, &answer), [Reason::Reply; 4]);
    // The twins: another port of the gateway, and its pages.
    assert_eq!(verdicts(&world, &answer_to(GATEWAY, 2)), [Reason::GatewayPort; 4]);
    let page = tcp(POD, GATEWAY, 15021);
    assert_eq!(skb(&page.as_slice(), 0x0800, POLICY, 1, &world).reason(), Reason::GatewayPort);
}

/// The same over TCP, as for an answer that is too long for a datagram.
#[test]
fn a_pod_answers_a_gateway_that_connected_and_connects_to_no_port_of_it() {
    let segment = |from: &str, to: &str, ports: [u8; 4], flags: u8| {
        let mut header = ports.to_vec();
        header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        ip_frame(&ip(protocol::TCP, from, to, &header))
    };
    let syn = segment(GATEWAY, POD, [0xc0, 1, 0, 53], 2);
    let syn_ack = segment(POD, GATEWAY, [0, 53, 0xc0, 1], 0x12);
    let own_syn = segment(POD, GATEWAY, [0, 53, 0xc0, 1], 2);
    let world = World::usual();
    let sent = |frame: &[u8]| judged(pod(&frame, IFINDEX, false, &world));
    assert_eq!(sent(&syn_ack), (DROP, Reason::GatewayPort));
    inward(&syn.as_slice(), Scope::Pod(IFINDEX), false, &world);
    assert_eq!(sent(&own_syn), (DROP, Reason::GatewayPort), "a connection of its own is no answer");
    assert_eq!(sent(&syn_ack), (PASS, Reason::Reply));
}

/// A workload that sends to itself, under any name, has no client outside.
#[test]
fn what_comes_over_loopback_began_nowhere_outside() {
    let world = World::usual();
    let datagram = ip(protocol::UDP, OUTSIDE, POD, &[0, 53, 0xc0, 1, 0, 9, 0, 0, b'x']);
    let reply = ip(protocol::UDP, POD, OUTSIDE, &[0xc0, 1, 0, 53, 0, 9, 0, 0, b'x']);
    let answer = || skb(&reply.as_slice(), 0x0800, POLICY, 1, &world).reason();
    to_socket(&datagram.as_slice(), 0x0800, protocol::UDP, LOOPBACK, 1, &world);
    assert!(world.table.borrow().flows.is_empty());
    assert_eq!(answer(), Reason::Protocol);
    // The twin: by another interface.
    to_socket(&datagram.as_slice(), 0x0800, protocol::UDP, IFINDEX, 1, &world);
    assert_eq!(world.table.borrow().flows.len(), 2, "the flow, and that the remote was seen");
    assert_eq!(answer(), Reason::Reply);
}

#[test]
fn the_uplink_passes_arp_and_drops_what_is_neither() {
    let judge =
        |frame: &[u8], vlan| judged(uplink(&frame, from(FOREIGN), None, vlan, &World::usual()));
    let arp = frame(0x0806, &arp(1, INSIDE, INSIDE));
    assert_eq!(judge(&arp, false), (PASS, Reason::Neighbour));
    assert_eq!(judge(&arp[..30], false), (DROP, Reason::Malformed));
    assert_eq!(judge(&arp, true), (DROP, Reason::EtherType));
    assert_eq!(judge(&frame(0x88cc, &[0; 60]), false), (DROP, Reason::EtherType));
    assert_eq!(judge(&arp[..13], false), (DROP, Reason::Malformed));
}

#[test]
fn packets_of_a_workloads_sockets_are_judged_by_destination() {
    let judge = |packet: &[u8], policy| {
        let version = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let judgement = skb(&packet, version, policy, 0, &World::usual());
        let reason = judgement.reason();
        let code = judgement.cgroup_skb();
        assert!(code == CGROUP_PASS || code == CGROUP_REFUSE);
        (code == CGROUP_PASS, reason)
    };
    // Any source inside: it is a cgroup's, not an interface's.
    assert_eq!(judge(&udp("10.7.7.7", INSIDE, 53), POLICY), (PASS, Reason::Internal));
    assert_eq!(judge(&tcp(POD, "127.0.0.1", 53), POLICY), (PASS, Reason::Loopback));
    assert_eq!(judge(&tcp("::1", "::1", 53), POLICY), (PASS, Reason::Loopback));
    assert_eq!(judge(&tcp(POD, GATEWAY, 443), POLICY), (PASS, Reason::Gateway));
    let lite = ip(136, POD, OUTSIDE, &[0; 12]);
    assert_eq!(judge(&lite, POLICY), (DROP, Reason::Protocol));
    assert_eq!(judge(&lite, AUDITED), (PASS, Reason::Protocol));
    assert_eq!(judge(&lite, EXEMPT), (PASS, Reason::Exempt));
    let ping = ip(protocol::ICMP, POD, OUTSIDE, &[8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(judge(&ping, POLICY), (DROP, Reason::Protocol));
    assert_eq!(judge(&tcp(POD, OUTSIDE, 443), POLICY), (DROP, Reason::NotRedirected));
    assert_eq!(judge(&lite[..19], POLICY), (DROP, Reason::Malformed));
}

#[test]
fn a_workloads_socket_forges_no_source_outside() {
    let mut world = World::usual();
    world.pod_addresses.insert(PodAddress { ifindex: 0, addr: addr("192.0.2.1") });
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let spoofed = (DROP, Reason::SpoofedSource);
    for (to, port, reason) in [
        (INSIDE, 8080, Reason::Internal),
        (GATEWAY, 443, Reason::Gateway),
        (DIRECT, 9000, Reason::Direct),
    ] {
        for (source, expected) in [
            (POD, (PASS, reason)),
            ("10.1.0.1", (PASS, reason)),
            ("192.0.2.1", (PASS, reason)),
            ("192.0.2.2", spoofed),
            (OUTSIDE, spoofed),
        ] {
            let packet = tcp(source, to, port);
            let judgement = skb(&packet.as_slice(), 0x0800, POLICY, 1, &world);
            assert_eq!((judgement.reason() as u8) < 16, expected.0, "{source} to {to}");
            assert_eq!(judgement.reason(), expected.1, "{source} to {to}");
            let judgement = uplink(&ip_frame(&packet).as_slice(), from(0), workload, false, &world);
            assert_eq!(judged(judgement), expected, "{source} to {to}");
            // A router's: not its own packets.
            let judgement =
                uplink(&ip_frame(&packet).as_slice(), from(FOREIGN), None, false, &world);
            assert_eq!(judged(judgement), (PASS, reason), "{source} to {to}");
        }
    }
}

#[test]
fn a_workload_makes_sockets_that_the_hooks_judge() {
    const PACKET: [u32; 3] = [15, 17, 44];
    let world = World::usual();
    let refused = |kind, protocol, on_host, policy| {
        let judgement = family(kind, protocol, on_host, policy, &world);
        judgement.map(|judgement| (judgement.reason(), judgement.system_call()))
    };
    let denied = Some((Reason::SocketFamily, Err(Errno::EACCES)));
    for kind in 0..=50 {
        for on_host in [false, true] {
            let expected = match kind {
                1 | 2 | 10 | 16 | 38 => None,
                kind if PACKET.contains(&kind) && !on_host => None,
                _ => denied,
            };
            assert_eq!(refused(kind, 0, on_host, POLICY), expected, "family {kind}");
            assert_eq!(refused(kind, 0, on_host, EXEMPT), None);
            let audited = expected.map(|(reason, _)| (reason, Ok(())));
            assert_eq!(refused(kind, 0, on_host, AUDITED), audited);
        }
    }
    assert_eq!(refused(2, 6, true, POLICY), None);
    assert_eq!(refused(2, 256, true, POLICY), denied, "SMC");
}

#[test]
fn a_system_call_of_an_unknown_family_is_refused() {
    let world = World::usual();
    let judge = |judges, policy| {
        let judgement = socket(flow(6, INSIDE, 80), judges, policy, 0, &world);
        (judgement.reason(), judgement.system_call())
    };
    assert_eq!(judge(true, POLICY), (Reason::Internal, Ok(())));
    assert_eq!(judge(false, POLICY), (Reason::AddressFamily, Err(Errno::EACCES)));
    assert_eq!(judge(false, AUDITED), (Reason::AddressFamily, Ok(())));
    assert_eq!(judge(false, EXEMPT), (Reason::Exempt, Ok(())));
}

#[test]
fn an_event_can_tell_what_was_dropped() {
    let frame = ip_frame(&tcp(POD, OUTSIDE, 443));
    let judgement = pod(&frame.as_slice(), IFINDEX, false, &World::usual());
    assert_eq!(judgement.flow().source, addr(POD));
    assert_eq!(judgement.flow().destination, addr(OUTSIDE));
    assert_eq!(judgement.flow().destination_port.get(), 443);
    assert_eq!((judgement.ether_type(), judgement.policy()), (0x0800, POLICY));
    assert_eq!(judged(judgement), (DROP, Reason::NotRedirected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever passes is readable, honest about its source, and goes inside, to a gateway's
    /// routed port or along a direct route.
    #[test]
    fn hostile_frames_pass_only_for_a_reason(
        v6: bool,
        to in prop::sample::select(vec![0_usize, 1, 2, 3]),
        changes in prop::collection::vec((0_usize..74, any::<u8>()), 0..5),
        cut in 0_usize..80,
    ) {
        let packet = if v6 {
            let to = [INSIDE6, OUTSIDE6, "ff02::1", "fd00::10"][to];
            [tcp(POD6, to, 443), neighbour(135, POD6, to, POD6)][usize::from(cut % 2 == 0)].clone()
        } else {
            tcp(POD, [INSIDE, OUTSIDE, GATEWAY, DIRECT][to], if to == 3 { 9000 } else { 443 })
        };
        let mut frame = ip_frame(&packet);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(20)));
        let world = World::usual();
        let judgement = pod(&frame.as_slice(), IFINDEX, false, &world);
        let (reason, flow) = (judgement.reason(), *judgement.flow());
        if judgement.tc() == TC_DROP {
            prop_assert!(reason as u8 >= 16);
            return Ok(());
        }
        let to = (flow.destination, flow.destination_port.get(), flow.protocol);
        let is_sound = (reason == Reason::Internal && world.is_internal(&flow.destination))
            || (reason == Reason::Gateway && to == (addr(GATEWAY), 443, 6))
            || (reason == Reason::Direct && to == (addr(DIRECT), 9000, 6))
            || (reason == Reason::Neighbour
                && (judgement.ether_type() == 0x0806 || flow.destination.is_link_scope()));
        prop_assert!(is_sound, "passed as {:?}: {:?}", reason, flow);
    }
}
