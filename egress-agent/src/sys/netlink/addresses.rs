//! Addresses of this host (rtnetlink(7)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Message, attributes, dump};

/// `RTM_NEWADDR` and `RTM_GETADDR`, include/uapi/linux/rtnetlink.h.
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
/// `IFA_ADDRESS` and `IFA_LOCAL`, include/uapi/linux/if_addr.h. On a point-to-point link the first
/// is the peer's.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// `struct ifaddrmsg`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    family: u8,
    prefix: u8,
    flags: u8,
    scope: u8,
    index: u32,
}

/// All addresses of this network namespace's interfaces, in order.
///
/// # Errors
/// The kernel can't be asked.
pub fn list() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = all()?.into_iter().map(|(_, address)| address).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// The addresses of this network namespace with the indices of their interfaces, in order.
///
/// # Errors
/// The kernel can't be asked.
pub fn all() -> io::Result<Vec<(u32, IpAddr)>> {
    let request = Message { kind: GETADDR, payload: Header::default().as_bytes().to_vec() };
    let answer = dump(None, &request)?;
    let mut addresses: Vec<(u32, IpAddr)> = answer.iter().filter_map(address).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn address(message: &Message) -> Option<(u32, IpAddr)> {
    if message.kind != NEWADDR {
        return None;
    }
    let (header, rest) = Header::read_from_prefix(&message.payload).ok()?;
    let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted);
    let (_, bytes) = find(LOCAL).or_else(|| find(ADDRESS))?;
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some((header.index, Ipv4Addr::from(octets).into()));
    }
    Some((header.index, Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_address() {
        let addresses = list().unwrap();
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST.into()), "{addresses:?}");
    }

    #[test]
    fn the_local_end_counts() {
        let attribute = |kind: u16, bytes: &[u8]| {
            let length = u16::try_from(4 + bytes.len()).unwrap();
            [&length.to_ne_bytes(), &kind.to_ne_bytes(), bytes].concat()
        };
        let message = |attributes: &[Vec<u8>]| Message {
            kind: NEWADDR,
            payload: [Header::default().as_bytes(), &attributes.concat()].concat(),
        };
        let (peer, own) = (attribute(ADDRESS, &[10, 0, 0, 2]), attribute(LOCAL, &[10, 0, 0, 1]));
        assert_eq!(address(&message(&[peer.clone(), own])), Some((0, [10, 0, 0, 1].into())));
        assert_eq!(address(&message(&[peer])), Some((0, [10, 0, 0, 2].into())));
        let v6 = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(address(&message(&[attribute(ADDRESS, &v6)])), Some((0, v6.into())));
        assert_eq!(address(&message(&[attribute(ADDRESS, &[1, 2])])), None);
        assert_eq!(address(&message(&[])), None);
    }
}
