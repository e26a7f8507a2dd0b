//! Who made a packet that leaves by an uplink: which network namespace, and whether a process.

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, bpf_sock},
    helpers::{bpf_probe_read_kernel, bpf_sk_fullsock},
};
use egress_ebpf::hooks::{Namespace, Socket};

use super::{
    context::Skb,
    kernel::{HOST_NETNS, NET_INUM, read},
    slots::noted_pod,
};

/// Where the kernel keeps what, as in [`super::kernel`].
#[unsafe(no_mangle)]
static SKB_SK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_DST: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static DST_DEV: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static DEV_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_SOCKET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCKET_FILE: Global<u32> = Global::new(0);

/// Kinds of sockets (`include/linux/net.h`) that no kernel's control socket is of.
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// States of a TCP socket (`include/net/tcp_states.h`) in which the other end hasn't proven that it
/// is there: a server's, and that of a connection with data in its SYN (TCP fast open).
const SYN_RECV: u32 = 3;
const LISTEN: u32 = 10;
const NEW_SYN_RECV: u32 = 12;
/// No namespace has this number. Not an `Option`: of the payload of `None` the compiler leaves a register unset, which
/// the verifier refuses.
const UNKNOWN: u32 = 0;
/// A packet's route may be borrowed (`SKB_DST_NOREF`).
const BORROWED: u64 = 1;

/// Who made a packet.
#[derive(Clone, Copy)]
pub(crate) struct Maker {
    pub(crate) namespace: Namespace,
    pub(crate) socket: Socket,
}

impl Maker {
    /// Nobody who is known.
    pub(crate) const NOBODY: Self = Self { namespace: Namespace::Other, socket: Socket::None };

    /// Of a packet that didn't come in. Minimum kernel version: 5.1; with the namespace, 5.8 and the
    /// kernel's description of its types (BTF).
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Self {
        let number = maker(skb.0);
        let namespace = if number & NODE != 0 { Namespace::Node } else { Namespace::Other };
        let socket = if number & PROCESS != 0 { Socket::Process } else { Socket::None };
        Self { namespace, socket }
    }

    /// Of a packet that came in by some interface: who forwards it. Minimum kernel version: 5.8, with
    /// the kernel's description of its types (BTF).
    #[inline(always)]
    pub(crate) fn forwarder(skb: Skb) -> Self {
        let is_node = forwards(skb.0) != 0;
        let namespace = if is_node { Namespace::Node } else { Namespace::Other };
        Self { namespace, socket: Socket::None }
    }

    #[inline(always)]
    fn find(skb: Skb) -> Self {
        let full = full_socket(skb);
        let Some(address) = address(skb) else {
            return Self::NOBODY;
        };
        let sock: u64 = read(address, SKB_SK.load()).unwrap_or(0);
        let socket = match full {
            Some(kind) if kind.is_ordinary() || (kind.is_other() && has_file(sock)) => {
                Socket::Process
            }
            _ => Socket::None,
        };
        let by_socket = if sock == 0 { UNKNOWN } else { netns_of(sock, SOCK_NET.load()) };
        let by_route = if socket == Socket::Process { UNKNOWN } else { netns_of_route(address) };
        Self { namespace: namespace(by_socket, by_route), socket }
    }
}

/// The pod's interface that the note on a packet at the uplink names, if the note is to be believed; zero for none.
///
/// A pod's interface may lie on the uplink (macvlan), and whoever may change that namespace's network writes any note
/// there. Our program made the note only if the node's namespace forwards the packet.
#[inline(always)]
pub(crate) fn believed_pod(skb: Skb) -> u32 {
    let pod = noted_pod(skb);
    if pod == 0 || forwards(skb.0) != 0 { pod } else { 0 }
}

// Bits of a maker's number.
const NODE: u64 = 1;
const PROCESS: u64 = 2;

/// A function that the verifier checks by itself: see [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn maker(skb: *mut __sk_buff) -> u64 {
    let Maker { namespace, socket } = Maker::find(Skb(skb));
    let node = if namespace == Namespace::Node { NODE } else { 0 };
    let process = if socket == Socket::Process { PROCESS } else { 0 };
    node | process
}

/// Whether the node's network namespace forwards the packet. A function that the verifier checks by itself: see
/// [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forwards(skb: *mut __sk_buff) -> u64 {
    let Some(address) = address(Skb(skb)) else { return 0 };
    let sock: u64 = read(address, SKB_SK.load()).unwrap_or(0);
    let by_socket = if sock == 0 { UNKNOWN } else { netns_of(sock, SOCK_NET.load()) };
    (namespace(by_socket, netns_of_route(address)) == Namespace::Node).into()
}

/// Which namespace it is, by the number of the socket's and of the route's. A control socket of the kernel's may
/// serve all namespaces in turn, so the route counts, too.
#[inline(always)]
fn namespace(by_socket: u32, by_route: u32) -> Namespace {
    let own = HOST_NETNS.load();
    let fits = |number| number == own || number == UNKNOWN;
    let is_known = by_socket != UNKNOWN || by_route != UNKNOWN;
    if is_known && fits(by_socket) && fits(by_route) { Namespace::Node } else { Namespace::Other }
}

/// What is known of a socket that has all its fields.
#[derive(Clone, Copy)]
struct Full {
    kind: u32,
    state: u32,
}

impl Full {
    /// TCP and UDP, with somebody at the other end or nobody yet asked.
    #[inline(always)]
    const fn is_ordinary(self) -> bool {
        let answers = matches!(self.state, SYN_RECV | LISTEN | NEW_SYN_RECV);
        match self.kind {
            SOCK_STREAM => !answers,
            SOCK_DGRAM => true,
            _ => false,
        }
    }

    /// Raw and packet sockets and the like: the kernel has such for its own use.
    #[inline(always)]
    const fn is_other(self) -> bool {
        !matches!(self.kind, SOCK_STREAM | SOCK_DGRAM)
    }
}

#[inline(always)]
fn full_socket(skb: Skb) -> Option<Full> {
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    let socket = unsafe { (*skb.0).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the pointer is the kernel's and isn't null.
    let socket: *mut bpf_sock = unsafe { bpf_sk_fullsock(socket) };
    if socket.is_null() {
        return None;
    }
    // SAFETY: as above.
    unsafe { Some(Full { kind: (*socket).type_, state: (*socket).state }) }
}

/// Where the packet lies in the kernel, as a number: the verifier lets nobody reckon with the pointer
/// itself, but the helper reads it like anything else on the stack.
#[inline(always)]
fn address(skb: Skb) -> Option<u64> {
    let context = skb.0 as usize;
    // SAFETY: the helper copies from any address; this one is a variable.
    unsafe { bpf_probe_read_kernel((&raw const context).cast::<u64>()) }.ok()
}

/// Whether a process has the socket open: the kernel's own have no file.
#[inline(always)]
fn has_file(sock: u64) -> bool {
    let socket: Option<u64> = read(sock, SOCK_SOCKET.load());
    let file: Option<u64> =
        socket.filter(|at| *at != 0).and_then(|at| read(at, SOCKET_FILE.load()));
    file.is_some_and(|file| file != 0)
}

/// The number of the namespace that a field points to.
#[inline(always)]
fn netns_of(structure: u64, field: u32) -> u32 {
    let net: u64 = read(structure, field).unwrap_or(0);
    if net == 0 { UNKNOWN } else { read(net, NET_INUM.load()).unwrap_or(UNKNOWN) }
}

/// The number of the namespace whose route the packet takes.
#[inline(always)]
fn netns_of_route(skb: u64) -> u32 {
    let dst: u64 = read(skb, SKB_DST.load()).unwrap_or(0);
    let dst = dst & !BORROWED;
    if dst == 0 {
        return UNKNOWN;
    }
    let device: u64 = read(dst, DST_DEV.load()).unwrap_or(0);
    if device == 0 { UNKNOWN } else { netns_of(device, DEV_NET.load()) }
}
