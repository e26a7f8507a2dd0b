//! The known classes of bypass techniques. Each attempt is an example of one or more.

/// A class of bypass techniques.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// Ordinary connects.
    Connect,
    /// Data in the first segment.
    FastOpen,
    /// IPv4 addresses in IPv6's form.
    Mapped,
    /// UDP without a connect.
    Unconnected,
    /// Multipath TCP.
    Mptcp,
    /// System calls by way of a ring.
    IoUring,
    /// UDP's sibling, which has no hook.
    UdpLite,
    /// Echo requests.
    Ping,
    /// Sockets that write IP, or any protocol over it.
    RawIp,
    /// Sockets that write frames.
    PacketSocket,
    /// Sockets from before.
    OldSocket,
    /// Sockets from elsewhere.
    ForeignSocket,
    /// Options in IPv4's header.
    IpOptions,
    /// Options of sockets that ask for special treatment.
    SocketOptions,
    /// Frames that aren't IPv4, IPv6 or ARP.
    EtherType,
    /// Fragments and extension headers.
    Fragment,
    /// Packets in packets.
    Tunnel,
    /// Speaking for another.
    Spoofing,
    /// To everybody, or to many.
    Multicast,
    /// Segments that belong to no connection.
    Flowless,
    /// The gateway itself, beside its routes.
    GatewayPort,
    /// The cloud's metadata service.
    Metadata,
    /// Ordinary services at the canary's address.
    Service,
    /// By way of an in-cluster host that answers or decapsulates.
    InCluster,
    /// Sockets of other families.
    Family,
    /// Packets that are changed when they have been judged.
    Unfinished,
    /// Acting in the network namespace at the other end of the pod's interface.
    Namespace,
}

impl Row {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::Connect,
        Self::FastOpen,
        Self::Mapped,
        Self::Unconnected,
        Self::Mptcp,
        Self::IoUring,
        Self::UdpLite,
        Self::Ping,
        Self::RawIp,
        Self::PacketSocket,
        Self::OldSocket,
        Self::ForeignSocket,
        Self::IpOptions,
        Self::SocketOptions,
        Self::EtherType,
        Self::Fragment,
        Self::Tunnel,
        Self::Spoofing,
        Self::Multicast,
        Self::Flowless,
        Self::GatewayPort,
        Self::Metadata,
        Self::Service,
        Self::InCluster,
        Self::Family,
        Self::Unfinished,
        Self::Namespace,
    ];

    /// What it is, in words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Connect => "TCP and UDP connect",
            Self::FastOpen => "TCP fast open",
            Self::Mapped => "IPv4-mapped IPv6",
            Self::Unconnected => "unconnected UDP",
            Self::Mptcp => "MPTCP",
            Self::IoUring => "io_uring",
            Self::UdpLite => "UDP-Lite",
            Self::Ping => "ping sockets, raw ICMP",
            Self::RawIp => "raw IP, other protocols, spoofed source",
            Self::PacketSocket => "packet sockets",
            Self::OldSocket => "sockets opened before",
            Self::ForeignSocket => "sockets made in another cgroup, or passed in",
            Self::IpOptions => "IP options",
            Self::SocketOptions => "marks, devices, foreign addresses",
            Self::EtherType => "other ethertypes, VLAN tags",
            Self::Fragment => "fragments, extension headers",
            Self::Tunnel => "ICMP with payload, tunnels",
            Self::Spoofing => "another's address, router advertisements",
            Self::Multicast => "broadcast and multicast",
            Self::Flowless => "segments without a flow",
            Self::GatewayPort => "the gateway's other ports",
            Self::Metadata => "cloud metadata",
            Self::Service => "ordinary external services",
            Self::InCluster => "an in-cluster host that answers or decapsulates",
            Self::Family => "sockets of other families",
            Self::Unfinished => "packets that change later",
            Self::Namespace => "the node's network over netlink",
        }
    }
}
