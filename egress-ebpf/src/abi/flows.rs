//! The layout of the table of flows that began outside.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::addr::{Addr, PortBe};

/// Key of `FLOWS` (LRU hash): a flow that began outside.
///
/// The table holds [`FLOWS`](super::capacity::FLOWS) entries. Of these the uplinks together have at most
/// half, and each pod's interface and each workload's cgroup at most
/// [`FLOWS_SHARE`](super::capacity::FLOWS_SHARE): beyond it the oldest of the same scope make way,
/// established connections last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Where it was seen: the index of a pod's interface, the id of a workload's cgroup, or zero
    /// for the uplinks. `kind` says which of them.
    pub scope: u64,
    /// Who began it.
    pub remote: Addr,
    /// Whom it was for; unspecified where `kind` says that only the remote counts.
    pub local: Addr,
    /// The remote's port; for an ICMP echo zero.
    pub remote_port: PortBe,
    /// The local port; for an ICMP echo its identifier.
    pub local_port: PortBe,
    /// IP protocol number; zero where `kind` says that only the remote counts.
    pub protocol: u8,
    /// One of [`flow_kind`].
    pub kind: u8,
    /// Always zero.
    pub reserved: [u8; 2],
}

impl FlowKey {
    /// No flow: an empty place.
    pub const NONE: Self = Self {
        scope: 0,
        remote: Addr::UNSPECIFIED,
        local: Addr::UNSPECIFIED,
        remote_port: PortBe([0; 2]),
        local_port: PortBe([0; 2]),
        protocol: 0,
        kind: 0,
        reserved: [0; 2],
    };
}

/// Key of `FLOW_PLACES` (LRU hash): where in the order of a scope's entries one is. Beyond the map's
/// capacity the least recently used are forgotten, and their entries count for no share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowPlace {
    /// As in [`FlowKey::scope`].
    pub scope: u64,
    /// Which of its places; zero in a key of `FLOW_TURNS`, which counts how many were taken.
    pub index: u32,
    /// The scope's kind: [`flow_kind::POD`], [`flow_kind::UPLINK`] or [`flow_kind::CGROUP`], or
    /// [`Self::TUNNELED`].
    pub class: u32,
}

impl FlowPlace {
    /// The class of the tunnel's records, of a workload's cgroup.
    pub const TUNNELED: u32 = 16;
}

/// Values of [`FlowKey::kind`].
pub mod flow_kind {
    /// A flow at a pod's interface.
    pub const POD: u8 = 0;
    /// A flow at the uplinks, with addresses as they are on the wire.
    pub const UPLINK: u8 = 1;
    /// A flow to a socket of a workload's cgroup.
    pub const CGROUP: u8 = 2;
    /// That a pod's interface has seen this remote at all.
    pub const POD_REMOTE: u8 = 3;
    /// That sockets of a workload's cgroup have seen this remote port.
    pub const CGROUP_REMOTE: u8 = 4;
}

/// Value of `FLOWS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowState {
    /// When the last packet came in, or the node dialled, nanoseconds since boot.
    pub last_inbound: u64,
    /// One of [`flow_phase`].
    pub phase: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Values of [`FlowState::phase`]; an unknown one lets nothing pass.
pub mod flow_phase {
    /// Datagrams and remotes have no phases.
    pub const SEEN: u32 = 0;
    /// TCP: a SYN came in.
    pub const ASKED: u32 = 1;
    /// TCP: the inside has answered with SYN and ACK.
    pub const ANSWERED: u32 = 2;
    /// TCP: the outside has taken up the answer.
    pub const ESTABLISHED: u32 = 3;
    /// TCP: the outside has nothing more to say (FIN).
    pub const CLOSING: u32 = 4;
    /// TCP: both sides have nothing more to say.
    pub const CLOSED: u32 = 5;
    /// TCP: the inside has broken it off (RST).
    pub const RESET: u32 = 6;
    /// An ICMP echo request came in.
    pub const ECHOED: u32 = 7;
    /// TCP: a process of the node dialled. It makes nothing an answer; only what the node's kernel
    /// says last for such a connection leaves.
    pub const BEGUN: u32 = 8;
}
