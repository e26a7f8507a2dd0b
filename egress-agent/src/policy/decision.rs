//! Decisions as values: what is asked, and what was decided. Acting on one is the proxy's part.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use egress_ebpf::reason::Reason;

use super::{Cluster, CorsPolicy, EgressAddresses, Hop, Owner, RateLimit, ServerTls};
use crate::types::{GatewayPort, Host, OriginalPort, Source, log::Segment};

/// How the bytes of a connection on some original port are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortMode {
    /// HTTP or TLS, as the first bytes say.
    Detect,
    /// A raw TCP service is routed here; the destination is known without a byte read.
    Tcp,
    /// Nothing is routed here: reset.
    Closed(Reason),
}

/// How a request or connection came in, which says what stages it goes through.
#[derive(Clone, Copy, Debug)]
pub enum EntryPoint<'a> {
    /// As the application dialled it: the mesh's stage, then the gateway's.
    Mesh,
    /// The same, through the tunnel of a node that may speak for the source.
    Tunnel,
    /// Inside TLS that a server of this gateway ended: that server's stage alone.
    Server(&'a Termination),
}

impl EntryPoint<'_> {
    /// How it came from the node.
    #[must_use]
    pub fn hop(self) -> Hop {
        match self {
            Self::Tunnel => Hop::Tunnel,
            Self::Mesh | Self::Server(_) => Hop::Plain,
        }
    }
}

/// TLS that is to be ended, or was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Termination {
    /// The server's port.
    pub port: GatewayPort,
    /// Its settings.
    pub tls: Arc<ServerTls>,
    /// Whose it is.
    pub owner: Owner,
}

/// A request as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// Who asks.
    pub source: &'a Source,
    /// How the request came in.
    pub entry: EntryPoint<'a>,
    /// The port it dialled.
    pub port: OriginalPort,
    /// Authority without port.
    pub host: &'a Host,
    /// The authority as sent (`authority` matches and logs).
    pub authority: &'a str,
    /// `http` or, over a terminated TLS connection, `https`.
    pub scheme: &'a str,
    /// Method.
    pub method: &'a http::Method,
    /// Path and query.
    pub path_and_query: &'a str,
    /// Headers.
    pub headers: &'a http::HeaderMap,
    /// SNI, where the gateway terminated TLS.
    pub server_name: Option<&'a Host>,
    /// The original client as trusted proxies name it; the source's own address where none are
    /// configured, and `None` where they name no address.
    pub remote: Option<IpAddr>,
}

/// A TLS connection as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct TlsConnection<'a> {
    /// Who asks.
    pub source: &'a Source,
    /// The port it dialled.
    pub port: OriginalPort,
    /// SNI.
    pub server_name: &'a Host,
    /// How it came from the node.
    pub hop: Hop,
    /// Whether the ClientHello has the extension of Encrypted Client Hello.
    pub encrypted: bool,
}

/// Refused, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The reason.
    pub reason: Reason,
    /// A sentence for the person who reads the `403` or the log.
    pub detail: String,
    /// The authorization policy that refuses it, in Envoy's words for the access log.
    pub matched: Option<Arc<str>>,
}

/// What becomes of a TLS connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsRoute {
    /// Its bytes are forwarded as they are.
    Forward(TcpRoute),
    /// A server of this gateway ends it; what is inside is decided then.
    Terminate(Termination),
}

/// Where a TLS or TCP connection goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpRoute {
    /// The destination.
    pub cluster: Arc<Cluster>,
    /// The name to resolve where the cluster is a wildcard; `None` for a raw TCP service.
    pub host: Option<Host>,
    /// What the egress policies that allow it let the workload ask of the host.
    pub rates: Vec<Arc<RateLimit>>,
    /// Where it is dialled from.
    pub from: Option<Arc<EgressAddresses>>,
    /// The policy that marks it for audit: an authorization policy, or an egress policy in audit mode.
    pub audit: Option<Arc<str>>,
}

impl TcpRoute {
    /// Without limits and marks.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, host: Option<Host>) -> Self {
        Self { cluster, host, rates: Vec::new(), from: None, audit: None }
    }

    /// Every limit that holds.
    pub fn rate_limits(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.rates.iter().chain(&self.cluster.rate)
    }
}

/// Where a request goes, and what is done on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRoute {
    /// The destination.
    pub cluster: Arc<Cluster>,
    /// The request's host, or the one that the rule sends it to: to resolve where the cluster is a
    /// wildcard, and the default SNI. The `Host` header stays as the client sent it.
    pub host: Host,
    /// `http[].name`, for the access log.
    pub name: Option<Arc<str>>,
    /// For the whole request with its retries; `None` is without limit.
    pub timeout: Option<Duration>,
    /// When to try again; shared by all requests of the rule.
    pub retry: Arc<RetryPolicy>,
    /// What to do to the request and the response; made once a rule where it doesn't depend on the
    /// request.
    pub action: Arc<HttpAction>,
    /// Where copies of it go: the destination, and its name as [`Self::host`].
    pub mirrors: Vec<(Arc<Cluster>, Host)>,
    /// What the egress policies that allow it let the workload ask of the host.
    pub rates: Vec<Arc<RateLimit>>,
    /// Where it is dialled from.
    pub from: Option<Arc<EgressAddresses>>,
    /// The policy that marks it for audit: an authorization policy, or an egress policy in audit mode.
    pub audit: Option<Arc<str>>,
}

impl HttpRoute {
    /// Every limit that holds.
    pub fn rate_limits(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.rates.iter().chain(&self.cluster.rate)
    }
}

/// `retries`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Retries after the first try.
    pub attempts: u32,
    /// Limit of one try; the route's timeout where absent.
    pub per_try_timeout: Option<Duration>,
    /// What is tried again.
    pub retry_on: RetryOn,
    /// The longest pause before the first retry; it doubles with each, up to ten times this.
    pub backoff: Duration,
}

/// `retries.retryOn`: the conditions of Envoy's `x-envoy-retry-on`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetryOn {
    /// `connect-failure`: the connection couldn't be made (TLS included).
    pub connect_failure: bool,
    /// `refused-stream`: HTTP/2 `REFUSED_STREAM`, nothing was processed.
    pub refused_stream: bool,
    /// `reset` (and part of `5xx`, `gateway-error`): no response came before the connection or
    /// stream ended, or the try's time ran out.
    pub reset: bool,
    /// `5xx`: any status from 500.
    pub server_error: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `unavailable`, `cancelled`, …: gRPC status codes in a response's trailers-only head.
    pub grpc_statuses: Vec<u8>,
    /// Status codes given as numbers; `retriable-status-codes` stands for 503.
    pub statuses: Vec<u16>,
}

impl RetryOn {
    /// Whether a response with this status is to be tried again.
    #[must_use]
    pub fn status(&self, status: http::StatusCode) -> bool {
        let code = status.as_u16();
        (self.server_error && code >= 500)
            || (self.gateway_error && matches!(code, 502..=504))
            || (self.retriable_4xx && code == 409)
            || self.statuses.contains(&code)
    }
}

impl Default for RetryPolicy {
    /// Istio's since 1.24: two retries on `connect-failure,refused-stream,unavailable,cancelled`.
    /// A status that the upstream sent is never tried again by itself: it may have acted.
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout: None,
            retry_on: RetryOn {
                connect_failure: true,
                refused_stream: true,
                grpc_statuses: vec![14, 1],
                ..RetryOn::default()
            },
            // Envoy's.
            backoff: Duration::from_millis(25),
        }
    }
}

/// What a rule does besides routing. All empty: forward as is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpAction {
    /// `rewrite.authority`.
    pub rewrite_authority: Option<Arc<str>>,
    /// The new path and query, `rewrite.uri` already applied to this request.
    pub rewrite_path: Option<Arc<str>>,
    /// Request headers to set, add (append) and remove, in this order.
    pub request_headers: HeaderOps,
    /// The same for the response.
    pub response_headers: HeaderOps,
    /// `redirect`: answer with this status and `Location`.
    pub redirect: Option<(http::StatusCode, Arc<str>)>,
    /// `directResponse` or `fault.abort`: answer with this status and body.
    pub respond: Option<(http::StatusCode, Bytes)>,
    /// `fault.abort.grpcStatus`: answer a request of gRPC with this status instead.
    pub grpc_status: Option<u8>,
    /// `fault.delay`: wait first.
    pub delay: Option<Duration>,
    /// What a client may upgrade the connection to.
    pub upgrades: Upgrades,
    /// `corsPolicy`.
    pub cors: Option<Arc<CorsPolicy>>,
}

/// What a client may upgrade its connection to (RFC 9110 §7.8) by a route. Upgrades to HTTP/2 and TLS are another
/// matter: they are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upgrades {
    /// Nothing.
    #[default]
    Nothing,
    /// WebSocket (RFC 6455) alone.
    WebSocket,
    /// Whatever the upstream speaks.
    Anything,
}

impl Upgrades {
    /// Whether this is a protocol that a client may ask for, as the value of `Upgrade` has it. One with a version, or
    /// a list, is not WebSocket.
    #[must_use]
    pub fn allow(self, protocol: &http::HeaderValue) -> bool {
        match self {
            Self::Nothing => false,
            Self::WebSocket => protocol.as_bytes().eq_ignore_ascii_case(b"websocket"),
            Self::Anything => true,
        }
    }
}

/// Header changes of a route.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderOps {
    /// Overwrite.
    pub set: Vec<(http::HeaderName, HeaderText)>,
    /// Append.
    pub add: Vec<(http::HeaderName, HeaderText)>,
    /// Remove.
    pub remove: Vec<http::HeaderName>,
}

/// The value of a header that a route sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderText {
    /// The same for every request.
    Fixed(http::HeaderValue),
    /// With Envoy's operators, those of the access log; where nothing of it is set the header is
    /// left out.
    Format(Arc<[Segment]>),
}
