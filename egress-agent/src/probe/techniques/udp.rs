//! UDP in all its calls, and UDP-Lite.

use std::{
    io::{self, IoSlice, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::{Domain, MsgHdr, Protocol, Socket, Type};

use super::super::{
    attempt::{AttemptResult, RunningAttempt},
    outcome::{Call, Errno, Outcome},
};
use crate::sys::raw::{INET, UNSPEC, address, send_to, set_option};

/// `sendto` on a socket that isn't connected.
pub(crate) fn unconnected(this: &RunningAttempt<'_>) -> AttemptResult {
    to(this, this.to())
}

/// `connect`, then `send`.
pub(crate) fn connected(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    this.tried(Call::Connect, socket.connect(&this.to().into()))?;
    exchange(this, &socket, |data| socket.send(data).map(drop))
}

/// `sendmsg`.
pub(crate) fn message(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let to = this.to().into();
    exchange(this, &socket, |data| {
        let buffers = [IoSlice::new(data)];
        socket.sendmsg(&MsgHdr::new().with_addr(&to).with_buffers(&buffers), 0).map(drop)
    })
}

/// Two datagrams in one `sendmmsg`.
pub(crate) fn messages(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let to = SocketAddrAny::from(this.to());
    exchange(this, &socket, |data| {
        let buffers = [IoSlice::new(data)];
        let (mut first, mut second) =
            (SendAncillaryBuffer::default(), SendAncillaryBuffer::default());
        let mut headers = [
            MMsgHdr::new_with_addr(&to, &buffers, &mut first),
            MMsgHdr::new_with_addr(&to, &buffers, &mut second),
        ];
        sendmmsg(&socket, &mut headers, SendFlags::empty()).map_err(io::Error::from).map(drop)
    })
}

/// One send that the kernel cuts into several datagrams.
pub(crate) fn segmented(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let data = this.data();
    let size = i32::try_from(data.len()).unwrap_or(i32::MAX).to_ne_bytes();
    this.needed("UDP_SEGMENT", set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, &size))?;
    exchange(this, &socket, |data| socket.send_to(&data.repeat(3), &this.to().into()).map(drop))
}

/// By IPv6's form of the IPv4 address.
pub(crate) fn mapped(this: &RunningAttempt<'_>) -> AttemptResult {
    to(this, this.mapped())
}

/// An IPv4 address given to an IPv6 socket.
pub(crate) fn inet_on_inet6(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.mapped(), None)?;
    exchange(this, &socket, |data| send_to(&socket, data, 0, &address(this.to(), INET)).map(drop))
}

/// An IPv4 address with no family said.
pub(crate) fn unspecified_family(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    exchange(this, &socket, |data| send_to(&socket, data, 0, &address(this.to(), UNSPEC)).map(drop))
}

/// UDP-Lite (RFC 3828).
pub(crate) fn lite(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), Some(Protocol::UDPLITE))?;
    exchange(this, &socket, |data| socket.send_to(data, &this.to().into()).map(drop))
}

/// UDP-Lite, connected: no hook on sockets fires.
pub(crate) fn lite_connected(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), Some(Protocol::UDPLITE))?;
    this.tried(Call::Connect, socket.connect(&this.to().into()))?;
    exchange(this, &socket, |data| socket.send(data).map(drop))
}

/// UDP-Lite to a mapped address.
pub(crate) fn lite_mapped(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.mapped(), Some(Protocol::UDPLITE))?;
    exchange(this, &socket, |data| socket.send_to(data, &this.mapped().into()).map(drop))
}

/// More than a packet holds: the kernel makes fragments.
pub(crate) fn large(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    exchange(this, &socket, |data| {
        let mut large = data.to_vec();
        large.resize(4000, b'.');
        socket.send_to(&large, &this.to().into()).map(drop)
    })
}

/// To everybody on the link.
pub(crate) fn broadcast(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    this.needed("SO_BROADCAST", socket.set_broadcast(true))?;
    to_many(this, &socket, Ipv4Addr::BROADCAST.into())
}

/// To a group that may be anywhere: one of organisation-local or of global scope.
pub(crate) fn multicast(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let group: IpAddr = if this.target.is_ipv6() {
        this.needed("IPV6_MULTICAST_HOPS", socket.set_multicast_hops_v6(16))?;
        Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0x7072, 0x6f62).into()
    } else {
        this.needed("IP_MULTICAST_TTL", socket.set_multicast_ttl_v4(16))?;
        Ipv4Addr::new(239, 112, 114, 111).into()
    };
    to_many(this, &socket, group)
}

fn to_many(this: &RunningAttempt<'_>, socket: &Socket, group: IpAddr) -> AttemptResult {
    let to = SocketAddr::new(group, this.port).into();
    this.tried(Call::Send, socket.send_to(&this.data(), &to))?;
    Ok(Outcome::NoAnswer(format!("sent to {group}")))
}

/// To an address, in the ordinary way.
pub(crate) fn to(this: &RunningAttempt<'_>, to: SocketAddr) -> AttemptResult {
    let socket = socket(this, to, None)?;
    exchange(this, &socket, |data| socket.send_to(data, &to.into()).map(drop))
}

/// A datagram socket.
pub(crate) fn socket(
    this: &RunningAttempt<'_>,
    to: SocketAddr,
    protocol: Option<Protocol>,
) -> Result<Socket, Outcome> {
    let made = Socket::new(Domain::for_address(to), Type::DGRAM, protocol);
    let what = match protocol {
        Some(Protocol::UDPLITE) => "socket(SOCK_DGRAM, IPPROTO_UDPLITE)",
        _ => "socket(SOCK_DGRAM)",
    };
    this.needed(what, made)
}

/// A socket on a port of its own, which hears the answers to packets that are made by hand.
pub(crate) fn ear(this: &RunningAttempt<'_>) -> Result<(Socket, u16), Outcome> {
    let any: IpAddr = if this.target.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = socket(this, this.to(), None)?;
    let bound = socket.bind(&SocketAddr::new(any, 0).into()).and_then(|()| socket.local_addr());
    let bound = this.needed("bind", bound)?;
    Ok((socket, bound.as_socket().map_or(0, |addr| addr.port())))
}

/// Sends the token and waits for its echo.
pub(crate) fn exchange(
    this: &RunningAttempt<'_>,
    socket: &Socket,
    send: impl FnOnce(&[u8]) -> io::Result<()>,
) -> AttemptResult {
    this.tried(Call::Send, send(&this.data()))?;
    Ok(await_echo(this, socket))
}

/// Waits for the token on a socket, whatever is before it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
pub(crate) fn await_echo(this: &RunningAttempt<'_>, mut socket: &Socket) -> Outcome {
    let mut buffer = vec![0; 65_536];
    while std::time::Instant::now() < this.deadline {
        if let Err(error) = socket.set_read_timeout(Some(this.left())) {
            return Outcome::Error(format!("SO_RCVTIMEO: {error}"));
        }
        match socket.read(&mut buffer) {
            Ok(count) if this.token.is_in(&buffer[..count]) => {
                return Outcome::Answered("an answer came back".into());
            }
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => break,
                io::ErrorKind::Interrupted => {}
                _ => return Outcome::NoAnswer(format!("{} came back", Errno::of(&error))),
            },
        }
    }
    Outcome::NoAnswer("sent, no answer".into())
}
