//! Packets read by functions that the verifier checks by themselves, once: see [`judge`](super::judge).
//!
//! What they find they write where their caller says, on its stack. Minimum kernel version: 5.12. The
//! verifier takes what is there then for anything, so no path goes on once for each kind of packet.

use core::{mem, ptr};

use aya_ebpf::bindings::__sk_buff;
use egress_ebpf::{
    addr::Addr,
    packet::{
        ArpSpeaker, Bytes, Ethernet, Flow, Packet, Reader, Room, arp, ether_type, final_packet,
        quotes_own, subject,
    },
    reason::Reason,
};

use super::{
    context::Skb,
    offload::{Frame, Leaving, Sent},
};

impl Reader for Frame {
    #[inline(always)]
    fn packet<'a>(
        &self,
        offset: u32,
        ether_type: u16,
        is_suspect: bool,
        room: &'a mut Room,
    ) -> &'a Packet {
        let (skb, suspect) = (self.0.0, u64::from(is_suspect));
        match ether_type {
            ether_type::IPV4 if offset == IN_FRAME => {
                Words::fill(room, |room| read_frame_v4(skb, suspect, room));
            }
            ether_type::IPV6 if offset == IN_FRAME => {
                Words::fill(room, |room| read_frame_v6(skb, suspect, room));
            }
            _ => room.packet = Packet::OTHER,
        }
        &room.packet
    }

    #[inline(always)]
    fn arp(&self, offset: u32, sender: [u8; 6]) -> Result<ArpSpeaker, Reason> {
        if offset == IN_FRAME {
            speaker(read_frame_arp(self.0.0, hardware(sender)))
        } else {
            Err(Reason::Malformed)
        }
    }

    #[inline(always)]
    fn quotes_own(&self, offset: u32, flow: &Flow) -> bool {
        let ends = Ends::new(flow.source, flow.destination);
        offset == IN_FRAME && read_frame_quote(self.0.0, &raw const ends) != 0
    }
}

impl Reader for Leaving {
    #[inline(always)]
    fn packet<'a>(
        &self,
        offset: u32,
        ether_type: u16,
        is_suspect: bool,
        room: &'a mut Room,
    ) -> &'a Packet {
        let (skb, suspect) = (self.0.0, u64::from(is_suspect));
        match ether_type {
            ether_type::IPV4 if offset == IN_FRAME => {
                Words::fill(room, |room| read_leaving_v4(skb, suspect, room));
            }
            ether_type::IPV6 if offset == IN_FRAME => {
                Words::fill(room, |room| read_leaving_v6(skb, suspect, room));
            }
            _ => room.packet = Packet::OTHER,
        }
        &room.packet
    }

    #[inline(always)]
    fn arp(&self, offset: u32, sender: [u8; 6]) -> Result<ArpSpeaker, Reason> {
        if offset == IN_FRAME {
            speaker(read_leaving_arp(self.0.0, hardware(sender)))
        } else {
            Err(Reason::Malformed)
        }
    }

    #[inline(always)]
    fn subject<'a>(
        &self,
        offset: u32,
        destination: &Addr,
        room: &'a mut Room,
    ) -> Option<&'a Packet> {
        let ends = Ends::new(Addr::UNSPECIFIED, *destination);
        let fill = |room| read_leaving_subject(self.0.0, &raw const ends, room);
        (offset == IN_FRAME && Words::fill(room, fill)).then_some(&room.packet)
    }
}

impl Reader for Sent {
    #[inline(always)]
    fn packet<'a>(
        &self,
        offset: u32,
        ether_type: u16,
        is_suspect: bool,
        room: &'a mut Room,
    ) -> &'a Packet {
        let (skb, suspect) = (self.0.0, u64::from(is_suspect));
        match ether_type {
            ether_type::IPV4 if offset == BARE => {
                Words::fill(room, |room| read_sent_v4(skb, suspect, room));
            }
            ether_type::IPV6 if offset == BARE => {
                Words::fill(room, |room| read_sent_v6(skb, suspect, room));
            }
            _ => room.packet = Packet::OTHER,
        }
        &room.packet
    }

    #[inline(always)]
    fn quotes_own(&self, offset: u32, flow: &Flow) -> bool {
        let ends = Ends::new(flow.source, flow.destination);
        offset == BARE && read_sent_quote(self.0.0, &raw const ends) != 0
    }
}

/// Where a packet begins in a frame, and in a packet of a socket. Each function reads at one of these: the
/// verifier must know the number.
const IN_FRAME: u32 = Ethernet::LENGTH;
const BARE: u32 = 0;

/// A [`Room`], as the verifier knows it.
#[repr(C)]
pub(crate) struct Words([u64; WORDS]);

const WORDS: usize = 8;
const _: () = {
    assert!(size_of::<Room>() == size_of::<Words>());
    assert!(align_of::<Room>() == align_of::<Words>());
};

impl Words {
    /// Lets a function fill a room; whether it did. All of it is written before, as older verifiers want it
    /// to be before a function gets its address; volatile, or the compiler might leave that out.
    #[inline(always)]
    fn fill(room: &mut Room, fill: impl FnOnce(*mut Self) -> u64) -> bool {
        let words: *mut u64 = ptr::from_mut(room).cast();
        macro_rules! clear {
            ($($word:literal)*) => {
                // SAFETY: the room has these words.
                $(unsafe { words.add($word).write_volatile(0) };)*
            };
        }
        clear!(0 1 2 3 4 5 6 7);
        let is_filled = fill(words.cast()) != 0;
        if !is_filled {
            room.packet = Packet::UNREADABLE;
        }
        is_filled
    }

    /// A packet that is in a room: all that the programs judge are.
    #[inline(always)]
    pub(super) const fn of(packet: &Packet) -> *const Self {
        ptr::from_ref(packet).cast()
    }

    /// The packet in a room, that the caller's verifier has seen to be there.
    #[inline(always)]
    pub(super) const fn packet<'a>(room: *const Self) -> Option<&'a Packet> {
        // SAFETY: the pointer is null or to a room with a packet, which is on the caller's stack as long as
        // the function runs.
        unsafe { room.cast::<Packet>().as_ref() }
    }

    /// Puts a packet there.
    #[inline(always)]
    fn put(to: *mut Self, packet: Packet) -> u64 {
        if to.is_null() {
            return 0;
        }
        // SAFETY: the pointer is to a room of the caller's.
        unsafe { to.cast::<Packet>().write(packet) };
        1
    }
}

/// Two addresses.
#[repr(C)]
pub(crate) struct Ends([u32; 8]);

impl Ends {
    #[inline(always)]
    pub(super) const fn new(source: Addr, destination: Addr) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (source.words(), destination.words());
        Self([a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    pub(super) const fn addresses(&self) -> [Addr; 2] {
        let [a, b, c, d, e, f, g, h] = self.0;
        [Addr::from_words([a, b, c, d]), Addr::from_words([e, f, g, h])]
    }
}

/// Puts the packet of this version at `offset` into the room.
#[inline(always)]
fn put(bytes: &impl Bytes, offset: u32, ether_type: u16, suspect: u64, to: *mut Words) -> u64 {
    // SAFETY: the pointer is to a room of the caller's with nothing but zeros, which a packet may have, or
    // null.
    let Some(packet) = (unsafe { to.cast::<Packet>().as_mut() }) else { return 0 };
    final_packet(bytes, offset, ether_type, suspect != 0, packet);
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_frame_v4(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Frame(Skb(skb)), IN_FRAME, ether_type::IPV4, suspect, to)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_frame_v6(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Frame(Skb(skb)), IN_FRAME, ether_type::IPV6, suspect, to)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_leaving_v4(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Leaving(Skb(skb)), IN_FRAME, ether_type::IPV4, suspect, to)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_leaving_v6(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Leaving(Skb(skb)), IN_FRAME, ether_type::IPV6, suspect, to)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_sent_v4(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Sent(Skb(skb)), BARE, ether_type::IPV4, suspect, to)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_sent_v6(skb: *mut __sk_buff, suspect: u64, to: *mut Words) -> u64 {
    put(&Sent(Skb(skb)), BARE, ether_type::IPV6, suspect, to)
}

/// A hardware address as a number.
#[inline(always)]
const fn hardware([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Who speaks in an ARP message, as a number. From the lowest bit on: why it must not pass (8 bits, zero for
/// nothing), whether the frame's sender speaks (8), the address (from the 32nd bit on).
#[inline(always)]
fn arp_number(bytes: &impl Bytes, offset: u32, sender: u64) -> u64 {
    let [_, _, a, b, c, d, e, f] = sender.to_be_bytes();
    match arp(bytes, offset, [a, b, c, d, e, f]) {
        Ok(ArpSpeaker { addr, is_sender }) => {
            u64::from(is_sender) << 8 | u64::from(addr.words()[3]) << 32
        }
        Err(flaw) => flaw as u64,
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the bits that were put there")]
fn speaker(number: u64) -> Result<ArpSpeaker, Reason> {
    if number as u8 != 0 {
        // SAFETY: a `Reason` is one byte, and that of one was put there.
        return Err(unsafe { mem::transmute::<u8, Reason>(number as u8) });
    }
    let addr = Addr::v4(((number >> 32) as u32).to_ne_bytes());
    Ok(ArpSpeaker { addr, is_sender: number >> 8 & 1 != 0 })
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_frame_arp(skb: *mut __sk_buff, sender: u64) -> u64 {
    arp_number(&Frame(Skb(skb)), IN_FRAME, sender)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_leaving_arp(skb: *mut __sk_buff, sender: u64) -> u64 {
    arp_number(&Leaving(Skb(skb)), IN_FRAME, sender)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_leaving_subject(skb: *mut __sk_buff, ends: *const Ends, to: *mut Words) -> u64 {
    // SAFETY: the pointer is to two addresses of the caller's, or null.
    let Some(ends) = (unsafe { ends.as_ref() }) else { return 0 };
    let [_, destination] = ends.addresses();
    match subject(&Leaving(Skb(skb)), IN_FRAME, destination) {
        Some(packet) => Words::put(to, packet),
        None => 0,
    }
}

/// Whether the error at `offset` is about a packet that its destination sent to its source.
#[inline(always)]
fn is_own_quote(bytes: &impl Bytes, offset: u32, ends: *const Ends) -> u64 {
    // SAFETY: the pointer is to two addresses of the caller's, or null.
    let Some(ends) = (unsafe { ends.as_ref() }) else { return 0 };
    let [source, destination] = ends.addresses();
    quotes_own(bytes, offset, source, destination).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_frame_quote(skb: *mut __sk_buff, ends: *const Ends) -> u64 {
    is_own_quote(&Frame(Skb(skb)), IN_FRAME, ends)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_sent_quote(skb: *mut __sk_buff, ends: *const Ends) -> u64 {
    is_own_quote(&Sent(Skb(skb)), BARE, ends)
}
