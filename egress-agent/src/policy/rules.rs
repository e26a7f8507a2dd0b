//! The compiled resources: services, gateways' servers, routes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use egress_ebpf::reason::Reason;
use ipnet::IpNet;
use regex::Regex;

use super::{
    AuthorizationPolicy, Cluster, Destination, EgressPolicy, Exported, Hop, HostPattern,
    HttpAction, Owner, Protocol, ResourcePath, RetryPolicy, Scoped, Server, SharedPort,
    SourceMatch, TextMatch,
};
use crate::types::{GatewayPort, Host, Namespace, OriginalPort, Port};

/// Everything that decisions are made of.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The registry: one entry a host and port of a service entry, the oldest first.
    pub services: Vec<Arc<Service>>,
    /// One entry a server of a `Gateway`.
    pub servers: Vec<Arc<Server>>,
    /// One entry a `VirtualService`.
    pub routes: Vec<Arc<RouteSet>>,
    /// Every cluster, once.
    pub clusters: Vec<Arc<Cluster>>,
    /// Egress policies of both kinds.
    pub egress: Vec<Arc<EgressPolicy>>,
    /// Authorization policies, and what else restricts gateways.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    /// What raw TCP was meant for that arrives at ports of the gateway which are no service's own.
    pub shared_tcp: BTreeMap<GatewayPort, SharedPort>,
}

/// One port of one host of a `ServiceEntry`.
#[derive(Clone, Debug)]
pub struct Service {
    /// `default/cnn`.
    pub name: Arc<str>,
    /// Its service entry's namespace.
    pub namespace: Namespace,
    /// The host.
    pub host: HostPattern,
    /// The port that applications dial.
    pub port: OriginalPort,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who may use it.
    pub exported: Exported,
    /// Addresses that identify it, for raw TCP and direct allowances.
    pub addresses: Vec<IpNet>,
    /// What its own requests are counted in where nothing is dialled.
    pub cluster: Arc<Cluster>,
    /// How it is reached without a route.
    pub destination: Arc<Destination>,
}

impl Scoped for Service {
    fn namespace(&self) -> &Namespace {
        &self.namespace
    }
    fn exported(&self) -> &Exported {
        &self.exported
    }
}

/// A `VirtualService`, or routes of the Gateway API for one host of one parent.
#[derive(Clone, Debug)]
pub struct RouteSet {
    /// `default/direct-cnn-through-egress-gateway`.
    pub name: Arc<str>,
    /// What messages call it: `VirtualService default/direct-cnn-through-egress-gateway`.
    pub label: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Whose traffic it is for, at the mesh stage.
    pub exported: Exported,
    /// Its hosts.
    pub hosts: Vec<HostPattern>,
    /// Its rules at the mesh stage.
    pub mesh: StageRules,
    /// Its rules at gateways, by their names (`default/istio-egressgateway`).
    pub gateways: Vec<(Arc<str>, StageRules)>,
}

impl RouteSet {
    /// The hosts that its rules are for: [`HostPattern::rule_hosts`].
    #[must_use]
    pub fn rule_hosts(&self) -> Vec<HostPattern> {
        self.hosts.iter().flat_map(HostPattern::rule_hosts).collect()
    }
}

impl Scoped for RouteSet {
    fn namespace(&self) -> &Namespace {
        &self.namespace
    }
    fn exported(&self) -> &Exported {
        &self.exported
    }
}

/// The rules of a route set at one stage, in order; each holds only the matches of that stage.
#[derive(Clone, Debug, Default)]
pub struct StageRules {
    /// For HTTP.
    pub http: Vec<Arc<HttpRule>>,
    /// For TLS.
    pub tls: Vec<Arc<TlsRule>>,
    /// For raw TCP.
    pub tcp: Vec<Arc<TcpRule>>,
}

/// A rule for HTTP.
#[derive(Clone, Debug)]
pub struct HttpRule {
    /// `name`.
    pub name: Option<Arc<str>>,
    /// Alternatives; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What happens.
    pub outcome: HttpOutcome,
    /// For the whole request.
    pub timeout: Option<Duration>,
    /// When to try again.
    pub retry: Arc<RetryPolicy>,
    /// What is done where the gateway answers by itself; destinations have their own.
    pub action: Arc<HttpAction>,
    /// How the path is changed.
    pub path: PathRewrite,
    /// Wait so long, this often (0 to 1).
    pub delay: Option<(Delay, f64)>,
    /// Answer with this status, this often (0 to 1).
    pub abort: Option<(Abort, f64)>,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Where it is written.
    pub place: ResourcePath,
}

/// A destination of copies of requests.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The destination.
    pub target: Target,
    /// How often (0 to 1).
    pub share: f64,
}

/// How long `fault.delay` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delay {
    /// Always so long.
    Fixed(Duration),
    /// Exponentially distributed, with this mean, and at most ten times as long.
    Exponential(Duration),
}

/// The text of an injected fault, as Envoy has it.
pub const FAULT: &str = "fault filter abort";

/// What `fault.abort` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// A status.
    Http(http::StatusCode),
    /// A status of gRPC.
    Grpc(u8),
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum HttpOutcome {
    /// It goes to one of these, by weight.
    Route(Vec<WeightedDestination>),
    /// It is redirected.
    Redirect(Redirect),
    /// It is answered.
    Respond(http::StatusCode, Bytes),
}

/// A destination with its share; at least one of a list has a weight above zero.
#[derive(Clone, Debug)]
pub struct WeightedDestination {
    /// Relative share.
    pub weight: u32,
    /// The destination.
    pub target: Target,
    /// What is done on the way, the rule's part included.
    pub action: Arc<HttpAction>,
}

/// A destination.
#[derive(Clone, Debug)]
pub enum Target {
    /// A gateway service: the mesh stage leads there.
    Gateway {
        /// Index in [`super::MeshConfig::gateways`].
        group: usize,
        /// The port, which chooses the server.
        port: GatewayPort,
        /// How traffic has to come there.
        hop: Hop,
        /// The `Gateway` of the Gateway API whose servers alone are meant, where it shares the service with
        /// others.
        owner: Owner,
    },
    /// A service outside.
    Cluster {
        /// Its clusters, by who asks.
        destination: Arc<Destination>,
        /// Its name, where the cluster stands for one; a wildcard's takes the request's host.
        host: Option<Host>,
    },
    /// What the destination names doesn't exist.
    Refused {
        /// The reason.
        reason: Reason,
        /// A sentence.
        detail: Arc<str>,
    },
}

/// `redirect`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The status.
    pub status: http::StatusCode,
    /// New scheme.
    pub scheme: Option<Arc<str>>,
    /// New host.
    pub authority: Option<Arc<str>>,
    /// New port.
    pub port: RedirectPort,
    /// New path and query.
    pub path: Option<Arc<str>>,
}

/// The port of a redirect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectPort {
    /// The scheme's.
    Default,
    /// The request's.
    Request,
    /// This one.
    Port(Port),
}

/// How a path is rewritten.
#[derive(Clone, Debug, Default)]
pub enum PathRewrite {
    /// Not at all.
    #[default]
    Keep,
    /// The prefix that was matched, or the whole path, becomes this.
    Replace(Arc<str>),
    /// What the expression matches becomes this (`$1` is the first group).
    Regex(Regex, Arc<str>),
}

/// Conditions of a rule for HTTP; all must hold.
#[derive(Clone, Debug, Default)]
pub struct HttpMatch {
    /// The stage's port.
    pub port: Option<Port>,
    /// The path without query.
    pub path: Option<TextMatch>,
    /// Compare the path without regard to ASCII case; the match's text is lower case then.
    pub ignore_case: bool,
    /// The method.
    pub method: Option<TextMatch>,
    /// The authority as sent.
    pub authority: Option<TextMatch>,
    /// The scheme.
    pub scheme: Option<TextMatch>,
    /// Headers.
    pub headers: Vec<(http::HeaderName, TextMatch)>,
    /// Headers that must not match.
    pub without_headers: Vec<(http::HeaderName, TextMatch)>,
    /// Query parameters.
    pub query: Vec<(Box<str>, TextMatch)>,
    /// Who asks.
    pub source: SourceMatch,
}

/// A rule for TLS.
#[derive(Clone, Debug)]
pub struct TlsRule {
    /// Alternatives.
    pub matches: Vec<TlsMatch>,
    /// Destinations.
    pub targets: Vec<WeightedDestination>,
    /// Where it is written.
    pub place: ResourcePath,
}

/// Conditions of a rule for TLS; all must hold.
#[derive(Clone, Debug)]
pub struct TlsMatch {
    /// The stage's port.
    pub port: Option<Port>,
    /// Server names.
    pub server_names: Vec<HostPattern>,
    /// Who asks.
    pub source: SourceMatch,
}

/// A rule for raw TCP.
#[derive(Clone, Debug)]
pub struct TcpRule {
    /// Alternatives; empty matches everything.
    pub matches: Vec<TcpMatch>,
    /// Destinations.
    pub targets: Vec<WeightedDestination>,
    /// Where it is written.
    pub place: ResourcePath,
}

impl TcpRule {
    /// Whether it is for a port of the stage.
    #[must_use]
    pub fn is_on(&self, port: Port) -> bool {
        self.matches.is_empty()
            || self.matches.iter().any(|wanted| wanted.port.is_none_or(|wanted| wanted == port))
    }
}

/// Conditions of a rule for raw TCP; all must hold.
#[derive(Clone, Debug, Default)]
pub struct TcpMatch {
    /// The stage's port.
    pub port: Option<Port>,
    /// Addresses that were dialled; the node's part.
    pub subnets: Vec<IpNet>,
    /// Who asks.
    pub source: SourceMatch,
}
