//! What each hook has to judge: from what its context holds to a [`Judgement`].

use crate::{
    abi::{PodAddress, PolicyId},
    addr::Addr,
    decide::{Place, PolicyView, decide},
    packet::{self, Bytes, Ethernet, Flow, Neighbour, Packet, ether_type},
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// `connect4`, `connect6`, `sendmsg4`, `sendmsg6`. `judges` tells whether the hook knows what the
/// system call's address family means.
#[inline(always)]
pub fn socket(flow: Flow, judges: bool, policy: PolicyId, view: &impl PolicyView) -> Judgement {
    let mode = view.policy(policy).mode;
    let verdict = if judges || mode == Mode::Exempt {
        decide(Place::Socket, &flow, policy, view)
    } else {
        Verdict::deny(Reason::AddressFamily)
    };
    Judgement::new(verdict, mode, policy, flow, 0)
}

/// `cgroup_skb` egress: a packet that begins with its IP header.
#[inline(always)]
pub fn skb(
    bytes: &impl Bytes,
    ether_type: u16,
    policy: PolicyId,
    view: &impl PolicyView,
) -> Judgement {
    let mode = view.policy(policy).mode;
    if mode == Mode::Exempt {
        return exempt(policy, ether_type);
    }
    let packet = packet::ip(bytes, 0, ether_type);
    let verdict = destination(Place::Skb, &packet, policy, view);
    Judgement::new(verdict, mode, policy, packet.flow, ether_type)
}

/// tc ingress on a pod's host-side interface: a frame that the pod sent. `vlan` tells that the
/// kernel has taken a VLAN tag off it.
#[inline(always)]
pub fn pod(bytes: &impl Bytes, ifindex: u32, vlan: bool, view: &impl PolicyView) -> Judgement {
    let Some(policy) = view.interface(ifindex) else {
        let unknown = Verdict::deny(Reason::UnknownInterface);
        return Judgement::new(unknown, Mode::Enforce, 0, Flow::UNKNOWN, 0);
    };
    let mode = view.policy(policy).mode;
    if mode == Mode::Exempt {
        return exempt(policy, 0);
    }
    let Some(ethernet) = Ethernet::read(bytes) else {
        return Judgement::new(malformed(), mode, policy, Flow::UNKNOWN, 0);
    };
    let pod = Pod { ifindex, ethernet, view };
    let (verdict, flow) = match ethernet.ether_type {
        _ if vlan => (Verdict::deny(Reason::EtherType), Flow::UNKNOWN),
        ether_type::ARP => (pod.arp(bytes), Flow::UNKNOWN),
        ether_type => {
            let packet = packet::ip(bytes, Ethernet::LENGTH, ether_type);
            (pod.ip(&packet, policy), packet.flow)
        }
    };
    Judgement::new(verdict, mode, policy, flow, ethernet.ether_type)
}

/// tc egress on the uplink: a frame about to leave the node. `workload` is the policy of the
/// workload whose socket sent it, if any; `forwarded` tells that it came in on another interface.
#[inline(always)]
pub fn uplink(
    bytes: &impl Bytes,
    forwarded: bool,
    workload: Option<PolicyId>,
    vlan: bool,
    view: &impl PolicyView,
) -> Judgement {
    let policy = match (workload, forwarded) {
        (Some(policy), _) => policy,
        (None, true) => view.globals().uplink_policy,
        (None, false) => {
            let host = Verdict::allow(Reason::Host);
            return Judgement::new(host, Mode::Enforce, 0, Flow::UNKNOWN, 0);
        }
    };
    let mode = view.policy(policy).mode;
    if mode == Mode::Exempt {
        return exempt(policy, 0);
    }
    let Some(ethernet) = Ethernet::read(bytes) else {
        return Judgement::new(malformed(), mode, policy, Flow::UNKNOWN, 0);
    };
    let (verdict, flow) = match ethernet.ether_type {
        _ if vlan => (Verdict::deny(Reason::EtherType), Flow::UNKNOWN),
        ether_type::ARP => match packet::arp_sender(bytes, Ethernet::LENGTH) {
            Some(_) => (Verdict::allow(Reason::Neighbour), Flow::UNKNOWN),
            None => (malformed(), Flow::UNKNOWN),
        },
        ether_type => {
            let packet = packet::ip(bytes, Ethernet::LENGTH, ether_type);
            (destination(Place::Wire, &packet, policy, view), packet.flow)
        }
    };
    Judgement::new(verdict, mode, policy, flow, ethernet.ether_type)
}

/// Judges a packet by everything but its source.
#[inline(always)]
fn destination(place: Place, packet: &Packet, policy: PolicyId, view: &impl PolicyView) -> Verdict {
    if let Some(flaw) = packet.flaw {
        return Verdict::deny(flaw);
    }
    match packet.neighbour {
        Neighbour::RouterOnly => return Verdict::deny(Reason::SpoofedNeighbour),
        Neighbour::No => {}
        // The link is as far as these go. With another destination they are packets like any.
        _ if packet.flow.destination.is_link_scope() => return Verdict::allow(Reason::Neighbour),
        _ => {}
    }
    decide(place, &packet.flow, policy, view)
}

/// The sender of a frame at a pod's interface.
struct Pod<'a, V> {
    ifindex: u32,
    ethernet: Ethernet,
    view: &'a V,
}

impl<V: PolicyView> Pod<'_, V> {
    #[inline(always)]
    fn arp(&self, bytes: &impl Bytes) -> Verdict {
        match packet::arp_sender(bytes, Ethernet::LENGTH) {
            None => malformed(),
            // A probe (RFC 5227 §2.1.1) has no sender yet and so claims nothing.
            Some(sender) if sender.is_unspecified() || self.owns(&sender) => {
                Verdict::allow(Reason::Neighbour)
            }
            Some(_) => Verdict::deny(Reason::SpoofedNeighbour),
        }
    }

    #[inline(always)]
    fn ip(&self, packet: &Packet, policy: PolicyId) -> Verdict {
        if let Some(flaw) = packet.flaw {
            return Verdict::deny(flaw);
        }
        let source = &packet.flow.source;
        let honest = match packet.neighbour {
            // Asking whether an address is free (RFC 4862 §5.4.2), and for routers or groups before
            // one has an address.
            Neighbour::Solicitation { target } if source.is_unspecified() => self.owns(&target),
            Neighbour::RouterSolicitation | Neighbour::ListenerReport
                if source.is_unspecified() =>
            {
                true
            }
            Neighbour::Advertisement { target } => self.owns(&target) && self.owns(source),
            Neighbour::No if self.owns(source) => true,
            Neighbour::No => return Verdict::deny(Reason::SpoofedSource),
            Neighbour::Solicitation { .. }
            | Neighbour::RouterSolicitation
            | Neighbour::ListenerReport => self.owns(source),
            Neighbour::RouterOnly => false,
        };
        if !honest {
            return Verdict::deny(Reason::SpoofedNeighbour);
        }
        destination(Place::Wire, packet, policy, self.view)
    }

    /// Whether the pod may speak for the address: one that it was given, or the link-local one
    /// that its system derives from the hardware address (RFC 4291 appendix A), which leads
    /// nowhere but to the link.
    #[inline(always)]
    fn owns(&self, addr: &Addr) -> bool {
        *addr == Addr::link_local(self.ethernet.source)
            || self.view.is_pod_address(&PodAddress { ifindex: self.ifindex, addr: *addr })
    }
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
