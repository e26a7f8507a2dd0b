//! Frames whose checksum is left to be filled in (`PACKET_VNET_HDR`), over an address or a port: they
//! say something else once they have been judged. They are sent to an in-cluster host, which is allowed.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::{
    attempt::{AttemptResult, RunningAttempt},
    outcome::{Call, Outcome},
    packet,
    packet_socket::send,
};
use crate::sys::raw::{bind, link_address, set_option};

/// linux/if_packet.h: PACKET_VNET_HDR.
const VNET_HDR: i32 = 15;
/// linux/virtio_net.h: VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u8 = 1;
/// Where a sum may begin at the earliest: Linux wants as many bytes before it as IPv4's header has.
const FIRST: u16 = 20;
/// Bytes of Ethernet's header.
const ETHERNET: u16 = 14;

/// Over the last bytes of the destination.
pub(crate) fn destination(this: &RunningAttempt<'_>) -> AttemptResult {
    send_unfinished(this, |v6| (FIRST, if v6 { 32 } else { 12 }))
}

/// Over the last bytes of the source.
pub(crate) fn source(this: &RunningAttempt<'_>) -> AttemptResult {
    send_unfinished(this, |v6| (FIRST, if v6 { 16 } else { 8 }))
}

/// Over the destination's port.
pub(crate) fn port(this: &RunningAttempt<'_>) -> AttemptResult {
    send_unfinished(this, |v6| (ETHERNET + if v6 { 40 } else { 20 }, 2))
}

/// `place` tells where the sum begins in the frame, and how far from there it is written.
fn send_unfinished(this: &RunningAttempt<'_>, place: impl Fn(bool) -> (u16, u16)) -> AttemptResult {
    let (own, inside) = (this.own()?, this.in_cluster_host()?);
    let (from, to) = (SocketAddr::new(own, this.port), SocketAddr::new(inside, this.port));
    let datagram = packet::udp(from, to, &this.data());
    let packet = packet::ip(own, inside, packet::protocol::UDP, &datagram);
    let network = this.network()?;
    let frame = packet::ethernet(network.link(), packet::ether_type(&packet), &packet);
    let (start, field) = place(own.is_ipv6());
    let mut bytes = vec![NEEDS_CSUM, 0, 0, 0, 0, 0];
    bytes.extend(start.to_ne_bytes());
    bytes.extend(field.to_ne_bytes());
    bytes.extend(frame);
    let made = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)));
    let socket = this.needed("packet socket", made)?;
    this.needed("bind", bind(&socket, &link_address(0, network.index, [0; 6])))?;
    let set = set_option(&socket, libc::SOL_PACKET, VNET_HDR, &1_i32.to_ne_bytes());
    this.needed("PACKET_VNET_HDR", set)?;
    this.tried(Call::Send, send(&socket, &bytes))?;
    Ok(Outcome::NoAnswer("sent; who gets it depends on where the checksum is filled in".into()))
}
