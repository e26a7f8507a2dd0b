//! Packets made by hand: IPv4, IPv6, UDP, TCP, ICMP, their wrappings, ARP and neighbour discovery.
//! Nothing is sent here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Everyone on the link.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// Any number: it tells these packets from others in a capture.
const IDENTIFICATION: u16 = 0x7072;

/// IP protocol numbers (IANA).
pub(crate) mod protocol {
    /// ICMP for IPv4.
    pub(crate) const ICMP: u8 = 1;
    /// An IPv4 packet.
    pub(crate) const IPIP: u8 = 4;
    /// TCP.
    pub(crate) const TCP: u8 = 6;
    /// UDP.
    pub(crate) const UDP: u8 = 17;
    /// An IPv6 packet.
    pub(crate) const SIT: u8 = 41;
    /// IPv6 routing header.
    pub(crate) const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub(crate) const FRAGMENT: u8 = 44;
    /// Generic routing encapsulation.
    pub(crate) const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub(crate) const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub(crate) const DESTINATION: u8 = 60;
}

/// TCP's flags (RFC 9293 §3.1).
pub(crate) mod flags {
    /// No more data.
    pub(crate) const FIN: u8 = 0x01;
    /// Begin.
    pub(crate) const SYN: u8 = 0x02;
    /// Reset.
    pub(crate) const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub(crate) const ACK: u8 = 0x10;
}

/// Both ends of a frame's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// The sender's hardware address.
    pub source: [u8; 6],
    /// The receiver's.
    pub destination: [u8; 6],
}

/// An Ethernet frame.
#[must_use]
pub(crate) fn ethernet(link: Link, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&link.destination[..], &link.source, &ether_type.to_be_bytes(), payload].concat()
}

/// An 802.1Q tag (`ether_type` 0x8100 or 0x88a8 stands before it), and what follows.
#[must_use]
pub(crate) fn tagged(vlan: u16, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&vlan.to_be_bytes()[..], &ether_type.to_be_bytes(), payload].concat()
}

/// The ethertype of an IP packet.
#[must_use]
pub(crate) fn ether_type(packet: &[u8]) -> u16 {
    if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 }
}

/// The internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What a transport's checksum covers besides the transport (RFC 793 §3.1, RFC 8200 §8.1).
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    bytes.extend(u32::try_from(length).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// A UDP datagram with its checksum, without IP header.
#[must_use]
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = source.port().to_be_bytes().to_vec();
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(length(8 + payload.len()));
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let pseudo = pseudo_header(source.ip(), destination.ip(), protocol::UDP, bytes.len());
    // Zero would mean "none" (RFC 768).
    let sum = match checksum(&[&pseudo, &bytes]) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A TCP segment, without IP header.
#[must_use]
pub(crate) fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = source.port().to_be_bytes().to_vec();
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(0x7072_6f62_u32.to_be_bytes());
    let acknowledged = if flags & flags::ACK == 0 { 0 } else { 0x6500_0001_u32 };
    bytes.extend(acknowledged.to_be_bytes());
    bytes.extend([5 << 4, flags]);
    bytes.extend(0xffff_u16.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    let pseudo = pseudo_header(source.ip(), destination.ip(), protocol::TCP, bytes.len());
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMP or ICMPv6 echo request, without IP header.
#[must_use]
pub(crate) fn echo_request(
    source: IpAddr,
    destination: IpAddr,
    ident: u16,
    payload: &[u8],
) -> Vec<u8> {
    let v6 = destination.is_ipv6();
    let mut bytes = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    bytes.extend(ident.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(payload);
    icmp_checksum(&mut bytes, v6.then_some((source, destination)));
    bytes
}

/// "Unreachable", about a packet, without IP header (RFC 792, RFC 4443 §3.1).
#[must_use]
pub(crate) fn icmp_error(source: IpAddr, destination: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let v6 = destination.is_ipv6();
    let mut bytes = vec![if v6 { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(quoted);
    icmp_checksum(&mut bytes, v6.then_some((source, destination)));
    bytes
}

/// ICMPv6's checksum covers the addresses, ICMP's doesn't.
fn icmp_checksum(bytes: &mut [u8], addrs: Option<(IpAddr, IpAddr)>) {
    let pseudo = addrs.map(|(source, destination)| {
        pseudo_header(source, destination, protocol::ICMPV6, bytes.len())
    });
    let sum = checksum(&[&pseudo.unwrap_or_default(), bytes]);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// An IP packet, of the family that the addresses have.
#[must_use]
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source, destination, protocol, &[], (IDENTIFICATION, 0), payload)
        }
        (source, destination) => ipv6(v6(source), v6(destination), protocol, 64, payload),
    }
}

fn v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// An IPv4 packet (RFC 791 §3.1). `options` must be a multiple of four bytes; `fragment` is the
/// identification, and the field of flags and offset.
#[must_use]
pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    (ident, fragment): (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let mut bytes = vec![0x40 | u8::try_from(words).unwrap_or(15), 0];
    bytes.extend(length(words * 4 + payload.len()));
    bytes.extend(ident.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(options);
    let sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet (RFC 8200 §3).
#[must_use]
pub(crate) fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length(payload.len()));
    bytes.extend([next, hops]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// An extension header of eight bytes, and what follows: options hold a `PadN`, a routing header is
/// of type 0 with no segments left, which hosts pass over.
#[must_use]
pub(crate) fn extension(kind: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let body = if kind == protocol::ROUTING { [0, 0, 0, 0, 0, 0] } else { [1, 4, 0, 0, 0, 0] };
    [&[next, 0][..], &body, payload].concat()
}

/// A piece of what IP carries, with `more` to come. `offset` is a multiple of eight; pieces with
/// the same `ident` are put together.
#[must_use]
pub(crate) fn fragment(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    (ident, offset, more): (u16, u16, bool),
    payload: &[u8],
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let field = (offset / 8) | if more { 0x2000 } else { 0 };
            ipv4(source, destination, protocol, &[], (ident, field), payload)
        }
        (source, destination) => {
            let mut header = vec![protocol, 0];
            header.extend((offset | u16::from(more)).to_be_bytes());
            header.extend(u32::from(ident).to_be_bytes());
            header.extend(payload);
            ipv6(v6(source), v6(destination), protocol::FRAGMENT, 64, &header)
        }
    }
}

/// "Who has `target`? Tell `sender`." (RFC 826)
#[must_use]
pub(crate) fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(1, mac, sender, [0; 6], target)
}

/// "`addr` is here", to everyone, unasked.
#[must_use]
pub(crate) fn arp_claim(mac: [u8; 6], addr: Ipv4Addr) -> Vec<u8> {
    arp(2, mac, addr, BROADCAST, addr)
}

fn arp(kind: u8, mac: [u8; 6], sender: Ipv4Addr, to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, kind];
    bytes.extend(mac);
    bytes.extend(sender.octets());
    bytes.extend(to);
    bytes.extend(target.octets());
    ethernet(Link { source: mac, destination: BROADCAST }, 0x0806, &bytes)
}

/// "Who has `target`? Tell `sender`, who is at `mac`." (RFC 4861 §4.3)
#[must_use]
pub(crate) fn neighbour_solicitation(mac: [u8; 6], sender: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let last = target.octets();
    // The solicited-node address (RFC 4291 §2.7.1) and its hardware address (RFC 2464 §7).
    let group =
        Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, last[13], last[14], last[15]]);
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    body.extend([1, 1]);
    body.extend(mac);
    discovery(mac, sender, group, body)
}

/// "`target` is at `mac`", to all nodes, unasked and not to replace what they know (RFC 4861 §4.4).
#[must_use]
pub(crate) fn neighbour_advertisement(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    body.extend([2, 1]);
    body.extend(mac);
    discovery(mac, source, ALL_NODES, body)
}

/// "I am a router", with a lifetime of zero, so that nobody who hears it takes it for one
/// (RFC 4861 §4.2).
#[must_use]
pub(crate) fn router_advertisement(mac: [u8; 6], source: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![134, 0, 0, 0, 64, 0, 0, 0];
    body.extend([0; 8]);
    discovery(mac, source, ALL_NODES, body)
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn discovery(mac: [u8; 6], source: Ipv6Addr, destination: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    icmp_checksum(&mut body, Some((source.into(), destination.into())));
    let packet = ipv6(source, destination, protocol::ICMPV6, 255, &body);
    let group = destination.octets();
    let to = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    ethernet(Link { source: mac, destination: to }, 0x86dd, &packet)
}

/// The hardware address that an ARP reply or a neighbour advertisement gives for `addr`.
#[must_use]
pub(crate) fn claimed_mac(frame: &[u8], addr: IpAddr) -> Option<[u8; 6]> {
    let body = frame.get(14..)?;
    match addr {
        IpAddr::V4(addr) => {
            let reply = frame[12..14] == [8, 6] && body.get(6..8)? == [0, 2];
            (reply && body.get(14..18)? == addr.octets()).then(|| mac_at(body, 8))?
        }
        IpAddr::V6(addr) => {
            let advertisement = frame[12..14] == [0x86, 0xdd]
                && body.get(6) == Some(&protocol::ICMPV6)
                && body.get(40) == Some(&136);
            (advertisement && body.get(48..64)? == addr.octets()).then(|| mac_at(frame, 6))?
        }
    }
}

fn mac_at(bytes: &[u8], at: usize) -> Option<[u8; 6]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
