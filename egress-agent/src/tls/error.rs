//! What can go wrong with TLS towards an upstream, in sentences for people.

use egress_ebpf::reason::Reason;
use thiserror::Error;

/// Why TLS towards an upstream failed. Nothing of the request was sent.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum TlsError {
    /// The certificate isn't valid any more.
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
            | Self::Certificate { .. }
            | Self::Alert { .. }
            | Self::NotTls { .. }
            | Self::Protocol { .. }
            | Self::Broken { .. }
            | Self::File { .. } => Reason::UpstreamTls,
        }
    }
}
