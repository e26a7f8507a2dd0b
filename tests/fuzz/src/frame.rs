//! Frames: built from fields, and read in another way than the programs read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::random::Random;

pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const PROTOCOLS: [u8; 12] = [TCP, TCP, TCP, UDP, UDP, ICMPV6, 1, 4, 43, FRAGMENT, 50, 136];

/// The pods' hardware address.
pub(crate) const POD_MAC: [u8; 6] = [2, 0x42, 0x0a, 0, 0, 5];

/// A frame of random fields, most often a sound one.
pub(crate) fn random(random: &mut Random<'_>) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1];
    frame.extend(POD_MAC);
    match random.u8() % 8 {
        0 => arp(random, &mut frame),
        1..=3 => ipv6(random, &mut frame),
        _ => ipv4(random, &mut frame),
    }
    // Some padding, some changed bytes, and now and then a frame that ends early.
    if random.rarely() {
        frame.extend(random.bytes(40));
    }
    for _ in 0..(random.u8() / 64).saturating_sub(1) {
        let (at, to) = (random.below(frame.len()), random.u8());
        frame[at] = to;
    }
    if random.rarely() {
        frame.truncate(random.below(frame.len() + 1));
    }
    frame
}

fn arp(random: &mut Random<'_>, frame: &mut Vec<u8>) {
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, random.u8() % 3, 2, 0x42, 0x0a, 0, 0, 5]);
    frame.extend(random.v4().octets());
    frame.extend([0; 6]);
    frame.extend(random.v4().octets());
}

fn ipv4(random: &mut Random<'_>, frame: &mut Vec<u8>) {
    let protocol = random.choose(&PROTOCOLS);
    let payload = payload(random, protocol);
    let [high, low] = length(payload.len() + 20);
    let fragment = if random.rarely() { random.choose(&[0x20, 0x40, 0x60, 0x01]) } else { 0 };
    frame.extend([8, 0, 0x45, 0, high, low, 0, 1, fragment, 0, 64, protocol, 0, 0]);
    frame.extend(random.v4().octets());
    frame.extend(random.v4().octets());
    frame.extend(payload);
}

fn ipv6(random: &mut Random<'_>, frame: &mut Vec<u8>) {
    let protocol = random.choose(&PROTOCOLS);
    let payload = payload(random, protocol);
    let [high, low] = length(payload.len());
    let hops = if random.rarely() { 64 } else { 255 };
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, hops]);
    frame.extend(random.v6().octets());
    frame.extend(random.v6().octets());
    frame.extend(payload);
}

fn payload(random: &mut Random<'_>, protocol: u8) -> Vec<u8> {
    let mut payload = vec![0xc0, 1];
    payload.extend(random.port().to_be_bytes());
    match protocol {
        TCP => {
            payload.extend([0; 8]);
            payload.extend([0x50, random.u8(), 0xff, 0xff, 0, 0, 0, 0]);
        }
        UDP => {
            let more = random.bytes(16);
            payload.extend(length(more.len() + 8));
            payload.extend([0, 0]);
            payload.extend(more);
        }
        ICMPV6 => {
            let kind = random.choose(&[128, 133, 134, 135, 135, 136, 136, 137]);
            payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            payload.extend(random.v6().octets());
        }
        FRAGMENT => {
            payload = vec![random.choose(&PROTOCOLS), 0, 0, 1, 0, 0, 0, 1];
            payload.extend(random.bytes(32));
        }
        ICMP => payload = vec![random.choose(&[8, 0, 3]), 0, 0, 0, 0, random.u8() % 4, 0, 0],
        _ => payload.extend(random.bytes(32)),
    }
    payload
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// A sound frame, as RFC 826, 791, 8200, 9293, 768 and 4861 describe it and this wall wants it: no
/// options, no extension header but a fragment's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// ARP for IPv4, with its sender.
    Arp { mac: [u8; 6], hardware: [u8; 6], sender: Ipv4Addr },
    /// A packet.
    Ip { mac: [u8; 6], packet: Packet },
}

/// A sound IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// Source and destination port, or an echo's identifier twice; zero where there is none. Of
    /// fragments the first has them.
    pub(crate) ports: [u16; 2],
    /// What begins a flow: a SYN alone, a datagram, an echo request.
    pub(crate) begins: bool,
    pub(crate) fragment: bool,
    pub(crate) discovery: Discovery,
    /// Bytes of the frame up to the packet's end; what follows is padding.
    pub(crate) end: usize,
}

/// What of neighbour discovery a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Discovery {
    No,
    Asks(Ipv6Addr),
    Tells(Ipv6Addr),
    AsksRouters,
    IsRouter,
}

/// Reads a frame; `None` where it isn't a sound one.
pub(crate) fn read(frame: &[u8]) -> Option<Frame> {
    let (header, rest) = frame.split_at_checked(14)?;
    let mac = header.get(6..12)?.try_into().ok()?;
    match header.get(12..)? {
        [8, 0] => Some(Frame::Ip { mac, packet: read_v4(rest)? }),
        [0x86, 0xdd] => Some(Frame::Ip { mac, packet: read_v6(rest)? }),
        [8, 6] => {
            let sound = rest.starts_with(&[0, 1, 8, 0, 6, 4, 0])
                && matches!(rest.get(7), Some(1 | 2))
                && rest.len() >= 28;
            let hardware: [u8; 6] = rest.get(8..14)?.try_into().ok()?;
            let sender: [u8; 4] = rest.get(14..18)?.try_into().ok()?;
            sound.then_some(Frame::Arp { mac, hardware, sender: sender.into() })
        }
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let [high, low] = bytes.get(at..at + 2)? else { return None };
    Some(usize::from(*high) * 256 + usize::from(*low))
}

fn read_v4(ip: &[u8]) -> Option<Packet> {
    let header = ip.first_chunk::<20>()?;
    let total = match number(header, 2)? {
        0 if ip.len() > 0xffff => ip.len(),
        total => total,
    };
    let payload = ip.get(20..total)?;
    let flags = number(header, 6)?;
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let first = flags % 0x2000 == 0;
    let packet = Packet {
        source: address(12).into(),
        destination: address(16).into(),
        protocol: header[9],
        ports: [0; 2],
        begins: false,
        fragment: flags & 0x2000 != 0 || flags % 0x2000 != 0,
        discovery: Discovery::No,
        end: 14 + total,
    };
    if header[0] == 0x45 { carry(packet, payload, header[8], first) } else { None }
}

fn read_v6(ip: &[u8]) -> Option<Packet> {
    let header = ip.first_chunk::<40>()?;
    let length = number(header, 4)?;
    let mut payload = ip.get(40..40 + length)?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(octets.into())
    };
    let (source, destination) = (address(8)?, address(24)?);
    if header[0] & 0xf0 != 0x60
        || source.to_ipv4_mapped().is_some()
        || destination.to_ipv4_mapped().is_some()
    {
        return None;
    }
    let mut protocol = header[6];
    let fragment = protocol == FRAGMENT;
    let mut first = true;
    if fragment {
        let (header, rest) = payload.split_at_checked(8)?;
        protocol = header[0];
        first = number(header, 2)? < 8;
        payload = rest;
    }
    // Hop-by-hop, routing, fragment (once more), authentication, destination options, mobility,
    // HIP, shim6, and an experiment's.
    if [0, 43, FRAGMENT, 51, 60, 135, 139, 140, 253].contains(&protocol) {
        return None;
    }
    let packet = Packet {
        source: source.into(),
        destination: destination.into(),
        protocol,
        ports: [0; 2],
        begins: false,
        fragment,
        discovery: Discovery::No,
        end: 54 + length,
    };
    carry(packet, payload, header[7], first)
}

/// Reads what IP carries; `first` tells that it isn't a later fragment.
fn carry(mut packet: Packet, payload: &[u8], hops: u8, first: bool) -> Option<Packet> {
    if packet.fragment {
        if first {
            packet.begin(payload);
        }
        return Some(packet);
    }
    match packet.protocol {
        TCP => {
            packet.ports = ports(payload.first_chunk::<20>()?)?;
            packet.begins = payload[13] & 0x17 == 0x02;
            let header = usize::from(payload[12] >> 4) * 4;
            (20..=payload.len()).contains(&header).then_some(packet)
        }
        UDP => {
            packet.ports = ports(payload.first_chunk::<8>()?)?;
            packet.begins = true;
            (8..=payload.len()).contains(&number(payload, 4)?).then_some(packet)
        }
        ICMPV6 if packet.destination.is_ipv6() => {
            let header = payload.first_chunk::<8>()?;
            let kind = header[0];
            packet.echo(header, 128, 129);
            let target = || -> Option<Ipv6Addr> {
                let octets: [u8; 16] = payload.get(8..24)?.try_into().ok()?;
                Some(octets.into())
            };
            packet.discovery = match kind {
                // What came over a router is void.
                133..=137 if hops != 255 => return None,
                133 => Discovery::AsksRouters,
                135 => Discovery::Asks(target()?),
                136 => Discovery::Tells(target()?),
                134 | 137 => Discovery::IsRouter,
                _ => Discovery::No,
            };
            Some(packet)
        }
        ICMP if packet.destination.is_ipv4() => {
            if let Some(header) = payload.first_chunk::<8>() {
                packet.echo(header, 8, 0);
            }
            Some(packet)
        }
        _ => Some(packet),
    }
}

fn ports(header: &[u8]) -> Option<[u16; 2]> {
    Some([u16::try_from(number(header, 0)?).ok()?, u16::try_from(number(header, 2)?).ok()?])
}

impl Packet {
    /// Takes from a first fragment what its flow is and whether it begins it.
    fn begin(&mut self, payload: &[u8]) {
        let Some(header) = payload.first_chunk::<8>() else { return };
        match self.protocol {
            TCP | UDP => {
                self.ports = ports(header).unwrap_or_default();
                let syn = payload.get(13).is_some_and(|flags| flags & 0x17 == 0x02);
                self.begins = self.protocol == UDP || syn;
            }
            ICMPV6 if self.destination.is_ipv6() => self.echo(header, 128, 129),
            ICMP if self.destination.is_ipv4() => self.echo(header, 8, 0),
            _ => {}
        }
    }

    /// Takes the identifier of an echo.
    fn echo(&mut self, header: &[u8; 8], request: u8, reply: u8) {
        if header[1] == 0 && (header[0] == request || header[0] == reply) {
            self.ports = [u16::from_be_bytes([header[4], header[5]]); 2];
            self.begins = header[0] == request;
        }
    }

    /// Whether this is in the same flow, the other way around.
    pub(crate) fn answers(&self, other: &Self) -> bool {
        (self.source, self.destination) == (other.destination, other.source)
            && self.protocol == other.protocol
            && self.ports == [other.ports[1], other.ports[0]]
    }
}

/// The frame the other way around: addresses and ports change places, and what it says is random.
pub(crate) fn turned(random: &mut Random<'_>, frame: &[u8]) -> Vec<u8> {
    let mut turned = frame.to_vec();
    let (addresses, ports) = match frame.get(12..14) {
        Some([8, 0]) => (26..34, 34),
        Some([0x86, 0xdd]) => (22..54, 54),
        _ => return turned,
    };
    let half = addresses.len() / 2;
    if let Some(addresses) = turned.get_mut(addresses) {
        addresses.rotate_left(half);
    }
    let protocol = turned.get(if ports == 34 { 23 } else { 20 }).copied();
    let Some(transport) = turned.get_mut(ports..) else { return turned };
    match protocol {
        Some(TCP) if transport.len() >= 20 => {
            transport[..4].rotate_left(2);
            transport[13] = random.choose(&[0x12, 0x10, 0x02, 0x14, 0x11, 0x18, 0x04]);
        }
        Some(UDP) if transport.len() >= 8 => transport[..4].rotate_left(2),
        Some(ICMP | ICMPV6) if transport.len() >= 8 => {
            transport[0] = random.choose(&[0, 129, 8, 128]);
        }
        _ => {}
    }
    turned
}
