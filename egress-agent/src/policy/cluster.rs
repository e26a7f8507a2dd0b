//! Clusters: external destinations, in Envoy's sense of the word.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::KeyGroups;
use crate::types::{Host, Port};

/// A cluster's key in statistics and logs: `outbound|443||edition.cnn.com`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClusterName(pub Arc<str>);

impl ClusterName {
    /// `outbound|<port>|<subset>|<host>`, Istio's form.
    #[must_use]
    pub fn outbound(port: Port, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// Where refused requests are counted.
    #[must_use]
    pub fn black_hole() -> Self {
        Self("BlackHoleCluster".into())
    }

    /// Where requests to unknown hosts are counted under `ALLOW_ANY`.
    #[must_use]
    pub fn passthrough() -> Self {
        Self("PassthroughCluster".into())
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An external destination: how to find, reach and protect it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// Its key; a wildcard's is the wildcard (`outbound|443||*.example.com`).
    pub name: ClusterName,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// What the upstream speaks.
    pub http: HttpVersion,
    /// TLS towards it, if the gateway originates TLS.
    pub tls: Option<ClientTls>,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// Limits.
    pub pool: ConnectionPool,
    /// When an endpoint is set aside.
    pub outlier: Option<OutlierDetection>,
}

/// Where endpoints come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// Resolve these names (`resolution: DNS` with or without `endpoints`, `DNS_ROUND_ROBIN`).
    Dns(Vec<(Host, Port)>),
    /// These addresses (`resolution: STATIC`).
    Static(Vec<Endpoint>),
    /// The request's own host, resolved here (wildcards, `NONE`, `DYNAMIC_DNS`, `ALLOW_ANY`), on this port.
    Request(Port),
}

/// A fixed endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Address and port.
    pub addr: SocketAddr,
    /// Relative share of requests; 1 where not given.
    pub weight: u32,
}

/// The HTTP version spoken to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpVersion {
    /// HTTP/1.1; with TLS HTTP/2 for gRPC, if the upstream chooses it (ALPN).
    Auto,
    /// That of the client's request (`useClientProtocol`).
    Client,
    /// HTTP/2 always (ports declared `HTTP2` or `GRPC`).
    Http2,
}

/// TLS towards the upstream, from a destination rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientTls {
    /// With or without a client certificate.
    pub mode: ClientTlsMode,
    /// SNI; the request's host where absent.
    pub sni: Option<Host>,
    /// The certificate must hold one of these names; the SNI's host where empty.
    pub subject_alt_names: Vec<String>,
    /// Trust only these roots; those of the credential, or the system's, where absent.
    pub ca_certificates: Option<PathBuf>,
    /// Revocation lists: each certificate of the chain must be covered by one that is up to date.
    pub ca_crl: Option<PathBuf>,
    /// Groups of the key exchange.
    pub key_groups: KeyGroups,
    /// Don't verify at all. `check` warns.
    pub insecure_skip_verify: bool,
}

/// Whether the gateway shows a certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ClientTlsMode {
    /// `SIMPLE`: it doesn't.
    Simple,
    /// `MUTUAL`: it does.
    Mutual {
        /// PEM chain.
        client_certificate: PathBuf,
        /// PEM key.
        private_key: PathBuf,
    },
    /// `SIMPLE` with `credentialName`: the roots are the credential's.
    SimpleNamed(Arc<str>),
    /// `MUTUAL` with `credentialName`: certificate, key and roots are the credential's.
    MutualNamed(Arc<str>),
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadBalancer {
    /// The least loaded of two random endpoints; the default.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The first address that DNS names (`DNS_ROUND_ROBIN`); the others where that one fails.
    First,
}

/// `connectionPool`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionPool {
    /// Connections to all endpoints together.
    pub max_connections: u32,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// How long a pooled connection may lie idle.
    pub idle_timeout: Duration,
    /// How long a connection that is relayed (TCP, passthrough, upgraded HTTP) may go without a byte;
    /// `None` is without limit.
    pub tcp_idle_timeout: Option<Duration>,
    /// Probes on connections that are silent; the mesh's where absent, else [`Keepalive::default`].
    pub keepalive: Option<Keepalive>,
    /// Requests on one connection; zero is without limit.
    pub max_requests_per_connection: u32,
    /// Requests under way to all endpoints together.
    pub max_requests: u32,
    /// Requests under way on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// How long a connection may be used, from its start.
    pub max_connection_duration: Option<Duration>,
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            tcp_idle_timeout: Some(Duration::from_secs(3600)),
            keepalive: None,
            max_requests_per_connection: 0,
            max_requests: u32::MAX,
            max_concurrent_streams: u32::MAX,
            max_connection_duration: None,
        }
    }
}

/// `tcpKeepalive`: probes that find out whether the other end of a silent connection is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub time: Duration,
    /// Time between two probes.
    pub interval: Duration,
    /// Probes without an answer that end the connection.
    pub probes: u32,
}

impl Default for Keepalive {
    /// A peer that is gone shows within 90 s. RFC 1122's two hours are too long where upstreams vanish
    /// behind firewalls and NAT.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 3 }
    }
}

/// `outlierDetection`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutlierDetection {
    /// Errors in a row (`consecutive5xxErrors`, connect failures included) that eject an endpoint.
    pub consecutive_errors: u32,
    /// First time out; grows with each ejection.
    pub base_ejection_time: Duration,
    /// At most this share of the endpoints, in percent.
    pub max_ejection_percent: u8,
}
