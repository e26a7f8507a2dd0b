//! Every attempt. What is missing here isn't tried.

use super::{
    attempt::{Attempt, AttemptResult, Needs, RunningAttempt},
    ip_family::Families,
    row::Row,
    techniques::{
        family, frames, gateway, held, in_cluster, link, namespace, options, ping, raw, segments,
        service, stream, udp, unfinished, uring,
    },
};

use Families::{Both, V4, V6};
use Needs::{Gateway, Hold, NetAdmin, NetRaw, Nothing, Passed};

const fn way(
    name: &'static str,
    what: &'static str,
    rows: &'static [Row],
    needs: Needs,
    families: Families,
    make: fn(&RunningAttempt<'_>) -> AttemptResult,
) -> Attempt {
    Attempt { name, what, rows, needs, families, make }
}

/// All of them, in the order of the table.
#[rustfmt::skip]
pub const ATTEMPTS: &[Attempt] = &[
    way("tcp", "TCP connect, non-blocking", &[Row::Connect], Nothing, Both, stream::connect),
    way("tcp-blocking", "TCP connect, blocking", &[Row::Connect], Nothing, Both, stream::blocking),
    way("udp-connected", "UDP connect, then send", &[Row::Connect], Nothing, Both, udp::connected),
    way("http", "TCP to port 80", &[Row::Service], Nothing, Both, service::http),
    way("https", "TCP to port 443", &[Row::Service], Nothing, Both, service::https),
    way("dns", "DNS query over UDP, port 53", &[Row::Service], Nothing, Both, service::dns),
    way("dns-tcp", "DNS over TCP, port 53", &[Row::Service], Nothing, Both, service::dns_over_tcp),
    way("dot", "DNS over TLS, port 853", &[Row::Service], Nothing, Both, service::dns_over_tls),
    way("quic", "UDP to port 443", &[Row::Service], Nothing, Both, service::quic),
    way("metadata", "the cloud's metadata service", &[Row::Metadata], Nothing, Both, service::metadata),
    way("fastopen", "TCP fast open by sendto", &[Row::FastOpen], Nothing, Both, stream::fast_open),
    way("fastopen-connect", "TCP fast open by socket option", &[Row::FastOpen], Nothing, Both, stream::fast_open_connect),
    way("tcp-mapped", "TCP to the IPv4-mapped address", &[Row::Mapped], Nothing, V4, stream::mapped),
    way("udp-mapped", "UDP to the IPv4-mapped address", &[Row::Mapped], Nothing, V4, udp::mapped),
    way("fastopen-mapped", "TCP fast open to the mapped address", &[Row::Mapped, Row::FastOpen], Nothing, V4, stream::fast_open_mapped),
    way("mptcp-mapped", "MPTCP to the IPv4-mapped address", &[Row::Mapped, Row::Mptcp], Nothing, V4, stream::mptcp_mapped),
    way("udplite-mapped", "UDP-Lite to the IPv4-mapped address", &[Row::Mapped, Row::UdpLite], Nothing, V4, udp::lite_mapped),
    way("mptcp", "multipath TCP", &[Row::Mptcp], Nothing, Both, stream::mptcp),
    way("udp", "UDP by sendto", &[Row::Unconnected], Nothing, Both, udp::unconnected),
    way("udp-sendmsg", "UDP by sendmsg", &[Row::Unconnected], Nothing, Both, udp::message),
    way("udp-sendmmsg", "UDP by sendmmsg", &[Row::Unconnected], Nothing, Both, udp::messages),
    way("udp-gso", "UDP cut by the kernel (UDP_SEGMENT)", &[Row::Unconnected], Nothing, Both, udp::segmented),
    way("udp-inet-on-inet6", "an IPv4 address given to an IPv6 socket", &[Row::Unconnected], Nothing, V4, udp::inet_on_inet6),
    way("udp-unspec", "an address of family AF_UNSPEC", &[Row::Unconnected], Nothing, V4, udp::unspecified_family),
    way("udp-large", "UDP larger than a packet", &[Row::Unconnected, Row::Fragment], Nothing, Both, udp::large),
    way("uring-connect", "io_uring: connect", &[Row::IoUring], Nothing, Both, uring::connect),
    way("uring-sendmsg", "io_uring: sendmsg", &[Row::IoUring], Nothing, Both, uring::send_message),
    way("uring-socket", "io_uring: socket", &[Row::IoUring], Nothing, Both, uring::socket),
    way("udplite", "UDP-Lite by sendto", &[Row::UdpLite], Nothing, Both, udp::lite),
    way("udplite-connected", "UDP-Lite connect, then send", &[Row::UdpLite], Nothing, Both, udp::lite_connected),
    way("sctp", "SCTP connect", &[Row::RawIp], Nothing, Both, stream::sctp),
    way("dccp", "DCCP connect", &[Row::RawIp], Nothing, Both, stream::dccp),
    way("ping-socket", "echo request from a ping socket", &[Row::Ping, Row::Tunnel], Nothing, Both, ping::socket),
    way("raw-icmp", "echo request from a raw socket", &[Row::Ping, Row::Tunnel], NetRaw, Both, ping::raw),
    way("raw-ip", "UDP with its IP header from a raw socket", &[Row::RawIp], NetRaw, Both, raw::own_header),
    way("raw-spoofed", "the same with a neighbour's address", &[Row::RawIp, Row::Spoofing], NetRaw, Both, raw::spoofed),
    way("igmp", "IP protocol 2", &[Row::RawIp], NetRaw, V4, raw::igmp),
    way("ipip", "IPv4 in IP, protocol 4", &[Row::RawIp, Row::Tunnel], NetRaw, Both, raw::ipip),
    way("sit", "IPv6 in IP, protocol 41", &[Row::RawIp, Row::Tunnel], NetRaw, Both, raw::sit),
    way("gre", "GRE, protocol 47", &[Row::RawIp, Row::Tunnel], NetRaw, Both, raw::gre),
    way("esp", "ESP, protocol 50", &[Row::RawIp, Row::Tunnel], NetRaw, Both, raw::esp),
    way("ah", "AH, protocol 51", &[Row::RawIp], NetRaw, Both, raw::ah),
    way("ospf", "OSPF, protocol 89", &[Row::RawIp], NetRaw, Both, raw::ospf),
    way("raw-sctp", "SCTP by hand, protocol 132", &[Row::RawIp], NetRaw, Both, raw::sctp),
    way("experimental", "IP protocol 253", &[Row::RawIp], NetRaw, Both, raw::experimental),
    way("vxlan", "VXLAN, in UDP", &[Row::Tunnel], Nothing, Both, service::vxlan),
    way("geneve", "Geneve, in UDP", &[Row::Tunnel], Nothing, Both, service::geneve),
    way("record-route", "IP option: record route", &[Row::IpOptions], NetRaw, V4, raw::record_route),
    way("source-route", "IP option: loose source route", &[Row::IpOptions], NetRaw, V4, raw::source_route),
    way("ip-options", "IP options by socket option", &[Row::IpOptions], Nothing, V4, raw::option_of_socket),
    way("mark", "SO_MARK", &[Row::SocketOptions], NetAdmin, Both, options::mark),
    way("device", "SO_BINDTODEVICE", &[Row::SocketOptions], Nothing, Both, options::device),
    way("transparent", "a neighbour's address by IP_TRANSPARENT", &[Row::SocketOptions, Row::Spoofing], NetAdmin, Both, options::transparent),
    way("freebind", "a neighbour's address by IP_FREEBIND", &[Row::SocketOptions, Row::Spoofing], Nothing, Both, options::freebind),
    way("packet", "UDP in a frame from a packet socket", &[Row::PacketSocket], NetRaw, Both, link::frame),
    way("packet-dgram", "packet socket without own header", &[Row::PacketSocket], NetRaw, Both, link::cooked),
    way("packet-ring", "packet socket's TX ring", &[Row::PacketSocket], NetRaw, Both, link::ring),
    way("packet-bypass", "packet socket with PACKET_QDISC_BYPASS", &[Row::PacketSocket], NetRaw, Both, link::bypass),
    way("mac-spoofed", "a neighbour's hardware address", &[Row::Spoofing], NetRaw, Both, link::other_hardware),
    way("icmp-error", "an ICMP error about another's packet", &[Row::Spoofing], NetRaw, Both, link::error),
    way("vnet-destination", "a checksum over the destination", &[Row::Unfinished], NetRaw, Both, unfinished::destination),
    way("vnet-source", "a checksum over the source", &[Row::Unfinished, Row::Spoofing], NetRaw, Both, unfinished::source),
    way("vnet-port", "a checksum over the port", &[Row::Unfinished], NetRaw, Both, unfinished::port),
    way("packet-spoofed", "a frame with a neighbour's IP address", &[Row::Spoofing], NetRaw, Both, link::spoofed),
    way("packet-icmp", "echo request in a frame", &[Row::Tunnel], NetRaw, Both, frames::echo),
    way("packet-ipip", "IPv4 in IPv4 in a frame", &[Row::Tunnel], NetRaw, V4, frames::tunnel),
    way("syn", "TCP SYN in a frame", &[Row::PacketSocket, Row::Flowless], NetRaw, Both, segments::syn),
    way("syn-ack", "TCP SYN+ACK without a flow", &[Row::Flowless], NetRaw, Both, segments::syn_ack),
    way("ack", "TCP ACK without a flow", &[Row::Flowless], NetRaw, Both, segments::ack),
    way("fin", "TCP FIN without a flow", &[Row::Flowless], NetRaw, Both, segments::fin),
    way("rst", "TCP RST without a flow", &[Row::Flowless], NetRaw, Both, segments::rst),
    way("vlan", "a VLAN tag", &[Row::EtherType], NetRaw, Both, frames::vlan),
    way("priority-tag", "VLAN tag 0", &[Row::EtherType], NetRaw, Both, frames::priority_tag),
    way("qinq", "two VLAN tags", &[Row::EtherType], NetRaw, Both, frames::double_tag),
    way("lldp", "ethertype 0x88cc, LLDP", &[Row::EtherType], NetRaw, V4, frames::lldp),
    way("mpls", "ethertype 0x8847, MPLS", &[Row::EtherType], NetRaw, V4, frames::mpls),
    way("pppoe", "ethertype 0x8863, PPPoE", &[Row::EtherType], NetRaw, V4, frames::pppoe),
    way("ethertype", "ethertype 0x88b5, experimental", &[Row::EtherType], NetRaw, V4, frames::experimental),
    way("raw-802-3", "802.3 frame with a length", &[Row::EtherType], NetRaw, V4, frames::raw_802_3),
    way("fragments", "a datagram in two fragments", &[Row::Fragment], NetRaw, Both, frames::fragments),
    way("first-fragment", "a first fragment alone", &[Row::Fragment], NetRaw, Both, frames::first_fragment),
    way("later-fragment", "a later fragment alone", &[Row::Fragment], NetRaw, Both, frames::later_fragment),
    way("hop-by-hop", "hop-by-hop options", &[Row::Fragment], NetRaw, V6, frames::hop_by_hop),
    way("dest-options", "destination options", &[Row::Fragment], NetRaw, V6, frames::destination_options),
    way("routing-header", "a routing header", &[Row::Fragment], NetRaw, V6, frames::routing_header),
    way("broadcast", "UDP to 255.255.255.255", &[Row::Multicast], Nothing, V4, udp::broadcast),
    way("multicast", "UDP to a multicast group", &[Row::Multicast], Nothing, Both, udp::multicast),
    way("claim", "ARP or ND request in another's name", &[Row::Spoofing], NetRaw, Both, frames::claim),
    way("claim-router", "ARP or ND: the router is here (--risky)", &[Row::Spoofing], NetRaw, Both, frames::claim_router),
    way("router-advert", "router advertisement", &[Row::Spoofing], NetRaw, V6, frames::advertise_router),
    way("reflect", "in-cluster echo request as the canary", &[Row::InCluster, Row::Spoofing], NetRaw, Both, in_cluster::reflect),
    way("packet-reflect", "the same in a frame", &[Row::InCluster, Row::Spoofing], NetRaw, Both, in_cluster::reflect_frame),
    way("reflect-self", "a closed port here, in the canary's name", &[Row::InCluster, Row::SocketOptions], Nothing, V6, options::reflect_self),
    way("raw-reflect-self", "echo request to this host, as the canary", &[Row::InCluster, Row::Spoofing], NetRaw, V4, in_cluster::reflect_here),
    way("ipip-inside", "IP in IP to an in-cluster host", &[Row::InCluster, Row::Tunnel], NetRaw, Both, in_cluster::tunnel),
    way("gre-inside", "GRE to an in-cluster host", &[Row::InCluster, Row::Tunnel], NetRaw, Both, in_cluster::gre),
    way("vxlan-inside", "VXLAN to an in-cluster host", &[Row::InCluster, Row::Tunnel], Nothing, Both, in_cluster::vxlan),
    way("mpls-inside", "MPLS in UDP to an in-cluster host", &[Row::InCluster, Row::Tunnel], Nothing, Both, in_cluster::mpls),
    way("vxlan-fragments", "VXLAN in fragments to an in-cluster host", &[Row::InCluster, Row::Fragment], NetRaw, Both, in_cluster::vxlan_fragments),
    way("vsock", "the hypervisor's socket, AF_VSOCK", &[Row::Family], Nothing, V4, family::vsock),
    way("smc", "AF_SMC connect", &[Row::Family], Nothing, Both, family::smc),
    way("smc-inet", "SMC as a protocol, IPPROTO_SMC", &[Row::Family], Nothing, Both, family::smc_protocol),
    way("xdp", "a frame through an AF_XDP socket", &[Row::Family, Row::PacketSocket], NetRaw, V4, family::xdp),
    way("netlink", "the other end's interfaces, by rtnetlink", &[Row::Namespace], NetAdmin, V4, namespace::list),
    way("gateway-admin", "the gateway's admin ports", &[Row::GatewayPort], Gateway, Both, gateway::admin),
    way("gateway-udp", "UDP to the gateway", &[Row::GatewayPort], Gateway, Both, gateway::udp),
    way("gateway-icmp", "echo request to the gateway", &[Row::GatewayPort], Gateway, Both, gateway::echo),
    way("held-connection", "a TCP connection opened before", &[Row::OldSocket], Hold, Both, held::held_connection),
    way("held-udp-connected", "a connected UDP socket from before", &[Row::OldSocket], Hold, Both, held::held_udp_connected),
    way("held-tcp", "a TCP socket made before, connected now", &[Row::ForeignSocket], Hold, Both, held::held_tcp),
    way("held-udp", "a UDP socket made before", &[Row::ForeignSocket], Hold, Both, held::held_udp),
    way("held-udplite", "a UDP-Lite socket made before", &[Row::ForeignSocket], Hold, Both, held::held_lite),
    way("passed-tcp", "a TCP socket passed in, connected now", &[Row::ForeignSocket], Passed, Both, held::passed_tcp),
    way("passed-udp", "a UDP socket passed in", &[Row::ForeignSocket], Passed, Both, held::passed_udp),
    way("passed-udplite", "a UDP-Lite socket passed in", &[Row::ForeignSocket], Passed, Both, held::passed_lite),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_an_attempt_and_every_attempt_a_row() {
        for row in Row::ALL {
            let named = ATTEMPTS.iter().any(|attempt| attempt.rows.contains(&row));
            assert!(named, "no attempt for {row:?}");
        }
        assert!(ATTEMPTS.iter().all(|attempt| !attempt.rows.is_empty()));
    }

    #[test]
    fn names_are_short_plain_and_their_own() {
        let mut seen = HashSet::new();
        for attempt in ATTEMPTS {
            assert!(seen.insert(attempt.name), "{} is there twice", attempt.name);
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            // A token in a DNS label is at most 63 bytes.
            assert!(attempt.name.bytes().all(plain) && attempt.name.len() < 30, "{}", attempt.name);
            assert!(attempt.what.len() <= 42, "{}: {} is long", attempt.name, attempt.what);
        }
    }
}
