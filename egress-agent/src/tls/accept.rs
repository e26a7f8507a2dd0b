//! The handshake with a client whose TLS ends here.

use std::{io, sync::Arc};

use egress_ebpf::reason::Reason;
use rustls::{
    AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible,
    ProtocolVersion, ServerConfig,
};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    client::ClientFault, config::negotiated_group, judged::Judged, server, x509::CertificateInfo,
};
use crate::{
    net::{Rewound, Side},
    policy::KeyGroup,
    telemetry::{TlsPeer, count_handshake},
    types::DownstreamTls,
};

/// A client's connection inside TLS. It is judged once [`Judged::held_to`] was called.
pub type Terminated = Judged<TlsStream<Rewound<TcpStream>>>;

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AcceptError {
    /// It was asked for a certificate and showed none.
    #[error("the client showed no certificate, and this server asks for one")]
    NoCertificate,
    /// Nobody that is trusted vouches for it.
    #[error("the client's certificate is not trusted: {0}")]
    Untrusted(String),
    /// Its time is over, or hasn't come.
    #[error("the client's certificate is out of its time: {0}")]
    Expired(String),
    /// It was revoked, or nobody can tell.
    #[error("the client's certificate is revoked, or that can't be told: {0}")]
    Revoked(String),
    /// It is of somebody else than may come.
    #[error("the client's certificate is for somebody else: {0}")]
    Identity(String),
    /// No version, cipher suite or protocol in common, or a violation.
    #[error("TLS with the client failed: {0}")]
    Protocol(String),
    /// The client doesn't accept our certificate, or what was agreed.
    #[error("the client ended the handshake: {0}")]
    Alert(String),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the TLS handshake did not finish in time")]
    Timeout,
}

impl AcceptError {
    /// The reason to log and count.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoCertificate => Reason::NoClientCertificate,
            Self::Untrusted(_) => Reason::UntrustedClient,
            Self::Expired(_) => Reason::ExpiredClient,
            Self::Revoked(_) => Reason::RevokedClient,
            Self::Identity(_) => Reason::ClientIdentity,
            Self::Protocol(_) | Self::Alert(_) => Reason::DownstreamTls,
            Self::Broken(_) => Reason::Reset,
            Self::Timeout => Reason::Timeout,
        }
    }

    fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::from_rustls(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Broken("it was closed without a word".into())
            }
            None => Self::Broken(error.to_string()),
        }
    }

    /// What a failed handshake, or a later look at the client's certificate, means.
    pub(super) fn from_rustls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::from_certificate(error),
            rustls::Error::AlertReceived(alert) => Self::Alert(meaning(*alert)),
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::Protocol("found bytes that are no TLS".into()),
            rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::Protocol(
                "the client offers no TLS version that this server speaks (minProtocolVersion, maxProtocolVersion; below 1.2 nothing is spoken)".into(),
            ),
            rustls::Error::NoApplicationProtocol => Self::Protocol(
                "the client offers none of the protocols h2 and http/1.1 (ALPN)".into(),
            ),
            error => Self::Protocol(error.to_string()),
        }
    }

    fn from_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired(error.to_string()),
            CertificateError::Revoked => Self::Revoked("a list of caCrl names it".into()),
            CertificateError::UnknownRevocationStatus => {
                Self::Revoked("no list of caCrl covers its issuer".into())
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::Revoked(format!("the list of caCrl is out of date ({error})"))
            }
            CertificateError::UnknownIssuer => {
                Self::Untrusted("no root of caCertificates signed it".into())
            }
            CertificateError::Other(OtherError(inner)) => {
                match inner.downcast_ref::<ClientFault>() {
                    Some(fault) => Self::Identity(fault.to_string()),
                    None => Self::Untrusted(inner.to_string()),
                }
            }
            error => Self::Untrusted(error.to_string()),
        }
    }
}

/// An alert's name, and what a client usually means by it (RFC 8446 §6.2).
fn meaning(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA => "it does not accept the server's certificate",
        AlertDescription::ProtocolVersion => "it speaks no version that was offered",
        _ => return format!("{alert:?}"),
    };
    format!("{alert:?}, {meaning}")
}

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
    stream: Rewound<TcpStream>,
    deadline: Instant,
) -> Result<(Terminated, DownstreamTls), Refused> {
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    match timeout_at(deadline, accepting).await {
        Ok(Ok(stream)) => {
            let known = known(&stream);
            Ok((Judged::never(stream), known))
        }
        Ok(Err((error, stream))) => {
            let error = AcceptError::from_io(&error);
            Err(Refused { error, stream: Some(stream.into_inner()) })
        }
        Err(_) => Err(Refused { error: AcceptError::Timeout, stream: None }),
    }
}

/// What the handshake told of the client.
fn known(stream: &TlsStream<Rewound<TcpStream>>) -> DownstreamTls {
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

impl Side for TlsStream<Rewound<TcpStream>> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {
        self.get_ref().0.reset();
    }
}
