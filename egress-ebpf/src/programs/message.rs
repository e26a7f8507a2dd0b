//! `sendmsg4`, `sendmsg6`, `recvmsg4`, `recvmsg6`.
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// Refuses every datagram, as long as there is no verdict to ask for. Minimum kernel version: 4.18.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(_context: SockAddrContext) -> i32 {
    0
}

/// Refuses every datagram, as long as there is no verdict to ask for. Minimum kernel version: 4.18.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(_context: SockAddrContext) -> i32 {
    0
}

/// Leaves the source as it is. Minimum kernel version: 5.2.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(_context: SockAddrContext) -> i32 {
    1
}

/// Leaves the source as it is. Minimum kernel version: 5.2.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(_context: SockAddrContext) -> i32 {
    1
}
