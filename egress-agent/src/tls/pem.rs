//! What PEM files hold.

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// Certificates, at least one.
///
/// # Errors
/// What was found, and what was expected.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err("found no `BEGIN CERTIFICATE`, expected PEM certificates".into())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(fault(&error, "PEM certificates")),
    }
}

/// The first private key.
///
/// # Errors
/// What was found, and what was expected.
pub(super) fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| fault(&error, "a PEM private key (PKCS#8, PKCS#1 or SEC1)"))
}

/// Revocation lists, at least one.
///
/// # Errors
/// What was found, and what was expected.
pub(super) fn crls(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    match lists {
        Ok(lists) if lists.is_empty() => {
            Err("found no `BEGIN X509 CRL`, expected PEM revocation lists".into())
        }
        Ok(lists) => Ok(lists),
        Err(error) => Err(fault(&error, "PEM revocation lists")),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn fault(error: &pem::Error, expected: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("found none, expected {expected}"),
        error => format!("found broken PEM ({error}), expected {expected}"),
    }
}
