//! Why a client's TLS handshake failed, or its certificate no longer verifies.

use std::io;

use egress_ebpf::reason::Reason;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};
use thiserror::Error;

use super::client::ClientFault;

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AcceptError {
    /// It was asked for a certificate and showed none.
    #[error("the client showed no certificate, and this server asks for one")]
    NoCertificate,
    /// No trusted root vouches for it.
    #[error("the client's certificate is not trusted: {0}")]
    Untrusted(String),
    /// It has expired, or is not valid yet.
    #[error("the client's certificate is not valid at this time: {0}")]
    Expired(String),
    /// It is revoked, or its revocation cannot be verified.
    #[error("the client's certificate is revoked, or its revocation cannot be verified: {0}")]
    Revoked(String),
    /// It is for an identity that may not connect.
    #[error("the client's certificate is for another identity: {0}")]
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

    pub(super) fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::from_rustls(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Broken("it was closed without a word".into())
            }
            None => Self::Broken(error.to_string()),
        }
    }

    /// What a failed handshake, or a later look at the client's certificate, means.
    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
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
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
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
