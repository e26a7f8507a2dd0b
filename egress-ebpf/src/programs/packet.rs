//! `cgroup_egress`, `pod_ingress`, `uplink_egress`.
use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    macros::{cgroup_skb, classifier},
    programs::{SkBuffContext, TcContext},
};

/// Drops every packet, as long as there is no verdict to ask for. Minimum kernel version: 4.10.
#[cgroup_skb(egress)]
fn cgroup_egress(_context: SkBuffContext) -> i32 {
    0
}

/// Drops every packet, as long as there is no verdict to ask for. Minimum kernel version: 4.5.
#[classifier]
fn pod_ingress(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Drops every packet, as long as there is no verdict to ask for. Minimum kernel version: 4.5.
#[classifier]
fn uplink_egress(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}
