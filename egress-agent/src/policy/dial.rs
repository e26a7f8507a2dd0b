//! Which addresses the gateway must not dial, whatever a name resolves to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

/// Denied unless nothing else is said: link-local networks, where clouds serve credentials, and the
/// addresses outside them that AWS (IPv6), Alibaba and Azure use for the same.
#[must_use]
pub fn default_denied() -> Vec<IpNet> {
    let v4 = |a, b, c, d, len| Ipv4Net::new(Ipv4Addr::new(a, b, c, d), len).map(IpNet::V4);
    let v6 = |ip, len| Ipv6Net::new(ip, len).map(IpNet::V6);
    [
        v4(169, 254, 0, 0, 16),
        v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        v6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
        v4(100, 100, 100, 200, 32),
        v4(168, 63, 129, 16, 32),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The addresses that are refused.
#[derive(Clone, Debug, Default)]
pub struct AddressGuard {
    refused: Vec<IpNet>,
}

impl AddressGuard {
    /// From the mesh's settings: `clusterCidrs`, `deniedCidrs`, the gateways' own addresses.
    #[must_use]
    pub fn new(mesh: &MeshConfig) -> Self {
        let gateways = mesh
            .gateways
            .iter()
            .flat_map(|group| group.endpoints.iter().chain(&group.other_addresses));
        let mut refused: Vec<IpNet> = mesh.cluster_cidrs.clone();
        refused.extend(&mesh.denied_cidrs);
        refused.extend(gateways.map(|ip| IpNet::from(ip.to_canonical())));
        Self { refused }
    }

    /// Whether this address may be dialled. An IPv4 address is judged also where it is wrapped in
    /// an IPv6 one: mapped (RFC 4291), compatible, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056),
    /// Teredo (RFC 4380).
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
    }

    fn is_refused(&self, addr: IpAddr) -> bool {
        self.refused.iter().any(|net| net.contains(&addr))
    }
}

/// The IPv4 addresses that an IPv6 address stands for.
fn wrapped(addr: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let pair = |a: u16, b: u16| Ipv4Addr::from_bits((u32::from(a) << 16) | u32::from(b));
    match addr.segments() {
        [0, 0, 0, 0, 0, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x64, 0xff9b, 1, _, _, _, a, b]
        | [0x2002, a, b, ..] => [Some(pair(a, b)), None],
        [0x2001, 0, a, b, _, _, c, d] => [Some(pair(a, b)), Some(pair(!c, !d))],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{GatewayGroup, Hop},
        types::{Host, Labels},
    };

    fn guard() -> AddressGuard {
        AddressGuard::new(&MeshConfig {
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
        ] {
            assert!(guard.allows(addr.parse().unwrap()), "{addr}");
        }
    }
}
