//! TCP segments that no socket made: the beginning of a connection that no hook saw, and segments
//! that belong to none.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::Outcome,
        packet::{self, flags, protocol},
    },
    link,
};

/// The beginning of a connection.
pub(crate) fn syn(this: &RunningAttempt<'_>) -> AttemptResult {
    segment(this, flags::SYN)
}

/// The second segment of a connection that hasn't begun.
pub(crate) fn syn_ack(this: &RunningAttempt<'_>) -> AttemptResult {
    segment(this, flags::SYN | flags::ACK)
}

/// Data of a connection that isn't there.
pub(crate) fn ack(this: &RunningAttempt<'_>) -> AttemptResult {
    segment(this, flags::ACK)
}

/// The end of a connection that isn't there.
pub(crate) fn fin(this: &RunningAttempt<'_>) -> AttemptResult {
    segment(this, flags::FIN | flags::ACK)
}

/// A reset, which nobody answers.
pub(crate) fn rst(this: &RunningAttempt<'_>) -> AttemptResult {
    segment(this, flags::RST)
}

/// Sends a segment in a frame. Whatever the target's TCP thinks of it comes back as a segment too.
fn segment(this: &RunningAttempt<'_>, flags: u8) -> AttemptResult {
    let own = this.own()?;
    let domain = Domain::for_address(this.to());
    let made = Socket::new(domain, Type::RAW, Some(Protocol::TCP));
    let ear = this.needed("raw TCP socket", made)?;
    // Holds the port, so that nobody else is answered.
    let holder = this.needed("socket", Socket::new(domain, Type::STREAM, None))?;
    let bound = holder.bind(&SocketAddr::new(own, 0).into()).and_then(|()| holder.local_addr());
    let from = this.needed("bind", bound)?.as_socket().unwrap_or(SocketAddr::new(own, 0));
    let segment = packet::tcp(SocketAddr::new(own, from.port()), this.to(), flags, &this.data());
    link::send_ip(this, &packet::ip(own, this.target, protocol::TCP, &segment))?;
    Ok(wait(this, &ear, from.port()))
}

fn wait(this: &RunningAttempt<'_>, mut ear: &Socket, port: u16) -> Outcome {
    let mut buffer = vec![0; 65_536];
    while Instant::now() < this.deadline {
        if let Err(error) = ear.set_read_timeout(Some(this.left())) {
            return Outcome::Error(format!("SO_RCVTIMEO: {error}"));
        }
        let Ok(count) = ear.read(&mut buffer) else { break };
        // IPv4's raw sockets give the header too, IPv6's don't.
        let start = match this.target {
            IpAddr::V4(_) => usize::from(buffer[0] & 0x0f) * 4,
            IpAddr::V6(_) => 0,
        };
        if let Some([a, b, c, d, ..]) = buffer[..count].get(start..)
            && [*a, *b] == this.port.to_be_bytes()
            && [*c, *d] == port.to_be_bytes()
        {
            return Outcome::Answered("the target's TCP answered".into());
        }
    }
    Outcome::NoAnswer("sent, no answer".into())
}
