//! `sock_ops`: what a connection to the node's tunnel listener was meant for, and the source address of a
//! connection that was sent to a gateway.

use aya_ebpf::{
    Global,
    bindings::bpf_sock_ops,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::sock_ops,
    programs::SockOpsContext,
};
use egress_ebpf::{
    abi::{FlowPlace, OriginalDst, Tunnel, Tunneled, TunneledKey, TunneledPlace, capacity, hop},
    addr::{Addr, PortBe},
    inbound::FlowTable as _,
    tunnel::{self, End, TunnelTable},
};

use super::{
    context::read_addr6,
    maps::{ORIGINAL_DST, TUNNEL, TUNNELED, TUNNELED_PLACES},
    report::redirected,
    view::Maps,
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// A socket that dials has its source, and its SYN isn't sent yet (include/uapi/linux/bpf.h).
const TCP_CONNECT: u32 = 3;
/// A socket that dialled has its answer; its own last word of the handshake isn't sent yet
/// (include/uapi/linux/bpf.h).
const ACTIVE_ESTABLISHED: u32 = 4;
/// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
const ONLY_NEW: u64 = 1;
/// Lets the kernel go on by itself: `reply` isn't touched, and its zero asks for nothing.
const GO_ON: u32 = 1;

/// The node's network namespace, by its cookie: the agent tells before loading. Zero for unknown.
#[unsafe(no_mangle)]
static NODE_NETWORK: Global<u64> = Global::new(0);

/// Only takes note; it can't refuse anything. Minimum kernel version: 4.13 (the socket's cookie 4.12);
/// as a link 5.7.
#[sock_ops]
fn sock_ops(context: SockOpsContext) -> u32 {
    let ops = context.ops;
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    let op = unsafe { (&raw const (*ops).op).read_volatile() };
    if (op == ACTIVE_ESTABLISHED || op == TCP_CONNECT)
        && let Some((local, remote)) = ends(ops)
    {
        // SAFETY: the context is valid.
        let cookie = unsafe { bpf_get_socket_cookie(ops.cast()) };
        if op == TCP_CONNECT {
            report_redirect(cookie, local, remote);
        } else {
            tunnel::established(cookie, local, remote, &Maps);
        }
    }
    GO_ON
}

/// Reports a connection that the connect hook sent elsewhere, once.
#[inline(always)]
fn report_redirect(cookie: u64, local: End, remote: End) {
    let Some(asked) = Maps.asked(cookie) else { return };
    let there = End { addr: asked.gateway, port: asked.gateway_port };
    if asked.reported != 0 || there != remote {
        return;
    }
    if let Some(entry) = ORIGINAL_DST.get_ptr_mut(cookie) {
        // SAFETY: as in `set_recorded`.
        unsafe { (&raw mut (*entry).reported).write_volatile(1) };
    }
    redirected(&asked, local);
}

/// Both ends of the connection, as packets have them. A socket for IPv6 that has dialled a mapped
/// address has mapped addresses on both sides.
#[inline(always)]
fn ends(ops: *mut bpf_sock_ops) -> Option<(End, End)> {
    // All is read whatever the family. In branches the compiler merges the reads of both families into
    // one through a computed pointer, which the verifier refuses, even if they are volatile.
    // SAFETY: as in `sock_ops`; fields of the other family may be read, and say nothing.
    let (family, local_port, remote_port, local_v4, remote_v4, local_v6, remote_v6) = unsafe {
        (
            (&raw const (*ops).family).read_volatile(),
            (&raw const (*ops).local_port).read_volatile(),
            (&raw const (*ops).remote_port).read_volatile(),
            (&raw const (*ops).local_ip4).read_volatile(),
            (&raw const (*ops).remote_ip4).read_volatile(),
            read_addr6!((*ops).local_ip6),
            read_addr6!((*ops).remote_ip6),
        )
    };
    let (local, remote) = match family {
        AF_INET => (Addr::v4(local_v4.to_ne_bytes()), Addr::v4(remote_v4.to_ne_bytes())),
        AF_INET6 => (local_v6, remote_v6),
        _ => return None,
    };
    // The local port is in host byte order; the remote one is the last half of a word in network
    // byte order.
    let local_port = PortBe::new(u16::try_from(local_port).ok()?);
    let [_, _, high, low] = remote_port.to_ne_bytes();
    let remote_port = PortBe([high, low]);
    Some((End { addr: local, port: local_port }, End { addr: remote, port: remote_port }))
}

impl TunnelTable for Maps {
    #[inline(always)]
    fn time(&self) -> u64 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn listener(&self) -> Tunnel {
        TUNNEL.get(0).copied().unwrap_or(Tunnel::NONE)
    }

    #[inline(always)]
    fn node_network(&self) -> u64 {
        NODE_NETWORK.load()
    }

    #[inline(always)]
    fn put_record(&self, key: &TunneledKey, record: &Tunneled) {
        // A failure leaves the connection without a record, which resets it.
        let _reset = TUNNELED.insert(key, record, 0);
    }

    #[inline(always)]
    fn asked(&self, cookie: u64) -> Option<OriginalDst> {
        // SAFETY: the socket is in the middle of a connect, which wrote the entry before.
        unsafe { ORIGINAL_DST.get(cookie) }.copied()
    }

    #[inline(always)]
    fn set_recorded(&self, cookie: u64) {
        let Some(entry) = ORIGINAL_DST.get_ptr_mut(cookie) else { return };
        // SAFETY: the pointer is to the map's value, which stays memory of that kind even if the
        // entry is forgotten meanwhile.
        unsafe { (&raw mut (*entry).hop).write_volatile(hop::RECORDED) };
    }

    #[inline(always)]
    fn add_record(&self, key: &TunneledKey, record: &Tunneled) -> bool {
        TUNNELED.insert(key, record, ONLY_NEW).is_ok()
    }

    #[inline(always)]
    fn record(&self, key: &TunneledKey) -> Option<Tunneled> {
        // SAFETY: an entry is written whole; what changes later is one word.
        unsafe { TUNNELED.get(key) }.copied()
    }

    #[inline(always)]
    fn contest(&self, key: &TunneledKey) {
        let Some(entry) = TUNNELED.get_ptr_mut(key) else { return };
        // SAFETY: as in `set_recorded`.
        unsafe { (&raw mut (*entry).contested).write_volatile(1) };
    }

    #[inline(always)]
    fn take_place(&self, cgroup: u64, record: &TunneledPlace) -> Option<TunneledPlace> {
        let scope = FlowPlace { scope: cgroup, index: 0, class: FlowPlace::TUNNELED };
        let index = self.next_turn(&scope) % capacity::TUNNELED_SHARE;
        let place = FlowPlace { index, ..scope };
        // SAFETY: an entry may be replaced while it is read; then what is read is either of the two.
        let before = unsafe { TUNNELED_PLACES.get(place) }.copied();
        let _full = TUNNELED_PLACES.insert(place, record, 0);
        before
    }

    #[inline(always)]
    fn remove_record(&self, key: &TunneledKey) {
        // It may be gone already.
        let _gone = TUNNELED.remove(key);
    }
}
