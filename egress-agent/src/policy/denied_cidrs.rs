//! The default of `deniedCidrs`.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
