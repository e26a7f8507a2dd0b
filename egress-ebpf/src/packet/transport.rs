//! What a packet's transport header says.

use super::{Bytes, Neighbour, Packet, Signal, protocol};
use crate::{
    addr::{Addr, PortBe},
    reason::Reason,
};

/// Which part of a datagram a packet is, and which source it may have.
#[derive(Clone, Copy)]
pub(super) struct DatagramPart {
    /// The whole, or the first of its fragments: it has the transport's header, all of it, or a
    /// port could hide behind the cut (RFC 3128).
    pub(super) first: bool,
    /// The hop limit.
    pub(super) hops: u8,
    /// Whether it is of IPv4.
    pub(super) v4: bool,
    /// Whether nothing is behind what IPv6 carries.
    pub(super) whole: bool,
}

/// What the transport's header says.
struct Header {
    signal: Signal,
    ports: [PortBe; 2],
    echo: PortBe,
    neighbour: Neighbour,
    target: Addr,
}

impl Header {
    const NONE: Self = Self {
        signal: Signal::Other,
        ports: [PortBe([0; 2]); 2],
        echo: PortBe([0; 2]),
        neighbour: Neighbour::No,
        target: Addr::UNSPECIFIED,
    };
}

/// Reads the `length` bytes that IP carries, for a packet whose flow has all but ports. What is wrong with
/// them, if anything is.
#[inline(always)]
pub(super) fn read(
    bytes: &impl Bytes,
    offset: u32,
    length: u32,
    packet: &mut Packet,
    part: DatagramPart,
) -> Option<Reason> {
    let v4 = part.v4;
    let flow = &packet.flow;
    let header = match flow.protocol {
        _ if !part.first => Some(Header::NONE),
        protocol::TCP => tcp(bytes, offset, length),
        protocol::UDP => udp(bytes, offset, length, flow.fragment),
        // Only what Linux itself would take for an echo; the rest has nothing to say.
        protocol::ICMP if v4 => Some(icmp(bytes, offset, length)),
        // Neighbour discovery is void in fragments (RFC 6980).
        protocol::ICMPV6 if !v4 && !flow.fragment => icmpv6(bytes, offset, length, part),
        // An error is one in fragments, too.
        protocol::ICMPV6 if !v4 => Some(match bytes.load::<1>(offset).filter(|_| length >= 1) {
            Some([0..=127]) => Header { signal: Signal::Error, ..Header::NONE },
            _ => Header::NONE,
        }),
        _ => Some(Header::NONE),
    };
    let Some(Header { signal, ports, echo, neighbour, target }) = header else {
        return Some(Reason::Malformed);
    };
    [packet.flow.source_port, packet.flow.destination_port] = ports;
    (packet.signal, packet.echo) = (signal, echo);
    (packet.neighbour, packet.target) = (neighbour, target);
    None
}

/// RFC 9293 §3.1. `None` where it is malformed.
#[inline(always)]
fn tcp(bytes: &impl Bytes, offset: u32, length: u32) -> Option<Header> {
    let header = bytes.load::<20>(offset).filter(|_| length >= 20)?;
    let own = u32::from(header[12] >> 4) * 4;
    if own < 20 || own > length {
        return None;
    }
    let ports = [PortBe([header[0], header[1]]), PortBe([header[2], header[3]])];
    Some(Header { signal: Signal::of_tcp(header[13]), ports, ..Header::NONE })
}

/// RFC 768. `None` where it is malformed.
#[inline(always)]
fn udp(bytes: &impl Bytes, offset: u32, length: u32, fragment: bool) -> Option<Header> {
    let header = bytes.load::<8>(offset).filter(|_| length >= 8)?;
    let own = u32::from(u16::from_be_bytes([header[4], header[5]]));
    // A fragment's length is that of the whole.
    if own < 8 || (own > length && !fragment) {
        return None;
    }
    let ports = [PortBe([header[0], header[1]]), PortBe([header[2], header[3]])];
    Some(Header { signal: Signal::Datagram, ports, ..Header::NONE })
}

/// RFC 792. What is too short has nothing to say.
#[inline(always)]
fn icmp(bytes: &impl Bytes, offset: u32, length: u32) -> Header {
    match bytes.load::<8>(offset).filter(|_| length >= 8) {
        Some([8, 0, _, _, high, low, ..]) => echo(Signal::EchoRequest, high, low),
        Some([0, 0, _, _, high, low, ..]) => echo(Signal::EchoReply, high, low),
        // Unreachable, source quench, redirect, a router's advertisement, time exceeded, parameter
        // problem.
        Some([3 | 4 | 5 | 9 | 11 | 12, ..]) => Header { signal: Signal::Error, ..Header::NONE },
        _ => Header::NONE,
    }
}

#[inline(always)]
const fn echo(signal: Signal, high: u8, low: u8) -> Header {
    Header { signal, echo: PortBe([high, low]), ..Header::NONE }
}

/// Bytes of options that a message of neighbour discovery may have: one with a hardware address, and one with a
/// nonce (RFC 7527). Each takes eight. What is longer carries something else, to whoever is on the link.
pub(super) const OPTIONS: u32 = 2 * 8;

/// Whether as many bytes behind a message of neighbour discovery may be its options.
#[inline(always)]
const fn are_options(length: u32) -> bool {
    length.is_multiple_of(8) && length <= OPTIONS
}

/// RFC 4443, and RFC 4861 for neighbour discovery, which is void when it came over a router
/// (§7.1: hop limit 255). `None` where it is malformed.
#[inline(always)]
fn icmpv6(bytes: &impl Bytes, offset: u32, length: u32, part: DatagramPart) -> Option<Header> {
    let [kind, code, _, _, high, low, ..] = bytes.load::<8>(offset).filter(|_| length >= 8)?;
    let neighbour = match kind {
        133..=137 if part.hops != 255 => return None,
        // Longer than the shortest frame, so a frame has no padding behind it.
        133 | 135 | 136 if !part.whole => return None,
        133 if !are_options(length - 8) => return None,
        133 => Neighbour::RouterSolicitation,
        134 | 137 => Neighbour::RouterOnly,
        135 | 136 => {
            // An IPv4 address is unowned here, though the same pod may have it.
            let fits = length >= 24 && are_options(length - 24);
            let target = bytes.load_addr(offset + 8).filter(|_| fits);
            let target = target.filter(|target| !target.is_v4())?;
            let neighbour =
                if kind == 135 { Neighbour::Solicitation } else { Neighbour::Advertisement };
            return Some(Header { neighbour, target, ..Header::NONE });
        }
        128 if code == 0 => return Some(echo(Signal::EchoRequest, high, low)),
        129 if code == 0 => return Some(echo(Signal::EchoReply, high, low)),
        0..=127 => return Some(Header { signal: Signal::Error, ..Header::NONE }),
        _ => Neighbour::No,
    };
    Some(Header { neighbour, ..Header::NONE })
}
