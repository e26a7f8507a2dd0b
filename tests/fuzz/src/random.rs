//! Values out of a fuzzer's bytes. Bytes that have run out are zeros, so every input is a case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Unstructured;
use ipnet::IpNet;

/// Few enough that a random packet meets a random policy.
const POOL_V4: [[u8; 4]; 12] = [
    [10, 0, 0, 5],
    [10, 0, 0, 6],
    [10, 1, 2, 3],
    [10, 9, 0, 10],
    [192, 0, 2, 10],
    [198, 51, 100, 7],
    [203, 0, 113, 80],
    [169, 254, 169, 254],
    [127, 0, 0, 1],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
    [0, 0, 0, 0],
];
const POOL_V6: [[u16; 8]; 10] = [
    [0xfd00, 0, 0, 0, 0, 0, 0, 5],
    [0xfd00, 0, 0, 0, 0, 0, 0, 0x99],
    [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],
    [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7],
    [0xfe80, 0, 0, 0, 0x0042, 0x0aff, 0xfe00, 0x0005],
    [0xff02, 0, 0, 0, 0, 0, 0, 1],
    [0xff0e, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x0203],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0],
];
const POOL_PORTS: [u16; 8] = [443, 80, 53, 9000, 15000, 15008, 22, 0];

/// The bytes of a case, used up from the front.
pub(crate) struct Random<'a>(Unstructured<'a>);

impl<'a> Random<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// True once in a while.
    pub(crate) fn rarely(&mut self) -> bool {
        self.u8() >= 0xe0
    }

    /// Less than `limit`, which isn't zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit
    }

    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn v4(&mut self) -> Ipv4Addr {
        let octets = if self.rarely() {
            self.0.arbitrary().unwrap_or_default()
        } else {
            self.choose(&POOL_V4)
        };
        octets.into()
    }

    pub(crate) fn v6(&mut self) -> Ipv6Addr {
        if self.rarely() {
            Ipv6Addr::from(self.0.arbitrary::<[u8; 16]>().unwrap_or_default())
        } else {
            self.choose(&POOL_V6).into()
        }
    }

    /// An address of either family; one that is mapped is spelled as IPv4.
    pub(crate) fn ip(&mut self) -> IpAddr {
        if self.bool() { IpAddr::from(self.v6()).to_canonical() } else { self.v4().into() }
    }

    pub(crate) fn net(&mut self) -> IpNet {
        let ip = self.ip();
        let widest = if ip.is_ipv4() { 32 } else { 128 };
        let length = match self.u8() {
            // Whole addresses, and the usual networks, more often than others.
            0..0x40 => widest,
            byte @ 0x40..0xa0 => widest / 4 * (byte % 4),
            byte => byte % (widest + 1),
        };
        IpNet::new(ip, length).map_or(IpNet::from(ip), |net| net.trunc())
    }

    /// A list of at most `most` things.
    pub(crate) fn list<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| one(self)).collect()
    }

    pub(crate) fn port(&mut self) -> u16 {
        if self.rarely() { self.u16() } else { self.choose(&POOL_PORTS) }
    }

    /// At most `most` bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = self.below(most + 1).min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }
}
