//! `socket_create`: which sockets a workload may make.

use aya_ebpf::{
    Global, cty::c_int, helpers::bpf_get_current_task, macros::lsm, programs::LsmContext,
};
use egress_ebpf::{
    abi::{SOCKET_PROBE, hook},
    hooks,
    verdict::Judgement,
};

use super::{
    kernel::{HOST_NETNS, NET_INUM, read},
    report::{Cause, Site, report},
    view::{Maps, Workload},
};

/// Where the kernel keeps what, in bytes from the start of each structure. The agent takes them
/// from the kernel's own description (BTF) before loading.
#[unsafe(no_mangle)]
static TASK_NSPROXY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NSPROXY_NET: Global<u32> = Global::new(0);

pub(crate) const EPERM: i32 = -1;
const AF_UNSPEC: u32 = 0;

/// Refuses workloads the sockets that no other hook judges. Minimum kernel version: 5.7, with BPF
/// among the active security modules (`lsm=…,bpf`).
#[lsm(hook = "socket_create")]
fn socket_create(context: LsmContext) -> i32 {
    // int socket_create(int family, int type, int protocol, int kern), and what the module before
    // said. Only constants are returned, since the verifier wants to know the range.
    let [family, protocol, kernel, before]: [c_int; 4] =
        [context.arg(0), context.arg(2), context.arg(3), context.arg(4)];
    if before != 0 {
        return EPERM;
    }
    let (family, protocol) = (family.cast_unsigned(), protocol.cast_unsigned());
    if family == AF_UNSPEC && protocol == SOCKET_PROBE {
        return EPERM;
    }
    if kernel != 0 || hooks::ordinary(family, protocol) {
        return 0;
    }
    let workload = Workload::current();
    let Some(known) = workload.known() else { return 0 };
    let on_host = !hooks::is_packet_family(family) || is_on_host();
    let judgement = hooks::family(family, protocol, on_host, known.policy, &Maps);
    judgement.map_or(0, |judgement| conclude(&workload, judgement))
}

#[inline(always)]
pub(crate) fn conclude(workload: &Workload, judgement: Judgement) -> i32 {
    let result = match judgement.system_call() {
        Ok(()) => 0,
        Err(_errno) => EPERM,
    };
    let site = Site { hook: hook::SOCKET, cgroup: workload.cgroup, ifindex: 0 };
    report(site, &judgement, || Cause::system_call(workload.share_of_current()));
    result
}

/// Whether the process is in the host's network namespace: `task->nsproxy->net_ns->ns.inum`. What
/// can't be read counts as the host's.
#[inline(always)]
fn is_on_host() -> bool {
    // SAFETY: the helper takes nothing.
    let task = unsafe { bpf_get_current_task() };
    match number_of_netns(task) {
        Some(number) => number == HOST_NETNS.load(),
        None => true,
    }
}

#[inline(always)]
fn number_of_netns(task: u64) -> Option<u32> {
    let nsproxy: u64 = read(task, TASK_NSPROXY.load())?;
    let net: u64 = read(nsproxy, NSPROXY_NET.load())?;
    read(net, NET_INUM.load())
}
