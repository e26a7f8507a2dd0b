//! Who sends what leaves by the uplink, and what that means for answers.

use super::{answers_socket, lacks_route};
use crate::{
    decide::PolicyView,
    inbound::{self, FlowTable, Scope, Sender},
    packet::Packet,
    reason::Reason,
    verdict::{Action, Verdict},
};

/// Who sends what leaves by the uplink.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) kind: Kind,
    /// The workload's.
    pub(super) cgroup: u64,
    /// The pod's interface.
    pub(super) pod: u32,
}

/// What is known of them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A workload's socket.
    Workload,
    /// The packet is forwarded, from this pod.
    Pod,
    /// The packet is forwarded.
    Unknown,
}

/// The verdict on a packet at the uplink, once it is known whether it answers one that came in.
#[inline(always)]
pub(super) fn leaving(
    verdict: Verdict,
    origin: Origin,
    packet: &Packet,
    view: &(impl PolicyView + FlowTable),
) -> Verdict {
    let sender = match origin.kind {
        Kind::Workload => Sender::Itself,
        Kind::Pod => Sender::Pod(origin.pod),
        Kind::Unknown => Sender::Unknown,
    };
    // What a workload's sockets were sent may have been sent by itself, over an interface of its own
    // making. The uplink's flows weren't.
    let forwarded = origin.kind != Kind::Workload;
    if lacks_route(verdict)
        && (forwarded || answers_socket(origin.cgroup, packet, view))
        && inbound::answers(Scope::Uplink, sender, packet, view)
    {
        return Verdict::allow(Reason::Reply);
    }
    // Whatever refused it: connection tracking has seen it on its way here.
    if forwarded && matches!(verdict.action, Action::Deny) {
        inbound::note_refused(packet, view);
    }
    verdict
}
