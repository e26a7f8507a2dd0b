//! Mirror of `DestinationRule`: how a destination is reached.

use std::{rc::Rc, time::Duration};

use super::{
    decode::{Dict, List, Records, Spanned, choice, record},
    load_balancer::LoadBalancerSettings,
};
use crate::types::Port;

record! {
    /// `DestinationRule.spec`.
    struct DestinationRule {
        /// The service that this is about; `*.example.com` covers every service below, `*example.com` every one whose name ends so, itself included. The most specific rule wins.
        "host" host: Option<Spanned<String>> = required,
        /// Settings for all of it.
        "trafficPolicy" traffic_policy: Option<TrafficPolicy> = "none",
        /// Named parts of it.
        "subsets" subsets: Records<Subset> = "none",
        /// Namespaces that it is for: `.`, `*`, or names.
        "exportTo" export_to: List<String> = "`*`, or `.` with `workloadSelector`",
        /// Limits the rule to these clients of its namespace; for them it comes before rules without a selector. Where a request is routed through a gateway, the client is the gateway. Not in a rule for a gateway's service.
        "workloadSelector" workload_selector: Option<ClientSelector> = "all clients",
    }
}

record! {
    /// `workloadSelector` of a destination rule.
    struct ClientSelector {
        /// Labels that the client has.
        "matchLabels" match_labels: Dict<Spanned<String>> = "any",
    }
}

record! {
    /// A named part of a service.
    struct Subset {
        /// What destinations call it.
        "name" name: Option<Spanned<String>> = required,
        /// Labels of its endpoints; without any it has all.
        "labels" labels: Dict<Spanned<String>> = "none",
        /// Settings; each one given replaces the rule's.
        "trafficPolicy" traffic_policy: Option<TrafficPolicy> = "the rule's",
    }
}

record! {
    /// Settings of a rule or a subset.
    struct TrafficPolicy {
        /// How an endpoint is chosen.
        "loadBalancer" load_balancer: Option<LoadBalancerSettings> = "`LEAST_REQUEST`",
        /// Limits.
        "connectionPool" connection_pool: Option<ConnectionPoolSettings> = "none",
        /// When an endpoint is set aside.
        "outlierDetection" outlier_detection: Option<OutlierSettings> = "never",
        /// TLS towards the destination, started by the gateway.
        "tls" tls: Option<ClientTlsSettings> = "as the application sends it",
        /// Settings for single ports. They replace all of the above for their port and inherit nothing of it.
        "portLevelSettings" port_level_settings: Records<PortPolicy> = "none",
        /// How many retries may be under way.
        "retryBudget" retry_budget: Option<RetryBudget> = "none",
        /// The destination is a proxy, which is asked to lead TLS and TCP elsewhere. It is not for HTTP.
        "tunnel" tunnel: Option<TunnelSettings> = "none",
        /// Every connection begins with a header of the PROXY protocol, which names the application's address and the one that it came to. Connections are not shared by applications then.
        "proxyProtocol" proxy_protocol: Option<ProxyProtocolSettings> = "none",
    }
}

record! {
    /// `tunnel`.
    struct TunnelSettings {
        /// `CONNECT` or `POST`, over HTTP/1.1. With `POST` the connection is the body of a request for `/` with the target as its host, in chunks, and the body of the answer.
        "protocol" protocol: Option<Spanned<TunnelProtocol>> = "`CONNECT`",
        /// The host that the proxy connects to.
        "targetHost" target_host: Option<Spanned<String>> = required,
        /// Its port.
        "targetPort" target_port: Option<Spanned<Port>> = required,
    }
}

choice! {
    /// How a proxy is asked.
    enum TunnelProtocol {
        /// With this method.
        Connect = "CONNECT",
        /// With a body each way.
        Post = "POST",
    }
}

record! {
    /// `proxyProtocol`.
    struct ProxyProtocolSettings {
        /// Its version: text or binary.
        "version" version: Option<Spanned<ProxyVersion>> = "`V1`",
    }
}

choice! {
    /// A version of the PROXY protocol.
    enum ProxyVersion {
        /// A line of text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

record! {
    /// Settings of one port.
    struct PortPolicy {
        /// The port.
        "port" port: Option<PortSelector> = required,
        /// How an endpoint is chosen.
        "loadBalancer" load_balancer: Option<LoadBalancerSettings> = "`LEAST_REQUEST`",
        /// Limits.
        "connectionPool" connection_pool: Option<ConnectionPoolSettings> = "none",
        /// When an endpoint is set aside.
        "outlierDetection" outlier_detection: Option<OutlierSettings> = "never",
        /// TLS towards the destination, started by the gateway.
        "tls" tls: Option<ClientTlsSettings> = "as the application sends it",
    }
}

record! {
    /// A port of a service.
    struct PortSelector {
        /// Its number.
        "number" number: Option<Spanned<Port>> = required,
    }
    unsupported {
        "name": Error, "the API has no names of ports here, and an API server drops them: ports are selected by number";
    }
}

record! {
    /// `connectionPool`.
    struct ConnectionPoolSettings {
        /// Limits of connections.
        "tcp" tcp: Option<TcpPool> = "none",
        /// Limits of requests.
        "http" http: Option<HttpPool> = "none",
    }
}

record! {
    /// `connectionPool.tcp`.
    struct TcpPool {
        /// Connections to all endpoints together, in shares: a source that has less than its share of them gets the next one.
        "maxConnections" max_connections: Option<Spanned<u32>> = "unlimited",
        /// How long a connect may take.
        "connectTimeout" connect_timeout: Option<Spanned<Duration>> = "`10s`",
        /// How long a connection may go without a byte: one that is relayed (TCP, passthrough, upgraded HTTP), where `0s` is without limit; and one that waits for a request, where `connectionPool.http.idleTimeout` is absent.
        "idleTimeout" idle_timeout: Option<Spanned<Duration>> = "`1h`",
        /// Probes on connections to the destination that are silent. They are sent in any case; this sets their times.
        "tcpKeepalive" tcp_keepalive: Option<TcpKeepalive> = "`mesh.yaml`'s",
        /// How long a connection may be used, from its start; at least `1ms`. One that is relayed (TCP, passthrough) is then closed, with the flag `DT`; one of HTTP ends with the request that is under way, and an upgraded one stays.
        "maxConnectionDuration" max_connection_duration: Option<Spanned<Duration>> = "unlimited",
    }
}

record! {
    /// `tcpKeepalive`, of a destination rule or of `mesh.yaml`.
    struct TcpKeepalive {
        /// Probes without an answer after which the connection ends; from 1 to 127.
        "probes" probes: Option<Spanned<u32>> = "`3`",
        /// Silence before the first probe; from 1 s to 32767 s.
        "time" time: Option<Spanned<Duration>> = "`60s`",
        /// Time between two probes; from 1 s to 32767 s.
        "interval" interval: Option<Spanned<Duration>> = "`10s`",
    }
}

record! {
    /// `connectionPool.http`.
    struct HttpPool {
        /// Requests under way to all endpoints together, in shares as `maxConnections`.
        "http2MaxRequests" http2_max_requests: Option<Spanned<u32>> = "unlimited",
        /// Requests that may wait for a connection. It has the effect of `http2MaxRequests` where that is absent.
        "http1MaxPendingRequests" http1_max_pending_requests: Option<Spanned<u32>> = "unlimited",
        /// Requests on one connection; 0 is without limit.
        "maxRequestsPerConnection" max_requests_per_connection: Option<Spanned<u32>> = "0",
        /// How long a pooled connection may lie idle; with `0s` none is kept for another request.
        "idleTimeout" idle_timeout: Option<Spanned<Duration>> = "`connectionPool.tcp.idleTimeout`",
        /// `UPGRADE` speaks HTTP/2 to the upstream; with TLS the upstream must choose it. Otherwise HTTP/1.1, except on ports of `HTTP2` and `GRPC`, and for gRPC to upstreams that choose HTTP/2 in TLS.
        "h2UpgradePolicy" h2_upgrade_policy: Option<Spanned<H2Upgrade>> = "`DEFAULT`",
        /// `true` speaks to the upstream what the client speaks: HTTP/2 for a request that came as HTTP/2, HTTP/1.1 for others. `h2UpgradePolicy` has no effect then.
        "useClientProtocol" use_client_protocol: Option<Spanned<bool>> = "`false`",
        /// Requests under way on one HTTP/2 connection; at most 128, and the upstream's own limit.
        "maxConcurrentStreams" max_concurrent_streams: Option<Spanned<u32>> = "128",
        /// Retries under way to all endpoints together. Beyond them a request is not tried again.
        "maxRetries" max_retries: Option<Spanned<u32>> = "unlimited",
    }
    unsupported {
        "http2KeepAlive": Warning, "a connection without a sign of life is pinged in any case";
    }
}

record! {
    /// `retryBudget`: retries under way, in proportion to the requests. It takes the place of `maxRetries`.
    struct RetryBudget {
        /// Of the requests under way to all endpoints together, in percent.
        "percent" percent: Option<Spanned<f64>> = "20",
        /// So many in any case.
        "minRetryConcurrency" min_retry_concurrency: Option<Spanned<u32>> = "3",
    }
    unsupported {
        "budgetInterval": Warning, "only requests under way count, so fewer retries are allowed";
    }
}

choice! {
    /// `h2UpgradePolicy`.
    enum H2Upgrade {
        /// As the port says.
        Default = "DEFAULT",
        /// As the port says.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// HTTP/2.
        Upgrade = "UPGRADE",
    }
}

record! {
    /// `outlierDetection`.
    struct OutlierSettings {
        /// Errors in a row (status 500 and above, connections that fail) that set an endpoint aside; 0 never does.
        "consecutive5xxErrors" consecutive_5xx_errors: Option<Spanned<u32>> = "5",
        /// Of these, the 502, 503, 504 and connections that fail, counted besides; 0 never does.
        "consecutiveGatewayErrors" consecutive_gateway_errors: Option<Spanned<u32>> = "0",
        /// Old name of `consecutive5xxErrors`, which Istio ignores; used with a warning where that is absent.
        "consecutiveErrors" consecutive_errors: Option<Spanned<u32>> = "none",
        /// First time out; it grows with each ejection.
        "baseEjectionTime" base_ejection_time: Option<Spanned<Duration>> = "`30s`",
        /// At most this share of the endpoints, in percent.
        "maxEjectionPercent" max_ejection_percent: Option<Spanned<u32>> = "10",
        /// `true` counts connections that fail (also TLS, and resets) by themselves.
        "splitExternalLocalOriginErrors" split_local_origin: Option<Spanned<bool>> = "`false`",
        /// Such failures in a row that set an endpoint aside; only with `splitExternalLocalOriginErrors`.
        "consecutiveLocalOriginFailures" consecutive_local_origin: Option<Spanned<u32>> = "5",
    }
    unsupported {
        "outlierDetectionHttpErrorCodes": Warning, "which codes count follows from the other settings";
        "interval": Warning, "endpoints are judged with each result, not in intervals";
        "minHealthPercent": Warning, "`maxEjectionPercent` limits ejections";
    }
}

record! {
    /// `tls`: TLS origination. Certificates are always verified unless `insecureSkipVerify` is set.
    struct ClientTlsSettings {
        /// `SIMPLE` and `MUTUAL` start TLS at the gateway. In a rule for a gateway's own service, `ISTIO_MUTUAL` (and `MUTUAL` with files) lead the node's traffic through its tunnel: mutual TLS to the gateway's port 15008. All places of one service must agree.
        "mode" mode: Option<Spanned<ClientMode>> = "`DISABLE`",
        /// File with the client's certificate chain (PEM), for `MUTUAL`.
        "clientCertificate" client_certificate: Option<Spanned<String>> = "none",
        /// File with the client's key (PEM), for `MUTUAL`.
        "privateKey" private_key: Option<Spanned<String>> = "none",
        /// File with the roots to trust (PEM).
        "caCertificates" ca_certificates: Option<Spanned<String>> = "the system's",
        /// File with revocation lists (PEM). With it every certificate of the other side must be covered by a list that is up to date.
        "caCrl" ca_crl: Option<Spanned<String>> = "none",
        /// Instead of files: the Secret or directory of this name, as for a server. It must have `ca.crt`, and for `MUTUAL` `tls.crt` and `tls.key`.
        "credentialName" credential_name: Option<Spanned<String>> = "none",
        /// Names of which the upstream's certificate must hold one.
        "subjectAltNames" subject_alt_names: List<String> = "the host",
        /// The server name to send. Towards a gateway's service it is accepted and has no use: the tunnel says which address was dialled.
        "sni" sni: Option<Spanned<String>> = "the host",
        /// Don't verify the upstream's certificate. Anyone on the way can then read and change everything.
        "insecureSkipVerify" insecure_skip_verify: Option<Spanned<bool>> = "`false`",
    }
    translated {
        /// Why it cannot be applied.
        unavailable: Option<Rc<str>>;
        /// The ConfigMap of an API server that has the roots.
        config_map: Option<Rc<str>>;
    }
}

choice! {
    /// `tls.mode` of a destination rule.
    enum ClientMode {
        /// As the application sends it.
        Disable = "DISABLE",
        /// TLS.
        Simple = "SIMPLE",
        /// TLS with a client certificate.
        Mutual = "MUTUAL",
        /// TLS with the mesh's certificates, towards a gateway's service: the tunnel.
        IstioMutual = "ISTIO_MUTUAL",
    }
}
