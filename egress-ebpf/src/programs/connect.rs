//! `connect4`, `connect6`.
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// Refuses every connect, as long as there is no verdict to ask for. Minimum kernel version: 4.17.
#[cgroup_sock_addr(connect4)]
fn connect4(_context: SockAddrContext) -> i32 {
    0
}

/// Refuses every connect, as long as there is no verdict to ask for. Minimum kernel version: 4.17.
#[cgroup_sock_addr(connect6)]
fn connect6(_context: SockAddrContext) -> i32 {
    0
}
