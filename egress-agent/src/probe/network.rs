//! Where the probe is: its interface, addresses and router, as the kernel shows them without a
//! question that a hook could refuse.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use rustix::net::netdevice;
use socket2::Socket;

use super::{
    packet::{self, Link},
    packet_socket,
};
use crate::sys::interface;

/// The interface that the default route leads over, and the addresses on it.
#[derive(Clone, Debug)]
pub struct Network {
    /// The interface's name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its own IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its own IPv6 address, not link-local.
    pub v6: Option<Ipv6Addr>,
    /// The router.
    pub router_v4: Option<Ipv4Addr>,
    /// The router, IPv6.
    pub router_v6: Option<Ipv6Addr>,
    /// The router's hardware address; broadcast where it doesn't answer.
    pub router_mac: [u8; 6],
}

impl Network {
    /// Looks around. With `CAP_NET_RAW` it asks the router for its hardware address.
    ///
    /// # Errors
    /// There is no default route, or the interface can't be read.
    pub fn find() -> io::Result<Self> {
        let routes =
            |file: &str| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        let v4 = default_v4(&routes("route"));
        let v6 = default_v6(&routes("ipv6_route"));
        let name = v4.as_ref().map(|(name, _)| name).or(v6.as_ref().map(|(name, _)| name));
        let name = name.ok_or_else(|| io::Error::other("there is no default route"))?.clone();
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let mut network = Self {
            index: netdevice::name_to_index(&socket, &name)?,
            mac: interface::mac(&name)?,
            v4: interface::ipv4(&name).ok(),
            v6: own_v6(&routes("if_inet6"), &name),
            router_v4: v4.and_then(|(_, router)| router),
            router_v6: v6.and_then(|(_, router)| router),
            router_mac: packet::BROADCAST,
            name,
        };
        if let Some(mac) = network.ask() {
            network.router_mac = mac;
        }
        Ok(network)
    }

    /// The own address of a family.
    #[must_use]
    pub(super) fn own(&self, v6: bool) -> Option<IpAddr> {
        if v6 { self.v6.map(IpAddr::V6) } else { self.v4.map(IpAddr::V4) }
    }

    /// From here to the router.
    #[must_use]
    pub(super) fn link(&self) -> Link {
        Link { source: self.mac, destination: self.router_mac }
    }

    /// The router's hardware address, by ARP or neighbour discovery; three questions, then none.
    fn ask(&self) -> Option<[u8; 6]> {
        let (question, router) = match (self.v4, self.router_v4, self.v6, self.router_v6) {
            (Some(own), Some(router), ..) => {
                (packet::arp_request(self.mac, own, router), IpAddr::V4(router))
            }
            (_, _, Some(own), Some(router)) if !router.is_unicast_link_local() => {
                (packet::neighbour_solicitation(self.mac, own, router), IpAddr::V6(router))
            }
            _ => return None,
        };
        let socket = packet_socket::open(self.index).ok()?;
        for _ in 0..3 {
            packet_socket::send(&socket, &question).ok()?;
            let end = Instant::now() + Duration::from_millis(300);
            while let Some(frame) = packet_socket::receive(&socket, end) {
                if let Some(mac) = packet::claimed_mac(&frame, router) {
                    return Some(mac);
                }
            }
        }
        None
    }
}

/// Interface and router of the default route in `/proc/net/route`; the router is missing on
/// point-to-point links. Numbers are hexadecimal, in the machine's byte order.
fn default_v4(text: &str) -> Option<(String, Option<Ipv4Addr>)> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, "00000000", gateway, flags, _, _, _, "00000000", ..] = fields[..] else {
            return None;
        };
        // RTF_UP
        let up = u32::from_str_radix(flags, 16).ok()? & 1 != 0;
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        up.then(|| (name.to_owned(), Some(gateway).filter(|addr| !addr.is_unspecified())))
    })
}

/// The same of `/proc/net/ipv6_route`. Loopback has a default route too, which rejects.
fn default_v6(text: &str) -> Option<(String, Option<Ipv6Addr>)> {
    let any = "0".repeat(32);
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, gateway, .., name] = fields[..] else { return None };
        if destination != any || name == "lo" {
            return None;
        }
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        Some((name.to_owned(), Some(gateway).filter(|addr| !addr.is_unspecified())))
    })
}

/// The first address of global scope in `/proc/net/if_inet6`.
fn own_v6(text: &str, name: &str) -> Option<Ipv6Addr> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [addr, _, _, "00", _, of] = fields[..] else { return None };
        (of == name).then(|| Some(Ipv6Addr::from(u128::from_str_radix(addr, 16).ok()?)))?
    })
}

/// Every own address that isn't loopback's or link-local: what a canary listens on.
#[must_use]
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let read = |file: &str| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
    let v6 = read("if_inet6");
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [addr, _, _, "00", ..] = fields[..] else { return None };
        Some(IpAddr::V6(u128::from_str_radix(addr, 16).ok()?.into()))
    });
    let mut all: Vec<IpAddr> = local_v4(&read("fib_trie")).into_iter().map(IpAddr::V4).collect();
    all.extend(v6);
    all
}

/// Addresses of `/proc/net/fib_trie` that are this host's: a leaf `|-- ADDRESS`, and below it
/// `/32 host LOCAL`.
fn local_v4(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim) {
        if let Some(addr) = line.strip_prefix("|-- ") {
            leaf = addr.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(addr) = leaf.filter(|addr| !addr.is_loopback())
            && !found.contains(&addr)
        {
            found.push(addr);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_read() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    eth0\t00000000\t0101F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        // The file is in the machine's order, and the test's text in that of little-endian ones.
        if cfg!(target_endian = "little") {
            let router = Some(Ipv4Addr::new(10, 244, 1, 1));
            assert_eq!(default_v4(text), Some(("eth0".into(), router)));
        }
        assert_eq!(default_v4(text.lines().next().unwrap()), None);

        let zero = "0".repeat(32);
        let text = format!(
            "fd00001002440001{z} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth0\n\
             {zero} 00 {zero} 00 fd001002440001000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n",
            z = "0".repeat(16),
        );
        let router: Ipv6Addr = "fd00:1002:4400:100::1".parse().unwrap();
        assert_eq!(default_v6(&text), Some(("eth0".into(), Some(router))));
        assert_eq!(default_v6(text.lines().last().unwrap()), None);
    }

    #[test]
    fn own_addresses_are_read() {
        let text = "fe80000000000000000000000000000a 02 40 20 80     eth0\n\
                    fd001002440001000000000000000010 02 40 00 80     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(own_v6(text, "eth0"), Some("fd00:1002:4400:100::10".parse().unwrap()));
        assert_eq!(own_v6(text, "eth1"), None);

        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    \x20    |-- 10.244.1.10\n        /32 host LOCAL\n     |-- 127.0.0.1\n\
                    \x20       /32 host LOCAL\n     |-- 10.244.1.255\n        /32 link BROADCAST\n\
                    Local:\n     |-- 10.244.1.10\n        /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(10, 244, 1, 10)]);
    }
}
