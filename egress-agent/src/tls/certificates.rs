//! Which of a server's certificates a client is shown.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    SignatureAlgorithm, SupportedCipherSuite, SupportedProtocolVersion,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;
use webpki::EndEntityCert;

use super::credential::Credential;

/// The certificates of a server. Of those that a client can verify it is shown one for the name that it asks for;
/// of several one with an ECDSA key, as Envoy prefers it; and of several of those the first.
#[derive(Debug)]
pub(super) struct Certificates {
    credentials: Vec<Arc<Credential>>,
    /// What the server speaks.
    suites: Vec<SupportedCipherSuite>,
}

impl Certificates {
    /// Of a server that speaks these versions and suites.
    pub(super) fn new(
        credentials: &[Arc<Credential>],
        versions: &[&'static SupportedProtocolVersion],
        suites: &[SupportedCipherSuite],
    ) -> Self {
        let spoken = suites.iter().filter(|suite| versions.contains(&suite.version()));
        Self { credentials: credentials.to_vec(), suites: spoken.copied().collect() }
    }

    /// Whether a client that says this can verify what the key signs. Before TLS 1.3 the suite says which kind of
    /// key it goes with (RFC 5246 appendix A.5).
    fn fits(&self, key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
        let algorithm = key.key.algorithm();
        let mut usable = self.suites.iter().filter(|suite| {
            suite.usable_for_signature_algorithm(algorithm)
                && hello.cipher_suites().contains(&suite.suite())
        });
        usable.next().is_some() && key.key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys: Vec<&Arc<CertifiedKey>> = match self.credentials.as_slice() {
            // Its time was looked at when the configuration was asked for.
            [credential] => vec![&credential.key],
            credentials => {
                let now = SystemTime::now();
                let valid = credentials.iter().filter(|credential| credential.not_after > now);
                valid.map(|credential| &credential.key).collect()
            }
        };
        let fitting = keys.iter().filter(|key| self.fits(key, &hello));
        let best = fitting.min_by_key(|key| {
            let is_ecdsa = key.key.algorithm() == SignatureAlgorithm::ECDSA;
            (!is_for(key, hello.server_name()), !is_ecdsa)
        });
        // Where none fits, the handshake fails, and says why.
        best.or_else(|| keys.first()).map(|key| Arc::clone(key))
    }
}

/// Whether the certificate is for the name that a client asks for; each is for a client that asks for none.
fn is_for(key: &CertifiedKey, name: Option<&str>) -> bool {
    let Some(name) = name else { return true };
    let (Ok(name), Some(leaf)) = (ServerName::try_from(name), key.cert.first()) else {
        return false;
    };
    EndEntityCert::try_from(leaf)
        .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
}
