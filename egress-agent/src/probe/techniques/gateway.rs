//! The gateway's own address, beside what its routes name.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use socket2::{Domain, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::{Call, Outcome},
    },
    ping, stream,
    udp::await_echo,
};

/// Envoy's and our admin interface, and SSH.
const ADMIN_PORTS: [u16; 5] = [15_000, 15_020, 15_021, 15_090, 22];

fn gateway(this: &RunningAttempt<'_>) -> Result<IpAddr, Outcome> {
    let Some(gateway) = this.settings.gateway else {
        return Err(Outcome::NotApplicable("name the gateway's address with --gateway".into()));
    };
    if gateway.is_ipv6() == this.target.is_ipv6() {
        Ok(gateway)
    } else {
        Err(Outcome::NotApplicable("--gateway is of the other family".into()))
    }
}

/// TCP to its admin ports. The worst result counts.
pub(crate) fn admin(this: &RunningAttempt<'_>) -> AttemptResult {
    let gateway = gateway(this)?;
    let mut worst = None;
    for port in ADMIN_PORTS {
        let to = SocketAddr::new(gateway, port);
        let made = Socket::new(Domain::for_address(to), Type::STREAM, None);
        let socket = this.needed("socket", made)?;
        // Each port has its share of the time.
        let share = this.left() / 2;
        let each = RunningAttempt {
            settings: this.settings,
            needs: this.needs,
            token: this.token.clone(),
            target: gateway,
            port,
            deadline: Instant::now() + share,
        };
        match stream::establish(&each, &socket, &to.into()) {
            Ok(()) => return Ok(Outcome::Answered(format!("connected to port {port}"))),
            // A reset comes from the gateway's kernel: the way there was open.
            Err(Outcome::NoAnswer(text)) if text == stream::RESET => {
                return Ok(Outcome::Answered(format!("port {port} answered with a reset")));
            }
            Err(outcome) => worst = Some(outcome),
        }
    }
    worst.map_or_else(|| Err(Outcome::Error("no port was tried".into())), Ok)
}

/// UDP, which no route of the gateway takes.
pub(crate) fn udp(this: &RunningAttempt<'_>) -> AttemptResult {
    let to = SocketAddr::new(gateway(this)?, 443);
    let made = Socket::new(Domain::for_address(to), Type::DGRAM, None);
    let socket = this.needed("socket", made)?;
    this.tried(Call::Connect, socket.connect(&to.into()))?;
    this.tried(Call::Send, socket.send(&this.data()))?;
    let outcome = await_echo(this, &socket);
    // The gateway's own kernel says that nobody listens.
    if matches!(&outcome, Outcome::NoAnswer(text) if text.contains("ECONNREFUSED")) {
        return Ok(Outcome::Answered("the gateway's kernel answered".into()));
    }
    Ok(outcome)
}

/// An echo request.
pub(crate) fn echo(this: &RunningAttempt<'_>) -> AttemptResult {
    ping::socket_to(this, gateway(this)?)
}
