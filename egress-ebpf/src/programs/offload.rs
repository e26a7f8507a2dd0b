//! Packets as they are judged: bytes that nobody changes afterwards, and what the kernel is yet to do
//! to them, which `__sk_buff` doesn't tell.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{bpf_skb_pull_data, generated::bpf_probe_read_kernel},
};
use egress_ebpf::{
    addr::Addr,
    packet::{Bytes, offload::Offload},
};

use super::context::Skb;

/// Where the kernel keeps what in `struct sk_buff`. The agent takes these from the kernel's own
/// description (BTF) before loading. As long as nobody has said so, every packet is refused.
#[unsafe(no_mangle)]
static SKB_KNOWN: Global<u8> = Global::new(0);
/// Where the byte with `ip_summed` is, and where in it.
#[unsafe(no_mangle)]
static SKB_SUMMED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_SUMMED_BIT: Global<u32> = Global::new(0);
/// How many bytes later the one with `encapsulation` is, and where in it.
#[unsafe(no_mangle)]
static SKB_ENCAPSULATION: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_ENCAPSULATION_BIT: Global<u32> = Global::new(0);
/// How many bytes after the one with `ip_summed` is `csum_start`; `csum_offset` follows it.
#[unsafe(no_mangle)]
static SKB_CSUM: Global<u32> = Global::new(0);
/// Where `head` is; `data` follows it.
#[unsafe(no_mangle)]
static SKB_HEAD: Global<u32> = Global::new(0);

/// Bytes that hold all that is read around `ip_summed`; a power of two.
const FLAGS: usize = 16;

/// Bytes that nearly every verdict reads, and that are linear in nearly every frame: Ethernet, IPv6, TCP. For
/// IPv4, too: what kind of packet it is the frame says, while the kernel goes by what the sender of a packet
/// socket has said.
const HEADERS: u32 = 14 + 40 + 20;

/// A frame in a tc program. What is read of it is in the linear area, which is the kernel's own
/// memory: the pages of a packet socket's ring (`PACKET_TX_RING`) are its owner's, who could write
/// another address there when the frame has been judged.
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(super) Skb);

impl Frame {
    /// Brings in what may be read and isn't there yet. What can't be brought in can't be read, so it
    /// doesn't pass. Minimum kernel version: 4.9.
    #[inline(always)]
    pub(crate) fn new(skb: Skb) -> Self {
        bring(skb, HEADERS);
        Self(skb)
    }
}

/// Copies bytes of a packet in a tc program to the kernel's own memory, where they are not there yet.
#[inline(always)]
fn bring(skb: Skb, length: u32) {
    let length = length.min(skb.length());
    if !skb.is_linear(length as usize) {
        // SAFETY: the context is valid. A failure leaves less to read.
        let _less = unsafe { bpf_skb_pull_data(skb.0, length) };
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load_linear(offset)
    }

    #[inline(always)]
    fn load_addr(&self, offset: u32) -> Option<Addr> {
        self.0.load_linear_addr(offset)
    }

    #[inline(always)]
    fn pull(&self, length: u32) {
        bring(self.0, length);
    }

    #[inline(always)]
    fn offload(&self) -> Offload {
        offload(self.0)
    }

    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        self.0.verifier_barrier(value)
    }
}

/// A packet that a socket sends, in a `cgroup_skb` program. Its headers are in the kernel's own memory,
/// and what lies further behind is read wherever it is: these programs can copy nothing. A tc program sees
/// it once more.
#[derive(Clone, Copy)]
pub(crate) struct Sent(pub(crate) Skb);

/// A packet that leaves the node, in a tc program. The headers that a verdict is about are copied to the
/// kernel's own memory; what lies further behind is read wherever it is.
#[derive(Clone, Copy)]
pub(crate) struct Leaving(pub(super) Skb);

impl Leaving {
    #[inline(always)]
    pub(crate) fn new(skb: Skb) -> Self {
        bring(skb, HEADERS);
        Self(skb)
    }
}

impl Bytes for Leaving {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    #[inline(always)]
    fn load_addr(&self, offset: u32) -> Option<Addr> {
        self.0.load_addr(offset)
    }

    #[inline(always)]
    fn pull(&self, length: u32) {
        bring(self.0, length);
    }

    #[inline(always)]
    fn offload(&self) -> Offload {
        offload(self.0)
    }

    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        self.0.verifier_barrier(value)
    }
}

impl Bytes for Sent {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    #[inline(always)]
    fn load_addr(&self, offset: u32) -> Option<Addr> {
        self.0.load_addr(offset)
    }

    #[inline(always)]
    fn offload(&self) -> Offload {
        offload(self.0)
    }

    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        self.0.verifier_barrier(value)
    }
}

/// What is still done to the packet, by arithmetic alone: see [`Offload`]. Minimum kernel version:
/// 5.8, for reading the kernel's memory.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "zero or all ones; and a distance in one buffer, whose low half is what counts"
)]
fn offload(skb: Skb) -> Offload {
    if SKB_KNOWN.load() == 0 {
        return Offload::UNKNOWN;
    }
    let (mut flags, mut ends) = ([0_u8; FLAGS], [0_u64; 2]);
    let failed = read(skb, SKB_SUMMED.load(), &mut flags) | read(skb, SKB_HEAD.load(), &mut ends);
    // All ones for a failure, whose number is negative.
    let failed = (failed >> 63) as u32;
    let [head, data] = ends;
    let at = |byte: u32| flags[byte as usize % FLAGS];
    let half = |byte: u32| u32::from(u16::from_ne_bytes([at(byte), at(byte.wrapping_add(1))]));
    let summed = u32::from(flags[0] >> (SKB_SUMMED_BIT.load() & 7));
    // Both bits: CHECKSUM_PARTIAL is 3 (`include/linux/skbuff.h`).
    let partial = (summed & summed >> 1 & 1).wrapping_neg();
    let tunnel = at(SKB_ENCAPSULATION.load()) >> (SKB_ENCAPSULATION_BIT.load() & 7) & 1;
    let csum = SKB_CSUM.load();
    // `skb_checksum_start_offset`: it is kept from the start of the buffer.
    let headroom = data.wrapping_sub(head) as u32;
    Offload {
        partial: partial | failed,
        start: half(csum).wrapping_sub(headroom) | failed,
        field: half(csum.wrapping_add(2)) | failed,
        encapsulated: u32::from(tunnel).wrapping_neg(),
    }
}

/// Reads a field of the packet's own structure: what a context of these programs points to. A negative
/// number says that it failed.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "some bytes")]
fn read<T>(skb: Skb, field: u32, to: &mut T) -> i64 {
    let address = (skb.0 as usize).wrapping_add(field as usize) as *const c_void;
    let to: *mut T = to;
    // SAFETY: the helper copies from any address, and answers an error for one that can't be read;
    // `to` is as long as is said, and any bytes are a value of the arrays that are read.
    unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, address) }
}
