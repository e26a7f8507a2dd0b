//! One dial: TCP, mutual TLS 1.3, HTTP/2, and a first sign of life.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Connection, SendRequest},
};
use rustls::{ClientConfig, ProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{DialError, Limits};
use crate::{
    net::{CONNECTION_WINDOW, Frames},
    policy::Keepalive,
    sys::socket::{keep_alive, user_timeout},
    telemetry::{TlsPeer, count_handshake},
    tls::{TlsError, negotiated_group},
    types::Host,
    wire::hbone,
};

/// Window of one stream, in bytes, as long as pods read: 1 MiB is 4 Gbit/s at 2 ms.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Largest frame taken, in bytes. Streams take turns frame by frame.
const FRAME: u32 = 64 * 1024;
/// What one stream may have waiting to be sent, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// An answer to CONNECT has few headers.
const HEADER_LIST: u32 = 16 * 1024;
/// What small frames may cost, in bytes as the library counts them, before it closes a connection. A
/// relay takes frames as they come, so that only what comes between two turns counts.
const DATA_FRAMES: usize = 64 * 1024 * 1024;
/// A gateway always reads, so one that takes nothing for so long is gone.
const GATEWAY_GONE: Duration = Duration::from_secs(30);
/// Streams that were reset here and whose late frames are ignored.
const RESET_STREAMS: usize = 10_000;

/// A connection to a gateway that has shown to be alive.
pub(super) struct OpenConnection {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) connection: Connection<Frames<TlsStream<TcpStream>>, Bytes>,
    pub(super) ping: PingPong,
    /// What the gateway showed.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Dials. With TLS 1.3 a client has finished before the server judges its certificate, and an HTTP/2
/// server names its limits unasked. One ping tells both: it comes back after them.
pub(super) async fn open(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    limits: &Limits,
) -> Result<OpenConnection, DialError> {
    let stream = match timeout(limits.connect, connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::Connect { to, why: error.to_string() }),
        Err(_) => return Err(DialError::Timeout { to, during: "connecting" }),
    };
    match timeout(limits.handshake, handshake(to, config, stream)).await {
        Ok(opened) => opened,
        Err(_) => Err(DialError::Timeout { to, during: "the TLS and HTTP/2 handshakes" }),
    }
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let stream = socket.connect(to).await?;
    let Keepalive { time, interval, probes } = Keepalive::default();
    keep_alive(&stream, time, interval, probes)?;
    user_timeout(&stream, GATEWAY_GONE)?;
    Ok(stream)
}

async fn handshake(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<OpenConnection, DialError> {
    let host = Host::Ip(to.ip());
    // Gateways are known by their identity; the name is a formality.
    let name = ServerName::IpAddress(to.ip().into());
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream =
        stream.map_err(|error| DialError::Tls { to, why: TlsError::from_io(&error, &host) })?;
    let tls = stream.get_ref().1;
    // The configuration sees to both; a tunnel's promise doesn't rest on one place alone.
    if tls.alpn_protocol() != Some(hbone::ALPN) {
        let found = tls.alpn_protocol().map(String::from_utf8_lossy);
        let found = found.map_or("no ALPN".into(), |alpn| format!("ALPN {alpn}"));
        return Err(DialError::Protocol { to, found, expected: "ALPN h2" });
    }
    if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        let found = format!("{:?}", tls.protocol_version());
        return Err(DialError::Protocol { to, found, expected: "TLS 1.3" });
    }
    if let Some(group) = negotiated_group(tls) {
        count_handshake(TlsPeer::Upstream, group);
    }
    let chain = tls.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let ended = |error: h2::Error| ended(to, &host, error);
    let handshake = builder().handshake::<_, Bytes>(Frames::from_server(stream)).await;
    let (sender, mut connection) = handshake.map_err(ended)?;
    let Some(mut ping) = connection.ping_pong() else {
        return Err(DialError::Ended { to, why: "no way to ask for a sign of life".into() });
    };
    tokio::select! {
        result = &mut connection => {
            result.map_err(ended)?;
            return Err(DialError::Ended { to, why: "it was closed without a word".into() });
        }
        pong = ping.ping(Ping::opaque()) => {
            let _alive = pong.map_err(ended)?;
        }
    }
    Ok(OpenConnection { sender, connection, ping, chain })
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .data_frame_budget(DATA_FRAMES)
        // Pods go away in the middle of downloads; that mustn't end a connection that others share.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(None)
        .enable_push(false);
    builder
}

/// With TLS 1.3 a refusal of the client's certificate arrives after the handshake, or not at all, when
/// the connection is gone before it is read. HTTP/2 keeps the text of such an error alone.
fn ended(to: SocketAddr, host: &Host, error: h2::Error) -> DialError {
    let why = error.to_string();
    match why.rsplit_once("received fatal alert: ") {
        Some((_, alert)) => {
            let alert = format!("{alert}, it does not accept this node's client certificate");
            DialError::Tls { to, why: TlsError::Alert { host: host.to_string(), alert } }
        }
        None if error.is_io() => DialError::Ended {
            to,
            why: format!(
                "{why}, right after the TLS handshake, as a gateway does that does not accept this \
                 node's client certificate; its log says why"
            ),
        },
        None => DialError::Ended { to, why },
    }
}
