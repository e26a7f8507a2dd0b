//! What is to become of each attempt of `egress-agent probe`: with enforcement, and without.

use Event::{EtherType, On, Own, Protocol};
use Face::{Any, Gateway, Packet, Socket, Wire};
use Open::{Answered, Arrives, Never};

/// How the pod sees that it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    /// `connect` or `send` fails: a hook on sockets.
    Socket,
    /// `send` fails: the hook on the packets of a cgroup.
    Packet,
    /// It is sent and lost.
    Wire,
    /// The connection is the gateway's, which refuses what it is asked for.
    Gateway,
    /// Any of the hooks may be first, or the kernel refuses to make the socket.
    Any,
}

/// What becomes of it where nothing enforces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// The target answers.
    Answered,
    /// It arrives at the target, which has no answer.
    Arrives,
    /// It doesn't arrive even then, and why.
    Never(&'static str),
}

/// How its event is told from the others'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// By the port that is its own.
    Own,
    /// By a port that is the protocol's.
    On(u16),
    /// By the protocol, one for IPv4 and one for IPv6.
    Protocol(&'static str, &'static str),
    /// By the ethertype.
    EtherType(&'static str),
    /// Only by its reason.
    Reason,
    /// Only by its reason, and only where the kernel has an active BPF LSM.
    Family,
    /// There may be none: the socket isn't made.
    None,
}

/// One attempt: its name (that of one family, or of both), and what is to become of it.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// `ah`, or `ah-v6` where the families differ.
    pub name: &'static str,
    /// What the pod sees.
    pub face: Face,
    /// The reasons that may be given.
    pub reasons: &'static [&'static str],
    /// How its event is known.
    pub event: Event,
    /// What becomes of it where nothing enforces.
    pub open: Open,
}

const fn way(
    name: &'static str,
    face: Face,
    reasons: &'static [&'static str],
    event: Event,
    open: Open,
) -> Way {
    Way { name, face, reasons, event, open }
}

const ICMP: Event = Protocol("ICMP", "ICMPv6");
const LITE: Event = Protocol("UDP-Lite", "UDP-Lite");
const NO_ROUTE: &[&str] = &["no_route"];
const PROTOCOL: &[&str] = &["protocol"];
const EXTENSION: &[&str] = &["extension_header"];
const TUNNEL: &[&str] = &["encapsulation"];
const FAMILY: &[&str] = &["socket_family"];
const ETHER_TYPE: &[&str] = &["ether_type"];
const LINK: Open = Never("only the link's other end sees it, and a router forwards none of these");
const UNPACKED: Open = Never("no host of the testbed takes packets out of packets");
const UNFINISHED: &[&str] = &["partial_checksum"];
const CHANGED: Open = Never("an in-cluster host is asked, which has no answer");
const ANOTHERS: Open = Never("its target is another's address, where nobody is");

/// The kinds of sockets.
#[rustfmt::skip]
pub const SOCKETS: &[Way] = &[
    way("tcp", Socket, NO_ROUTE, Own, Answered),
    way("tcp-blocking", Socket, NO_ROUTE, Own, Answered),
    way("udp-connected", Packet, PROTOCOL, Own, Answered),
    // Without enforcement it is the outside's web server that they reach.
    way("http", Socket, NO_ROUTE, On(80), Arrives),
    // Routed to the gateway, where the bytes aren't what the port carries.
    way("https", Gateway, &[], Own, Arrives),
    way("dns", Socket, PROTOCOL, On(53), Answered),
    way("dns-tcp", Socket, NO_ROUTE, On(53), Answered),
    way("dot", Socket, NO_ROUTE, On(853), Answered),
    way("quic", Socket, PROTOCOL, On(443), Answered),
    way("metadata-v4", Socket, &["denied_prefix"], On(80), Answered),
    way("metadata-v6", Socket, &["denied_prefix"], On(80), ANOTHERS),
    way("fastopen", Socket, NO_ROUTE, Own, Answered),
    way("fastopen-connect", Socket, NO_ROUTE, Own, Answered),
    way("tcp-mapped", Socket, NO_ROUTE, Own, Answered),
    way("udp-mapped", Socket, PROTOCOL, Own, Answered),
    way("fastopen-mapped", Socket, NO_ROUTE, Own, Answered),
    way("mptcp-mapped", Socket, NO_ROUTE, Own, Answered),
    way("udplite-mapped", Socket, PROTOCOL, Own, Answered),
    way("mptcp", Socket, NO_ROUTE, Own, Answered),
    way("udp", Socket, PROTOCOL, Own, Answered),
    way("udp-sendmsg", Socket, PROTOCOL, Own, Answered),
    way("udp-sendmmsg", Socket, PROTOCOL, Own, Answered),
    way("udp-gso", Socket, PROTOCOL, Own, Answered),
    way("udp-inet-on-inet6", Socket, PROTOCOL, Own, Answered),
    way("udp-unspec", Socket, &["protocol", "address_family"], Own, Answered),
    way("udp-large", Socket, PROTOCOL, Own, Answered),
    way("uring-connect", Socket, NO_ROUTE, Own, Answered),
    way("uring-sendmsg", Socket, PROTOCOL, Own, Answered),
    way("uring-socket", Socket, NO_ROUTE, Own, Answered),
    way("udplite", Socket, PROTOCOL, Own, Answered),
    way("udplite-connected", Packet, PROTOCOL, LITE, Answered),
    // No hook of a cgroup is asked for SCTP: the packets are judged, whose ports are not read.
    way("sctp", Wire, PROTOCOL, Protocol("SCTP", "SCTP"), Answered),
    way("dccp", Socket, PROTOCOL, Own, Arrives),
    way("ping-socket-v4", Packet, PROTOCOL, ICMP, Answered),
    // Linux keeps the error from the sender.
    way("ping-socket-v6", Wire, PROTOCOL, ICMP, Answered),
    way("raw-icmp", Packet, PROTOCOL, ICMP, Answered),
    way("raw-ip", Packet, PROTOCOL, Own, Answered),
    way("raw-spoofed", Packet, PROTOCOL, Own, Arrives),
    way("igmp", Packet, PROTOCOL, Protocol("IGMP", "IGMP"), Answered),
    way("ipip", Packet, PROTOCOL, Protocol("IPIP", "IPIP"), Answered),
    way("sit", Packet, PROTOCOL, Protocol("SIT", "SIT"), Answered),
    way("gre", Packet, PROTOCOL, Protocol("GRE", "GRE"), Answered),
    way("esp", Packet, PROTOCOL, Protocol("ESP", "ESP"), Answered),
    way("ah-v4", Packet, PROTOCOL, Protocol("protocol 51", ""), Answered),
    way("ah-v6", Packet, EXTENSION, Protocol("", "protocol 51"), Answered),
    way("ospf", Packet, PROTOCOL, Protocol("protocol 89", "protocol 89"), Answered),
    way("raw-sctp", Packet, PROTOCOL, Protocol("SCTP", "SCTP"), Answered),
    way("experimental-v4", Packet, PROTOCOL, Protocol("protocol 253", ""), Answered),
    way("experimental-v6", Packet, EXTENSION, Protocol("", "protocol 253"), Answered),
    way("record-route", Packet, &["ip_options"], Event::Reason, Answered),
    way("source-route", Packet, &["ip_options"], Event::Reason,
        Never("Linux routers drop source routes (accept_source_route)")),
    way("ip-options", Socket, PROTOCOL, Own, Answered),
    way("mark", Socket, PROTOCOL, Own, Answered),
    way("device", Socket, PROTOCOL, Own, Answered),
    way("transparent", Socket, PROTOCOL, Own, Arrives),
    way("freebind-v4", Socket, PROTOCOL, Own, Never("Linux routes no IPv4 packet of an address that isn't its own")),
    way("freebind-v6", Socket, PROTOCOL, Own, Arrives),
    way("packet", Wire, PROTOCOL, Own, Answered),
    way("packet-dgram", Wire, PROTOCOL, Own, Answered),
    way("packet-ring", Wire, PROTOCOL, Own, Answered),
    way("packet-bypass", Wire, PROTOCOL, Own, Answered),
];

/// Sockets from before, and from elsewhere.
#[rustfmt::skip]
pub const OLD: &[Way] = &[
    // The agent closes what was open and isn't allowed, where the kernel can: then the socket is
    // dead before it is used, and no hook has anything to tell.
    way("held-connection", Any, &[], Event::None, Answered),
    way("held-udp-connected", Any, &[], Event::None, Answered),
    way("held-tcp", Socket, NO_ROUTE, Own, Answered),
    way("held-udp", Socket, PROTOCOL, Own, Answered),
    way("held-udplite", Socket, PROTOCOL, Own, Answered),
    way("passed-tcp", Wire, NO_ROUTE, Own, Answered),
    way("passed-udp", Wire, PROTOCOL, Own, Answered),
    way("passed-udplite", Wire, PROTOCOL, LITE, Answered),
];

/// The kinds of packets.
#[rustfmt::skip]
pub const PACKETS: &[Way] = &[
    way("vxlan", Socket, PROTOCOL, On(4789), Answered),
    way("geneve", Socket, PROTOCOL, On(6081), Answered),
    way("packet-spoofed", Wire, &["spoofed_source"], Own, Arrives),
    way("mac-spoofed", Wire, &["spoofed_hardware"], Event::Reason, CHANGED),
    way("icmp-error", Wire, &["forged_error"], Event::Reason, CHANGED),
    way("vnet-destination", Wire, UNFINISHED, Event::Reason, CHANGED),
    way("vnet-source", Wire, UNFINISHED, Event::Reason, CHANGED),
    way("vnet-port", Wire, UNFINISHED, Event::Reason, CHANGED),
    way("packet-icmp", Wire, PROTOCOL, ICMP, Answered),
    way("packet-ipip", Wire, PROTOCOL, Protocol("IPIP", "IPIP"), Arrives),
    way("syn", Wire, NO_ROUTE, Own, Answered),
    way("syn-ack", Wire, NO_ROUTE, Own, Answered),
    way("ack", Wire, NO_ROUTE, Own, Answered),
    way("fin", Wire, NO_ROUTE, Own, Answered),
    way("rst", Wire, NO_ROUTE, Own, Arrives),
    way("vlan", Wire, ETHER_TYPE, Event::Reason, LINK),
    way("priority-tag", Wire, ETHER_TYPE, Event::Reason, Answered),
    way("qinq", Wire, ETHER_TYPE, Event::Reason, LINK),
    way("lldp", Wire, ETHER_TYPE, EtherType("ethertype 0x88cc"), LINK),
    way("mpls", Wire, ETHER_TYPE, EtherType("ethertype 0x8847"), LINK),
    way("pppoe", Wire, ETHER_TYPE, EtherType("ethertype 0x8863"), LINK),
    way("ethertype", Wire, ETHER_TYPE, EtherType("ethertype 0x88b5"), LINK),
    way("raw-802-3", Wire, ETHER_TYPE, Event::Reason, LINK),
    way("fragments", Wire, &["fragment"], Event::Reason, Answered),
    way("first-fragment", Wire, &["fragment"], Event::Reason, Arrives),
    way("later-fragment", Wire, &["fragment"], Event::Reason, Arrives),
    way("hop-by-hop", Wire, EXTENSION, Protocol("", "protocol 0"), Answered),
    way("dest-options", Wire, EXTENSION, Protocol("", "protocol 60"), Answered),
    way("routing-header", Wire, EXTENSION, Protocol("", "protocol 43"), Answered),
    way("broadcast", Socket, &["multicast"], Own, LINK),
    way("multicast", Socket, &["multicast"], Own, LINK),
    way("claim", Wire, &["spoofed_neighbour"], Event::Reason, Answered),
    way("claim-router", Wire, &["spoofed_neighbour"], Event::Reason, LINK),
    way("router-advert", Wire, &["spoofed_neighbour"], Event::Reason, LINK),
    way("reflect", Any, &["spoofed_source"], ICMP, Arrives),
    way("packet-reflect", Wire, &["spoofed_source"], ICMP, Arrives),
    // Where no hook sees the question, the answer is refused, which is an ICMP error.
    way("reflect-self", Any, &["spoofed_source", "protocol"], Event::Reason, Arrives),
    way("raw-reflect-self", Any, &["spoofed_source", "protocol"], Event::Reason, Arrives),
    way("ipip-inside", Any, TUNNEL, Event::Reason, UNPACKED),
    way("gre-inside", Any, TUNNEL, Event::Reason, UNPACKED),
    way("vxlan-inside", Any, TUNNEL, Event::Reason, UNPACKED),
    way("mpls-inside", Any, TUNNEL, Event::Reason, UNPACKED),
    way("vxlan-fragments", Any, TUNNEL, Event::Reason, UNPACKED),
    way("vsock", Any, FAMILY, Event::Family, Never("no hypervisor's program listens")),
    way("smc", Any, FAMILY, Event::Family, Answered),
    way("smc-inet", Any, FAMILY, Event::Family, Answered),
    way("xdp", Wire, PROTOCOL, Own, Answered),
    way("gateway-admin", Socket, &["gateway_port"], On(15_000), Answered),
    way("gateway-udp", Packet, &["gateway_port"], On(443), Answered),
    way("gateway-icmp", Packet, &["gateway_port"], ICMP, Answered),
];

/// Questions to the kernel that send no packet. Security modules alone refuse them, where BPF may judge there,
/// and to processes of the pod's cgroup: see the test of socket families.
pub const QUESTIONS: &[Way] = &[way("netlink", Any, &["other_namespace"], Event::Family, Answered)];

/// What is to become of an attempt, if anybody said so.
#[must_use]
pub fn find(attempt: &str, full_name: &str) -> Option<&'static Way> {
    let all = || SOCKETS.iter().chain(OLD).chain(PACKETS).chain(QUESTIONS);
    let named = |name: &str| all().find(|way| way.name == name);
    named(full_name).or_else(|| named(attempt))
}
