use std::net::IpAddr;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    abi::{
        EXEMPTION_TABLES, UNKNOWN_POLICY, UNKNOWN_TABLE,
        route_action::{DENY, DIRECT, REDIRECT, TUNNEL},
    },
    testing::{
        self, AUDITED, ENCAPSULATION, EXEMPT, GATEWAY, INSIDE, INSIDE6, METADATA, OUTSIDE,
        OUTSIDE6, POLICY, TABLE, UPLINK_POLICY, UPLINK_TABLE, World, addr, flow,
    },
};

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const EVERYWHERE: [Place; 3] = [Place::Socket, Place::Skb, Place::Wire];

fn at(place: Place, protocol: u8, to: &str, port: u16) -> Verdict {
    decide(place, &flow(protocol, to, port), POLICY, &World::usual())
}

fn connect(to: &str, port: u16) -> Verdict {
    at(Place::Socket, TCP, to, port)
}

fn redirect(port: u16) -> Verdict {
    let target = Target { group: 2, port: PortBe::new(port) };
    Verdict { action: Action::Redirect(target), reason: Reason::Routed }
}

#[test]
fn a_routed_connect_is_redirected_and_its_packet_is_dropped() {
    assert_eq!(connect(OUTSIDE, 443), redirect(443));
    assert_eq!(connect(OUTSIDE6, 443), redirect(443));
    assert_eq!(connect(OUTSIDE, 5432), redirect(15432), "the route names the port");
    for place in [Place::Skb, Place::Wire] {
        assert_eq!(at(place, TCP, OUTSIDE, 443), Verdict::deny(Reason::NotRedirected));
    }
}

#[test]
fn a_connect_goes_through_the_tunnel_and_a_packet_nowhere() {
    let mut world = World::usual();
    world.add_route(TABLE, Some(8443), None, TUNNEL, 0);
    world.add_route(TABLE, Some(5433), None, TUNNEL, 15432);
    let decide =
        |place, protocol, to, port| decide(place, &flow(protocol, to, port), POLICY, &world);
    for (to, port, routed) in
        [(OUTSIDE, 8443, 8443), (OUTSIDE6, 8443, 8443), (OUTSIDE, 5433, 15432)]
    {
        let target = Target { group: 2, port: PortBe::new(routed) };
        let expected = Verdict { action: Action::Tunnel(target), reason: Reason::Tunneled };
        assert_eq!(decide(Place::Socket, TCP, to, port), expected);
        for place in [Place::Skb, Place::Wire] {
            assert_eq!(decide(place, TCP, to, port), Verdict::deny(Reason::NotRedirected));
        }
    }
    for place in EVERYWHERE {
        assert_eq!(decide(place, UDP, OUTSIDE, 8443), Verdict::deny(Reason::Protocol));
    }
}

/// The tunnel's listener: its port, and of its address nothing else changes.
#[test]
fn of_the_listeners_address_one_port_is_open() {
    let listener = "192.0.2.7";
    let mut world = World::usual();
    let port = PortBe::new(15001);
    let key = GatewayKey { addr: addr(listener), port, protocol: TCP, reserved: 0 };
    world.gateways.insert(key);
    for place in EVERYWHERE {
        let decide =
            |protocol, port| decide(place, &flow(protocol, listener, port), POLICY, &world);
        assert_eq!(decide(TCP, 15001), Verdict::allow(Reason::Gateway));
        assert_eq!(decide(UDP, 15001), Verdict::deny(Reason::Protocol));
        assert_eq!(decide(TCP, 22), Verdict::deny(Reason::NoRoute));
        assert_eq!(decide(TCP, 15000), Verdict::deny(Reason::NoRoute));
    }
}

#[test]
fn what_no_route_names_is_refused() {
    for place in EVERYWHERE {
        assert_eq!(at(place, TCP, OUTSIDE, 22), Verdict::deny(Reason::NoRoute));
        for protocol in [UDP, protocol::ICMP, 4, 41, 47, 50, 136, 132, 255, 0] {
            let denied = Verdict::deny(Reason::Protocol);
            assert_eq!(at(place, protocol, OUTSIDE, 443), denied, "protocol {protocol}");
        }
    }
}

#[test]
fn ports_are_not_taken_the_wrong_way_round() {
    // 443 is 0x01bb; 0xbb01 is 47873.
    assert_eq!(connect(OUTSIDE, 47873), Verdict::deny(Reason::NoRoute));
}

#[test]
fn a_direct_route_passes_everywhere_and_no_further_than_it_says() {
    for place in EVERYWHERE {
        let allowed = Verdict::allow(Reason::Direct);
        assert_eq!(at(place, TCP, testing::DIRECT, 9000), allowed);
        assert_eq!(at(place, TCP, testing::DIRECT, 9001), Verdict::deny(Reason::NoRoute));
        assert_eq!(at(place, TCP, OUTSIDE, 9000), Verdict::deny(Reason::NoRoute));
        assert_eq!(at(place, UDP, testing::DIRECT, 9000), Verdict::deny(Reason::Protocol));
    }
}

#[test]
fn the_longest_route_wins_even_if_it_denies() {
    let mut world = World::usual();
    world.add_route(TABLE, None, None, REDIRECT, 0);
    world.add_route(TABLE, Some(443), Some((128, addr(OUTSIDE))), DENY, 0);
    world.add_route(TABLE, Some(443), Some((96 + 24, addr("198.51.100.0"))), DIRECT, 0);
    let decide = |to, port| decide(Place::Socket, &flow(TCP, to, port), POLICY, &world);
    assert_eq!(decide(OUTSIDE, 443), Verdict::deny(Reason::NoRoute));
    assert_eq!(decide("198.51.100.8", 443), Verdict::allow(Reason::Direct));
    assert_eq!(decide("198.51.101.8", 443), redirect(443));
    assert_eq!(decide(OUTSIDE, 8443), redirect(8443), "any port, that of the connect");
}

#[test]
fn an_unknown_route_action_denies() {
    let mut world = World::usual();
    for action in 4..=u8::MAX {
        world.add_route(TABLE, Some(443), Some((128, addr(OUTSIDE))), action, 0);
        let verdict = decide(Place::Socket, &flow(TCP, OUTSIDE, 443), POLICY, &world);
        assert_eq!(verdict, Verdict::deny(Reason::NoRoute), "{action}");
        world.routes.pop();
    }
}

#[test]
fn only_tcp_is_redirected() {
    let mut world = World::usual();
    let (bits, key, route) = world.routes[0];
    world.routes.push((bits, RouteKey { protocol: UDP, ..key }, route));
    for place in EVERYWHERE {
        let verdict = decide(place, &flow(UDP, OUTSIDE, 80), POLICY, &world);
        assert_eq!(verdict, Verdict::deny(Reason::Protocol));
    }
}

#[test]
fn a_route_is_its_own_policys() {
    let verdict = decide(Place::Socket, &flow(TCP, OUTSIDE, 443), 99, &World::usual());
    assert_eq!(verdict, Verdict::deny(Reason::NoRoute));
}

#[test]
fn the_cluster_is_open_for_transports() {
    for place in EVERYWHERE {
        for to in [INSIDE, INSIDE6, "::ffff:10.1.2.3"] {
            for protocol in [TCP, UDP, protocol::ICMP, protocol::ICMPV6, 33, 132, 136] {
                assert_eq!(at(place, protocol, to, 53), Verdict::allow(Reason::Internal));
            }
        }
        assert_eq!(at(place, TCP, "11.1.2.3", 53), Verdict::deny(Reason::NoRoute));
    }
}

#[test]
fn a_packet_in_a_packet_goes_nowhere() {
    let denied = Verdict::deny(Reason::Encapsulation);
    for place in EVERYWHERE {
        for to in [INSIDE, INSIDE6] {
            for protocol in [0, 4, 41, 47, 50, 51, 94, 97, 98, 115, 137, 143, 253, 255] {
                assert_eq!(at(place, protocol, to, 0), denied, "protocol {protocol}");
            }
            for port in ENCAPSULATION {
                assert_eq!(at(place, UDP, to, port), denied, "port {port}");
                assert_eq!(at(place, TCP, to, port), Verdict::allow(Reason::Internal));
                assert_eq!(at(place, UDP, to, port + 1), Verdict::allow(Reason::Internal));
            }
        }
    }
}

#[test]
fn wrapped_internal_addresses_are_not_internal() {
    for wrapped in [
        "::10.1.2.3",
        "64:ff9b::a01:203",
        "64:ff9b:1::a01:203",
        "2002:a01:203::",
        "2001:0:a01:203::",
        "::ffff:0:10.1.2.3",
        "2001:db8::5efe:10.1.2.3",
        "2001:db8::200:5efe:10.1.2.3",
    ] {
        assert_eq!(connect(wrapped, 22), Verdict::deny(Reason::NoRoute), "{wrapped}");
    }
}

#[test]
fn a_denied_prefix_is_denied_though_internal_or_routed() {
    for place in EVERYWHERE {
        for to in [METADATA, "::ffff:169.254.169.254"] {
            assert_eq!(at(place, TCP, to, 80), Verdict::deny(Reason::DeniedPrefix));
        }
        assert_eq!(at(place, TCP, "169.254.169.253", 80), Verdict::allow(Reason::Internal));
    }
}

#[test]
fn a_gateway_has_its_routed_ports_and_no_others() {
    for place in EVERYWHERE {
        for to in [GATEWAY, "::ffff:10.9.0.10"] {
            assert_eq!(at(place, TCP, to, 443), Verdict::allow(Reason::Gateway));
            for (protocol, port) in [(TCP, 15000), (TCP, 0), (UDP, 443), (protocol::ICMP, 0)] {
                let denied = Verdict::deny(Reason::GatewayPort);
                assert_eq!(at(place, protocol, to, port), denied, "{protocol} {port}");
            }
        }
    }
}

#[test]
fn loopback_is_for_sockets_and_never_on_a_wire() {
    let loopbacks = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::ffff:127.9.9.9"];
    for to in loopbacks {
        assert_eq!(connect(to, 80), Verdict::allow(Reason::Loopback), "{to}");
        assert_eq!(at(Place::Skb, TCP, to, 80), Verdict::allow(Reason::Loopback));
        assert_eq!(at(Place::Wire, TCP, to, 80), Verdict::deny(Reason::Malformed));
    }
    for to in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
        assert_eq!(connect(to, 80), Verdict::allow(Reason::Loopback), "{to}");
        assert_eq!(at(Place::Skb, TCP, to, 80), Verdict::deny(Reason::Malformed));
        assert_eq!(at(Place::Wire, TCP, to, 80), Verdict::deny(Reason::Malformed));
    }
    for to in ["128.0.0.1", "126.255.255.255", "::2", "0.0.0.1", "::1:0:0:1", "::127.0.0.1"] {
        assert_eq!(connect(to, 22), Verdict::deny(Reason::NoRoute), "{to}");
    }
}

#[test]
fn broadcast_and_multicast_are_refused_unless_internal() {
    for place in EVERYWHERE {
        for to in ["224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb", "ff0e::1"] {
            assert_eq!(at(place, UDP, to, 5353), Verdict::deny(Reason::Multicast), "{to}");
        }
        assert_eq!(at(place, UDP, "240.0.0.1", 5353), Verdict::deny(Reason::Protocol));
        assert_eq!(at(place, UDP, "223.255.255.255", 5353), Verdict::deny(Reason::Protocol));
    }
    let mut world = World::usual();
    world.internal.push((96 + 32, addr("224.0.0.251")));
    let verdict = decide(Place::Wire, &flow(UDP, "224.0.0.251", 5353), POLICY, &world);
    assert_eq!(verdict, Verdict::allow(Reason::Internal));
}

#[test]
fn a_fragment_passes_inside_alone() {
    let fragment = |to| {
        let flow = Flow { fragment: true, ..flow(TCP, to, 0) };
        decide(Place::Wire, &flow, POLICY, &World::usual())
    };
    assert_eq!(fragment(INSIDE), Verdict::allow(Reason::Internal));
    for to in [OUTSIDE, testing::DIRECT, GATEWAY] {
        assert_eq!(fragment(to), Verdict::deny(Reason::Fragment), "{to}");
    }
}

#[test]
fn without_a_snapshot_only_loopback_passes() {
    for world in [World::default(), World { generation: 0, ..World::usual() }] {
        for place in EVERYWHERE {
            for to in [INSIDE, OUTSIDE, GATEWAY, METADATA, INSIDE6] {
                let verdict = decide(place, &flow(TCP, to, 443), POLICY, &world);
                assert_eq!(verdict, Verdict::deny(Reason::NoPolicy), "{to}");
            }
        }
        let verdict = decide(Place::Socket, &flow(TCP, "127.0.0.1", 1), POLICY, &world);
        assert_eq!(verdict, Verdict::allow(Reason::Loopback));
    }
}

#[test]
fn the_exempt_come_first_and_the_audited_are_judged_alike() {
    let world = World::usual();
    for place in EVERYWHERE {
        for to in [METADATA, OUTSIDE, GATEWAY, "255.255.255.255"] {
            let subject = flow(TCP, to, 1);
            let exempt = decide(place, &subject, EXEMPT, &world);
            assert_eq!(exempt, Verdict::allow(Reason::Exempt));
            let audited = decide(place, &subject, AUDITED, &world);
            assert_eq!(audited, decide(place, &subject, POLICY, &world));
            assert_eq!(audited.action, Action::Deny);
        }
    }
}

/// The order of the security model again, in std's words.
fn model(place: Place, flow: &Flow, policy: PolicyId, world: &World) -> Verdict {
    let ip = IpAddr::from(flow.destination);
    let (loopback, unspecified) = (ip.is_loopback(), ip.is_unspecified());
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let table = world.policy(policy).table;
    let tcp = flow.protocol == 6;
    let port = flow.destination_port.get();
    let at_gateway = |port: u16, protocol: u8| {
        world.gateways.iter().any(|key| {
            IpAddr::from(key.addr) == ip && key.port.get() == port && key.protocol == protocol
        })
    };
    let inside = |nets: &[(u32, Addr)]| {
        let bits = u128::from_be_bytes(flow.destination.octets());
        nets.iter().any(|(length, net)| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            (bits ^ u128::from_be_bytes(net.octets())) & mask == 0
        })
    };
    let route = world
        .routes
        .iter()
        .filter(|(bits, key, _)| {
            key.table == table
                && key.protocol == flow.protocol
                && (*bits == 48 || key.port.get() == port)
                && (*bits <= 64 || inside(&[(bits - 64, key.addr)]))
        })
        .max_by_key(|(bits, ..)| *bits);
    match () {
        () if world.policy(policy).mode == Mode::Exempt => Verdict::allow(Reason::Exempt),
        () if place == Place::Socket && (loopback || unspecified) => {
            Verdict::allow(Reason::Loopback)
        }
        () if place == Place::Skb && loopback => Verdict::allow(Reason::Loopback),
        () if loopback || unspecified => Verdict::deny(Reason::Malformed),
        () if world.generation == 0 => Verdict::deny(Reason::NoPolicy),
        () if inside(&world.denied) => Verdict::deny(Reason::DeniedPrefix),
        () if at_gateway(0, 0) && flow.fragment => Verdict::deny(Reason::Fragment),
        () if at_gateway(0, 0) && tcp && at_gateway(port, 6) && table == UNKNOWN_TABLE => {
            Verdict::deny(Reason::UnknownWorkload)
        }
        () if at_gateway(0, 0) && tcp && at_gateway(port, 6) && table >= EXEMPTION_TABLES => {
            Verdict::deny(Reason::NoRoute)
        }
        () if at_gateway(0, 0) && tcp && at_gateway(port, 6) => Verdict::allow(Reason::Gateway),
        () if at_gateway(0, 0) => Verdict::deny(Reason::GatewayPort),
        () if inside(&world.internal) && [1, 6, 17, 33, 58, 132, 136].contains(&flow.protocol) => {
            let closed = GatewayKey::encapsulation(PortBe::new(port));
            if flow.protocol == 17 && world.gateways.contains(&closed) {
                Verdict::deny(Reason::Encapsulation)
            } else {
                Verdict::allow(Reason::Internal)
            }
        }
        () if inside(&world.internal) => Verdict::deny(Reason::Encapsulation),
        () if ip.is_multicast() || broadcast => Verdict::deny(Reason::Multicast),
        () if flow.fragment => Verdict::deny(Reason::Fragment),
        () if table == UNKNOWN_TABLE => Verdict::deny(Reason::UnknownWorkload),
        () => match (route.map(|(.., route)| (route.action, route.port.get())), tcp) {
            (Some((DIRECT, _)), _) => Verdict::allow(Reason::Direct),
            (Some((action @ (REDIRECT | TUNNEL), to)), true) if place == Place::Socket => {
                let port = PortBe::new(if to == 0 { port } else { to });
                let target = Target { group: 2, port };
                if action == REDIRECT {
                    Verdict { action: Action::Redirect(target), reason: Reason::Routed }
                } else {
                    Verdict { action: Action::Tunnel(target), reason: Reason::Tunneled }
                }
            }
            (Some((REDIRECT | TUNNEL, _)), true) => Verdict::deny(Reason::NotRedirected),
            (_, true) => Verdict::deny(Reason::NoRoute),
            (_, false) => Verdict::deny(Reason::Protocol),
        },
    }
}

fn addresses() -> impl Strategy<Value = Addr> {
    let chosen = select(vec![
        INSIDE,
        INSIDE6,
        OUTSIDE,
        OUTSIDE6,
        GATEWAY,
        METADATA,
        testing::DIRECT,
        "127.0.0.1",
        "0.0.0.0",
        "::",
        "::1",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "64:ff9b::a00:1",
        "::10.0.0.1",
    ]);
    prop_oneof![
        3 => chosen.prop_map(addr),
        1 => any::<[u8; 4]>().prop_map(Addr::v4),
        1 => any::<[u8; 16]>().prop_map(Addr::v6),
    ]
}

fn worlds() -> impl Strategy<Value = World> {
    let route = (
        // Nobody writes routes of unknown workloads; should somebody, they count for nothing.
        select(vec![TABLE, UPLINK_TABLE, UNKNOWN_TABLE, EXEMPTION_TABLES + 5, 0]),
        select(vec![None, Some(80), Some(443), Some(9000)]),
        prop::option::of((addresses(), 0_u32..=128)),
        0_u8..4,
        select(vec![0, 8443]),
    );
    let routes = prop::collection::vec(route, 0..6);
    let nets = prop::collection::vec((80_u32..=128, addresses()), 0..2);
    (any::<bool>(), any::<bool>(), routes, nets).prop_map(|(loaded, usual, routes, nets)| {
        let mut world = if usual { World::usual() } else { World::default() };
        world.generation = u64::from(loaded);
        world.internal.extend(nets);
        for (table, port, prefix, action, to) in routes {
            let prefix = port.and(prefix).map(|(addr, bits)| (bits, addr));
            let before = world.routes.len();
            world.add_route(table, port, prefix, action, to);
            // A trie holds one value for a prefix.
            let (bits, key, _) = world.routes[before];
            let rest = u32::min(bits, 192);
            let same = |(other_bits, other, _): &(u32, RouteKey, Route)| {
                let mask = |key: &RouteKey| {
                    let bits = rest.saturating_sub(64);
                    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                    u128::from_be_bytes(key.addr.octets()) & mask
                };
                *other_bits == bits
                    && (other.table, other.port) == (key.table, key.port)
                    && mask(other) == mask(&key)
            };
            if world.routes[..before].iter().any(same) {
                world.routes.pop();
            }
        }
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn verdicts_are_the_models(
        world in worlds(),
        place in select(EVERYWHERE.to_vec()),
        destination in addresses(),
        port in select(vec![0, 22, 80, 443, 4789, 9000, 15000, 47873]),
        protocol in select(vec![1_u8, 6, 17, 47]),
        fragment: bool,
        policy in select(vec![POLICY, AUDITED, UPLINK_POLICY, EXEMPT, UNKNOWN_POLICY, 99]),
    ) {
        let flow = Flow {
            destination, protocol, fragment, destination_port: PortBe::new(port), ..Flow::UNKNOWN
        };
        prop_assert_eq!(
            decide(place, &flow, policy, &world),
            model(place, &flow, policy, &world)
        );
    }
}

/// In-cluster addresses, and neither a gateway nor another workload's route.
#[test]
fn an_unknown_workload_reaches_in_cluster_addresses_and_nothing_else() {
    let world = World::usual();
    for place in EVERYWHERE {
        let unknown =
            |protocol, to, port| decide(place, &flow(protocol, to, port), UNKNOWN_POLICY, &world);
        let denied = Verdict::deny(Reason::UnknownWorkload);
        for to in [INSIDE, INSIDE6] {
            assert_eq!(unknown(UDP, to, 53), Verdict::allow(Reason::Internal));
            assert_eq!(unknown(TCP, to, 443), Verdict::allow(Reason::Internal));
        }
        for (protocol, to, port) in [
            (TCP, OUTSIDE, 443),
            (TCP, OUTSIDE6, 443),
            (UDP, OUTSIDE, 53),
            (protocol::ICMP, OUTSIDE, 0),
            (TCP, testing::DIRECT, 9000),
            (TCP, GATEWAY, 443),
        ] {
            assert_eq!(unknown(protocol, to, port), denied, "{to}:{port}");
        }
        assert_eq!(unknown(TCP, GATEWAY, 15021), Verdict::deny(Reason::GatewayPort));
        assert_eq!(unknown(TCP, METADATA, 80), Verdict::deny(Reason::DeniedPrefix));
        // The twin: once it is known, the gateway is open to it.
        let known = decide(place, &flow(TCP, GATEWAY, 443), POLICY, &world);
        assert_eq!(known, Verdict::allow(Reason::Gateway));
    }
}
