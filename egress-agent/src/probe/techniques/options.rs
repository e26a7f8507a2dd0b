//! Socket options that ask the own kernel for special treatment. None of them may change a verdict.

use std::net::SocketAddr;

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Errno, Outcome},
    },
    raw::neighbour,
    udp::{await_echo, exchange, socket},
};

/// A mark, which many a rule of many a CNI trusts.
pub(crate) fn mark(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    this.needed("SO_MARK", socket.set_mark(0x1337))?;
    exchange(this, &socket, |data| socket.send_to(data, &this.to().into()).map(drop))
}

/// A fixed interface.
pub(crate) fn device(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let name = this.network()?.name.as_bytes();
    this.needed("SO_BINDTODEVICE", socket.bind_device(Some(name)))?;
    exchange(this, &socket, |data| socket.send_to(data, &this.to().into()).map(drop))
}

/// A neighbour's address as the socket's own, by `IP_TRANSPARENT`.
pub(crate) fn transparent(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), None)?;
    let set = if this.target.is_ipv6() {
        socket.set_ip_transparent_v6(true)
    } else {
        socket.set_ip_transparent_v4(true)
    };
    this.needed("IP_TRANSPARENT", set)?;
    foreign(this, &socket)
}

/// A neighbour's address as the socket's own, by `IP_FREEBIND`.
pub(crate) fn freebind(this: &RunningAttempt<'_>) -> AttemptResult {
    foreign(this, &free(this)?)
}

/// A datagram to a closed port of the own host in the canary's name: the own kernel's error, which
/// quotes it, goes to the canary.
pub(crate) fn reflect_self(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = free(this)?;
    this.needed("bind", socket.bind(&SocketAddr::new(this.target, 0).into()))?;
    let own = SocketAddr::new(this.own()?, DISCARD);
    this.tried(Call::Send, socket.send_to(&this.data(), &own.into()))?;
    Ok(Outcome::NoAnswer("sent; the own kernel's answer would go to the canary".into()))
}

/// A port at which nobody listens (RFC 863's service is long gone).
const DISCARD: u16 = 9;

/// A socket that takes any address for its own.
fn free(this: &RunningAttempt<'_>) -> Result<socket2::Socket, Outcome> {
    let socket = socket(this, this.to(), None)?;
    let set = if this.target.is_ipv6() {
        socket.set_freebind_v6(true)
    } else {
        socket.set_freebind_v4(true)
    };
    this.needed("IP_FREEBIND", set)?;
    Ok(socket)
}

fn foreign(this: &RunningAttempt<'_>, socket: &socket2::Socket) -> AttemptResult {
    let address = SocketAddr::new(neighbour(this.own()?), 0);
    this.needed("bind", socket.bind(&address.into()))?;
    // Linux has no way for IPv4 packets of an address that it doesn't own: ENETUNREACH is its
    // refusal here, and no lack of a route.
    match socket.send_to(&this.data(), &this.to().into()) {
        Ok(_) => Ok(await_echo(this, socket)),
        Err(error) => Err(Outcome::Refused { call: Call::Send, errno: Errno::of(&error).0 }),
    }
}
