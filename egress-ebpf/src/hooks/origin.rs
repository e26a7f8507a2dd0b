//! Who sends what leaves by the uplink, and what that means for answers.

use super::{View, answers, answers_socket, lacks_route};
use crate::{
    decide::PolicyView,
    inbound::{self, Scope, Sender},
    packet::Packet,
    reason::Reason,
    verdict::{Action, Verdict},
};

/// The network namespace that a packet was made in, by its socket and its route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Namespace {
    /// The node's.
    Node,
    /// Another one, or none that could be found: a pod's interface may lie on the uplink (macvlan),
    /// and then its frames come by here without having come in. Whoever may change that namespace's
    /// network chooses what else such a packet says: where it came in, and the note of a pod's interface.
    Other,
}

/// What a packet was sent with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Socket {
    /// A socket that a process made, and a connection that has been established or dialled.
    Process,
    /// None of a process's: the kernel made the packet by itself, for a closed port, an echo, an
    /// error, a connection that isn't there yet or is over. Or nobody can tell.
    None,
}

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
    /// The packet is forwarded, from an interface that the agent knows as no pod's.
    Forwarded,
    /// The packet is forwarded, from whoever: the pod of which no agent knows yet, maybe.
    Unknown,
    /// An interface of another network namespace, which lies on the uplink.
    Stranger,
    /// A process of the node.
    NodeProcess,
    /// The node's kernel.
    NodeKernel,
}

impl Origin {
    /// Whether it is the node itself.
    #[inline(always)]
    pub(super) const fn is_node(self) -> bool {
        matches!(self.kind, Kind::NodeProcess | Kind::NodeKernel)
    }
}

/// The verdict on a packet at the uplink, once it is known whether it answers one that came in.
#[inline(always)]
pub(super) fn resolve_reply(
    verdict: Verdict,
    origin: Origin,
    packet: &Packet,
    view: &impl View,
) -> Verdict {
    let sender = match origin.kind {
        Kind::Workload | Kind::NodeProcess | Kind::NodeKernel => Sender::Itself,
        Kind::Pod => Sender::Pod(origin.pod),
        Kind::Forwarded | Kind::Unknown | Kind::Stranger => Sender::Unknown,
    };
    let denied = matches!(verdict.action, Action::Deny);
    if origin.is_node() && (!denied || is_for_the_inside(verdict, packet, view)) {
        return Verdict::allow(Reason::Host);
    }
    // What a workload's sockets were sent may have been sent by itself, over an interface of its own
    // making. The uplink's flows weren't.
    let may_answer = match origin.kind {
        Kind::Workload => lacks_route(verdict) && answers_socket(origin.cgroup, packet, view),
        Kind::Pod | Kind::Forwarded | Kind::Unknown | Kind::Stranger => lacks_route(verdict),
        Kind::NodeProcess | Kind::NodeKernel => denied,
    };
    if may_answer && answers(Scope::Uplink, sender, packet, view) {
        return Verdict::allow(Reason::Reply);
    }
    match origin.kind {
        // The last words of a connection that a process of the node began.
        Kind::NodeProcess | Kind::NodeKernel if view.continues_begun(packet) => {
            Verdict::allow(Reason::Host)
        }
        Kind::NodeProcess | Kind::NodeKernel => Verdict::deny(Reason::UnsolicitedAnswer),
        // Whatever refused it: connection tracking has seen it on its way here.
        Kind::Pod | Kind::Forwarded | Kind::Unknown | Kind::Stranger if denied => {
            inbound::note_refused(packet, view);
            verdict
        }
        Kind::Workload | Kind::Pod | Kind::Forwarded | Kind::Unknown | Kind::Stranger => verdict,
    }
}

/// Whether a refused packet of the node's kernel stays inside: a tunnel between nodes, whatever its
/// headers, or an answer to a gateway.
#[inline(always)]
fn is_for_the_inside(verdict: Verdict, packet: &Packet, view: &impl PolicyView) -> bool {
    if matches!(verdict.reason, Reason::GatewayPort | Reason::Encapsulation) {
        return true;
    }
    !matches!(verdict.reason, Reason::DeniedPrefix)
        && packet.flaw.is_some()
        && view.is_internal(&packet.flow.destination)
}
