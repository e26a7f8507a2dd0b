//! Routes of this host (rtnetlink(7)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Message, attributes, dump};

/// `RTM_NEWROUTE` and `RTM_GETROUTE`, include/uapi/linux/rtnetlink.h.
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
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
}
