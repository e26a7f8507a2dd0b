//! `sendmsg4`, `sendmsg6`: datagrams of sockets that aren't connected. `recvmsg4`, `recvmsg6`: whom
//! they come from.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use egress_ebpf::{abi::hook, verdict::CGROUP_PASS};

use super::{
    connect::conclude,
    context::{SocketAddr, V4, V6},
    judge,
    view::Workload,
};

/// Minimum kernel version: 4.18; with the cgroup and ring buffer helpers used here, 5.8.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    send(V4(context.sock_addr))
}

/// Minimum kernel version: 4.18; with the cgroup and ring buffer helpers used here, 5.8.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    send(V6(context.sock_addr))
}

#[inline(always)]
fn send(address: impl SocketAddr) -> i32 {
    let workload = Workload::current();
    let policy = workload.policy_or_default();
    let judgement = judge::socket(address.flow(), address.judges(), policy, workload.listed());
    conclude(hook::SENDMSG, &workload, judgement)
}

/// Shows the source as it is: no datagram's destination is ever changed, so none has another
/// source than the application expects. The kernel allows no other return value. Minimum kernel
/// version: 5.2.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(_context: SockAddrContext) -> i32 {
    CGROUP_PASS
}

/// As `recvmsg4`. Minimum kernel version: 5.2.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(_context: SockAddrContext) -> i32 {
    CGROUP_PASS
}
