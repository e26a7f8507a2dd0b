//! `cgroup_egress`, `pod_ingress`, `bridge_ingress`, `uplink_egress`: what judges packets, whatever
//! made them.
//! `cgroup_ingress`, `pod_egress`, `uplink_ingress`: what takes note of packets that come in, so that
//! they can be answered; these let everything pass.

use aya_ebpf::{
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use egress_ebpf::{
    abi::hook,
    hooks::{self, Way},
    inbound::Scope,
    verdict::{CGROUP_PASS, TC_NEXT},
};

use super::{
    context::Skb,
    maker::Maker,
    report::{Site, report},
    view::{Maps, Workload},
};

/// The second line on the node: packets of a workload's sockets, among them those of protocols
/// that have no connect or sendmsg hook (UDP-Lite, ping and raw sockets) and of sockets that are
/// older than the hooks. Minimum kernel version: 4.10; with the helpers used here, 5.8.
#[cgroup_skb(egress)]
fn cgroup_egress(context: SkBuffContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let workload = Workload::of(skb);
    let policy = workload.policy_or_default();
    let judgement = hooks::skb(&skb, skb.protocol(), policy, workload.listed(), &Maps);
    report(Site { hook: hook::SKB, cgroup: workload.cgroup, ifindex: 0 }, &judgement);
    judgement.cgroup_skb()
}

/// The wall, on the host side of a pod's interface (Ethernet). Minimum kernel version: 4.5 with
/// clsact, 6.6 with tcx; with the ring buffer, 5.8.
#[classifier]
fn pod_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let ifindex = skb.ifindex();
    let judgement = hooks::pod(&skb, ifindex, skb.has_vlan(), &Maps);
    report(Site { hook: hook::POD, cgroup: 0, ifindex }, &judgement);
    skb.remember_pod(ifindex);
    judgement.tc()
}

/// What the host takes in by a bridge that pods are ports of, for ports at which there is no program
/// yet (Ethernet). Minimum kernel version: 4.5 with clsact, 6.6 with tcx; with the ring buffer, 5.8.
#[classifier]
fn bridge_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    match hooks::bridge(&skb, skb.pod(), skb.has_vlan(), &Maps) {
        Some(judgement) => {
            report(Site { hook: hook::POD, cgroup: 0, ifindex: skb.ifindex() }, &judgement);
            judgement.tc()
        }
        None => TC_NEXT,
    }
}

/// The second wall, on the interface that leads outside (Ethernet): what is forwarded to it, and
/// what the sockets of host-network workloads send, and what the node's kernel answers. What the
/// node's own processes send passes. Minimum kernel version: 4.5 with clsact, 6.6 with tcx; with the
/// ring buffer, 5.8.
#[classifier]
fn uplink_egress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let workload = Workload::of(skb);
    let maker = Maker::of(skb);
    let way = Way {
        came_in_on: skb.came_in_on(),
        pod: skb.pod(),
        namespace: maker.namespace,
        socket: maker.socket,
    };
    let judgement = hooks::uplink(&skb, way, workload.known(), skb.has_vlan(), &Maps);
    report(
        Site { hook: hook::UPLINK, cgroup: workload.cgroup, ifindex: skb.ifindex() },
        &judgement,
    );
    judgement.tc()
}

/// What a workload's sockets receive. Minimum kernel version: 4.10; with the helpers used here, 5.3.
#[cgroup_skb(ingress)]
fn cgroup_ingress(context: SkBuffContext) -> i32 {
    let skb = Skb(context.skb.skb);
    if let Some(protocol) = skb.socket_protocol() {
        let cgroup = Workload::of(skb).listed();
        if cgroup != 0 {
            hooks::to_socket(&skb, skb.protocol(), protocol, cgroup, &Maps);
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
    TC_NEXT
}

/// What comes in on the interface that leads outside (Ethernet), as it is on the wire: address
/// translation comes later. Minimum kernel version: 4.5 with clsact, 6.6 with tcx.
#[classifier]
fn uplink_ingress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    hooks::inward(&skb, Scope::Uplink, skb.has_vlan(), &Maps);
    TC_NEXT
}
