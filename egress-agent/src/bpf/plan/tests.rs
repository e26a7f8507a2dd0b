use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use proptest::prelude::*;

use egress_ebpf::{
    abi::{UNKNOWN_TABLE, mode, route_action},
    absent::SurelyAbsent,
    addr::PortBe,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    routes::{TCP, prefixes, rank, route_key},
    *,
};
use crate::{
    policy::{
        DirectTarget, Enforcement, EnforcementOverride, ExemptDestination, Exemption, GatewayGroup,
        Hop, NodeAction, NodeRoute, Snapshot, Transport,
    },
    types::{GatewayPort, OriginalPort, Port},
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn route(dialled: Option<u16>, target: DirectTarget, action: NodeAction) -> NodeRoute {
    NodeRoute { port: dialled.map(|number| OriginalPort(port(number))), target, action }
}

fn redirect(to: Option<u16>) -> NodeAction {
    NodeAction::Redirect {
        group: 0,
        port: to.map(|number| GatewayPort(port(number))),
        hop: Hop::Plain,
    }
}

fn through_the_tunnel(to: Option<u16>) -> NodeAction {
    match redirect(to) {
        NodeAction::Redirect { group, port, hop: _ } => {
            NodeAction::Redirect { group, port, hop: Hop::Tunnel }
        }
        NodeAction::Direct => unreachable!("a redirect is none"),
    }
}

fn snapshot(routes: Vec<NodeRoute>) -> Snapshot {
    let gateway = GatewayGroup {
        service: Host::parse("gw.example").unwrap(),
        labels: Default::default(),
        endpoints: vec!["192.0.2.10".parse().unwrap(), "192.0.2.11".parse().unwrap()],
        other_addresses: Vec::new(),
        principal: None,
        tunnel: None,
        hop: Hop::Plain,
    };
    let mut snapshot = Snapshot::default();
    snapshot.mesh.gateways.push(gateway);
    snapshot.node.routes = routes;
    snapshot
}

fn facts() -> PlanInputs {
    PlanInputs {
        healthy: ["192.0.2.10".parse().unwrap()].into(),
        generation: 3,
        max_groups: 4,
        ..PlanInputs::default()
    }
}

fn key(gateway: &str, port: u16, protocol: u8) -> GatewayKey {
    let addr = Addr::from(gateway.parse::<IpAddr>().unwrap());
    GatewayKey { addr, port: PortBe::new(port), protocol, reserved: 0 }
}

/// The keys of gateways and listeners, without the ports of tunnels, which every plan closes.
fn opened(contents: &Contents) -> BTreeSet<GatewayKey> {
    let closed = |key: &&GatewayKey| **key == GatewayKey::encapsulation(key.port);
    contents.gateways.iter().filter(|key| !closed(key)).copied().collect()
}

#[test]
fn the_ports_of_tunnels_are_closed_as_the_settings_say() {
    let closed = |ports: &[u16]| {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.encapsulation_ports = ports.iter().map(|number| port(*number)).collect();
        Contents::desired(&snapshot, &facts()).0.gateways
    };
    let expected = [4789, 6635].map(|port| GatewayKey::encapsulation(PortBe::new(port)));
    assert_eq!(closed(&[4789, 6635]), expected.into_iter().collect());
    assert!(closed(&[]).is_empty());
}

#[test]
fn an_empty_snapshot_allows_nothing_outside() {
    let (contents, problems) = Contents::desired(&Snapshot::default(), &facts());
    assert!(problems.is_empty());
    assert!(contents.routes.is_empty() && contents.internal.is_empty());
    assert!(opened(&contents).is_empty() && contents.groups.is_empty());
    assert_eq!(contents.policies[&POLICY].mode, mode::ENFORCE);
    assert_eq!(contents.globals.unwrap().generation, 3);
    let metadata = Addr::v4([169, 254, 169, 254]);
    assert!(contents.denied.contains(&Prefix { bits: 128, data: metadata }));
}

#[test]
fn a_redirect_opens_the_port_at_every_endpoint_but_sends_only_to_healthy_ones() {
    let routes = vec![route(Some(443), DirectTarget::Any, redirect(None))];
    let (contents, problems) = Contents::desired(&snapshot(routes), &facts());
    assert!(problems.is_empty());
    let group = contents.groups[&0];
    assert_eq!((group.count, group.endpoints[0]), (1, Addr::v4([192, 0, 2, 10])));
    for gateway in ["192.0.2.10", "192.0.2.11"] {
        assert!(contents.gateways.contains(&key(gateway, 0, 0)));
        assert!(contents.gateways.contains(&key(gateway, 443, TCP)));
        assert!(!contents.gateways.contains(&key(gateway, 80, TCP)));
    }
    let route = contents.routes[&route_key(Some(port(443)), None)];
    assert_eq!((route.action, route.port.get(), route.group), (route_action::REDIRECT, 0, 0));
    assert_eq!(contents.routes.len(), 1);
}

#[test]
fn a_tcp_service_is_sent_to_its_gateway_port() {
    let net = DirectTarget::Net("198.51.100.0/24".parse().unwrap());
    let routes = vec![route(Some(3306), net, redirect(Some(15443)))];
    let (contents, _) = Contents::desired(&snapshot(routes), &facts());
    let net = Prefix { bits: 96 + 24, data: Addr::v4([198, 51, 100, 0]) };
    let route = contents.routes[&route_key(Some(port(3306)), Some(net))];
    assert_eq!(route.port.get(), 15443);
    assert!(contents.gateways.contains(&key("192.0.2.10", 15443, TCP)));
    assert!(!contents.gateways.contains(&key("192.0.2.10", 3306, TCP)));
}

#[test]
fn a_gateways_other_addresses_are_closed_and_nothing_is_sent_there() {
    let other: IpAddr = "2001:db8::10".parse().unwrap();
    for dialled in [Some(443), None] {
        let mut snapshot = snapshot(vec![route(dialled, DirectTarget::Any, redirect(None))]);
        snapshot.mesh.gateways[0].other_addresses = vec![other];
        let (contents, problems) =
            Contents::desired(&snapshot, &PlanInputs { healthy: [other].into(), ..facts() });
        assert!(problems.is_empty());
        assert_eq!(contents.groups[&0].count, 0);
        // The address is a gateway's, and no port there is open.
        let at: Vec<_> =
            contents.gateways.iter().filter(|key| key.addr == Addr::from(other)).collect();
        assert_eq!(at, [&key("2001:db8::10", 0, 0)]);
        let opened = key("192.0.2.10", dialled.unwrap_or(0), TCP);
        assert!(contents.gateways.contains(&opened));
    }
}

#[test]
fn the_gateways_own_ports_are_never_opened() {
    for dialled in ADMIN_PORTS {
        let routes = vec![route(Some(dialled), DirectTarget::Any, redirect(None))];
        let (contents, problems) = Contents::desired(&snapshot(routes), &facts());
        assert_eq!(problems, [PlanProblem::AdminPort { port: dialled }]);
        assert!(contents.routes.is_empty());
        assert!(opened(&contents).iter().all(|key| key.port.get() == 0));
    }
    // `ALLOW_ANY` routes every port but these.
    let routes = vec![route(None, DirectTarget::Any, redirect(None))];
    let (contents, _) = Contents::desired(&snapshot(routes), &facts());
    assert_eq!(contents.routes[&route_key(None, None)].action, route_action::REDIRECT);
    assert!(contents.gateways.contains(&key("192.0.2.10", 0, TCP)));
    for admin in ADMIN_PORTS {
        let deny = contents.routes[&route_key(Some(port(admin)), None)];
        assert_eq!(deny.action, route_action::DENY);
    }
}

#[test]
fn names_are_direct_where_they_resolve_and_nowhere_else() {
    let host = Host::parse("db.example").unwrap();
    let routes = vec![route(Some(5432), DirectTarget::Name(host.clone()), NodeAction::Direct)];
    let snapshot = snapshot(routes);
    assert!(Contents::desired(&snapshot, &facts()).0.routes.is_empty());
    let addrs = vec!["203.0.113.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
    let facts = PlanInputs { resolved: [(host, addrs)].into(), ..facts() };
    let routes = Contents::desired(&snapshot, &facts).0.routes;
    assert_eq!(routes.len(), 2);
    assert!(routes.values().all(|route| route.action == route_action::DIRECT));
    assert!(routes.keys().all(|key| key.bits == 64 + 128));
}

#[test]
fn a_name_opens_no_address_inside_in_any_disguise() {
    let host = Host::parse("db.example").unwrap();
    let routes = vec![route(Some(5432), DirectTarget::Name(host.clone()), NodeAction::Direct)];
    let snapshot = snapshot(routes);
    let opened = |addr: &str| {
        let facts = PlanInputs {
            resolved: [(host.clone(), vec![addr.parse().unwrap()])].into(),
            ..facts()
        };
        Contents::desired(&snapshot, &facts).0.routes.len()
    };
    for addr in [
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::",
        "2001:db8::5efe:169.254.169.254",
        "::169.254.169.254",
        // A gateway's.
        "64:ff9b::192.0.2.10",
    ] {
        assert_eq!(opened(addr), 0, "{addr}");
    }
    assert_eq!(opened("64:ff9b::203.0.113.9"), 1);
}

#[test]
fn where_two_disagree_on_one_prefix_the_gateway_wins() {
    let net = || DirectTarget::Net("198.51.100.7/32".parse().unwrap());
    let direct = || route(Some(443), net(), NodeAction::Direct);
    let gateway = || route(Some(443), net(), redirect(Some(8443)));
    for routes in [vec![direct(), gateway()], vec![gateway(), direct()]] {
        let (contents, _) = Contents::desired(&snapshot(routes), &facts());
        let actions: Vec<u8> = contents.routes.values().map(|route| route.action).collect();
        assert_eq!(actions, [route_action::REDIRECT]);
    }
}

/// Found by fuzzing: for every address the last of the file won, and parts of a wide IPv6 network
/// hid a narrower one.
#[test]
fn the_more_specific_wins_in_whatever_order_and_then_the_gateway() {
    let action = |routes: &[NodeRoute], key: &Prefix<RouteKey>| {
        let found = |routes: &[NodeRoute]| {
            let (contents, problems) = Contents::desired(&snapshot(routes.to_vec()), &facts());
            assert!(problems.is_empty());
            contents.routes[key].action
        };
        let turned: Vec<NodeRoute> = routes.iter().rev().cloned().collect();
        assert_eq!(found(routes), found(&turned));
        found(routes)
    };
    let any = |action| route(Some(443), DirectTarget::Any, action);
    let both = [any(NodeAction::Direct), any(redirect(None))];
    assert_eq!(action(&both, &route_key(Some(port(443)), None)), route_action::REDIRECT);

    let v6 = |net: &str, action| route(Some(443), DirectTarget::Net(net.parse().unwrap()), action);
    let [global] = prefixes(&"2000::/3".parse().unwrap())[..] else { panic!("one prefix") };
    let global = route_key(Some(port(443)), Some(global));
    for (wide, narrow, expected) in [
        (redirect(None), NodeAction::Direct, route_action::DIRECT),
        (NodeAction::Direct, redirect(None), route_action::REDIRECT),
    ] {
        assert_eq!(action(&[v6("::/0", wide), v6("2000::/3", narrow)], &global), expected);
    }

    // Every port of a gateway is not its own ports, but one may be named for another's.
    let own = route(Some(15000), DirectTarget::Any, redirect(Some(8443)));
    let every = route(None, DirectTarget::Any, redirect(None));
    let key = route_key(Some(port(15000)), None);
    assert_eq!(action(&[own, every.clone()], &key), route_action::REDIRECT);
    assert_eq!(action(&[every], &key), route_action::DENY);
}

#[test]
fn a_route_through_the_tunnel_opens_the_listener_and_nothing_at_the_gateway() {
    let routes = vec![
        route(Some(443), DirectTarget::Any, through_the_tunnel(None)),
        route(Some(5432), DirectTarget::Any, through_the_tunnel(Some(15432))),
    ];
    let listeners = ["10.0.0.7:15001", "[fd00::7]:15002"].map(|text| text.parse().unwrap());
    let facts = PlanInputs { tunnel: listeners.to_vec(), ..facts() };
    let (contents, problems) = Contents::desired(&snapshot(routes), &facts);
    assert_eq!(problems, []);
    for (dialled, at_gateway) in [(443, 0), (5432, 15432)] {
        let route = contents.routes[&route_key(Some(port(dialled)), None)];
        let found = (route.action, route.port.get(), route.group);
        assert_eq!(found, (route_action::TUNNEL, at_gateway, 0));
    }
    let tunnel = contents.tunnel.unwrap();
    assert_eq!((tunnel.v4, tunnel.port_v4.get()), (Addr::v4([10, 0, 0, 7]), 15001));
    assert_eq!(IpAddr::from(tunnel.v6), listeners[1].ip());
    assert_eq!(tunnel.port_v6.get(), 15002);
    // The gateways stay gateways, without a port; the listener is a port without a gateway.
    let expected = [
        key("10.0.0.7", 15001, TCP),
        key("fd00::7", 15002, TCP),
        key("192.0.2.10", 0, 0),
        key("192.0.2.11", 0, 0),
    ];
    assert_eq!(opened(&contents), expected.into_iter().collect());
    let absent = SurelyAbsent::from_raw(contents.globals.unwrap().absent);
    assert!(contents.gateways.iter().all(|key| !absent.surely_no_gateway(&key.addr)));
}

#[test]
fn without_a_listener_the_tunnels_routes_are_denied_and_it_is_said() {
    let routes = vec![route(Some(443), DirectTarget::Any, through_the_tunnel(None))];
    let (contents, problems) = Contents::desired(&snapshot(routes), &facts());
    assert!(matches!(&problems[..], [PlanProblem::NoTunnelListener { .. }]), "{problems:?}");
    assert_eq!(contents.tunnel, None);
    // It stays the tunnel's, which refuses: nothing else may take it up.
    let key = route_key(Some(port(443)), None);
    assert_eq!(contents.routes[&key].action, route_action::TUNNEL);
    // Without such a route nothing is missing.
    let routes = vec![route(Some(443), DirectTarget::Any, redirect(None))];
    assert_eq!(Contents::desired(&snapshot(routes), &facts()).1, []);
}

/// Of two routes for one key the one through the tunnel counts, whichever comes first.
#[test]
fn nothing_goes_in_clear_where_a_route_asks_for_the_tunnel() {
    let plain = route(Some(443), DirectTarget::Any, redirect(None));
    let tunnelled = route(Some(443), DirectTarget::Any, through_the_tunnel(None));
    for routes in [vec![plain.clone(), tunnelled.clone()], vec![tunnelled, plain]] {
        let (contents, _) = Contents::desired(&snapshot(routes), &facts());
        let key = route_key(Some(port(443)), None);
        assert_eq!(contents.routes[&key].action, route_action::TUNNEL);
    }
}

#[test]
fn what_cannot_be_carried_out_is_said_and_denied() {
    let net = DirectTarget::Net("198.51.100.0/24".parse().unwrap());
    let routes = vec![route(None, net, NodeAction::Direct)];
    let (contents, problems) = Contents::desired(&snapshot(routes), &facts());
    assert!(contents.routes.is_empty());
    assert!(matches!(&problems[..], [PlanProblem::NetWithoutPort { .. }]));
    // Found by fuzzing: nothing of it may be carried out, such as opening the gateway's ports.
    let net = DirectTarget::Net("198.51.100.0/24".parse().unwrap());
    let routes = vec![route(None, net, redirect(None))];
    let (contents, _) = Contents::desired(&snapshot(routes), &facts());
    assert!(contents.routes.is_empty());
    assert!(!contents.gateways.contains(&key("192.0.2.10", 0, TCP)));

    let routes = vec![route(Some(443), DirectTarget::Any, redirect(None))];
    let none = PlanInputs { max_groups: 0, ..facts() };
    let (contents, problems) = Contents::desired(&snapshot(routes), &none);
    assert!(contents.routes.is_empty() && contents.groups.is_empty());
    assert!(matches!(&problems[..], [PlanProblem::TooManyGroups { group: 0, .. }]));

    let mut many = snapshot(Vec::new());
    many.mesh.gateways[0].endpoints = (0..40).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let healthy = many.mesh.gateways[0].endpoints.iter().copied().collect();
    let (contents, problems) = Contents::desired(&many, &PlanInputs { healthy, ..facts() });
    assert_eq!(contents.groups[&0].count, 32);
    assert!(matches!(&problems[..], [PlanProblem::TooManyEndpoints { found: 40, .. }]));
    assert_eq!(opened(&contents).len(), 40);
}

#[test]
fn pods_are_known_by_interface_and_address() {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
    let addresses = vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    let pod = PodInterface { ifindex: 7, addresses, hardware: PodHardware::Any, policy: 2 };
    for (hardware, known, check) in [
        (PodHardware::Known(MAC), MAC, pod_hardware::KNOWN),
        (PodHardware::Any, [0; 6], pod_hardware::ANY),
        (PodHardware::Unknown, [0; 6], pod_hardware::UNKNOWN),
        (PodHardware::Taken, [0; 6], pod_hardware::UNKNOWN),
    ] {
        let pods = vec![PodInterface { hardware, ..pod.clone() }];
        let facts = PlanInputs { pods, ..facts() };
        let (contents, problems) = Contents::desired(&Snapshot::default(), &facts);
        let port = PodPort { policy: 2, hardware: known, check };
        assert_eq!(contents.pod_interfaces, [(7, port)].into());
        let taken = matches!(problems[..], [PlanProblem::HardwareTaken { ifindex: 7 }]);
        assert_eq!(taken, hardware == PodHardware::Taken, "{problems:?}");
    }
    let (contents, _) =
        Contents::desired(&Snapshot::default(), &PlanInputs { pods: vec![pod], ..facts() });
    // By its interface, and on no interface yet: as a source of its sockets.
    for ifindex in [7, NO_INTERFACE] {
        let on = contents.pod_addresses.iter().filter(|entry| entry.ifindex == ifindex);
        assert_eq!(on.count(), 2, "{ifindex}");
    }
    assert_eq!(contents.pod_addresses.len(), 4);

    // The node is no pod, so its addresses are on no interface.
    let addresses = vec!["192.0.2.1".parse().unwrap()];
    let hardware = PodHardware::Unknown;
    let pods = vec![PodInterface { ifindex: NO_INTERFACE, addresses, hardware, policy: 0 }];
    let (contents, _) = Contents::desired(&Snapshot::default(), &PlanInputs { pods, ..facts() });
    assert!(contents.pod_interfaces.is_empty());
    assert_eq!(contents.pod_addresses.len(), 1);
}

#[test]
fn audit_is_audit_only_where_it_is_asked_for() {
    let mut audited = Snapshot::default();
    audited.mesh.enforcement = Enforcement::Audit;
    let mode = |snapshot: &Snapshot| Contents::desired(snapshot, &facts()).0.policies[&0].mode;
    assert_eq!(mode(&audited), mode::AUDIT);
    assert_eq!(mode(&Arc::new(Snapshot::default())), mode::ENFORCE);
}

/// It may turn out to be in any set.
#[test]
fn who_is_unknown_has_no_routes_and_is_audited_only_where_everybody_is() {
    let set = |mode| EnforcementOverride { name: "a".into(), selector: Default::default(), mode };
    for (default, other, expected) in [
        (Enforcement::Enforce, Enforcement::Enforce, mode::ENFORCE),
        (Enforcement::Enforce, Enforcement::Audit, mode::ENFORCE),
        (Enforcement::Audit, Enforcement::Enforce, mode::ENFORCE),
        (Enforcement::Audit, Enforcement::Audit, mode::AUDIT),
        (Enforcement::AuditRedirect, Enforcement::Audit, mode::AUDIT),
        (Enforcement::AuditRedirect, Enforcement::Enforce, mode::ENFORCE),
    ] {
        let mut snapshot = Snapshot::default();
        (snapshot.mesh.enforcement, snapshot.mesh.overrides) = (default, vec![set(other)]);
        let (contents, _) = Contents::desired(&snapshot, &facts());
        let unknown = Policy { mode: expected, table: UNKNOWN_TABLE };
        assert_eq!(contents.policies[&UNKNOWN_POLICY], unknown, "{default:?} {other:?}");
    }
}

#[test]
fn each_set_has_a_policy_with_its_mode() {
    let mut snapshot = Snapshot::default();
    let set = |name: &str, mode| EnforcementOverride {
        name: name.into(),
        selector: Default::default(),
        mode,
    };
    snapshot.mesh.overrides = vec![set("a", Enforcement::Audit), set("b", Enforcement::Enforce)];
    let facts = PlanInputs { workloads: [(10, 1), (20, 2), (30, POLICY)].into(), ..facts() };
    let (contents, _) = Contents::desired(&snapshot, &facts);
    let modes: Vec<_> = contents.policies.iter().map(|(id, policy)| (*id, policy.mode)).collect();
    let unknown = (UNKNOWN_POLICY, mode::ENFORCE);
    let closed = (CLOSED, mode::ENFORCE);
    assert_eq!(modes, [(0, mode::ENFORCE), (1, mode::AUDIT), (2, mode::ENFORCE), closed, unknown]);
    assert_eq!(contents.workloads, facts.workloads);
    let globals = contents.globals.unwrap();
    assert_eq!((globals.default_policy, globals.uplink_policy), (POLICY, POLICY));
}

/// Whether a key's prefix covers an address.
fn covers(prefix: &Prefix<Addr>, addr: IpAddr) -> bool {
    let (data, addr) =
        (u128::from_be_bytes(prefix.data.octets()), u128::from_be_bytes(Addr::from(addr).octets()));
    prefix.bits == 0 || (data ^ addr) >> (128 - prefix.bits) == 0
}

#[test]
fn all_of_ipv6_is_not_ipv4() {
    let all = prefixes(&"::/0".parse().unwrap());
    assert_eq!(all.len(), 96);
    let covered = |addr: &str| all.iter().any(|prefix| covers(prefix, addr.parse().unwrap()));
    assert!(covered("2001:db8::1") && covered("::1") && covered("::fffe:0:0"));
    assert!(!covered("198.51.100.7") && !covered("0.0.0.0"));
    // The mapped network itself is IPv4's way of spelling everything, which `0.0.0.0/0` says.
    assert!(prefixes(&"::ffff:0:0/96".parse().unwrap()).is_empty());
    assert_eq!(prefixes(&"0.0.0.0/0".parse().unwrap()).len(), 1);
}

proptest! {
    /// Sorted by rank, keys are in their own order, and only equal ones have equal ranks.
    #[test]
    fn a_rank_has_the_order_of_its_key(
        keys in prop::array::uniform2((0u32..=192, 0u32..3, 0u8..3, any::<u16>(), any::<[u8; 16]>())),
    ) {
        let [a, b] = keys.map(|(bits, table, protocol, port, addr)| Prefix {
            bits,
            data: RouteKey {
                table,
                protocol,
                reserved: 0,
                port: PortBe::new(port),
                addr: Addr::v6(addr),
            },
        });
        prop_assert_eq!(rank(&a).cmp(&rank(&b)), a.cmp(&b));
    }
}

proptest! {
    #[test]
    fn prefixes_cover_what_the_network_does(
        v6: bool, bytes: [u8; 16], len in 0u8..=128, probe: [u8; 16], near: bool,
    ) {
        let (net, probe): (IpNet, IpAddr) = if v6 {
            let addr = Ipv6Addr::from(bytes);
            // Half of the probes share the network's beginning.
            let mask = if near { !0u128 << (128 - u32::from(len.max(1))) } else { 0 };
            let probe = u128::from(addr) & mask | u128::from_be_bytes(probe) & !mask;
            (Ipv6Net::new_assert(addr, len).into(), Ipv6Addr::from(probe).into())
        } else {
            let addr = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
            let probe = Ipv4Addr::new(bytes[0], probe[1], probe[2], probe[3]);
            (Ipv4Net::new_assert(addr, len % 33).into(), probe.into())
        };
        let prefixes = prefixes(&net);
        let mapped = matches!(probe, IpAddr::V6(probe) if probe.to_ipv4_mapped().is_some());
        prop_assume!(!mapped);
        let covered = prefixes.iter().any(|prefix| covers(prefix, probe));
        prop_assert_eq!(covered, net.contains(&probe), "{} {}", net, probe);
    }
}

/// An exemption with a destination has a table of its own, which holds that and nothing else.
#[test]
fn an_exemption_opens_what_it_names_to_its_own_policy() {
    let of = |name: &str, to: Option<&str>| Exemption {
        name: name.into(),
        selector: Default::default(),
        service_accounts: Vec::new(),
        to: to.map(|net| {
            let (net, port) = (net.parse().unwrap(), port(53));
            vec![ExemptDestination { net, port, transport: Transport::Udp }]
        }),
    };
    let mut snapshot = snapshot(vec![route(Some(443), DirectTarget::Any, redirect(None))]);
    snapshot.mesh.exemptions = vec![of("dns", Some("192.0.2.53/32")), of("cni", None)];
    let (contents, problems) = Contents::desired(&snapshot, &facts());
    assert_eq!(problems, []);
    let table = contents.policies[&1].table;
    assert_eq!(contents.policies[&1].mode, mode::ENFORCE);
    assert_ne!(table, TABLE);
    assert_eq!(contents.policies[&2], Policy { mode: mode::EXEMPT, table: 0 });
    let of_table = |table| contents.routes.iter().filter(move |(key, _)| key.data.table == table);
    let own: Vec<_> = of_table(table).collect();
    let [(key, route)] = own[..] else { panic!("{own:?}") };
    assert_eq!((key.data.protocol, key.data.port.get(), key.bits), (17, 53, RouteKey::BITS));
    assert_eq!((key.data.addr, route.action), (Addr::v4([192, 0, 2, 53]), route_action::DIRECT));
    assert!(of_table(0).all(|(key, _)| key.data.protocol == TCP), "nobody else has it");
    assert_eq!(contents.routes.len(), of_table(0).count() + 1);
    // The same content is the same table wherever it is listed, another one never.
    snapshot.mesh.exemptions.reverse();
    snapshot.mesh.exemptions.push(of("ntp", Some("192.0.2.54/32")));
    let (contents, _) = Contents::desired(&snapshot, &facts());
    assert_eq!(contents.policies[&2].table, table);
    assert!(![table, TABLE].contains(&contents.policies[&3].table));
}
