//! `connect4`, `connect6`: TCP to the outside is sent to a gateway or the tunnel, everything else to
//! the outside is refused. TCP fast open comes here with its `sendto`, MPTCP with each subflow.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use egress_ebpf::{
    abi::{OriginalDst, PolicyId, hook, hop},
    addr::{Addr, PortBe},
    hooks,
    reason::Reason,
    tunnel::End,
    verdict::{CGROUP_PASS, CGROUP_REFUSE, Judgement, Target},
};

use super::{
    context::{SocketAddr, V4, V6, forget_bit},
    judge,
    maps::{GROUPS, ORIGINAL_DST, TUNNEL},
    report::{Cause, Site, name_process, report},
    view::Workload,
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
    let judgement = judge::socket(address.flow(), address.judges(), policy, workload.listed());
    if hooks::sends_nothing(&judgement) {
        return judgement.deferred();
    }
    let judgement = match lead(address, &judgement, CallingWorkload { policy, workload: &workload })
    {
        Ok(()) => judgement.carried_out(),
        Err(reason) => judgement.refused(reason),
    };
    conclude(hook::CONNECT, &workload, judgement)
}

/// The calling workload: its policy and its cgroup.
#[derive(Clone, Copy)]
struct CallingWorkload<'a> {
    policy: PolicyId,
    workload: &'a Workload,
}

/// Sends a socket where its judgement says, if it says so.
#[inline(always)]
fn lead(
    address: impl SocketAddr,
    judgement: &Judgement,
    asks: CallingWorkload<'_>,
) -> Result<(), Reason> {
    let (there, hop, target) = if let Some(target) = judgement.redirect() {
        (gateway(address, target), hop::PLAIN, target)
    } else if let Some(target) = judgement.tunnel() {
        (listener(address, target), hop::TUNNEL, target)
    } else {
        return Ok(());
    };
    send(address, there?, hop, target, asks)
}

/// A gateway for the socket. Only the address changes, unless the route names another port.
#[inline(always)]
fn gateway(address: impl SocketAddr, target: Target) -> Result<End, Reason> {
    let group = GROUPS.get(target.group).ok_or(Reason::NoHealthyGateway)?;
    // SAFETY: the helper takes nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    let reach = address.reach(&address.addr());
    let addr = group.pick(random, reach).ok_or(Reason::NoHealthyGateway)?;
    Ok(End { addr, port: target.port })
}

/// The node's own tunnel listener, if there is a gateway that it can go on to. Which one, the node
/// decides; its addresses needn't be of the socket's family.
#[inline(always)]
fn listener(address: impl SocketAddr, target: Target) -> Result<End, Reason> {
    let group = GROUPS.get(target.group).ok_or(Reason::NoHealthyGateway)?;
    if group.count == 0 {
        return Err(Reason::NoHealthyGateway);
    }
    let listeners = TUNNEL.get(0).ok_or(Reason::NoTunnel)?;
    listeners.pick(address.reach(&address.addr())).ok_or(Reason::NoTunnel)
}

/// What an entry of `ORIGINAL_DST` begins as. It is filled in where it is: the stack has no room for one.
static NOTHING: OriginalDst = OriginalDst {
    cgroup: 0,
    caller: 0,
    share: 0,
    network: 0,
    addr: Addr::UNSPECIFIED,
    gateway: Addr::UNSPECIFIED,
    group: 0,
    policy: 0,
    port: PortBe::new(0),
    gateway_port: PortBe::new(0),
    routed_port: PortBe::new(0),
    hop: hop::PLAIN,
    reported: 0,
    pid: 0,
    reserved: 0,
    command: [0; _],
};

/// Remembers what the socket asked for, then puts another end in its place.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would be on the stack")]
fn send(
    address: impl SocketAddr,
    there: End,
    hop: u8,
    target: Target,
    asks: CallingWorkload<'_>,
) -> Result<(), Reason> {
    let port = address.port();
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(address.context().cast()) };
    ORIGINAL_DST.insert(cookie, &NOTHING, 0).map_err(|_full| Reason::OriginalDstFull)?;
    let entry = ORIGINAL_DST.get_ptr_mut(cookie).ok_or(Reason::OriginalDstFull)?;
    // SAFETY: the pointer is to the map's value, which stays memory of that kind even if the entry is forgotten
    // meanwhile. The context is valid. Minimum kernel version: 5.7.
    unsafe {
        (*entry).network = bpf_get_netns_cookie(address.context().cast());
        (*entry).share = asks.workload.share_of_current().id;
        (*entry).cgroup = asks.workload.listed();
        (*entry).caller = asks.workload.cgroup;
        (*entry).addr = address.addr();
        (*entry).gateway = there.addr;
        (*entry).group = target.group;
        (*entry).policy = asks.policy;
        (*entry).port = port;
        (*entry).gateway_port = there.port;
        (*entry).routed_port = target.port;
        (*entry).hop = hop;
        name_process(&raw mut (*entry).pid, &raw mut (*entry).command);
    }
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!((), "socket {} goes by port {}", cookie, there.port.get());
    address.set_addr(there.addr);
    if there.port != port {
        address.set_port(there.port);
    }
    Ok(())
}

/// Reports a system call's judgement and turns it into the hook's return value.
#[inline(always)]
pub(crate) fn conclude(hook: u8, workload: &Workload, judgement: Judgement) -> i32 {
    let judgement = judge::forget(&judgement);
    let result = match judgement.system_call() {
        Ok(()) => CGROUP_PASS,
        Err(errno) => {
            if SET_RETVAL.load() != 0 {
                // SAFETY: the helper takes any error number.
                let _previous = unsafe { bpf_set_retval(-errno.0) };
            }
            CGROUP_REFUSE
        }
    };
    // Before the report: what is found out there must not count for each result.
    let result = forget_bit(result, judgement.flow().destination.words()[3]);
    let site = Site { hook, cgroup: workload.cgroup, ifindex: 0 };
    report(site, &judgement, || Cause::system_call(workload.share_of_current()));
    result
}
