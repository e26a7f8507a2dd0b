//! The node's end of the tunnel: showing its own certificate, and verifying the gateway's. Neither
//! the system's roots nor a name that DNS gave has a part in it.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, Error, OtherError, RootCertStore,
    client::{
        Resumption,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    server::ParsedCertificate,
    sign::SingleCertAndKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::{
    config::{provider, provider_with},
    credential::Credential,
    signatures::verify_signatures,
    verify::{Fault, matches, presented},
    x509::CertificateInfo,
};
use crate::policy::{KeyGroups, TunnelTls};

/// The one protocol of the tunnel (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// Holds gateways to the settings of their service.
#[derive(Debug)]
pub(super) struct GatewayVerifier {
    roots: Arc<RootCertStore>,
    crls: Vec<CertRevocationList<'static>>,
    settings: Arc<TunnelTls>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl GatewayVerifier {
    /// For the gateways of one service.
    ///
    /// # Errors
    /// There is no root, or a revocation list can't be used.
    pub(super) fn new(settings: Arc<TunnelTls>, credential: &Credential) -> Result<Self, String> {
        if credential.roots.is_empty() {
            return Err("there is no root that could vouch for a gateway".into());
        }
        let mut crls = Vec::with_capacity(credential.crls.len());
        for der in &credential.crls {
            let list = OwnedCertRevocationList::from_der(der)
                .map_err(|error| format!("a revocation list can't be used: {error}"))?;
            crls.push(CertRevocationList::from(list));
        }
        Ok(Self {
            roots: Arc::clone(&credential.roots),
            crls,
            settings,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// Whether the gateway that showed this chain is the one that is meant, now.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let webpki = EndEntityCert::try_from(leaf).map_err(from_webpki)?;
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // With lists, every certificate of the chain must be covered by one that is up to date: what
        // can't be told is refused.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        webpki
            .verify_for_usage(
                self.algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                revocation,
                None,
            )
            .map_err(from_webpki)?;
        let info = CertificateInfo::parse(leaf)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let id = info.spiffe_id().map_err(Fault::Identity)?;
        if !self.settings.expects(&id) {
            let expected = expected(&self.settings);
            return Err(Fault::Names { expected, presented: id.to_string() }.into());
        }
        let names = &self.settings.subject_alt_names;
        if !names.is_empty() && !names.iter().any(|name| matches(name, &parsed, &webpki)) {
            let expected = names.join(" or ");
            return Err(Fault::Names { expected, presented: presented(&webpki) }.into());
        }
        Ok(())
    }
}

/// Whom the settings mean, in words.
fn expected(settings: &TunnelTls) -> String {
    match &settings.principal {
        Some(id) => id.to_string(),
        None => {
            format!("spiffe://{}/ns/{}/sa/<any>", settings.trust_domain, settings.namespace.0)
        }
    }
}

/// As rustls says it; its own conversion isn't public.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn from_webpki(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    })
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // Gateways are known by their identity: their addresses prove nothing.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

/// Builds the configuration: TLS 1.3 alone, `h2` alone, and a whole handshake each time.
///
/// # Errors
/// Why the credential can't be used.
pub(super) fn build(
    verifier: &Arc<GatewayVerifier>,
    credential: &Credential,
    groups: &KeyGroups,
) -> Result<ClientConfig, String> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::<GatewayVerifier>::clone(verifier);
    let mut config = ClientConfig::builder_with_provider(provider_with(groups))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&credential.key))));
    config.alpn_protocols = vec![H2.to_vec()];
    // Nobody on the way learns a name.
    config.enable_sni = false;
    // A resumed session verifies no certificate: one that was revoked meanwhile would pass.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests;
