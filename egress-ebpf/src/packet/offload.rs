//! What the kernel or a device still does to a packet after the last program has seen it.
//!
//! A sender with `CAP_NET_RAW` chooses where a checksum is filled in (`PACKET_VNET_HDR`, a tap device
//! with `IFF_VNET_HDR`, `AF_XDP`'s metadata): `csum_start` and `csum_offset` name any 16 bits of the
//! packet, the destination's address among them. They are written on the way out of the last
//! interface, by `validate_xmit_skb` or by the device. So such a packet passes only if what is
//! written there is the checksum of the transport protocol that was judged.
//!
//! Segmentation is no danger beside that: it copies the headers and writes lengths, identifiers,
//! sequence numbers, flags and checksums of the protocol that the headers name, never addresses or
//! ports. Tags of a VLAN are refused by the hooks. Marks, timestamps and routes are taken off a
//! packet that changes its network namespace (`skb_scrub_packet`).

pub use super::bytes::Offload;
use super::{Bytes, ether_type, protocol};
use crate::reason::Reason;

impl Offload {
    /// Why the packet must not pass, if its transport header, of this protocol, begins at `transport`.
    #[inline(always)]
    const fn flaw(self, transport: u32, protocol: u8, fragment: bool) -> Option<Reason> {
        // Linux fills in checksums before it makes fragments.
        let misplaced =
            (self.start ^ transport) | (self.field ^ checksum_field(protocol)) | fragment as u32;
        if self.encapsulated != 0 {
            Some(Reason::Encapsulation)
        } else if self.partial & misplaced != 0 {
            Some(Reason::PartialChecksum)
        } else {
            None
        }
    }
}

/// Why the packet at `offset` must not pass: something other than its transport's checksum is written
/// into it later. Headers that [`ip`](super::ip()) refuses or walks past have no such checksum.
///
/// Asked before a packet is read, so that the answer is all that is kept meanwhile.
#[inline(always)]
#[must_use]
pub fn flaw(bytes: &impl Bytes, offset: u32, ether_type: u16) -> Option<Reason> {
    let (transport, protocol, fragment) = match ether_type {
        ether_type::IPV4 => match bytes.load::<10>(offset) {
            Some([_, _, _, _, _, _, high, low, _, protocol]) => {
                (offset + 20, protocol, u16::from_be_bytes([high, low]) & 0x3fff != 0)
            }
            None => (offset, NO_TRANSPORT, false),
        },
        ether_type::IPV6 => match bytes.load::<8>(offset) {
            Some([_, _, _, _, _, _, protocol, _]) => (offset + 40, protocol, false),
            None => (offset, NO_TRANSPORT, false),
        },
        _ => (offset, NO_TRANSPORT, false),
    };
    bytes.offload().flaw(transport, protocol, fragment)
}

/// A protocol number of nothing that has a checksum (IANA: reserved).
const NO_TRANSPORT: u8 = 255;

/// No checksum is written that far away: the kernel keeps 16 bits of it.
const NOWHERE: u32 = 1 << 16;

/// Where a protocol's header has its checksum, for those that Linux leaves to devices: TCP, UDP, and
/// SCTP, whose CRC takes the first half of that place here. UDP-Lite, ICMP and DCCP are summed up
/// before.
#[inline(always)]
const fn checksum_field(protocol: u8) -> u32 {
    match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        protocol::SCTP => 8,
        _ => NOWHERE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        packet::{self, Ethernet},
        testing::{
            INSIDE, INSIDE6, POD, POD6, Unfinished, groups, ip, ip_frame, neighbour, report, tcp,
            udp,
        },
    };

    fn read(frame: &[u8], offload: Offload) -> packet::Packet {
        let bytes = Unfinished { bytes: frame, offload };
        let ether_type = u16::from_be_bytes([frame[12], frame[13]]);
        let packet = packet::ip(&bytes, Ethernet::LENGTH, ether_type);
        let flaw = packet.flaw.or(flaw(&bytes, Ethernet::LENGTH, ether_type));
        packet::Packet { flaw, ..packet }
    }

    fn of_arp(offload: Offload) -> Option<Reason> {
        let bytes = Unfinished { bytes: &[0; 42], offload };
        flaw(&bytes, Ethernet::LENGTH, ether_type::ARP)
    }

    fn partial(start: u32, field: u32) -> Offload {
        Offload { partial: u32::MAX, start, field, encapsulated: 0 }
    }

    fn frames() -> Vec<(Vec<u8>, u32, Option<u32>)> {
        let sctp = [[0; 12].as_slice(), &[1; 4]].concat();
        vec![
            (ip_frame(&tcp(POD, INSIDE, 80)), 34, Some(16)),
            (ip_frame(&tcp(POD6, INSIDE6, 80)), 54, Some(16)),
            (ip_frame(&udp(POD, INSIDE, 53)), 34, Some(6)),
            (ip_frame(&udp(POD6, INSIDE6, 53)), 54, Some(6)),
            (ip_frame(&ip(protocol::SCTP, POD, INSIDE, &sctp)), 34, Some(8)),
            (ip_frame(&ip(protocol::UDP_LITE, POD, INSIDE, &[0; 16])), 34, None),
            (ip_frame(&ip(protocol::ICMP, POD, INSIDE, &[8, 0, 0, 0, 0, 0, 0, 0])), 34, None),
            (ip_frame(&neighbour(135, POD6, "ff02::1", POD6)), 54, None),
        ]
    }

    #[test]
    fn only_the_protocols_own_checksum_may_be_filled_in_later() {
        for (frame, start, field) in frames() {
            assert_eq!(read(&frame, Offload::NONE).flaw, None);
            assert_eq!(read(&frame, Offload::UNKNOWN).flaw, Some(Reason::PartialChecksum));
            for to in [0xfffe, 0xffff] {
                let flaw = read(&frame, partial(start, to)).flaw;
                assert_eq!(flaw, Some(Reason::PartialChecksum));
            }
            for at in 0..64 {
                for to in 0..64 {
                    let allowed = at == start && Some(to) == field;
                    let expected = (!allowed).then_some(Reason::PartialChecksum);
                    assert_eq!(read(&frame, partial(at, to)).flaw, expected, "{at} {to}");
                }
            }
        }
    }

    #[test]
    fn a_fragment_is_summed_up_before() {
        let mut frame = ip_frame(&udp(POD, INSIDE, 53));
        frame[14 + 6] = 0x20;
        assert_eq!(read(&frame, Offload::NONE).flaw, None);
        assert_eq!(read(&frame, partial(34, 6)).flaw, Some(Reason::PartialChecksum));
    }

    #[test]
    fn a_report_of_groups_is_summed_up_before() {
        let frame = ip_frame(&report(143, POD6, "ff02::16", &groups(1)));
        let plain = read(&frame, Offload::NONE);
        assert_eq!((plain.neighbour, plain.flaw), (packet::Neighbour::ListenerReport, None));
        assert_eq!(read(&frame, partial(62, 2)).flaw, Some(Reason::PartialChecksum));
    }

    #[test]
    fn what_the_kernel_takes_for_a_tunnel_is_one_on_any_port() {
        for (frame, start, _) in frames() {
            let offload = Offload { encapsulated: u32::MAX, ..partial(start, 16) };
            assert_eq!(read(&frame, offload).flaw, Some(Reason::Encapsulation));
        }
        let offload = Offload { encapsulated: u32::MAX, ..Offload::NONE };
        assert_eq!(of_arp(offload), Some(Reason::Encapsulation));
    }

    #[test]
    fn what_has_no_transport_has_nothing_to_fill_in() {
        assert_eq!(of_arp(Offload::NONE), None);
        for (start, field) in [(0, 0), (14, 6), (34, 16)] {
            assert_eq!(of_arp(partial(start, field)), Some(Reason::PartialChecksum));
        }
    }

    proptest! {
        /// Whatever passes, what is written later is neither address nor port nor anything else
        /// that was judged.
        #[test]
        fn what_passes_keeps_what_was_judged(
            bytes: Vec<u8>, v6: bool, start in 0_u32..96, field in 0_u32..96, value: [u8; 2],
        ) {
            let kind = if v6 { ether_type::IPV6 } else { ether_type::IPV4 };
            let mut frame = vec![0; 12];
            frame.extend(kind.to_be_bytes());
            frame.extend(&bytes);
            if let Some(first) = frame.get_mut(14) {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let offload = partial(start, field);
            let before = read(&frame, offload);
            if before.flaw.is_none() {
                let at = usize::try_from(start + field).unwrap();
                if let Some(place) = frame.get_mut(at..at + 2) {
                    place.copy_from_slice(&value);
                }
                prop_assert_eq!(read(&frame, offload), before);
            }
        }
    }
}
