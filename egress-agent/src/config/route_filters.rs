//! Mirrors of what rules of the Gateway API's routes change.

use super::{
    decode::{List, Records, Spanned, choice, record},
    references::BackendRef,
};
use crate::types::Port;

record! {
    /// A filter of a rule, or of a backend, where only the modifiers of headers are supported.
    struct RouteFilter {
        /// Which one it is.
        "type" kind: Option<Spanned<FilterKind>> = required,
        /// `RequestHeaderModifier`.
        "requestHeaderModifier" request_headers: Option<HeaderFilter> = "none",
        /// `ResponseHeaderModifier`.
        "responseHeaderModifier" response_headers: Option<HeaderFilter> = "none",
        /// `RequestMirror`. As `mirrors` of a VirtualService.
        "requestMirror" mirror: Option<MirrorFilter> = "none",
        /// `RequestRedirect`.
        "requestRedirect" redirect: Option<RedirectFilter> = "none",
        /// `URLRewrite`.
        "urlRewrite" rewrite: Option<RewriteFilter> = "none",
        /// `CORS`. As `corsPolicy` of a VirtualService.
        "cors" cors: Option<CorsFilter> = "none",
    }
    unsupported {
        "externalAuth": Error, "nobody else is asked whether a request is allowed";
        "extensionRef": Error, "there are no filters of other groups";
    }
}

choice! {
    /// A kind of filters.
    enum FilterKind {
        /// Changes headers of requests.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Changes headers of responses.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// Sends copies.
        RequestMirror = "RequestMirror",
        /// Answers with a redirect.
        RequestRedirect = "RequestRedirect",
        /// Changes host or path.
        UrlRewrite = "URLRewrite",
        /// Answers browsers.
        Cors = "CORS",
        /// Not supported.
        ExternalAuth = "ExternalAuth",
        /// Not supported.
        ExtensionRef = "ExtensionRef",
    }
}

record! {
    /// Changes of headers.
    struct HeaderFilter {
        /// Overwrite.
        "set" set: Records<Header> = "none",
        /// Append.
        "add" add: Records<Header> = "none",
        /// Remove.
        "remove" remove: List<String> = "none",
    }
}

record! {
    /// A header.
    struct Header {
        /// Its name. Of two entries with one name the first counts.
        "name" name: Option<Spanned<String>> = required,
        /// Its value, as it is.
        "value" value: Option<Spanned<String>> = required,
    }
}

record! {
    /// `requestMirror`.
    struct MirrorFilter {
        /// Where copies go.
        "backendRef" backend: Option<BackendRef> = required,
        /// How many requests are copied, in percent. This or `fraction`.
        "percent" percent: Option<Spanned<u32>> = "100",
        /// How many requests are copied.
        "fraction" fraction: Option<Fraction> = "all",
    }
}

record! {
    /// A fraction.
    struct Fraction {
        /// Above.
        "numerator" numerator: Option<Spanned<u32>> = required,
        /// Below.
        "denominator" denominator: Option<Spanned<u32>> = "100",
    }
}

record! {
    /// `requestRedirect`.
    struct RedirectFilter {
        /// The new scheme.
        "scheme" scheme: Option<Spanned<String>> = "the request's",
        /// The new host.
        "hostname" hostname: Option<Spanned<String>> = "the request's",
        /// The new path.
        "path" path: Option<PathModifier> = "the request's",
        /// The new port.
        "port" port: Option<Spanned<Port>> = "that of `scheme`, or else the request's",
        /// 301, 302, 303, 307 or 308.
        "statusCode" status: Option<Spanned<u32>> = "302",
    }
}

record! {
    /// `urlRewrite`.
    struct RewriteFilter {
        /// The new host.
        "hostname" hostname: Option<Spanned<String>> = "the request's",
        /// The new path.
        "path" path: Option<PathModifier> = "the request's",
    }
}

record! {
    /// A change of the path.
    struct PathModifier {
        /// Which one it is.
        "type" kind: Option<Spanned<PathModifierKind>> = required,
        /// The whole new path.
        "replaceFullPath" full: Option<Spanned<String>> = "none",
        /// What takes the place of the prefix that matched, by whole segments.
        "replacePrefixMatch" prefix: Option<Spanned<String>> = "none",
    }
}

choice! {
    /// A kind of changes of the path.
    enum PathModifierKind {
        /// The whole path.
        Full = "ReplaceFullPath",
        /// The prefix that matched.
        Prefix = "ReplacePrefixMatch",
    }
}

record! {
    /// `cors`.
    struct CorsFilter {
        /// Origins, such as `https://*.example.com`; `*` is any.
        "allowOrigins" allow_origins: List<String> = "none",
        /// Whether requests may carry credentials.
        "allowCredentials" allow_credentials: Option<Spanned<bool>> = "`false`",
        /// Methods, `*` for any.
        "allowMethods" allow_methods: List<String> = "none",
        /// Headers of requests, `*` for any.
        "allowHeaders" allow_headers: List<String> = "none",
        /// Headers of responses, `*` for any.
        "exposeHeaders" expose_headers: List<String> = "none",
        /// For how many seconds a browser may keep the answer.
        "maxAge" max_age: Option<Spanned<u32>> = "5",
    }
}
