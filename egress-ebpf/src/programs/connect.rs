//! `connect4`, `connect6`: TCP to the outside is sent to a gateway, everything else to the outside
//! is refused. TCP fast open comes here with its `sendto`, MPTCP with each subflow.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use egress_ebpf::{
    abi::{OriginalDst, hook},
    hooks,
    reason::Reason,
    verdict::{CGROUP_PASS, CGROUP_REFUSE, Judgement, Target},
};

use super::{
    context::{SocketAddr, V4, V6},
    maps::{GROUPS, ORIGINAL_DST},
    report::{Site, report},
    view::{Maps, Workload},
};

/// Whether the kernel has `bpf_set_retval` (5.18): the agent sets it to 1 before loading, and the
/// verifier then drops the other branch. Without it a refusal is a plain `EPERM`.
#[unsafe(no_mangle)]
static SET_RETVAL: Global<u8> = Global::new(0);

/// Minimum kernel version: 4.17; with the cgroup and ring buffer helpers used here, 5.8.
#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect(V4(context.sock_addr))
}

/// A socket that is bound to IPv6 alone (`IPV6_V6ONLY`) can't be told from another here. Sent to a
/// mapped address, because its gateway has only IPv4, the kernel refuses it with `ENETUNREACH`.
///
/// Minimum kernel version: 4.17; with the cgroup and ring buffer helpers used here, 5.8.
#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect(V6(context.sock_addr))
}

#[inline(always)]
fn connect(address: impl SocketAddr) -> i32 {
    let workload = Workload::current();
    let policy = workload.policy_or_default();
    let mut judgement =
        hooks::socket(address.flow(), address.judges(), policy, workload.listed(), &Maps);
    if let Some(target) = judgement.redirect()
        && let Err(reason) = redirect(address, target)
    {
        judgement = judgement.refused(reason);
    }
    conclude(Site { hook: hook::CONNECT, cgroup: workload.cgroup, ifindex: 0 }, judgement)
}

/// Remembers what the socket asked for, then sends it to a gateway. Only the address changes,
/// unless the route names another port.
#[inline(always)]
fn redirect(address: impl SocketAddr, target: Target) -> Result<(), Reason> {
    let original = address.addr();
    let port = address.port();
    let group = GROUPS.get(target.group).ok_or(Reason::NoHealthyGateway)?;
    // SAFETY: the helper takes nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    let gateway = group.pick(random, address.reach(&original)).ok_or(Reason::NoHealthyGateway)?;
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(address.context().cast()) };
    let entry = OriginalDst { addr: original, gateway, port, gateway_port: target.port };
    ORIGINAL_DST.insert(cookie, entry, 0).map_err(|_full| Reason::OriginalDstFull)?;
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        (),
        "socket {}: {:i} port {} goes by {:i} port {}",
        cookie,
        original.octets(),
        port.get(),
        gateway.octets(),
        target.port.get()
    );
    address.set_addr(gateway);
    if target.port != port {
        address.set_port(target.port);
    }
    Ok(())
}

/// Reports a system call's judgement and turns it into the hook's return value.
#[inline(always)]
pub(crate) fn conclude(site: Site, judgement: Judgement) -> i32 {
    report(site, &judgement);
    match judgement.system_call() {
        Ok(()) => CGROUP_PASS,
        Err(errno) => {
            if SET_RETVAL.load() != 0 {
                // SAFETY: the helper takes any error number.
                let _previous = unsafe { bpf_set_retval(-errno.0) };
            }
            CGROUP_REFUSE
        }
    }
}
