//! What can go wrong with TLS towards an upstream, in sentences for people.

use std::io;

use egress_ebpf::reason::Reason;
use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};
use rustls_pki_types::UnixTime;
use thiserror::Error;

use super::verify::Fault;
use crate::types::Host;

/// Why TLS towards an upstream failed. Nothing of the request was sent.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TlsError {
    /// The certificate is no longer valid.
    #[error("the certificate of {host} expired on {not_after}")]
    Expired {
        /// The name that was to be verified.
        host: String,
        /// When, as a date.
        not_after: String,
    },
    /// The certificate isn't valid yet.
    #[error("the certificate of {host} is not valid before {not_before}")]
    NotYetValid {
        /// The name that was to be verified.
        host: String,
        /// When, as a date.
        not_before: String,
    },
    /// It is for somebody else.
    #[error("the certificate was issued for {presented}, not for {expected}")]
    WrongName {
        /// What it should have been issued for.
        expected: String,
        /// Whom it was issued for.
        presented: String,
    },
    /// No trusted root signed it.
    #[error("unknown issuer: the certificate of {host} is not signed by a trusted root")]
    UnknownIssuer {
        /// The name that was to be verified.
        host: String,
    },
    /// It signed itself, and isn't trusted.
    #[error("self-signed certificate: {host} vouches for itself and is not a trusted root")]
    SelfSigned {
        /// The name that was to be verified.
        host: String,
    },
    /// It was revoked, or that cannot be verified.
    #[error("the certificate of {host} is revoked, or that can't be told: {why}")]
    Revoked {
        /// The name that was to be verified.
        host: String,
        /// What is known of it.
        why: String,
    },
    /// Some other fault of the certificate.
    #[error("the certificate of {host} is not acceptable: {why}")]
    Certificate {
        /// The name that was to be verified.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// The upstream ended the handshake with an alert.
    #[error("{host} refused the TLS handshake: {alert}")]
    Alert {
        /// The upstream.
        host: String,
        /// The alert's name and what it usually means.
        alert: String,
    },
    /// The upstream doesn't speak TLS.
    #[error("{host} does not speak TLS on this port")]
    NotTls {
        /// The upstream.
        host: String,
    },
    /// No common version, suite or protocol, or a violation of the protocol.
    #[error("TLS with {host} failed: {why}")]
    Protocol {
        /// The upstream.
        host: String,
        /// What happened.
        why: String,
    },
    /// The connection broke during the handshake.
    #[error("the connection to {host} broke during the TLS handshake: {why}")]
    Broken {
        /// The upstream.
        host: String,
        /// What happened.
        why: String,
    },
    /// The handshake didn't finish in time.
    #[error("the TLS handshake with {host} did not finish in time")]
    Timeout {
        /// The upstream.
        host: String,
    },
    /// A file of the rule can't be used.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What was found and what was expected.
        why: String,
    },
}

impl TlsError {
    /// The reason to log and count.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout { .. } => Reason::Timeout,
            Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::WrongName { .. }
            | Self::UnknownIssuer { .. }
            | Self::SelfSigned { .. }
            | Self::Revoked { .. }
            | Self::Certificate { .. }
            | Self::Alert { .. }
            | Self::NotTls { .. }
            | Self::Protocol { .. }
            | Self::Broken { .. } => Reason::UpstreamTls,
            // What the rule asks for is not there.
            Self::File { .. } => Reason::TlsPolicyUnavailable,
        }
    }

    /// What a failed handshake with `host` means.
    #[must_use]
    pub fn from_io(error: &io::Error, host: &Host) -> Self {
        let host = host.to_string();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::from_rustls(error, host),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Broken { host, why: "it was closed without a word".into() }
            }
            None => Self::Broken { host, why: error.to_string() },
        }
    }

    /// What a failed handshake, or a later look at the certificate of `host`, means.
    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
    pub(super) fn from_rustls(error: &rustls::Error, host: String) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::from_certificate(error, host),
            rustls::Error::AlertReceived(alert) => Self::Alert { host, alert: explain(*alert) },
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls { host },
            rustls::Error::InvalidMessage(InvalidMessage::MessageTooLarge)
            | rustls::Error::PeerSentOversizedRecord => Self::NotTls { host },
            rustls::Error::NoCertificatesPresented => {
                Self::Certificate { host, why: "it showed none".into() }
            }
            error => Self::Protocol { host, why: error.to_string() },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
    fn from_certificate(error: &CertificateError, host: String) -> Self {
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::Expired { host, not_after: date(*not_after) }
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid { host, not_before: date(*not_before) }
            }
            CertificateError::NotValidForNameContext { presented, .. } => Self::WrongName {
                expected: host,
                presented: match &presented[..] {
                    [] => "no name".into(),
                    names => names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
                },
            },
            CertificateError::UnknownIssuer => Self::UnknownIssuer { host },
            CertificateError::Revoked => {
                Self::Revoked { host, why: "a revocation list names it".into() }
            }
            CertificateError::UnknownRevocationStatus => {
                Self::Revoked { host, why: "no revocation list covers its issuer".into() }
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::Revoked { host, why: format!("the revocation list is out of date ({error})") }
            }
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Fault>() {
                Some(Fault::SelfSigned) => Self::SelfSigned { host },
                Some(Fault::Names { expected, presented }) => {
                    Self::WrongName { expected: expected.clone(), presented: presented.clone() }
                }
                Some(Fault::Identity(why)) => Self::Certificate { host, why: why.clone() },
                None => Self::Certificate { host, why: inner.to_string() },
            },
            error => Self::Certificate { host, why: error.to_string() },
        }
    }
}

/// rustls writes names as `DnsName("a.example")`.
fn plain(name: &str) -> String {
    let inner = name.split_once("(\"").and_then(|(_, rest)| rest.strip_suffix("\")"));
    inner.unwrap_or(name).to_owned()
}

/// A date in UTC, as people write it.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "a date beyond the calendar".into(),
    }
}

/// An alert's name, and what an upstream usually means by it (RFC 8446 §6.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn explain(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::HandshakeFailure => {
            "no cipher suite, group or signature in common; of TLS 1.2 only ECDHE with AEAD ciphers \
             was offered, none with CBC, DHE or RSA key exchange"
        }
        AlertDescription::InsufficientSecurity => {
            "it wants stronger ciphers or groups than were offered"
        }
        AlertDescription::ProtocolVersion => "no TLS version in common; 1.2 and 1.3 were offered",
        AlertDescription::UnrecognisedName => "it does not serve this name",
        AlertDescription::NoApplicationProtocol => "it speaks none of the protocols offered",
        AlertDescription::CertificateRequired => "it wants a client certificate",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => "it does not accept the client certificate",
        _ => return format!("{alert:?}"),
    };
    format!("{alert:?}, {meaning}")
}
