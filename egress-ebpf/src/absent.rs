//! Which look-ups a verdict can leave out, because nothing like the address is in the map.
//!
//! Most addresses are neither denied nor a gateway's, and to find that out takes two of a verdict's
//! most expensive look-ups. So [`Globals::absent`](crate::abi::Globals::absent) has a bit for each
//! of sixteen groups of addresses: set where no denied prefix, or no gateway, is in the group. Zero
//! leaves out nothing, which is right whatever the maps hold.

use crate::addr::{Addr, MAPPED_PREFIX_BITS};

/// The groups of denied prefixes: an address's first four bits, an IPv4 address's own.
const DENIED: u32 = 0xffff;
/// How far the bits of gateways' groups are moved: an address's last four bits.
const GATEWAYS: u32 = 16;
/// Bits of a denied prefix's group.
const GROUP_BITS: u32 = 4;

/// Groups of addresses of which none is in a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SurelyAbsent(u32);

impl SurelyAbsent {
    /// Nothing is denied, and there is no gateway.
    pub const ALL: Self = Self(u32::MAX);

    /// From [`Globals::absent`](crate::abi::Globals::absent).
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// As [`Globals::absent`](crate::abi::Globals::absent) holds it.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether surely no denied prefix covers the address. `false` means unknown: the exact look-up is needed.
    #[inline(always)]
    #[must_use]
    pub const fn surely_not_denied(self, addr: &Addr) -> bool {
        self.0 >> denied_group(addr) & 1 == 1
    }

    /// Whether the address is surely no gateway's. `false` means unknown: the exact look-up is needed.
    #[inline(always)]
    #[must_use]
    pub const fn surely_no_gateway(self, addr: &Addr) -> bool {
        self.0 >> gateway_group(addr) & 1 == 1
    }

    /// The same, now that addresses are denied that begin like `data` for so many bits.
    #[must_use]
    pub fn with_denied(self, bits: u32, data: &Addr) -> Self {
        if covers_ipv4(bits, data) {
            return Self(self.0 & !DENIED);
        }
        let known = if data.is_v4() { bits.saturating_sub(MAPPED_PREFIX_BITS) } else { bits };
        // A prefix that is shorter than a group's covers several groups, which are neighbours.
        let free = GROUP_BITS.saturating_sub(known);
        let first = denied_group(data) >> free << free;
        let groups = ((1_u32 << (1 << free)) - 1) << first;
        Self(self.0 & !groups)
    }

    /// The same, now that the address is a gateway's.
    #[must_use]
    pub const fn with_gateway(self, addr: &Addr) -> Self {
        Self(self.0 & !(1 << gateway_group(addr)))
    }
}

#[inline(always)]
const fn denied_group(addr: &Addr) -> u32 {
    let words = addr.words();
    let first = if addr.is_v4() { words[3] } else { words[0] };
    u32::from_be(first) >> (u32::BITS - GROUP_BITS)
}

#[inline(always)]
const fn gateway_group(addr: &Addr) -> u32 {
    GATEWAYS + (u32::from_be(addr.words()[3]) & 0xf)
}

/// Whether the prefix is an IPv6 network so wide that it holds all of mapped IPv4.
fn covers_ipv4(bits: u32, data: &Addr) -> bool {
    let mapped = u128::from_be_bytes(Addr::v4([0; 4]).octets());
    let differing = u128::from_be_bytes(data.octets()) ^ mapped;
    bits < MAPPED_PREFIX_BITS && differing.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::addr;

    #[test]
    fn what_is_known_of_one_says_nothing_of_others() {
        let absent = SurelyAbsent::ALL
            .with_denied(128, &addr("169.254.169.254"))
            .with_denied(10, &addr("fe80::"))
            .with_gateway(&addr("192.0.2.10"));
        for denied in ["169.254.169.254", "160.0.0.1", "fe80::1", "f000::"] {
            assert!(!absent.surely_not_denied(&addr(denied)), "{denied}");
        }
        for other in ["10.0.0.1", "198.51.100.7", "2001:db8::1", "::"] {
            assert!(absent.surely_not_denied(&addr(other)), "{other}");
        }
        assert!(
            !absent.surely_no_gateway(&addr("192.0.2.10"))
                && !absent.surely_no_gateway(&addr("10.0.0.26"))
        );
        assert!(absent.surely_no_gateway(&addr("192.0.2.11")));
        assert!(!SurelyAbsent::from_raw(0).surely_not_denied(&addr("10.0.0.1")));
    }

    proptest! {
        #[test]
        fn a_denied_address_is_never_left_out(
            v4: bool, octets: [u8; 16], other: [u8; 16], bits in 0u32..=128, before: u32,
        ) {
            let (data, bits) = match (v4, octets) {
                (true, [a, b, c, d, ..]) => (Addr::v4([a, b, c, d]), 96 + bits % 33),
                (false, octets) => (Addr::v6(octets), bits),
            };
            let absent = SurelyAbsent::from_raw(before).with_denied(bits, &data);
            // Any address that begins like the prefix, mapped ones included.
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let bits_of = |octets: [u8; 16]| u128::from_be_bytes(octets);
            let covered = bits_of(data.octets()) & mask | bits_of(other) & !mask;
            prop_assert!(!absent.surely_not_denied(&Addr::v6(covered.to_be_bytes())));
            prop_assert_eq!(absent.raw() & before, absent.raw(), "nothing becomes absent by it");
            let [a, b, c, d, ..] = other;
            if bits < 96 && bits_of(Addr::v4([0; 4]).octets()) & mask == bits_of(data.octets()) & mask {
                prop_assert!(!absent.surely_not_denied(&Addr::v4([a, b, c, d])));
            }
        }

        #[test]
        fn a_gateway_is_never_left_out(octets: [u8; 16], before: u32) {
            let gateway = Addr::v6(octets);
            prop_assert!(!SurelyAbsent::from_raw(before).with_gateway(&gateway).surely_no_gateway(&gateway));
        }
    }
}
