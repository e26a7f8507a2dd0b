//! What each hook has to judge: from what its context holds to a [`Judgement`].

mod family;
mod node;
mod origin;
mod pod;
mod uplink;

pub use self::{
    family::{family, is_packet_family, netlink, ordinary},
    node::node,
    origin::{Namespace, Socket},
    pod::pod,
    uplink::{ForwardPath, Workload, uplink},
};
use crate::{
    abi::{PodAddress, PolicyId, UNKNOWN_POLICY, action},
    addr::Addr,
    decide::{Place, PolicyView},
    inbound::{self, FlowTable, Scope, Sender},
    packet::{
        self, Bytes, Ethernet, Flow, Neighbour, Packet, Reader, Room, Signal, ether_type, protocol,
    },
    reason::Reason,
    verdict::{Action, Judgement, Mode, Verdict},
};

/// The index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`,
/// include/net/flow.h).
pub const LOOPBACK: u32 = 1;

/// The maps, as the hooks ask them.
pub trait View: PolicyView + FlowTable {
    /// [`inbound::answers`], which the programs have in a function of its own.
    #[inline(always)]
    fn answers(&self, scope: Scope, sender: Sender, packet: &Packet) -> bool
    where
        Self: Sized,
    {
        inbound::answers(scope, sender, packet, self)
    }

    /// [`inbound::note_begun`], which the programs have in a function of its own.
    #[inline(always)]
    fn note_begun(&self, packet: &Packet)
    where
        Self: Sized,
    {
        inbound::note_begun(packet, self);
    }

    /// [`inbound::continues_begun`], which the programs have in a function of its own.
    #[inline(always)]
    fn continues_begun(&self, packet: &Packet) -> bool
    where
        Self: Sized,
    {
        inbound::continues_begun(packet, self)
    }

    /// Whether the agent knows the interface, and that it is no pod's.
    #[inline(always)]
    fn is_forwarder(&self, ifindex: u32) -> bool {
        self.is_pod_address(&PodAddress::forwarder(ifindex))
    }

    /// [`forwarded_policy`], which the programs have in a function of its own.
    #[inline(always)]
    fn forwarded_policy(&self, came_in_on: u32, by_unknown_port: bool) -> PolicyId
    where
        Self: Sized,
    {
        forwarded_policy(came_in_on, by_unknown_port, self)
    }

    /// Whether a socket may have this address for its packets' source: in the cluster, of the link, a pod's
    /// or the node's, or none yet. An answer to any of these stays inside.
    #[inline(always)]
    fn may_ask(&self, source: &Addr) -> bool
    where
        Self: Sized,
    {
        may_ask(source, self)
    }
}

/// `connect4`, `connect6`, `sendmsg4`, `sendmsg6`. `judges` tells whether the hook knows what the
/// system call's address family means; `cgroup` is the workload's, zero for none.
#[inline(always)]
pub fn socket(
    flow: Flow,
    judges: bool,
    policy: PolicyId,
    cgroup: u64,
    view: &(impl PolicyView + FlowTable),
) -> Judgement {
    let mode = view.policy(policy).mode;
    let mut verdict = if judges || mode == Mode::Exempt {
        view.verdict(Place::Socket, &flow, policy)
    } else {
        Verdict::deny(Reason::AddressFamily)
    };
    if lacks_route(verdict) && cgroup != 0 && inbound::may_send(cgroup, &flow, view) {
        verdict = Verdict::allow(Reason::Reply);
    }
    Judgement::new(verdict, mode, policy, flow, 0)
}

/// Whether a refused `connect()` sends nothing, so that nothing has left yet that could be refused:
/// resolvers connect UDP sockets to every address of a name to ask for the source address (RFC 6724
/// §6), and send nothing. The datagram is judged when it is sent, by `cgroup_skb` and what comes
/// after it. An address family that the hook does not know stays refused.
#[inline(always)]
#[must_use]
pub fn sends_nothing(judgement: &Judgement) -> bool {
    judgement.action_code() == action::DENY
        && !matches!(judgement.reason(), Reason::AddressFamily)
        && matches!(
            judgement.flow().protocol,
            protocol::UDP | protocol::UDP_LITE | protocol::ICMP | protocol::ICMPV6
        )
}

/// Whether an audited refusal of a packet tells nothing new: TCP to a port that is routed to a
/// gateway. Enforced, the connection would have been redirected, which `connect()` reports.
#[inline(always)]
#[must_use]
pub fn is_told_by_connect(judgement: &Judgement) -> bool {
    matches!(judgement.reason(), Reason::NotRedirected)
}

/// `cgroup_skb` egress: a packet that begins with its IP header. `cgroup` is the workload's, zero
/// for none.
#[inline(always)]
pub fn skb(
    bytes: &impl Reader,
    ether_type: u16,
    policy: PolicyId,
    cgroup: u64,
    view: &impl View,
) -> Judgement {
    let mode = bytes.verifier_barrier(view.policy(policy).mode);
    if mode == Mode::Exempt {
        return exempt(policy, ether_type);
    }
    let mut room = Room::EMPTY;
    let packet = bytes.packet(0, ether_type, true, &mut room);
    let forged = bytes.verifier_barrier(forges_error(bytes, 0, packet));
    let verdict =
        settled(bytes, destination(packet, |flow| view.verdict(Place::Skb, flow, policy)));
    let mut verdict = own_source(verdict, packet, view);
    if forged {
        verdict = Verdict::deny(Reason::ForgedError);
    }
    let mut verdict = settled(bytes, verdict);
    if lacks_route(verdict) && answers_socket(cgroup, packet, view) {
        verdict = Verdict::allow(Reason::Reply);
    }
    Judgement::new(settled(bytes, verdict), mode, policy, packet.flow, ether_type)
}

/// tc ingress on a bridge that pods are ports of: a frame that the host takes in, by whatever port.
/// `pod` is the interface of the pod whose program let it pass, zero for none: then the port may be
/// that of a pod which appeared while no agent ran. `None` where there is nothing to say against it.
///
/// The node's system and its processes answer whoever asks. So nobody asks here in the name of an
/// address outside; what a pod without a program sends outside itself, or to a gateway, the uplink refuses, by the
/// note that the program at the bridge leaves ([`note::UNKNOWN`](crate::abi::note::UNKNOWN)).
#[inline(always)]
pub fn bridge(bytes: &impl Bytes, pod: u32, vlan: bool, view: &impl View) -> Option<Judgement> {
    let globals = view.globals();
    // Without a configuration nobody knows what is inside.
    if pod != 0 || globals.generation == 0 {
        return None;
    }
    let policy = globals.uplink_policy;
    let mode = view.policy(policy).mode;
    if mode == Mode::Exempt {
        return None;
    }
    let ethernet = Ethernet::read(bytes)?;
    let (reason, flow) = match ethernet.ether_type {
        ether_type::ARP if !vlan => return None,
        ether_type::IPV4 | ether_type::IPV6 if !vlan => {
            let flow = packet::ip(bytes, Ethernet::LENGTH, ethernet.ether_type).flow;
            if view.may_ask(&flow.source) {
                return None;
            }
            (Reason::SpoofedSource, flow)
        }
        _ => (Reason::EtherType, Flow::UNKNOWN),
    };
    Some(Judgement::new(Verdict::deny(reason), mode, policy, flow, ethernet.ether_type))
}

/// What [`View::may_ask`] does.
#[inline(always)]
pub fn may_ask(source: &Addr, view: &impl PolicyView) -> bool {
    view.is_internal(source)
        || source.is_link_scope()
        || source.is_unspecified()
        || view.is_pod_address(&PodAddress { ifindex: 0, addr: *source })
}

/// The policy of what the node forwards from no pod that is known.
///
/// | it came | policy |
/// |---|---|
/// | to a bridge of pods, by a port without a program | unknown |
/// | by an interface that the agent knows as no pod's: another network, a tunnel, another bridge | the uplink's |
/// | by any other: the pod's of which no agent knows yet | unknown |
///
/// With the policy of unknown workloads it reaches in-cluster addresses, and answers who asked it. It has no egress:
/// its source may be anybody's, and a gateway might go by that.
#[inline(always)]
pub fn forwarded_policy(came_in_on: u32, by_unknown_port: bool, view: &impl View) -> PolicyId {
    if !by_unknown_port && view.is_forwarder(came_in_on) {
        view.globals().uplink_policy
    } else {
        UNKNOWN_POLICY
    }
}

/// `cgroup_skb` ingress: a packet for a socket of the workload's cgroup, beginning with its IP
/// header. `protocol` is the socket's; a raw one counts for nothing, or it would open flows for
/// services that aren't the workload's. `ifindex` is the interface that the packet is on: what comes
/// over loopback was sent in the socket's own network namespace, whatever its source says, and began
/// nowhere outside.
#[inline(always)]
pub fn to_socket(
    bytes: &impl Bytes,
    ether_type: u16,
    protocol: u8,
    ifindex: u32,
    cgroup: u64,
    view: &(impl PolicyView + FlowTable),
) {
    if ifindex == LOOPBACK {
        return;
    }
    let packet = packet::ip(bytes, 0, ether_type);
    if packet.flow.protocol == protocol && matches!(protocol, protocol::TCP | protocol::UDP) {
        inbound::track_inbound(Scope::Cgroup(cgroup), &packet, view);
    }
}

/// tc egress of a pod's host-side interface, and tc ingress of the uplink: a frame on its way in.
#[inline(always)]
pub fn inward(bytes: &impl Bytes, scope: Scope, vlan: bool, view: &(impl PolicyView + FlowTable)) {
    let Some(ethernet) = Ethernet::read(bytes).filter(|_| !vlan) else { return };
    if matches!(ethernet.ether_type, ether_type::IPV4 | ether_type::IPV6) {
        let packet = packet::ip(bytes, Ethernet::LENGTH, ethernet.ether_type);
        inbound::track_inbound(scope, &packet, view);
    }
}

/// Refuses a packet whose source is neither in the cluster nor an address of a pod's or the node's: of a
/// workload's socket, of another network namespace's interface on the uplink, and of a pod of which no agent knows.
/// The kernel gives sockets no other unless they ask for it: a raw socket takes any, and so does `IPV6_FREEBIND`.
/// Whoever is asked inside, the node's own kernel over loopback included, would answer the outside (echo, RST,
/// unreachable port), and so carry data out. So would who is asked for its hardware address: an advertisement goes to
/// whoever asked, by the hardware address that the question gives (RFC 4861 §7.2.4).
///
/// A link-local source may ask for neighbours alone. The kernel takes none for what goes further (RFC 6724 §5,
/// rule 2), and who is asked by another's answers whoever has it on the link: a router of the outside's.
#[inline(always)]
fn own_source(verdict: Verdict, packet: &Packet, view: &impl View) -> Verdict {
    let source = &packet.flow.source;
    let leaves = matches!(verdict.action, Action::Allow)
        && matches!(
            verdict.reason,
            Reason::Loopback
                | Reason::Internal
                | Reason::Gateway
                | Reason::Direct
                | Reason::Neighbour
        );
    let goes_further = !matches!(verdict.reason, Reason::Loopback | Reason::Neighbour);
    let answered_on_link = goes_further && source.is_link_scope();
    if !leaves || source.is_loopback() || (!answered_on_link && view.may_ask(source)) {
        return verdict;
    }
    Verdict::deny(Reason::SpoofedSource)
}

/// Whether it is an ICMP error, in the IP packet at `offset`, about a packet that was not sent to its
/// sender.
#[inline(always)]
fn forges_error(bytes: &impl Reader, offset: u32, packet: &Packet) -> bool {
    // A copy of which nothing is known: what is found out here must not make a path of its own.
    let (signal, flow) = (bytes.verifier_barrier(packet.signal), &packet.flow);
    signal == Signal::Error
        && (flow.fragment || !bytes.verifier_barrier(bytes.quotes_own(offset, flow)))
}

/// Whether a verdict only says that nothing leads there, or not to this port of a gateway: then it may still be an
/// answer.
#[inline(always)]
const fn lacks_route(verdict: Verdict) -> bool {
    matches!(verdict.action, Action::Deny)
        && matches!(
            verdict.reason,
            Reason::NoRoute
                | Reason::NotRedirected
                | Reason::Protocol
                | Reason::UnknownWorkload
                | Reason::GatewayPort
        )
}

#[inline(always)]
fn answers_socket(cgroup: u64, packet: &Packet, view: &impl View) -> bool {
    cgroup != 0 && answers(Scope::Cgroup(cgroup), Sender::Itself, packet, view)
}

/// Whether a packet on its way out answers a flow of this scope.
#[inline(always)]
fn answers(scope: Scope, sender: Sender, packet: &Packet, view: &impl View) -> bool {
    // Most packets are none that could, which needs no function.
    inbound::may_answer(packet) && view.answers(scope, sender, packet)
}

/// A verdict on a packet, of which only actions and reasons are left: see [`Bytes::verifier_barrier`]. No
/// packet can be redirected.
#[inline(always)]
fn settled(bytes: &impl Bytes, verdict: Verdict) -> Verdict {
    let allowed = bytes.verifier_barrier(matches!(verdict.action, Action::Allow));
    let action = if allowed { Action::Allow } else { Action::Deny };
    Verdict { action, reason: bytes.verifier_barrier(verdict.reason) }
}

/// Judges a packet by everything but its source; `judge` is the verdict on its flow.
#[inline(always)]
fn destination(packet: &Packet, judge: impl FnOnce(&Flow) -> Verdict) -> Verdict {
    if let Some(flaw) = packet.flaw {
        return Verdict::deny(flaw);
    }
    if matches!(packet.neighbour, Neighbour::RouterOnly) {
        return Verdict::deny(Reason::SpoofedNeighbour);
    }
    // The link is as far as these go. With another destination they are packets like any.
    if !matches!(packet.neighbour, Neighbour::No) && packet.flow.destination.is_link_scope() {
        return Verdict::allow(Reason::Neighbour);
    }
    judge(&packet.flow)
}

#[inline(always)]
const fn malformed() -> Verdict {
    Verdict::deny(Reason::Malformed)
}

#[inline(always)]
const fn exempt(policy: PolicyId, ether_type: u16) -> Judgement {
    let verdict = Verdict::allow(Reason::Exempt);
    Judgement::new(verdict, Mode::Exempt, policy, Flow::UNKNOWN, ether_type)
}

#[cfg(test)]
mod tests;
