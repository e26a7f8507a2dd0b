//! The same calls through `io_uring`.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
    },
    stream, udp,
};
use crate::sys::{
    raw::{INET, INET6, address},
    uring::Ring,
};

/// A connect.
pub(crate) fn connect(this: &RunningAttempt<'_>) -> AttemptResult {
    let mut ring = ring(this)?;
    let made = Socket::new(Domain::for_address(this.to()), Type::STREAM, None);
    let socket = this.needed("socket", made)?;
    this.needed("non-blocking", socket.set_nonblocking(true))?;
    let begun = ring.connect(&socket, this.to(), family(this.to()));
    stream::finish(this, &socket, Call::Connect, begun)?;
    Ok(stream::converse(this, &socket))
}

/// A datagram by `sendmsg`.
pub(crate) fn send_message(this: &RunningAttempt<'_>) -> AttemptResult {
    let mut ring = ring(this)?;
    let socket = udp::socket(this, this.to(), None)?;
    let to = address(this.to(), family(this.to()));
    udp::exchange(this, &socket, |data| ring.send_message(&socket, data, &to))
}

/// A socket that no `socket` call made.
pub(crate) fn socket(this: &RunningAttempt<'_>) -> AttemptResult {
    let mut ring = ring(this)?;
    let domain = i32::from(family(this.to()));
    let made = ring.socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
    let socket = match made {
        // The kernel's word for an operation that it doesn't know (before 5.19).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(Outcome::NotApplicable(
                "IORING_OP_SOCKET: EINVAL, needs kernel 5.19".into(),
            ));
        }
        made => Socket::from(this.needed("IORING_OP_SOCKET", made)?),
    };
    stream::establish(this, &socket, &this.to().into())?;
    Ok(stream::converse(this, &socket))
}

fn ring(this: &RunningAttempt<'_>) -> Result<Ring, Outcome> {
    Ring::new().map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => Outcome::NotApplicable(
            "io_uring_setup: EPERM, kernel.io_uring_disabled or seccomp forbids it".into(),
        ),
        _ => match this.needed("io_uring_setup", Err::<(), _>(error)) {
            Err(outcome) => outcome,
            Ok(()) => Outcome::Error("io_uring_setup".into()),
        },
    })
}

const fn family(addr: SocketAddr) -> u16 {
    if addr.is_ipv6() { INET6 } else { INET }
}
