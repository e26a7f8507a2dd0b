//! `cgroup_egress`, `pod_ingress`, `bridge_ingress`, `uplink_egress`: what judges packets, whatever
//! made them.
//! `cgroup_ingress`, `pod_egress`, `uplink_ingress`: what takes note of packets that come in, so that
//! they can be answered; these let everything pass.

use aya_ebpf::{
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use egress_ebpf::{
    abi::{hook, note},
    addr::PortBe,
    hooks::{self, ForwardPath},
    inbound::Scope,
    packet::{Bytes as _, Ethernet, Flow, ether_type, protocol},
    reason::Reason,
    tunnel::{self, End},
    verdict::{CGROUP_PASS, TC_NEXT},
};

use super::{
    context::{Skb, forget_bit},
    maker::{Maker, believed_pod},
    offload::{Frame, Leaving, Sent},
    read::Ends,
    report::{Cause, Site, report},
    slots::{came_by_unknown_port, note_pod, note_unknown, noted_pod},
    view::{Maps, Workload, share_of_cgroup, share_of_interface},
};

/// The second line on the node: packets of a workload's sockets, among them those of protocols
/// that have no connect or sendmsg hook (UDP-Lite, ping and raw sockets) and of sockets that are
/// older than the hooks. Minimum kernel version: 4.10; with the helpers used here, 5.8.
#[cgroup_skb(egress)]
fn cgroup_egress(context: SkBuffContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let workload = Workload::of(skb);
    let policy = workload.policy_or_default();
    let judgement = hooks::skb(&Sent(skb), skb.protocol(), policy, workload.listed(), &Maps);
    let result = forget_bit(judgement.cgroup_skb(), skb.length());
    let site = Site { hook: hook::SKB, cgroup: workload.cgroup, ifindex: 0 };
    report(site, &judgement, || Cause::packet(workload.share_of(skb)));
    result
}

/// The wall, on the host side of a pod's interface (Ethernet). Minimum kernel version: 4.5 with
/// clsact, 6.6 with tcx; with the ring buffer, 5.8.
#[classifier]
fn pod_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let ifindex = skb.ifindex();
    let judgement = hooks::pod(&Frame::new(skb), ifindex, skb.has_vlan(), &Maps);
    let result = judgement.tc();
    report(Site { hook: hook::POD, cgroup: 0, ifindex }, &judgement, || {
        Cause::packet(share_of_interface(ifindex))
    });
    note_pod(skb, ifindex);
    if judgement.reason() == Reason::Gateway {
        note_tunnel(skb, judgement.flow(), judgement.ether_type());
    }
    result
}

/// What the host takes in by a bridge that pods are ports of, for ports at which there is no program
/// yet (Ethernet). Minimum kernel version: 4.5 with clsact, 6.6 with tcx; with the ring buffer, 5.8.
#[classifier]
fn bridge_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    match hooks::bridge(&skb, noted_pod(skb), skb.has_vlan(), &Maps) {
        Some(judgement) => {
            let site = Site { hook: hook::POD, cgroup: 0, ifindex: skb.ifindex() };
            report(site, &judgement, || Cause::packet(share_of_interface(site.ifindex)));
            judgement.tc()
        }
        None => {
            note_unknown(skb);
            TC_NEXT
        }
    }
}

/// Takes note of a SYN that passes to a gateway's end or the tunnel listener's: whose it is. Headers
/// of what passes there have no options (IPv4) and no extensions (IPv6).
#[inline(always)]
fn note_tunnel(skb: Skb, flow: &Flow, kind: u16) {
    const FLAGS: u32 = 13;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let flags = match kind {
        ether_type::IPV4 => Ethernet::LENGTH + 20 + FLAGS,
        _ => Ethernet::LENGTH + 40 + FLAGS,
    };
    let opens = |[flags]: [u8; 1]| flags & (SYN | ACK) == SYN;
    if flow.protocol == protocol::TCP && skb.load(flags).is_some_and(opens) {
        let ends = Ends::new(flow.source, flow.destination);
        let [local, remote] =
            [flow.source_port, flow.destination_port].map(|port| u32::from(port.get()));
        let _always_noted = note_passed(skb.socket_cookie(), &raw const ends, local, remote);
    }
}

/// A function with a stack of its own, that the verifier checks by itself: see [`judge`](super::judge). What
/// it gives back says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "ports")]
extern "C" fn note_passed(cookie: u64, ends: *const Ends, local: u32, remote: u32) -> u64 {
    // SAFETY: the pointer is to two addresses of the caller's, or null.
    if let Some(ends) = unsafe { ends.as_ref() } {
        let [source, destination] = ends.addresses();
        let local = End { addr: source, port: PortBe::new(local as u16) };
        let remote = End { addr: destination, port: PortBe::new(remote as u16) };
        tunnel::passed(cookie, local, remote, &Maps);
    }
    0
}

/// The second wall, on the interface that leads outside (Ethernet): what is forwarded to it, and
/// what the sockets of host-network workloads send, and what the node's kernel answers. What the
/// node's own processes send passes. Minimum kernel version: 4.5 with clsact, 6.6 with tcx; with the
/// ring buffer, 5.8.
#[classifier]
#[inline(always)] // A frame of its own would count for the stack that is left.
fn uplink_egress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let workload = Workload::of(skb);
    let (came_in_on, pod) = (skb.came_in_on(), noted_pod(skb));
    // Who made what a workload sent is the same to the verdict, and what was forwarded no socket of the
    // node's sent. Both take long to find out.
    let Maker { namespace, socket } = if workload.known().is_some() {
        Maker::NOBODY
    } else if came_in_on != 0 {
        Maker::forwarder(skb)
    } else {
        Maker::of(skb)
    };
    let by_unknown_port = came_by_unknown_port(skb);
    let way = ForwardPath { came_in_on, pod, by_unknown_port, namespace, socket };
    let judgement = hooks::uplink(&Leaving::new(skb), way, workload.known(), skb.has_vlan(), &Maps);
    let result = judgement.tc();
    let site = Site { hook: hook::UPLINK, cgroup: workload.cgroup, ifindex: skb.ifindex() };
    // Asked anew: what is kept until here, the verifier follows along every path.
    report(site, &judgement, || {
        Cause::packet(match (skb.cgroup(), believed_pod(skb)) {
            (0, 0) => share_of_interface(site.ifindex),
            (0, pod) => share_of_interface(pod),
            (cgroup, _) => share_of_cgroup(cgroup),
        })
    });
    result
}

/// What a workload's sockets receive. Minimum kernel version: 4.10; with the helpers used here, 5.3.
#[cgroup_skb(ingress)]
fn cgroup_ingress(context: SkBuffContext) -> i32 {
    let skb = Skb(context.skb.skb);
    if let Some(protocol) = skb.socket_protocol() {
        let cgroup = Workload::of(skb).listed();
        if cgroup != 0 {
            hooks::to_socket(&skb, skb.protocol(), protocol, skb.ifindex(), cgroup, &Maps);
        }
    }
    CGROUP_PASS
}

/// What goes to a pod, on the host side of its interface (Ethernet). Minimum kernel version: 4.5
/// with clsact, 6.6 with tcx.
#[classifier]
fn pod_egress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    hooks::inward(&skb, Scope::Pod(skb.ifindex()), skb.has_vlan(), &Maps);
    // It leaves the node: another pod's note must not come back by an interface of this one on the uplink.
    skb.set_tc_index(note::NONE);
    TC_NEXT
}

/// What comes in on the interface that leads outside (Ethernet), as it is on the wire: address
/// translation comes later. Minimum kernel version: 4.5 with clsact, 6.6 with tcx.
///
/// What one interface of another namespace on the uplink sends the next (macvlan in bridge mode) comes by here
/// too, though it was on no wire, and has any source. It goes to the hardware address of that interface, as do
/// the outside's questions to it: so neither begins a flow.
#[classifier]
fn uplink_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    if !skb.is_for_another() {
        hooks::inward(&skb, Scope::Uplink, skb.has_vlan(), &Maps);
    }
    TC_NEXT
}
