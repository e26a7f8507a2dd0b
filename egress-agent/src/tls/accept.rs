//! The handshake with a client whose TLS the gateway terminates.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ProtocolVersion, ServerConfig};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    AcceptError, config::negotiated_group, revocable::RevocableStream, server,
    x509::CertificateInfo,
};
use crate::{
    net::{PrefixedIo, RelayIo},
    policy::KeyGroup,
    telemetry::{TlsPeer, count_handshake},
    types::DownstreamTls,
};

/// A client's connection inside TLS. It is judged once [`RevocableStream::held_to`] was called.
pub type Terminated = RevocableStream<TlsStream<PrefixedIo<TcpStream>>>;

/// A handshake that failed. The alert was written; what is left is to close, so that it arrives.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: AcceptError,
    /// The connection, unless it took too long.
    pub stream: Option<TcpStream>,
}

/// Handshakes as the server.
///
/// # Errors
/// [`Refused`]; nothing of what the client may have sent was taken.
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: PrefixedIo<TcpStream>,
    deadline: Instant,
) -> Result<(Terminated, DownstreamTls), Refused> {
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => {
            let known = known(&stream);
            Ok((RevocableStream::never(stream), known))
        }
        Ok(Err((error, stream))) => {
            let error = AcceptError::from_io(&error);
            Err(Refused { error, stream: Some(stream.into_inner()) })
        }
        Err(_) => Err(Refused { error: AcceptError::Timeout, stream: None }),
    }
}

/// What the handshake told of the client.
fn known(stream: &TlsStream<PrefixedIo<TcpStream>>) -> DownstreamTls {
    let tls = stream.get_ref().1;
    let version = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "unknown",
    };
    let cipher =
        tls.negotiated_cipher_suite().map_or("unknown", |suite| server::name(suite.suite()));
    // It was verified, so it is well-formed; what can't be put in words has no identity.
    let leaf = tls.peer_certificates().and_then(|chain| CertificateInfo::parse(chain.first()?));
    let group = negotiated_group(tls);
    if let Some(group) = group {
        count_handshake(TlsPeer::Downstream, group);
    }
    let group = group.map(KeyGroup::name);
    DownstreamTls {
        version,
        cipher,
        group,
        peer: leaf.map(CertificateInfo::into_peer),
        vouched: None,
    }
}

impl RelayIo for TlsStream<PrefixedIo<TcpStream>> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.get_ref().0.reset();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().0.poll_gone(cx)
    }
}
