//! Packet sockets: frames straight to the interface, past every hook on sockets.

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
        packet,
        packet_socket::send,
    },
    raw::{datagram, neighbour},
    udp::{await_echo, ear},
};
use crate::sys::{
    raw::{bind, link_address, send_to, set_option},
    tx_ring,
};

/// linux/if_packet.h: PACKET_QDISC_BYPASS.
const QDISC_BYPASS: i32 = 20;

/// A socket that only sends.
fn sender(this: &RunningAttempt<'_>, kind: Type) -> Result<Socket, Outcome> {
    let socket =
        this.needed("packet socket", Socket::new(Domain::PACKET, kind, Some(Protocol::from(0))))?;
    let index = this.network()?.index;
    this.needed("bind", bind(&socket, &link_address(0, index, [0; 6])))?;
    Ok(socket)
}

/// Sends an IP packet in a frame to the router.
pub(crate) fn send_ip(this: &RunningAttempt<'_>, packet: &[u8]) -> Result<(), Outcome> {
    let link = this.network()?.link();
    send_frame(this, &packet::ethernet(link, packet::ether_type(packet), packet))
}

/// Sends a frame.
pub(crate) fn send_frame(this: &RunningAttempt<'_>, frame: &[u8]) -> Result<(), Outcome> {
    let socket = sender(this, Type::RAW)?;
    this.tried(Call::Send, send(&socket, frame))
}

/// UDP in a frame.
pub(crate) fn frame(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    send_ip(this, &datagram(this, this.own()?, port))?;
    Ok(await_echo(this, &ear))
}

/// The same with a neighbour's source address.
pub(crate) fn spoofed(this: &RunningAttempt<'_>) -> AttemptResult {
    send_ip(this, &datagram(this, neighbour(this.own()?), 40_000))?;
    Ok(Outcome::NoAnswer(
        "sent; an answer would go to the address it was sent in the name of".into(),
    ))
}

/// To an in-cluster host, with a neighbour's hardware address. Where nothing stops it, a bridge takes this
/// port for the neighbour's.
pub(crate) fn other_hardware(this: &RunningAttempt<'_>) -> AttemptResult {
    let (own, inside) = (this.own()?, this.in_cluster_host()?);
    let datagram = packet::udp((own, this.port).into(), (inside, this.port).into(), &this.data());
    let body = packet::ip(own, inside, packet::protocol::UDP, &datagram);
    let mut link = this.network()?.link();
    link.source[5] ^= 0x20;
    send_frame(this, &packet::ethernet(link, packet::ether_type(&body), &body))?;
    Ok(Outcome::NoAnswer("sent; who has the address gets the answer".into()))
}

/// To an in-cluster host, an error about a packet that it never sent.
pub(crate) fn error(this: &RunningAttempt<'_>) -> AttemptResult {
    let (own, inside) = (this.own()?, this.in_cluster_host()?);
    let quoted = datagram(this, neighbour(own), this.port);
    let body = packet::icmp_error(own, inside, &quoted);
    let number = if own.is_ipv6() { packet::protocol::ICMPV6 } else { packet::protocol::ICMP };
    send_ip(this, &packet::ip(own, inside, number, &body))?;
    Ok(Outcome::NoAnswer("sent; an error is not answered".into()))
}

/// A packet socket that leaves the frame's header to the kernel.
pub(crate) fn cooked(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let socket = sender(this, Type::DGRAM)?;
    let packet = datagram(this, this.own()?, port);
    let network = this.network()?;
    let to = link_address(packet::ether_type(&packet), network.index, network.router_mac);
    this.tried(Call::Send, send_to(&socket, &packet, 0, &to))?;
    Ok(await_echo(this, &ear))
}

/// From memory that is shared with the kernel.
pub(crate) fn ring(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let socket = sender(this, Type::RAW)?;
    let packet = datagram(this, this.own()?, port);
    let link = this.network()?.link();
    let frame = packet::ethernet(link, packet::ether_type(&packet), &packet);
    this.tried(Call::Send, tx_ring::send(&socket, &frame))?;
    Ok(await_echo(this, &ear))
}

/// Past the queueing layer.
pub(crate) fn bypass(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let socket = sender(this, Type::RAW)?;
    let set = set_option(&socket, libc::SOL_PACKET, QDISC_BYPASS, &1_i32.to_ne_bytes());
    this.needed("PACKET_QDISC_BYPASS", set)?;
    let packet = datagram(this, this.own()?, port);
    let link = this.network()?.link();
    let frame = packet::ethernet(link, packet::ether_type(&packet), &packet);
    this.tried(Call::Send, send(&socket, &frame))?;
    Ok(await_echo(this, &ear))
}
