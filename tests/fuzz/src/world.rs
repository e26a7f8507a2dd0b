//! A small world: what a node's policy says, in the words of networks and ports; and the oracle,
//! which says what may pass there.

mod flows;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_ebpf::{
    abi::{
        ADMIN_PORTS, FlowKey, FlowState, GatewayKey, Globals, PodAddress, PodPort, PolicyId, Route,
        RouteKey, TableId, UNKNOWN_POLICY, UNKNOWN_TABLE, mode, pod_hardware, route_action,
    },
    absent::SurelyAbsent,
    addr::{Addr, MAPPED_PREFIX_BITS, PortBe},
    decide::{Place, PolicyRules, PolicyView},
    reason::Reason,
    verdict::Mode,
};
use ipnet::IpNet;

use crate::{
    frame::{Discovery, Frame, POD_MAC, Packet, TCP},
    random::Random,
};

pub(crate) const INTERFACES: [u32; 3] = [7, 8, 9];
const POLICIES: u32 = 4;

/// A route of the world: `port` zero is every port, and then there is no `net`.
#[derive(Clone, Copy, Debug)]
struct WorldRoute {
    table: TableId,
    protocol: u8,
    port: u16,
    net: Option<IpNet>,
    action: u8,
    to: u16,
}

/// The address of an interface that forwards, and is no pod's.
const NO_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What a node's maps say.
#[derive(Clone, Debug)]
pub(crate) struct World {
    generation: u64,
    /// Mode and table.
    policies: BTreeMap<PolicyId, (u32, TableId)>,
    uplink_policy: PolicyId,
    denied: Vec<IpNet>,
    internal: Vec<IpNet>,
    /// Address, and the ports that routes name; port zero is all of them.
    gateways: BTreeMap<IpAddr, BTreeSet<u16>>,
    routes: Vec<WorldRoute>,
    interfaces: BTreeMap<u32, PolicyId>,
    pod_addresses: BTreeSet<(u32, IpAddr)>,
    table: RefCell<Table>,
}

/// The table of inbound flows, as the programs keep it, and the clock.
#[derive(Clone, Default, Debug)]
struct Table {
    now: u64,
    flows: HashMap<FlowKey, FlowState>,
    refused_syns: HashMap<u32, u64>,
}

impl World {
    /// A pod, its cluster, a gateway, a direct service; and random things besides.
    pub(crate) fn random(random: &mut Random<'_>) -> Self {
        let lenient = random.choose(&[mode::AUDIT, mode::AUDIT_REDIRECT, mode::EXEMPT]);
        let mut world = Self {
            generation: u64::from(!random.rarely()),
            policies: BTreeMap::from([
                (1, (mode::ENFORCE, 0)),
                (2, (lenient, random.table())),
                (3, (u32::from(random.u8()), random.table())),
                (UNKNOWN_POLICY, (mode::ENFORCE, UNKNOWN_TABLE)),
            ]),
            uplink_policy: random.policy(),
            denied: random.list(2, Random::net),
            internal: random.list(2, Random::net),
            gateways: BTreeMap::new(),
            routes: random.list(4, random_route),
            interfaces: BTreeMap::from([(INTERFACES[0], random.policy())]),
            pod_addresses: BTreeSet::new(),
            table: RefCell::default(),
        };
        for _ in 0..random.below(3) {
            let ports = random.list(3, Random::port).into_iter().collect();
            world.gateways.insert(random.ip(), ports);
        }
        if random.bool() {
            world.interfaces.insert(INTERFACES[1], random.policy());
        }
        if random.bool() {
            world.pod_addresses.insert((random.choose(&INTERFACES), NO_ADDRESS));
        }
        for ip in random.list(3, Random::ip) {
            world.pod_addresses.insert((random.choose(&INTERFACES[..2]), ip));
        }
        if !random.rarely() {
            world.add_usual();
        }
        world
    }

    fn add_usual(&mut self) {
        let v4 = |octets: [u8; 4]| IpAddr::from(octets);
        let net = |octets, length| IpNet::new_assert(v4(octets), length);
        self.internal.push(net([10, 0, 0, 0], 8));
        self.denied.push(net([169, 254, 169, 254], 32));
        self.gateways.insert(v4([10, 9, 0, 10]), BTreeSet::from([443]));
        self.pod_addresses.insert((INTERFACES[0], v4([10, 0, 0, 5])));
        let pod = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
        self.pod_addresses.insert((INTERFACES[0], pod.into()));
        self.internal.push(IpNet::new_assert(pod.into(), 8).trunc());
    }

    /// A policy that isn't there enforces table 0.
    fn mode_and_table(&self, policy: PolicyId) -> (u32, TableId) {
        self.policies.get(&policy).copied().unwrap_or((mode::ENFORCE, 0))
    }

    /// Whether everything of this policy passes, and for which reason if for one of its own.
    fn lax(&self, policy: PolicyId) -> Option<Option<Reason>> {
        match self.mode_and_table(policy).0 {
            mode::AUDIT | mode::AUDIT_REDIRECT => Some(None),
            mode::EXEMPT => Some(Some(Reason::Exempt)),
            _ => None,
        }
    }

    /// What the agent would say of look-ups that aren't needed.
    fn absent(&self) -> SurelyAbsent {
        let gateway = |absent: SurelyAbsent, ip: &IpAddr| absent.with_gateway(&Addr::from(*ip));
        let absent = self.gateways.keys().fold(SurelyAbsent::ALL, gateway);
        self.denied.iter().fold(absent, |absent, net| {
            let bits = u32::from(net.prefix_len());
            let mapped = if net.addr().is_ipv4() { MAPPED_PREFIX_BITS } else { 0 };
            absent.with_denied(mapped + bits, &Addr::from(net.addr()))
        })
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, nanoseconds: u64) {
        let mut table = self.table.borrow_mut();
        table.now = table.now.saturating_add(nanoseconds);
    }

    /// What tc on a pod's interface may let pass.
    pub(crate) fn at_pod(&self, ifindex: u32, frame: Option<Frame>) -> Expected {
        let Some(policy) = self.interfaces.get(&ifindex).copied() else { return Expected::Dropped };
        let passes = frame.and_then(|frame| match frame {
            Frame::Arp { mac, .. } | Frame::Ip { mac, .. } if mac != POD_MAC => None,
            Frame::Arp { mac, hardware, sender } => (hardware == mac
                && (sender.is_unspecified()
                    || self.pod_addresses.contains(&(ifindex, sender.into()))))
            .then_some(Reason::Neighbour),
            Frame::Ip { mac, packet } if !self.honest(ifindex, mac, &packet) => None,
            Frame::Ip { packet, .. } => self.outward(Place::Wire, &packet, policy),
        });
        self.expected(policy, passes)
    }

    /// What tc on the uplink may let pass of a workload's, or of what comes from an interface, or from one that is
    /// a port of a bridge of pods.
    pub(crate) fn at_uplink(
        &self,
        came_in_on: u32,
        bridged: bool,
        workload: Option<PolicyId>,
        frame: Option<Frame>,
    ) -> Expected {
        let pod = || self.interfaces.get(&came_in_on).copied();
        let forwards = !bridged && self.pod_addresses.contains(&(came_in_on, NO_ADDRESS));
        let other = if forwards { self.uplink_policy } else { UNKNOWN_POLICY };
        let policy = workload.or_else(pod).unwrap_or(other);
        let passes = frame.and_then(|frame| match frame {
            Frame::Arp { .. } => Some(Reason::Neighbour),
            Frame::Ip { packet, .. } => self.outward(Place::Wire, &packet, policy),
        });
        self.expected(policy, passes)
    }

    /// What may leave a socket of a workload's cgroup.
    pub(crate) fn at_socket(&self, policy: PolicyId, packet: Option<&Packet>) -> Expected {
        let passes = packet.and_then(|packet| self.outward(Place::Skb, packet, policy));
        self.expected(policy, passes)
    }

    fn expected(&self, policy: PolicyId, passes: Option<Reason>) -> Expected {
        match (self.lax(policy), passes) {
            (Some(Some(reason)), _) | (None, Some(reason)) => Expected::Passes(reason),
            (Some(None), _) => Expected::Audited(passes),
            (None, None) => Expected::Dropped,
        }
    }

    /// Whether the pod may send this as its own.
    fn honest(&self, ifindex: u32, mac: [u8; 6], packet: &Packet) -> bool {
        let own = |ip: IpAddr| self.pod_addresses.contains(&(ifindex, ip)) || ip == link_local(mac);
        let unspecified = packet.source.is_unspecified();
        match packet.discovery {
            Discovery::Asks(target) if unspecified => own(target.into()),
            Discovery::AsksRouters => unspecified || own(packet.source),
            Discovery::Tells(target) => own(target.into()) && own(packet.source),
            Discovery::IsRouter => false,
            Discovery::No | Discovery::Asks(_) => own(packet.source),
        }
    }

    /// Why a packet may go where it wants to, by everything but its source.
    fn outward(&self, place: Place, packet: &Packet, policy: PolicyId) -> Option<Reason> {
        let to = packet.destination;
        if matches!(packet.discovery, Discovery::IsRouter) {
            return None;
        }
        if !matches!(packet.discovery, Discovery::No) && is_link(to) {
            return Some(Reason::Neighbour);
        }
        if to.is_loopback() || to.is_unspecified() {
            let own_host = place == Place::Skb && to.is_loopback();
            return own_host.then_some(Reason::Loopback);
        }
        if self.generation == 0 || within(&self.denied, to) {
            return None;
        }
        let (_, table) = self.mode_and_table(policy);
        if let Some(ports) = self.gateways.get(&to) {
            let every = ports.contains(&0) && !ADMIN_PORTS.contains(&packet.ports[1]);
            let routed = packet.protocol == TCP && (ports.contains(&packet.ports[1]) || every);
            let known = table != UNKNOWN_TABLE;
            return (routed && known && !packet.fragment).then_some(Reason::Gateway);
        }
        if within(&self.internal, to) {
            return Some(Reason::Internal);
        }
        if packet.fragment || is_multicast(to) {
            return None;
        }
        if table == UNKNOWN_TABLE {
            return None;
        }
        let direct = self.longest(table, packet.protocol, packet.ports[1], to)?.action;
        (direct == route_action::DIRECT).then_some(Reason::Direct)
    }

    fn longest(&self, table: TableId, protocol: u8, port: u16, to: IpAddr) -> Option<&WorldRoute> {
        let covers = |route: &&WorldRoute| {
            (route.table, route.protocol) == (table, protocol)
                && (route.port == 0 || route.port == port)
                && route.net.is_none_or(|net| net.contains(&to))
        };
        // The last of equal ones, as the last one written to a map stays there.
        self.routes.iter().filter(covers).max_by_key(|route| match route.net {
            None => (route.port != 0, None),
            Some(net) => (true, Some(net.prefix_len())),
        })
    }
}

/// What may become of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// It may pass, for this reason alone.
    Passes(Reason),
    /// It passes by audit mode; enforced it might pass for this reason alone.
    Audited(Option<Reason>),
    /// It is dropped, unless it answers what came in.
    Dropped,
}

fn random_route(random: &mut Random<'_>) -> WorldRoute {
    let port = random.port();
    WorldRoute {
        table: random.table(),
        protocol: if random.rarely() { random.u8() } else { TCP },
        port,
        net: (port != 0 && random.bool()).then(|| random.net()),
        action: random.u8() % 4,
        to: random.port(),
    }
}

impl Random<'_> {
    /// The number of a policy; most are in a world's list.
    pub(crate) fn policy(&mut self) -> PolicyId {
        match self.u8() {
            0..0x80 => 1,
            byte => u32::from(byte) % (POLICIES + 1),
        }
    }

    /// The number of a table; most are the one that a policy has which isn't there.
    fn table(&mut self) -> TableId {
        u32::from(self.rarely())
    }
}

fn within(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

fn is_multicast(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Link-local, or multicast that stays on the link.
pub(crate) fn is_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] == 0xff02,
    }
}

/// RFC 4291 appendix A.
fn link_local(mac: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from(octets).into()
}

impl PolicyView for World {
    fn globals(&self) -> Globals {
        Globals {
            generation: self.generation,
            events_per_second: 0,
            default_policy: 1,
            uplink_policy: self.uplink_policy,
            absent: self.absent().raw(),
            ..Globals::NONE
        }
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        let (mode, table) = self.mode_and_table(policy);
        PolicyRules { mode: Mode::from_raw(mode), table }
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        within(&self.denied, IpAddr::from(*addr))
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        within(&self.internal, IpAddr::from(*addr))
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        let Some(ports) = self.gateways.get(&IpAddr::from(key.addr)) else { return false };
        match (key.protocol, key.port.get()) {
            (0, 0) => true,
            (TCP, port) => ports.contains(&port),
            _ => false,
        }
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        let route = self.longest(key.table, key.protocol, key.port.get(), key.addr.into())?;
        Some(Route { action: route.action, reserved: 0, port: PortBe::new(route.to), group: 0 })
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        let policy = self.interfaces.get(&ifindex).copied()?;
        Some(PodPort { policy, hardware: POD_MAC, check: pod_hardware::KNOWN })
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.pod_addresses.contains(&(key.ifindex, key.addr.into()))
    }
}
