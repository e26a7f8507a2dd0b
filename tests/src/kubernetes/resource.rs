//! The kinds of the double.

/// A kind that is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// `networking.istio.io`; empty for the core.
    pub group: &'static str,
    /// `v1`, the stored one first.
    pub versions: &'static [&'static str],
    /// `virtualservices`.
    pub plural: &'static str,
    /// `VirtualService`.
    pub kind: &'static str,
}

impl Resource {
    /// One of Istio's kinds.
    #[must_use]
    pub const fn istio(plural: &'static str, kind: &'static str) -> Self {
        let versions = &["v1", "v1beta1", "v1alpha3"];
        Self { group: "networking.istio.io", versions, plural, kind }
    }

    /// One of the product's own kinds.
    #[must_use]
    pub const fn egress(plural: &'static str, kind: &'static str) -> Self {
        Self { group: "egress-enforcer.io", versions: &["v1alpha1"], plural, kind }
    }

    /// One of the Gateway API's kinds. The double knows kinds by their plural, so these `gateways` take the place of
    /// Istio's.
    #[must_use]
    pub const fn gateway_api(plural: &'static str, kind: &'static str) -> Self {
        Self { group: "gateway.networking.k8s.io", versions: &["v1", "v1beta1"], plural, kind }
    }

    pub(super) fn core(plural: &'static str, kind: &'static str) -> Self {
        Self { group: "", versions: &["v1"], plural, kind }
    }

    /// `v1`, `networking.istio.io/v1`.
    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    pub(super) fn is_custom(&self) -> bool {
        const BUILT_IN: [&str; 3] = ["discovery.k8s.io", "events.k8s.io", "networking.k8s.io"];
        self.group.ends_with(".io") && !BUILT_IN.contains(&self.group)
    }
}
