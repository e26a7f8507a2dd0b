//! Mirrors of `HTTPRoute` and `GRPCRoute` of the Gateway API.

use std::time::Duration;

use super::{
    decode::{List, Records, Spanned, choice, record},
    references::ParentRef,
    route_filters::RouteFilter,
};
use crate::types::Port;

record! {
    /// `HTTPRoute.spec`.
    struct HttpRoute {
        /// What it is for.
        "parentRefs" parents: Records<ParentRef> = "none",
        /// Hosts, of those of its parents.
        "hostnames" hostnames: List<String> = "those of its parents",
        /// Rules. The most specific match wins, whatever their order: path, method, headers, query parameters, then the oldest route.
        "rules" rules: Option<Records<HttpRouteRule>> = "one that matches everything, without a backend",
    }
    unsupported {
        "useDefaultGateways": Warning, "a route names its Gateways";
    }
}

record! {
    /// A rule for HTTP.
    struct HttpRouteRule {
        /// Its name, for the access log.
        "name" name: Option<Spanned<String>> = "`NAMESPACE.ROUTE.INDEX`",
        /// Alternatives.
        "matches" matches: Records<HttpRouteMatch> = "everything",
        /// What it changes.
        "filters" filters: Records<RouteFilter> = "nothing",
        /// Where requests go. Without any, or with shares of 0 alone, they are refused with 500.
        "backendRefs" backends: Records<HttpBackendRef> = "none",
        /// Limits of time.
        "timeouts" timeouts: Option<RouteTimeouts> = "none",
        /// When to try again.
        "retry" retry: Option<RouteRetry> = "2 attempts on `connect-failure,refused-stream,unavailable,cancelled`",
    }
    unsupported {
        "sessionPersistence": Error, "use `consistentHash` of a DestinationRule";
    }
}

record! {
    /// Conditions of a rule; all of them must hold.
    struct HttpRouteMatch {
        /// The path.
        "path" path: Option<PathMatch> = "any",
        /// Headers.
        "headers" headers: Records<ValueMatch> = "any",
        /// Query parameters.
        "queryParams" query: Records<ValueMatch> = "any",
        /// The method.
        "method" method: Option<Spanned<String>> = "any",
    }
}

record! {
    /// A condition on the path.
    struct PathMatch {
        /// `PathPrefix` is by whole segments: `/v1` is `/v1` and `/v1/users`, not `/v10`.
        "type" kind: Option<Spanned<PathKind>> = "`PathPrefix`",
        /// The path, its beginning, or an expression in RE2's syntax for all of it.
        "value" value: Option<Spanned<String>> = "`/`",
    }
}

choice! {
    /// How a path is compared.
    enum PathKind {
        /// The whole path.
        Exact = "Exact",
        /// Its beginning.
        Prefix = "PathPrefix",
        /// An expression.
        Regex = "RegularExpression",
    }
}

record! {
    /// A condition on a header or a query parameter.
    struct ValueMatch {
        /// How it is compared.
        "type" kind: Option<Spanned<ValueKind>> = "`Exact`",
        /// Its name. Of two entries with one name the first counts.
        "name" name: Option<Spanned<String>> = required,
        /// The value, or an expression in RE2's syntax for all of it.
        "value" value: Option<Spanned<String>> = required,
    }
}

choice! {
    /// How a value is compared.
    enum ValueKind {
        /// The whole value.
        Exact = "Exact",
        /// An expression.
        Regex = "RegularExpression",
    }
}

record! {
    /// A backend of a rule for HTTP.
    struct HttpBackendRef {
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
        /// Headers to change.
        "filters" filters: Records<RouteFilter> = "none",
    }
}

record! {
    /// Limits of time.
    struct RouteTimeouts {
        /// For the whole request with its retries; `0s` is without limit.
        "request" request: Option<Spanned<Duration>> = "none",
        /// For each try.
        "backendRequest" backend_request: Option<Spanned<Duration>> = "none",
    }
}

record! {
    /// `retry`.
    struct RouteRetry {
        /// Statuses to try again on, besides connections that fail.
        "codes" codes: List<u32> = "none",
        /// Tries after the first; at most 100.
        "attempts" attempts: Option<Spanned<u32>> = "2",
        /// As `retries.backoff` of a VirtualService.
        "backoff" backoff: Option<Spanned<Duration>> = "`25ms`",
    }
}

record! {
    /// `GRPCRoute.spec`.
    struct GrpcRoute {
        /// What it is for.
        "parentRefs" parents: Records<ParentRef> = "none",
        /// Hosts, of those of its parents.
        "hostnames" hostnames: List<String> = "those of its parents",
        /// Rules.
        "rules" rules: Option<Records<GrpcRouteRule>> = "one that matches everything, without a backend",
    }
    unsupported {
        "useDefaultGateways": Warning, "a route names its Gateways";
    }
}

record! {
    /// A rule for gRPC.
    struct GrpcRouteRule {
        /// Its name, for the access log.
        "name" name: Option<Spanned<String>> = "`NAMESPACE.ROUTE.INDEX`",
        /// Alternatives.
        "matches" matches: Records<GrpcRouteMatch> = "everything",
        /// What it changes: headers and copies.
        "filters" filters: Records<RouteFilter> = "nothing",
        /// Where requests go.
        "backendRefs" backends: Records<HttpBackendRef> = "none",
    }
    unsupported {
        "sessionPersistence": Error, "use `consistentHash` of a DestinationRule";
    }
}

record! {
    /// Conditions of a rule for gRPC; all of them must hold.
    struct GrpcRouteMatch {
        /// The method.
        "method" method: Option<GrpcMethodMatch> = "any",
        /// Headers.
        "headers" headers: Records<ValueMatch> = "any",
    }
}

record! {
    /// A condition on the method of gRPC.
    struct GrpcMethodMatch {
        /// How both are compared.
        "type" kind: Option<Spanned<ValueKind>> = "`Exact`",
        /// The service, such as `com.example.Login`.
        "service" service: Option<Spanned<String>> = "any",
        /// The method.
        "method" method: Option<Spanned<String>> = "any",
    }
}
