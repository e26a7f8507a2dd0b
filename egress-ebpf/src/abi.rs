//! What both sides of a map agree on. Changing a layout means a new [`ABI_VERSION`]: maps are
//! pinned under it, so an agent never reads a layout that it wasn't built for.
//!
//! All structs are `repr(C)` and proven free of padding by their `IntoBytes` derive.

mod cache;
mod events;
mod flows;
mod pods;
mod tunnel;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::{
    cache::CachedVerdict,
    events::{
        Bucket, COUNTERS_ENTRIES, Command, FlowEvent, KERNEL_REASONS, Share, ShareKey, action,
        counter_index, event_class, hook, lost, share_kind,
    },
    flows::{FlowKey, FlowPlace, FlowState, flow_kind, flow_phase},
    pods::{PodAddress, PodPort, Slot, note, pod_hardware},
    tunnel::{OriginalDst, Tunnel, Tunneled, TunneledKey, TunneledPlace, hop, space},
};
use crate::addr::{Addr, PortBe};

/// The version of everything in this module; part of the pins' path.
pub const ABI_VERSION: u32 = 9;

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
    /// Which look-ups can be left out: see [`SurelyAbsent`](crate::absent::SurelyAbsent). Zero leaves out none.
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

/// The policy of the agent's own cgroup, the last one that the map holds. Sets of workloads are numbered from
/// zero.
pub const OWN_POLICY: PolicyId = capacity::POLICIES - 1;

/// The policy of workloads that are not known yet, and of interfaces that are not listed. Zeroed it enforces, as
/// every policy.
pub const UNKNOWN_POLICY: PolicyId = capacity::POLICIES - 2;

/// The table of that policy. It never has a route, and no gateway is open to its workloads: they reach
/// in-cluster addresses, and nothing else.
pub const UNKNOWN_TABLE: TableId = TableId::MAX;
/// Tables from this one on are those of exemptions: they open what they name past the gateways, and no gateway is
/// open to their workloads.
pub const EXEMPTION_TABLES: TableId = 1 << 31;

/// Values of [`Policy::mode`]; an unknown one enforces.
pub mod mode {
    /// Carry out verdicts.
    pub const ENFORCE: u32 = 0;
    /// Report verdicts, let the traffic pass.
    pub const AUDIT: u32 = 1;
    /// Nothing is judged.
    pub const EXEMPT: u32 = 2;
    /// Report refusals and let the traffic pass; carry out redirects.
    pub const AUDIT_REDIRECT: u32 = 3;
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
    /// `VERDICTS`, on each CPU. A power of two.
    pub const VERDICTS: u32 = 1024;
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
    /// `SLOTS`: so many interfaces carry programs that judge pods. A power of two.
    pub const SLOTS: u32 = 16_384;
    /// `WORKLOADS`.
    pub const WORKLOADS: u32 = 32_768;
    /// `ORIGINAL_DST`; beyond it the least recently used are forgotten, and `getpeername` shows
    /// the gateway.
    pub const ORIGINAL_DST: u32 = 65_536;
    /// `TUNNELED`; beyond it the least recently used are forgotten, and their connections reset.
    pub const TUNNELED: u32 = 65_536;
    /// Of these, those of one workload's cgroup. A power of two.
    pub const TUNNELED_SHARE: u32 = 4096;
    /// `TUNNELED_PLACES`.
    pub const TUNNELED_PLACES: u32 = TUNNELED;
    /// `FLOWS`; beyond it the least recently used are forgotten, and their replies refused.
    pub const FLOWS: u32 = 65_536;
    /// Of these, those of one pod's interface, or of one workload's cgroup. A power of two.
    pub const FLOWS_SHARE: u32 = 4096;
    /// Of these, those of all uplinks together. A power of two.
    pub const FLOWS_OF_UPLINKS: u32 = 32_768;
    /// `FLOW_PLACES`.
    pub const FLOW_PLACES: u32 = FLOWS;
    /// `FLOW_TURNS`; beyond it the least recently used begin anew at their first place.
    pub const FLOW_TURNS: u32 = 16_384;
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
