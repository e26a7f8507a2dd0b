//! The layouts of flow events, of what counts verdicts, and of what keeps events within bounds.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::PolicyId;
use crate::addr::{Addr, PortBe};

/// What a process calls itself (`TASK_COMM_LEN`, include/linux/sched.h): ends with a zero, or is zeros
/// alone where there is no process.
pub type Command = [u8; 16];

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
    /// Source address; of a connect, only if it was sent to a gateway: others have none yet.
    pub source: Addr,
    /// Destination as the application asked for it.
    pub destination: Addr,
    /// The gateway that a connect was sent to; unspecified where there is none, and for the tunnel, whose
    /// gateway the agent picks.
    pub gateway: Addr,
    /// Source port, zero where there is none.
    pub source_port: PortBe,
    /// Destination port, zero where there is none.
    pub destination_port: PortBe,
    /// The port at the gateway, zero where there is none.
    pub gateway_port: PortBe,
    /// Ethertype of a packet, host byte order; zero in a cgroup hook.
    pub ether_type: u16,
    /// The process (its thread group) by its number in the first PID namespace; zero for a packet, which
    /// no process need be behind.
    pub pid: u32,
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
    pub reserved: [u8; 7],
    /// The name of that process, as `/proc/<pid>/comm` has it: what is still known of one that has ended
    /// before the event is read.
    pub command: Command,
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
    /// Over [`Globals::events_per_second`](crate::abi::Globals::events_per_second).
    pub const RATE: u32 = 0;
    /// The ring buffer was full, or more than half full and the workload had caused many events.
    pub const FULL: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
}
