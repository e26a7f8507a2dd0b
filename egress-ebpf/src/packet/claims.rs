//! What ARP and neighbour discovery say: whose hardware address is whose.

use super::{Bytes, Ethernet, Neighbour, ether_type, ip::IPV6, offload, transport::OPTIONS};
use crate::{addr::Addr, reason::Reason};

/// Who speaks in ARP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpSender {
    /// Its hardware address, as it says.
    pub hardware: [u8; 6],
    /// Its address, as it says; unspecified in a probe.
    pub addr: Addr,
}

/// The sender of an ARP request or reply for IPv4 over Ethernet (RFC 826); `None` for anything else.
#[inline(always)]
pub fn arp_sender(bytes: &impl Bytes, offset: u32) -> Option<ArpSender> {
    let packet = bytes.load::<28>(offset)?;
    let [0, 1, 8, 0, 6, 4, 0, 1 | 2, a, b, c, d, e, f, ..] = packet else { return None };
    let addr = Addr::v4([packet[14], packet[15], packet[16], packet[17]]);
    Some(ArpSender { hardware: [a, b, c, d, e, f], addr })
}

/// Who speaks in an ARP message that may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpSpeaker {
    /// Its address, as it says; unspecified in a probe.
    pub addr: Addr,
    /// Whether the hardware address that it gives is the frame's.
    pub is_sender: bool,
}

/// Who speaks in the ARP message at `offset`, of a frame from this hardware address.
///
/// # Errors
/// Why it must not pass, whoever sent it.
#[inline(always)]
pub fn arp(bytes: &impl Bytes, offset: u32, sender: [u8; 6]) -> Result<ArpSpeaker, Reason> {
    if let Some(flaw) = offload::flaw(bytes, offset, ether_type::ARP) {
        return Err(flaw);
    }
    let is_padded_at_most = bytes.length() <= SHORTEST_FRAME;
    let Some(ArpSender { hardware, addr }) =
        arp_sender(bytes, offset).filter(|_| is_padded_at_most)
    else {
        return Err(Reason::Malformed);
    };
    Ok(ArpSpeaker { addr, is_sender: hardware == sender })
}

/// Bytes of the shortest Ethernet frame (IEEE 802.3 §3.2.8), without its check sequence. An ARP message is shorter, so
/// a frame has padding behind it up to here; what is longer carries something else.
const SHORTEST_FRAME: u32 = 60;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Whether each option of a message of neighbour discovery (RFC 4861 §4.6.1) that gives a hardware
/// address gives this one. `false` too where there are more options than anybody sends, or where one
/// is longer than a hardware address takes. The frame's packet has no extension header.
#[inline(always)]
pub fn gives_hardware_address(bytes: &impl Bytes, neighbour: Neighbour, own: [u8; 6]) -> bool {
    let message = match neighbour {
        Neighbour::Solicitation | Neighbour::Advertisement => 24,
        Neighbour::RouterSolicitation => 8,
        Neighbour::No | Neighbour::ListenerReport | Neighbour::RouterOnly => return true,
    };
    let first = Ethernet::LENGTH + IPV6 + message;
    bytes.pull(first + OPTIONS);
    let Some(length) = bytes.load::<2>(Ethernet::LENGTH + 4) else { return false };
    let length = u32::from(u16::from_be_bytes(length));
    if length < message || (length - message) % 8 != 0 || length - message > OPTIONS {
        return false;
    }
    let mut honest = true;
    let mut before = 0;
    while before < OPTIONS {
        if before < length - message {
            let option = bytes.load::<8>(first + before).map_or(0, u64::from_be_bytes);
            honest = bytes.verifier_barrier(honest & is_honest(option, own));
        }
        before += 8;
    }
    honest
}

/// Whether an option of eight bytes is one, and gives this hardware address if any.
#[inline(always)]
const fn is_honest(option: u64, own: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = own;
    let own = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let [kind, units, ..] = option.to_be_bytes();
    let gives = kind == SOURCE_LINK_LAYER || kind == TARGET_LINK_LAYER;
    units == 1 && (!gives || option << 16 >> 16 == own)
}
