//! The other end: answers what can be answered, and tells what arrived, whatever it was wrapped in.

mod arrival;
mod capture;

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task,
    time::timeout,
};

use super::{network::own_addresses, token::Token};
pub use arrival::Arrival;
use arrival::ReportArrival;
use capture::Capture;

/// Ports that attempts have of their own: DNS, HTTP, HTTPS and QUIC, DNS over TLS; VXLAN, Geneve.
const TCP_PORTS: [u16; 4] = [53, 80, 443, 853];
const UDP_PORTS: [u16; 4] = [53, 443, 4789, 6081];
/// How long a connection may take to say what it is.
const CONVERSATION: Duration = Duration::from_secs(10);
/// What is remembered, so that each is told of once. More are still told of.
const REMEMBERED: usize = 100_000;

/// A canary whose sockets are open.
#[derive(Debug)]
pub struct Canary {
    /// Listeners of TCP, and of SCTP, whose one-to-one sockets are used alike (RFC 6458 §4).
    streams: Vec<(TcpListener, &'static str)>,
    udp: Vec<(UdpSocket, &'static str)>,
    capture: Option<Capture>,
    /// Where it listens.
    pub addresses: Vec<IpAddr>,
    /// What it can't hear, and why.
    pub deaf: Vec<String>,
}

impl Canary {
    /// Opens everything that can be opened. With no addresses it takes the host's own. Call it in
    /// an asynchronous runtime.
    ///
    /// # Errors
    /// There is no address, or nothing at all can be opened.
    pub fn open(addresses: &[IpAddr], ports: &[u16]) -> io::Result<Self> {
        let addresses = if addresses.is_empty() { own_addresses() } else { addresses.to_vec() };
        if addresses.is_empty() {
            return Err(io::Error::other("this host has no address but loopback's: name one"));
        }
        let (mut streams, mut udp, mut deaf) = (Vec::new(), Vec::new(), Vec::new());
        for address in &addresses {
            for port in with(ports, &TCP_PORTS) {
                match listen(SocketAddr::new(*address, port), Protocol::TCP) {
                    Ok(listener) => streams.push((listener, "TCP")),
                    Err(error) => deaf.push(format!("TCP {address} port {port}: {error}")),
                }
            }
            for port in with(ports, &UDP_PORTS) {
                match datagrams(SocketAddr::new(*address, port), Protocol::UDP) {
                    Ok(socket) => udp.push((socket, "UDP")),
                    Err(error) => deaf.push(format!("UDP {address} port {port}: {error}")),
                }
            }
            for port in ports {
                match datagrams(SocketAddr::new(*address, *port), Protocol::UDPLITE) {
                    Ok(socket) => udp.push((socket, "UDP-Lite")),
                    Err(error) => {
                        deaf.push(format!("UDP-Lite {address} port {port}: {error}"));
                        break;
                    }
                }
            }
            // Many kernels have no SCTP. What comes all the same, the capture sees.
            streams.extend(ports.iter().filter_map(|port| {
                let listener = listen(SocketAddr::new(*address, *port), Protocol::SCTP).ok()?;
                Some((listener, "SCTP"))
            }));
        }
        let capture = match Capture::open() {
            Ok(capture) => Some(capture),
            Err(error) => {
                deaf.push(format!(
                    "everything but TCP, UDP and UDP-Lite on these ports: no packet socket \
                     ({error}); run as root or give it CAP_NET_RAW"
                ));
                None
            }
        };
        if streams.is_empty() && udp.is_empty() && capture.is_none() {
            return Err(io::Error::other(format!("nothing can be opened: {}", deaf.join("; "))));
        }
        Ok(Self { streams, udp, capture, addresses, deaf })
    }

    /// Serves until the future is dropped; `arrived` hears of each attempt once.
    ///
    /// # Errors
    /// The capture broke.
    pub async fn serve(self, mut arrived: impl FnMut(&Arrival)) -> io::Result<()> {
        let (tell, mut told) = mpsc::unbounded_channel();
        // What the capture sees, the sockets needn't tell.
        let from_sockets = self.capture.is_none().then(|| tell.clone());
        for (listener, protocol) in self.streams {
            task::spawn_local(accept(listener, protocol, from_sockets.clone()));
        }
        for (socket, protocol) in self.udp {
            task::spawn_local(echo(socket, protocol, from_sockets.clone()));
        }
        let capture = match self.capture {
            Some(capture) => Some(capture.start(self.addresses, tell)?),
            None => None,
        };
        let mut seen = HashSet::new();
        let mut report = |arrival: Arrival| {
            if seen.len() >= REMEMBERED || seen.insert(arrival.token.clone()) {
                arrived(&arrival);
            }
        };
        while let Some(arrival) = told.recv().await {
            report(arrival);
        }
        // Nobody is left who could tell: the capture has ended.
        let ended = capture.and_then(|capture| capture.join().ok());
        ended.unwrap_or_else(|| Err(io::Error::other("nothing listens any more")))
    }
}

fn with(ports: &[u16], more: &[u16]) -> Vec<u16> {
    let mut all = [ports, more].concat();
    all.sort_unstable();
    all.dedup();
    all
}

fn listen(addr: SocketAddr, protocol: Protocol) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

fn datagrams(addr: SocketAddr, protocol: Protocol) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

async fn accept(listener: TcpListener, protocol: &'static str, tell: Option<ReportArrival>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let conversation = converse(stream, peer, protocol, tell.clone());
                task::spawn_local(timeout(CONVERSATION, conversation));
            }
            // Out of files, or a connection that died early: others come.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    peer: SocketAddr,
    protocol: &'static str,
    tell: Option<ReportArrival>,
) {
    let (mut said, mut buffer) = (Vec::new(), [0; 2048]);
    while said.len() < 8192 {
        let Ok(count) = stream.read(&mut buffer).await else { return };
        if count == 0 {
            return;
        }
        said.extend(&buffer[..count]);
        if let Some(token) = Token::find(&said) {
            stream.write_all(&token.answer()).await.ok();
            if let Some(tell) = &tell {
                let port = stream.local_addr().ok().map(|addr| addr.port());
                tell.send(Arrival {
                    token,
                    from: peer.ip().to_string(),
                    protocol: protocol.into(),
                    port,
                })
                .ok();
            }
            said.clear();
        }
    }
}

async fn echo(socket: UdpSocket, protocol: &'static str, tell: Option<ReportArrival>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is an ICMP message about an earlier answer.
        let Ok((count, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(token) = Token::find(&buffer[..count]) else { continue };
        socket.send_to(&token.answer(), peer).await.ok();
        if let Some(tell) = &tell {
            let port = socket.local_addr().ok().map(|addr| addr.port());
            let from = peer.ip().to_string();
            tell.send(Arrival { token, from, protocol: protocol.into(), port }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::token::ProbeId;

    #[tokio::test]
    async fn what_carries_a_token_is_answered_and_told_of_once() {
        let address: IpAddr = [127, 0, 0, 1].into();
        let port = std::net::UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let canary = Canary::open(&[address], &[port]).unwrap();
        let local = task::LocalSet::new();
        let token = Token { id: ProbeId::random(), name: "udp-v4".into() };
        let (tell, mut told) = mpsc::unbounded_channel();
        local.spawn_local(canary.serve(move |arrival| tell.send(arrival.clone()).unwrap()));
        let asked = token.clone();
        local
            .run_until(async move {
                let socket = UdpSocket::bind((address, 0)).await.unwrap();
                let mut buffer = [0; 100];
                // What has none isn't: the next answer is the token's.
                socket.send_to(b"a stranger's", (address, port)).await.unwrap();
                for _ in 0..2 {
                    socket.send_to(&asked.bytes(), (address, port)).await.unwrap();
                    let (count, _) = socket.recv_from(&mut buffer).await.unwrap();
                    assert!(asked.is_in(&buffer[..count]));
                }
                let mut stream = TcpStream::connect((address, port)).await.unwrap();
                let other = Token { name: "tcp-v4".into(), ..asked };
                stream.write_all(&other.bytes()).await.unwrap();
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(other.is_in(&buffer[..count]));
                let first = told.recv().await.unwrap();
                assert_eq!((first.token, first.port), (token, Some(port)));
                assert_eq!(told.recv().await.unwrap().token, other);
                assert!(told.try_recv().is_err());
            })
            .await;
    }
}
