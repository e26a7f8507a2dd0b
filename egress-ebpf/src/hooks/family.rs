//! Which sockets a workload may make, and what it may ask of the kernel by them.

use crate::{
    abi::PolicyId,
    decide::PolicyView,
    netlink::names_namespace,
    packet::{Bytes, Flow},
    reason::Reason,
    verdict::{Judgement, Mode, Verdict},
};

/// The making of a socket by a workload; `None` where there is nothing to say against it. `on_host`
/// tells that it would be in the host's network namespace, where a packet socket's frames can skip
/// `tc` (`PACKET_QDISC_BYPASS`, `AF_XDP`).
#[inline(always)]
pub fn family(
    family: u32,
    protocol: u32,
    on_host: bool,
    policy: PolicyId,
    view: &impl PolicyView,
) -> Option<Judgement> {
    if ordinary(family, protocol) || (!on_host && is_packet_family(family)) {
        return None;
    }
    let mode = view.policy(policy).mode;
    let verdict = match mode {
        Mode::Exempt => return None,
        Mode::Enforce | Mode::Audit | Mode::AuditRedirect => Verdict::deny(Reason::SocketFamily),
    };
    Some(Judgement::new(verdict, mode, policy, Flow::UNKNOWN, 0))
}

/// What a workload sends to rtnetlink; `None` where there is nothing to say against it. Whoever has
/// `CAP_NET_ADMIN` in the user namespace of the node could act in the node's network namespace by its
/// id, wherever he is himself.
#[inline(always)]
pub fn netlink(sent: &impl Bytes, policy: PolicyId, view: &impl PolicyView) -> Option<Judgement> {
    let mode = view.policy(policy).mode;
    let verdict = match mode {
        Mode::Exempt => return None,
        Mode::Enforce | Mode::Audit | Mode::AuditRedirect if names_namespace(sent) => {
            Verdict::deny(Reason::OtherNamespace)
        }
        Mode::Enforce | Mode::Audit | Mode::AuditRedirect => return None,
    };
    Some(Judgement::new(verdict, mode, policy, Flow::UNKNOWN, 0))
}

/// Whether a socket can reach nothing but what the other hooks judge.
#[inline(always)]
#[must_use]
pub const fn ordinary(family: u32, protocol: u32) -> bool {
    match family {
        // SMC has been a protocol of these since Linux 6.11, and leaves by RDMA where it can.
        number::INET | number::INET6 => protocol != IPPROTO_SMC,
        number::UNIX | number::NETLINK | number::ALG => true,
        _ => false,
    }
}

/// Whether its sockets send frames on interfaces of their network namespace.
#[inline(always)]
#[must_use]
pub const fn is_packet_family(family: u32) -> bool {
    matches!(family, number::PACKET | number::XDP | number::KEY)
}

/// `IPPROTO_SMC`, include/uapi/linux/in.h.
const IPPROTO_SMC: u32 = 256;

/// Address families, include/linux/socket.h.
mod number {
    pub(super) const UNIX: u32 = 1;
    pub(super) const INET: u32 = 2;
    pub(super) const INET6: u32 = 10;
    pub(super) const KEY: u32 = 15;
    pub(super) const NETLINK: u32 = 16;
    pub(super) const PACKET: u32 = 17;
    pub(super) const ALG: u32 = 38;
    pub(super) const XDP: u32 = 44;
}
