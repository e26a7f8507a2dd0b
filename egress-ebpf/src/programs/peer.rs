//! `getpeername4`, `getpeername6`: the application sees the address that it asked for.

use aya_ebpf::{
    helpers::bpf_get_socket_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use egress_ebpf::verdict::CGROUP_PASS;

use super::{
    context::{SocketAddr, V4, V6},
    maps::ORIGINAL_DST,
};

/// Minimum kernel version: 5.8.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    show_original(V4(context.sock_addr));
    CGROUP_PASS
}

/// Minimum kernel version: 5.8.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    show_original(V6(context.sock_addr));
    CGROUP_PASS
}

#[inline(always)]
fn show_original(address: impl SocketAddr) {
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(address.context().cast()) };
    // SAFETY: an entry is written before its socket is connected; what changes later is one byte.
    let Some(entry) = (unsafe { ORIGINAL_DST.get(cookie) }) else { return };
    // The socket may have been disconnected and have another peer by now.
    if address.addr() == entry.gateway && address.port() == entry.gateway_port {
        address.set_addr(entry.addr);
        address.set_port(entry.port);
    }
}
