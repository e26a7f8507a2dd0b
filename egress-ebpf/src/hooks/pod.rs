//! What a pod sends: its frames at its host-side interface. A pod speaks for its own addresses, and for the
//! hardware address that the agent looked up at the interface's other end.

use super::{View, answers, destination, exempt, forges_error, lacks_route, malformed, settled};
use crate::{
    abi::{PodAddress, PolicyId, UNKNOWN_POLICY},
    addr::Addr,
    decide::Place,
    inbound::{Scope, Sender},
    packet::{Ethernet, Flow, Neighbour, Packet, Reader, Room, ether_type, gives_hardware_address},
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// tc ingress on a pod's host-side interface: a frame that the pod sent. `vlan` tells that the
/// kernel has taken a VLAN tag off it.
#[inline(always)]
pub fn pod(bytes: &impl Reader, ifindex: u32, vlan: bool, view: &impl View) -> Judgement {
    let port = view.interface(ifindex);
    let policy = port.map_or(UNKNOWN_POLICY, |port| port.policy);
    let mode = bytes.verifier_barrier(view.policy(policy).mode);
    let Some(port) = port else {
        let unknown = Verdict::deny(Reason::UnknownInterface);
        return Judgement::new(unknown, mode, policy, Flow::UNKNOWN, 0);
    };
    if mode == Mode::Exempt {
        return exempt(policy, 0);
    }
    let Some(ethernet) = Ethernet::read(bytes) else {
        return Judgement::new(malformed(), mode, policy, Flow::UNKNOWN, 0);
    };
    let pod = Pod { ifindex, ethernet, view };
    let mut room = Room::EMPTY;
    let own = bytes.verifier_barrier(port.sends_from(ethernet.source));
    let (verdict, flow) = match ethernet.ether_type {
        _ if !own => (Verdict::deny(Reason::SpoofedHardware), Flow::UNKNOWN),
        _ if vlan => (Verdict::deny(Reason::EtherType), Flow::UNKNOWN),
        ether_type::ARP => (pod.arp(bytes), Flow::UNKNOWN),
        ether_type => {
            let packet = bytes.packet(Ethernet::LENGTH, ether_type, true, &mut room);
            (pod.ip(bytes, packet, policy), packet.flow)
        }
    };
    Judgement::new(settled(bytes, verdict), mode, policy, flow, ethernet.ether_type)
}

/// The sender of a frame at a pod's interface, which comes from the pod's hardware address.
struct Pod<'a, V> {
    ifindex: u32,
    ethernet: Ethernet,
    view: &'a V,
}

impl<V: View> Pod<'_, V> {
    #[inline(always)]
    fn arp(&self, bytes: &impl Reader) -> Verdict {
        let speaker = match bytes.arp(Ethernet::LENGTH, self.ethernet.source) {
            Ok(speaker) => speaker,
            Err(flaw) => return Verdict::deny(flaw),
        };
        // A probe (RFC 5227 §2.1.1) has no sender yet and so claims nothing.
        if !speaker.addr.is_unspecified() && !self.owns(&speaker.addr) {
            return Verdict::deny(Reason::SpoofedNeighbour);
        }
        if !speaker.is_sender {
            return Verdict::deny(Reason::SpoofedHardware);
        }
        Verdict::allow(Reason::Neighbour)
    }

    #[inline(always)]
    fn ip(&self, bytes: &impl Reader, packet: &Packet, policy: PolicyId) -> Verdict {
        if let Some(flaw) = packet.flaw {
            return Verdict::deny(flaw);
        }
        let source = &packet.flow.source;
        // A copy of which nothing is known: see `Bytes::verifier_barrier`.
        let neighbour = bytes.verifier_barrier(packet.neighbour);
        let honest = match neighbour {
            // Asking whether an address is free (RFC 4862 §5.4.2), and for routers or groups before
            // one has an address.
            Neighbour::Solicitation if source.is_unspecified() => self.owns(&packet.target),
            Neighbour::RouterSolicitation | Neighbour::ListenerReport
                if source.is_unspecified() =>
            {
                true
            }
            Neighbour::Advertisement => self.owns(&packet.target) && self.owns(source),
            Neighbour::No if self.owns(source) => true,
            Neighbour::No => return Verdict::deny(Reason::SpoofedSource),
            Neighbour::Solicitation | Neighbour::RouterSolicitation | Neighbour::ListenerReport => {
                self.owns(source)
            }
            Neighbour::RouterOnly => false,
        };
        if !honest {
            return Verdict::deny(Reason::SpoofedNeighbour);
        }
        let own = gives_hardware_address(bytes, neighbour, self.ethernet.source);
        if !bytes.verifier_barrier(own) {
            return Verdict::deny(Reason::SpoofedHardware);
        }
        if forges_error(bytes, Ethernet::LENGTH, packet) {
            return Verdict::deny(Reason::ForgedError);
        }
        let judge = |flow: &Flow| self.view.verdict(Place::Wire, flow, policy);
        let verdict = settled(bytes, destination(packet, judge));
        let scope = Scope::Pod(self.ifindex);
        if lacks_route(verdict) && answers(scope, Sender::Itself, packet, self.view) {
            return Verdict::allow(Reason::Reply);
        }
        verdict
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

#[cfg(test)]
mod tests;
