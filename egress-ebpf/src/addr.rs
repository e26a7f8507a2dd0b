//! Addresses and ports whose byte order is part of the type.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address of either family in network byte order; IPv4 is held IPv4-mapped
/// (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2), so one map serves both families and a mapped address
/// can't take a different way than the IPv4 address that it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Addr(pub [u8; 16]);

/// Bits of the prefix `::ffff:0:0/96`, which comes before an IPv4 address.
pub const MAPPED_PREFIX_BITS: u32 = 96;

impl Addr {
    /// The address `a.b.c.d`, given in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// An IPv6 address in network byte order. A mapped one becomes the IPv4 address it stands for.
    #[inline(always)]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The IPv4 octets, if this is an IPv4 (or IPv4-mapped) address.
    #[inline(always)]
    #[must_use]
    pub const fn as_v4(&self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// Whether this is an IPv4 (or IPv4-mapped) address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.as_v4().is_some()
    }

    /// `127.0.0.0/8` (RFC 1122 §3.2.1.3) or `::1` (RFC 4291 §2.5.3).
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        matches!(
            self.0,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, ..]
                | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        )
    }

    /// `0.0.0.0` or `::`. As a destination of `connect` Linux takes it for loopback.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        matches!(
            self.0,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]
        )
    }

    /// `224.0.0.0/4` (RFC 5771), the limited broadcast address (RFC 919), or `ff00::/8`
    /// (RFC 4291 §2.7).
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        matches!(
            self.0,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224..=239, ..]
                | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255]
                | [0xff, ..]
        )
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
            None => Self::V6(Ipv6Addr::from(addr.0)),
        }
    }
}

/// A port in network byte order, as packets and `bpf_sock_addr.user_port` hold it.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
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
