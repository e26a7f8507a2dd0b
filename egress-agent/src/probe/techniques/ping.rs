//! Echo requests, which anything may be hidden in.

use std::net::IpAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Errno, Outcome},
        packet,
    },
    udp::exchange,
};

/// A socket for echo requests, which needs no privilege where `net.ipv4.ping_group_range` allows it.
pub(crate) fn socket(this: &RunningAttempt<'_>) -> AttemptResult {
    socket_to(this, this.target)
}

/// The same to another address than the canary's.
pub(crate) fn socket_to(this: &RunningAttempt<'_>, target: IpAddr) -> AttemptResult {
    match icmp(target, Type::DGRAM) {
        Err(error) if Errno::of(&error).is_forbidden() => Err(Outcome::NotApplicable(format!(
            "ping socket: {}, net.ipv4.ping_group_range doesn't hold this group",
            Errno::of(&error)
        ))),
        made => {
            let socket = this.needed("ping socket", made)?;
            send(this, &socket, target)
        }
    }
}

/// A raw ICMP socket.
pub(crate) fn raw(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = this.needed("raw ICMP socket", icmp(this.target, Type::RAW))?;
    send(this, &socket, this.target)
}

/// The socket.
pub(crate) fn icmp(target: IpAddr, kind: Type) -> std::io::Result<Socket> {
    match target {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4)),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6)),
    }
}

/// Sends a request with the token as its payload; the reply brings it back.
fn send(this: &RunningAttempt<'_>, socket: &Socket, target: IpAddr) -> AttemptResult {
    // The kernel writes ICMPv6's checksum itself.
    let unspecified = if target.is_ipv6() { target } else { IpAddr::V4([0, 0, 0, 0].into()) };
    exchange(this, socket, |data| {
        let request = packet::echo_request(unspecified, target, 0x7072, data);
        socket.send_to(&request, &std::net::SocketAddr::new(target, 0).into()).map(drop)
    })
}
