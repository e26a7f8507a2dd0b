//! What the hooks' contexts hold, as types of the library.

mod address;

use core::mem::{self, MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes},
};
use egress_ebpf::{
    addr::Addr,
    packet::{Bytes, protocol},
};

pub(crate) use self::address::{SocketAddr, V4, V6, read_addr6};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// The kind of a frame for another host (include/uapi/linux/if_packet.h).
const PACKET_OTHERHOST: u32 = 3;

/// A packet, of which parts may lie outside the linear area, where only the kernel reads them: good
/// for taking note of it. What judges one takes a [`Frame`](super::offload::Frame) or a
/// [`Sent`](super::offload::Sent).
#[derive(Clone, Copy)]
pub(crate) struct Skb(pub(crate) *mut __sk_buff);

/// Aligned, so that the compiler may read words out of it.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

impl Bytes for Skb {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the kernel gives a valid context, and the verifier checks each access to it.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<Aligned<N>>::uninit();
        if let Some(at) = self.linear(offset, N) {
            // SAFETY: `N` bytes are at `at`, and the buffer is as long.
            unsafe { copy_words::<N>(at, bytes.as_mut_ptr().cast()) };
        } else {
            let length = u32::try_from(N).ok()?;
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the buffer is `length` bytes long and the context is valid.
            if unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, length) } != 0 {
                return None;
            }
        }
        // SAFETY: the whole buffer has been filled.
        Some(unsafe { bytes.assume_init() }.0)
    }

    #[inline(always)]
    fn load_addr(&self, offset: u32) -> Option<Addr> {
        match self.load_linear_addr(offset) {
            None => self.load(offset).map(Addr::v6),
            addr => addr,
        }
    }

    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        forget(value, self.length())
    }
}

/// A byte of which the verifier knows nothing any more; `any` is a number that it doesn't know.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "zero stays zero")]
pub(crate) fn forget<T: Copy>(value: T, any: u32) -> T {
    const { assert!(size_of::<T>() == 1, "only bytes") };
    // SAFETY: both are one byte, which an exclusive or with zero leaves as it is.
    unsafe {
        let byte: u8 = mem::transmute_copy(&value);
        let byte = byte ^ zero(any) as u8;
        mem::transmute_copy(&byte)
    }
}

/// Zero or one, of which the verifier knows nothing more.
#[inline(always)]
pub(crate) fn forget_bit(value: i32, any: u32) -> i32 {
    (value ^ zero(any).cast_signed()) & 1
}

/// Zero, as neither the compiler nor the verifier knows.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "zero stays zero")]
pub(crate) fn zero(any: u32) -> u32 {
    zero_long(any) as u32
}

/// The same with 64 bits: the verifier reckons with single bits of a number, and not with what two numbers
/// have to do with each other.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn zero_long(any: u32) -> u64 {
    let zero: u64;
    // SAFETY: it changes two registers.
    unsafe {
        core::arch::asm!(
            "{zero} = {any}",
            "{zero} ^= -1",
            "{zero} &= {any}",
            any = in(reg) u64::from(any),
            zero = out(reg) zero,
            options(pure, nomem, nostack),
        );
    }
    zero
}

/// On the host programs only compile.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub(crate) const fn zero_long(_any: u32) -> u64 {
    0
}

impl Skb {
    /// The `N` bytes from `offset`, if they are in the linear area. Most headers are, and reading them
    /// there takes a fraction of the time that the helper takes.
    #[inline(always)]
    pub(crate) fn load_linear<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let at = self.linear(offset, N)?;
        let mut bytes = MaybeUninit::<Aligned<N>>::uninit();
        // SAFETY: `N` bytes are at `at`, and the buffer is as long.
        unsafe { copy_words::<N>(at, bytes.as_mut_ptr().cast()) };
        // SAFETY: the whole buffer has been filled.
        Some(unsafe { bytes.assume_init() }.0)
    }

    /// The IPv6 address at `offset`, if it is in the linear area. By words, none of which lies in memory on the
    /// way.
    #[inline(always)]
    pub(crate) fn load_linear_addr(self, offset: u32) -> Option<Addr> {
        let at = self.linear(offset, 16)?;
        // SAFETY: as many bytes are there.
        let words =
            unsafe { [load_word(at), load_word(at + 4), load_word(at + 8), load_word(at + 12)] };
        Some(Addr::from_words(words))
    }

    /// Whether the first `length` bytes are in the linear area.
    #[inline(always)]
    pub(crate) fn is_linear(self, length: usize) -> bool {
        self.linear(0, length).is_some()
    }

    #[inline(always)]
    fn linear(self, offset: u32, length: usize) -> Option<usize> {
        // SAFETY: as in `length`; the verifier knows the two for the ends of the packet.
        let (start, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        let at = start + offset as usize;
        (at + length <= end).then_some(at)
    }
}

/// A word at any address: see [`copy_words`].
///
/// # Safety
/// Four bytes are at `from` to read, and the verifier checks it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "four bytes were read")]
unsafe fn load_word(from: usize) -> u32 {
    let word: u64;
    // SAFETY: the caller's bytes are there.
    unsafe {
        core::arch::asm!(
            "{word} = *(u32 *)({from} + 0)",
            word = out(reg) word,
            from = in(reg) from,
            options(pure, readonly, nostack),
        );
    }
    word as u32
}

/// On the host programs only compile.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
unsafe fn load_word(from: usize) -> u32 {
    // SAFETY: the caller's bytes are there to read.
    unsafe { (from as *const u32).read_unaligned() }
}

/// Copies by words: the machine can read them at any address, but the compiler, which doesn't know,
/// would read byte by byte. Without a loop, which the verifier would follow round by round, and in a way
/// that leaves the bytes in memory: each word in a place of its own is more than the stack holds.
///
/// # Safety
/// `N` bytes are at `from` to read, and the verifier checks it. As many can be written at `to`, which is
/// aligned to 8 bytes.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn copy_words<const N: usize>(from: usize, to: *mut u8) {
    macro_rules! copy {
        ($size:literal: $word:ident, $($at:literal)*) => {$(
            if $at + $size <= N && ($size == 4 || $at >= N / (2 * $size) * (2 * $size)) {
                // SAFETY: the caller's bytes are there, and `to` is as aligned as `$at` is.
                unsafe {
                    core::arch::asm!(
                        concat!("{value} = *(", stringify!($word), " *)({from} + {at})"),
                        concat!("*(", stringify!($word), " *)({to} + {at}) = {value}"),
                        value = out(reg) _,
                        from = in(reg) from,
                        to = in(reg) to,
                        at = const $at,
                        options(nostack),
                    );
                }
            }
        )*};
    }
    const { assert!(N <= 28, "longer than what is listed here") };
    copy!(4: u32, 0 4 8 12 16 20 24);
    copy!(2: u16, 0 4 8 12 16 20 24);
    copy!(1: u8, 0 2 4 6 8 10 12 14 16 18 20 22 24 26);
}

/// On the host programs only compile.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
unsafe fn copy_words<const N: usize>(from: usize, to: *mut u8) {
    // SAFETY: the caller's bytes are there to read, and its buffer is as long.
    unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to, N) };
}

impl Skb {
    /// Ethertype by the kernel's reckoning, host byte order.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        // SAFETY: as in `length`.
        let [low, high, ..] = unsafe { (*self.0).protocol }.to_le_bytes();
        // The low half holds the ethertype in network byte order.
        u16::from_be(u16::from_le_bytes([low, high]))
    }

    /// The interface that the packet is on.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // Volatile, or the compiler may merge this read with that of another field.
        // SAFETY: as in `length`.
        unsafe { (&raw const (*self.0).ifindex).read_volatile() }
    }

    /// The cookie of the socket that sent it, zero for none: veth interfaces leave the packet its socket
    /// (since Linux 4.19). Minimum kernel version: 4.12.
    #[inline(always)]
    pub(crate) fn socket_cookie(self) -> u64 {
        // SAFETY: the context is valid; the helper answers 0 where there is no socket.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    /// The cgroup of the socket that sent it, zero for none. Minimum kernel version: 4.18.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        // SAFETY: as in `socket_cookie`.
        unsafe { bpf_skb_cgroup_id(self.0) }
    }

    /// The interface that it came in on; zero if it came out of a socket of this host.
    #[inline(always)]
    pub(crate) fn came_in_on(self) -> u32 {
        // Volatile: as in `ifindex`.
        // SAFETY: as in `length`.
        unsafe { (&raw const (*self.0).ingress_ifindex).read_volatile() }
    }

    /// Leaves a note on the packet, of which 16 bits are kept.
    #[inline(always)]
    pub(crate) fn set_tc_index(self, note: u32) {
        // SAFETY: as in `length`; the field may be written in tc programs.
        unsafe { (&raw mut (*self.0).tc_index).write_volatile(note) };
    }

    /// That note; zero for none.
    #[inline(always)]
    pub(crate) fn tc_index(self) -> u32 {
        // Volatile: as in `ifindex`.
        // SAFETY: as in `length`.
        unsafe { (&raw const (*self.0).tc_index).read_volatile() }
    }

    /// The protocol of its socket, if that is an ordinary TCP or UDP socket. Minimum kernel
    /// version: 5.1.
    #[inline(always)]
    pub(crate) fn socket_protocol(self) -> Option<u8> {
        // SAFETY: as in `length`.
        let socket = unsafe { (*self.0).__bindgen_anon_2.sk };
        if socket.is_null() {
            return None;
        }
        // SAFETY: the pointer is the kernel's and isn't null.
        let socket = unsafe { bpf_sk_fullsock(socket) };
        if socket.is_null() {
            return None;
        }
        // SAFETY: as above.
        let (kind, protocol) = unsafe { ((*socket).type_, (*socket).protocol) };
        match (kind, protocol) {
            (SOCK_STREAM, 6) => Some(protocol::TCP),
            (SOCK_DGRAM, 17) => Some(protocol::UDP),
            _ => None,
        }
    }

    /// Whether a frame that came in goes to another hardware address than its interface's, and to no group.
    #[inline(always)]
    pub(crate) fn is_for_another(self) -> bool {
        // SAFETY: as in `length`.
        unsafe { (*self.0).pkt_type == PACKET_OTHERHOST }
    }

    /// Whether the kernel has taken a VLAN tag off it.
    #[inline(always)]
    pub(crate) fn has_vlan(self) -> bool {
        // SAFETY: as in `length`.
        unsafe { (*self.0).vlan_present != 0 }
    }
}
