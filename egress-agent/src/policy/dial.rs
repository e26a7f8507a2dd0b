//! Which addresses the gateway must not dial, whatever a name resolves to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::MeshConfig;

/// Refused in every configuration: unspecified, loopback, link-local, multicast, reserved and
/// broadcast addresses (RFC 6890).
const NEVER_V4: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

const NEVER_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    // Site-local, the forerunner of fc00::/7 (RFC 3879).
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// The addresses that are refused.
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    refused: Vec<IpNet>,
    /// Prefixes under which the network translates to IPv4 (RFC 6052).
    nat64: Vec<Ipv6Net>,
}

impl AddressGuard {
    /// From the mesh's settings: `clusterCidrs`, `deniedCidrs`, the addresses of gateways and nodes, and those by which
    /// nodes are reached from outside.
    #[must_use]
    pub fn new(mesh: &MeshConfig) -> Self {
        let gateways = mesh
            .gateways
            .iter()
            .flat_map(|group| group.endpoints.iter().chain(&group.other_addresses));
        let mut refused: Vec<IpNet> = mesh.cluster_cidrs.clone();
        refused.extend(&mesh.denied_cidrs);
        let nodes = mesh.nodes.iter().flat_map(|node| &node.addresses);
        let found = mesh.node_addresses.keys().chain(&mesh.node_external_addresses);
        refused.extend(gateways.chain(nodes).chain(found).map(|ip| IpNet::from(ip.to_canonical())));
        Self { refused, nat64: mesh.nat64_prefixes.clone() }
    }

    /// Refuses these, too: the addresses of the machine that the gateway runs on.
    #[must_use]
    pub fn and(mut self, own: &[IpAddr]) -> Self {
        self.refused.extend(own.iter().map(|ip| IpNet::from(ip.to_canonical())));
        self
    }

    /// Whether this address may be dialled. An IPv4 address is judged also where it is wrapped in
    /// an IPv6 one: mapped (RFC 4291), compatible, SIIT (RFC 2765), NAT64 (RFC 6052, RFC 8215 and
    /// `nat64Prefixes`), ISATAP (RFC 5214), 6to4 (RFC 3056), Teredo (RFC 4380).
    #[must_use]
    pub fn allows(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => self.allows_v4(v4),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => self.allows_v4(v4),
                None => self.allows_v6(v6),
            },
        }
    }

    fn allows_v4(&self, addr: Ipv4Addr) -> bool {
        let never = NEVER_V4.iter().any(|(net, len)| {
            let shift = 32 - u32::from(*len);
            addr.to_bits() >> shift == net.to_bits() >> shift
        });
        !never && !self.is_refused(IpAddr::V4(addr))
    }

    fn allows_v6(&self, addr: Ipv6Addr) -> bool {
        let never = NEVER_V6.iter().any(|(net, len)| {
            let shift = 128 - u32::from(*len);
            addr.to_bits() >> shift == net.to_bits() >> shift
        });
        !never
            && !self.is_refused(IpAddr::V6(addr))
            && wrapped(addr).into_iter().flatten().all(|v4| self.allows_v4(v4))
            && self.translated(addr).all(|v4| self.allows_v4(v4))
    }

    fn translated(&self, addr: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
        let prefixes = self.nat64.iter().filter(move |net| net.contains(&addr));
        prefixes.map(move |net| embedded(addr, net.prefix_len()))
    }

    fn is_refused(&self, addr: IpAddr) -> bool {
        self.refused.iter().any(|net| net.contains(&addr))
    }
}

/// The IPv4 addresses that an IPv6 address may stand for, in any network.
fn wrapped(addr: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let pair = |a: u16, b: u16| Ipv4Addr::from_bits((u32::from(a) << 16) | u32::from(b));
    match addr.segments() {
        // Compatible, SIIT, NAT64.
        [0, 0, 0, 0, 0 | 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        // 6to4.
        | [0x2002, a, b, ..] => [Some(pair(a, b)), None],
        // The prefix is for any length; shorter ones than 64 end in zeros, which the last 32 bits
        // show as 0.0.0.0.
        [0x64, 0xff9b, 1, _, _, _, a, b] => {
            let short = (b == 0 && a & 0xff == 0).then(|| embedded(addr, 64));
            [Some(pair(a, b)), short]
        }
        [0x2001, 0, a, b, _, _, c, d] => [Some(pair(a, b)), Some(pair(!c, !d))],
        // ISATAP, under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, a, b] => [Some(pair(a, b)), None],
        _ => [None, None],
    }
}

/// The IPv4 address behind a prefix of this length (RFC 6052 §2.2): bits 64 to 71 aren't part of it.
fn embedded(addr: Ipv6Addr, prefix: u8) -> Ipv4Addr {
    let octets = addr.octets();
    let from = usize::from(prefix / 8);
    let mut rest = (from..16).filter(|at| from == 12 || *at != 8).filter_map(|at| octets.get(at));
    let mut next = || rest.next().copied().unwrap_or_default();
    Ipv4Addr::new(next(), next(), next(), next())
}

/// Whether a prefix is as long as RFC 6052 §2.2 wants it.
#[must_use]
pub fn is_nat64_prefix(net: &IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) if matches!(net.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) => Some(*net),
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::{GatewayGroup, Hop},
        types::{Host, Labels, Node, SpiffeId},
    };

    fn guard() -> AddressGuard {
        AddressGuard::new(&MeshConfig {
            nat64_prefixes: ["2001:db8:64::/48", "2001:db8:6::/96", "2001:db9::/32"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            nodes: vec![Arc::new(Node {
                name: "n1".into(),
                principal: SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap(),
                addresses: vec!["203.0.113.20".parse().unwrap()],
            })],
            node_addresses: [("203.0.113.23".parse().unwrap(), "n2".into())].into(),
            node_external_addresses: vec!["203.0.113.24".parse().unwrap()],
            cluster_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd12::/16".parse().unwrap()],
            gateways: vec![GatewayGroup {
                service: Host::parse("gw.ns.svc.cluster.local").unwrap(),
                labels: Labels::new(),
                endpoints: vec!["203.0.113.9".parse().unwrap()],
                other_addresses: Vec::new(),
                principal: None,
                tunnel: None,
                hop: Hop::Plain,
            }],
            ..MeshConfig::default()
        })
        .and(&["203.0.113.30".parse().unwrap(), "2001:db8:a::30".parse().unwrap()])
    }

    #[test]
    fn refused_in_every_disguise() {
        let guard = guard();
        for addr in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.250",
            "240.240.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "10.1.2.3",
            "203.0.113.9",
            "203.0.113.23",
            "203.0.113.24",
            "::ffff:203.0.113.24",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd12::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:a00:1::1",
            "2001:0:7f00:1::",
            // Teredo hides the client's address by inverting it: 10.0.0.1.
            "2001:0:c633:6401:0:0:f5ff:fffe",
            // SIIT.
            "::ffff:0:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "::ffff:0:169.254.169.254",
            // ISATAP, under any prefix, of private and of global addresses.
            "2001:db8:1::5efe:10.0.0.1",
            "2001:db8:1::200:5efe:10.0.0.1",
            "fd99::5efe:169.254.169.254",
            "2606:4700:1:2:200:5efe:7f00:1",
            // NAT64, prefixes of 96 and 64 bits under the local one.
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:abcd::a00:1",
            "64:ff9b:1:abcd:a:0:100:0",
            "64:ff9b:1:a00:0:100::",
            // NAT64 under configured prefixes of 48, 96 and 32 bits.
            "2001:db8:64:a00:0:100::",
            "2001:db8:6::10.0.0.1",
            "2001:db9:a9fe:a9fe::",
            // A node's, and the machine's own.
            "203.0.113.20",
            "203.0.113.30",
            "2001:db8:a::30",
            "::ffff:0:203.0.113.20",
            "64:ff9b::203.0.113.30",
        ] {
            assert!(!guard.allows(addr.parse().unwrap()), "{addr}");
        }
    }

    #[test]
    fn dialled() {
        let guard = guard();
        for addr in [
            "198.51.100.7",
            "203.0.113.8",
            "8.8.8.8",
            // Private, but not said to be in the cluster.
            "192.168.1.1",
            "172.16.0.1",
            "fd99::1",
            "2606:4700::1111",
            "::ffff:198.51.100.7",
            "64:ff9b::198.51.100.7",
            "2002:c633:6407::1",
            "100.100.100.201",
            "::ffff:0:198.51.100.7",
            "2001:db8:1::5efe:198.51.100.7",
            "2001:db8:1::200:5efe:198.51.100.7",
            // Neither of ISATAP's marks.
            "2001:db8:1::100:5efe:10.0.0.1",
            "2001:db8:1::5eff:10.0.0.1",
            "64:ff9b:1::198.51.100.7",
            "2001:db8:64:c633:64:700::",
            "2001:db8:6::198.51.100.7",
            // No configured prefix.
            "2001:db8:7::10.0.0.1",
            "203.0.113.21",
            "2001:db8:a::31",
        ] {
            assert!(guard.allows(addr.parse().unwrap()), "{addr}");
        }
    }
}
