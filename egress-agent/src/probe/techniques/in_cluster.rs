//! Packets that are only for an in-cluster host, which would carry them out: one that answers the
//! address they are sent in the name of, or one that takes packets out of packets. The router
//! stands for any such host.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
        packet::{self, protocol},
    },
    link::send_ip,
    raw,
    udp::{self, await_echo, ear},
};

/// An echo request in the canary's name: the answer, with the token, goes to the canary.
fn reflected(this: &RunningAttempt<'_>) -> Result<(IpAddr, Vec<u8>), Outcome> {
    let inside = this.in_cluster_host()?;
    let request = packet::echo_request(this.target, inside, 0x7072, &this.data());
    let number = if inside.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
    Ok((inside, packet::ip(this.target, inside, number, &request)))
}

/// From a raw socket.
pub(crate) fn reflect(this: &RunningAttempt<'_>) -> AttemptResult {
    let (inside, packet) = reflected(this)?;
    raw::send_to(this, inside, &packet)?;
    Ok(Outcome::NoAnswer("sent; an in-cluster host's answer would go to the canary".into()))
}

/// From a raw socket, to this very host: its own kernel would answer the canary.
pub(crate) fn reflect_here(this: &RunningAttempt<'_>) -> AttemptResult {
    let own = this.own()?;
    let request = packet::echo_request(this.target, own, 0x7073, &this.data());
    let packet = packet::ip(this.target, own, protocol::ICMP, &request);
    raw::send_to(this, own, &packet)?;
    Ok(Outcome::NoAnswer("sent; the own kernel's answer would go to the canary".into()))
}

/// In a frame.
pub(crate) fn reflect_frame(this: &RunningAttempt<'_>) -> AttemptResult {
    let (_, packet) = reflected(this)?;
    send_ip(this, &packet)?;
    Ok(Outcome::NoAnswer("sent; an in-cluster host's answer would go to the canary".into()))
}

/// A datagram to the canary, in IP to an in-cluster host.
pub(crate) fn tunnel(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let inner = raw::datagram(this, this.own()?, port);
    let number = if inner[0] >> 4 == 6 { protocol::SIT } else { protocol::IPIP };
    let inside = this.in_cluster_host()?;
    raw::send_to(this, inside, &packet::ip(this.own()?, inside, number, &inner))?;
    Ok(await_echo(this, &ear))
}

/// The same in GRE.
pub(crate) fn gre(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let inner = raw::datagram(this, this.own()?, port);
    let payload = [&[0, 0][..], &packet::ether_type(&inner).to_be_bytes(), &inner].concat();
    let inside = this.in_cluster_host()?;
    raw::send_to(this, inside, &packet::ip(this.own()?, inside, protocol::GRE, &payload))?;
    Ok(await_echo(this, &ear))
}

/// VXLAN to an in-cluster host.
pub(crate) fn vxlan(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let to = SocketAddr::new(this.in_cluster_host()?, 4789).into();
    let payload = vxlan_payload(this, port)?;
    let socket = udp::socket(this, this.to(), None)?;
    this.tried(Call::Send, socket.send_to(&payload, &to))?;
    Ok(await_echo(this, &ear))
}

/// MPLS in UDP (RFC 7510) to an in-cluster host.
pub(crate) fn mpls(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let to = SocketAddr::new(this.in_cluster_host()?, 6635).into();
    // Label 16, bottom of the stack, 64 hops.
    let payload = [&[0, 1, 0x01, 64][..], &raw::datagram(this, this.own()?, port)].concat();
    let socket = udp::socket(this, this.to(), None)?;
    this.tried(Call::Send, socket.send_to(&payload, &to))?;
    Ok(await_echo(this, &ear))
}

/// VXLAN in fragments, so that only the first has the port.
pub(crate) fn vxlan_fragments(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let (own, inside) = (this.own()?, this.in_cluster_host()?);
    let payload = vxlan_payload(this, port)?;
    let from = SocketAddr::new(own, port);
    let datagram = packet::udp(from, SocketAddr::new(inside, 4789), &payload);
    let (first, rest) = datagram.split_at(8);
    let piece = |offset, more, bytes: &[u8]| {
        packet::fragment(own, inside, protocol::UDP, (port, offset, more), bytes)
    };
    send_ip(this, &piece(0, true, first))?;
    send_ip(this, &piece(8, false, rest))?;
    Ok(await_echo(this, &ear))
}

fn vxlan_payload(this: &RunningAttempt<'_>, port: u16) -> Result<Vec<u8>, Outcome> {
    let inner = raw::datagram(this, this.own()?, port);
    let frame = packet::ethernet(this.network()?.link(), packet::ether_type(&inner), &inner);
    Ok([&[8, 0, 0, 0, 0, 0, 5, 0][..], &frame].concat())
}
