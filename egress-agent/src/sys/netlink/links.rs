//! Network interfaces: which there are, and being told when that changes (rtnetlink(7)).

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{
        RecvFlags, SocketFlags, bind, netlink::SocketAddrNetlink, recv,
        sockopt::set_socket_recv_buffer_size,
    },
};
use tokio::io::unix::AsyncFd;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BUFFER, Message, attributes, dump, open, text};

/// `RTM_NEWLINK` and `RTM_GETLINK`, include/uapi/linux/rtnetlink.h.
const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
/// `IFLA_*`, include/uapi/linux/if_link.h.
const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const PEER: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const PEER_NAMESPACE: u16 = 37;
/// `IFLA_INFO_KIND`, inside `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
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
    /// The index of its other end (`IFLA_LINK`), in whatever namespace that is.
    pub peer: Option<u32>,
    /// This namespace's number for the namespace that the other end is in; `None` where it is here.
    pub peer_namespace: Option<u32>,
    /// What kind of virtual interface it is (`veth`, `bridge`); empty for others.
    pub kind: String,
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
    Some(Link {
        index: header.index,
        name: text(attribute(IFNAME)?),
        hardware: attribute(ADDRESS).and_then(|data| data.try_into().ok()),
        master: attribute(MASTER).and_then(index),
        peer: attribute(PEER).and_then(index),
        peer_namespace: attribute(PEER_NAMESPACE).and_then(index),
        kind: attribute(LINKINFO)
            .and_then(|info| attributes(info).find(|(kind, _)| *kind == INFO_KIND))
            .map(|(_, kind)| text(kind))
            .unwrap_or_default(),
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
    /// The socket can't be read any more.
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
        let port = Link { hardware, master: Some(4), kind: "veth".into(), ..found };
        assert_eq!(link(&Message { payload, ..message.clone() }), Some(port));
        let gone = Message { kind: 17, ..message.clone() };
        assert_eq!(link(&gone), None);
        for end in 0..message.payload.len() - 3 {
            let cut = Message { payload: message.payload[..end].to_vec(), ..message };
            assert_eq!(link(&cut), None, "{end}");
        }
    }
}
