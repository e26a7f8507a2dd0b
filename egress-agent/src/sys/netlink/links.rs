//! Network interfaces: which there are, and being told when that changes (rtnetlink(7)).

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::NLM_F_ACK;
use rustix::{
    io::Errno,
    net::{
        RecvFlags, SocketFlags, bind, netlink::SocketAddrNetlink, recv,
        sockopt::set_socket_recv_buffer_size,
    },
};
use tokio::io::unix::AsyncFd;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BUFFER, Message, attributes, connect, dump, exchange, number, open, text};

/// `RTM_NEWLINK` and `RTM_GETLINK`, include/uapi/linux/rtnetlink.h.
const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
/// `IFLA_*`, include/uapi/linux/if_link.h.
const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const LINK_NETNSID: u16 = 37;
const TARGET_NETNSID: u16 = 46;
/// `IFLA_INFO_KIND`, inside `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
/// Interfaces that have another end.
const PAIRS: [&str; 2] = ["veth", "netkit"];
/// `IFF_LOWER_UP`, include/uapi/linux/if.h: of a pair, that both ends are up.
const LOWER_UP: u32 = 1 << 16;
/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;
/// Receive buffer: thousands of interfaces may come at a time. What doesn't fit is an overrun,
/// which means looking at everything.
const RECEIVE: usize = 1 << 20;

/// `struct ifinfomsg`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    family: u8,
    pad: u8,
    device: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// An interface of this network namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Link {
    /// Its index, which stays when it is renamed.
    pub index: u32,
    /// Its name now.
    pub name: String,
    /// Its hardware address, if that is Ethernet's.
    pub hardware: Option<[u8; 6]>,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// What kind of virtual interface it is (`veth`, `bridge`); empty for others.
    pub kind: String,
    /// Its other end, if it is one of a pair.
    pub peer: Option<Peer>,
    /// Whether it can carry frames; of a pair, whether both ends can.
    pub carries: bool,
}

/// The other end of a pair of interfaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Peer {
    /// Its index in its network namespace.
    pub index: u32,
    /// What this namespace calls that one; `None` is this one itself.
    pub namespace: Option<u32>,
}

/// The hardware address of an interface's other end, as the kernel has it. Minimum kernel version:
/// 4.20.
///
/// # Errors
/// It is gone, or the kernel can't be asked: that takes `CAP_NET_ADMIN` in the user namespace that
/// owns its network namespace, which the host's root has.
pub fn peer_hardware(peer: Peer) -> io::Result<Option<[u8; 6]>> {
    let mut payload = Header { index: peer.index, ..Header::default() }.as_bytes().to_vec();
    if let Some(namespace) = peer.namespace {
        // An attribute of four bytes behind its header.
        payload.extend(8_u16.to_ne_bytes());
        payload.extend(TARGET_NETNSID.to_ne_bytes());
        payload.extend(namespace.to_ne_bytes());
    }
    let (answer, _) = exchange(&connect(None)?, &Message { kind: GETLINK, payload }, NLM_F_ACK)?;
    let found = answer.iter().filter_map(link).find(|link| link.index == peer.index);
    Ok(found.and_then(|link| link.hardware))
}

/// All interfaces, in the order of their indices.
///
/// # Errors
/// The kernel can't be asked.
pub fn list() -> io::Result<Vec<Link>> {
    let request = Message { kind: GETLINK, payload: Header::default().as_bytes().to_vec() };
    let answer = dump(None, &request)?;
    let mut links: Vec<Link> = answer.iter().filter_map(link).collect();
    links.sort();
    // One that came or changed during the dump may be in it twice.
    links.dedup_by_key(|link| link.index);
    Ok(links)
}

fn link(message: &Message) -> Option<Link> {
    if message.kind != NEWLINK {
        return None;
    }
    let (header, rest) = Header::read_from_prefix(&message.payload).ok()?;
    let attribute =
        |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let index = |data: &[u8]| Some(u32::from_ne_bytes(data.try_into().ok()?));
    let kind = attribute(LINKINFO)
        .and_then(|info| attributes(info).find(|(kind, _)| *kind == INFO_KIND))
        .map(|(_, kind)| text(kind))
        .unwrap_or_default();
    let other = attribute(LINK).and_then(index).filter(|_| PAIRS.contains(&&*kind));
    let namespace = attribute(LINK_NETNSID).and_then(number);
    Some(Link {
        index: header.index,
        name: text(attribute(IFNAME)?),
        hardware: attribute(ADDRESS).and_then(|data| data.try_into().ok()),
        master: attribute(MASTER).and_then(index),
        kind,
        peer: other.map(|index| Peer { index, namespace }),
        carries: header.flags & LOWER_UP != 0,
    })
}

/// Tells when interfaces come, go or change.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Listens from now on. Must be called inside a runtime.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn new() -> io::Result<Self> {
        let socket = open(None, SocketFlags::NONBLOCK)?;
        set_socket_recv_buffer_size(&socket, RECEIVE)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        Ok(Self { socket: register(socket)? })
    }

    /// Waits until something was told. What it was isn't read: [`list()`] is the truth, also after
    /// the kernel told more than the socket holds (`ENOBUFS`). Everything that waits is taken, so
    /// that a burst of messages means one look. Cancel safe.
    ///
    /// # Errors
    /// The socket can no longer be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match recv(self.socket.get_ref(), &mut buffer[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(Errno::NOBUFS) => {
                    tracing::debug!("interfaces changed faster than they were looked at");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the only way to wait for a socket that tokio doesn't know")]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` answers with the same open descriptor for as long as it lives, and the
    // `AsyncFd`, which owns it, never gives it away mutably here.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed() {
        let links = list().unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.index > 0), "{links:?}");
    }

    #[test]
    fn a_link_of_any_kind_is_read_by_its_header_and_name() {
        let header = Header { index: 7, ..Header::default() };
        let name = [10, 0, 3, 0, b'v', b'e', b't', b'h', b'0', 0, 0, 0];
        let payload = [header.as_bytes(), &[4, 0, 99, 0], &name].concat();
        let message = Message { kind: NEWLINK, payload };
        let found = Link { index: 7, name: "veth0".into(), ..Link::default() };
        assert_eq!(link(&message), Some(found.clone()));
        let hardware = [10, 0, 1, 0, 2, 0, 0, 0, 0, 9, 0, 0];
        let kind = [&[13, 0, 18, 0, 9, 0, 1, 0][..], b"veth\0", &[0; 3]].concat();
        let master = [&[8, 0, 10, 0][..], &4_u32.to_ne_bytes()].concat();
        let payload = [&message.payload[..], &hardware, &kind, &master].concat();
        let hardware = Some([2, 0, 0, 0, 0, 9]);
        let port = Link { hardware, master: Some(4), kind: "veth".into(), ..found.clone() };
        let of_pair = Message { payload, ..message.clone() };
        assert_eq!(link(&of_pair), Some(port.clone()));
        let other = [8, 0, 5, 0, 3, 0, 0, 0];
        let elsewhere = [8, 0, 37, 0, 9, 0, 0, 0];
        for (more, namespace) in [(other.to_vec(), None), ([other, elsewhere].concat(), Some(9))] {
            let payload = [&of_pair.payload[..], &more].concat();
            let peer = Some(Peer { index: 3, namespace });
            assert_eq!(
                link(&Message { payload, ..message.clone() }),
                Some(Link { peer, ..port.clone() })
            );
            // What is below an interface of another kind is no other end.
            let payload = [&message.payload[..], &more].concat();
            assert_eq!(link(&Message { payload, ..message.clone() }), Some(found.clone()));
        }
        let up = Header { index: 7, flags: LOWER_UP, ..Header::default() };
        let payload = [up.as_bytes(), &name].concat();
        assert!(link(&Message { payload, ..message.clone() }).unwrap().carries);
        let gone = Message { kind: 17, ..message.clone() };
        assert_eq!(link(&gone), None);
        for end in 0..message.payload.len() - 3 {
            let cut = Message { payload: message.payload[..end].to_vec(), ..message };
            assert_eq!(link(&cut), None, "{end}");
        }
    }
}
