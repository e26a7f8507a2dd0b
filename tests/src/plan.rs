//! Names and addresses of the testbed. "The Internet" has documentation addresses (RFC 5737, RFC
//! 3849); the inside has private ones.

/// The pod.
pub const POD: &str = "10.244.1.10";
/// The pod, IPv6.
pub const POD_V6: &str = "fd00:10:244:1::10";
/// The pod's router: the app node's end of its interface.
pub const POD_ROUTER: &str = "10.244.1.1";
/// The same, IPv6.
pub const POD_ROUTER_V6: &str = "fd00:10:244:1::1";
/// The app node's interface towards the pod.
pub const POD_INTERFACE: &str = "pod0";
/// Every node's interface towards the other nodes and the outside.
pub const UPLINK: &str = "eth0";
/// The app node.
pub const APP: &str = "10.10.0.1";
/// The app node, IPv6.
pub const APP_V6: &str = "fd00:10:10::1";
/// The gateway nodes.
pub const GATEWAYS: [&str; 2] = ["10.10.0.11", "10.10.0.12"];
/// Hardware addresses of their uplinks.
pub const GATEWAY_MACS: [&str; 2] = ["02:00:0a:0a:00:11", "02:00:0a:0a:00:12"];
/// The outside's router, which every node's default route leads to.
pub const ROUTER: &str = "10.10.0.254";
/// The same, IPv6.
pub const ROUTER_V6: &str = "fd00:10:10::254";
/// The nodes' network, IPv6.
pub const NODES_V6: [u16; 4] = [0xfd00, 0x10, 0x10, 0];
/// The cluster's DNS service, on the app node.
pub const CLUSTER_DNS: &str = "10.96.0.10";
/// What is inside.
pub const CLUSTER_CIDRS: [&str; 4] =
    ["10.10.0.0/24", "10.244.0.0/16", "10.96.0.0/12", "fd00:10::/32"];

/// The outside's DNS server.
pub const OUTSIDE_DNS: &str = "192.0.2.53";
/// `edition.cnn.com`, `www.example.com` and the servers with bad certificates.
pub const WEB: &str = "198.51.100.10";
/// The same, IPv6.
pub const WEB_V6: &str = "2001:db8:100::10";
/// A raw TCP service, `tcp.example.com`.
pub const TCP_SERVICE: &str = "198.51.100.40";
/// The raw TCP service of the configuration for hosts that is shipped.
pub const LEDGER: &str = "203.0.113.20";
/// An address of the app node's that is in none of the cluster's networks.
pub const NODE_OUTSIDE: &str = "198.51.100.77";
/// Where data would be carried off to: UDP, TCP, HTTP, anything.
pub const ATTACKER: &str = "203.0.113.9";
/// The same, IPv6.
pub const ATTACKER_V6: &str = "2001:db8:bad::9";
/// The cloud's metadata service.
pub const METADATA: &str = "169.254.169.254";
/// Addresses on the outside's loopback interface.
pub const OUTSIDE_ADDRESSES: [&str; 9] = [
    OUTSIDE_DNS,
    WEB,
    WEB_V6,
    TCP_SERVICE,
    LEDGER,
    ATTACKER,
    ATTACKER_V6,
    METADATA,
    "2001:db8::53",
];
/// UDP echo at the attacker's addresses.
pub const UDP_PORT: u16 = 9999;
/// TCP echo at every external address.
pub const TCP_PORTS: [u16; 3] = [22, 5432, 8443];

/// The second pod on the app node.
pub const NEIGHBOUR: &str = "10.244.1.20";
/// The same, IPv6.
pub const NEIGHBOUR_V6: &str = "fd00:10:244:1::20";
/// The app node's interface towards the second pod.
pub const NEIGHBOUR_INTERFACE: &str = "pod1";
/// The second node.
pub const REMOTE: &str = "10.10.0.2";
/// The same, IPv6.
pub const REMOTE_V6: &str = "fd00:10:10::2";
/// The pod on the second node.
pub const REMOTE_POD: &str = "10.244.2.10";
/// The same, IPv6.
pub const REMOTE_POD_V6: &str = "fd00:10:244:2::10";
/// That pod's router: the second node's end of its interface.
pub const REMOTE_POD_ROUTER: &str = "10.244.2.1";
/// The same, IPv6.
pub const REMOTE_POD_ROUTER_V6: &str = "fd00:10:244:2::1";
/// Where peers in the cluster serve HTTP.
pub const PEER_HTTP: u16 = 8080;
/// Where they echo TCP and UDP.
pub const PEER_ECHO: u16 = 7007;

/// Hardware address of the app node's uplink.
pub const APP_MAC: &str = "02:00:0a:0a:00:01";
/// Hardware address of the second node's uplink.
pub const REMOTE_MAC: &str = "02:00:0a:0a:00:02";
/// Hardware address of the outside's router.
pub const OUTSIDE_MAC: &str = "02:00:0a:0a:00:fe";
/// Hardware address of the app node's end of the pod's interface.
pub const POD_ROUTER_MAC: &str = "02:00:0a:f4:01:01";

/// A hardware address as bytes; zeros for what isn't hexadecimal.
#[must_use]
pub fn mac_bytes(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, part) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).unwrap_or_default();
    }
    bytes
}

/// The host of the walkthrough.
pub const HOST: &str = "edition.cnn.com";

/// A host whose address may change.
pub const MOVING: &str = "moving.example.com";

/// What the DNS servers answer: name, IPv4, IPv6.
pub const ZONE: &[(&str, Option<&str>, Option<&str>)] = &[
    (HOST, Some(WEB), Some(WEB_V6)),
    ("www.example.com", Some(WEB), None),
    // A test moves it about.
    (MOVING, Some(TCP_SERVICE), None),
    // Of the configuration for hosts that is shipped.
    ("payments.example.com", Some(WEB), None),
    ("packages.example.org", Some(WEB), None),
    ("v6.example.com", None, Some(WEB_V6)),
    ("expired.example.com", Some(WEB), None),
    ("self-signed.example.com", Some(WEB), None),
    ("wrong-name.example.com", Some(WEB), None),
    ("unknown-ca.example.com", Some(WEB), None),
    ("tcp.example.com", Some(TCP_SERVICE), None),
    ("evil.example.net", Some(ATTACKER), Some(ATTACKER_V6)),
    ("inside.example.com", Some(CLUSTER_DNS), None),
    ("metadata.example.com", Some(METADATA), None),
    // Where a gateway must not go, in every disguise.
    ("inside.trap.example.com", Some(CLUSTER_DNS), None),
    ("inside-v6.trap.example.com", None, Some(APP_V6)),
    ("pod.trap.example.com", Some(POD), Some(POD_V6)),
    ("loopback.trap.example.com", Some("127.0.0.1"), None),
    ("loopback-v6.trap.example.com", None, Some("::1")),
    ("unspecified.trap.example.com", Some("0.0.0.0"), Some("::")),
    ("link-local.trap.example.com", Some("169.254.1.1"), None),
    ("link-local-v6.trap.example.com", None, Some("fe80::1")),
    ("metadata.trap.example.com", Some(METADATA), None),
    ("metadata-v6.trap.example.com", None, Some("fd00:ec2::254")),
    ("multicast.trap.example.com", Some("224.0.0.1"), Some("ff02::1")),
    ("broadcast.trap.example.com", Some("255.255.255.255"), None),
    ("gateway.trap.example.com", Some(GATEWAYS[0]), None),
    ("mapped.trap.example.com", None, Some("::ffff:10.96.0.10")),
    ("mapped-metadata.trap.example.com", None, Some("::ffff:169.254.169.254")),
    ("nat64.trap.example.com", None, Some("64:ff9b::10.96.0.10")),
    ("nat64-local.trap.example.com", None, Some("64:ff9b:1::169.254.169.254")),
    // 6to4 and Teredo of 169.254.169.254; Teredo has it inverted at the end.
    ("sixtofour.trap.example.com", None, Some("2002:a9fe:a9fe::1")),
    ("teredo.trap.example.com", None, Some("2001:0:c633:6401:0:0:5601:5601")),
    // SIIT (RFC 2765), IPv4-compatible, and ISATAP (RFC 5214) below a prefix of the outside's.
    ("siit.trap.example.com", None, Some("::ffff:0:10.96.0.10")),
    ("compatible.trap.example.com", None, Some("::10.96.0.10")),
    ("isatap.trap.example.com", None, Some("2001:db8:100::5efe:10.96.0.10")),
    ("isatap-metadata.trap.example.com", None, Some("2001:db8:100::200:5efe:169.254.169.254")),
    // An address of a node's outside of what is inside.
    ("node.trap.example.com", Some(NODE_OUTSIDE), None),
];
