//! From a cluster to a connection: resolve once, check every address, dial what was checked.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use egress_ebpf::reason::Reason;
use futures_util::future;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Connect, ConnectError, Resolve, ResolveError,
    balance::{ClusterStates, InFlight, Lease, Membership, Random},
};
use crate::{
    policy::{Cluster, Discovery, Endpoint, GatewayPolicy},
    types::{Host, LocalAddr, Port, UpstreamAddr},
};

/// Addresses tried for one connection at most.
const ATTEMPTS: usize = 4;

/// Makes connections to clusters. One a worker; limits and health are shared by all workers.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<dyn Resolve>,
    connector: Rc<dyn Connect>,
    states: Arc<ClusterStates>,
    random: Random,
}

/// A connection to an endpoint of a cluster, in clear: TLS is started on it by [`crate::tls`].
#[derive(Debug)]
pub struct Upstream {
    /// The connection, with `TCP_NODELAY`.
    pub stream: TcpStream,
    /// What was dialled.
    pub addr: UpstreamAddr,
    /// Our end.
    pub local: LocalAddr,
    /// Keep it as long as the connection: it holds the place under `maxConnections`.
    pub lease: Lease,
    /// Its part of the endpoint's load, where it carries one thing from its beginning to its end.
    pub in_flight: Option<InFlight>,
    /// Connects that failed before this one, to other addresses.
    pub failed_attempts: u32,
}

/// The endpoints to try for one request, in order; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan(Vec<Endpoint>);

impl Plan {
    /// Their addresses, the balancer's choice first.
    pub fn addresses(&self) -> impl Iterator<Item = UpstreamAddr> {
        self.0.iter().map(|endpoint| UpstreamAddr(endpoint.addr))
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{host} could not be resolved: {why}")]
    Resolve {
        /// The name.
        host: Host,
        /// What the resolver found.
        why: ResolveError,
    },
    /// It has only ones that must not be dialled.
    #[error("{host} has the address {addr}, which this gateway must not dial")]
    AddressRefused {
        /// The name, or the cluster.
        host: String,
        /// The address.
        addr: IpAddr,
    },
    /// The cluster has no endpoint, or all are ejected.
    #[error("no endpoint of {cluster} is healthy")]
    NoHealthyUpstream {
        /// The cluster's key.
        cluster: String,
    },
    /// `maxConnections` is reached.
    #[error("{cluster} has its limit of {limit} connections")]
    Overflow {
        /// The cluster's key.
        cluster: String,
        /// `maxConnections`.
        limit: u32,
    },
    /// Nothing answered in time.
    #[error("no answer from {addr} within {} ms", after.as_millis())]
    Timeout {
        /// The last address tried.
        addr: UpstreamAddr,
        /// `connectTimeout`.
        after: Duration,
    },
    /// Refused or unreachable.
    #[error("{addr}: {source}")]
    Connect {
        /// The last address tried.
        addr: UpstreamAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DialError {
    /// The reason to log and count.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Resolve { .. } => Reason::ResolveFailed,
            Self::AddressRefused { .. } => Reason::AddressRefused,
            Self::NoHealthyUpstream { .. } => Reason::NoHealthyUpstream,
            Self::Overflow { .. } => Reason::Overflow,
            Self::Timeout { .. } => Reason::Timeout,
            Self::Connect { .. } => Reason::ConnectFailed,
        }
    }

    /// What was dialled last, if anything was.
    #[must_use]
    pub fn upstream(&self) -> Option<UpstreamAddr> {
        match self {
            Self::Timeout { addr, .. } | Self::Connect { addr, .. } => Some(*addr),
            Self::Resolve { .. }
            | Self::AddressRefused { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::Overflow { .. } => None,
        }
    }
}

impl Dialer {
    /// A worker's dialer over what all workers share.
    #[must_use]
    pub fn new(
        resolver: Arc<dyn Resolve>,
        connector: Rc<dyn Connect>,
        states: Arc<ClusterStates>,
    ) -> Self {
        Self { resolver, connector, states, random: Random::default() }
    }

    /// The cluster's endpoints, as of the last dial.
    #[must_use]
    pub fn membership(&self, cluster: &Cluster) -> Membership {
        self.states.membership(&cluster.name)
    }

    /// Connects to an endpoint of `cluster`, for a connection that carries one thing from its
    /// beginning to its end. Resolving and connecting take `connectTimeout` each at most, all
    /// addresses tried together. `host` is the request's host; a [`Discovery::Request`] cluster
    /// resolves it.
    ///
    /// # Errors
    /// [`DialError`]; nothing was sent.
    pub async fn dial(
        &self,
        policy: &GatewayPolicy,
        cluster: &Cluster,
        host: Option<&Host>,
    ) -> Result<Upstream, DialError> {
        let plan = self.plan(policy, cluster, host).await?;
        let mut upstream = self.connect(cluster, &plan).await?;
        upstream.in_flight = upstream.lease.request();
        Ok(upstream)
    }

    /// The endpoints for one request, the balancer's choice first.
    ///
    /// # Errors
    /// [`DialError`]: there is none, or none that may be dialled.
    pub async fn plan(
        &self,
        policy: &GatewayPolicy,
        cluster: &Cluster,
        host: Option<&Host>,
    ) -> Result<Plan, DialError> {
        let mut candidates = self.candidates(cluster, host).await?;
        let refused = candidates.iter().find(|endpoint| !policy.may_dial(endpoint.addr.ip()));
        let refused = refused.map(|endpoint| endpoint.addr.ip());
        candidates.retain(|endpoint| policy.may_dial(endpoint.addr.ip()));
        if let (Some(addr), true) = (refused, candidates.is_empty()) {
            let host = host.map_or_else(|| cluster.name.to_string(), Host::to_string);
            return Err(DialError::AddressRefused { host, addr });
        }
        // Balancing is among the first family; the other one is only a way out.
        let first_is_v6 = candidates.first().is_some_and(|endpoint| endpoint.addr.is_ipv6());
        let (first, other): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|endpoint| endpoint.addr.is_ipv6() == first_is_v6);
        let mut order = self.states.get(&cluster.name).order(&first, cluster, &self.random);
        order.extend(other);
        order.truncate(ATTEMPTS);
        if order.is_empty() {
            return Err(DialError::NoHealthyUpstream { cluster: cluster.name.to_string() });
        }
        Ok(Plan(order))
    }

    /// Connects to the first endpoint of the plan that answers.
    ///
    /// # Errors
    /// [`DialError`]; nothing was sent.
    pub async fn connect(&self, cluster: &Cluster, plan: &Plan) -> Result<Upstream, DialError> {
        let state = self.states.get(&cluster.name);
        let Some(lease) = Lease::take(&state, cluster) else {
            return Err(DialError::Overflow {
                cluster: cluster.name.to_string(),
                limit: cluster.pool.max_connections,
            });
        };
        self.attempt(cluster, &plan.0, lease).await
    }

    /// Tries the addresses in turn; each but the last leaves time for those after it.
    async fn attempt(
        &self,
        cluster: &Cluster,
        order: &[Endpoint],
        mut lease: Lease,
    ) -> Result<Upstream, DialError> {
        let limit = cluster.pool.connect_timeout;
        let deadline = Instant::now() + limit;
        let mut last = DialError::NoHealthyUpstream { cluster: cluster.name.to_string() };
        for (left, endpoint) in (1..=order.len()).rev().zip(order) {
            let addr = UpstreamAddr(endpoint.addr);
            lease.bind(addr);
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
            let result = match timeout_at(now + share, self.connector.connect(addr)).await {
                Ok(Ok(stream)) => stream.local_addr().map(|local| (stream, local)),
                Ok(Err(ConnectError::Io(source))) => Err(source),
                Ok(Err(ConnectError::Own)) => {
                    let (host, addr) = (cluster.name.to_string(), addr.ip());
                    last = DialError::AddressRefused { host, addr };
                    continue;
                }
                Err(_) => {
                    lease.report(false);
                    last = DialError::Timeout { addr, after: limit };
                    continue;
                }
            };
            match result {
                Ok((stream, local)) => {
                    let failed_attempts = u32::try_from(order.len() - left).unwrap_or(u32::MAX);
                    let local = LocalAddr(local);
                    let in_flight = None;
                    return Ok(Upstream { stream, addr, local, lease, in_flight, failed_attempts });
                }
                Err(source) => {
                    lease.report(false);
                    last = DialError::Connect { addr, source };
                }
            }
        }
        Err(last)
    }

    /// Where the cluster's endpoints are now. This is the only resolution for the dial.
    async fn candidates(
        &self,
        cluster: &Cluster,
        host: Option<&Host>,
    ) -> Result<Vec<Endpoint>, DialError> {
        let limit = cluster.pool.connect_timeout;
        match &cluster.discovery {
            Discovery::Static(endpoints) => Ok(endpoints.clone()),
            Discovery::Request(port) => match host {
                Some(host) => self.addresses(host, *port, limit).await,
                None => Ok(Vec::new()),
            },
            Discovery::Dns(names) => {
                if let [(host, port)] = &names[..] {
                    return self.addresses(host, *port, limit).await;
                }
                let lookups = names.iter().map(|(host, port)| self.addresses(host, *port, limit));
                let mut endpoints = Vec::new();
                let mut failed = None;
                for result in future::join_all(lookups).await {
                    match result {
                        Ok(found) => endpoints.extend(found),
                        Err(error) => failed = Some(error),
                    }
                }
                match failed {
                    Some(error) if endpoints.is_empty() => Err(error),
                    _ => Ok(endpoints),
                }
            }
        }
    }

    async fn addresses(
        &self,
        host: &Host,
        port: Port,
        limit: Duration,
    ) -> Result<Vec<Endpoint>, DialError> {
        let endpoint = |ip: &IpAddr| Endpoint { addr: SocketAddr::new(*ip, port.get()), weight: 1 };
        let name = match host {
            Host::Ip(ip) => return Ok(vec![endpoint(ip)]),
            Host::Name(name) => name,
        };
        let lookup = timeout_at(Instant::now() + limit, self.resolver.resolve(name)).await;
        match lookup.unwrap_or(Err(ResolveError::Timeout)) {
            Ok(addresses) => Ok(addresses.iter().map(endpoint).collect()),
            Err(why) => Err(DialError::Resolve { host: host.clone(), why }),
        }
    }
}

#[cfg(test)]
mod tests;
