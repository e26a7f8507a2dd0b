//! `cgroup_egress`, `pod_ingress`, `uplink_egress`: what judges packets, whatever made them.

use aya_ebpf::{
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};
use egress_ebpf::{abi::hook, hooks};

use super::{
    context::Skb,
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
    let judgement = hooks::skb(&skb, skb.protocol(), workload.policy_or_default(), &Maps);
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
    judgement.tc()
}

/// The second wall, on the interface that leads outside (Ethernet): what is forwarded to it, and
/// what the sockets of host-network workloads send. The node's own traffic passes. Minimum kernel
/// version: 4.5 with clsact, 6.6 with tcx; with the ring buffer, 5.8.
#[classifier]
fn uplink_egress(context: TcContext) -> i32 {
    let skb = Skb(context.skb.skb);
    let workload = Workload::of(skb);
    let judgement =
        hooks::uplink(&skb, skb.is_forwarded(), workload.policy(), skb.has_vlan(), &Maps);
    report(
        Site { hook: hook::UPLINK, cgroup: workload.cgroup, ifindex: skb.ifindex() },
        &judgement,
    );
    judgement.tc()
}
