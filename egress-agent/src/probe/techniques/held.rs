//! Sockets that were opened earlier, or by somebody else: the hooks on a workload's cgroup don't
//! see them, since a socket belongs to the cgroup that made it.

use socket2::Socket;

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
        sockets::Kind,
    },
    stream, udp,
};

/// A connection that was open before.
pub(crate) fn held_connection(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = held(this, Kind::TcpConnected)?;
    Ok(stream::talk(this, socket))
}

/// A TCP socket from before, connected now.
pub(crate) fn held_tcp(this: &RunningAttempt<'_>) -> AttemptResult {
    connect(this, held(this, Kind::Tcp)?)
}

/// A UDP socket that was connected before.
pub(crate) fn held_udp_connected(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = held(this, Kind::UdpConnected)?;
    udp::exchange(this, socket, |data| socket.send(data).map(drop))
}

/// A UDP socket from before.
pub(crate) fn held_udp(this: &RunningAttempt<'_>) -> AttemptResult {
    datagram(this, held(this, Kind::Udp)?)
}

/// A UDP-Lite socket from before.
pub(crate) fn held_lite(this: &RunningAttempt<'_>) -> AttemptResult {
    datagram(this, held(this, Kind::UdpLite)?)
}

/// A TCP socket of somebody else.
pub(crate) fn passed_tcp(this: &RunningAttempt<'_>) -> AttemptResult {
    connect(this, passed(this, Kind::Tcp)?)
}

/// A UDP socket of somebody else.
pub(crate) fn passed_udp(this: &RunningAttempt<'_>) -> AttemptResult {
    datagram(this, passed(this, Kind::Udp)?)
}

/// A UDP-Lite socket of somebody else.
pub(crate) fn passed_lite(this: &RunningAttempt<'_>) -> AttemptResult {
    datagram(this, passed(this, Kind::UdpLite)?)
}

fn connect(this: &RunningAttempt<'_>, socket: &Socket) -> AttemptResult {
    stream::establish(this, socket, &this.to().into())?;
    Ok(stream::converse(this, socket))
}

fn datagram(this: &RunningAttempt<'_>, socket: &Socket) -> AttemptResult {
    this.tried(Call::Send, socket.send_to(&this.data(), &this.to().into()))?;
    Ok(udp::await_echo(this, socket))
}

fn held<'a>(this: &RunningAttempt<'a>, kind: Kind) -> Result<&'a Socket, Outcome> {
    let none = || Outcome::NotApplicable("only with --hold".into());
    this.settings.held.as_ref().ok_or_else(none)?.find(kind, this.target.is_ipv6())
}

fn passed<'a>(this: &RunningAttempt<'a>, kind: Kind) -> Result<&'a Socket, Outcome> {
    let none = || Outcome::NotApplicable("only with --sockets-from".into());
    this.settings.passed.as_ref().ok_or_else(none)?.find(kind, this.target.is_ipv6())
}
