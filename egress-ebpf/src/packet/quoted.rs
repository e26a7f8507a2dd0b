//! What an ICMP error is about.

use super::{
    Bytes, Flow, Neighbour, Packet, Signal,
    ip::{IPV4, IPV6, is_extension},
    protocol,
};
use crate::addr::{Addr, PortBe};

/// Bytes of an ICMP error's header, before its quote.
const ICMP: u32 = 8;

/// Bytes of an ICMP error that are read, from its IP header on, and of no more than what it quotes.
pub const ERROR: u32 = IPV6 + ICMP + IPV6 + 8;

/// The packet that an ICMP error quotes, as far as its flow goes.
struct Quoted {
    source: Addr,
    destination: Addr,
    protocol: u8,
    /// The first bytes of what IP carried.
    payload: [u8; 8],
}

/// Whether the ICMP error in the packet at `offset` quotes a packet that its destination sent to its
/// source: an error about anything else breaks or slows other people's connections (RFC 5927).
///
/// The quote has all that identifies a flow (RFC 792: a header and eight bytes). One with IPv4 options or
/// IPv6 extension headers is none, since a routing header names another destination, which Linux asks
/// for (`seg6_icmp_srh`). Redirects are a router's.
#[inline(always)]
#[must_use]
pub fn quotes_own(bytes: &impl Bytes, offset: u32, source: Addr, destination: Addr) -> bool {
    let v4 = destination.is_v4();
    let header = if v4 { IPV4 } else { IPV6 };
    let least = header + ICMP + header + 8;
    bytes.pull(offset + least);
    // What IP says, not what the frame holds: it may be padded.
    let length = match bytes.load::<6>(offset) {
        Some([_, _, high, low, ..]) if v4 => u32::from(u16::from_be_bytes([high, low])),
        Some([.., high, low]) => IPV6 + u32::from(u16::from_be_bytes([high, low])),
        None => 0,
    };
    let at = offset + header;
    let quoted = if v4 { quoted_v4(bytes, at) } else { quoted_v6(bytes, at) };
    let own = quoted.is_some_and(|quoted| {
        quoted.source == destination
            && quoted.destination == source
            && (v4 || !is_extension(quoted.protocol))
    });
    own && length >= least
}

/// Whether an ICMP error whose [subject](super::subject_of_error) is known is about a packet that its
/// destination sent to its source: see [`quotes_own`], which asks for less.
#[inline(always)]
#[must_use]
pub fn is_own_error(packet: &Packet, subject: &Packet) -> bool {
    subject.signal == Signal::FlowError && subject.flow.source == packet.flow.source
}

/// What the ICMP error in the packet at `offset` is about, that goes to `destination`: see
/// `reader::subject_of_error`.
#[inline(always)]
pub fn subject(bytes: &impl Bytes, offset: u32, destination: Addr) -> Option<Packet> {
    let v4 = destination.is_v4();
    let quoted = if v4 { quoted_v4(bytes, offset + IPV4) } else { quoted_v6(bytes, offset + IPV6) };
    let quoted = quoted.filter(|quoted| quoted.source == destination)?;
    let [a, b, c, d, high, low, ..] = quoted.payload;
    let [remote_port, local_port] = match (quoted.protocol, a) {
        (protocol::TCP | protocol::UDP, _) => [PortBe([a, b]), PortBe([c, d])],
        // An echo request's identifier stands for the local port.
        (protocol::ICMP, 8) if v4 => [PortBe([0; 2]), PortBe([high, low])],
        (protocol::ICMPV6, 128) if !v4 => [PortBe([0; 2]), PortBe([high, low])],
        _ => return None,
    };
    Some(Packet {
        flow: Flow {
            source: quoted.destination,
            destination,
            source_port: local_port,
            destination_port: remote_port,
            protocol: quoted.protocol,
            fragment: false,
        },
        signal: Signal::FlowError,
        echo: PortBe([0; 2]),
        neighbour: Neighbour::No,
        target: Addr::UNSPECIFIED,
        flaw: None,
    })
}

/// Unreachable, time exceeded, parameter problem (RFC 792). A redirect is for the link.
#[inline(always)]
fn quoted_v4(bytes: &impl Bytes, offset: u32) -> Option<Quoted> {
    let [3 | 11 | 12, ..] = bytes.load::<8>(offset)? else { return None };
    let header = bytes.load::<20>(offset + 8)?;
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] != 0x45 || later != 0 {
        return None;
    }
    Some(Quoted {
        source: Addr::v4([header[12], header[13], header[14], header[15]]),
        destination: Addr::v4([header[16], header[17], header[18], header[19]]),
        protocol: header[9],
        payload: bytes.load(offset + 28)?,
    })
}

/// Unreachable, too big, time exceeded, parameter problem (RFC 4443 §3).
#[inline(always)]
fn quoted_v6(bytes: &impl Bytes, offset: u32) -> Option<Quoted> {
    let [1..=4, ..] = bytes.load::<8>(offset)? else { return None };
    let header = bytes.load::<8>(offset + 8)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    Some(Quoted {
        source: bytes.load_addr(offset + 16)?,
        destination: bytes.load_addr(offset + 32)?,
        protocol: header[6],
        payload: bytes.load(offset + 48)?,
    })
}
