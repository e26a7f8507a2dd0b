//! Mirror of `Gateway` of the Gateway API.

use super::{
    decode::{Dict, Records, Spanned, choice, record},
    egress_policy::PodSelector,
    references::SecretRef,
};
use crate::types::Port;

record! {
    /// `Gateway.spec`.
    struct ApiGateway {
        /// `egress-enforcer` or `istio`; Gateways of other classes are ignored.
        "gatewayClassName" class: Option<Spanned<String>> = required,
        /// What is served.
        "listeners" listeners: Records<Listener> = required,
        /// Which of `gateways` in `mesh.yaml` serves it.
        "addresses" addresses: Records<GatewayAddress> = "the one with the service `NAME-CLASS`, or else the first",
    }
    unsupported {
        "infrastructure": Warning, "nothing is deployed for a Gateway";
        "allowedListeners": Warning, "listeners are those of the Gateway itself";
        "defaultScope": Warning, "a route names its Gateways";
        "tls": Error, "client certificates are asked for by the listener's option `gateway.istio.io/tls-terminate-mode`, those for backends are of a DestinationRule";
        "backendTLS": Error, "client certificates for backends are of a DestinationRule";
    }
}

record! {
    /// An address of a Gateway.
    struct GatewayAddress {
        /// `Hostname`, a gateway's service, or `IPAddress`, an address of one.
        "type" kind: Option<Spanned<String>> = "`IPAddress`",
        /// The service's name, with or without its namespace, or the address.
        "value" value: Option<Spanned<String>> = required,
    }
}

record! {
    /// A listener.
    struct Listener {
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// The host that it is for; `*.example.com` is every name below.
        "hostname" hostname: Option<Spanned<String>> = "every host",
        /// Its port.
        "port" port: Option<Spanned<Port>> = required,
        /// `HTTP`, `HTTPS`, `TLS` or `TCP`.
        "protocol" protocol: Option<Spanned<String>> = required,
        /// TLS settings: required for `HTTPS` and `TLS`.
        "tls" tls: Option<ListenerTls> = "none",
        /// Which routes it takes.
        "allowedRoutes" allowed_routes: Option<AllowedRoutes> = "those of the Gateway's namespace",
    }
}

record! {
    /// TLS of a listener.
    struct ListenerTls {
        /// `Passthrough` is for protocol `TLS`.
        "mode" mode: Option<Spanned<ListenerMode>> = "`Terminate`",
        /// The certificate, a Secret, or two of them, typically one with an RSA key and one with an ECDSA key: a client is shown the one that fits it.
        "certificateRefs" certificates: Records<SecretRef> = "none",
        /// `gateway.istio.io/tls-terminate-mode`: `SIMPLE`, `MUTUAL`, `OPTIONAL_MUTUAL` or `ISTIO_MUTUAL`, as `tls.mode` of Istio's Gateway. Others are refused.
        "options" options: Dict<Spanned<String>> = "`SIMPLE`",
    }
    unsupported {
        "frontendValidation": Error, "client certificates are asked for by the option `gateway.istio.io/tls-terminate-mode`";
    }
}

choice! {
    /// What a listener does with TLS.
    enum ListenerMode {
        /// End it.
        Terminate = "Terminate",
        /// Forward it untouched.
        Passthrough = "Passthrough",
    }
}

record! {
    /// Which routes a listener takes.
    struct AllowedRoutes {
        /// Of which namespaces.
        "namespaces" namespaces: Option<RouteNamespaces> = "the Gateway's",
        /// Of which kinds.
        "kinds" kinds: Option<Records<RouteKind>> = "those of its protocol",
    }
}

record! {
    /// Namespaces of routes.
    struct RouteNamespaces {
        /// `Same`, `All`, `Selector` or `None`.
        "from" from: Option<Spanned<FromNamespaces>> = "`Same`",
        /// With `Selector`: by their labels. Of a namespace that is not known only its name counts.
        "selector" selector: Option<PodSelector> = "none",
    }
}

choice! {
    /// `allowedRoutes.namespaces.from`.
    enum FromNamespaces {
        /// Every namespace.
        All = "All",
        /// Those with certain labels.
        Selector = "Selector",
        /// The Gateway's.
        Same = "Same",
        /// No namespace.
        None = "None",
    }
}

record! {
    /// A kind of routes.
    struct RouteKind {
        /// Its group.
        "group" group: Option<Spanned<String>> = "`gateway.networking.k8s.io`",
        /// `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
        "kind" kind: Option<Spanned<String>> = required,
    }
}
