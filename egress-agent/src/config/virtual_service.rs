//! Mirror of `VirtualService`: which way traffic takes.

use std::{rc::Rc, time::Duration};

use super::{
    cors::CorsPolicy,
    decode::{Dict, List, RecordDict, Records, Spanned, choice, record},
    fault::{Fault, Percentage},
    meta::Meta,
    text::StringMatch,
};
use crate::types::Port;

record! {
    /// `VirtualService.spec`.
    struct VirtualService {
        /// Hosts that it is for; `*.example.com` is every name below one, `*example.com` every name that ends so, itself included. A name without a dot is completed with the namespace. A virtual service without hosts holds rules that others `delegate` to.
        "hosts" hosts: List<String> = "none",
        /// Stages that it is for: `mesh` (where traffic leaves the application) and gateways (`name` or `namespace/name`).
        "gateways" gateways: List<String> = "`mesh`",
        /// Rules for HTTP, the first that matches wins.
        "http" http: Records<HttpRule> = "none",
        /// Rules for TLS that is passed through.
        "tls" tls: Records<TlsRule> = "none",
        /// Rules for raw TCP.
        "tcp" tcp: Records<TcpRule> = "none",
        /// Namespaces whose workloads it is for, at the `mesh` stage: `.`, `*`, or names.
        "exportTo" export_to: List<String> = "`*`",
    }
    translated {
        /// Whether it was made of a route of the Gateway API.
        is_translated: bool;
    }
}

record! {
    /// A rule for HTTP.
    struct HttpRule {
        /// Its name, for the access log.
        "name" name: Option<Spanned<String>> = "none",
        /// Alternatives; without any the rule matches everything.
        "match" matches: Records<HttpMatch> = "everything",
        /// Destinations with their shares.
        "route" route: Records<HttpDestination> = "none",
        /// Answer with a redirect instead.
        "redirect" redirect: Option<Redirect> = "none",
        /// Answer with this instead.
        "directResponse" direct_response: Option<DirectResponse> = "none",
        /// Lead to the rules of another virtual service instead.
        "delegate" delegate: Option<Delegate> = "none",
        /// Change path or authority on the way.
        "rewrite" rewrite: Option<Rewrite> = "none",
        /// For the whole request with its retries.
        "timeout" timeout: Option<Spanned<Duration>> = "none",
        /// When to try again.
        "retries" retries: Option<Retries> = "2 attempts on `connect-failure,refused-stream,unavailable,cancelled`",
        /// Faults to inject.
        "fault" fault: Option<Fault> = "none",
        /// Headers to change.
        "headers" headers: Option<Headers> = "none",
        /// Whether the client may upgrade the connection, to whatever protocol. A rule whose match names the header `upgrade` allows it too. Without either, `webSocket` of mesh.yaml decides on WebSocket, and no other protocol is allowed.
        "websocketUpgrade" websocket_upgrade: Option<Spanned<bool>> = "the mesh's",
        /// Send a copy of the request to this destination, too, with `-shadow` after its host. Nobody waits for the answer. A request whose body is longer than 64 KiB is not copied, nor is an upgrade.
        "mirror" mirror: Option<Destination> = "none",
        /// How many requests are copied.
        "mirrorPercentage" mirror_percentage: Option<Percentage> = "`100`",
        /// Old form of `mirrorPercentage`.
        "mirrorPercent" mirror_percent: Option<Spanned<u32>> = "none",
        /// Older form of `mirrorPercentage`.
        "mirror_percent" mirror_percent_old: Option<Spanned<u32>> = "none",
        /// The same for several destinations. This or `mirror`.
        "mirrors" mirrors: Records<HttpMirror> = "none",
        /// Answers to browsers that ask whether a page of another origin may make a request (CORS). The gateway's own errors carry the permission, too, so that the page sees them.
        "corsPolicy" cors_policy: Option<CorsPolicy> = "none",
    }
    translated {
        /// The route that it was made of.
        origin: Option<Rc<Meta>>;
    }
}

record! {
    /// A destination of copies.
    struct HttpMirror {
        /// Where to.
        "destination" destination: Option<Destination> = required,
        /// How many requests are copied.
        "percentage" percentage: Option<Percentage> = "`100`",
    }
}

record! {
    /// Conditions of a rule; all of them must hold.
    struct HttpMatch {
        /// Stages, of the virtual service's `gateways`.
        "gateways" gateways: List<String> = "all of the virtual service's",
        /// At the `mesh` stage the port that was dialled, at a gateway the server's port.
        "port" port: Option<Spanned<Port>> = "any",
        /// The path, without the query.
        "uri" uri: Option<StringMatch> = "any",
        /// Compare the path's `exact` and `prefix` without regard to case.
        "ignoreUriCase" ignore_uri_case: Option<Spanned<bool>> = "`false`",
        /// The method.
        "method" method: Option<StringMatch> = "any",
        /// The authority as sent, port included.
        "authority" authority: Option<StringMatch> = "any",
        /// `http` or `https`.
        "scheme" scheme: Option<StringMatch> = "any",
        /// Headers; `{}` asks for presence.
        "headers" headers: RecordDict<StringMatch> = "none",
        /// Headers that must not match.
        "withoutHeaders" without_headers: RecordDict<StringMatch> = "none",
        /// Query parameters; `{}` asks for presence.
        "queryParams" query_params: RecordDict<StringMatch> = "none",
        /// Labels of the workload that asks.
        "sourceLabels" source_labels: Dict<Spanned<String>> = "any",
        /// Namespace of the workload that asks.
        "sourceNamespace" source_namespace: Option<Spanned<String>> = "any",
        /// A name, for nothing but reading.
        "name" name: Option<Spanned<String>> = "none",
    }
    unsupported {
        "statPrefix": Warning, "statistics are kept by cluster";
    }
}

record! {
    /// A destination with its share.
    struct HttpDestination {
        /// Where to.
        "destination" destination: Option<Destination> = required,
        /// Its share of the requests.
        "weight" weight: Option<Spanned<u32>> = "all, where it is the only one",
        /// Headers to change.
        "headers" headers: Option<Headers> = "none",
    }
}

record! {
    /// A service.
    struct Destination {
        /// The gateway's service, or a host of a service entry.
        "host" host: Option<Spanned<String>> = required,
        /// A subset of its destination rule.
        "subset" subset: Option<Spanned<String>> = "none",
        /// Its port.
        "port" port: Option<DestinationPort> = "its only one",
    }
    translated {
        /// Why what is sent there is refused.
        refused: Option<Rc<str>>;
    }
}

record! {
    /// A port of a service.
    struct DestinationPort {
        /// Its number.
        "number" number: Option<Spanned<Port>> = required,
    }
    unsupported {
        "name": Error, "the API has no names of ports here, and an API server drops them: ports are selected by number";
    }
}

record! {
    /// `delegate`: a virtual service without hosts. Its rules stand in the place of this one, each with the conditions of both; what they don't say (`rewrite`, `timeout`, `retries`, `fault`, `headers`) they take from this one. A rule none of whose matches lies within this one's is left out.
    struct Delegate {
        /// Its name.
        "name" name: Option<Spanned<String>> = required,
        /// Its namespace.
        "namespace" namespace: Option<Spanned<String>> = "this one's",
    }
}

record! {
    /// `redirect`.
    struct Redirect {
        /// The new path, with query.
        "uri" uri: Option<Spanned<String>> = "the request's",
        /// What the prefix that was matched becomes, instead of `uri`; where the rule asks nothing of the path, `/` is it.
        "prefixRewrite" prefix_rewrite: Option<Spanned<String>> = "none",
        /// The new host.
        "authority" authority: Option<Spanned<String>> = "the request's",
        /// The new port.
        "port" port: Option<Spanned<Port>> = "the scheme's",
        /// Where the port comes from where `port` is absent.
        "derivePort" derive_port: Option<Spanned<DerivePort>> = "`FROM_PROTOCOL_DEFAULT`",
        /// The new scheme.
        "scheme" scheme: Option<Spanned<String>> = "the request's",
        /// 301, 302, 303, 307 or 308.
        "redirectCode" redirect_code: Option<Spanned<u32>> = "301",
    }
}

choice! {
    /// `redirect.derivePort`.
    enum DerivePort {
        /// The scheme's.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The request's.
        FromRequestPort = "FROM_REQUEST_PORT",
    }
}

record! {
    /// `directResponse`.
    struct DirectResponse {
        /// The status.
        "status" status: Option<Spanned<u32>> = required,
        /// The body.
        "body" body: Option<ResponseBody> = "empty",
    }
}

record! {
    /// `directResponse.body`.
    struct ResponseBody {
        /// Text.
        "string" string: Option<Spanned<String>> = "empty",
        /// Bytes, as base64. One of the two.
        "bytes" bytes: Option<Spanned<String>> = "empty",
    }
}

record! {
    /// `rewrite`.
    struct Rewrite {
        /// Replaces the path, or the prefix that was matched. A rule without a match on the path matches the prefix `/`.
        "uri" uri: Option<Spanned<String>> = "none",
        /// Replaces the authority.
        "authority" authority: Option<Spanned<String>> = "none",
        /// Replaces by a regular expression.
        "uriRegexRewrite" uri_regex_rewrite: Option<RegexRewrite> = "none",
    }
}

record! {
    /// `rewrite.uriRegexRewrite`.
    struct RegexRewrite {
        /// A regular expression (RE2's syntax); every part of the path that it matches is replaced.
        "match" pattern: Option<Spanned<String>> = required,
        /// With what; `\1` is the first group.
        "rewrite" rewrite: Option<Spanned<String>> = required,
    }
}

record! {
    /// `retries`.
    struct Retries {
        /// Tries after the first.
        "attempts" attempts: Option<Spanned<u32>> = "0",
        /// Limit of one try.
        "perTryTimeout" per_try_timeout: Option<Spanned<Duration>> = "the rule's timeout",
        /// Conditions, separated by commas: `connect-failure`, `refused-stream`, `reset`, `5xx`, `gateway-error`, `retriable-4xx`, `retriable-status-codes`, status codes, and of gRPC `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`.
        "retryOn" retry_on: Option<Spanned<String>> = "`connect-failure,refused-stream,unavailable,cancelled`",
        /// The longest pause before the first retry, at least `1ms`. It doubles with each, up to ten times this; every pause is a random part of it.
        "backoff" backoff: Option<Spanned<Duration>> = "`25ms`",
    }
    unsupported {
        "retryRemoteLocalities": Warning, "a retry goes where the load balancer sends it";
        "retryIgnorePreviousHosts": Warning, "a retry takes another endpoint where there is one";
    }
}

record! {
    /// `headers`.
    struct Headers {
        /// Of the request.
        "request" request: Option<HeaderChanges> = "none",
        /// On the way back.
        "response" response: Option<HeaderChanges> = "none",
    }
}

record! {
    /// Changes of headers. What is removed goes first, and values show the headers as they are then.
    struct HeaderChanges {
        /// Overwrite. Values may hold the operators of the access log (`%START_TIME%`): `REQ` with any header of the request, and in headers of the response `RESP` with any of the response; `%%` is a percent sign. A header that would be empty is left out. `Host` and `:authority` of a request change its authority.
        "set" set: Dict<Spanned<String>> = "none",
        /// Append; values as in `set`.
        "add" add: Dict<Spanned<String>> = "none",
        /// Remove, before anything is set or added.
        "remove" remove: List<String> = "none",
    }
}

record! {
    /// A rule for TLS that is passed through.
    struct TlsRule {
        /// Alternatives.
        "match" matches: Records<TlsMatch> = required,
        /// Destinations with their shares.
        "route" route: Records<TcpDestination> = required,
    }
}

record! {
    /// Conditions of a rule for TLS; all of them must hold.
    struct TlsMatch {
        /// Server names, within the virtual service's `hosts`.
        "sniHosts" sni_hosts: List<String> = required,
        /// Networks that the application dials. Only for raw TCP: names decide here.
        "destinationSubnets" destination_subnets: List<String> = "any",
        /// At the `mesh` stage the port that was dialled, at a gateway the server's port.
        "port" port: Option<Spanned<Port>> = "any",
        /// Labels of the workload that asks.
        "sourceLabels" source_labels: Dict<Spanned<String>> = "any",
        /// Stages, of the virtual service's `gateways`.
        "gateways" gateways: List<String> = "all of the virtual service's",
        /// Namespace of the workload that asks.
        "sourceNamespace" source_namespace: Option<Spanned<String>> = "any",
    }
    unsupported {
        "sourceSubnet": Error, "select sources by `sourceLabels` or `sourceNamespace`";
    }
}

record! {
    /// A rule for raw TCP.
    struct TcpRule {
        /// Alternatives; without any the rule matches everything.
        "match" matches: Records<TcpMatch> = "everything",
        /// Destinations with their shares.
        "route" route: Records<TcpDestination> = required,
    }
}

record! {
    /// Conditions of a rule for raw TCP; all of them must hold.
    struct TcpMatch {
        /// Networks that the application dials, at the `mesh` stage.
        "destinationSubnets" destination_subnets: List<String> = "the service's addresses",
        /// At the `mesh` stage the port that was dialled, at a gateway the server's port.
        "port" port: Option<Spanned<Port>> = "any",
        /// Labels of the workload that asks.
        "sourceLabels" source_labels: Dict<Spanned<String>> = "any",
        /// Stages, of the virtual service's `gateways`.
        "gateways" gateways: List<String> = "all of the virtual service's",
        /// Namespace of the workload that asks.
        "sourceNamespace" source_namespace: Option<Spanned<String>> = "any",
        /// Address or network of the pod that asks.
        "sourceSubnet" source_subnet: Option<Spanned<String>> = "any",
    }
}

record! {
    /// A destination with its share.
    struct TcpDestination {
        /// Where to.
        "destination" destination: Option<Destination> = required,
        /// Its share of the connections.
        "weight" weight: Option<Spanned<u32>> = "all, where it is the only one",
    }
}
