//! The hop between a node and a gateway.

use super::{CredentialSource, KeyGroups};
use crate::types::{Namespace, SpiffeId, TrustDomain};

/// How traffic gets from the node to the gateway. The stricter one is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Hop {
    /// As the application sent it.
    #[default]
    Plain,
    /// Inside mutual TLS between the node's agent and the gateway's.
    Tunnel,
}

impl Hop {
    /// The name that `/config_dump` shows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tunnel => "tunnel",
        }
    }
}

/// TLS of the tunnel to one gateway service, from the destination rules for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TunnelTls {
    /// What the node shows: its own identity (`ISTIO_MUTUAL`), or files (`MUTUAL`).
    pub credential: CredentialSource,
    /// The gateway's certificate must hold one of these names; empty for none in particular.
    pub subject_alt_names: Vec<String>,
    /// Groups of the key exchange.
    pub key_groups: KeyGroups,
    /// The gateway's SPIFFE ID must be of this trust domain.
    pub trust_domain: TrustDomain,
    /// It must be of this namespace, that of the service.
    pub namespace: Namespace,
    /// It must be this one, where it is known.
    pub principal: Option<SpiffeId>,
}

impl TunnelTls {
    /// Whether a gateway with this identity is the one that is meant. The names of its certificate
    /// are another matter ([`Self::subject_alt_names`]).
    #[must_use]
    pub fn expects(&self, found: &SpiffeId) -> bool {
        found.trust_domain == self.trust_domain
            && found.namespace == self.namespace
            && self.principal.as_ref().is_none_or(|wanted| wanted == found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gateway_that_is_meant_is_expected() {
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let gateway = id("spiffe://cluster.local/ns/istio-system/sa/gateway");
        let tls = TunnelTls {
            credential: CredentialSource::Own,
            subject_alt_names: Vec::new(),
            key_groups: KeyGroups::default(),
            trust_domain: TrustDomain::default(),
            namespace: Namespace("istio-system".into()),
            principal: Some(gateway.clone()),
        };
        assert!(tls.expects(&gateway));
        let other = id("spiffe://cluster.local/ns/istio-system/sa/other");
        assert!(!tls.expects(&other));
        let any = TunnelTls { principal: None, ..tls };
        assert!(any.expects(&gateway) && any.expects(&other));
        assert!(!any.expects(&id("spiffe://cluster.local/ns/apps/sa/gateway")));
        assert!(!any.expects(&id("spiffe://other.local/ns/istio-system/sa/gateway")));
    }

    #[test]
    fn the_stricter_hop_is_the_greater() {
        assert_eq!(Hop::Plain.max(Hop::Tunnel), Hop::Tunnel);
    }
}
