//! Clusters: external destinations, in Envoy's sense of the word.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    ClusterHandles, ClusterLocality, ConsistentHash, EgressAddresses, KeyGroups, RateLimit,
};
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

    /// The host in Istio's form; another name is one as a whole.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.rsplit_once('|').map_or(&*self.0, |(_, host)| host)
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
    /// By what of a request it is chosen instead.
    pub hash: Option<Arc<ConsistentHash>>,
    /// How new endpoints get their load little by little.
    pub warmup: Option<Warmup>,
    /// Which endpoints are preferred for where they are.
    pub locality: Option<Arc<ClusterLocality>>,
    /// Where it is dialled from.
    pub from: Option<Arc<EgressAddresses>>,
    /// What is said on a connection before anything else.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where a proxy at the endpoints is asked to lead TLS and TCP.
    pub connect: Option<ConnectTarget>,
    /// Limits.
    pub pool: ConnectionPool,
    /// When an endpoint is set aside.
    pub outlier: Option<OutlierDetection>,
    /// How many retries may be under way, in proportion to the requests.
    pub retry_budget: Option<RetryBudget>,
    /// What each workload may ask of it.
    pub rate: Option<Arc<RateLimit>>,
    /// What is looked up once for it.
    pub kept: ClusterHandles,
}

impl Cluster {
    /// A cluster without settings of its own.
    #[must_use]
    pub fn new(name: ClusterName, discovery: Discovery) -> Self {
        Self {
            name,
            discovery,
            http: HttpVersion::Auto,
            tls: None,
            load_balancer: LoadBalancer::LeastRequest,
            hash: None,
            warmup: None,
            locality: None,
            from: None,
            proxy_protocol: None,
            connect: None,
            pool: ConnectionPool::default(),
            outlier: None,
            retry_budget: None,
            rate: None,
            kept: ClusterHandles::default(),
        }
    }
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
    /// Which of the service entry's endpoints it is, those of its subset counted from 0; see [`ClusterLocality`].
    pub place: u32,
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

/// `proxyProtocol.version`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `tunnel.protocol`: how a proxy is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ProxyMethod {
    /// RFC 9110 §9.3.6.
    #[default]
    Connect,
    /// The connection is the body of the request, and that of the answer.
    Post,
}

impl ProxyMethod {
    /// As a request has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Post => "POST",
        }
    }
}

/// `tunnel`: what a proxy is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectTarget {
    /// How.
    pub method: ProxyMethod,
    /// The host.
    pub host: Host,
    /// Its port.
    pub port: Port,
    /// The credential for the proxy: a user's name and a password.
    pub credential: Option<Arc<str>>,
}

impl fmt::Display for ConnectTarget {
    /// As an authority.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host @ (Host::Name(_) | Host::Ip(IpAddr::V4(_))) => write!(f, "{host}:{}", self.port),
        }
    }
}

/// `retryBudget`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryBudget {
    /// Of the requests under way, in percent.
    pub percent: f64,
    /// So many in any case.
    pub minimum: u32,
}

/// Numbers of a configuration, none of them NaN.
impl Eq for RetryBudget {}

impl Cluster {
    /// The host that rate limits count what is asked for as: that one where it is resolved, else the
    /// cluster's, because whatever name is made up below a wildcard leads to the same endpoints.
    #[must_use]
    pub fn counted_as(&self, asked: Option<&Host>) -> Arc<str> {
        match (&self.discovery, asked) {
            (Discovery::Request(_), Some(host)) => host.to_string().into(),
            (Discovery::Request(_), None) | (Discovery::Dns(_) | Discovery::Static(_), _) => {
                self.name.host().into()
            }
        }
    }

    /// How many retries may be under way while so many requests are. A budget takes the place of
    /// `maxRetries`, as in Envoy.
    #[must_use]
    pub fn most_retries(&self, requests: u64) -> u64 {
        let Some(RetryBudget { percent, minimum }) = self.retry_budget else {
            return self.pool.max_retries.into();
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a part of a number of requests, and not negative"
        )]
        let part = (requests as f64 * percent / 100.0) as u64;
        part.max(minimum.into())
    }
}

/// `loadBalancer.warmup`: Envoy's slow start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Warmup {
    /// How long an endpoint is new.
    pub duration: Duration,
    /// The part of its weight that it begins with, in percent.
    pub minimum_percent: f64,
    /// How the part grows: 1 is evenly, more is sooner.
    pub aggression: f64,
}

/// Numbers of a configuration, none of them NaN.
impl Eq for Warmup {}

impl Warmup {
    /// The part of its weight that an endpoint has which has been there for so long.
    #[must_use]
    pub fn part(self, age: Duration) -> f64 {
        if age >= self.duration {
            return 1.0;
        }
        // Within the first second it is what it is after one, as in Envoy.
        let passed = age.as_secs_f64().max(1.0) / self.duration.as_secs_f64();
        passed.powf(1.0 / self.aggression).clamp(self.minimum_percent / 100.0, 1.0)
    }
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
    /// Retries under way to all endpoints together.
    pub max_retries: u32,
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
            max_retries: u32::MAX,
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
    /// Errors in a row (`consecutive5xxErrors`) that eject an endpoint; none do where it is 0. Failures of connections
    /// count too, unless these have a number of their own.
    pub consecutive_errors: u32,
    /// The same of 502, 503 and 504 alone (`consecutiveGatewayErrors`); failures of connections count likewise.
    pub gateway_errors: u32,
    /// Failures of connections in a row that eject an endpoint, where they are counted by themselves
    /// (`consecutiveLocalOriginFailures`).
    pub local_origin_failures: Option<u32>,
    /// First time out; grows with each ejection.
    pub base_ejection_time: Duration,
    /// At most this share of the endpoints, in percent.
    pub max_ejection_percent: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_counts_where_it_is_resolved() {
        let port = Port::new(443).unwrap();
        let name = ClusterName::outbound(port, "v1", "*.x.example");
        let asked = Host::parse("made-up.x.example").unwrap();
        let counted = |discovery: Discovery, asked: Option<&Host>| {
            Cluster::new(name.clone(), discovery).counted_as(asked)
        };
        let fixed = Host::parse("fixed.example").unwrap();
        for discovery in [Discovery::Dns(vec![(fixed, port)]), Discovery::Static(Vec::new())] {
            assert_eq!(&*counted(discovery.clone(), Some(&asked)), "*.x.example");
            assert_eq!(&*counted(discovery, None), "*.x.example");
        }
        assert_eq!(&*counted(Discovery::Request(port), Some(&asked)), "made-up.x.example");
        assert_eq!(ClusterName::passthrough().host(), "PassthroughCluster");
    }
}
