//! From a server's settings and its credential to a rustls configuration.

use std::sync::Arc;

use rustls::{
    CipherSuite as Suite, ServerConfig, SupportedProtocolVersion,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    certificates::Certificates, client::ClientVerifier, config::provider_with,
    credential::Credential,
};
use crate::policy::{CipherSuite, InnerProtocol, ServerTls, TlsVersion};

/// Builds the configuration; of several credentials a client is shown the one that fits it. `verifier` is there where
/// clients are asked.
///
/// # Errors
/// Why the settings can't be carried out with these credentials.
pub(super) fn build(
    settings: &Arc<ServerTls>,
    credentials: &[Arc<Credential>],
    verifier: Option<&Arc<ClientVerifier>>,
) -> Result<ServerConfig, String> {
    let mut provider = rustls::crypto::CryptoProvider::clone(&provider_with(&settings.key_groups));
    if !settings.cipher_suites.is_empty() {
        let wanted: Vec<_> = settings.cipher_suites.iter().map(|suite| wire(*suite)).collect();
        let place = |suite: Suite| wanted.iter().position(|wanted| *wanted == suite);
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || place(suite.suite()).is_some());
        // Those of TLS 1.3 keep their order: the sort is stable.
        provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    }
    let versions: &[&SupportedProtocolVersion] = match (settings.min_version, settings.max_version)
    {
        (TlsVersion::V1_2, TlsVersion::V1_2) => &[&TLS12],
        (TlsVersion::V1_2, TlsVersion::V1_3) => &[&TLS13, &TLS12],
        (TlsVersion::V1_3, _) => &[&TLS13],
    };
    let verifier: Arc<dyn ClientCertVerifier> = match verifier {
        Some(verifier) => Arc::<ClientVerifier>::clone(verifier),
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let certificates = Certificates::new(credentials, versions, &provider.cipher_suites);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = match settings.inside {
        InnerProtocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        // Whatever the client means to speak passes.
        InnerProtocol::Tcp => Vec::new(),
    };
    if settings.mode.asks() {
        // A resumed session isn't asked for its certificate again: one that has expired or was
        // revoked meanwhile would pass.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn wire(suite: CipherSuite) -> Suite {
    match suite {
        CipherSuite::EcdsaAes128 => Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::RsaAes128 => Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdsaAes256 => Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::RsaAes256 => Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdsaChaCha => Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::RsaChaCha => Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

/// OpenSSL's name of a suite, as Envoy logs it.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
pub(super) fn name(suite: Suite) -> &'static str {
    if let Some(known) = CipherSuite::ALL.iter().find(|known| wire(**known) == suite) {
        return known.name();
    }
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        Suite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}
