//! What is known of a client that speaks TLS to the gateway itself.

use std::{sync::Arc, time::SystemTime};

use super::SpiffeId;

/// TLS that a server of this gateway ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownstreamTls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub cipher: &'static str,
    /// The group of the key exchange, by BoringSSL's name.
    pub group: Option<&'static str>,
    /// The client's certificate, verified; `None` where it showed none.
    pub peer: Option<PeerCertificate>,
    /// The identity that it vouches for, where it isn't its own: a workload's, through the tunnel of
    /// the workload's node.
    pub vouched: Option<Arc<str>>,
}

impl DownstreamTls {
    /// The authenticated identity of the client.
    #[must_use]
    pub fn principal(&self) -> Option<&SpiffeId> {
        self.peer.as_ref()?.principal.as_ref()
    }

    /// Whether the client's certificate, if it showed one, still proves something.
    #[must_use]
    pub fn is_proof_at(&self, now: SystemTime) -> bool {
        self.peer.as_ref().is_none_or(|peer| now < peer.not_after)
    }

    /// Who asks, as text: whom the client vouches for, or itself.
    #[must_use]
    pub fn principal_name(&self) -> Option<&str> {
        self.vouched.as_deref().or_else(|| self.own_name())
    }

    /// Who speaks for another, as text: a node, through its tunnel.
    #[must_use]
    pub fn tunnel_principal_name(&self) -> Option<&str> {
        self.vouched.as_ref().and_then(|_| self.own_name())
    }

    /// [`Self::principal`] as text.
    fn own_name(&self) -> Option<&str> {
        let peer = self.peer.as_ref()?;
        // It has one spelling alone, that of the certificate.
        peer.principal.as_ref().map(|_| &*peer.uri_sans)
    }
}

/// A client's certificate, as the access log shows it. Lists are joined by commas, as Envoy does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCertificate {
    /// The only URI name, where it is the SPIFFE ID of a workload.
    pub principal: Option<SpiffeId>,
    /// URI names.
    pub uri_sans: String,
    /// DNS names.
    pub dns_sans: String,
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_proves_something_until_it_expires() {
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let peer = PeerCertificate {
            principal: None,
            uri_sans: String::new(),
            dns_sans: String::new(),
            subject: String::new(),
            issuer: String::new(),
            serial: String::new(),
            fingerprint: String::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after,
        };
        let tls = DownstreamTls {
            version: "TLSv1.3",
            cipher: "",
            group: None,
            peer: Some(peer),
            vouched: None,
        };
        assert!(tls.is_proof_at(not_after - Duration::from_secs(1)));
        assert!(!tls.is_proof_at(not_after));
        assert!(DownstreamTls { peer: None, ..tls }.is_proof_at(not_after));
    }
}
