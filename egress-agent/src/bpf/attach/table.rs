//! Which program belongs where. A new program is a line here.

use aya::programs::TcAttachType;

use crate::sys::netlink::filters::Direction;

/// A program and its place.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ProgramEntry {
    /// Its name in the object.
    pub(super) program: &'static str,
    /// The kind of thing that it is attached to.
    pub(super) on: TargetKind,
    /// Which way what it sees goes: into the host, the interface or the socket, or out of it. At a
    /// pod's host-side interface what the pod sends comes in. A hook of a system call sees what a
    /// process asks for, which is on its way out.
    pub(super) direction: Direction,
}

/// Kinds of things that programs are attached to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TargetKind {
    /// The host-side interface of a pod.
    Pod,
    /// A bridge that pods' interfaces, and nothing but pods' kind of interfaces, are ports of.
    Bridge,
    /// An interface that leads out of the node.
    Uplink,
    /// The node's network namespace, with its sockets.
    Node,
    /// A cgroup2 directory.
    Cgroup,
}

const fn entry(program: &'static str, on: TargetKind, direction: Direction) -> ProgramEntry {
    ProgramEntry { program, on, direction }
}

/// In the order in which those of one place are attached. What takes note of packets from external hosts comes
/// before what refuses answers to those that it doesn't know. Then the enforcement points, which
/// hold whatever the cgroups' programs miss; of those the second line first, which needs no
/// socket's consent.
pub(super) static TABLE: &[ProgramEntry] = &[
    entry("pod_egress", TargetKind::Pod, Direction::Egress),
    entry("uplink_ingress", TargetKind::Uplink, Direction::Ingress),
    entry("cgroup_ingress", TargetKind::Cgroup, Direction::Ingress),
    entry("pod_ingress", TargetKind::Pod, Direction::Ingress),
    entry("bridge_ingress", TargetKind::Bridge, Direction::Ingress),
    entry("node_lookup", TargetKind::Node, Direction::Ingress),
    entry("uplink_egress", TargetKind::Uplink, Direction::Egress),
    entry("cgroup_egress", TargetKind::Cgroup, Direction::Egress),
    // A connection that is sent to the tunnel needs its record.
    entry("sock_ops", TargetKind::Cgroup, Direction::Egress),
    entry("connect4", TargetKind::Cgroup, Direction::Egress),
    entry("connect6", TargetKind::Cgroup, Direction::Egress),
    entry("sendmsg4", TargetKind::Cgroup, Direction::Egress),
    entry("sendmsg6", TargetKind::Cgroup, Direction::Egress),
    entry("recvmsg4", TargetKind::Cgroup, Direction::Egress),
    entry("recvmsg6", TargetKind::Cgroup, Direction::Egress),
    entry("getpeername4", TargetKind::Cgroup, Direction::Egress),
    entry("getpeername6", TargetKind::Cgroup, Direction::Egress),
];

/// The entries for a kind of thing.
pub(super) fn entries(on: TargetKind) -> impl Iterator<Item = &'static ProgramEntry> {
    TABLE.iter().filter(move |entry| entry.on == on)
}

/// The entry of a program.
pub(super) fn by_name(program: &str) -> Option<&'static ProgramEntry> {
    TABLE.iter().find(|entry| entry.program == program)
}

/// For aya's `tc`.
pub(super) fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}
