//! Addresses and ports whose byte order is part of the type.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address of either family in network byte order; IPv4 is held IPv4-mapped
/// (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2), so one map serves both families and a mapped address
/// can't take a different way than the IPv4 address that it stands for.
///
/// In memory it is the address's sixteen bytes. It is made of words because the kernel's machine
/// has no unaligned access: an address of bytes would take a register, or a stack slot, for each.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Addr([u32; 4]);

/// Bits of the prefix `::ffff:0:0/96`, which comes before an IPv4 address.
pub const MAPPED_PREFIX_BITS: u32 = 96;

/// The word that ends the prefix of mapped addresses.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// `::`.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// The address `a.b.c.d`, given in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(octets)])
    }

    /// An IPv6 address in network byte order. A mapped one becomes the IPv4 address it stands for.
    #[inline(always)]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self::from_words([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// An IPv6 address from four words as they lie in memory, in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The four words of the (mapped, for IPv4) IPv6 address as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The sixteen bytes in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let [a, b, c, d] = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes()];
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// The IPv4 octets, if this is an IPv4 (or IPv4-mapped) address.
    #[inline(always)]
    #[must_use]
    pub const fn as_v4(&self) -> Option<[u8; 4]> {
        if self.is_v4() { Some(self.0[3].to_ne_bytes()) } else { None }
    }

    /// Whether this is an IPv4 (or IPv4-mapped) address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.begins_like(MAPPED)
    }

    /// Whether two words of zero and this one come first. By one comparison: the kernel's verifier goes
    /// on once for each of several, and remembers which word was what.
    #[inline(always)]
    const fn begins_like(&self, third: u32) -> bool {
        let [a, b, c, _] = self.0;
        a | b | (c ^ third) == 0
    }

    /// `127.0.0.0/8` (RFC 1122 §3.2.1.3) or `::1` (RFC 4291 §2.5.3).
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        let last = u32::from_be(self.0[3]);
        (self.is_v4() && last >> 24 == 127) || (self.begins_like(0) && last == 1)
    }

    /// `0.0.0.0` or `::`. As a destination of `connect` Linux takes it for loopback.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.0[3] == 0 && (self.begins_like(0) || self.is_v4())
    }

    /// `224.0.0.0/4` (RFC 5771), the limited broadcast address (RFC 919), or `ff00::/8`
    /// (RFC 4291 §2.7).
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        let last = u32::from_be(self.0[3]);
        (self.is_v4() && (last >> 28 == 0xe || last == u32::MAX))
            || u32::from_be(self.0[0]) >> 24 == 0xff
    }

    /// The limited broadcast address (RFC 919), which no router forwards.
    #[inline(always)]
    #[must_use]
    pub const fn is_broadcast(&self) -> bool {
        self.is_v4() && self.0[3] == u32::MAX
    }

    /// Link-local unicast (`fe80::/10`, RFC 4291 §2.5.6) or multicast of link scope (`ff02::/16`,
    /// RFC 4291 §2.7), which no router forwards.
    #[inline(always)]
    #[must_use]
    pub const fn is_link_scope(&self) -> bool {
        let first = u32::from_be(self.0[0]);
        first >> 22 == 0xfe80 >> 6 || first >> 16 == 0xff02
    }

    /// The link-local address that derives from an Ethernet address (RFC 4291 appendix A).
    #[inline(always)]
    #[must_use]
    pub const fn link_local(mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self([
            u32::from_ne_bytes([0xfe, 0x80, 0, 0]),
            0,
            u32::from_ne_bytes([a ^ 2, b, c, 0xff]),
            u32::from_ne_bytes([0xfe, d, e, f]),
        ])
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        match addr.as_v4() {
            Some(v4) => Self::V4(Ipv4Addr::from(v4)),
            None => Self::V6(Ipv6Addr::from(addr.octets())),
        }
    }
}

/// A port in network byte order, as packets and `bpf_sock_addr.user_port` hold it.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct PortBe(pub [u8; 2]);

impl PortBe {
    /// From a number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be_bytes())
    }

    /// The number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn ports_are_in_network_order_in_memory() {
        assert_eq!(PortBe::new(443).as_bytes(), [1, 0xbb]);
        assert_eq!(PortBe([1, 0xbb]).get(), 443);
    }

    #[test]
    fn the_link_local_address_is_the_interfaces() {
        let expected: IpAddr = "fe80::42:aff:fe00:5".parse().unwrap();
        assert_eq!(IpAddr::from(Addr::link_local([0x02, 0x42, 0x0a, 0, 0, 5])), expected);
    }

    proptest! {
        #[test]
        fn memory_is_the_address_in_network_order(octets: [u8; 16]) {
            let addr = Addr::v6(octets);
            prop_assert_eq!(addr.as_bytes(), octets);
            prop_assert_eq!(addr.octets(), octets);
            prop_assert_eq!(Addr::from_words(addr.words()), addr);
            prop_assert_eq!(IpAddr::from(addr), IpAddr::from(octets).to_canonical());
        }

        #[test]
        fn a_mapped_address_is_the_ipv4_address(octets: [u8; 4]) {
            let v4 = Ipv4Addr::from(octets);
            let mapped = Addr::v6(v4.to_ipv6_mapped().octets());
            prop_assert_eq!(mapped, Addr::v4(octets));
            prop_assert_eq!(mapped.as_v4(), Some(octets));
            prop_assert_eq!(mapped.is_loopback(), v4.is_loopback());
            prop_assert_eq!(mapped.is_multicast(), v4.is_multicast() || v4.is_broadcast());
        }

        #[test]
        fn kinds_are_those_of_std(octets: [u8; 16], first in prop::sample::select(vec![
            0x00_u8, 0x20, 0xfe, 0xff,
        ]), second: u8) {
            let mut octets = octets;
            (octets[0], octets[1]) = (first, second);
            let (addr, v6) = (Addr::v6(octets), Ipv6Addr::from(octets));
            prop_assert_eq!(addr.is_multicast(), v6.is_multicast());
            prop_assert_eq!(addr.is_loopback(), v6.is_loopback());
            let link = v6.is_unicast_link_local() || v6.segments()[0] == 0xff02;
            prop_assert_eq!(addr.is_link_scope(), link);
        }
    }
}
