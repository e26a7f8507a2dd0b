//! What the hooks' contexts hold, as types of the library.
use egress_ebpf::addr::Addr;

/// An IPv6 address from a context's four words in network byte order.
#[inline(always)]
pub(crate) fn addr6(words: [u32; 4]) -> Addr {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    let mut octets = [0; 16];
    for (into, word) in octets.chunks_exact_mut(4).zip([a, b, c, d]) {
        into.copy_from_slice(&word);
    }
    Addr::v6(octets)
}
