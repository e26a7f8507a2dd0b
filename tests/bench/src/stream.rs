//! One TLS 1.3 stream between two hosts, with nothing around it: what a tunnel is compared with.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
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
const NAME: &str = "node.example";

/// Bytes a second from the gateway to the node, as in a download.
pub(crate) fn rate(node: &Place, gateway: &Place, time: Duration) -> Result<f64> {
    let authority = Authority::new("Measuring")?;
    let (chain, key) = issue_pem(&authority, NAME)?;
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes())?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let server = ServerConfig::builder_with_protocol_versions(&[&TLS13])
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let client = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();

    let at = SocketAddr::new(APP.parse::<IpAddr>()?, PORT);
    let listener = node.ns.enter(|| TcpListener::bind(at))??;
    let sender = gateway.ns.enter(|| TcpStream::connect(at))??;
    let (receiver, _) = listener.accept()?;
    let client = ClientConnection::new(Arc::new(client), ServerName::try_from(NAME)?)?;
    let sender = StreamOwned::new(client, sender);
    let receiver = StreamOwned::new(ServerConnection::new(Arc::new(server))?, receiver);
    thread::scope(|scope| {
        let received = scope.spawn(|| receive(receiver));
        send(sender, time)?;
        received.join().map_err(|_| anyhow!("the receiver panicked"))?
    })
}

fn send(mut stream: StreamOwned<ClientConnection, TcpStream>, time: Duration) -> Result<()> {
    let block = vec![0; 64 << 10];
    let start = Instant::now();
    while start.elapsed() < time {
        stream.write_all(&block)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn receive(mut stream: StreamOwned<ServerConnection, TcpStream>) -> Result<f64> {
    let mut block = vec![0; 64 << 10];
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
