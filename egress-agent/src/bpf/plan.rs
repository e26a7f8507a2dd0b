//! From the snapshot to what the maps should hold. Pure: names are resolved and health is known
//! before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_ebpf::{
    abi::{
        ADMIN_PORTS, GROUP_ENDPOINTS, GatewayKey, Globals, Group, GroupId, PodAddress, Policy,
        PolicyId, Route, RouteKey, TableId, mode, route_action,
    },
    addr::{Addr, MAPPED_PREFIX_BITS, PortBe},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::{
    policy::{DirectTarget, Enforcement, MeshConfig, NodeAction, NodeRoute, Snapshot},
    types::{Host, Port},
};

/// IP protocol number of TCP; all routes are for it.
const TCP: u8 = 6;
/// The policy of every workload; others come with policies of their own.
pub(super) const POLICY: PolicyId = 0;
/// The routes of every policy: policies differ in their mode alone.
const TABLE: TableId = 0;
/// Bits of a route's key before the port.
const ANY_PORT_BITS: u32 = RouteKey::FIXED_BITS - 16;

/// Denied whatever `deniedCidrs` says: the cloud's metadata service, which hands out the node's
/// credentials.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Data of a key of an LPM trie: how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix<T> {
    /// Leading bits of `data` that must be equal.
    pub bits: u32,
    /// The data; what comes after the leading bits is zero.
    pub data: T,
}

/// What the policy maps hold, or should.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// `GLOBALS`; `None` is all zero, "no agent yet".
    pub globals: Option<Globals>,
    /// `POLICIES`.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// `ROUTES`.
    pub routes: HashMap<Prefix<RouteKey>, Route>,
    /// `GROUPS`; an absent one is empty.
    pub groups: BTreeMap<GroupId, Group>,
    /// `GATEWAYS`.
    pub gateways: HashSet<GatewayKey>,
    /// `INTERNAL`.
    pub internal: HashSet<Prefix<Addr>>,
    /// `DENIED`.
    pub denied: HashSet<Prefix<Addr>>,
    /// `POD_INTERFACES`: index → policy.
    pub pod_interfaces: BTreeMap<u32, PolicyId>,
    /// `POD_ADDRESSES`.
    pub pod_addresses: HashSet<PodAddress>,
}

/// The host-side interface of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodInterface {
    /// Its index now.
    pub ifindex: u32,
    /// What may be a source address of packets from it.
    pub addresses: Vec<IpAddr>,
}

/// What the plan is made of besides the snapshot.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Addresses of the names in [`DirectTarget::Name`].
    pub resolved: HashMap<Host, Vec<IpAddr>>,
    /// Endpoints of gateways that answer.
    pub healthy: HashSet<IpAddr>,
    /// The pods' interfaces that exist.
    pub pods: Vec<PodInterface>,
    /// Counts accepted snapshots, from 1.
    pub generation: u64,
    /// Flow events that a CPU may emit in a second.
    pub events_per_second: u32,
    /// How many groups the map holds.
    pub max_groups: u32,
}

/// Something of the snapshot that can't be carried out. What it concerns is denied.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanProblem {
    /// More endpoints than a group holds.
    #[error(
        "{service} has {found} healthy endpoints, of which only the first {GROUP_ENDPOINTS} are used"
    )]
    TooManyEndpoints {
        /// The gateway service.
        service: Host,
        /// How many there are.
        found: usize,
    },
    /// More gateways than the map holds.
    #[error(
        "{service} is gateway number {group}, but at most {max} are supported; its routes are denied"
    )]
    TooManyGroups {
        /// The gateway service.
        service: Host,
        /// Its index.
        group: usize,
        /// How many there may be.
        max: u32,
    },
    /// A route to a gateway's own port.
    #[error("port {port} belongs to the gateway itself ({ADMIN_PORTS:?}); routes to it are denied")]
    AdminPort {
        /// The port.
        port: u16,
    },
    /// An address without a port can't be expressed.
    #[error("a route for {net} without a port can't be carried out; it is denied")]
    NetWithoutPort {
        /// The addresses.
        net: String,
    },
}

impl Contents {
    /// What the maps should hold for this snapshot.
    #[must_use]
    pub fn desired(snapshot: &Snapshot, facts: &Facts) -> (Self, Vec<PlanProblem>) {
        let mut contents = Self::default();
        let mut problems = Vec::new();
        contents.set_pods(&facts.pods);
        contents.globals = Some(Globals {
            generation: facts.generation.max(1),
            events_per_second: facts.events_per_second,
            default_policy: POLICY,
            uplink_policy: POLICY,
            reserved: 0,
        });
        let mode = match snapshot.mesh.enforcement {
            Enforcement::Enforce => mode::ENFORCE,
            Enforcement::Audit => mode::AUDIT,
        };
        contents.policies.insert(POLICY, Policy { mode, table: TABLE });
        contents.internal = snapshot.mesh.cluster_cidrs.iter().flat_map(prefixes).collect();
        let metadata = METADATA.map(IpNet::from);
        contents.denied =
            snapshot.mesh.denied_cidrs.iter().chain(&metadata).flat_map(prefixes).collect();
        contents.set_groups(&snapshot.mesh, facts, &mut problems);
        // Where two are for one key the later one stays: the more specific one, the one to a gateway
        // (the stricter one), the first of the file.
        let mut routes: Vec<&NodeRoute> = snapshot.node.routes.iter().rev().collect();
        routes.sort_by_key(|route| specificity(route));
        for route in routes {
            contents.add_route(route, &snapshot.mesh, facts, &mut problems);
        }
        problems.dedup();
        (contents, problems)
    }

    /// Replaces what is known of pods, which doesn't depend on a snapshot.
    pub fn set_pods(&mut self, pods: &[PodInterface]) {
        self.pod_interfaces = pods.iter().map(|pod| (pod.ifindex, POLICY)).collect();
        self.pod_addresses = pods
            .iter()
            .flat_map(|pod| {
                let on = move |addr: &IpAddr| PodAddress {
                    ifindex: pod.ifindex,
                    addr: Addr::from(*addr),
                };
                pod.addresses.iter().map(on)
            })
            .collect();
    }

    fn set_groups(&mut self, mesh: &MeshConfig, facts: &Facts, problems: &mut Vec<PlanProblem>) {
        for (index, gateway) in mesh.gateways.iter().enumerate() {
            let Some(id) = group_id(index, facts) else {
                problems.push(PlanProblem::TooManyGroups {
                    service: gateway.service.clone(),
                    group: index,
                    max: facts.max_groups,
                });
                continue;
            };
            let healthy: Vec<Addr> = gateway
                .endpoints
                .iter()
                .filter(|endpoint| facts.healthy.contains(endpoint))
                .map(|endpoint| Addr::from(*endpoint))
                .collect();
            if healthy.len() > GROUP_ENDPOINTS {
                problems.push(PlanProblem::TooManyEndpoints {
                    service: gateway.service.clone(),
                    found: healthy.len(),
                });
            }
            self.groups.insert(id, Group::new(&healthy));
            // An endpoint that isn't healthy is a gateway all the same: its other ports stay shut.
            for endpoint in &gateway.endpoints {
                self.gateways.insert(gateway_key(*endpoint, None, 0));
            }
        }
    }

    fn add_route(
        &mut self,
        route: &NodeRoute,
        mesh: &MeshConfig,
        facts: &Facts,
        problems: &mut Vec<PlanProblem>,
    ) {
        let dialled = route.port.map(|port| port.0);
        if dialled.is_none()
            && let Some(net) = named(&route.target)
        {
            problems.push(PlanProblem::NetWithoutPort { net });
            return;
        }
        let value = match route.action {
            NodeAction::Direct => {
                Route { action: route_action::DIRECT, reserved: 0, port: PortBe::new(0), group: 0 }
            }
            NodeAction::Redirect { group, port } => {
                let Some(id) = group_id(group, facts) else { return };
                let to = port.map(|port| port.0);
                let at_gateway = to.or(dialled);
                if let Some(port) = at_gateway.filter(|port| ADMIN_PORTS.contains(&port.get())) {
                    problems.push(PlanProblem::AdminPort { port: port.get() });
                    return;
                }
                let endpoints = mesh.gateways.get(group).map(|gateway| &gateway.endpoints[..]);
                for endpoint in endpoints.unwrap_or_default() {
                    self.gateways.insert(gateway_key(*endpoint, at_gateway, TCP));
                }
                if dialled.is_none() {
                    self.deny_admin_ports();
                }
                Route {
                    action: route_action::REDIRECT,
                    reserved: 0,
                    port: PortBe::new(to.map_or(0, Port::get)),
                    group: id,
                }
            }
        };
        let nets = match &route.target {
            DirectTarget::Any => {
                self.routes.insert(route_key(dialled, None), value);
                return;
            }
            DirectTarget::Net(net) => vec![*net],
            DirectTarget::Name(host) => facts
                .resolved
                .get(host)
                .map(|addrs| addrs.iter().copied().map(IpNet::from).collect())
                .unwrap_or_default(),
        };
        for net in nets {
            for prefix in prefixes(&net) {
                self.routes.insert(route_key(dialled, Some(prefix)), value);
            }
        }
    }

    /// A route for every port mustn't lead to a gateway's own ports. A connect to them is refused
    /// with a reason, instead of dropped at the wall.
    fn deny_admin_ports(&mut self) {
        for port in ADMIN_PORTS.into_iter().filter_map(Port::new) {
            let deny =
                Route { action: route_action::DENY, reserved: 0, port: PortBe::new(0), group: 0 };
            self.routes.insert(route_key(Some(port), None), deny);
        }
    }
}

/// The addresses that a route names, as it names them; `None` where it is for all.
fn named(target: &DirectTarget) -> Option<String> {
    match target {
        DirectTarget::Any => None,
        DirectTarget::Net(net) => Some(net.to_string()),
        DirectTarget::Name(host) => Some(host.to_string()),
    }
}

/// Routes in this order make way for those after them. Their keys can't tell: a wide IPv6 network
/// has several keys, which may be those of a narrower one.
fn specificity(route: &NodeRoute) -> (bool, u32, bool) {
    let bits = match &route.target {
        DirectTarget::Any => 0,
        DirectTarget::Net(IpNet::V4(net)) => 1 + MAPPED_PREFIX_BITS + u32::from(net.prefix_len()),
        DirectTarget::Net(IpNet::V6(net)) => 1 + u32::from(net.prefix_len()),
        DirectTarget::Name(_) => 1 + 128,
    };
    (route.port.is_some(), bits, matches!(route.action, NodeAction::Redirect { .. }))
}

fn group_id(index: usize, facts: &Facts) -> Option<GroupId> {
    GroupId::try_from(index).ok().filter(|id| *id < facts.max_groups)
}

fn gateway_key(addr: IpAddr, port: Option<Port>, protocol: u8) -> GatewayKey {
    let port = PortBe::new(port.map_or(0, Port::get));
    GatewayKey { addr: addr.into(), port, protocol, reserved: 0 }
}

fn route_key(port: Option<Port>, addr: Option<Prefix<Addr>>) -> Prefix<RouteKey> {
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
fn prefixes(net: &IpNet) -> Vec<Prefix<Addr>> {
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

#[cfg(test)]
mod tests;
