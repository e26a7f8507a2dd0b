//! Frames and packets that aren't as a pod's should be: tags, ethertypes, fragments, extension
//! headers, tunnels, and those that speak for another.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::Outcome,
        packet::{self, protocol},
        packet_socket::{open, receive, send},
    },
    link::{send_frame, send_ip},
    ping, raw,
    udp::{await_echo, ear},
};

/// What only somebody on the same link could see.
fn on_link() -> AttemptResult {
    Ok(Outcome::NoAnswer("sent; only the link's other end can tell".into()))
}

/// A VLAN tag before the packet.
pub(crate) fn vlan(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let packet = raw::datagram(this, this.own()?, port);
    let body = packet::tagged(5, packet::ether_type(&packet), &packet);
    send_frame(this, &packet::ethernet(this.network()?.link(), 0x8100, &body))?;
    Ok(await_echo(this, &ear))
}

/// Tag zero, which many take for no tag at all.
pub(crate) fn priority_tag(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let packet = raw::datagram(this, this.own()?, port);
    let body = packet::tagged(0, packet::ether_type(&packet), &packet);
    send_frame(this, &packet::ethernet(this.network()?.link(), 0x8100, &body))?;
    Ok(await_echo(this, &ear))
}

/// Two tags.
pub(crate) fn double_tag(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let packet = raw::datagram(this, this.own()?, port);
    let inner = packet::tagged(5, packet::ether_type(&packet), &packet);
    let body = packet::tagged(6, 0x8100, &inner);
    send_frame(this, &packet::ethernet(this.network()?.link(), 0x88a8, &body))?;
    Ok(await_echo(this, &ear))
}

/// LLDP, to the nearest bridge.
pub(crate) fn lldp(this: &RunningAttempt<'_>) -> AttemptResult {
    of_type(this, 0x88cc, &[])
}

/// MPLS with an IP packet.
pub(crate) fn mpls(this: &RunningAttempt<'_>) -> AttemptResult {
    // Label 16, bottom of the stack, 64 hops.
    of_type(this, 0x8847, &[0, 1, 0x01, 64])
}

/// PPPoE's discovery.
pub(crate) fn pppoe(this: &RunningAttempt<'_>) -> AttemptResult {
    of_type(this, 0x8863, &[0x11, 9, 0, 0, 0, 0])
}

/// A number for experiments (RFC 5342).
pub(crate) fn experimental(this: &RunningAttempt<'_>) -> AttemptResult {
    of_type(this, 0x88b5, &[])
}

/// A frame with a length instead of a type, and an 802.2 header.
pub(crate) fn raw_802_3(this: &RunningAttempt<'_>) -> AttemptResult {
    let length = u16::try_from(this.data().len() + 3).unwrap_or(u16::MAX);
    of_type(this, length, &[0x42, 0x42, 3])
}

fn of_type(this: &RunningAttempt<'_>, ether_type: u16, head: &[u8]) -> AttemptResult {
    let body = [head, &this.data()].concat();
    send_frame(this, &packet::ethernet(this.network()?.link(), ether_type, &body))?;
    on_link()
}

/// A datagram in two fragments.
pub(crate) fn fragments(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let own = this.own()?;
    let mut data = this.data();
    data.resize(data.len().max(64).next_multiple_of(8) + 16, b'.');
    let udp = packet::udp(SocketAddr::new(own, port), this.to(), &data);
    let (first, rest) = udp.split_at(24);
    let piece = |offset, more, bytes: &[u8]| {
        packet::fragment(own, this.target, protocol::UDP, (ident(this), offset, more), bytes)
    };
    send_ip(this, &piece(0, true, first))?;
    send_ip(this, &piece(24, false, rest))?;
    Ok(await_echo(this, &ear))
}

/// Each attempt's own, so that nobody puts pieces of two attempts together.
fn ident(this: &RunningAttempt<'_>) -> u16 {
    this.data().iter().fold(0, |sum: u16, byte| sum.rotate_left(3) ^ u16::from(*byte))
}

/// A first fragment that nothing follows.
pub(crate) fn first_fragment(this: &RunningAttempt<'_>) -> AttemptResult {
    let own = this.own()?;
    let mut udp = packet::udp(SocketAddr::new(own, 40_000), this.to(), &this.data());
    udp.resize(udp.len().next_multiple_of(8), b'.');
    send_ip(
        this,
        &packet::fragment(own, this.target, protocol::UDP, (ident(this), 0, true), &udp),
    )?;
    Ok(Outcome::NoAnswer("sent; a piece isn't answered".into()))
}

/// A later fragment without the first: no ports to judge by.
pub(crate) fn later_fragment(this: &RunningAttempt<'_>) -> AttemptResult {
    let (own, data) = (this.own()?, this.data());
    send_ip(
        this,
        &packet::fragment(own, this.target, protocol::UDP, (ident(this), 64, false), &data),
    )?;
    Ok(Outcome::NoAnswer("sent; a piece isn't answered".into()))
}

/// Hop-by-hop options before UDP.
pub(crate) fn hop_by_hop(this: &RunningAttempt<'_>) -> AttemptResult {
    extension(this, 0)
}

/// Destination options before UDP.
pub(crate) fn destination_options(this: &RunningAttempt<'_>) -> AttemptResult {
    extension(this, protocol::DESTINATION)
}

/// A routing header before UDP.
pub(crate) fn routing_header(this: &RunningAttempt<'_>) -> AttemptResult {
    extension(this, protocol::ROUTING)
}

fn extension(this: &RunningAttempt<'_>, kind: u8) -> AttemptResult {
    let (ear, port) = ear(this)?;
    let own = this.own()?;
    let udp = packet::udp(SocketAddr::new(own, port), this.to(), &this.data());
    let body = packet::extension(kind, protocol::UDP, &udp);
    send_ip(this, &packet::ip(own, this.target, kind, &body))?;
    Ok(await_echo(this, &ear))
}

/// An echo request in a frame.
pub(crate) fn echo(this: &RunningAttempt<'_>) -> AttemptResult {
    let own = this.own()?;
    let ear = this.needed("raw ICMP socket", ping::icmp(this.target, socket2::Type::RAW))?;
    let number = if own.is_ipv6() { protocol::ICMPV6 } else { protocol::ICMP };
    let request = packet::echo_request(own, this.target, 0x7072, &this.data());
    send_ip(this, &packet::ip(own, this.target, number, &request))?;
    Ok(await_echo(this, &ear))
}

/// A tunnel in a frame.
pub(crate) fn tunnel(this: &RunningAttempt<'_>) -> AttemptResult {
    let inner = raw::inner_v4(&this.data());
    send_ip(this, &packet::ip(this.own()?, this.target, protocol::IPIP, &inner))?;
    Ok(Outcome::NoAnswer("sent, no answer is expected".into()))
}

/// An address that no host here has, for claims that disturb nobody.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

/// "Who has the router? Tell another's address, at my hardware address": whoever answers accepted the claim.
pub(crate) fn claim(this: &RunningAttempt<'_>) -> AttemptResult {
    let network = this.network()?;
    let no_router = || Outcome::NotApplicable("the router has no address on the link".into());
    let (frame, router): (_, IpAddr) = if this.target.is_ipv6() {
        let router = network.router_v6.ok_or_else(no_router)?;
        (packet::neighbour_solicitation(network.mac, NOBODY_V6, router), router.into())
    } else {
        let router = network.router_v4.ok_or_else(no_router)?;
        (packet::arp_request(network.mac, NOBODY, router), router.into())
    };
    let socket = this.needed("packet socket", open(network.index))?;
    this.tried(super::super::outcome::Call::Send, send(&socket, &frame))?;
    while Instant::now() < this.deadline {
        let Some(frame) = receive(&socket, this.deadline) else { break };
        if packet::claimed_mac(&frame, router).is_some() && is_for_nobody(&frame) {
            return Ok(Outcome::Answered("the router answered the address that isn't ours".into()));
        }
    }
    Ok(Outcome::NoAnswer("sent, no answer".into()))
}

/// Whether an ARP reply or an advertisement goes to the address that was claimed.
fn is_for_nobody(frame: &[u8]) -> bool {
    frame.get(38..42) == Some(&NOBODY.octets()) || frame.get(38..54) == Some(&NOBODY_V6.octets())
}

/// "The router is here", to everyone. Where nothing stops it, neighbours lose their route, so it
/// is done only if asked for.
pub(crate) fn claim_router(this: &RunningAttempt<'_>) -> AttemptResult {
    let network = this.network()?;
    if !this.settings.risky {
        return Err(Outcome::NotApplicable("would disturb neighbours; --risky makes it".into()));
    }
    let no_router = || Outcome::NotApplicable("the router has no address on the link".into());
    let frame = match (this.target, this.own()?) {
        (IpAddr::V6(_), IpAddr::V6(own)) => {
            let router = network.router_v6.ok_or_else(no_router)?;
            packet::neighbour_advertisement(network.mac, own, router)
        }
        _ => packet::arp_claim(network.mac, network.router_v4.ok_or_else(no_router)?),
    };
    send_frame(this, &frame)?;
    on_link()
}

/// "I am a router", with a lifetime of zero.
pub(crate) fn advertise_router(this: &RunningAttempt<'_>) -> AttemptResult {
    let mac = this.network()?.mac;
    send_frame(this, &packet::router_advertisement(mac, link_local(mac)))?;
    on_link()
}

/// The link-local address that is derived from a hardware address (RFC 4291 appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
