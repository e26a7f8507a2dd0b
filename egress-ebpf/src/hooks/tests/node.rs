//! What the node itself sends over an uplink: its processes, and its kernel.

use super::*;
use crate::testing::{UPLINK_POLICY, tcp_header};

const NODE: &str = "10.1.0.1";
const NODE6: &str = "fd00::1";
const HOST: (bool, Reason) = (PASS, Reason::Host);
const REPLY: (bool, Reason) = (PASS, Reason::Reply);
const UNSOLICITED: (bool, Reason) = (DROP, Reason::UnsolicitedAnswer);

/// A packet that a socket of nobody's sent, here.
const KERNEL: ForwardPath = ForwardPath { socket: Socket::None, ..from(0) };

fn sent(world: &World, way: ForwardPath, packet: &[u8]) -> (bool, Reason) {
    judged(uplink(&ip_frame(packet).as_slice(), way, None, false, world))
}

fn seen(world: &World, packet: &[u8]) {
    inward(&ip_frame(packet).as_slice(), Scope::Uplink, false, world);
}

/// A segment between port 49153 and a port, with these flags.
fn segment(from: &str, to: &str, port: u16, flags: u8) -> Vec<u8> {
    let mut header = tcp_header(port);
    header[13] = flags;
    ip(protocol::TCP, from, to, &header)
}

/// The answer's ports are those of what it answers, swapped.
fn swapped(mut packet: Vec<u8>) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let ports: Vec<u8> = packet.drain(at..at + 4).collect();
    packet.splice(at..at, [ports[2], ports[3], ports[0], ports[1]]);
    packet
}

fn icmp(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
    let kind = if from.contains(':') { protocol::ICMPV6 } else { protocol::ICMP };
    ip(kind, from, to, message)
}

fn echo(from: &str, to: &str, reply: bool) -> Vec<u8> {
    let kind = match (from.contains(':'), reply) {
        (false, false) => 8,
        (false, true) => 0,
        (true, false) => 128,
        (true, true) => 129,
    };
    icmp(from, to, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1])
}

/// An error about a packet, to whoever sent it.
fn error(from: &str, about: &[u8]) -> Vec<u8> {
    let v6 = about[0] >> 4 == 6;
    let to = match v6 {
        false => std::net::IpAddr::from(<[u8; 4]>::try_from(&about[12..16]).unwrap()),
        true => std::net::IpAddr::from(<[u8; 16]>::try_from(&about[8..24]).unwrap()),
    };
    let kind = if v6 { 1 } else { 3 };
    icmp(from, &to.to_string(), &[&[kind, 3, 0, 0, 0, 0, 0, 0], about].concat())
}

/// The node's address and one outside, of each family.
const FAMILIES: [(&str, &str); 2] = [(NODE, OUTSIDE), (NODE6, OUTSIDE6)];

#[test]
fn what_the_nodes_kernel_answers_leaves_only_if_the_question_came_in() {
    for (node, outside) in FAMILIES {
        let question = segment(outside, node, 9, 0x02);
        let datagram = udp(outside, node, 9);
        let pairs = [
            (echo(outside, node, false), echo(node, outside, true)),
            (question.clone(), swapped(segment(node, outside, 9, 0x14))),
            (question.clone(), swapped(segment(node, outside, 9, 0x12))),
            (question.clone(), error(node, &question)),
            (datagram.clone(), error(node, &datagram)),
            (echo(outside, node, false), error(node, &echo(outside, node, false))),
        ];
        for (question, answer) in pairs {
            let world = World::usual();
            assert_eq!(sent(&world, KERNEL, &answer), UNSOLICITED, "{answer:02x?}");
            // A question of another's doesn't count.
            seen(&world, &udp(outside, node, 10));
            assert_eq!(sent(&world, KERNEL, &answer), UNSOLICITED, "{answer:02x?}");
            seen(&world, &question);
            assert_eq!(sent(&world, KERNEL, &answer), REPLY, "{answer:02x?}");
            // It isn't for a process to decide.
            assert_eq!(sent(&World::usual(), from(0), &answer), HOST);
        }
    }
}

#[test]
fn an_error_goes_to_whoever_sent_what_it_is_about() {
    for (node, outside) in FAMILIES {
        let other = if outside == OUTSIDE { "198.51.100.8" } else { "2001:db8:ffff::8" };
        let world = World::usual();
        seen(&world, &udp(outside, node, 9));
        let about = udp(outside, node, 9);
        assert_eq!(sent(&world, KERNEL, &error(node, &about)), REPLY);
        let mut elsewhere = error(node, &about);
        let at = if outside == OUTSIDE { 16..20 } else { 24..40 };
        let to = addr(other);
        match to.as_v4() {
            Some(octets) => elsewhere[at].copy_from_slice(&octets),
            None => elsewhere[at].copy_from_slice(&to.octets()),
        }
        assert_eq!(sent(&world, KERNEL, &elsewhere), UNSOLICITED);
        // The flow stays what it was.
        seen(&world, &segment(outside, node, 22, 0x02));
        let connection = segment(outside, node, 22, 0x02);
        assert_eq!(sent(&world, KERNEL, &error(node, &connection)), REPLY);
        assert_eq!(sent(&world, KERNEL, &swapped(segment(node, outside, 22, 0x12))), REPLY);
    }
    // A direct destination is told that its packets are too big.
    let from_direct = swapped(segment(DIRECT, NODE, 9000, 0x10));
    assert_eq!(sent(&World::usual(), KERNEL, &error(NODE, &from_direct)), HOST);
    assert_eq!(
        sent(&World::usual(), KERNEL, &error(NODE, &segment(DIRECT, NODE, 9000, 0x10))),
        UNSOLICITED
    );
}

#[test]
fn every_prefix_of_an_error_is_refused_or_about_the_same() {
    for (node, outside) in FAMILIES {
        let world = World::usual();
        seen(&world, &udp(outside, node, 9));
        let whole = error(node, &udp(outside, node, 9));
        let header = if node == NODE { 20 } else { 40 };
        for length in header..whole.len() {
            let payload = whole[header..length].to_vec();
            let verdict = sent(&world, KERNEL, &icmp(node, outside, &payload));
            // The quoted header and eight bytes behind it are enough.
            let enough = payload.len() >= 8 + header + 8;
            let refused = [UNSOLICITED, (DROP, Reason::Malformed)].contains(&verdict);
            assert!(if enough { verdict == REPLY } else { refused }, "{length}: {verdict:?}");
        }
    }
}

#[test]
fn the_nodes_processes_send_what_they_like() {
    for (node, outside) in FAMILIES {
        for packet in [
            tcp(node, outside, 443),
            udp(node, outside, 53),
            echo(node, outside, false),
            ip(47, node, outside, &[0; 40]),
        ] {
            assert_eq!(sent(&World::usual(), from(0), &packet), HOST);
            assert_ne!(sent(&World::usual(), KERNEL, &packet), HOST, "{packet:02x?}");
        }
    }
    let mut options = udp(NODE, "224.0.0.22", 53);
    options[0] = 0x46;
    for way in [from(0), KERNEL] {
        assert_eq!(sent(&World::usual(), way, &options), HOST, "groups are of the link");
    }
    let tagged = uplink(
        &ip_frame(&tcp(NODE, OUTSIDE, 443)).as_slice(),
        from(0),
        None,
        true,
        &World::usual(),
    );
    assert_eq!(judged(tagged), HOST);
    let other = uplink(&frame(0x88cc, &[0; 40]).as_slice(), from(0), None, false, &World::usual());
    assert_eq!(judged(other), HOST);
}

#[test]
fn the_inside_is_answered_and_tunnels_between_nodes_stay() {
    for packet in [
        echo(NODE, INSIDE, true),
        segment(NODE, INSIDE, 9, 0x14),
        udp(NODE, INSIDE, 4789),
        ip(4, NODE, INSIDE, &[0; 40]),
        ip(60, NODE6, INSIDE6, &[0; 40]),
        segment(NODE, GATEWAY, 15021, 0x10),
        neighbour(136, NODE6, OUTSIDE6, NODE6),
    ] {
        assert_eq!(sent(&World::usual(), KERNEL, &packet), HOST, "{packet:02x?}");
    }
    // A redirect quotes what it is about.
    let redirect = neighbour(137, NODE6, OUTSIDE6, NODE6);
    assert_eq!(sent(&World::usual(), KERNEL, &redirect), UNSOLICITED);
    // What is denied is not answered.
    assert_eq!(sent(&World::usual(), KERNEL, &echo(NODE, METADATA, true)), UNSOLICITED);
    // Where nothing is configured yet there is no inside, and who asks is answered.
    let mut empty = World { generation: 0, ..World::default() };
    empty.policies.clear();
    assert_eq!(sent(&empty, KERNEL, &echo(NODE, INSIDE, true)), UNSOLICITED);
    seen(&empty, &echo(INSIDE, NODE, false));
    assert_eq!(sent(&empty, KERNEL, &echo(NODE, INSIDE, true)), REPLY);
    assert_eq!(sent(&empty, from(0), &tcp(NODE, INSIDE, 443)), HOST);
}

#[test]
fn the_last_words_of_the_nodes_own_connections_leave() {
    for (node, outside) in FAMILIES {
        let world = World::usual();
        let last = [0x10, 0x11, 0x04, 0x14];
        for flags in last {
            assert_eq!(sent(&world, KERNEL, &segment(node, outside, 443, flags)), UNSOLICITED);
        }
        // A workload's, or the kernel's own, begins none.
        let workload = Some(Workload { policy: POLICY, cgroup: 1 });
        let syn = ip_frame(&tcp(node, outside, 443));
        assert!(!judged(uplink(&syn.as_slice(), from(0), workload, false, &world)).0);
        assert_eq!(sent(&world, KERNEL, &tcp(node, outside, 443)), UNSOLICITED);
        assert_eq!(sent(&world, from(FOREIGN), &tcp(node, outside, 443)).0, DROP);
        for flags in last {
            assert_eq!(sent(&world, KERNEL, &segment(node, outside, 443, flags)), UNSOLICITED);
        }
        assert_eq!(sent(&world, from(0), &tcp(node, outside, 443)), HOST);
        for flags in last {
            assert_eq!(sent(&world, KERNEL, &segment(node, outside, 443, flags)), HOST);
            assert_eq!(sent(&world, KERNEL, &segment(node, outside, 444, flags)), UNSOLICITED);
            // Nobody else's do.
            let packet = segment(node, outside, 443, flags);
            assert_eq!(sent(&world, from(FOREIGN), &packet).0, DROP);
            let frame = ip_frame(&packet);
            assert!(!judged(uplink(&frame.as_slice(), from(0), workload, false, &world)).0);
        }
        assert_eq!(sent(&world, KERNEL, &segment(node, outside, 443, 0x12)), UNSOLICITED);
        // The other end's reset is the end.
        seen(&world, &swapped(segment(outside, node, 443, 0x04)));
        assert_eq!(sent(&world, KERNEL, &segment(node, outside, 443, 0x10)), UNSOLICITED);
    }
}

#[test]
fn a_loopback_source_leaves_in_nobodys_name() {
    let spoofed = (DROP, Reason::SpoofedSource);
    for (source, to) in [("127.0.0.1", OUTSIDE), ("::1", OUTSIDE6), ("127.0.0.1", INSIDE)] {
        for way in [from(0), KERNEL, from(FOREIGN)] {
            assert_eq!(sent(&World::usual(), way, &udp(source, to, 53)), spoofed, "{way:?}");
        }
        let workload = Some(Workload { policy: POLICY, cgroup: 1 });
        let frame = ip_frame(&tcp(source, to, 80));
        let verdict = judged(uplink(&frame.as_slice(), from(0), workload, false, &World::usual()));
        assert_eq!(verdict, spoofed);
    }
}

#[test]
fn a_workloads_question_in_anothers_name_is_not_asked_over_loopback() {
    let mut world = World::usual();
    world.pod_addresses.insert(PodAddress { ifindex: 0, addr: addr("192.0.2.1") });
    let ask = |from: &str, to: &str| {
        let packet = udp(from, to, 9);
        let ether_type = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        skb(&packet.as_slice(), ether_type, POLICY, 1, &world).reason()
    };
    for (from, to) in [(OUTSIDE, "127.0.0.1"), (OUTSIDE6, "::1"), (OUTSIDE, "127.9.9.9")] {
        assert_eq!(ask(from, to), Reason::SpoofedSource, "{from} to {to}");
    }
    for (from, to) in
        [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("192.0.2.1", "127.0.0.1"), (POD6, "::1")]
    {
        assert_eq!(ask(from, to), Reason::Loopback, "{from} to {to}");
    }
}

#[test]
fn another_namespace_is_not_the_node_whatever_it_sends() {
    let stranger = |socket| ForwardPath { namespace: Namespace::Other, socket, ..from(0) };
    let judge = |way, packet: &[u8]| sent(&World::usual(), way, packet);
    for socket in [Socket::Process, Socket::None] {
        let way = stranger(socket);
        assert_eq!(judge(way, &udp(INSIDE, OUTSIDE, 53)), (DROP, Reason::Protocol));
        assert_eq!(judge(way, &echo(INSIDE, OUTSIDE, true)), (DROP, Reason::Protocol));
        assert_eq!(judge(way, &tcp(INSIDE, OUTSIDE, 443)), (DROP, Reason::NotRedirected));
        assert_eq!(judge(way, &tcp(INSIDE, GATEWAY, 443)), (PASS, Reason::Gateway));
        // An index of its own choice, in its own namespace, isn't a pod's.
        let audited = World::usual().with_policy(AUDITED);
        let packet = udp(INSIDE, OUTSIDE, 53);
        let way = ForwardPath { came_in_on: IFINDEX, ..way };
        assert_eq!(sent(&audited, way, &packet), (DROP, Reason::Protocol));
        assert_eq!(sent(&audited, from(IFINDEX), &packet), (PASS, Reason::Protocol));
    }
    // It asks for its neighbours like any.
    let asks = |frame: &[u8]| {
        let way = stranger(Socket::None);
        judged(uplink(&frame, way, None, false, &World::usual()))
    };
    assert_eq!(asks(&frame(0x0806, &arp(1, INSIDE, INSIDE))), (PASS, Reason::Neighbour));
    assert_eq!(asks(&frame(0x88cc, &[0; 40])), (DROP, Reason::EtherType));
    let solicitation = ip_frame(&neighbour(135, INSIDE6, "ff02::1:ff00:1", "fd00::1"));
    assert_eq!(asks(&solicitation), (PASS, Reason::Neighbour));
}

/// A client's ports and the broadcast address are the sender's choice, so they make nobody the node.
#[test]
fn only_the_node_asks_for_an_address() {
    let request =
        |from: &str, to: &str| ip(protocol::UDP, from, to, &[0, 68, 0, 67, 0, 9, 0, 0, b'x']);
    let broadcast = request("0.0.0.0", "255.255.255.255");
    let stranger = |socket| ForwardPath { namespace: Namespace::Other, socket, ..from(0) };
    let world = World::usual();
    let multicast = (DROP, Reason::Multicast);
    for socket in [Socket::Process, Socket::None] {
        assert_eq!(sent(&world, stranger(socket), &broadcast), multicast, "{socket:?}");
    }
    assert_eq!(sent(&world, from(FOREIGN), &broadcast), multicast);
    let of = |policy| {
        let workload = Some(Workload { policy, cgroup: 1 });
        let frame = ip_frame(&broadcast);
        judged(uplink(&frame.as_slice(), stranger(Socket::Process), workload, false, &world))
    };
    assert_eq!(of(POLICY), multicast);
    // An exemption is how the client of a network plug-in asks in a pod's namespace.
    assert_eq!(of(EXEMPT), (PASS, Reason::Exempt));
    assert_eq!(sent(&world, from(0), &broadcast), HOST, "the node's own client");
    let far = request("10.0.0.9", OUTSIDE);
    assert_eq!(sent(&world, stranger(Socket::Process), &far), (DROP, Reason::Protocol));
    assert_eq!(sent(&world, from(0), &far), HOST, "the node's own client");
}

#[test]
fn audit_reports_the_nodes_unsolicited_answers() {
    let mut world = World::usual();
    let audited = world.policies[&AUDITED];
    world.policies.insert(UPLINK_POLICY, audited);
    let answer = echo(NODE, OUTSIDE, true);
    assert_eq!(sent(&world, KERNEL, &answer), (PASS, Reason::UnsolicitedAnswer));
}

#[test]
fn nobody_asks_over_a_bridge_in_the_name_of_the_outside() {
    let mut world = World::usual();
    world.pod_addresses.insert(PodAddress { ifindex: 0, addr: addr("192.0.2.1") });
    let judge =
        |world: &World, frame: &[u8], pod, vlan| bridge(&frame, pod, vlan, world).map(judged);
    let spoofed = Some((DROP, Reason::SpoofedSource));
    for (from, to) in [(OUTSIDE, NODE), (OUTSIDE6, NODE6), ("127.0.0.1", NODE), (METADATA, NODE)] {
        let expected = if from == METADATA { None } else { spoofed };
        for packet in [echo(from, to, false), udp(from, to, 53), tcp(from, to, 22)] {
            assert_eq!(judge(&world, &ip_frame(&packet), 0, false), expected, "{from}");
            // A program has let it pass, and knows better.
            assert_eq!(judge(&world, &ip_frame(&packet), IFINDEX, false), None);
        }
    }
    for (from, to) in [(POD, NODE), (INSIDE, OUTSIDE), ("192.0.2.1", NODE), ("fe80::1", "ff02::1")]
    {
        assert_eq!(judge(&world, &ip_frame(&udp(from, to, 53)), 0, false), None, "{from}");
    }
    assert_eq!(judge(&world, &frame(0x0806, &arp(1, OUTSIDE, NODE)), 0, false), None);
    let tagged = ip_frame(&udp(POD, NODE, 53));
    assert_eq!(judge(&world, &tagged, 0, true), Some((DROP, Reason::EtherType)));
    assert_eq!(judge(&world, &frame(0x8847, &[0; 40]), 0, false), Some((DROP, Reason::EtherType)));
    let forged = ip_frame(&udp(OUTSIDE, NODE, 53));
    let unconfigured = World { generation: 0, ..World::usual() };
    assert_eq!(judge(&unconfigured, &forged, 0, false), None);
    let audited = world.policies[&AUDITED];
    world.policies.insert(UPLINK_POLICY, audited);
    assert_eq!(judge(&world, &forged, 0, false), Some((PASS, Reason::SpoofedSource)));
}

#[test]
fn nobody_asks_the_node_in_the_name_of_the_outside_by_an_unknown_interface() {
    const LATE: u32 = 99;
    let mut world = World::usual();
    world.pod_addresses.insert(PodAddress { ifindex: 0, addr: addr("192.0.2.1") });
    let judge = |world: &World, from: &str, to: &str, came_in_on| {
        let flow = Flow { source: addr(from), destination: addr(to), ..Flow::UNKNOWN };
        node(flow, came_in_on, world).map(judged)
    };
    for (from, to) in [(OUTSIDE, NODE), (OUTSIDE6, NODE6), ("127.0.0.1", NODE), (GATEWAY, NODE)] {
        let inside = from == GATEWAY;
        let expected = (!inside).then_some((DROP, Reason::SpoofedSource));
        assert_eq!(judge(&world, from, to, LATE), expected, "{from}");
        // Loopback, a network card, a pod whose program has let it pass, and nobody knows which.
        for known in [LOOPBACK, FOREIGN, IFINDEX, 0] {
            assert_eq!(judge(&world, from, to, known), None, "{from} on {known}");
        }
    }
    for (from, to) in [(POD, NODE), (INSIDE, NODE), ("192.0.2.1", NODE), ("fe80::1", "ff02::1")] {
        assert_eq!(judge(&world, from, to, LATE), None, "{from}");
    }
    let unconfigured = World { generation: 0, ..World::usual() };
    assert_eq!(judge(&unconfigured, OUTSIDE, NODE, LATE), None);
    for (policy, expected) in [(AUDITED, Some((PASS, Reason::SpoofedSource))), (EXEMPT, None)] {
        world.policies.insert(UPLINK_POLICY, world.policies[&policy]);
        assert_eq!(judge(&world, OUTSIDE, NODE, LATE), expected);
    }
}

/// An advertisement goes to whoever asked for it, by the hardware address that the question gives: to the
/// outside, over the router.
#[test]
fn nobody_asks_for_a_neighbour_in_the_name_of_the_outside() {
    let world = World::usual();
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let stranger = ForwardPath { namespace: Namespace::Other, ..from(0) };
    let group = "ff02::1:ff00:1";
    for (source, expected) in [
        (OUTSIDE6, (DROP, Reason::SpoofedSource)),
        (INSIDE6, (PASS, Reason::Neighbour)),
        ("fe80::1", (PASS, Reason::Neighbour)),
        ("::", (PASS, Reason::Neighbour)),
    ] {
        for kind in [133, 135] {
            let question = neighbour(kind, source, group, NODE6);
            let frame = ip_frame(&question);
            let by =
                |way, workload| judged(uplink(&frame.as_slice(), way, workload, false, &world));
            assert_eq!(by(from(0), workload), expected, "{kind} of {source}");
            assert_eq!(by(stranger, None), expected, "{kind} of {source}");
            let judgement = skb(&question.as_slice(), ether_type::IPV6, POLICY, 1, &world);
            let verdict = (judgement.cgroup_skb() == CGROUP_PASS, judgement.reason());
            assert_eq!(verdict, expected, "{kind} of {source}");
        }
    }
    // Whose address it is, nobody knows of what is forwarded; and the node's own kernel asks as it must.
    let question = neighbour(135, OUTSIDE6, group, NODE6);
    assert_eq!(sent(&world, KERNEL, &question), HOST);
}

#[test]
fn another_namespace_asks_nobody_in_the_name_of_the_outside() {
    let world = World::usual();
    let spoofed = (DROP, Reason::SpoofedSource);
    let internal = (PASS, Reason::Internal);
    for came_in_on in [0, 4] {
        let stranger = ForwardPath { namespace: Namespace::Other, ..from(came_in_on) };
        for (outside, inside, other) in
            [(OUTSIDE, INSIDE, "10.1.2.9"), (OUTSIDE6, INSIDE6, "fd00::98")]
        {
            for (source, expected) in [(outside, spoofed), (other, internal)] {
                for packet in [
                    echo(source, inside, false),
                    udp(source, inside, 53),
                    tcp(source, inside, 22),
                    segment(source, inside, 22, 0x10),
                ] {
                    assert_eq!(sent(&world, stranger, &packet), expected, "{source}");
                }
            }
            // What the node forwards is translated, or from outside.
            let forwarded = from(FOREIGN);
            assert_eq!(sent(&world, forwarded, &udp(outside, inside, 53)), internal);
        }
    }
}

/// A pod of which no agent knows yet has any source. Who is asked in the name of the outside answers there.
#[test]
fn who_is_not_known_asks_nobody_in_the_name_of_the_outside() {
    const LATE: u32 = 78;
    let world = World::usual();
    let spoofed = (DROP, Reason::SpoofedSource);
    let internal = (PASS, Reason::Internal);
    let late = [from(LATE), ForwardPath { by_unknown_port: true, ..from(FOREIGN) }];
    for (outside, inside, own, other) in
        [(OUTSIDE, INSIDE, "10.1.2.9", POD), (OUTSIDE6, INSIDE6, "fd00::98", POD6)]
    {
        for (source, expected) in [(outside, spoofed), (own, internal)] {
            for packet in [
                echo(source, inside, false),
                udp(source, inside, 53),
                tcp(source, inside, 22),
                segment(source, inside, 22, 0x10),
                ip(protocol::SCTP, source, inside, &[0; 20]),
            ] {
                for way in late {
                    assert_eq!(sent(&world, way, &packet), expected, "{source}");
                }
                // What comes from another network may have an address outside.
                assert_eq!(sent(&world, from(FOREIGN), &packet), internal, "{source}");
            }
        }
        for way in late {
            // What it was sent itself it reports errors about, and about nothing else.
            let about =
                |from: &str, to: &str| sent(&world, way, &error(from, &udp(inside, to, 53)));
            assert_eq!(about(own, own), internal);
            assert_eq!(about(own, other), (DROP, Reason::ForgedError));
            assert_eq!(about(outside, own), (DROP, Reason::ForgedError));
            assert_eq!(about(outside, outside), spoofed);
        }
        let forwarded = error(own, &udp(inside, other, 53));
        assert_eq!(sent(&world, from(FOREIGN), &forwarded), internal, "a router's");
    }
}

/// Who is asked by a router's link-local address answers the router.
#[test]
fn by_a_link_local_address_nobody_asks_further_than_for_neighbours() {
    let world = World::usual();
    let workload = Some(Workload { policy: POLICY, cgroup: 1 });
    let stranger = ForwardPath { namespace: Namespace::Other, ..from(0) };
    for (source, expected) in
        [("fe80::1", (DROP, Reason::SpoofedSource)), ("fd00::98", (PASS, Reason::Internal))]
    {
        for packet in
            [echo(source, INSIDE6, false), udp(source, INSIDE6, 9), tcp(source, INSIDE6, 9)]
        {
            let frame = ip_frame(&packet);
            let by =
                |way, workload| judged(uplink(&frame.as_slice(), way, workload, false, &world));
            assert_eq!(by(from(0), workload), expected, "{source}");
            assert_eq!(by(stranger, None), expected, "{source}");
            let judgement = skb(&packet.as_slice(), ether_type::IPV6, POLICY, 1, &world);
            let verdict = (judgement.cgroup_skb() == CGROUP_PASS, judgement.reason());
            assert_eq!(verdict, expected, "{source}");
        }
    }
    // To itself it stays on the host.
    let judgement = skb(&udp("fe80::1", "::1", 9).as_slice(), ether_type::IPV6, POLICY, 1, &world);
    assert_eq!(judgement.reason(), Reason::Loopback);
}

#[test]
fn another_namespace_reports_errors_about_what_it_was_sent_alone() {
    let world = World::usual();
    let forged = (DROP, Reason::ForgedError);
    let ways = [0, FOREIGN]
        .map(|came_in_on| ForwardPath { namespace: Namespace::Other, ..from(came_in_on) });
    for (own, inside, other) in [("10.1.2.9", INSIDE, POD), ("fd00::98", INSIDE6, POD6)] {
        for way in ways {
            let about = |to: &str| sent(&world, way, &error(own, &udp(inside, to, 53)));
            assert_eq!(about(own), (PASS, Reason::Internal), "{own}");
            assert_eq!(about(other), forged, "{other}");
            let mut redirect = error(own, &udp(inside, own, 53));
            let (at, kind) = if own.contains(':') { (40, 127) } else { (20, 5) };
            redirect[at] = kind;
            assert_eq!(sent(&world, way, &redirect), forged, "{own}");
        }
    }
}

/// Where a packet came in and which pod's note it has, its sender chooses in a namespace of his own.
#[test]
fn a_note_of_a_pods_counts_in_the_nodes_namespace_alone() {
    let packet = udp(INSIDE, OUTSIDE, 53);
    for (policy, reason) in [(AUDITED, Reason::Protocol), (EXEMPT, Reason::Exempt)] {
        let world = World::usual().with_policy(policy);
        for (came_in_on, pod) in [(0, IFINDEX), (FOREIGN, IFINDEX), (IFINDEX, IFINDEX)] {
            let here = ForwardPath { pod, ..from(came_in_on) };
            let there = ForwardPath { namespace: Namespace::Other, ..here };
            assert_eq!(sent(&world, there, &packet), (DROP, Reason::Protocol), "{there:?}");
            if came_in_on != 0 {
                assert_eq!(sent(&world, here, &packet), (PASS, reason), "{here:?}");
            }
        }
    }
}

/// So the program does not ask.
#[test]
fn who_made_what_a_workload_sent_makes_no_difference() {
    let world = World::usual();
    let workload = Workload { policy: POLICY, cgroup: 5 };
    let makers = [Namespace::Node, Namespace::Other].into_iter().flat_map(|namespace| {
        [Socket::Process, Socket::None].map(|socket| ForwardPath { namespace, socket, ..from(4) })
    });
    let makers: Vec<_> = makers.collect();
    for packet in [
        tcp(POD, INSIDE, 80),
        tcp(POD, OUTSIDE, 443),
        tcp(POD, DIRECT, 9000),
        tcp("127.0.0.1", INSIDE, 80),
        udp(POD, OUTSIDE, 67),
        icmp(POD, OUTSIDE, &[3, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let frame = ip_frame(&packet);
        // What was forwarded no socket of the node's sent.
        for pod in [0, IFINDEX, 99] {
            let judge = |socket| {
                let way = ForwardPath { pod, socket, ..from(4) };
                judged(uplink(&frame.as_slice(), way, None, false, &world))
            };
            assert_eq!(judge(Socket::Process), judge(Socket::None), "{pod} {packet:x?}");
        }
        let judge = |came_in_on, way: &ForwardPath| {
            let way = ForwardPath { came_in_on, ..*way };
            judged(uplink(&frame.as_slice(), way, Some(workload), false, &world))
        };
        for came_in_on in [0, 4] {
            let first = judge(came_in_on, &makers[0]);
            assert!(makers.iter().all(|way| judge(came_in_on, way) == first), "{packet:x?}");
        }
    }
}
