//! Which interface of this network namespace leads into another one (rtnetlink(7)).
//!
//! The kernel numbers the other namespaces that this one's interfaces have peers in. The number is the
//! kernel's own: nothing inside the other namespace changes it.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use netlink_packet_core::NLM_F_ACK;

use super::{Message, attributes, connect, dump, exchange, number, text};

/// `RTM_NEWLINK`, `RTM_GETLINK`, `RTM_NEWNSID` and `RTM_GETNSID`, include/uapi/linux/rtnetlink.h.
const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWNSID: u16 = 88;
const GETNSID: u16 = 90;
/// `NETNSA_*`, include/uapi/linux/net_namespace.h.
const NSID: u16 = 1;
const FD: u16 = 3;
/// `IFLA_IFNAME`, `IFLA_LINK_NETNSID` and `IFLA_TARGET_NETNSID`, include/uapi/linux/if_link.h.
const IFNAME: u16 = 3;
const LINK_NETNSID: u16 = 37;
const TARGET_NETNSID: u16 = 46;
/// Bytes of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct rtgenmsg`, padded.
const HEADER: usize = 4;
/// `NETNSA_NSID_NOT_ASSIGNED`.
const NOT_ASSIGNED: u32 = u32::MAX;

/// The number that this namespace has for another one; `None` where no interface leads there.
///
/// # Errors
/// The kernel can't be asked.
pub fn number_of(namespace: &File) -> io::Result<Option<u32>> {
    let socket: OwnedFd = connect(None)?;
    let fd = namespace.as_raw_fd().to_ne_bytes();
    let attribute = [&8_u16.to_ne_bytes()[..], &FD.to_ne_bytes(), &fd].concat();
    let request = Message { kind: GETNSID, payload: [&[0; HEADER][..], &attribute].concat() };
    let (answer, _) = exchange(&socket, &request, NLM_F_ACK)?;
    Ok(answer.iter().find_map(number_in))
}

/// The first of this namespace's interfaces whose other end is in the one with this number.
///
/// # Errors
/// The kernel can't be asked.
pub fn interface_into(number: u32) -> io::Result<Option<String>> {
    let request = Message { kind: GETLINK, payload: vec![0; LINK_HEADER] };
    let answer = dump(None, &request)?;
    Ok(answer.iter().filter_map(peer_in).find(|(_, peer)| *peer == number).map(|(name, _)| name))
}

/// The numbers of the namespaces that this one's interfaces have other ends in, each once.
///
/// # Errors
/// The kernel can't be asked.
pub fn other_ends() -> io::Result<Vec<u32>> {
    let request = Message { kind: GETLINK, payload: vec![0; LINK_HEADER] };
    let answer = dump(None, &request)?;
    let mut all: Vec<u32> = answer.iter().filter_map(peer_in).map(|(_, number)| number).collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The names of the interfaces in the namespace with this number. Minimum kernel version: 4.15.
///
/// # Errors
/// The kernel refuses: it asks for `CAP_NET_ADMIN` in the user namespace that owns that namespace.
pub fn interfaces_in(number: u32) -> io::Result<Vec<String>> {
    let attribute =
        [&8_u16.to_ne_bytes()[..], &TARGET_NETNSID.to_ne_bytes(), &number.to_ne_bytes()];
    let payload = [&[0; LINK_HEADER][..], &attribute.concat()].concat();
    let answer = dump(None, &Message { kind: GETLINK, payload })?;
    Ok(answer.iter().filter_map(|message| name_in(message, number)).collect())
}

/// The name of an interface that is told of as one in the namespace with this number.
fn name_in(message: &Message, of: u32) -> Option<String> {
    let rest = message.payload.get(LINK_HEADER..).filter(|_| message.kind == NEWLINK)?;
    let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    (number(find(TARGET_NETNSID)?)? == of).then_some(text(find(IFNAME)?))
}

/// An interface's name, and the number of the namespace that its other end is in.
fn peer_in(message: &Message) -> Option<(String, u32)> {
    let rest = message.payload.get(LINK_HEADER..).filter(|_| message.kind == NEWLINK)?;
    let find = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    Some((text(find(IFNAME)?), number(find(LINK_NETNSID)?)?))
}

fn number_in(message: &Message) -> Option<u32> {
    let rest = message.payload.get(HEADER..).filter(|_| message.kind == NEWNSID)?;
    let (_, data) = attributes(rest).find(|(kind, _)| *kind == NSID)?;
    number(data).filter(|number| *number != NOT_ASSIGNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_is_no_other_one() {
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        assert_eq!(number_of(&own).unwrap(), None);
    }

    #[test]
    fn only_an_interface_with_an_end_elsewhere_leads_there() {
        let name = [10, 0, 3, 0, b'v', b'e', b't', b'h', b'0', 0, 0, 0];
        let peer = [&[8, 0, 37, 0][..], &7_u32.to_ne_bytes()].concat();
        let link = |more: &[u8]| Message {
            kind: NEWLINK,
            payload: [&[0; LINK_HEADER][..], &name, more].concat(),
        };
        assert_eq!(peer_in(&link(&peer)), Some(("veth0".into(), 7)));
        assert_eq!(peer_in(&link(&[])), None);
        assert_eq!(peer_in(&Message { kind: 17, ..link(&peer) }), None);
        assert_eq!(interface_into(NOT_ASSIGNED).unwrap(), None);
    }

    #[test]
    fn an_interface_of_another_namespace_says_of_which() {
        let name = [7, 0, 3, 0, b'e', b'0', 0, 0];
        let of = |number: u32| [&[8, 0, 46, 0][..], &number.to_ne_bytes()].concat();
        let link = |more: &[u8]| Message {
            kind: NEWLINK,
            payload: [&[0; LINK_HEADER][..], &name, more].concat(),
        };
        assert_eq!(name_in(&link(&of(3)), 3), Some("e0".into()));
        // Of another one, and one of the own.
        assert_eq!(name_in(&link(&of(4)), 3), None);
        assert_eq!(name_in(&link(&[]), 3), None);
        // There is no such namespace.
        assert!(interfaces_in(0x7fff_fff0).is_err());
    }

    #[test]
    fn the_number_is_read_and_none_is_told_apart() {
        let answer = |number: u32| Message {
            kind: NEWNSID,
            payload: [&[0; 4][..], &[8, 0, 1, 0], &number.to_ne_bytes()].concat(),
        };
        assert_eq!(number_in(&answer(7)), Some(7));
        assert_eq!(number_in(&answer(NOT_ASSIGNED)), None);
        assert_eq!(number_in(&Message { kind: 2, ..answer(7) }), None);
        assert_eq!(number_in(&Message { payload: vec![0; 3], ..answer(7) }), None);
    }
}
