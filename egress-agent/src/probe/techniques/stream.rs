//! TCP and its siblings: a connect, then the token, then its echo.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::super::{
    attempt::{AttemptResult, RunningAttempt},
    outcome::{Call, Errno, Outcome},
};
use crate::sys::raw::set_option;

/// A connect's failure that came over the network.
pub(crate) const RESET: &str =
    "a reset came back: from a gateway, or from the target without a listener";

/// An answer that is longer isn't the canary's.
const MAX_ANSWER: usize = 4096;

/// A non-blocking connect, as servers do it.
pub(crate) fn connect(this: &RunningAttempt<'_>) -> AttemptResult {
    plain(this, this.to(), Some(Protocol::TCP))
}

/// A connect that waits in the kernel.
pub(crate) fn blocking(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), Some(Protocol::TCP))?;
    // Linux's connect gives up after the time for sending, with EINPROGRESS.
    this.needed("SO_SNDTIMEO", socket.set_write_timeout(Some(this.left())))?;
    match socket.connect(&this.to().into()) {
        Ok(()) => Ok(converse(this, &socket)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(no_connection()),
        // Here a reset from the network looks as a hook's refusal does.
        Err(error) => Err(sooner_or_later(this, &error)),
    }
}

/// By IPv6's form of the IPv4 address.
pub(crate) fn mapped(this: &RunningAttempt<'_>) -> AttemptResult {
    plain(this, this.mapped(), Some(Protocol::TCP))
}

/// Multipath TCP.
pub(crate) fn mptcp(this: &RunningAttempt<'_>) -> AttemptResult {
    plain(this, this.to(), Some(Protocol::MPTCP))
}

/// Multipath TCP to a mapped address.
pub(crate) fn mptcp_mapped(this: &RunningAttempt<'_>) -> AttemptResult {
    plain(this, this.mapped(), Some(Protocol::MPTCP))
}

/// SCTP.
pub(crate) fn sctp(this: &RunningAttempt<'_>) -> AttemptResult {
    plain(this, this.to(), Some(Protocol::SCTP))
}

/// DCCP.
pub(crate) fn dccp(this: &RunningAttempt<'_>) -> AttemptResult {
    let domain = Domain::for_address(this.to());
    // linux/net.h: SOCK_DCCP.
    let made = Socket::new(domain, Type::from(6), Some(Protocol::DCCP));
    let socket = this.needed("socket(SOCK_DCCP)", made)?;
    establish(this, &socket, &this.to().into())?;
    Ok(converse(this, &socket))
}

/// Data in the SYN, by `sendto` without a connect.
pub(crate) fn fast_open(this: &RunningAttempt<'_>) -> AttemptResult {
    fast_open_to(this, this.to())
}

/// The same to a mapped address.
pub(crate) fn fast_open_mapped(this: &RunningAttempt<'_>) -> AttemptResult {
    fast_open_to(this, this.mapped())
}

fn fast_open_to(this: &RunningAttempt<'_>, to: SocketAddr) -> AttemptResult {
    let socket = socket(this, to, Some(Protocol::TCP))?;
    this.needed("non-blocking", socket.set_nonblocking(true))?;
    let sent = socket.send_to_with_flags(&this.data(), &to.into(), libc::MSG_FASTOPEN);
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Err(Outcome::NotApplicable(
                "sendto(MSG_FASTOPEN): EOPNOTSUPP, net.ipv4.tcp_fastopen is off".into(),
            ))
        }
        sent => {
            finish(this, &socket, Call::Connect, sent.map(drop))?;
            Ok(converse(this, &socket))
        }
    }
}

/// A connect that waits for the first data.
pub(crate) fn fast_open_connect(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = socket(this, this.to(), Some(Protocol::TCP))?;
    let on = 1_i32.to_ne_bytes();
    let set = set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &on);
    this.needed("TCP_FASTOPEN_CONNECT", set)?;
    establish(this, &socket, &this.to().into())?;
    Ok(converse(this, &socket))
}

fn plain(this: &RunningAttempt<'_>, to: SocketAddr, protocol: Option<Protocol>) -> AttemptResult {
    let socket = socket(this, to, protocol)?;
    establish(this, &socket, &to.into())?;
    Ok(converse(this, &socket))
}

fn socket(
    this: &RunningAttempt<'_>,
    to: SocketAddr,
    protocol: Option<Protocol>,
) -> Result<Socket, Outcome> {
    let made = Socket::new(Domain::for_address(to), Type::STREAM, protocol);
    let what = format!("socket(SOCK_STREAM, {})", protocol.map_or(0, i32::from));
    this.needed(&what, made)
}

/// Connects without blocking, and waits. What fails at once is the own kernel's refusal; what fails
/// later came over the network.
pub(crate) fn establish(
    this: &RunningAttempt<'_>,
    socket: &Socket,
    to: &SockAddr,
) -> Result<(), Outcome> {
    this.needed("non-blocking", socket.set_nonblocking(true))?;
    finish(this, socket, Call::Connect, socket.connect(to))
}

/// Waits for a connection that has begun.
pub(crate) fn finish(
    this: &RunningAttempt<'_>,
    socket: &Socket,
    call: Call,
    begun: io::Result<()>,
) -> Result<(), Outcome> {
    match begun {
        Ok(()) => return Ok(()),
        Err(error) if is_under_way(&error) => {}
        Err(error) => return this.tried(call, Err(error)),
    }
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    let left = Timespec::try_from(this.left()).ok();
    if this.needed("poll", poll(&mut fds, left.as_ref()).map_err(io::Error::from))? == 0 {
        return Err(no_connection());
    }
    match this.needed("SO_ERROR", socket.take_error())? {
        None => Ok(()),
        Some(error) => Err(later(&error)),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN))
}

fn no_connection() -> Outcome {
    Outcome::NoAnswer("no answer to the connect".into())
}

/// Of a connect that failed after it had been sent.
fn later(error: &io::Error) -> Outcome {
    Outcome::NoAnswer(match Errno::of(error) {
        Errno(libc::ECONNREFUSED) => RESET.into(),
        errno => format!("{errno} came back"),
    })
}

/// Of a connect that says nothing of when it failed. `EACCES` and `EPERM` never come from a peer.
fn sooner_or_later(this: &RunningAttempt<'_>, error: &io::Error) -> Outcome {
    match Errno::of(error) {
        errno if errno.is_forbidden() => Outcome::Refused { call: Call::Connect, errno: errno.0 },
        errno if errno.is_no_route() => {
            Outcome::NotApplicable(format!("{errno}: there is no way to {}", this.target))
        }
        _ => later(error),
    }
}

/// Sends the token over a new connection and waits for its echo.
pub(crate) fn converse(this: &RunningAttempt<'_>, socket: &Socket) -> Outcome {
    match talk(this, socket) {
        // Somebody has accepted it, after all.
        Outcome::NoAnswer(text) => Outcome::Intercepted(format!("connected, but {text}")),
        other @ (Outcome::Answered(_)
        | Outcome::Intercepted(_)
        | Outcome::Refused { .. }
        | Outcome::NotApplicable(_)
        | Outcome::Error(_)) => other,
    }
}

/// Sends the token over a connection and waits for its echo.
pub(crate) fn talk(this: &RunningAttempt<'_>, socket: &Socket) -> Outcome {
    let mut stream = socket;
    let set = socket.set_nonblocking(false).and_then(|()| {
        socket.set_write_timeout(Some(this.left()))?;
        socket.set_read_timeout(Some(this.left()))
    });
    if let Err(error) = set.and_then(|()| stream.write_all(&this.data())) {
        return match Errno::of(&error) {
            errno if errno.is_forbidden() => Outcome::Refused { call: Call::Send, errno: errno.0 },
            errno => Outcome::NoAnswer(format!("the connection failed: {errno}")),
        };
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    while answer.len() < MAX_ANSWER {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if this.token.is_in(&answer) {
            return Outcome::Answered("connected, and the canary answered".into());
        }
    }
    if answer.is_empty() {
        return Outcome::NoAnswer("nothing came back".into());
    }
    let line = first_line(&answer);
    Outcome::Intercepted(format!("something that isn't the canary answered: {line}"))
}

/// The start of an answer, fit to be shown.
fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(60).collect()
}
