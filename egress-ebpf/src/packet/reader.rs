//! What the hooks read of a packet, each part of which the programs have in a function of its own.

use super::{ArpSpeaker, Bytes, Flow, Packet, claims, ip::read_ip, offload, protocol, quoted};
use crate::{addr::Addr, reason::Reason};

/// Where a packet is put that was read. The programs' functions write it there, on their caller's stack,
/// which has no room for copies.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Room {
    /// The packet.
    pub packet: Packet,
}

impl Room {
    /// One in which nothing was put yet.
    pub const EMPTY: Self = Self { packet: Packet::UNREADABLE };
}

/// Bytes of which a packet is read. The programs override what is here with functions that the kernel's
/// verifier checks by themselves, once; these do the same.
pub trait Reader: Bytes + Sized {
    /// The packet at `offset`, as it will be sent. One that the kernel or a device would still change where
    /// it is judged has a flaw, if it comes from somebody who may have asked for that.
    #[inline(always)]
    fn packet<'a>(
        &self,
        offset: u32,
        ether_type: u16,
        is_suspect: bool,
        room: &'a mut Room,
    ) -> &'a Packet {
        final_packet(self, offset, ether_type, is_suspect, &mut room.packet);
        &room.packet
    }

    /// Who speaks in the ARP message at `offset`, of a frame from this hardware address.
    ///
    /// # Errors
    /// Why it must not pass, whoever sent it.
    #[inline(always)]
    fn arp(&self, offset: u32, sender: [u8; 6]) -> Result<ArpSpeaker, Reason> {
        claims::arp(self, offset, sender)
    }

    /// What the ICMP error in the packet at `offset` is about, that goes to `destination`; `None` for
    /// anything that is no such error.
    #[inline(always)]
    fn subject<'a>(
        &self,
        offset: u32,
        destination: &Addr,
        room: &'a mut Room,
    ) -> Option<&'a Packet> {
        room.packet = quoted::subject(self, offset, *destination)?;
        Some(&room.packet)
    }

    /// Whether the ICMP error in the packet at `offset`, which is `flow`, quotes a packet that its
    /// destination sent to its source.
    #[inline(always)]
    fn quotes_own(&self, offset: u32, flow: &Flow) -> bool {
        quoted::quotes_own(self, offset, flow.source, flow.destination)
    }
}

impl Reader for &[u8] {}

/// What [`Reader::packet`] does.
#[inline(always)]
pub fn final_packet(
    bytes: &impl Bytes,
    offset: u32,
    ether_type: u16,
    is_suspect: bool,
    packet: &mut Packet,
) {
    let unfinished = offload::flaw(bytes, offset, ether_type);
    let unfinished = bytes.verifier_barrier(if is_suspect { unfinished } else { None });
    read_ip(bytes, offset, ether_type, packet);
    packet.flaw = bytes.verifier_barrier(packet.flaw.or(unfinished));
}

/// For an ICMP error at `offset` that can be read: an answer of the flow of the packet that it quotes,
/// with [`Signal::FlowError`](super::Signal::FlowError). An error goes to whoever sent what it quotes
/// (RFC 1122 §3.2.2, RFC 4443 §2.2). For anything else: the packet itself.
#[inline(always)]
pub fn subject_of_error<'a>(
    bytes: &impl Reader,
    offset: u32,
    packet: &'a Packet,
    room: &'a mut Room,
) -> &'a Packet {
    let flow = &packet.flow;
    let is_error = match flow.protocol {
        protocol::ICMP => flow.destination.is_v4(),
        protocol::ICMPV6 => !flow.destination.is_v4(),
        _ => false,
    };
    if !is_error || flow.fragment || packet.flaw.is_some() {
        return packet;
    }
    bytes.subject(offset, &flow.destination, room).unwrap_or(packet)
}
