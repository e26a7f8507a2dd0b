//! One TLS 1.3 stream between two hosts, with nothing around it: what a tunnel is compared with.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use egress_tests::{
    ca::{Authority, issue_pem},
    plan::APP,
    process::Place,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

const PORT: u16 = 9443;
/// Where the node hands on what it received.
const NEXT: u16 = 9444;
const NAME: &str = "node.example";
/// Bytes that are read and written at once.
const BLOCK: usize = 64 << 10;

/// The gateway's end, which sends.
type Sender = StreamOwned<ClientConnection, TcpStream>;
/// The node's end.
type Receiver = StreamOwned<ServerConnection, TcpStream>;

/// A stream from the gateway to the node.
fn open(node: &Place, gateway: &Place) -> Result<(Sender, Receiver)> {
    let authority = Authority::new("Measuring")?;
    let (chain, key) = issue_pem(&authority, NAME)?;
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes())?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut server = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // The sender reads nothing, and what it left unread would turn its end into a reset.
    server.send_tls13_tickets = 0;
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();

    let at = node_at(PORT)?;
    let listener = node.ns.enter(|| TcpListener::bind(at))??;
    let sender = gateway.ns.enter(|| TcpStream::connect(at))??;
    let (receiver, _) = listener.accept()?;
    let client = ClientConnection::new(Arc::new(client), ServerName::try_from(NAME)?)?;
    let sender = StreamOwned::new(client, sender);
    Ok((sender, StreamOwned::new(ServerConnection::new(Arc::new(server))?, receiver)))
}

fn node_at(port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(APP.parse::<IpAddr>()?, port))
}

/// Bytes a second from the gateway to the node, as in a download: made here, and thrown away there.
pub(crate) fn rate(node: &Place, gateway: &Place, time: Duration) -> Result<f64> {
    let (sender, receiver) = open(node, gateway)?;
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(receiver));
        send(sender, time)?;
        received.join().map_err(|_| anyhow!("the receiver panicked"))?
    })
}

/// The same between two relays: what the gateway sends it reads from `source`, and the node hands on
/// what it receives to the pod. So four threads work at it, as with a tunnel. `pod` dials as the pod
/// and reads.
pub(crate) fn relayed(
    node: &Place,
    gateway: &Place,
    source: SocketAddr,
    pod: impl FnOnce(SocketAddr) -> Result<f64>,
) -> Result<f64> {
    let (mut sender, mut receiver) = open(node, gateway)?;
    let at = node_at(NEXT)?;
    let listener = node.ns.enter(|| TcpListener::bind(at))??;
    let mut source = gateway.ns.enter(|| TcpStream::connect(source))??;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut block = vec![0; BLOCK];
            // It ends when the node listens no more.
            while let Ok(read @ 1..) = source.read(&mut block) {
                if sender.write_all(&block[..read]).is_err() {
                    return;
                }
            }
        });
        let handing = scope.spawn(move || -> Result<()> {
            let (mut pod, _) = listener.accept()?;
            let mut block = vec![0; BLOCK];
            // It ends when the pod listens no more.
            while let read @ 1.. = receiver.read(&mut block)? {
                if pod.write_all(&block[..read]).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        });
        let rate = pod(at);
        if rate.is_err() {
            // Nobody else would end the wait for the pod.
            node.ns.enter(|| TcpStream::connect(at))?.ok();
        }
        handing
            .join()
            .map_err(|_| anyhow!("the node's end panicked"))?
            .context("the node's end")?;
        rate
    })
}

fn send(mut stream: Sender, time: Duration) -> Result<()> {
    let block = vec![0; BLOCK];
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&block)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn receive(mut stream: Receiver) -> Result<f64> {
    let mut block = vec![0; BLOCK];
    // The handshake isn't counted.
    let mut bytes = stream.read(&mut block)?;
    let start = Instant::now();
    loop {
        match stream.read(&mut block)? {
            0 => break,
            read => bytes += read,
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate of three digits")]
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}
