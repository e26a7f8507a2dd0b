//! Mirrors of `BackendTLSPolicy` and `ReferenceGrant` of the Gateway API.

use super::{
    decode::{Dict, Records, Spanned, choice, record},
    references::LocalRef,
};

record! {
    /// `BackendTLSPolicy.spec`.
    struct BackendTlsPolicy {
        /// What TLS is started to.
        "targetRefs" targets: Records<PolicyTarget> = required,
        /// How the certificate is verified.
        "validation" validation: Option<BackendValidation> = required,
        /// None is supported; with any the destination is refused.
        "options" options: Dict<Spanned<String>> = "none",
    }
}

record! {
    /// What a policy is for, in its own namespace.
    struct PolicyTarget {
        /// `networking.istio.io` for a `ServiceEntry` or `Hostname`; empty for a `Service`.
        "group" group: Option<Spanned<String>> = "\"\"",
        /// `ServiceEntry`, `Hostname`, or `Service` of type ExternalName.
        "kind" kind: Option<Spanned<String>> = required,
        /// Its name; of a `Hostname` the host.
        "name" name: Option<Spanned<String>> = required,
        /// The name of one of its ports.
        "sectionName" section_name: Option<Spanned<String>> = "every port",
    }
}

record! {
    /// How the certificate of a backend is verified.
    struct BackendValidation {
        /// The roots: one ConfigMap or Secret with `ca.crt`. Without an API server, a directory of its name in the gateway's `--credentials-dir`; with one, a ConfigMap of the policy's namespace, or a Secret of the gateways'.
        "caCertificateRefs" ca_certificates: Records<LocalRef> = "none",
        /// `System`, instead of `caCertificateRefs`.
        "wellKnownCACertificates" well_known: Option<Spanned<WellKnownRoots>> = "none",
        /// The server name, and the name that is verified where there are no `subjectAltNames`.
        "hostname" hostname: Option<Spanned<String>> = required,
        /// Names of which the certificate must hold one.
        "subjectAltNames" subject_alt_names: Records<SubjectAltName> = "`hostname`",
    }
}

choice! {
    /// Roots with a name.
    enum WellKnownRoots {
        /// The gateway's system's.
        System = "System",
    }
}

record! {
    /// A name that a certificate holds.
    struct SubjectAltName {
        /// Which of both it is.
        "type" kind: Option<Spanned<AltNameKind>> = required,
        /// A DNS name.
        "hostname" hostname: Option<Spanned<String>> = "none",
        /// A URI, such as a SPIFFE ID.
        "uri" uri: Option<Spanned<String>> = "none",
    }
}

choice! {
    /// A kind of names that a certificate holds.
    enum AltNameKind {
        /// A DNS name.
        Hostname = "Hostname",
        /// A URI.
        Uri = "URI",
    }
}

record! {
    /// `ReferenceGrant.spec`: resources of other namespaces may refer to those of this one.
    struct ReferenceGrant {
        /// Which ones may refer.
        "from" from: Records<GrantFrom> = required,
        /// To which ones.
        "to" to: Records<GrantTo> = required,
    }
}

record! {
    /// Who may refer.
    struct GrantFrom {
        /// `gateway.networking.k8s.io`.
        "group" group: Option<Spanned<String>> = required,
        /// `Gateway`, `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
        "kind" kind: Option<Spanned<String>> = required,
        /// In this namespace.
        "namespace" namespace: Option<Spanned<String>> = required,
    }
}

record! {
    /// What may be referred to.
    struct GrantTo {
        /// Empty.
        "group" group: Option<Spanned<String>> = required,
        /// `Service` or `Secret`.
        "kind" kind: Option<Spanned<String>> = required,
        /// The one with this name.
        "name" name: Option<Spanned<String>> = "all",
    }
}
