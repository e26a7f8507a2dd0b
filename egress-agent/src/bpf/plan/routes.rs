//! Routes as keys and values of the maps.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use egress_ebpf::{
    abi::{ADMIN_PORTS, GatewayKey, GroupId, Route, RouteKey, TableId, route_action},
    addr::{Addr, MAPPED_PREFIX_BITS, PortBe},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::IntoBytes;

use super::{Contents, PlanInputs, PlanProblem, Prefix, TABLE};
use crate::{
    policy::{
        AddressGuard, DirectTarget, ExemptDestination, GatewayGroup, Hop, MeshConfig, NodeAction,
        NodeRoute, Snapshot,
    },
    types::Port,
};

/// IP protocol number of TCP; all routes but those of exemptions are for it.
pub(super) const TCP: u8 = 6;
/// Bits of a route's key before the port.
const ANY_PORT_BITS: u32 = RouteKey::FIXED_BITS - 16;

/// A key, how much it has to say there, and its value.
type WeightedEntry = (Prefix<RouteKey>, Weight, Route);
/// Where two are for one key, the heavier one stays: see [`weight`].
type Weight = (bool, u32, Option<Hop>);

/// Routes that are being put together. There may be a hundred thousand, so they are sorted once
/// instead of being looked up one by one.
pub(super) struct Builder<'a> {
    mesh: &'a MeshConfig,
    facts: &'a PlanInputs,
    guard: AddressGuard,
    entries: Vec<WeightedEntry>,
    /// Ports that are opened at the endpoints of a group; `None` is every port.
    opened: BTreeSet<(usize, Option<Port>)>,
    /// Groups that are reached through the tunnel.
    tunnelled: BTreeSet<usize>,
    problems: Vec<PlanProblem>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, facts: &'a PlanInputs) -> Self {
        Self {
            mesh: &snapshot.mesh,
            facts,
            guard: AddressGuard::new(&snapshot.mesh),
            entries: Vec::with_capacity(snapshot.node.routes.len()),
            opened: BTreeSet::new(),
            tunnelled: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Adds what one route says.
    pub(super) fn add(&mut self, route: &NodeRoute) {
        let dialled = route.port.map(|port| port.0);
        if dialled.is_none()
            && let Some(net) = named(&route.target)
        {
            self.problems.push(PlanProblem::NetWithoutPort { net });
            return;
        }
        let weight = weight(route);
        let value = match route.action {
            NodeAction::Direct => {
                Route { action: route_action::DIRECT, reserved: 0, port: PortBe::new(0), group: 0 }
            }
            NodeAction::Redirect { group, port, hop } => {
                let Some(id) = group_id(group, self.facts) else { return };
                let to = port.map(|port| port.0);
                let at_gateway = to.or(dialled);
                if let Some(port) = at_gateway.filter(|port| ADMIN_PORTS.contains(&port.get())) {
                    self.problems.push(PlanProblem::AdminPort { port: port.get() });
                    return;
                }
                let action = match hop {
                    Hop::Plain => {
                        self.opened.insert((group, at_gateway));
                        route_action::REDIRECT
                    }
                    // Pods don't go to the gateway themselves, so nothing is opened there.
                    Hop::Tunnel => {
                        self.tunnelled.insert(group);
                        route_action::TUNNEL
                    }
                };
                if dialled.is_none() {
                    self.deny_admin_ports(weight);
                }
                Route { action, reserved: 0, port: PortBe::new(to.map_or(0, Port::get)), group: id }
            }
        };
        match &route.target {
            DirectTarget::Any => self.entries.push((route_key(dialled, None), weight, value)),
            DirectTarget::Net(net) => self.add_net(dialled, *net, weight, value),
            DirectTarget::Name(host) => {
                // A name opens no address inside, in no disguise: the network might translate it.
                let found = self.facts.resolved.get(host).into_iter().flatten().copied();
                let allowed: Vec<_> = found.filter(|addr| self.guard.allows(*addr)).collect();
                for addr in allowed {
                    self.add_net(dialled, IpNet::from(addr), weight, value);
                }
            }
        }
    }

    /// Adds what an exempt workload reaches.
    pub(super) fn exempt(&mut self, table: TableId, to: &ExemptDestination) {
        let ExemptDestination { net, port, transport } = to;
        let value =
            Route { action: route_action::DIRECT, reserved: 0, port: PortBe::new(0), group: 0 };
        let weight = (true, u32::from(net.prefix_len()), None);
        for prefix in prefixes(net) {
            let mut key = route_key(Some(*port), Some(prefix));
            (key.data.table, key.data.protocol) = (table, transport.number());
            self.entries.push((key, weight, value));
        }
    }

    fn add_net(&mut self, dialled: Option<Port>, net: IpNet, weight: Weight, value: Route) {
        let mut add = |prefix| self.entries.push((route_key(dialled, Some(prefix)), weight, value));
        match net.trunc() {
            // The usual case, a hundred thousand times: not worth a list of one each.
            IpNet::V4(net) => add(mapped(net)),
            net @ IpNet::V6(_) => prefixes(&net).into_iter().for_each(add),
        }
    }

    /// A route for every port mustn't lead to a gateway's own ports. A connect to them is refused
    /// with a reason, instead of dropped at the enforcement point.
    fn deny_admin_ports(&mut self, weight: Weight) {
        for port in ADMIN_PORTS.into_iter().filter_map(Port::new) {
            let deny =
                Route { action: route_action::DENY, reserved: 0, port: PortBe::new(0), group: 0 };
            self.entries.push((route_key(Some(port), None), weight, deny));
        }
    }

    pub(super) fn finish(self, contents: &mut Contents, problems: &mut Vec<PlanProblem>) {
        let Self { mesh, facts, guard: _, entries, opened, tunnelled, problems: own } = self;
        for (group, port) in opened {
            let endpoints = mesh.gateways.get(group).map(|gateway| &gateway.endpoints[..]);
            for endpoint in endpoints.unwrap_or_default() {
                contents.gateways.insert(gateway_key(*endpoint, port, TCP));
            }
        }
        if facts.tunnel.is_empty() {
            let groups = tunnelled.into_iter().filter_map(|group| mesh.gateways.get(group));
            let missing = |group: &GatewayGroup| PlanProblem::NoTunnelListener {
                service: group.service.clone(),
            };
            problems.extend(groups.map(missing));
        }
        contents.routes = heaviest(&entries);
        problems.extend(own);
    }
}

/// Of several for one key the heaviest, and of those the first of the file. What is sorted is small
/// and quickly compared: that is most of the work where there are a hundred thousand.
fn heaviest(entries: &[WeightedEntry]) -> BTreeMap<Prefix<RouteKey>, Route> {
    let mut order: Vec<([u64; 3], Reverse<Weight>, usize)> = entries
        .iter()
        .enumerate()
        .map(|(index, (key, weight, _))| (rank(key), Reverse(*weight), index))
        .collect();
    order.sort_unstable();
    order.dedup_by_key(|(rank, ..)| *rank);
    let chosen = order.iter().filter_map(|(.., index)| entries.get(*index));
    chosen.map(|(key, _, route)| (*key, *route)).collect()
}

/// A key as numbers, which have the order that keys have.
pub(super) fn rank(key: &Prefix<RouteKey>) -> [u64; 3] {
    let RouteKey { table, protocol, reserved: _, port, addr } = key.data;
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(addr.as_bytes().chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let head = u64::from(key.bits) << 56
        | u64::from(table) << 24
        | u64::from(protocol) << 16
        | u64::from(port.get());
    [head, pair(words[0], words[1]), pair(words[2], words[3])]
}

/// The more specific route comes first, then the stricter one: through the tunnel, to a gateway. Keys
/// can't tell: a wide IPv6 network has several keys, which may be those of a narrower one.
fn weight(route: &NodeRoute) -> Weight {
    let bits = match &route.target {
        DirectTarget::Any => 0,
        DirectTarget::Net(IpNet::V4(net)) => 1 + MAPPED_PREFIX_BITS + u32::from(net.prefix_len()),
        DirectTarget::Net(IpNet::V6(net)) => 1 + u32::from(net.prefix_len()),
        DirectTarget::Name(_) => 1 + 128,
    };
    let hop = match route.action {
        NodeAction::Direct => None,
        NodeAction::Redirect { hop, .. } => Some(hop),
    };
    (route.port.is_some(), bits, hop)
}

/// The addresses that a route names, as it names them; `None` where it is for all.
fn named(target: &DirectTarget) -> Option<String> {
    match target {
        DirectTarget::Any => None,
        DirectTarget::Net(net) => Some(net.to_string()),
        DirectTarget::Name(host) => Some(host.to_string()),
    }
}

pub(super) fn group_id(index: usize, facts: &PlanInputs) -> Option<GroupId> {
    GroupId::try_from(index).ok().filter(|id| *id < facts.max_groups)
}

pub(super) fn gateway_key(addr: IpAddr, port: Option<Port>, protocol: u8) -> GatewayKey {
    let port = PortBe::new(port.map_or(0, Port::get));
    GatewayKey { addr: addr.into(), port, protocol, reserved: 0 }
}

pub(super) fn route_key(port: Option<Port>, addr: Option<Prefix<Addr>>) -> Prefix<RouteKey> {
    let bits = match (port, addr) {
        (None, _) => ANY_PORT_BITS,
        (Some(_), None) => RouteKey::FIXED_BITS,
        (Some(_), Some(addr)) => RouteKey::FIXED_BITS + addr.bits,
    };
    Prefix {
        bits,
        data: RouteKey {
            table: TABLE,
            protocol: TCP,
            reserved: 0,
            port: PortBe::new(port.map_or(0, Port::get)),
            addr: addr.map_or(Addr::UNSPECIFIED, |addr| addr.data),
        },
    }
}

/// The prefixes of map keys that cover exactly these addresses.
///
/// IPv4 lies inside of IPv6 there (`::ffff:0:0/96`), so an IPv6 network that is so wide that it
/// holds that prefix (`::/0`) is split into the networks around it: `::/0` must not mean IPv4.
pub(super) fn prefixes(net: &IpNet) -> Vec<Prefix<Addr>> {
    match net.trunc() {
        IpNet::V4(net) => vec![mapped(net)],
        IpNet::V6(net) => {
            let inside = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
            let mut prefixes = Vec::new();
            around(net, inside, &mut prefixes);
            prefixes
        }
    }
}

fn mapped(net: Ipv4Net) -> Prefix<Addr> {
    let bits = MAPPED_PREFIX_BITS + u32::from(net.prefix_len());
    Prefix { bits, data: Addr::v4(net.network().octets()) }
}

/// `net` without `hole`, which it may hold.
fn around(net: Ipv6Net, hole: Ipv6Net, prefixes: &mut Vec<Prefix<Addr>>) {
    if net == hole {
        return;
    }
    if !net.contains(&hole) {
        let bits = u32::from(net.prefix_len());
        prefixes.push(Prefix { bits, data: Addr::v6(net.network().octets()) });
        return;
    }
    // It holds the hole and isn't the hole, so it is shorter and can be halved.
    for half in net.subnets(net.prefix_len() + 1).into_iter().flatten() {
        around(half, hole, prefixes);
    }
}

/// How a route compares to others for the same flow: the greatest counts, and of equals the first.
pub fn specificity(route: &NodeRoute) -> impl Ord + use<> {
    weight(route)
}
