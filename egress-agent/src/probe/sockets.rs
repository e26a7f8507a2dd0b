//! Sockets that were opened earlier, or that another process opened and passes over a Unix socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{ip_family::Family, outcome::Outcome};

/// What a socket was opened as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// TCP, not connected.
    Tcp,
    /// TCP, connected to the target.
    TcpConnected,
    /// UDP, not connected.
    Udp,
    /// UDP, connected to the target.
    UdpConnected,
    /// UDP-Lite.
    UdpLite,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Tcp, Self::TcpConnected, Self::Udp, Self::UdpConnected, Self::UdpLite];
}

/// Sockets, or why one couldn't be had.
#[derive(Debug, Default)]
pub struct Sockets(Vec<(Kind, Family, Result<Socket, String>)>);

impl Sockets {
    /// Opens every kind; the connected ones to `port` of each target.
    #[must_use]
    pub fn open(targets: &[IpAddr], port: u16, timeout: Duration) -> Self {
        let mut all = Vec::new();
        for target in targets {
            let family = if target.is_ipv6() { Family::V6 } else { Family::V4 };
            for kind in Kind::ALL {
                let opened = open(kind, SocketAddr::new(*target, port), timeout);
                all.push((kind, family, opened.map_err(|error| error.to_string())));
            }
        }
        Self(all)
    }

    /// Gives sockets of every kind, not connected, to the first who asks at `path`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn give(path: &Path, ready: impl FnOnce()) -> io::Result<()> {
        let listener = UnixListener::bind(path)?;
        ready();
        let (stream, _) = listener.accept()?;
        let any: [IpAddr; 2] = [[0, 0, 0, 0].into(), [0_u16; 8].into()];
        for (number, target) in (0_u8..).zip(any) {
            for (letter, kind) in [(b't', Kind::Tcp), (b'u', Kind::Udp), (b'l', Kind::UdpLite)] {
                // A kernel without UDP-Lite has nothing to give; the receiver says so.
                if let Ok(socket) = open(kind, SocketAddr::new(target, 0), Duration::ZERO) {
                    give_one(&stream, &[letter, b'0' + number], &socket)?;
                }
            }
        }
        Ok(())
    }

    /// Takes sockets from whoever gives them at `path`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn take(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        let mut all = Vec::new();
        while let Some((kind, family, socket)) = take_one(&stream)? {
            all.push((kind, family, Ok(socket)));
        }
        Ok(Self(all))
    }

    pub(super) fn find(&self, kind: Kind, v6: bool) -> Result<&Socket, Outcome> {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let found = self.0.iter().find(|(k, f, _)| *k == kind && *f == family);
        match found {
            Some((.., Ok(socket))) => Ok(socket),
            Some((.., Err(error))) => {
                Err(Outcome::NotApplicable(format!("it couldn't be opened before: {error}")))
            }
            None => Err(Outcome::NotApplicable("there is no such socket".into())),
        }
    }
}

fn open(kind: Kind, target: SocketAddr, timeout: Duration) -> io::Result<Socket> {
    let domain = Domain::for_address(target);
    let (socket_type, protocol) = match kind {
        Kind::Tcp | Kind::TcpConnected => (Type::STREAM, None),
        Kind::Udp | Kind::UdpConnected => (Type::DGRAM, None),
        Kind::UdpLite => (Type::DGRAM, Some(Protocol::UDPLITE)),
    };
    let socket = Socket::new(domain, socket_type, protocol)?;
    match kind {
        Kind::TcpConnected => socket.connect_timeout(&target.into(), timeout)?,
        Kind::UdpConnected => socket.connect(&target.into())?,
        Kind::Tcp | Kind::Udp | Kind::UdpLite => {}
    }
    Ok(socket)
}

fn give_one(stream: &UnixStream, what: &[u8], socket: &Socket) -> io::Result<()> {
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(stream, &[IoSlice::new(what)], &mut control, SendFlags::empty())?;
    Ok(())
}

fn take_one(stream: &UnixStream) -> io::Result<Option<(Kind, Family, Socket)>> {
    let mut what = [0; 2];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut what)];
    if recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut fds) = message else { return None };
        fds.next()
    });
    let kind = match what[0] {
        b't' => Kind::Tcp,
        b'u' => Kind::Udp,
        b'l' => Kind::UdpLite,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let family = if what[1] == b'1' { Family::V6 } else { Family::V4 };
    let fd = fd.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((kind, family, fd.into())))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn sockets_are_passed_over_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (ready, is_ready) = mpsc::channel();
        let giver = std::thread::spawn({
            let path = path.clone();
            move || Sockets::give(&path, || ready.send(()).unwrap())
        });
        is_ready.recv().unwrap();
        let taken = Sockets::take(&path).unwrap();
        giver.join().unwrap().unwrap();
        assert_eq!(taken.find(Kind::Tcp, false).unwrap().domain().unwrap(), Domain::IPV4);
        let udp = taken.find(Kind::Udp, true).unwrap();
        assert_eq!((udp.domain().unwrap(), udp.r#type().unwrap()), (Domain::IPV6, Type::DGRAM));
        assert!(taken.find(Kind::TcpConnected, false).is_err());
    }
}
