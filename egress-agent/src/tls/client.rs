//! Verifying a client's certificate: the chain and its revocation as webpki does, then what the
//! server's settings ask for besides.

use std::sync::Arc;

use rustls::{
    CertificateError, DistinguishedName, Error, OtherError,
    crypto::WebPkiSupportedAlgorithms,
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::EndEntityCert;

use super::{
    config::provider,
    credential::Credential,
    signatures::verify_signatures,
    verify::{matches, presented},
    x509::{CertificateInfo, base64, hex, sha256},
};
use crate::{
    policy::{ServerTls, ServerTlsMode},
    types::TrustDomain,
};

/// What rustls has no word for; it travels inside [`CertificateError::Other`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum ClientFault {
    /// No SPIFFE ID, or more than one URI.
    #[error("{0}")]
    Identity(String),
    /// An identity of another mesh.
    #[error("found the trust domain {found} ({id}), expected {expected}")]
    TrustDomain { found: TrustDomain, id: String, expected: TrustDomain },
    /// None of `subjectAltNames`.
    #[error("it was issued for {presented}, expected {expected}")]
    Names { expected: String, presented: String },
    /// Neither key nor certificate is pinned.
    #[error(
        "neither its key nor itself is among verifyCertificateSpki and verifyCertificateHash (SHA-256 {0})"
    )]
    Pins(String),
}

impl From<ClientFault> for Error {
    fn from(fault: ClientFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// Holds clients to a server's settings.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    settings: Arc<ServerTls>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// For a server that asks its clients.
    ///
    /// # Errors
    /// There is no root, or a revocation list can't be used.
    pub(super) fn new(
        settings: Arc<ServerTls>,
        credential: &Credential,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let roots = Arc::clone(&credential.roots);
        // With lists, every certificate of the chain must be covered by one that is up to date: what
        // can't be told is refused.
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .with_crls(credential.crls.iter().cloned())
            .enforce_revocation_expiration();
        let builder = match settings.mode {
            ServerTlsMode::OptionalMutual => builder.allow_unauthenticated(),
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::IstioMutual(_) => {
                builder
            }
        };
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { chain: builder.build()?, settings, algorithms })
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let ServerTls { mode, subject_alt_names, spki_pins, hashes, .. } = &*self.settings;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let webpki = EndEntityCert::try_from(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if let ServerTlsMode::IstioMutual(expected) = mode {
            let info = CertificateInfo::parse(leaf)
                .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let id = info.spiffe_id().map_err(ClientFault::Identity)?;
            if id.trust_domain != *expected {
                return Err(ClientFault::TrustDomain {
                    found: id.trust_domain.clone(),
                    id: id.to_string(),
                    expected: expected.clone(),
                }
                .into());
            }
        }
        if !subject_alt_names.is_empty()
            && !subject_alt_names.iter().any(|name| matches(name, &parsed, &webpki))
        {
            let expected = subject_alt_names.join(" or ");
            return Err(ClientFault::Names { expected, presented: presented(&webpki) }.into());
        }
        if !spki_pins.is_empty() || !hashes.is_empty() {
            let key = base64(&sha256(&webpki.subject_public_key_info()));
            let own = hex(&sha256(leaf));
            if !spki_pins.contains(&key) && !hashes.contains(&own) {
                return Err(ClientFault::Pins(own).into());
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.check(end_entity)?;
        Ok(verified)
    }

    verify_signatures!();
}
