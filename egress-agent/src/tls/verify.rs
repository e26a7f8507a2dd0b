//! Verifying an upstream's certificate: the chain as webpki does, the names as the rule says.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, Error, OtherError, RootCertStore,
    client::{
        WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;
use webpki::EndEntityCert;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use super::signatures::verify_signatures;

/// Whom a certificate must be for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Names {
    /// The name that was asked for.
    Server,
    /// One of `subjectAltNames`, instead: URIs exactly, DNS names as certificates match them.
    Any(Vec<String>),
    /// `insecureSkipVerify`: nothing of it is verified, not even who signed it.
    Unverified,
}

#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    names: Names,
    /// What refuses revoked certificates, where there are lists.
    lists: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of `caCertificates` themselves: a server's own may be one of them.
    pins: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What rustls has no word for; it travels inside [`CertificateError::Other`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum Fault {
    #[error("self-signed")]
    SelfSigned,
    #[error("issued for {presented}, not for {expected}")]
    Names { expected: String, presented: String },
    /// No SPIFFE ID, or more than one URI.
    #[error("{0}")]
    Identity(String),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

impl Verifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        names: Names,
        lists: Option<Arc<WebPkiServerVerifier>>,
        provider: &CryptoProvider,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { roots, names, lists, pins: Vec::new(), algorithms }
    }

    /// The same, which also accepts these very certificates from servers. webpki does not accept one that
    /// is marked as a CA's, as `openssl req -x509` makes them.
    pub(super) fn with_pins(mut self, pins: Vec<CertificateDer<'static>>) -> Self {
        self.pins = pins;
        self
    }

    /// Whether the server shows a certificate that the rule lists itself.
    fn is_pinned(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.pins.iter().any(|pin| pin.as_ref() == end_entity.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.names == Names::Unverified {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let webpki = EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // What says that it may sign others may not, where its key usage says so (RFC 5280 §4.2.1.3), which
        // webpki leaves to its caller.
        let signers: Vec<_> = intermediates.iter().filter(|one| may_sign(one)).cloned().collect();
        let chained = verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            &signers,
            now,
            self.algorithms.all,
        );
        let trusted = match chained {
            Err(_) if self.is_pinned(end_entity) => pinned(end_entity, now),
            chained => chained,
        };
        trusted.map_err(|error| {
            // A certificate that is its own issuer has nobody else to vouch for it; webpki finds
            // other faults with it first where it is marked as a CA's.
            let unknown = matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::Other(_)
                )
            );
            let is_own_issuer = unknown && webpki.issuer() == webpki.subject();
            if is_own_issuer { Fault::SelfSigned.into() } else { error }
        })?;
        if let Some(lists) = &self.lists {
            let listed = lists.verify_server_cert(end_entity, intermediates, server_name, &[], now);
            match listed {
                // Names are compared below; here they come after the lists.
                Ok(_)
                | Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => {}
                Err(error) => return Err(error),
            }
        }
        match &self.names {
            Names::Server => verify_server_name(&parsed, server_name)?,
            Names::Any(names) => {
                if !names.iter().any(|name| matches(name, &parsed, &webpki)) {
                    let expected = names.join(" or ");
                    return Err(Fault::Names { expected, presented: presented(&webpki) }.into());
                }
            }
            Names::Unverified => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// Whether a certificate's key usage, where it has one, lets it sign others.
fn may_sign(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    }
}

/// What else has to hold of a certificate that the rule lists itself: its time, and what it is for.
fn pinned(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    };
    let at = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    };
    let (not_before, not_after) =
        (at(parsed.validity().not_before), at(parsed.validity().not_after));
    if now < not_before {
        let error = CertificateError::NotValidYetContext { time: now, not_before };
        return Err(Error::InvalidCertificate(error));
    }
    if now > not_after {
        let error = CertificateError::ExpiredContext { time: now, not_after };
        return Err(Error::InvalidCertificate(error));
    }
    match parsed.extended_key_usage() {
        Ok(Some(usage)) if !usage.value.server_auth && !usage.value.any => {
            Err(Error::InvalidCertificate(CertificateError::InvalidPurpose))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

/// Whether a certificate holds this name: URIs exactly, DNS names as certificates match them.
pub(super) fn matches(
    name: &str,
    parsed: &ParsedCertificate<'_>,
    webpki: &EndEntityCert<'_>,
) -> bool {
    if name.contains("://") {
        return webpki.valid_uri_names().any(|uri| uri == name);
    }
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(parsed, &name).is_ok())
}

/// The names that a certificate holds.
pub(super) fn presented(webpki: &EndEntityCert<'_>) -> String {
    let names: Vec<&str> = webpki.valid_dns_names().chain(webpki.valid_uri_names()).collect();
    match &names[..] {
        [] => "no name".into(),
        names => names.join(", "),
    }
}
