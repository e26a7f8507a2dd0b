//! For tests: the policy maps as plain collections, and packets built byte by byte.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use zerocopy::IntoBytes;

use crate::{
    abi::{
        FlowKey, FlowPlace, FlowState, GatewayKey, Globals, PodAddress, PodPort, Policy, PolicyId,
        Route, RouteKey, TableId, UNKNOWN_POLICY, UNKNOWN_TABLE, pod_hardware, route_action,
    },
    addr::{Addr, PortBe},
    decide::{PolicyRules, PolicyView},
    hooks::View,
    inbound::FlowTable,
    packet::{Bytes, Flow, Reader, offload::Offload, protocol},
    verdict::Mode,
};

pub(crate) const POLICY: PolicyId = 3;
pub(crate) const UPLINK_POLICY: PolicyId = 4;
pub(crate) const AUDITED: PolicyId = 5;
pub(crate) const EXEMPT: PolicyId = 6;
pub(crate) const AUDITED_REDIRECT: PolicyId = 7;
/// The routes of all policies but [`UPLINK_POLICY`].
pub(crate) const TABLE: TableId = 13;
pub(crate) const UPLINK_TABLE: TableId = 14;
pub(crate) const IFINDEX: u32 = 7;
/// An interface that is no pod's, as the agent knows.
pub(crate) const FOREIGN: u32 = 77;
pub(crate) const MAC: [u8; 6] = [0x02, 0x42, 0x0a, 0, 0, 0x05];

pub(crate) const POD: &str = "10.0.0.5";
pub(crate) const POD6: &str = "fd00::5";
pub(crate) const INSIDE: &str = "10.1.2.3";
pub(crate) const INSIDE6: &str = "fd00::99";
pub(crate) const OUTSIDE: &str = "198.51.100.7";
pub(crate) const OUTSIDE6: &str = "2001:db8:ffff::7";
pub(crate) const GATEWAY: &str = "10.9.0.10";
pub(crate) const DIRECT: &str = "203.0.113.80";
/// Ports of tunnels.
pub(crate) const ENCAPSULATION: [u16; 3] = [4789, 6635, 51820];
pub(crate) const METADATA: &str = "169.254.169.254";

pub(crate) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// The maps. A trie is searched the naive way.
#[derive(Clone, Default, Debug)]
pub(crate) struct World {
    pub(crate) generation: u64,
    pub(crate) policies: HashMap<PolicyId, PolicyRules>,
    pub(crate) denied: Vec<(u32, Addr)>,
    pub(crate) internal: Vec<(u32, Addr)>,
    pub(crate) gateways: HashSet<GatewayKey>,
    pub(crate) routes: Vec<(u32, RouteKey, Route)>,
    pub(crate) interfaces: HashMap<u32, PodPort>,
    pub(crate) pod_addresses: HashSet<PodAddress>,
    /// What the programs change.
    pub(crate) table: RefCell<Table>,
}

/// The table of flows, and the clock.
#[derive(Clone, Default, Debug)]
pub(crate) struct Table {
    pub(crate) now: u64,
    pub(crate) flows: HashMap<FlowKey, FlowState>,
    pub(crate) refused_syns: HashMap<u32, u64>,
    turns: HashMap<FlowPlace, u32>,
    places: HashMap<FlowPlace, FlowKey>,
}

impl World {
    /// A pod, its cluster, a gateway on 443, routes for 80 and 443, a direct service on 9000.
    pub(crate) fn usual() -> Self {
        let mut world = Self { generation: 1, ..Self::default() };
        for (policy, mode, table) in [
            (POLICY, Mode::Enforce, TABLE),
            (UPLINK_POLICY, Mode::Enforce, UPLINK_TABLE),
            (AUDITED, Mode::Audit, TABLE),
            (AUDITED_REDIRECT, Mode::AuditRedirect, TABLE),
            (EXEMPT, Mode::Exempt, TABLE),
            (UNKNOWN_POLICY, Mode::Enforce, UNKNOWN_TABLE),
        ] {
            world.policies.insert(policy, PolicyRules { mode, table });
        }
        world.denied.push((128, addr(METADATA)));
        world.internal.push((96 + 8, addr("10.0.0.0")));
        world.internal.push((96 + 16, addr("169.254.0.0")));
        world.internal.push((8, addr("fd00::")));
        world.add_gateway(GATEWAY, 443);
        let closed = ENCAPSULATION.map(|port| GatewayKey::encapsulation(PortBe::new(port)));
        world.gateways.extend(closed);
        for table in [TABLE, UPLINK_TABLE] {
            world.redirect(table, 80, 0);
            world.redirect(table, 443, 0);
            world.redirect(table, 5432, 15432);
            world.add_route(table, Some(9000), Some((128, addr(DIRECT))), route_action::DIRECT, 0);
        }
        world.interfaces.insert(IFINDEX, port(POLICY));
        world.pod_addresses.insert(PodAddress::forwarder(FOREIGN));
        for own in [POD, POD6] {
            world.pod_addresses.insert(PodAddress { ifindex: IFINDEX, addr: addr(own) });
        }
        world
    }

    pub(crate) fn add_gateway(&mut self, at: &str, port: u16) {
        let any = GatewayKey { addr: addr(at), port: PortBe::new(0), protocol: 0, reserved: 0 };
        self.gateways.insert(any);
        let port = PortBe::new(port);
        self.gateways.insert(GatewayKey { port, protocol: protocol::TCP, ..any });
    }

    pub(crate) fn redirect(&mut self, table: TableId, port: u16, to: u16) {
        self.add_route(table, Some(port), None, route_action::REDIRECT, to);
    }

    pub(crate) fn add_route(
        &mut self,
        table: TableId,
        port: Option<u16>,
        prefix: Option<(u32, Addr)>,
        action: u8,
        to: u16,
    ) {
        let bits = match (port, prefix) {
            (None, _) => RouteKey::ANY_PORT_BITS,
            (Some(_), None) => RouteKey::FIXED_BITS,
            (Some(_), Some((bits, _))) => RouteKey::FIXED_BITS + bits,
        };
        let key = RouteKey {
            table,
            protocol: protocol::TCP,
            reserved: 0,
            port: PortBe::new(port.unwrap_or(0)),
            addr: prefix.map_or(Addr::UNSPECIFIED, |(_, addr)| addr),
        };
        let route = Route { action, reserved: 0, port: PortBe::new(to), group: 2 };
        self.routes.push((bits, key, route));
    }

    /// The pod's interface has another policy.
    pub(crate) fn with_policy(mut self, policy: PolicyId) -> Self {
        self.interfaces.insert(IFINDEX, port(policy));
        self
    }
}

/// The pod behind its interface.
pub(crate) const fn port(policy: PolicyId) -> PodPort {
    PodPort { policy, hardware: MAC, check: pod_hardware::KNOWN }
}

fn has_prefix(bytes: &[u8], prefix: &[u8], bits: u32) -> bool {
    (0..bits).all(|bit| {
        let (byte, mask) = (bit as usize / 8, 0x80 >> (bit % 8));
        bytes[byte] & mask == prefix[byte] & mask
    })
}

impl PolicyView for World {
    fn globals(&self) -> Globals {
        Globals {
            generation: self.generation,
            events_per_second: 0,
            default_policy: POLICY,
            uplink_policy: UPLINK_POLICY,
            ..Globals::NONE
        }
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        let zero = Policy { mode: 0, table: 0 };
        self.policies.get(&policy).copied().unwrap_or(zero.into())
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        self.denied.iter().any(|(bits, net)| has_prefix(addr.as_bytes(), net.as_bytes(), *bits))
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        self.internal.iter().any(|(bits, net)| has_prefix(addr.as_bytes(), net.as_bytes(), *bits))
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.gateways.contains(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes
            .iter()
            .filter(|(bits, prefix, _)| has_prefix(key.as_bytes(), prefix.as_bytes(), *bits))
            .max_by_key(|(bits, ..)| *bits)
            .map(|(.., route)| *route)
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.interfaces.get(&ifindex).copied()
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.pod_addresses.contains(key)
    }
}

impl View for World {}

impl FlowTable for World {
    fn now(&self) -> u64 {
        self.table.borrow().now
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowState> {
        self.table.borrow().flows.get(key).copied()
    }

    fn next_turn(&self, scope: &FlowPlace) -> u32 {
        let mut table = self.table.borrow_mut();
        let turn = table.turns.entry(*scope).or_default();
        *turn += 1;
        *turn - 1
    }

    fn place(&self, place: &FlowPlace, key: &FlowKey) -> Option<FlowKey> {
        self.table.borrow_mut().places.insert(*place, *key)
    }

    fn insert_flow(&self, key: &FlowKey, state: FlowState) {
        self.table.borrow_mut().flows.insert(*key, state);
    }

    fn change_flow(&self, key: &FlowKey, before: FlowState, after: FlowState) {
        let old = self.table.borrow_mut().flows.insert(*key, after);
        assert_eq!(old, Some(before));
    }

    fn end_flow(&self, key: &FlowKey) {
        self.table.borrow_mut().flows.remove(key);
    }

    fn refused_syn(&self, slot: u32) -> u64 {
        self.table.borrow().refused_syns.get(&slot).copied().unwrap_or(0)
    }

    fn refuse_syn(&self, slot: u32, now: u64) {
        self.table.borrow_mut().refused_syns.insert(slot, now);
    }
}

pub(crate) fn flow(protocol: u8, destination: &str, port: u16) -> Flow {
    Flow {
        destination: addr(destination),
        destination_port: PortBe::new(port),
        protocol,
        ..Flow::UNKNOWN
    }
}

/// An IP packet of the version of its addresses.
pub(crate) fn ip(protocol: u8, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = (length + 20).to_be_bytes();
            let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = length.to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, high, low, protocol, 255];
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

pub(crate) fn tcp_header(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut header = vec![0xc0, 0x01, high, low];
    header.extend([0; 8]);
    header.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

pub(crate) fn tcp(from: &str, to: &str, port: u16) -> Vec<u8> {
    ip(protocol::TCP, from, to, &tcp_header(port))
}

pub(crate) fn udp(from: &str, to: &str, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    ip(protocol::UDP, from, to, &[0xc0, 1, high, low, 0, 9, 0, 0, b'x'])
}

/// A report of multicast groups, behind its hop-by-hop header (MLD): of this kind, with this after its first four
/// bytes.
pub(crate) fn report(kind: u8, from: &str, to: &str, body: &[u8]) -> Vec<u8> {
    let alert = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let mut packet = ip(0, from, to, &[&alert[..], &[kind, 0, 0, 0], body].concat());
    packet[7] = 1;
    packet
}

/// The body of a report of version 2, of as many groups.
pub(crate) fn groups(number: u8) -> Vec<u8> {
    let group = |last| [&[4, 0, 0, 0, 0xff, 2][..], &[0; 13], &[last]].concat();
    (0..number).fold(vec![0, 0, 0, number], |body, last| [body, group(last)].concat())
}

/// The body of a report of version 1: of one group.
pub(crate) fn group() -> Vec<u8> {
    [&[0; 4][..], &addr("ff02::1234").octets()].concat()
}

/// A neighbour-discovery message.
pub(crate) fn neighbour(kind: u8, from: &str, to: &str, target: &str) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != 133 {
        message.extend(addr(target).octets());
    }
    ip(protocol::ICMPV6, from, to, &message)
}

pub(crate) fn arp(operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(MAC);
    packet.extend(addr(sender).as_v4().unwrap());
    packet.extend([0; 6]);
    packet.extend(addr(target).as_v4().unwrap());
    packet
}

pub(crate) fn frame(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1];
    frame.extend(MAC);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A frame with the ethertype that the packet's version calls for.
pub(crate) fn ip_frame(packet: &[u8]) -> Vec<u8> {
    frame(if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

impl Reader for Unfinished<'_> {}

/// Bytes of which something is yet to be filled in.
pub(crate) struct Unfinished<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) offload: Offload,
}

impl Bytes for Unfinished<'_> {
    fn length(&self) -> u32 {
        self.bytes.length()
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.load(offset)
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}
