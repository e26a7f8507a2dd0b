//! `capture`: every TCP port of the gateway's addresses to its capture listener.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sk_lookup, sk_action::SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use egress_ebpf::{
    abi::{CAPTURE_EVERY_ADDRESS, capture_socket},
    addr::{Addr, PortBe},
};

use super::context::read_addr6;
use super::maps::{CAPTURE_ADDRESSES, CAPTURE_EXCLUDED, CAPTURE_SOCKETS};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
const DNS: u32 = 53;

/// Gives a TCP connection to a captured address and port to the capture listener; everything else
/// goes where the kernel's own look-up leads. The accepted socket's local port is the port that
/// was dialled. Minimum kernel version: 5.9.
#[sk_lookup]
fn capture(context: SkLookupContext) -> u32 {
    if let Some(socket) = wanted(&context) {
        // Without a listener in the map (the gateway has stopped) the kernel's look-up goes on and
        // finds nothing: the client sees a reset, never another service.
        let _without_listener = CAPTURE_SOCKETS.redirect_sk_lookup(&context, socket, 0);
    }
    SK_PASS
}

/// The listener that shall have this connection.
#[inline(always)]
fn wanted(context: &SkLookupContext) -> Option<u32> {
    let lookup = context.as_ptr().cast::<bpf_sk_lookup>();
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    let (family, protocol, port) =
        unsafe { ((*lookup).family, (*lookup).protocol, (*lookup).local_port) };
    if protocol != IPPROTO_TCP {
        return None;
    }
    // A name server on this host's own address, which this host itself asks: to an own address the
    // kernel dials from that very address. What comes from elsewhere is captured on this port, too.
    if port == DNS && ((family == AF_INET && is_own_v4(lookup)) || is_own_v6(lookup, family)) {
        return None;
    }
    let (addr, socket) = match family {
        AF_INET => {
            // Volatile, or the compiler merges this read with the other family's into one through
            // a computed pointer, which the verifier refuses.
            // SAFETY: as above.
            let octets = unsafe { (&raw const (*lookup).local_ip4).read_volatile() }.to_ne_bytes();
            (Addr::v4(octets), capture_socket::V4)
        }
        AF_INET6 => {
            // SAFETY: as above.
            (unsafe { read_addr6!((*lookup).local_ip6) }, capture_socket::V6)
        }
        _ => return None,
    };
    // `local_port` is in host byte order, unlike the other hooks' ports.
    let port = PortBe::new(u16::try_from(port).ok()?);
    if addr.is_loopback() || listed(&CAPTURE_EXCLUDED, port) {
        return None;
    }
    (listed(&CAPTURE_ADDRESSES, addr) || listed(&CAPTURE_ADDRESSES, CAPTURE_EVERY_ADDRESS))
        .then_some(socket)
}

#[inline(always)]
fn listed<K>(map: &aya_ebpf::maps::HashMap<K, u32>, key: K) -> bool {
    map.get_ptr(key).is_some()
}

/// Whether both ends have the same IPv4 address. A function of its own, or the compiler merges its reads
/// with the other family's.
#[inline(never)]
fn is_own_v4(lookup: *mut bpf_sk_lookup) -> bool {
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    unsafe {
        (&raw const (*lookup).local_ip4).read_volatile()
            == (&raw const (*lookup).remote_ip4).read_volatile()
    }
}

/// The same of IPv6.
#[inline(never)]
fn is_own_v6(lookup: *mut bpf_sk_lookup, family: u32) -> bool {
    if family != AF_INET6 {
        return false;
    }
    // SAFETY: as above.
    unsafe { read_addr6!((*lookup).local_ip6) == read_addr6!((*lookup).remote_ip6) }
}
