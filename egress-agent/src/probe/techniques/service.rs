//! Ordinary services, at the canary's address and at the cloud's metadata address.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

use super::{
    super::{
        attempt::{AttemptResult, RunningAttempt},
        outcome::Outcome,
    },
    raw, stream, udp,
};

/// The canary on another port.
fn on_port(this: &RunningAttempt<'_>, port: u16) -> SocketAddr {
    SocketAddr::new(this.target, port)
}

/// TCP to a port of the canary.
fn tcp(this: &RunningAttempt<'_>, port: u16) -> AttemptResult {
    let made = Socket::new(Domain::for_address(this.to()), Type::STREAM, None);
    let socket = this.needed("socket", made)?;
    stream::establish(this, &socket, &on_port(this, port).into())?;
    Ok(stream::converse(this, &socket))
}

/// Port 80, which routes may send to the gateway.
pub(crate) fn http(this: &RunningAttempt<'_>) -> AttemptResult {
    tcp(this, 80)
}

/// Port 443, which routes may send to the gateway.
pub(crate) fn https(this: &RunningAttempt<'_>) -> AttemptResult {
    tcp(this, 443)
}

/// DNS over TLS.
pub(crate) fn dns_over_tls(this: &RunningAttempt<'_>) -> AttemptResult {
    tcp(this, 853)
}

/// QUIC's port.
pub(crate) fn quic(this: &RunningAttempt<'_>) -> AttemptResult {
    udp::to(this, on_port(this, 443))
}

/// A DNS query that carries the token in a name.
pub(crate) fn dns(this: &RunningAttempt<'_>) -> AttemptResult {
    let socket = udp::socket(this, this.to(), None)?;
    let to = on_port(this, 53).into();
    udp::exchange(this, &socket, |data| socket.send_to(&query(data), &to).map(drop))
}

/// The same over TCP.
pub(crate) fn dns_over_tcp(this: &RunningAttempt<'_>) -> AttemptResult {
    tcp(this, 53)
}

/// A query for the address of a name (RFC 1035 §4.1) whose one label is `data`.
fn query(data: &[u8]) -> Vec<u8> {
    let label = &data[..data.len().min(63)];
    let mut bytes = vec![0x70, 0x72, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.push(u8::try_from(label.len()).unwrap_or(63));
    bytes.extend(label);
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// VXLAN (RFC 7348): a frame in UDP.
pub(crate) fn vxlan(this: &RunningAttempt<'_>) -> AttemptResult {
    in_udp(this, 4789, &[8, 0, 0, 0, 0, 0, 5, 0])
}

/// Geneve (RFC 8926): the same with another header.
pub(crate) fn geneve(this: &RunningAttempt<'_>) -> AttemptResult {
    in_udp(this, 6081, &[0, 0, 0x65, 0x58, 0, 0, 5, 0])
}

fn in_udp(this: &RunningAttempt<'_>, port: u16, head: &[u8]) -> AttemptResult {
    let socket = udp::socket(this, this.to(), None)?;
    let to = on_port(this, port).into();
    udp::exchange(this, &socket, |data| {
        let frame =
            [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &raw::inner_v4(data)].concat();
        socket.send_to(&[head, &frame].concat(), &to).map(drop)
    })
}

/// The cloud's metadata service (Amazon's IPv6 address; the IPv4 one is everybody's).
pub(crate) fn metadata(this: &RunningAttempt<'_>) -> AttemptResult {
    let service: IpAddr = if this.target.is_ipv6() {
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254).into()
    } else {
        Ipv4Addr::new(169, 254, 169, 254).into()
    };
    let to = SocketAddr::new(service, 80);
    let socket = this.needed("socket", Socket::new(Domain::for_address(to), Type::STREAM, None))?;
    stream::establish(this, &socket, &to.into())?;
    let mut stream = &socket;
    let request = format!("GET /{} HTTP/1.0\r\nHost: {service}\r\n\r\n", this.token.name);
    let asked = socket
        .set_nonblocking(false)
        .and_then(|()| socket.set_read_timeout(Some(this.left())))
        .and_then(|()| stream.write_all(request.as_bytes()));
    let mut head = [0; 12];
    let answer = asked.and_then(|()| stream.read_exact(&mut head));
    Ok(match (answer, &head[9..]) {
        // A gateway says 403, 404 or 5xx of a host that it doesn't know.
        (Ok(()), [b'2' | b'3', ..] | b"401") => {
            Outcome::Answered("the metadata service answered".into())
        }
        (Ok(()), _) => Outcome::Intercepted(format!(
            "connected; answered {}",
            String::from_utf8_lossy(&head).escape_debug()
        )),
        (Err(_), _) => Outcome::Answered("connected to the metadata service".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_it_is_given() {
        let query = query(b"label");
        assert_eq!(&query[12..18], b"\x05label");
        assert_eq!(query.len(), 12 + 6 + 5);
    }
}
