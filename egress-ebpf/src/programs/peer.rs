//! `getpeername4`, `getpeername6`.
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// Leaves the peer as it is. Minimum kernel version: 5.8.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(_context: SockAddrContext) -> i32 {
    1
}

/// Leaves the peer as it is. Minimum kernel version: 5.8.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(_context: SockAddrContext) -> i32 {
    1
}
