//! The kinds that are read.

/// A kind in one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    /// It only tells of the cluster; without it, less is known and more is denied.
    pub(super) is_optional: bool,
}

impl Kind {
    pub(super) fn of(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, is_optional: false }
    }

    /// The same kind, which need not be there or may not be read.
    pub(super) fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// Whether a server may not have it.
    pub(super) fn is_custom(&self) -> bool {
        CUSTOM.iter().any(|custom| custom.group == self.group)
    }

    /// The kind of definitions of custom resources.
    pub(super) fn definition() -> Self {
        Self::of(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
    }

    /// The name of its definition.
    pub(super) fn definition_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    pub(super) fn core(kind: &'static str, plural: &'static str) -> Self {
        Self::of("", "v1", kind, plural)
    }
}

/// A custom resource: one of Istio's kinds, of the Gateway API's, or of this product's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Custom {
    pub(super) group: &'static str,
    /// Each version that was ever served, the newest first.
    pub(super) versions: &'static [&'static str],
    pub(super) kind: &'static str,
    plural: &'static str,
}

const fn custom(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
) -> Custom {
    Custom { group, versions, kind, plural }
}

const OWN: &str = "egress-enforcer.io";
/// The group of Istio's kinds for traffic.
pub(super) const ISTIO_NETWORKING: &str = "networking.istio.io";
const NETWORKING: &str = ISTIO_NETWORKING;
const SECURITY: &str = "security.istio.io";
/// The group of the Gateway API.
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// The custom resources that are read: the policy, and what restricts it.
pub(super) const CUSTOM: [Custom; 18] = [
    custom(NETWORKING, ALL, "DestinationRule", "destinationrules"),
    custom(NETWORKING, ALL, "Gateway", "gateways"),
    custom(NETWORKING, ALL, "ServiceEntry", "serviceentries"),
    custom(NETWORKING, ALL, "VirtualService", "virtualservices"),
    custom(NETWORKING, ALL, "Sidecar", "sidecars"),
    custom(NETWORKING, &["v1alpha3"], "EnvoyFilter", "envoyfilters"),
    custom(SECURITY, &["v1", "v1beta1"], "AuthorizationPolicy", "authorizationpolicies"),
    custom(SECURITY, &["v1", "v1beta1"], "RequestAuthentication", "requestauthentications"),
    custom("extensions.istio.io", &["v1alpha1"], "WasmPlugin", "wasmplugins"),
    custom(OWN, &["v1alpha1"], "EgressPolicy", "egresspolicies"),
    custom(OWN, &["v1alpha1"], "ClusterEgressPolicy", "clusteregresspolicies"),
    custom(GATEWAY_API, &["v1", "v1beta1"], "Gateway", "gateways"),
    custom(GATEWAY_API, &["v1", "v1beta1"], "HTTPRoute", "httproutes"),
    custom(GATEWAY_API, &["v1", "v1alpha2"], "GRPCRoute", "grpcroutes"),
    custom(GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], "TLSRoute", "tlsroutes"),
    custom(GATEWAY_API, &["v1", "v1alpha2"], "TCPRoute", "tcproutes"),
    custom(GATEWAY_API, &["v1", "v1alpha3"], "BackendTLSPolicy", "backendtlspolicies"),
    custom(GATEWAY_API, &["v1", "v1beta1"], "ReferenceGrant", "referencegrants"),
];

impl Custom {
    /// Group and version, the newest.
    pub(super) fn api_version(self) -> String {
        format!("{}/{}", self.group, self.versions.first().unwrap_or(&"v1"))
    }

    /// Whether it is one of this product's own, which show what became of them.
    pub(super) fn has_conditions(self) -> bool {
        self.group == OWN
    }

    /// What messages call the kind. Istio and the Gateway API each have one named `Gateway`.
    pub(super) fn title(self) -> String {
        let is_ambiguous = self.group == GATEWAY_API && self.kind == "Gateway";
        if is_ambiguous { format!("{}.{}", self.kind, self.group) } else { self.kind.into() }
    }

    /// In each version.
    pub(super) fn versions(self) -> Vec<Kind> {
        let of = |version: &&'static str| Kind::of(self.group, version, self.kind, self.plural);
        self.versions.iter().map(of).collect()
    }
}
