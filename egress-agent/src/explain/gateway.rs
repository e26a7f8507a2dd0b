//! What a gateway decides about what the node sent it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use egress_ebpf::reason::Reason;

use super::{
    outcome::{Outcome, Verdict},
    question::{ExplainRequest, Scheme, Url},
    steps::Steps,
};
use crate::{
    policy::{
        Accepted, Cluster, Denied, Discovery, EntryPoint, GatewayPolicy, Hop, HttpRequest,
        HttpRoute, InnerProtocol, Snapshot, TcpRoute, Termination, TlsConnection, TlsRoute,
        normalise, traced,
    },
    types::{
        AssertedWorkload, GatewayIdentity, Host, Namespace, OriginalDst, OriginalPort, Port,
        Source, Workload,
    },
};

/// What comes to a gateway.
pub(super) struct GatewayQuery<'a> {
    /// The request.
    pub(super) question: &'a ExplainRequest,
    /// The group of the gateway.
    pub(super) group: usize,
    /// The port there.
    pub(super) port: Port,
    /// How it came.
    pub(super) hop: Hop,
    /// The address that was dialled.
    pub(super) address: IpAddr,
}

/// What the gateway was going to do.
enum GatewayDecision {
    Http(HttpRoute),
    Tcp(TcpRoute),
    /// The same inside TLS that the gateway terminates.
    Terminated(TcpRoute),
}

/// Decides it as a process of the gateway does.
pub(super) fn at_gateway(
    snapshot: &Arc<Snapshot>,
    asked: &GatewayQuery<'_>,
    steps: &mut Steps<'_>,
) -> Outcome {
    let policy = GatewayPolicy::new(Arc::clone(snapshot), &identity(snapshot, asked.group));
    let (decided, noted) = traced(|| decide(&policy, asked));
    match decided {
        Ok(decided) => {
            let cluster = match &decided {
                GatewayDecision::Http(route) => &route.cluster,
                GatewayDecision::Tcp(route) | GatewayDecision::Terminated(route) => &route.cluster,
            };
            steps.noted(noted, Ok(cluster));
            carried_out(&policy, asked, &decided, steps)
        }
        Err(Denied { reason, detail, matched: _ }) => {
            steps.noted(noted, Err(reason));
            // One whose identity is refused has no policies.
            let source = source(&policy, &asked.question.workload, asked.hop).ok();
            steps.hint(reason, asked.question, source.as_ref());
            Outcome::new(Verdict::Refused, reason, detail)
        }
    }
}

/// A process of the group.
fn identity(snapshot: &Snapshot, group: usize) -> GatewayIdentity {
    let found = snapshot.mesh.gateways.get(group);
    let name = found.map(|group| group.service.to_string()).unwrap_or_default();
    let namespace = name.split('.').nth(1).unwrap_or_default();
    let endpoints = found.map(|group| group.endpoints.clone()).unwrap_or_default();
    GatewayIdentity {
        labels: found.map(|group| group.labels.clone()).unwrap_or_default(),
        namespace: Namespace(namespace.into()),
        addresses: endpoints,
    }
}

fn decide(policy: &GatewayPolicy, asked: &GatewayQuery<'_>) -> Result<GatewayDecision, Denied> {
    let GatewayQuery { question, port, hop, address, .. } = asked;
    let source = &source(policy, &question.workload, *hop)?;
    let port = OriginalPort(*port);
    let dialled = OriginalDst(SocketAddr::new(*address, question.url.port.0.get()));
    match policy.accept(source, *hop, port, dialled)? {
        Accepted::Tcp(route) => Ok(GatewayDecision::Tcp(route)),
        Accepted::Detect => match question.url.scheme {
            Scheme::Http => http(policy, asked, source).map(GatewayDecision::Http),
            Scheme::Https | Scheme::Tls => tls(policy, asked, source, port),
            Scheme::Tcp => Err(Denied {
                reason: Reason::WrongProtocol,
                detail: format!("neither HTTP nor TLS was spoken on port {port}"),
                matched: None,
            }),
        },
    }
}

/// Who the gateway takes the workload for.
fn source(policy: &GatewayPolicy, workload: &Workload, hop: Hop) -> Result<Source, Denied> {
    let mesh = &policy.snapshot().mesh;
    let own = workload.addresses.first().copied();
    let unknown = IpAddr::from([0, 0, 0, 0]);
    match hop {
        Hop::Plain => Ok(policy.source(own.unwrap_or(unknown))),
        Hop::Tunnel => {
            let node = mesh.nodes.iter().find(|node| Some(&node.name) == workload.node.as_ref());
            let peer = node.and_then(|node| node.addresses.first().copied());
            // A node that is not known proves nothing that counts.
            let client = node.map_or_else(
                || workload.principal(&mesh.trust_domain),
                |node| node.principal.clone(),
            );
            policy.claimed(
                &client,
                peer.unwrap_or(unknown),
                Some(&AssertedWorkload::of(workload)),
                own,
            )
        }
    }
}

fn http(
    policy: &GatewayPolicy,
    asked: &GatewayQuery<'_>,
    source: &Source,
) -> Result<HttpRoute, Denied> {
    let entry = match asked.hop {
        Hop::Plain => EntryPoint::Mesh,
        Hop::Tunnel => EntryPoint::Tunnel,
    };
    request(policy, asked, source, entry, None)
}

fn request(
    policy: &GatewayPolicy,
    asked: &GatewayQuery<'_>,
    source: &Source,
    entry: EntryPoint<'_>,
    server_name: Option<&Host>,
) -> Result<HttpRoute, Denied> {
    let ExplainRequest { url, method, headers, .. } = asked.question;
    let Url { host, authority, path, .. } = url;
    let normal = normalise(path, policy.snapshot().mesh.path_normalization);
    policy.http(&HttpRequest {
        source,
        entry,
        port: OriginalPort(asked.port),
        host,
        authority,
        scheme: if server_name.is_some() { "https" } else { "http" },
        method,
        path_and_query: normal.as_deref().unwrap_or(path),
        headers,
        server_name,
        remote: Some(source.addr),
    })
}

fn tls(
    policy: &GatewayPolicy,
    asked: &GatewayQuery<'_>,
    source: &Source,
    port: OriginalPort,
) -> Result<GatewayDecision, Denied> {
    let Host::Name(_) = &asked.question.url.host else {
        return Err(Denied {
            reason: Reason::NoServerName,
            detail: "TLS without a server name".into(),
            matched: None,
        });
    };
    let server_name = &asked.question.url.host;
    let connection = TlsConnection { source, port, server_name, hop: asked.hop, encrypted: false };
    match policy.tls(&connection)? {
        TlsRoute::Forward(route) => Ok(GatewayDecision::Tcp(route)),
        TlsRoute::Terminate(termination) => inside(policy, asked, source, &termination),
    }
}

/// What is inside TLS that the gateway terminates.
fn inside(
    policy: &GatewayPolicy,
    asked: &GatewayQuery<'_>,
    source: &Source,
    termination: &Termination,
) -> Result<GatewayDecision, Denied> {
    let name = &asked.question.url.host;
    match termination.tls.inside {
        InnerProtocol::Http => {
            let entry = EntryPoint::Server(termination);
            request(policy, asked, source, entry, Some(name)).map(GatewayDecision::Http)
        }
        InnerProtocol::Tcp => {
            policy.tcp_inside(termination, name, source).map(GatewayDecision::Terminated)
        }
    }
}

/// What carrying it out leads to, as far as that is known without doing it.
fn carried_out(
    policy: &GatewayPolicy,
    asked: &GatewayQuery<'_>,
    decided: &GatewayDecision,
    steps: &mut Steps<'_>,
) -> Outcome {
    let (cluster, host, audit, sent) = match decided {
        GatewayDecision::Http(route) => {
            if let Some((status, location)) = &route.action.redirect {
                let detail = format!("the gateway answers {status} with the location {location}");
                return Outcome::new(Verdict::Answered, Reason::Gateway, detail);
            }
            if let Some((status, _)) = &route.action.respond {
                let detail = format!("the gateway answers {status} by itself");
                return Outcome::new(Verdict::Answered, Reason::RouteRefused, detail);
            }
            (&route.cluster, Some(&route.host), &route.audit, Scheme::Http)
        }
        GatewayDecision::Tcp(route) => {
            let spoken = asked.question.url.scheme;
            (&route.cluster, route.host.as_ref(), &route.audit, spoken)
        }
        GatewayDecision::Terminated(route) => {
            (&route.cluster, route.host.as_ref(), &route.audit, Scheme::Tcp)
        }
    };
    steps.cluster(cluster, host);
    steps.tls(cluster, host, sent);
    let addresses = addresses(cluster, host, asked.question.address);
    steps.addresses(&addresses, |addr| policy.may_dial(addr));
    if let Some(first) =
        addresses.first().filter(|_| !addresses.iter().any(|a| policy.may_dial(*a)))
    {
        let name = host.map_or_else(|| cluster.name.to_string(), Host::to_string);
        let detail = format!("{name} is at {first}, which the gateway must not dial");
        return Outcome::new(Verdict::Refused, Reason::AddressRefused, detail);
    }
    let mut detail = format!("the gateway sends it to {}", cluster.name);
    if let Some(policy) = audit {
        // An authorization policy is named without its kind, as in the access log.
        let what = match policy.contains("EgressPolicy ") {
            true => format!("; {policy} is in mode Audit and lets it pass"),
            false => format!("; AuthorizationPolicy {policy} marks it for audit"),
        };
        detail.push_str(&what);
    }
    Outcome::new(Verdict::Allowed, Reason::Gateway, detail)
}

/// The addresses of a cluster that are known without DNS; those of a name are `given`, or none.
fn addresses(cluster: &Cluster, host: Option<&Host>, given: Option<IpAddr>) -> Vec<IpAddr> {
    let of = |host: &Host| match host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(_) => given,
    };
    match &cluster.discovery {
        Discovery::Static(endpoints) => endpoints.iter().map(|end| end.addr.ip()).collect(),
        Discovery::Dns(names) => names.iter().filter_map(|(name, _)| of(name)).collect(),
        Discovery::Request(_) => host.and_then(of).into_iter().collect(),
    }
}
