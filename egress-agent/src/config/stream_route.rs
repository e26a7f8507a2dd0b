//! Mirrors of `TLSRoute` and `TCPRoute` of the Gateway API.

use super::{
    decode::{List, Records, Spanned, record},
    references::{BackendRef, ParentRef},
};

record! {
    /// `TLSRoute.spec`.
    struct TlsRoute {
        /// What it is for.
        "parentRefs" parents: Records<ParentRef> = "none",
        /// Server names, of the hosts of its parents.
        "hostnames" hostnames: List<String> = "those of its parents",
        /// Rules, the first alone counts.
        "rules" rules: Records<StreamRule> = required,
    }
    unsupported {
        "useDefaultGateways": Warning, "a route names its Gateways";
    }
}

record! {
    /// `TCPRoute.spec`.
    struct TcpRoute {
        /// What it is for.
        "parentRefs" parents: Records<ParentRef> = "none",
        /// Rules, the first alone counts.
        "rules" rules: Records<StreamRule> = required,
    }
    unsupported {
        "useDefaultGateways": Warning, "a route names its Gateways";
    }
}

record! {
    /// A rule for TLS or TCP.
    struct StreamRule {
        /// Its name.
        "name" name: Option<Spanned<String>> = "none",
        /// Where connections go. Without any, or with shares of 0 alone, they are refused.
        "backendRefs" backends: Records<BackendRef> = "none",
    }
}
