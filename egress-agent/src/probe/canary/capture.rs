//! A packet socket that sees every frame, for what no ordinary socket hears.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::arrival::{Arrival, ReportArrival};
use crate::{
    probe::{packet::protocol, token::Token},
    sys::raw::set_option,
};

/// `ETH_P_ALL`, as the kernel wants it.
const EVERY: u16 = 3_u16.to_be();
/// linux/if_packet.h (kernel 4.20); without it the canary also hears its own answers, which carry
/// no token.
const IGNORE_OUTGOING: i32 = 23;

/// Sees every frame of the network namespace.
#[derive(Debug)]
pub(super) struct Capture(Socket);

impl Capture {
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let every = Protocol::from(i32::from(EVERY));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every))?;
        set_option(&socket, libc::SOL_PACKET, IGNORE_OUTGOING, &1_i32.to_ne_bytes()).ok();
        socket.set_recv_buffer_size(4 << 20)?;
        // Now and then it looks whether anybody still listens.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self(socket))
    }

    /// Starts a thread that tells of every frame with a token, and answers those that no other
    /// socket answers. It ends when nobody listens any more.
    pub(super) fn start(
        self,
        own: Vec<IpAddr>,
        tell: ReportArrival,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        thread::Builder::new().name("capture".into()).spawn(move || self.run(&own, &tell))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's enum, which may grow"
    )]
    fn run(mut self, own: &[IpAddr], tell: &ReportArrival) -> io::Result<()> {
        let mut buffer = vec![0; 65_536];
        while !tell.is_closed() {
            match self.0.read(&mut buffer) {
                Ok(count) => {
                    let frame = &buffer[..count];
                    let Some(token) = Token::find(frame) else { continue };
                    let seen = CapturedFrame::read(frame);
                    answer(&seen, &token, own);
                    if tell.send(seen.arrival(token)).is_err() {
                        return Ok(());
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    // An interface went away; the others stay.
                    _ if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// What can be told of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
struct CapturedFrame {
    mac: [u8; 6],
    ether_type: u16,
    ip: Option<Ip>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Not the first or only piece of a packet.
    fragment: bool,
    /// Destination port, where the protocol has ports and they are there.
    port: Option<u16>,
}

impl CapturedFrame {
    fn read(frame: &[u8]) -> Self {
        let mac = frame.get(6..12).and_then(|mac| mac.try_into().ok()).unwrap_or_default();
        let ether_type = frame.get(12..14).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
        let body = frame.get(14..).unwrap_or_default();
        let ip = match ether_type {
            0x0800 => v4(body),
            0x86dd => v6(body),
            _ => None,
        };
        Self { mac, ether_type, ip }
    }

    fn arrival(&self, token: Token) -> Arrival {
        match self.ip {
            Some(ip) => {
                Arrival { token, from: ip.source.to_string(), protocol: name(ip), port: ip.port }
            }
            None => Arrival {
                token,
                from: self.mac.map(|byte| format!("{byte:02x}")).join(":"),
                protocol: format!("ethertype {:#06x}", self.ether_type),
                port: None,
            },
        }
    }
}

fn v4(body: &[u8]) -> Option<Ip> {
    let head = body.first_chunk::<20>()?;
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
    let rest = body.get(usize::from(head[0] & 0x0f) * 4..)?;
    let [.., a, b, c, d, e, f, g, h] = *head;
    Some(Ip {
        source: Ipv4Addr::new(a, b, c, d).into(),
        destination: Ipv4Addr::new(e, f, g, h).into(),
        protocol: head[9],
        fragment,
        port: port(head[9], rest).filter(|_| !fragment),
    })
}

fn v6(body: &[u8]) -> Option<Ip> {
    let head = body.first_chunk::<40>()?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(Ipv6Addr::from(*head.get(at..)?.first_chunk::<16>()?).into())
    };
    Some(Ip {
        source: address(8)?,
        destination: address(24)?,
        protocol: head[6],
        fragment: head[6] == protocol::FRAGMENT,
        port: port(head[6], &body[40..]),
    })
}

fn port(number: u8, transport: &[u8]) -> Option<u16> {
    let [_, _, high, low, ..] = *transport else { return None };
    matches!(number, protocol::TCP | protocol::UDP | UDP_LITE | SCTP)
        .then(|| u16::from_be_bytes([high, low]))
}

const UDP_LITE: u8 = 136;
const SCTP: u8 = 132;

fn name(ip: Ip) -> String {
    let name = match ip.protocol {
        protocol::ICMP => "ICMP",
        protocol::ICMPV6 => "ICMPv6",
        protocol::TCP => "TCP",
        protocol::UDP => "UDP",
        UDP_LITE => "UDP-Lite",
        number => return format!("protocol {number}"),
    };
    if ip.fragment { format!("{name} fragment") } else { name.to_owned() }
}

/// Answers in a protocol that nothing in the kernel answers: with the token, in the same protocol.
fn answer(seen: &CapturedFrame, token: &Token, own: &[IpAddr]) {
    let Some(ip) = seen.ip else { return };
    let answered_by_the_kernel = match ip.source {
        IpAddr::V4(_) => {
            matches!(ip.protocol, protocol::ICMP | protocol::TCP | protocol::UDP | UDP_LITE)
        }
        // Headers that only lead to another are no protocols to answer in.
        IpAddr::V6(_) => matches!(
            ip.protocol,
            0 | protocol::ROUTING
                | protocol::FRAGMENT
                | protocol::DESTINATION
                | protocol::ICMPV6
                | protocol::TCP
                | protocol::UDP
                | UDP_LITE
        ),
    };
    if answered_by_the_kernel || ip.fragment || !own.contains(&ip.destination) {
        return;
    }
    let domain = Domain::for_address(SocketAddr::new(ip.source, 0));
    let number = Protocol::from(i32::from(ip.protocol));
    let sent = Socket::new(domain, Type::RAW, Some(number)).and_then(|socket| {
        socket.bind(&SocketAddr::new(ip.destination, 0).into())?;
        socket.send_to(&token.answer(), &SocketAddr::new(ip.source, 0).into())
    });
    if let Err(error) = sent {
        tracing::debug!("can't answer protocol {} to {}: {error}", ip.protocol, ip.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::packet::{self, Link};

    #[test]
    fn frames_are_described() {
        let link = Link { source: [2, 0, 0, 0, 0, 5], destination: [2, 0, 0, 0, 0, 1] };
        let (from, to) =
            (SocketAddr::from(([10, 0, 0, 5], 7)), SocketAddr::from(([10, 0, 0, 1], 53)));
        let udp = packet::udp(from, to, b"x");
        let frame = packet::ethernet(link, 0x800, &packet::ip(from.ip(), to.ip(), 17, &udp));
        let seen = CapturedFrame::read(&frame).ip.unwrap();
        assert_eq!((name(seen), seen.port, seen.source), ("UDP".into(), Some(53), from.ip()));
        let gre = packet::ethernet(link, 0x800, &packet::ip(from.ip(), to.ip(), 47, b"x"));
        assert_eq!(name(CapturedFrame::read(&gre).ip.unwrap()), "protocol 47");
        let piece = packet::fragment(from.ip(), to.ip(), 17, (7, 64, false), b"12345678");
        let seen = CapturedFrame::read(&packet::ethernet(link, 0x800, &piece)).ip.unwrap();
        assert_eq!((name(seen), seen.port), ("UDP fragment".into(), None));
        let lldp = packet::ethernet(link, 0x88cc, b"x");
        let seen = CapturedFrame::read(&lldp);
        assert_eq!(seen.ip, None);
        let token = Token { id: crate::probe::ProbeId::random(), name: "lldp".into() };
        let arrival = seen.arrival(token);
        assert_eq!((&*arrival.from, &*arrival.protocol), ("02:00:00:00:00:05", "ethertype 0x88cc"));
        for end in 0..frame.len() {
            // Whatever comes is described.
            CapturedFrame::read(&frame[..end]);
        }
    }
}
