//! Routes of this host (rtnetlink(7)).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Message, attributes, dump, number};

/// `RTM_NEWROUTE` and `RTM_GETROUTE`, include/uapi/linux/rtnetlink.h.
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `RTA_OIF` and `RTA_MULTIPATH`.
const INTERFACE: u16 = 4;
const HOPS: u16 = 9;
/// `RTN_UNICAST`: no route that refuses, and none to the host itself.
const UNICAST: u8 = 1;
/// `sizeof(struct rtnexthop)`: length, flags, weight, and the interface's index.
const HOP: usize = 8;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct rtmsg`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    family: u8,
    bits: u8,
    source_bits: u8,
    service: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

/// The destinations of all routes of this network namespace, in every table, in order. A default route
/// is one of no bits.
///
/// # Errors
/// The kernel can't be asked.
pub fn list() -> io::Result<Vec<IpNet>> {
    let request = Message { kind: GETROUTE, payload: Header::default().as_bytes().to_vec() };
    let answer = dump(None, &request)?;
    let mut routes: Vec<IpNet> = answer.iter().filter_map(route).collect();
    routes.sort();
    routes.dedup();
    Ok(routes)
}

/// The indices of the interfaces that default routes lead to, in every table and of both families.
///
/// # Errors
/// The kernel can't be asked.
pub fn default_interfaces() -> io::Result<BTreeSet<u32>> {
    let request = Message { kind: GETROUTE, payload: Header::default().as_bytes().to_vec() };
    Ok(dump(None, &request)?.iter().flat_map(default_of).collect())
}

/// The interfaces of a default route; none of another one.
fn default_of(message: &Message) -> Vec<u32> {
    let is_default = route(message).is_some_and(|net| net.prefix_len() == 0);
    let Ok((header, rest)) = Header::read_from_prefix(&message.payload) else { return Vec::new() };
    if !is_default || header.kind != UNICAST {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (kind, bytes) in attributes(rest) {
        match kind {
            INTERFACE => found.extend(number(bytes)),
            HOPS => found.extend(hops(bytes)),
            _ => {}
        }
    }
    found
}

/// The interfaces of a route's next hops, up to the first that can't be parsed.
fn hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some(hop) = bytes.get(..HOP) {
        let length = usize::from(u16::from_ne_bytes([hop[0], hop[1]]));
        found.extend(number(&hop[4..]));
        // Each begins at a multiple of four bytes.
        match bytes.get(length.next_multiple_of(4)..) {
            Some(rest) if length >= HOP => bytes = rest,
            _ => break,
        }
    }
    found
}

fn route(message: &Message) -> Option<IpNet> {
    if message.kind != NEWROUTE {
        return None;
    }
    let (header, rest) = Header::read_from_prefix(&message.payload).ok()?;
    let bytes = attributes(rest).find(|(kind, _)| *kind == DESTINATION).map(|(_, bytes)| bytes);
    let address: IpAddr = match (header.family, bytes) {
        (AF_INET, Some(bytes)) => <[u8; 4]>::try_from(bytes).ok()?.into(),
        (AF_INET6, Some(bytes)) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        (AF_INET, None) => Ipv4Addr::UNSPECIFIED.into(),
        (AF_INET6, None) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    IpNet::new(address, header.bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_route() {
        let routes = list().unwrap();
        assert!(routes.contains(&"127.0.0.0/8".parse().unwrap()), "{routes:?}");
    }

    #[test]
    fn a_route_is_read_by_its_header_and_destination() {
        let message = |family: u8, bits: u8, destination: Option<&[u8]>| {
            let header = Header { family, bits, ..Header::default() };
            let attribute = destination.map(|bytes| {
                let length = u16::try_from(4 + bytes.len()).unwrap();
                [&length.to_ne_bytes()[..], &DESTINATION.to_ne_bytes(), bytes].concat()
            });
            let payload = [header.as_bytes(), &attribute.unwrap_or_default()].concat();
            Message { kind: NEWROUTE, payload }
        };
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        assert_eq!(route(&message(AF_INET, 16, Some(&[10, 1, 0, 0]))), net("10.1.0.0/16"));
        assert_eq!(route(&message(AF_INET, 0, None)), net("0.0.0.0/0"));
        assert_eq!(route(&message(AF_INET6, 0, None)), net("::/0"));
        let v6 = Ipv6Addr::from_bits(0xfd00 << 112).octets();
        assert_eq!(route(&message(AF_INET6, 8, Some(&v6))), net("fd00::/8"));
        for wrong in
            [message(AF_INET, 33, None), message(AF_INET, 8, Some(&v6)), message(28, 0, None)]
        {
            assert_eq!(route(&wrong), None);
        }
        let whole = message(AF_INET, 16, Some(&[10, 1, 0, 0]));
        for end in 0..12 {
            let payload = whole.payload[..end].to_vec();
            assert_eq!(route(&Message { payload, ..whole.clone() }), None, "{end}");
        }
        assert_eq!(route(&Message { kind: 25, ..whole }), None);
    }

    #[test]
    fn only_default_routes_that_forward_lead_out() {
        let message = |bits: u8, kind: u8, given: &[(u16, Vec<u8>)]| {
            let header = Header { family: AF_INET, bits, kind, ..Header::default() };
            let mut payload = header.as_bytes().to_vec();
            for (kind, bytes) in given {
                let length = u16::try_from(4 + bytes.len()).unwrap();
                payload.extend([length.to_ne_bytes(), kind.to_ne_bytes()].concat());
                payload.extend(bytes);
            }
            Message { kind: NEWROUTE, payload }
        };
        let index = |number: u32| number.to_ne_bytes().to_vec();
        let hop = |length: u16, number: u32| {
            let mut bytes = [&length.to_ne_bytes()[..], &[0, 0], &index(number)].concat();
            bytes.resize(usize::from(length).max(HOP), 0);
            bytes
        };
        let eth0 = || vec![(INTERFACE, index(2))];
        assert_eq!(default_of(&message(0, UNICAST, &eth0())), [2]);
        // RTN_UNREACHABLE, as IPv6 has on loopback.
        let none = Vec::<u32>::new();
        assert_eq!(default_of(&message(0, 7, &eth0())), none);
        let inside = [(DESTINATION, vec![10, 0, 0, 0]), (INTERFACE, index(2))];
        assert_eq!(default_of(&message(8, UNICAST, &inside)), none);
        let two = [(HOPS, [hop(16, 2), hop(8, 3)].concat())];
        assert_eq!(default_of(&message(0, UNICAST, &two)), [2, 3]);
        for wrong in [0, 4, 200] {
            let cut = [(HOPS, [hop(wrong, 2)[..HOP].to_vec(), hop(8, 3)].concat())];
            assert_eq!(default_of(&message(0, UNICAST, &cut)), [2], "{wrong}");
        }
        let whole = message(0, UNICAST, &two);
        for end in 0..whole.payload.len() {
            let payload = whole.payload[..end].to_vec();
            assert!(default_of(&Message { payload, ..whole.clone() }).len() <= 2, "{end}");
        }
    }
}
