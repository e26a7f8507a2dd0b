//! SPIFFE IDs and certificates, as a client may show them.

use egress_agent::{tls::CertificateInfo, types::SpiffeId};

/// A text has one reading and one spelling, and nothing in a certificate stops its reader.
pub fn identity(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = SpiffeId::parse(text)
    {
        assert_eq!(id.to_string(), text, "another spelling of {id:?}");
        assert!(text.len() <= 2048 && text.is_ascii(), "{text:?}");
        assert!(!text.contains(['%', '?', '#', '@', ' ']), "{text:?}");
        let parts: Vec<&str> = text.split('/').collect();
        let ["spiffe:", "", domain, "ns", namespace, "sa", account] = parts[..] else {
            panic!("{text:?}");
        };
        assert!(!domain.is_empty() && !domain.contains(':'), "{text:?}");
        for segment in [namespace, account] {
            assert!(!matches!(segment, "" | "." | ".."), "{text:?}");
        }
    }
    if let Some(info) = CertificateInfo::parse(bytes) {
        assert_eq!(info.fingerprint.len(), 64);
        drop(info.into_peer());
    }
}
