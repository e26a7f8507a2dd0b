//! The layouts of what is kept of redirected connections, and of the tunnel's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Command, GroupId, PolicyId};
use crate::addr::{Addr, PortBe};

/// Value of `ORIGINAL_DST` (LRU hash by socket cookie): what the application asked for, so that
/// `getpeername` can say it, and the tunnel carry it on. What took its place is held too, because a
/// socket that was disconnected and connected elsewhere keeps its cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OriginalDst {
    /// The listed cgroup that the process belongs to; zero for none.
    pub cgroup: u64,
    /// The cgroup of the process, which the event names.
    pub caller: u64,
    /// The cgroup whose share of the events this one takes: a [`ShareKey::id`](super::ShareKey::id).
    pub share: u64,
    /// The network namespace that the socket is in, by its cookie.
    pub network: u64,
    /// The address asked for.
    pub addr: Addr,
    /// The address that took its place: a gateway's, or the tunnel listener's.
    pub gateway: Addr,
    /// The gateway group.
    pub group: GroupId,
    /// The policy that decided.
    pub policy: PolicyId,
    /// The port asked for.
    pub port: PortBe,
    /// The port that took its place: the gateway's, or the tunnel listener's.
    pub gateway_port: PortBe,
    /// The port at the gateway that the route means.
    pub routed_port: PortBe,
    /// One of [`hop`].
    pub hop: u8,
    /// 1 once an event has reported it. While programs are replaced, two of them see each connection.
    pub reported: u8,
    /// The process that asked, which the event names: as [`FlowEvent::pid`](super::FlowEvent::pid).
    pub pid: u32,
    /// Always zero.
    pub reserved: u32,
    /// The name of that process: as [`FlowEvent::command`](super::FlowEvent::command).
    pub command: Command,
}

/// Values of [`OriginalDst::hop`].
pub mod hop {
    /// Straight to a gateway.
    pub const PLAIN: u8 = 0;
    /// To the tunnel listener; no record has been made yet.
    pub const TUNNEL: u8 = 1;
    /// To the tunnel listener, and the record has been made. It is made once.
    pub const RECORDED: u8 = 2;
}

/// Value of `TUNNEL` (array, one entry): where the node's tunnel listener is. Zeroed, or with a port
/// of zero for a family, there is none, and what needs it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tunnel {
    /// Its IPv4 address.
    pub v4: Addr,
    /// Its IPv6 address.
    pub v6: Addr,
    /// Its port at the IPv4 address; zero for none.
    pub port_v4: PortBe,
    /// Its port at the IPv6 address; zero for none.
    pub port_v6: PortBe,
}

/// Key of `TUNNELED` (LRU hash): the workload's end of a connection to the tunnel listener, and how it
/// is known to be the workload's.
///
/// 65,536 in all. Of those that are made when a connection is established, each workload's cgroup has at
/// most [`TUNNELED_SHARE`](super::capacity::TUNNELED_SHARE): beyond it the oldest of its own make way. Those
/// that are made at a pod's interface have no share: they are of the pod's own addresses alone, at most one
/// for each of its ports. A record is of a socket that the connect hook sent to the listener, and counts from its SYN until the agent has
/// accepted the connection, some milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunneledKey {
    /// Its address, as the listener sees it.
    pub addr: Addr,
    /// Its port.
    pub port: PortBe,
    /// One of [`space`].
    pub space: u8,
    /// Always zero.
    pub reserved: u8,
}

/// Value of `TUNNELED_PLACES` (LRU hash by [`FlowPlace`](super::FlowPlace)): a record, in the order in which
/// a workload's were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunneledPlace {
    /// Its [`Tunneled::time`], which tells it from a later one of the same end.
    pub time: u64,
    /// Whose it is.
    pub key: TunneledKey,
    /// Always zero.
    pub reserved: u32,
}

/// Values of [`TunneledKey::space`].
pub mod space {
    /// The end is of a network namespace that the node knows nothing of: what two sockets claim is
    /// discarded.
    pub const OTHER: u8 = 0;
    /// The pod's own interface let its SYN pass, and with it its address.
    pub const WALL: u8 = 1;
    /// The socket is in the node's own network namespace, where no two have the same end.
    pub const NODE: u8 = 2;
}

/// Value of `TUNNELED`: what a connection to the tunnel listener was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tunneled {
    /// When it was established, nanoseconds since boot (CLOCK_MONOTONIC).
    pub time: u64,
    /// The socket's cookie.
    pub cookie: u64,
    /// The listed cgroup that the process belongs to; zero for none.
    pub cgroup: u64,
    /// The address that the application asked for.
    pub addr: Addr,
    /// The gateway group.
    pub group: GroupId,
    /// The policy that decided.
    pub policy: PolicyId,
    /// The port that the application asked for.
    pub port: PortBe,
    /// The port at the gateway that the route means.
    pub routed_port: PortBe,
    /// Not zero where two sockets claimed this end: then it is unowned.
    pub contested: u32,
}

impl Tunneled {
    /// How long a record counts, in nanoseconds: longer than a connection waits to be accepted. One
    /// that nobody took by then is of a connection that nobody serves, and mustn't be given to
    /// another from the same end.
    pub const LIFETIME: u64 = 30_000_000_000;

    /// Whether it counts, by the same clock as [`Self::time`].
    #[inline(always)]
    #[must_use]
    pub const fn is_fresh(&self, now: u64) -> bool {
        // Written on another CPU, it may be a moment ahead.
        now.saturating_sub(self.time) < Self::LIFETIME
    }
}
