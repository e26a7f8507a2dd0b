//! From the snapshot to what the maps should hold. Pure: names are resolved and health is known
//! before.

mod routes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use egress_ebpf::{
    abi::{
        ADMIN_PORTS, GROUP_ENDPOINTS, GatewayKey, Globals, Group, GroupId, PodAddress, PodPort,
        Policy, PolicyId, Route, RouteKey, TableId, Tunnel, mode, pod_hardware,
    },
    absent::Absent,
    addr::{Addr, PortBe},
};
use ipnet::IpNet;
use thiserror::Error;

use self::routes::{Builder, TCP, gateway_key, group_id, prefixes};
use crate::{
    policy::{Enforcement, ExemptDestination, MeshConfig, Snapshot},
    types::{Host, Port},
};

/// The policy of workloads that are in no set of their own.
pub(super) const POLICY: PolicyId = 0;
/// The routes of every policy but those of exemptions, which have tables of their own: see [`tables`].
const TABLE: TableId = 0;
/// A table that never holds a route.
pub(super) const EMPTY_TABLE: TableId = TableId::MAX;

/// Denied whatever `deniedCidrs` says: the cloud's metadata service, which hands out the node's
/// credentials.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Data of a key of an LPM trie: how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix<T> {
    /// Leading bits of `data` that must be equal.
    pub bits: u32,
    /// The data; what comes after the leading bits is zero.
    pub data: T,
}

/// What the policy maps hold, or should. In order, so that two can be compared in one walk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// `GLOBALS`; `None` is all zero, "no agent yet".
    pub globals: Option<Globals>,
    /// `POLICIES`.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// `ROUTES`.
    pub routes: BTreeMap<Prefix<RouteKey>, Route>,
    /// `GROUPS`; an absent one is empty.
    pub groups: BTreeMap<GroupId, Group>,
    /// `GATEWAYS`.
    pub gateways: BTreeSet<GatewayKey>,
    /// `TUNNEL`; `None` is all zero, no listener.
    pub tunnel: Option<Tunnel>,
    /// `INTERNAL`.
    pub internal: BTreeSet<Prefix<Addr>>,
    /// `DENIED`.
    pub denied: BTreeSet<Prefix<Addr>>,
    /// `POD_INTERFACES`: index → the pod behind it.
    pub pod_interfaces: BTreeMap<u32, PodPort>,
    /// `POD_ADDRESSES`.
    pub pod_addresses: BTreeSet<PodAddress>,
    /// `WORKLOADS`: id of a cgroup → policy.
    pub workloads: BTreeMap<u64, PolicyId>,
}

/// Instead of an interface's index: the node itself, whose addresses its sockets may have.
pub const NO_INTERFACE: u32 = 0;

/// The hardware address of a pod, at the other end of its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PodHardware {
    /// It is not known yet: nothing passes.
    #[default]
    Unknown,
    /// Another port of the same bridge has it, or the bridge itself: nothing passes.
    Taken,
    /// Frames come from this one.
    Known([u8; 6]),
    /// The interface has no other end that can be looked up, so frames may come from any.
    Any,
}

impl PodHardware {
    /// What the maps hold for it, with the address that counts.
    const fn entry(self) -> (u16, [u8; 6]) {
        match self {
            Self::Unknown | Self::Taken => (pod_hardware::UNKNOWN, [0; 6]),
            Self::Known(hardware) => (pod_hardware::KNOWN, hardware),
            Self::Any => (pod_hardware::ANY, [0; 6]),
        }
    }
}

impl From<PodPort> for PodHardware {
    /// What the maps hold.
    fn from(port: PodPort) -> Self {
        match port.check {
            pod_hardware::KNOWN => Self::Known(port.hardware),
            pod_hardware::ANY => Self::Any,
            _ => Self::Unknown,
        }
    }
}

/// The host-side interface of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodInterface {
    /// Its index now, or [`NO_INTERFACE`].
    pub ifindex: u32,
    /// What may be a source address of packets from it.
    pub addresses: Vec<IpAddr>,
    /// What its frames come from.
    pub hardware: PodHardware,
    /// The policy of the workload behind it.
    pub policy: PolicyId,
}

impl From<&PodInterface> for PodPort {
    fn from(pod: &PodInterface) -> Self {
        let (check, hardware) = pod.hardware.entry();
        Self { policy: pod.policy, hardware, check }
    }
}

/// What the plan is made of besides the snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Addresses of the names in [`DirectTarget::Name`](crate::policy::DirectTarget::Name).
    pub resolved: HashMap<Host, Vec<IpAddr>>,
    /// Endpoints of gateways that answer.
    pub healthy: HashSet<IpAddr>,
    /// Where the tunnel's listener is, at most one of each family. Only addresses of the node: what
    /// is sent there isn't encrypted yet.
    pub tunnel: Vec<SocketAddr>,
    /// The pods' interfaces that exist.
    pub pods: Vec<PodInterface>,
    /// The cgroups that exist, by id, and the policies of their workloads.
    pub workloads: BTreeMap<u64, PolicyId>,
    /// Counts accepted snapshots, from 1.
    pub generation: u64,
    /// Which configuration the snapshot was compiled from.
    pub held: crate::types::Held,
    /// Flow events that a workload may cause in a second.
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
    /// A route through the tunnel, and no listener.
    #[error(
        "routes lead to {service} through the tunnel, but this node has no tunnel listener; they are \
         denied: give --tunnel-listen an address of this node, as in 10.0.0.7:15001"
    )]
    NoTunnelListener {
        /// The gateway service.
        service: Host,
    },
    /// A route to a gateway's own port.
    #[error("port {port} belongs to the gateway itself ({ADMIN_PORTS:?}); routes to it are denied")]
    AdminPort {
        /// The port.
        port: u16,
    },
    /// A workload's cgroup without our programs.
    #[error(
        "the cgroup {path} of workload {workload} isn't below any --cgroup: no hook refuses its \
         system calls, only the uplink judges its packets; give --cgroup a cgroup above it"
    )]
    NotAttached {
        /// Its name with its namespace.
        workload: String,
        /// Below the mount.
        path: String,
    },
    /// A pod that could be taken for its neighbour.
    #[error(
        "the pod behind the interface of index {ifindex} has the hardware address of another pod on \
         its bridge, or of the bridge; nothing of it passes: make the pod again"
    )]
    HardwareTaken {
        /// The interface.
        ifindex: u32,
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
        let taken = facts.pods.iter().filter(|pod| pod.hardware == PodHardware::Taken);
        problems.extend(taken.map(|pod| PlanProblem::HardwareTaken { ifindex: pod.ifindex }));
        contents.workloads.clone_from(&facts.workloads);
        contents.globals = Some(Globals {
            generation: facts.generation.max(1),
            events_per_second: facts.events_per_second,
            default_policy: POLICY,
            uplink_policy: POLICY,
            absent: 0,
            digest: facts.held.digest,
            accepted_at: facts.held.accepted_at,
        });
        let tables = tables(&snapshot.mesh);
        for (index, set) in snapshot.mesh.sets().enumerate() {
            let table = tables.get(&index).copied().unwrap_or(TABLE);
            contents.policies.insert(policy_id(index), Policy { mode: mode_of(set.mode), table });
        }
        contents.internal = snapshot.mesh.cluster_cidrs.iter().flat_map(prefixes).collect();
        let metadata = METADATA.map(IpNet::from);
        contents.denied =
            snapshot.mesh.denied_cidrs.iter().chain(&metadata).flat_map(prefixes).collect();
        let tunnels = snapshot.mesh.encapsulation_ports.iter();
        contents
            .gateways
            .extend(tunnels.map(|port| GatewayKey::encapsulation(PortBe::new(port.get()))));
        contents.set_groups(&snapshot.mesh, facts, &mut problems);
        contents.set_listeners(&facts.tunnel);
        let mut routes = Builder::new(snapshot, facts);
        snapshot.node.routes.iter().for_each(|route| routes.add(route));
        for (index, set) in snapshot.mesh.sets().enumerate() {
            let table = tables.get(&index).copied();
            let to = set.to.into_iter().flatten().zip(table.into_iter().cycle());
            to.for_each(|(to, table)| routes.exempt(table, to));
        }
        routes.finish(&mut contents, &mut problems);
        let absent = contents.absent();
        if let Some(globals) = &mut contents.globals {
            globals.absent = absent.raw();
        }
        problems.dedup();
        (contents, problems)
    }

    /// What `TUNNEL` holds, as the kernel has it.
    pub(super) fn set_tunnel(&mut self, tunnel: Tunnel) {
        self.tunnel = (tunnel != Tunnel::NONE).then_some(tunnel);
    }

    /// Where the tunnel's listener is, and that it may be reached there; the address's other ports are
    /// judged as if there were none.
    fn set_listeners(&mut self, listeners: &[SocketAddr]) {
        let mut tunnel = Tunnel::NONE;
        for listener in listeners {
            let (ip, port) = (listener.ip().to_canonical(), listener.port());
            let Some(dialled) = Port::new(port) else { continue };
            let (addr, at) = match ip {
                IpAddr::V4(_) => (&mut tunnel.v4, &mut tunnel.port_v4),
                IpAddr::V6(_) => (&mut tunnel.v6, &mut tunnel.port_v6),
            };
            (*addr, *at) = (ip.into(), PortBe::new(port));
            self.gateways.insert(gateway_key(ip, Some(dialled), TCP));
        }
        self.set_tunnel(tunnel);
    }

    /// What is in neither map, so that it needn't be looked for.
    fn absent(&self) -> Absent {
        let absent =
            self.gateways.iter().fold(Absent::ALL, |absent, key| absent.with_gateway(&key.addr));
        self.denied
            .iter()
            .fold(absent, |absent, prefix| absent.with_denied(prefix.bits, &prefix.data))
    }

    /// Replaces what is known of pods, which doesn't depend on a snapshot.
    pub fn set_pods(&mut self, pods: &[PodInterface]) {
        let interfaces = pods.iter().filter(|pod| pod.ifindex != NO_INTERFACE);
        self.pod_interfaces = interfaces.map(|pod| (pod.ifindex, pod.into())).collect();
        self.pod_addresses = pods
            .iter()
            .flat_map(|pod| {
                // A pod's socket may have them too, before its packet is at the interface.
                let on = move |addr: &IpAddr| {
                    [pod.ifindex, NO_INTERFACE]
                        .map(|ifindex| PodAddress { ifindex, addr: Addr::from(*addr) })
                };
                pod.addresses.iter().flat_map(on)
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
            // At a host's other addresses all ports do: nothing is routed there.
            for address in gateway.endpoints.iter().chain(&gateway.other_addresses) {
                self.gateways.insert(gateway_key(*address, None, 0));
            }
        }
    }
}

/// The number of a set's policy. One that doesn't fit is in no map, and what is in no map enforces.
pub(super) fn policy_id(index: usize) -> PolicyId {
    PolicyId::try_from(index).unwrap_or(PolicyId::MAX)
}

/// The tables of the sets that have one, by the sets' places. A table's number follows from what is in it, so a
/// table never changes while it is in use: another content is another table.
fn tables(mesh: &MeshConfig) -> HashMap<usize, TableId> {
    let mut taken: HashMap<TableId, &[ExemptDestination]> = HashMap::new();
    let mut tables = HashMap::new();
    for (index, set) in mesh.sets().enumerate() {
        let Some(to) = set.to else { continue };
        let mut hasher = DefaultHasher::new();
        to.hash(&mut hasher);
        let [low, high] = [hasher.finish(), hasher.finish() >> 32].map(|half| half & 0xffff_ffff);
        let mut table = TableId::try_from(low ^ high).unwrap_or(TableId::MAX);
        while [TABLE, EMPTY_TABLE].contains(&table)
            || taken.get(&table).is_some_and(|other| *other != to)
        {
            table = table.wrapping_add(1);
        }
        taken.insert(table, to);
        tables.insert(index, table);
    }
    tables
}

const fn mode_of(enforcement: Enforcement) -> u32 {
    match enforcement {
        Enforcement::Enforce => mode::ENFORCE,
        Enforcement::Audit => mode::AUDIT,
        Enforcement::Exempt => mode::EXEMPT,
    }
}

#[cfg(test)]
mod tests;
