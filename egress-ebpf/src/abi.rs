//! What both sides of a map agree on. Changing a layout means a new [`ABI_VERSION`]: maps are
//! pinned under it, so an agent never reads a layout that it wasn't built for.
//!
//! All structs are `repr(C)` and proven free of padding by their `IntoBytes` derive.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, PortBe};

/// The version of everything in this module; part of the pins' path.
pub const ABI_VERSION: u32 = 1;

/// Index of a policy; workloads with the same rules share one.
pub type PolicyId = u32;
/// Index of a gateway group in the `GROUPS` map.
pub type GroupId = u32;

/// `GLOBALS` (array, one entry): settings of the node. Zeroed (no agent yet) denies everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Globals {
    /// Non-zero once a snapshot has been written; zero denies with `NoPolicy`.
    pub generation: u64,
    /// Flow events a CPU may emit in a second; the rest is counted as lost.
    pub events_per_second: u32,
    /// The policy of a workload that no other entry names.
    pub default_policy: PolicyId,
}

/// How a policy's verdicts are carried out: `POLICIES` (array by [`PolicyId`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Policy {
    /// One of [`mode`]. Zero, the state of an empty map, enforces.
    pub mode: u32,
}

/// Values of [`Policy::mode`]; an unknown one enforces.
pub mod mode {
    /// Carry out verdicts.
    pub const ENFORCE: u32 = 0;
    /// Report verdicts, let the traffic pass.
    pub const AUDIT: u32 = 1;
    /// Nothing is judged.
    pub const EXEMPT: u32 = 2;
}

/// Data of a key of `ROUTES` (LPM trie): fixed part first, so a port-wide route is a prefix of
/// [`RouteKey::FIXED_BITS`] bits and one for an address is longer and wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteKey {
    /// Whose route it is.
    pub policy: PolicyId,
    /// IP protocol number; 6 is TCP.
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
    /// The port that the application dialled.
    pub port: PortBe,
    /// The address that it dialled.
    pub addr: Addr,
}

impl RouteKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 64;
}

/// Value of `ROUTES`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route {
    /// One of [`route_action`].
    pub action: u8,
    /// Always zero.
    pub reserved: u8,
    /// Where the action redirects: the port at the gateway; zero keeps the dialled port.
    pub port: PortBe,
    /// Where the action redirects: the gateway group.
    pub group: GroupId,
}

/// Values of [`Route::action`]; an unknown one denies.
pub mod route_action {
    /// Refuse, though a shorter prefix might allow.
    pub const DENY: u8 = 0;
    /// Let it go to the address it asked for (`direct: registry`).
    pub const DIRECT: u8 = 1;
    /// Send it to a gateway of the group.
    pub const REDIRECT: u8 = 2;
}

/// Endpoints a gateway group can hold.
pub const GROUP_ENDPOINTS: usize = 32;

/// `GROUPS` (array by [`GroupId`]): the healthy endpoints of one gateway service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group {
    /// How many of `endpoints` are in use; zero refuses at once.
    pub count: u32,
    /// Healthy endpoints, packed to the front.
    pub endpoints: [Addr; GROUP_ENDPOINTS],
}

/// TCP ports of a gateway that no pod may reach, whatever routes name: admin, health, metrics,
/// tunnel.
pub const ADMIN_PORTS: [u16; 4] = [15000, 15008, 15021, 15090];

/// Key of `GATEWAYS` (hash): a gateway's address and a port that a route names. The entry with port
/// zero and protocol zero says that the address is a gateway's at all; the one with port zero and
/// protocol 6 that a route names every TCP port (`ALLOW_ANY`), of which [`ADMIN_PORTS`] stay closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GatewayKey {
    /// The gateway's address.
    pub addr: Addr,
    /// A port at the gateway.
    pub port: PortBe,
    /// IP protocol number; zero with port zero.
    pub protocol: u8,
    /// Always zero.
    pub reserved: u8,
}

/// Key of `POD_ADDRESSES` (hash): an address that may be a packet's source on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PodAddress {
    /// Index of the host-side interface.
    pub ifindex: u32,
    /// The pod's address.
    pub addr: Addr,
}

/// Value of `ORIGINAL_DST` (LRU hash by socket cookie): what the application asked for, so that
/// `getpeername` can say it. Nothing is decided by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OriginalDst {
    /// The address asked for.
    pub addr: Addr,
    /// The port asked for.
    pub port: PortBe,
    /// Always zero.
    pub reserved: [u8; 2],
}

/// One record of the ring buffer `EVENTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEvent {
    /// Nanoseconds since boot (`bpf_ktime_get_ns`, CLOCK_MONOTONIC).
    pub time: u64,
    /// The workload's cgroup, or zero where the hook sees none.
    pub cgroup: u64,
    /// The interface, or zero in a cgroup hook.
    pub ifindex: u32,
    /// The policy that decided.
    pub policy: PolicyId,
    /// Source address; unspecified in a connect hook.
    pub source: Addr,
    /// Destination as the application asked for it.
    pub destination: Addr,
    /// Source port, zero where there is none.
    pub source_port: PortBe,
    /// Destination port, zero where there is none.
    pub destination_port: PortBe,
    /// Ethertype of a packet, host byte order; zero in a cgroup hook.
    pub ether_type: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// One of [`hook`].
    pub hook: u8,
    /// One of [`action`].
    pub action: u8,
    /// A [`crate::reason::Reason`] by its number.
    pub reason: u8,
    /// 1 where audit mode let it pass.
    pub audit: u8,
    /// Always zero.
    pub reserved: [u8; 5],
}

/// Values of [`FlowEvent::hook`].
pub mod hook {
    /// `connect4`, `connect6`.
    pub const CONNECT: u8 = 0;
    /// `sendmsg4`, `sendmsg6`.
    pub const SENDMSG: u8 = 1;
    /// `cgroup_skb` egress.
    pub const SKB: u8 = 2;
    /// tc ingress on a pod's host-side interface.
    pub const POD: u8 = 3;
    /// tc egress on the uplink.
    pub const UPLINK: u8 = 4;
    /// How many there are.
    pub const COUNT: u8 = 5;
}

/// Values of [`FlowEvent::action`].
pub mod action {
    /// It passed.
    pub const ALLOW: u8 = 0;
    /// It was refused or dropped.
    pub const DENY: u8 = 1;
    /// It was sent to a gateway.
    pub const REDIRECT: u8 = 2;
    /// How many there are.
    pub const COUNT: u8 = 3;
}
