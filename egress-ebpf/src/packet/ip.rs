//! What an IP header says.

use super::{
    Bytes, Neighbour, Packet, ether_type, groups, protocol,
    transport::{self, DatagramPart},
};
use crate::{addr::Addr, reason::Reason};

/// Bytes of an IPv4 header without options.
pub(super) const IPV4: u32 = 20;
/// Bytes of an IPv6 header.
pub(super) const IPV6: u32 = 40;

/// IPv6 extension headers (RFC 7045 §4, IANA), but for the fragment header. ESP isn't one here: it
/// hides what follows, so it counts as a protocol.
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 51, 60, 135, 139, 140, 253];
const FRAGMENT_HEADER: u8 = 44;
const HOP_BY_HOP_HEADER: u8 = 0;

/// Whether an IPv6 header is followed by one that is no protocol's.
#[inline(always)]
pub(super) fn is_extension(next: u8) -> bool {
    next == FRAGMENT_HEADER || EXTENSION_HEADERS.contains(&next)
}

/// Reads the IP packet at `offset`; `ether_type` says of which version it must be.
#[inline(always)]
pub fn ip(bytes: &impl Bytes, offset: u32, ether_type: u16) -> Packet {
    let mut packet = Packet::OTHER;
    read_ip(bytes, offset, ether_type, &mut packet);
    packet
}

/// The same, read to where the caller wants it: what is read is written there at once, and takes no room on
/// the programs' stack.
#[inline(always)]
pub(super) fn read_ip(bytes: &impl Bytes, offset: u32, ether_type: u16, packet: &mut Packet) {
    *packet = Packet::OTHER;
    let available = bytes.length().saturating_sub(offset);
    packet.flaw = match ether_type {
        ether_type::IPV4 => ipv4(bytes, offset, available, packet),
        ether_type::IPV6 => ipv6(bytes, offset, available, packet),
        _ => return,
    };
    packet.flow.protocol = bytes.verifier_barrier(packet.flow.protocol);
    packet.flow.fragment = bytes.verifier_barrier(packet.flow.fragment);
    packet.signal = bytes.verifier_barrier(packet.signal);
    packet.neighbour = bytes.verifier_barrier(packet.neighbour);
    packet.flaw = bytes.verifier_barrier(packet.flaw);
}

/// RFC 791 §3.1. What is wrong with it; what could be read is in `packet` all the same.
#[inline(always)]
fn ipv4(bytes: &impl Bytes, offset: u32, available: u32, packet: &mut Packet) -> Option<Reason> {
    let Some(header) = bytes.load::<20>(offset) else { return Some(Reason::Malformed) };
    let flow = &mut packet.flow;
    flow.source = Addr::v4([header[12], header[13], header[14], header[15]]);
    flow.destination = Addr::v4([header[16], header[17], header[18], header[19]]);
    flow.protocol = header[9];
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Some(Reason::IpOptions),
        _ => return Some(Reason::Malformed),
    }
    let total = match u32::from(u16::from_be_bytes([header[2], header[3]])) {
        // A segmentation-offload packet that no 16-bit length can tell ("BIG TCP", kernel 6.3).
        0 if available > 0xffff => available,
        total => total,
    };
    if total < 20 || total > available {
        return Some(Reason::Malformed);
    }
    // "More fragments" or an offset. The reserved bit says nothing.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    flow.fragment = fragment != 0;
    let part =
        DatagramPart { first: fragment & 0x1fff == 0, hops: header[8], v4: true, whole: true };
    transport::read(bytes, offset + 20, total - 20, packet, part)
}

/// RFC 8200 §3. What is wrong with it; what could be read is in `packet` all the same.
#[inline(always)]
fn ipv6(bytes: &impl Bytes, offset: u32, available: u32, packet: &mut Packet) -> Option<Reason> {
    let flow = &mut packet.flow;
    let Some(header) = bytes.load::<8>(offset) else { return Some(Reason::Malformed) };
    let Some(source) = bytes.load_addr(offset + 8) else { return Some(Reason::Malformed) };
    flow.source = source;
    let Some(destination) = bytes.load_addr(offset + 24) else {
        flow.source = Addr::UNSPECIFIED;
        return Some(Reason::Malformed);
    };
    flow.destination = destination;
    flow.protocol = header[6];
    let mapped = source.is_v4() | destination.is_v4();
    // Mapped addresses stand for IPv4 in the socket interface and never belong on a wire (RFC 4291
    // §2.5.5.2); taken for the IPv4 address they could borrow its permission.
    if header[0] >> 4 != 6 || mapped {
        return Some(Reason::Malformed);
    }
    let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if payload > available.saturating_sub(40) {
        return Some(Reason::Malformed);
    }
    let whole = payload == available - 40;
    let mut part = DatagramPart { first: true, hops: header[7], v4: false, whole };
    let (mut start, mut length) = (offset + 40, payload);
    if flow.protocol == FRAGMENT_HEADER {
        let fragment = bytes.load::<8>(offset + 40).filter(|_| payload >= 8);
        let Some([next, _, high, low, ..]) = fragment else { return Some(Reason::Malformed) };
        flow.protocol = next;
        flow.fragment = true;
        part.first = u16::from_be_bytes([high, low]) & 0xfff8 == 0;
        (start, length) = (offset + 48, payload - 8);
        if next == FRAGMENT_HEADER {
            return Some(Reason::ExtensionHeader);
        }
    }
    // To the groups of the link alone: with another destination it is a packet with an extension header.
    let is_to_group = destination.is_link_scope() && destination.is_multicast();
    if flow.protocol == HOP_BY_HOP_HEADER
        && header[7] == 1
        && is_to_group
        && whole
        && groups::is_report(bytes, offset + 40, payload)
    {
        flow.protocol = protocol::ICMPV6;
        packet.neighbour = Neighbour::ListenerReport;
        return None;
    }
    if EXTENSION_HEADERS.contains(&flow.protocol) {
        return Some(Reason::ExtensionHeader);
    }
    transport::read(bytes, start, length, packet, part)
}
