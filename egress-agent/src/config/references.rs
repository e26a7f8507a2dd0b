//! Mirrors of what resources of the Gateway API refer to: parents, backends, Secrets.

use super::decode::{Spanned, record};
use crate::types::Port;

record! {
    /// A parent: what a route is for.
    struct ParentRef {
        /// `networking.istio.io` for a `ServiceEntry` or `Hostname`; empty for a `Service`.
        "group" group: Option<Spanned<String>> = "`gateway.networking.k8s.io`",
        /// `Gateway`; or `ServiceEntry`, `Hostname` or `Service` for where traffic leaves the application.
        "kind" kind: Option<Spanned<String>> = "`Gateway`",
        /// Its namespace.
        "namespace" namespace: Option<Spanned<String>> = "the route's",
        /// Its name; of a `Hostname` the host.
        "name" name: Option<Spanned<String>> = required,
        /// Of a Gateway: the listener.
        "sectionName" section_name: Option<Spanned<String>> = "every listener",
        /// Of a Gateway: listeners with this port. Else the port that was dialled.
        "port" port: Option<Spanned<Port>> = "any",
    }
}

record! {
    /// A backend: where traffic goes.
    struct BackendRef {
        /// `networking.istio.io` for a `Hostname`.
        "group" group: Option<Spanned<String>> = "\"\"",
        /// `Service`, which is a gateway's or of type ExternalName; or `Hostname`, a host of a service entry.
        "kind" kind: Option<Spanned<String>> = "`Service`",
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// The namespace of a Service. Another one than the route's needs a ReferenceGrant there, except where traffic leaves the application.
        "namespace" namespace: Option<Spanned<String>> = "the route's",
        /// Its port.
        "port" port: Option<Spanned<Port>> = "none, and what is sent there is refused",
        /// Its share.
        "weight" weight: Option<Spanned<u32>> = "1",
    }
}

record! {
    /// A Secret of a listener.
    struct SecretRef {
        /// Empty.
        "group" group: Option<Spanned<String>> = "\"\"",
        /// `Secret`.
        "kind" kind: Option<Spanned<String>> = "`Secret`",
        /// Its name. It is read as `credentialName` of a server: from the gateway's own namespace, or a directory of this name in `--credentials-dir`.
        "name" name: Option<Spanned<String>> = required,
        /// Its namespace. Another one than the Gateway's needs a ReferenceGrant there.
        "namespace" namespace: Option<Spanned<String>> = "the Gateway's",
    }
}

record! {
    /// An object of the same namespace.
    struct LocalRef {
        /// Empty.
        "group" group: Option<Spanned<String>> = "\"\"",
        /// `ConfigMap` or `Secret`.
        "kind" kind: Option<Spanned<String>> = required,
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
    }
}
