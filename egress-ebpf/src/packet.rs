//! Reading packets. Every byte is hostile; what can't be read to the end is `Malformed`.
//!
//! IPv4 options and IPv6 extension headers are refused wherever they lead, so headers lie at fixed
//! offsets and nothing has to be walked. The extension headers that pass are the fragment header (to
//! the cluster) and the one of a report of multicast groups (to the link).

pub mod offload;
mod quoted;
mod transport;

pub use self::quoted::subject_of_error;
use self::{offload::Offload, transport::Part};
use crate::{
    addr::{Addr, PortBe},
    reason::Reason,
};

/// Bytes that may end anywhere, and may refuse to be read.
pub trait Bytes {
    /// How many there are.
    fn length(&self) -> u32;
    /// The `N` bytes from `offset`, or `None` where there aren't as many.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// What is still done to the packet after the last program has seen it.
    #[inline(always)]
    fn offload(&self) -> Offload {
        Offload::NONE
    }

    /// The value, of one byte, with all forgotten that is known about it.
    ///
    /// The kernel's verifier goes on once for each value that it can tell apart. Where paths meet
    /// again, every packet that was read and every reason that was found would have a path of its
    /// own to the end of the program, so there it is made to forget.
    #[inline(always)]
    fn forget<T: Copy>(&self, value: T) -> T {
        value
    }

    /// The same for a word.
    #[inline(always)]
    fn forget_word(&self, value: u32) -> u32 {
        value
    }
}

impl Bytes for &[u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.get(offset..)?.first_chunk().copied()
    }
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Ethertypes (IANA).
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IPv6 extension headers (RFC 7045 §4, IANA), but for the fragment header. ESP isn't one here: it
/// hides what follows, so it counts as a protocol.
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 51, 60, 135, 139, 140, 253];
const FRAGMENT_HEADER: u8 = 44;
const HOP_BY_HOP_HEADER: u8 = 0;

/// What a verdict is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Unspecified where a hook has none.
    pub source: Addr,
    /// Where it wants to go.
    pub destination: Addr,
    /// Zero where there is none.
    pub source_port: PortBe,
    /// Zero where there is none.
    pub destination_port: PortBe,
    /// IP protocol number.
    pub protocol: u8,
    /// One of several fragments; only the first has ports.
    pub fragment: bool,
}

impl Flow {
    /// Whether its protocol may carry a packet inside of the packet: anything but transports. What
    /// UDP carries depends on its port.
    #[inline(always)]
    #[must_use]
    pub const fn encapsulates(&self) -> bool {
        match self.protocol {
            protocol::UDP
            | protocol::TCP
            | protocol::ICMP
            | protocol::ICMPV6
            | protocol::SCTP
            | protocol::UDP_LITE
            | protocol::DCCP => false,
            _ => true,
        }
    }

    /// Nothing known.
    pub const UNKNOWN: Self = Self {
        source: Addr::UNSPECIFIED,
        destination: Addr::UNSPECIFIED,
        source_port: PortBe([0; 2]),
        destination_port: PortBe([0; 2]),
        protocol: 0,
        fragment: false,
    };
}

/// The link's own business in an IPv6 packet (RFC 4861, RFC 3810).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Neighbour {
    /// It is no neighbour discovery.
    No,
    /// "Who has [`target`](Packet::target)?"
    Solicitation,
    /// "[`target`](Packet::target) is here."
    Advertisement,
    /// "Which routers are there?"
    RouterSolicitation,
    /// "These groups I listen to." A bridge that heard of none keeps solicitations from the pod.
    ListenerReport,
    /// A router advertisement or a redirect, which are a router's alone.
    RouterOnly,
}

/// What a packet does to a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Signal {
    /// Nothing that is known of: another protocol, a later fragment, flags that make no sense.
    Other,
    /// A UDP datagram.
    Datagram,
    /// ICMP: "answer me" (RFC 792, RFC 4443 §4.1).
    EchoRequest,
    /// ICMP: the answer.
    EchoReply,
    /// TCP: SYN without ACK.
    Syn,
    /// TCP: SYN with ACK.
    SynAck,
    /// TCP: ACK, with or without data.
    Ack,
    /// TCP: FIN with ACK.
    Fin,
    /// TCP: RST without ACK.
    Rst,
    /// TCP: RST with ACK.
    RstAck,
    /// ICMP: an error about a packet of the flow. Only [`subject_of_error`] says so.
    FlowError,
}

impl Signal {
    /// Of TCP's flags FIN, SYN, RST and ACK; the others say nothing about the connection's state.
    #[inline(always)]
    const fn of_tcp(flags: u8) -> Self {
        match flags & 0x17 {
            0x02 => Self::Syn,
            0x12 => Self::SynAck,
            0x10 => Self::Ack,
            0x11 => Self::Fin,
            0x04 => Self::Rst,
            0x14 => Self::RstAck,
            _ => Self::Other,
        }
    }

    /// Whether it can belong to a flow that has begun before, as its beginner's packet.
    #[inline(always)]
    #[must_use]
    pub const fn continues(self) -> bool {
        matches!(self, Self::Ack | Self::Fin | Self::Rst | Self::RstAck)
    }

    /// Whether it can answer a flow.
    #[inline(always)]
    #[must_use]
    pub const fn answers(self) -> bool {
        match self {
            Self::Other | Self::Syn | Self::EchoRequest => false,
            Self::Datagram
            | Self::EchoReply
            | Self::SynAck
            | Self::Ack
            | Self::Fin
            | Self::Rst
            | Self::RstAck
            | Self::FlowError => true,
        }
    }
}

/// An IP packet, as far as it could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Whence, whither and what.
    pub flow: Flow,
    /// What it does to its flow.
    pub signal: Signal,
    /// An ICMP echo's identifier; zero elsewhere.
    pub echo: PortBe,
    /// Whether it is neighbour discovery.
    pub neighbour: Neighbour,
    /// The address that a solicitation asks for or an advertisement speaks for; unspecified
    /// elsewhere.
    pub target: Addr,
    /// Why it must not pass whatever its destination is.
    pub flaw: Option<Reason>,
}

impl Packet {
    #[inline(always)]
    const fn flawed(flow: Flow, flaw: Reason) -> Self {
        Self {
            flow,
            signal: Signal::Other,
            echo: PortBe([0; 2]),
            neighbour: Neighbour::No,
            target: Addr::UNSPECIFIED,
            flaw: Some(flaw),
        }
    }
}

/// The frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// The sender's hardware address.
    pub source: [u8; 6],
    /// What follows, host byte order.
    pub ether_type: u16,
}

impl Ethernet {
    /// Bytes of the header.
    pub const LENGTH: u32 = 14;

    /// Reads the header at the start of a frame.
    #[inline(always)]
    pub fn read(bytes: &impl Bytes) -> Option<Self> {
        let [_, _, _, _, _, _, a, b, c, d, e, f, high, low] = bytes.load::<14>(0)?;
        Some(Self { source: [a, b, c, d, e, f], ether_type: u16::from_be_bytes([high, low]) })
    }
}

/// The sender's address of an ARP request or reply for IPv4 over Ethernet (RFC 826); `None` for
/// anything else.
#[inline(always)]
pub fn arp_sender(bytes: &impl Bytes, offset: u32) -> Option<Addr> {
    let packet = bytes.load::<28>(offset)?;
    let [0, 1, 8, 0, 6, 4, 0, 1 | 2, ..] = packet else { return None };
    Some(Addr::v4([packet[14], packet[15], packet[16], packet[17]]))
}

/// Reads the IP packet at `offset`; `ether_type` says of which version it must be.
#[inline(always)]
pub fn ip(bytes: &impl Bytes, offset: u32, ether_type: u16) -> Packet {
    let available = bytes.length().saturating_sub(offset);
    let offload = bytes.offload();
    let packet = match ether_type {
        ether_type::IPV4 => ipv4(bytes, offset, available, offload),
        ether_type::IPV6 => ipv6(bytes, offset, available, offload),
        _ => Packet::flawed(Flow::UNKNOWN, Reason::EtherType),
    };
    let protocol = bytes.forget(packet.flow.protocol);
    let fragment = bytes.forget(packet.flow.fragment);
    Packet {
        flow: Flow { protocol, fragment, ..packet.flow },
        signal: bytes.forget(packet.signal),
        neighbour: bytes.forget(packet.neighbour),
        flaw: bytes.forget(packet.flaw),
        ..packet
    }
}

/// RFC 791 §3.1.
#[inline(always)]
fn ipv4(bytes: &impl Bytes, offset: u32, available: u32, offload: Offload) -> Packet {
    let Some(header) = bytes.load::<20>(offset) else {
        return Packet::flawed(Flow::UNKNOWN, Reason::Malformed);
    };
    let mut flow = Flow {
        source: Addr::v4([header[12], header[13], header[14], header[15]]),
        destination: Addr::v4([header[16], header[17], header[18], header[19]]),
        protocol: header[9],
        ..Flow::UNKNOWN
    };
    match header[0] {
        0x45 => {}
        0x46..=0x4f => return Packet::flawed(flow, Reason::IpOptions),
        _ => return Packet::flawed(flow, Reason::Malformed),
    }
    let total = match u32::from(u16::from_be_bytes([header[2], header[3]])) {
        // A segmentation-offload packet that no 16-bit length can tell ("BIG TCP", kernel 6.3).
        0 if available > 0xffff => available,
        total => total,
    };
    if total < 20 || total > available {
        return Packet::flawed(flow, Reason::Malformed);
    }
    // "More fragments" or an offset. The reserved bit says nothing.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    flow.fragment = fragment != 0;
    let part = Part { first: fragment & 0x1fff == 0, hops: header[8], offload };
    transport::read(bytes, offset + 20, total - 20, flow, part)
}

/// RFC 8200 §3.
#[inline(always)]
fn ipv6(bytes: &impl Bytes, offset: u32, available: u32, offload: Offload) -> Packet {
    let (Some(header), Some(source), Some(destination)) =
        (bytes.load::<8>(offset), bytes.load(offset + 8), bytes.load(offset + 24))
    else {
        return Packet::flawed(Flow::UNKNOWN, Reason::Malformed);
    };
    let mut flow = Flow {
        source: Addr::v6(source),
        destination: Addr::v6(destination),
        protocol: header[6],
        ..Flow::UNKNOWN
    };
    // Mapped addresses stand for IPv4 in the socket interface and never belong on a wire (RFC 4291
    // §2.5.5.2); taken for the IPv4 address they could borrow its permission.
    if header[0] >> 4 != 6 || flow.source.is_v4() || flow.destination.is_v4() {
        return Packet::flawed(flow, Reason::Malformed);
    }
    let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if payload > available.saturating_sub(40) {
        return Packet::flawed(flow, Reason::Malformed);
    }
    let mut part = Part { first: true, hops: header[7], offload };
    let (mut start, mut length) = (offset + 40, payload);
    if flow.protocol == FRAGMENT_HEADER {
        let fragment = bytes.load::<8>(offset + 40).filter(|_| payload >= 8);
        let Some([next, _, high, low, ..]) = fragment else {
            return Packet::flawed(flow, Reason::Malformed);
        };
        flow.protocol = next;
        flow.fragment = true;
        part.first = u16::from_be_bytes([high, low]) & 0xfff8 == 0;
        (start, length) = (offset + 48, payload - 8);
        if next == FRAGMENT_HEADER {
            return Packet::flawed(flow, Reason::ExtensionHeader);
        }
    }
    if flow.protocol == HOP_BY_HOP_HEADER && listener_report(bytes, offset + 40, payload, header[7])
    {
        flow.protocol = protocol::ICMPV6;
        return Packet {
            flow,
            signal: Signal::Other,
            echo: PortBe([0; 2]),
            neighbour: Neighbour::ListenerReport,
            target: Addr::UNSPECIFIED,
            flaw: offload.flaw(offset + 48, &flow),
        };
    }
    if EXTENSION_HEADERS.contains(&flow.protocol) {
        return Packet::flawed(flow, Reason::ExtensionHeader);
    }
    transport::read(bytes, start, length, flow, part)
}

/// Whether it is a host's report of multicast groups: MLD version 2 (RFC 3810 §5.2), or 1 with its
/// farewell (RFC 2710 §3), after the one hop-by-hop header that they have, a router alert. Queries
/// are a router's.
#[inline(always)]
fn listener_report(bytes: &impl Bytes, offset: u32, length: u32, hops: u8) -> bool {
    match bytes.load::<16>(offset).filter(|_| length >= 16 && hops == 1) {
        Some([protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0, kind, ..]) => {
            matches!(kind, 131 | 132 | 143)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
