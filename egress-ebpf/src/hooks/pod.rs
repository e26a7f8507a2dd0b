//! What a pod sends: its frames at its host-side interface.

use super::{destination, exempt, final_packet, lacks_route, malformed, settled};
use crate::{
    abi::{PodAddress, PolicyId},
    addr::Addr,
    decide::{Place, PolicyView},
    inbound::{self, FlowTable, Scope, Sender},
    packet::{self, Bytes, Ethernet, Flow, Neighbour, Packet, ether_type, offload},
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// tc ingress on a pod's host-side interface: a frame that the pod sent. `vlan` tells that the
/// kernel has taken a VLAN tag off it.
#[inline(always)]
pub fn pod(
    bytes: &impl Bytes,
    ifindex: u32,
    vlan: bool,
    view: &(impl PolicyView + FlowTable),
) -> Judgement {
    let Some(policy) = view.interface(ifindex) else {
        let unknown = Verdict::deny(Reason::UnknownInterface);
        return Judgement::new(unknown, Mode::Enforce, 0, Flow::UNKNOWN, 0);
    };
    let mode = bytes.forget(view.policy(policy).mode);
    if mode == Mode::Exempt {
        return exempt(policy, 0);
    }
    let Some(ethernet) = Ethernet::read(bytes) else {
        return Judgement::new(malformed(), mode, policy, Flow::UNKNOWN, 0);
    };
    let pod = Pod { ifindex, ethernet, view };
    let (verdict, flow) = match ethernet.ether_type {
        _ if vlan => (Verdict::deny(Reason::EtherType), Flow::UNKNOWN),
        ether_type::ARP => (arp(bytes, |sender| pod.owns(sender)), Flow::UNKNOWN),
        ether_type => {
            let packet = final_packet(bytes, Ethernet::LENGTH, ether_type, true);
            (pod.ip(bytes, &packet, policy), packet.flow)
        }
    };
    Judgement::new(verdict, mode, policy, flow, ethernet.ether_type)
}

/// Judges a frame of ARP, whose sender must be one that `owns` knows.
#[inline(always)]
fn arp(bytes: &impl Bytes, owns: impl Fn(&Addr) -> bool) -> Verdict {
    if let Some(flaw) = offload::flaw(bytes, Ethernet::LENGTH, ether_type::ARP) {
        return Verdict::deny(flaw);
    }
    match packet::arp_sender(bytes, Ethernet::LENGTH) {
        None => malformed(),
        // A probe (RFC 5227 §2.1.1) has no sender yet and so claims nothing.
        Some(sender) if sender.is_unspecified() || owns(&sender) => {
            Verdict::allow(Reason::Neighbour)
        }
        Some(_) => Verdict::deny(Reason::SpoofedNeighbour),
    }
}

/// The sender of a frame at a pod's interface.
struct Pod<'a, V> {
    ifindex: u32,
    ethernet: Ethernet,
    view: &'a V,
}

impl<V: PolicyView + FlowTable> Pod<'_, V> {
    #[inline(always)]
    fn ip(&self, bytes: &impl Bytes, packet: &Packet, policy: PolicyId) -> Verdict {
        if let Some(flaw) = packet.flaw {
            return Verdict::deny(flaw);
        }
        let source = &packet.flow.source;
        let honest = match packet.neighbour {
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
        let verdict = settled(bytes, destination(Place::Wire, packet, policy, self.view));
        let scope = Scope::Pod(self.ifindex);
        if lacks_route(verdict) && inbound::answers(scope, Sender::Itself, packet, self.view) {
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
