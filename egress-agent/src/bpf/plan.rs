//! From the snapshot to what the maps should hold. Pure: names are resolved and health is known
//! before.

mod desired;
pub(super) mod routes;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
};

use egress_ebpf::{
    abi::{
        ADMIN_PORTS, EXEMPTION_TABLES, GROUP_ENDPOINTS, GatewayKey, Globals, Group, GroupId,
        PodAddress, PodPort, Policy, PolicyId, Route, RouteKey, TableId, Tunnel, UNKNOWN_POLICY,
        UNKNOWN_TABLE, pod_hardware,
    },
    addr::Addr,
};
use thiserror::Error;

use crate::{
    policy::{ExemptDestination, MeshConfig},
    types::Host,
};

/// The policy of workloads that are in no set of their own.
pub(super) const POLICY: PolicyId = 0;
/// The routes of every policy but those of exemptions, which have tables of their own: see [`tables`].
const TABLE: TableId = 0;
/// The policy of who is closed while its table becomes another one; sets are numbered from zero up to it.
pub(super) const CLOSED: PolicyId = UNKNOWN_POLICY - 1;

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
    /// `SLOTS`, by interface: index → the pod behind it.
    pub pod_interfaces: BTreeMap<u32, PodPort>,
    /// `POD_ADDRESSES`, with the interfaces that forward, and the addresses in `SLOTS`.
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
pub struct PlanInputs {
    /// Addresses of the names in [`DirectTarget::Name`](crate::policy::DirectTarget::Name).
    pub resolved: HashMap<Host, Vec<IpAddr>>,
    /// Endpoints of gateways that answer.
    pub healthy: HashSet<IpAddr>,
    /// Where the tunnel's listener is, at most one of each family. Only addresses of the node: what
    /// is sent there isn't encrypted yet.
    pub tunnel: Vec<SocketAddr>,
    /// The pods' interfaces that exist.
    pub pods: Vec<PodInterface>,
    /// The interfaces that are no pod's, and may forward: see [`PodAddress::forwarder`].
    pub forwarders: BTreeSet<u32>,
    /// The cgroups that exist, by id, and the policies of their workloads.
    pub workloads: BTreeMap<u64, PolicyId>,
    /// Counts accepted snapshots, from 1.
    pub generation: u64,
    /// Which configuration the snapshot was compiled from.
    pub held: crate::types::ConfigurationStamp,
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

/// The number of a set's policy. One that doesn't fit is in no map, and what is in no map enforces.
pub fn policy_id(index: usize) -> PolicyId {
    PolicyId::try_from(index).ok().filter(|id| *id < CLOSED).unwrap_or(PolicyId::MAX)
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
        let number = TableId::try_from(low ^ high).unwrap_or_default();
        let mut table = number | EXEMPTION_TABLES;
        while table == UNKNOWN_TABLE || taken.get(&table).is_some_and(|other| *other != to) {
            table = table.wrapping_add(1) | EXEMPTION_TABLES;
        }
        taken.insert(table, to);
        tables.insert(index, table);
    }
    tables
}

#[cfg(test)]
mod tests;
