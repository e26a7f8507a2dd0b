//! What both sides of a map agree on. Changing a layout means a new [`ABI_VERSION`]: maps are
//! pinned under it, so an agent never reads a layout that it wasn't built for.
//!
//! All structs are `repr(C)` and proven free of padding by their `IntoBytes` derive.

mod flows;
mod tunnel;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::{
    flows::{FlowKey, FlowState, flow_kind, flow_phase},
    tunnel::{OriginalDst, Tunnel, Tunneled, TunneledKey, hop, space},
};
use crate::addr::{Addr, PortBe};

/// The version of everything in this module; part of the pins' path.
pub const ABI_VERSION: u32 = 4;

/// Index of a policy: how a set of workloads is treated.
pub type PolicyId = u32;
/// Number of a table of routes. Policies that differ in their mode alone share one.
pub type TableId = u32;
/// Index of a gateway group in the `GROUPS` map.
pub type GroupId = u32;

/// `GLOBALS` (array, one entry): settings of the node. Zeroed (no agent yet) denies everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Globals {
    /// Non-zero once a snapshot has been written; zero denies with `NoPolicy`.
    pub generation: u64,
    /// Flow events that a workload may cause in a second; the rest is counted as lost.
    pub events_per_second: u32,
    /// The policy of a workload that no other entry names.
    pub default_policy: PolicyId,
    /// The policy of what is forwarded to the uplink. Which workload it came from can't be known
    /// there (source NAT comes first), so it holds every policy's direct routes.
    pub uplink_policy: PolicyId,
    /// Which look-ups can be left out: see [`Absent`](crate::absent::Absent). Zero leaves out none.
    pub absent: u32,
    /// Which configuration the maps hold: the first bytes of its digest.
    pub digest: [u8; 16],
    /// When an agent accepted it, in seconds since 1970.
    pub accepted_at: u64,
}

impl Globals {
    /// Before a snapshot has been written.
    pub const NONE: Self = Self {
        generation: 0,
        events_per_second: 0,
        default_policy: 0,
        uplink_policy: 0,
        absent: 0,
        digest: [0; 16],
        accepted_at: 0,
    };

    /// Flow events that a workload may cause in a second before a snapshot has been written: enough to show
    /// why everything is denied.
    pub const EVENTS_BEFORE: u32 = 100;

    /// Flow events that a workload may cause in a second, now.
    #[inline(always)]
    #[must_use]
    pub const fn event_rate(&self) -> u32 {
        if self.generation == 0 { Self::EVENTS_BEFORE } else { self.events_per_second }
    }
}

/// What a policy is made of: `POLICIES` (array by [`PolicyId`]). Zeroed, the state of an empty map,
/// it enforces table 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Policy {
    /// How verdicts are carried out: one of [`mode`].
    pub mode: u32,
    /// Whose routes count.
    pub table: TableId,
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
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct RouteKey {
    /// The table that the route is in.
    pub table: TableId,
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
    /// Bits before the port: a route for every port of a protocol has this prefix.
    pub const ANY_PORT_BITS: u32 = 48;
    /// Bits before the address: a route for every address of a port has this prefix.
    pub const FIXED_BITS: u32 = 64;
    /// All bits: what a look-up asks with.
    pub const BITS: u32 = 192;
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
    /// Send it to the node's own tunnel listener, which takes it to a gateway of the group.
    pub const TUNNEL: u8 = 3;
}

/// Endpoints a gateway group can hold.
pub const GROUP_ENDPOINTS: usize = 32;

/// `GROUPS` (array by [`GroupId`]): the healthy endpoints of one gateway service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group {
    /// How many of `endpoints` are in use; zero refuses at once.
    pub count: u32,
    /// How many of those are IPv4.
    pub count_v4: u32,
    /// Healthy endpoints, packed to the front, IPv4 first: see [`Group::new`].
    pub endpoints: [Addr; GROUP_ENDPOINTS],
}

/// TCP ports of a gateway that no pod may reach, whatever routes name: admin, health, metrics,
/// tunnel.
pub const ADMIN_PORTS: [u16; 4] = [15000, 15008, 15021, 15090];

/// Key of `GATEWAYS` (hash): a gateway's address and a port that a route names. The entry with port
/// zero and protocol zero says that the address is a gateway's at all; the one with port zero and
/// protocol 6 that a route names every TCP port (`ALLOW_ANY`), of which [`ADMIN_PORTS`] stay closed.
/// The node's tunnel listener has an entry for its port alone: its address's other ports are judged
/// as if it had none. An entry for the unspecified address, a port and protocol 17 is no gateway's:
/// see [`GatewayKey::encapsulation`].
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
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

impl GatewayKey {
    /// The entry of a UDP port at which hosts in the cluster may take packets out of packets: closed
    /// to workloads everywhere.
    #[inline(always)]
    #[must_use]
    pub const fn encapsulation(port: PortBe) -> Self {
        Self { addr: Addr::UNSPECIFIED, port, protocol: 17, reserved: 0 }
    }

    /// Whether it closes something: that an address is a gateway's, or a port a tunnel's.
    #[must_use]
    pub fn closes(&self) -> bool {
        (self.port.get() == 0 && self.protocol == 0) || *self == Self::encapsulation(self.port)
    }
}

/// Key of `POD_ADDRESSES` (hash): an address that may be a packet's source on an interface. Index
/// zero holds those that may be the source of a workload's socket: the pods', and the node's own.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PodAddress {
    /// Index of the host-side interface, or zero.
    pub ifindex: u32,
    /// The pod's address.
    pub addr: Addr,
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
    /// The making of a socket, and messages to the kernel (LSM).
    pub const SOCKET: u8 = 5;
    /// How many there are.
    pub const COUNT: u8 = 6;
}

/// Values of [`FlowEvent::action`].
pub mod action {
    /// It passed.
    pub const ALLOW: u8 = 0;
    /// It was refused or dropped.
    pub const DENY: u8 = 1;
    /// It was sent to a gateway, by the tunnel or without one: the reason says which.
    pub const REDIRECT: u8 = 2;
    /// How many there are.
    pub const COUNT: u8 = 3;
}

/// How many reasons the kernel can give; their numbers are smaller.
pub const KERNEL_REASONS: u8 = 64;

/// Entries of `COUNTERS` (per-CPU array of `u64`), see [`counter_index`].
pub const COUNTERS_ENTRIES: u32 =
    2 * hook::COUNT as u32 * action::COUNT as u32 * KERNEL_REASONS as u32;

/// Where `COUNTERS` counts a verdict; `None` for values out of range. `audit` is set where audit
/// mode let pass what the action would have stopped or redirected.
#[inline(always)]
#[must_use]
pub const fn counter_index(hook: u8, action: u8, reason: u8, audit: bool) -> Option<u32> {
    if hook >= hook::COUNT || action >= action::COUNT || reason >= KERNEL_REASONS {
        return None;
    }
    let audit = if audit { 1 } else { 0 };
    let row = (audit * hook::COUNT as u32 + hook as u32) * action::COUNT as u32 + action as u32;
    Some(row * KERNEL_REASONS as u32 + reason as u32)
}

/// What may still be emitted of one class of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// When the credit was last filled up, nanoseconds since boot.
    pub filled_at: u64,
    /// Saved-up time, at most a second, in nanoseconds; an event costs its share of a second.
    pub credit: u64,
}

/// Key of `EVENT_SHARES` (LRU hash): who causes events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ShareKey {
    /// The id of a cgroup, or the index of an interface; zero for what belongs to none.
    pub id: u64,
    /// One of [`share_kind`].
    pub kind: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Values of [`ShareKey::kind`].
pub mod share_kind {
    /// A cgroup: a listed one, or where only one above a workload's is listed, one of two levels below
    /// that. Workloads can't make those.
    pub const CGROUP: u32 = 0;
    /// An interface.
    pub const INTERFACE: u32 = 1;
}

/// Value of `EVENT_SHARES`: a workload's share of the flow events. One that is forgotten begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Share {
    /// By [`event_class`].
    pub buckets: [Bucket; event_class::COUNT as usize],
    /// How many of its events nobody will see, by [`lost`].
    pub lost: [u64; lost::COUNT as usize],
}

impl Share {
    /// Nothing was caused yet.
    pub const NEW: Self = Self {
        buckets: [Bucket { filled_at: 0, credit: 0 }; event_class::COUNT as usize],
        lost: [0; lost::COUNT as usize],
    };
}

/// Index of [`Share::buckets`]. Refusals have a bucket of their own, so that many allowed connects
/// can't hide them.
pub mod event_class {
    /// Denied, or would have been but for audit mode.
    pub const DENIED: u32 = 0;
    /// Everything else.
    pub const PASSED: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Index of `LOST` (per-CPU array of `u64`): events that nobody will see.
pub mod lost {
    /// Over [`Globals::events_per_second`](super::Globals::events_per_second).
    pub const RATE: u32 = 0;
    /// The ring buffer was full, or more than half full and the workload had caused many events.
    pub const FULL: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Index of `CAPTURE_SOCKETS` (sockmap): the capture listeners of the gateway.
pub mod capture_socket {
    /// The listener for IPv4.
    pub const V4: u32 = 0;
    /// The listener for IPv6.
    pub const V6: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// A socket of family `AF_UNSPEC` and this protocol is refused with `EPERM` where the program that
/// judges sockets runs, and with another error where it doesn't: how the agent finds out.
pub const SOCKET_PROBE: u32 = 0x6567_7265;

/// The key in `CAPTURE_ADDRESSES` that stands for every local address but loopback. The map is
/// empty at first, and empty captures nothing.
pub const CAPTURE_EVERY_ADDRESS: Addr = Addr::UNSPECIFIED;

/// How many entries the maps hold; a full one refuses the newcomer.
pub mod capacity {
    /// `POLICIES`.
    pub const POLICIES: u32 = 16_384;
    /// `ROUTES`.
    pub const ROUTES: u32 = 131_072;
    /// `GROUPS`.
    pub const GROUPS: u32 = 256;
    /// `GATEWAYS`.
    pub const GATEWAYS: u32 = 65_536;
    /// `INTERNAL` and `DENIED`, each.
    pub const PREFIXES: u32 = 16_384;
    /// `POD_ADDRESSES`.
    pub const POD_ADDRESSES: u32 = 65_536;
    /// `POD_INTERFACES`.
    pub const POD_INTERFACES: u32 = 16_384;
    /// `WORKLOADS`.
    pub const WORKLOADS: u32 = 32_768;
    /// `ORIGINAL_DST`; beyond it the least recently used are forgotten, and `getpeername` shows
    /// the gateway.
    pub const ORIGINAL_DST: u32 = 65_536;
    /// `TUNNELED`; beyond it the least recently used are forgotten, and their connections reset.
    pub const TUNNELED: u32 = 65_536;
    /// `FLOWS`; beyond it the least recently used are forgotten, and their replies refused.
    pub const FLOWS: u32 = 65_536;
    /// `EVENT_SHARES`; beyond it the least recently used begin anew.
    pub const EVENT_SHARES: u32 = 4096;
    /// `EVENTS`, in bytes.
    pub const EVENTS_BYTES: u32 = 1 << 20;
    /// `CAPTURE_ADDRESSES`.
    pub const CAPTURE_ADDRESSES: u32 = 1024;
    /// `CAPTURE_EXCLUDED`.
    pub const CAPTURE_EXCLUDED: u32 = 1024;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_node_without_a_configuration_says_why_it_denies() {
        let globals = |generation, events_per_second| Globals {
            generation,
            events_per_second,
            ..Globals::NONE
        };
        assert_eq!(globals(0, 0).event_rate(), Globals::EVENTS_BEFORE);
        // With one, zero means none.
        assert_eq!(globals(1, 0).event_rate(), 0);
        assert_eq!(globals(1, 7).event_rate(), 7);
    }

    #[test]
    fn every_verdict_has_its_own_counter() {
        let mut seen = HashSet::new();
        for audit in [false, true] {
            for hook in 0..hook::COUNT {
                for action in 0..action::COUNT {
                    for reason in 0..KERNEL_REASONS {
                        let index = counter_index(hook, action, reason, audit).unwrap();
                        assert!(index < COUNTERS_ENTRIES);
                        assert!(seen.insert(index));
                    }
                }
            }
        }
        assert_eq!(counter_index(hook::COUNT, 0, 0, false), None);
        assert_eq!(counter_index(0, action::COUNT, 0, false), None);
        assert_eq!(counter_index(0, 0, KERNEL_REASONS, false), None);
    }

    #[test]
    fn a_route_key_is_ordered_from_the_fixed_to_the_free() {
        let key = RouteKey {
            table: u32::from_ne_bytes([1, 2, 3, 4]),
            protocol: 6,
            reserved: 0,
            port: PortBe::new(443),
            addr: Addr::v4([198, 51, 100, 7]),
        };
        let bytes = key.as_bytes();
        assert_eq!(bytes.len() * 8, usize::try_from(RouteKey::BITS).unwrap());
        assert_eq!(bytes[..8], [1, 2, 3, 4, 6, 0, 1, 0xbb]);
        assert_eq!(bytes[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7]);
    }
}
