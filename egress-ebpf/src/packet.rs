//! Reading packets. Every byte is hostile; what can't be read to the end is `Malformed`.
//!
//! IPv4 options and IPv6 extension headers are refused wherever they lead, so headers lie at fixed
//! offsets and nothing has to be walked. The extension headers that pass are the fragment header (to
//! the cluster) and the one of a report of multicast groups (to the link).

mod bytes;
mod claims;
mod groups;
mod ip;
pub mod offload;
mod quoted;
mod reader;
mod transport;

pub use self::{
    bytes::Bytes,
    claims::{ArpSender, ArpSpeaker, arp, arp_sender, gives_hardware_address},
    ip::ip,
    quoted::{ERROR, is_own_error, quotes_own, subject},
    reader::{Reader, Room, final_packet, subject_of_error},
};
use crate::{
    addr::{Addr, PortBe},
    reason::Reason,
};

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

/// What a verdict is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
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
        !matches!(
            self.protocol,
            protocol::UDP
                | protocol::TCP
                | protocol::ICMP
                | protocol::ICMPV6
                | protocol::SCTP
                | protocol::UDP_LITE
                | protocol::DCCP
        )
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
    /// ICMP: an error, which quotes the packet that it is about, or anything else that only routers
    /// send.
    Error,
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
            Self::Other | Self::Syn | Self::EchoRequest | Self::Error => false,
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
#[repr(C)]
pub struct Packet {
    /// Source, destination and protocol.
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
    /// One of which nothing could be read.
    pub const UNREADABLE: Self = Self::flawed(Flow::UNKNOWN, Reason::Malformed);

    /// One that is neither IPv4 nor IPv6.
    pub const OTHER: Self = Self::flawed(Flow::UNKNOWN, Reason::EtherType);

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

#[cfg(test)]
mod tests;
