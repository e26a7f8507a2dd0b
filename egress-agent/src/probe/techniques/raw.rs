//! Raw sockets: IP headers by hand, any protocol over IP, any source address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
        packet::{self, protocol},
    },
    udp::{await_echo, ear, exchange},
};

/// `IPPROTO_RAW`: the header is the sender's.
const OWN_HEADER: i32 = 255;

/// UDP with its IP header.
pub(crate) fn own_header(this: &RunningAttempt<'_>) -> AttemptResult {
    let (ear, port) = ear(this)?;
    send(this, &datagram(this, this.own()?, port))?;
    Ok(await_echo(this, &ear))
}

/// The same with a neighbour's source address; an answer would go there.
pub(crate) fn spoofed(this: &RunningAttempt<'_>) -> AttemptResult {
    send(this, &datagram(this, neighbour(this.own()?), 40_000))?;
    Ok(Outcome::NoAnswer(
        "sent; an answer would go to the address it was sent in the name of".into(),
    ))
}

/// A loose source route (RFC 791 §3.1) over the target itself.
pub(crate) fn source_route(this: &RunningAttempt<'_>) -> AttemptResult {
    let [a, b, c, d] = this.v4()?.octets();
    with_options(this, &[0x83, 7, 4, a, b, c, d, 0])
}

/// A request to write down the route.
pub(crate) fn record_route(this: &RunningAttempt<'_>) -> AttemptResult {
    with_options(this, &[7, 7, 4, 0, 0, 0, 0, 0])
}

fn with_options(this: &RunningAttempt<'_>, options: &[u8]) -> AttemptResult {
    let IpAddr::V4(own) = this.own()? else {
        return Err(Outcome::Error("IPv4 options with an IPv6 address".into()));
    };
    let (ear, port) = ear(this)?;
    let udp = packet::udp(SocketAddr::new(own.into(), port), this.to(), &this.data());
    send(this, &packet::ipv4(own, this.v4()?, protocol::UDP, options, (7, 0), &udp))?;
    Ok(await_echo(this, &ear))
}

/// The socket option of the same (`IP_OPTIONS`), which needs no privilege for most options.
pub(crate) fn option_of_socket(this: &RunningAttempt<'_>) -> AttemptResult {
    let (socket, _) = ear(this)?;
    let set = crate::sys::raw::set_option(
        &socket,
        libc::IPPROTO_IP,
        libc::IP_OPTIONS,
        &[7, 7, 4, 0, 0, 0, 0, 0],
    );
    this.needed("IP_OPTIONS", set)?;
    exchange(this, &socket, |data| socket.send_to(data, &this.to().into()).map(drop))
}

/// IGMP.
pub(crate) fn igmp(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, 2, &[0x11, 0, 0, 0, 0, 0, 0, 0])
}

/// IPv4 in IP.
pub(crate) fn ipip(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, protocol::IPIP, &inner_v4(&this.data()))
}

/// IPv6 in IP.
pub(crate) fn sit(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, protocol::SIT, &inner_v6(&this.data()))
}

/// GRE (RFC 2784) with an IPv4 packet.
pub(crate) fn gre(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, protocol::GRE, &[&[0, 0, 8, 0][..], &inner_v4(&this.data())].concat())
}

/// ESP (RFC 4303): an index, a sequence number, and what nobody can read.
pub(crate) fn esp(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, 50, &[0, 0, 0x10, 0x01, 0, 0, 0, 1])
}

/// AH (RFC 4302).
pub(crate) fn ah(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, 51, &[59, 4, 0, 0, 0, 0, 0x10, 0x01, 0, 0, 0, 1])
}

/// OSPF.
pub(crate) fn ospf(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, 89, &[2, 1, 0, 44])
}

/// SCTP's protocol number, without the kernel's SCTP.
pub(crate) fn sctp(this: &RunningAttempt<'_>) -> AttemptResult {
    let mut head = 40_000_u16.to_be_bytes().to_vec();
    head.extend(this.port.to_be_bytes());
    head.extend([0; 8]);
    over_ip(this, 132, &head)
}

/// A number for experiments (RFC 3692).
pub(crate) fn experimental(this: &RunningAttempt<'_>) -> AttemptResult {
    over_ip(this, 253, &[])
}

/// `head` and the token as the payload of a protocol; the canary answers in the same.
fn over_ip(this: &RunningAttempt<'_>, number: u8, head: &[u8]) -> AttemptResult {
    let domain = Domain::for_address(this.to());
    let made = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(number))));
    let socket = this.needed("raw socket", made)?;
    exchange(this, &socket, |data| {
        let payload = [head, data].concat();
        socket.send_to(&payload, &SocketAddr::new(this.target, 0).into()).map(drop)
    })
}

/// A packet for inside a tunnel: to a documentation address, so that it goes nowhere by itself.
pub(crate) fn inner_v4(data: &[u8]) -> Vec<u8> {
    let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let udp = packet::udp((from, 4000).into(), (to, 4000).into(), data);
    packet::ip(from.into(), to.into(), protocol::UDP, &udp)
}

/// The same, IPv6.
pub(crate) fn inner_v6(data: &[u8]) -> Vec<u8> {
    let from = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let to = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    let udp = packet::udp((from, 4000).into(), (to, 4000).into(), data);
    packet::ip(from.into(), to.into(), protocol::UDP, &udp)
}

/// The token in a UDP datagram to the target, with IP header.
pub(crate) fn datagram(this: &RunningAttempt<'_>, source: IpAddr, port: u16) -> Vec<u8> {
    let udp = packet::udp(SocketAddr::new(source, port), this.to(), &this.data());
    packet::ip(source, this.target, protocol::UDP, &udp)
}

/// Another address of the same network.
pub(crate) fn neighbour(own: IpAddr) -> IpAddr {
    match own {
        IpAddr::V4(own) => Ipv4Addr::from(u32::from(own) ^ 0x20).into(),
        IpAddr::V6(own) => Ipv6Addr::from(u128::from(own) ^ 0x2000).into(),
    }
}

/// Sends a whole IP packet to the canary.
fn send(this: &RunningAttempt<'_>, packet: &[u8]) -> Result<(), Outcome> {
    send_to(this, this.target, packet)
}

/// Sends a whole IP packet.
pub(crate) fn send_to(this: &RunningAttempt<'_>, to: IpAddr, packet: &[u8]) -> Result<(), Outcome> {
    let domain = Domain::for_address(this.to());
    let made = Socket::new(domain, Type::RAW, Some(Protocol::from(OWN_HEADER)));
    let socket = this.needed("raw socket with own header", made)?;
    let sent: io::Result<usize> = socket.send_to(packet, &SocketAddr::new(to, 0).into());
    this.tried(Call::Send, sent).map(drop)
}
