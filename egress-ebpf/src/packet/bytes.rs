//! The bytes of a packet, and what is still done to them.

use crate::addr::Addr;

/// What is still done to a packet. Whether is a mask, all ones or zero, so that a verdict is found
/// without a path of its own for each value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offload {
    /// Whether a checksum is yet to be filled in (`CHECKSUM_PARTIAL`).
    pub partial: u32,
    /// Where the sum begins, from the first byte that [`Bytes`] reads.
    pub start: u32,
    /// Where it is written, from there.
    pub field: u32,
    /// Whether the kernel itself takes it for a packet in a packet (`skb->encapsulation`), whatever
    /// its ports: segmentation would change what is inside.
    pub encapsulated: u32,
}

impl Offload {
    /// Nothing.
    pub const NONE: Self = Self { partial: 0, start: 0, field: 0, encapsulated: 0 };
    /// It can't be told what, so it is nowhere where it may be.
    pub const UNKNOWN: Self =
        Self { partial: u32::MAX, start: u32::MAX, field: u32::MAX, encapsulated: 0 };
}

/// Bytes that may end anywhere, and may refuse to be read.
pub trait Bytes {
    /// How many there are.
    fn length(&self) -> u32;
    /// The `N` bytes from `offset`, or `None` where there aren't as many.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The IPv6 address at `offset`, or `None` where it isn't whole.
    #[inline(always)]
    fn load_addr(&self, offset: u32) -> Option<Addr> {
        self.load(offset).map(Addr::v6)
    }

    /// Makes what may be read readable, up to this length, where somebody else could still change it.
    #[inline(always)]
    fn pull(&self, _length: u32) {}

    /// What is still done to the packet after the last program has seen it.
    #[inline(always)]
    fn offload(&self) -> Offload {
        Offload::NONE
    }

    /// The value, of one byte, with all forgotten that is known about it.
    ///
    /// The kernel's verifier goes on once for each value that it can tell apart. Where paths meet
    /// again, every packet that was read and every reason that was found would have a path of its
    /// own to the end of the program, so there it is made to forget.
    #[inline(always)]
    fn verifier_barrier<T: Copy>(&self, value: T) -> T {
        value
    }

    /// The same for a word.
    #[inline(always)]
    fn forget_word(&self, value: u32) -> u32 {
        value
    }
}

impl Bytes for &[u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.get(offset..)?.first_chunk().copied()
    }
}
