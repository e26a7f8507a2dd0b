//! What leaves the node by an uplink.

use super::{
    View, destination, exempt, malformed,
    origin::{Kind, Namespace, Origin, Socket, resolve_reply},
    own_source, settled,
};
use crate::{
    abi::{PolicyId, UNKNOWN_POLICY},
    decide::Place,
    packet::{self, Ethernet, Flow, Neighbour, Packet, Reader, Room, Signal, ether_type},
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// The workload whose socket sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its policy.
    pub policy: PolicyId,
    /// Its cgroup.
    pub cgroup: u64,
}

/// How a frame came to an uplink, by the kernel's own objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForwardPath {
    /// The interface that it was forwarded from, zero for none.
    pub came_in_on: u32,
    /// The pod's interface whose program let it pass, zero for none that is known: on a bridge the
    /// frame came in on the bridge, as far as the kernel knows.
    pub pod: u32,
    /// Whether it came to a bridge of pods from a port at which no program let it pass.
    pub by_unknown_port: bool,
    /// The network namespace that it was made in, or that forwards it.
    pub namespace: Namespace,
    /// What it was sent with.
    pub socket: Socket,
}

/// tc egress on the uplink: a frame about to leave the node. `workload` is whose socket sent it, if
/// any.
///
/// What a process of the node sends passes. What the node's kernel sends by itself is an answer to
/// whoever provoked it, so it leaves for the outside only if the question came in by an uplink.
#[inline(always)]
pub fn uplink(
    bytes: &impl Reader,
    way: ForwardPath,
    workload: Option<Workload>,
    vlan: bool,
    view: &impl View,
) -> Judgement {
    let mut room = Room::EMPTY;
    let (policy, origin) = match workload {
        Some(Workload { policy, cgroup }) => {
            (policy, Origin { kind: Kind::Workload, cgroup, pod: 0 })
        }
        None => {
            let stranger = way.namespace != Namespace::Node;
            let begun_here = way.came_in_on == 0;
            // In another namespace interfaces have other indices, and a note is whoever's: `act_ife` writes
            // any to what the namespace sends.
            let noted = if way.pod != 0 { way.pod } else { way.came_in_on };
            let pod = if stranger { 0 } else { noted };
            let of_node = begun_here && !stranger;
            match view.interface(pod) {
                Some(port) if !of_node => (port.policy, Origin { kind: Kind::Pod, cgroup: 0, pod }),
                _ => {
                    let forwarded = !stranger && !of_node;
                    let policy = if forwarded {
                        view.forwarded_policy(way.came_in_on, way.by_unknown_port)
                    } else {
                        view.globals().uplink_policy
                    };
                    let kind = match way.socket {
                        _ if stranger => Kind::Stranger,
                        _ if forwarded && policy == UNKNOWN_POLICY => Kind::Unknown,
                        _ if forwarded => Kind::Forwarded,
                        Socket::Process => Kind::NodeProcess,
                        Socket::None => Kind::NodeKernel,
                    };
                    (policy, Origin { kind, cgroup: 0, pod: 0 })
                }
            }
        }
    };
    let mode = bytes.verifier_barrier(view.policy(policy).mode);
    if mode == Mode::Exempt {
        return exempt(policy, 0);
    }
    let Some(ethernet) = Ethernet::read(bytes) else {
        return Judgement::new(malformed(), mode, policy, Flow::UNKNOWN, 0);
    };
    let origin = Origin { kind: bytes.verifier_barrier(origin.kind), ..origin };
    let is_ip = matches!(ethernet.ether_type, ether_type::IPV4 | ether_type::IPV6);
    let (verdict, flow) = match ethernet.ether_type {
        _ if origin.is_node() && !is_ip => (Verdict::allow(Reason::Host), Flow::UNKNOWN),
        _ if vlan && !origin.is_node() => (Verdict::deny(Reason::EtherType), Flow::UNKNOWN),
        ether_type::ARP => {
            let verdict = match bytes.arp(Ethernet::LENGTH, ethernet.source) {
                Ok(_speaker) => Verdict::allow(Reason::Neighbour),
                Err(flaw) => Verdict::deny(flaw),
            };
            (verdict, Flow::UNKNOWN)
        }
        ether_type => {
            let packet = bytes.packet(Ethernet::LENGTH, ether_type, !origin.is_node(), &mut room);
            (outward(bytes, packet, policy, origin, view), packet.flow)
        }
    };
    Judgement::new(settled(bytes, verdict), mode, policy, flow, ethernet.ether_type)
}

/// An IP packet at the uplink.
#[inline(always)]
fn outward(
    bytes: &impl Reader,
    packet: &Packet,
    policy: PolicyId,
    origin: Origin,
    view: &impl View,
) -> Verdict {
    // Nobody is at a loopback address on a wire (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3). What has one
    // for its source answers who could only reach it from here.
    if packet.flow.source.is_loopback() {
        return Verdict::deny(Reason::SpoofedSource);
    }
    if origin.kind == Kind::NodeProcess {
        view.note_begun(packet);
        return Verdict::allow(Reason::Host);
    }
    if origin.kind == Kind::NodeKernel && is_of_the_link(packet) {
        return Verdict::allow(Reason::Host);
    }
    let mut subject = packet;
    let mut room = Room::EMPTY;
    // One way for all: a second reading would take more stack than there is.
    let speaks_for_itself = matches!(origin.kind, Kind::Workload | Kind::Stranger | Kind::Unknown);
    if speaks_for_itself || origin.kind == Kind::NodeKernel {
        bytes.pull(Ethernet::LENGTH + packet::ERROR);
        subject = packet::subject_of_error(bytes, Ethernet::LENGTH, packet, &mut room);
    }
    if speaks_for_itself {
        if packet.signal == Signal::Error && !packet::is_own_error(packet, subject) {
            return Verdict::deny(Reason::ForgedError);
        }
        subject = packet;
    }
    let judge = |flow: &Flow| view.verdict(Place::Wire, flow, policy);
    let mut verdict = settled(bytes, destination(subject, judge));
    // What comes from a network that the agent knows may be translated, and P has seen the source of a known pod's.
    // Nothing translates what another namespace puts on the uplink. A pod that no agent knows may have any source,
    // and whoever it asks inside answers there.
    if speaks_for_itself {
        verdict = own_source(verdict, packet, view);
    }
    resolve_reply(verdict, origin, subject, view)
}

/// Whether a packet goes no further than the link: neighbour discovery, and groups.
#[inline(always)]
const fn is_of_the_link(packet: &Packet) -> bool {
    let destination = &packet.flow.destination;
    // Not a router's: a redirect quotes what it is about, and goes to whoever that names.
    !matches!(packet.neighbour, Neighbour::No | Neighbour::RouterOnly)
        || destination.is_link_scope()
        || destination.is_multicast()
}
