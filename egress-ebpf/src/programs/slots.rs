//! Which slot an interface has, and which interface has a slot: [`Slot`].
//!
//! Looked up for every packet, so without a hash table for all interfaces that have the slot of their home.

use egress_ebpf::{
    abi::{PodAddress, PodPort, PolicyId, Slot, capacity, note},
    addr::Addr,
};

use super::{
    context::Skb,
    maps::{MOVED_SLOTS, POD_ADDRESSES, SLOTS},
};

/// A slot, and whose it was when it was looked at.
struct Held {
    slot: *const Slot,
    ifindex: u32,
    policy: PolicyId,
}

impl Held {
    /// The slot of a number. Interface and policy are read at once: the agent may be about to write them.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    fn at(number: u32) -> Option<Self> {
        let slot = SLOTS.get_ptr(number)?;
        // SAFETY: the pointer is to the map's value, which begins with these two and is aligned to 8 bytes.
        let word = unsafe { slot.cast::<u64>().read_volatile() };
        // The machine of the programs is little-endian (`bpfel`).
        Some(Self { slot, ifindex: word as u32, policy: (word >> 32) as u32 })
    }

    /// The slot of an interface.
    #[inline(always)]
    fn of(ifindex: u32) -> Option<Self> {
        Self::at(number(ifindex)).filter(|held| ifindex != 0 && held.ifindex == ifindex)
    }
}

/// The number of the slot that an interface has, if it has one.
#[inline(always)]
fn number(ifindex: u32) -> u32 {
    let home = Slot::home(ifindex);
    match Held::at(home) {
        Some(held) if held.ifindex == ifindex => home,
        _ => moved(ifindex),
    }
}

/// The number of the slot that an interface has elsewhere; one that is no slot's if it has none. A function that
/// the verifier checks by itself: see [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn moved(ifindex: u32) -> u32 {
    // SAFETY: values are one word, which is never changed.
    unsafe { MOVED_SLOTS.get(ifindex) }.copied().unwrap_or(capacity::SLOTS)
}

/// The pod behind an interface.
#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<PodPort> {
    let Held { slot, policy, .. } = Held::of(ifindex)?;
    // SAFETY: the pointer is to the map's value, whose second word is the hardware address with its `check`. They
    // are read at once, as in `Held::at`.
    let word = unsafe { slot.cast::<u64>().add(1).read_volatile() };
    let [a, b, c, d, e, f, low, high] = word.to_le_bytes();
    Some(PodPort { policy, hardware: [a, b, c, d, e, f], check: u16::from_le_bytes([low, high]) })
}

/// Whether a packet on an interface may have this source, or a workload's socket for interface zero. A function
/// that the verifier checks by itself: see [`judge`](super::judge).
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
pub(super) extern "C" fn owns_address(first: u64, last: u64, ifindex: u32) -> u64 {
    let words = [first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32];
    let addr = Addr::from_words(words);
    if ifindex != 0 {
        let Some(Held { slot, .. }) = Held::of(ifindex) else { return 0 };
        // SAFETY: the pointer is to the map's value. An address may be read while the agent writes it: then what is
        // read is none, or half of one, which the pod is given or has lost this moment.
        let slot = unsafe { &*slot };
        if slot.holds(&addr) {
            return 1;
        }
        if slot.further == 0 {
            return 0;
        }
    }
    POD_ADDRESSES.get_ptr(PodAddress { ifindex, addr }).is_some().into()
}

/// Whether the agent knows the interface, and that it is no pod's.
#[inline(always)]
pub(super) fn is_forwarder(ifindex: u32) -> bool {
    POD_ADDRESSES.get_ptr(PodAddress::forwarder(ifindex)).is_some()
}

/// Leaves a note on the packet about the pod's interface that it came in on, for the program on the uplink: bridges
/// and address translation leave `tc_index` alone.
#[inline(always)]
pub(crate) fn note_pod(skb: Skb, ifindex: u32) {
    let number = number(ifindex);
    skb.set_tc_index(if number < capacity::SLOTS { note::of(number) } else { note::NONE });
}

/// Leaves a note on a packet that came to a bridge of pods, if it has none of a pod's: it came from nobody who is
/// known.
#[inline(always)]
pub(crate) fn note_unknown(skb: Skb) {
    if noted_pod(skb) == 0 {
        skb.set_tc_index(note::UNKNOWN);
    }
}

/// Whether that note is on a packet.
#[inline(always)]
pub(crate) fn came_by_unknown_port(skb: Skb) -> bool {
    skb.tc_index() == note::UNKNOWN
}

/// The pod's interface that the note names; zero for none. Whether the note is to be believed is another matter: see
/// [`believed_pod`](super::maker::believed_pod).
#[inline(always)]
pub(crate) fn noted_pod(skb: Skb) -> u32 {
    note::slot(skb.tc_index()).and_then(Held::at).map_or(0, |held| held.ifindex)
}
