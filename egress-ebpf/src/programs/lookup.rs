//! `node_lookup`: who asks the node's own sockets.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_sk_lookup,
        sk_action::{SK_DROP, SK_PASS},
    },
    macros::sk_lookup,
    programs::SkLookupContext,
};
use egress_ebpf::{
    abi::hook,
    addr::{Addr, PortBe},
    hooks,
    packet::Flow,
    verdict::TC_NEXT,
};

use super::{
    context::read_addr6,
    report::{Cause, Site, report},
    view::{Maps, share_of_interface},
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// What looks for a socket in the node's network namespace. Minimum kernel version: 5.17, for the interface.
#[sk_lookup]
fn node_lookup(context: SkLookupContext) -> u32 {
    let lookup = context.as_ptr().cast::<bpf_sk_lookup>();
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    let ifindex = unsafe { (*lookup).ingress_ifindex };
    let Some(flow) = asked(lookup) else { return SK_PASS };
    let Some(judgement) = hooks::node(flow, ifindex, &Maps) else { return SK_PASS };
    let result = if judgement.tc() == TC_NEXT { SK_PASS } else { SK_DROP };
    report(Site { hook: hook::POD, cgroup: 0, ifindex }, &judgement, || {
        Cause::packet(share_of_interface(ifindex))
    });
    result
}

/// What is asked for: the source is who asks.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a protocol and a port")]
fn asked(lookup: *mut bpf_sk_lookup) -> Option<Flow> {
    let mut ends = [Addr::UNSPECIFIED; 2];
    // SAFETY: as above.
    match unsafe { (*lookup).family } {
        AF_INET => ends_v4(lookup, &mut ends),
        AF_INET6 => ends_v6(lookup, &mut ends),
        _ => return None,
    }
    let [source, destination] = ends;
    // SAFETY: as above. The remote's port is in network byte order, the local one isn't.
    let (protocol, source_port, destination_port) = unsafe {
        (
            (*lookup).protocol as u8,
            PortBe::new(u16::from_be((*lookup).remote_port)),
            PortBe::new((*lookup).local_port as u16),
        )
    };
    Some(Flow { source, destination, source_port, destination_port, protocol, fragment: false })
}

/// Who asks, and whom. A function of its own, or the compiler merges its reads with the other family's into some through
/// a computed pointer, which the verifier refuses.
#[inline(never)]
fn ends_v4(lookup: *mut bpf_sk_lookup, ends: &mut [Addr; 2]) {
    // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
    let (remote, local) = unsafe {
        (
            (&raw const (*lookup).remote_ip4).read_volatile(),
            (&raw const (*lookup).local_ip4).read_volatile(),
        )
    };
    *ends = [remote, local].map(|address| Addr::v4(address.to_ne_bytes()));
}

/// The same of IPv6.
#[inline(never)]
fn ends_v6(lookup: *mut bpf_sk_lookup, ends: &mut [Addr; 2]) {
    // SAFETY: as above.
    *ends = unsafe { [read_addr6!((*lookup).remote_ip6), read_addr6!((*lookup).local_ip6)] };
}
