//! From a cluster to a connection: resolve once, check every address, dial what was checked.

mod error;
mod order;
mod plan;

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::{self, Either},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};

pub use self::{error::DialError, plan::Plan};
use self::{order::stagger, plan::Lists};
use super::{
    Connect, ConnectError, DnsQuestion, Resolve, ResolveError,
    balance::{ClusterStates, InFlight, Lease, Membership, Random, WaitPolicy},
};
use crate::{
    policy::{Cluster, Discovery, EgressAddresses, Endpoint, GatewayPolicy, Keepalive},
    sys::socket::keep_alive,
    types::{Host, LocalAddr, Port, ShareOwner, UpstreamAddr},
};

/// Makes connections to clusters. One a worker; limits and health are shared by all workers.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<dyn Resolve>,
    connector: Rc<dyn Connect>,
    states: Arc<ClusterStates>,
    random: Random,
    /// Those of earlier plans.
    lists: Lists,
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

/// Who asks for a connection, and what it is balanced by.
#[derive(Clone, Copy, Debug)]
pub struct DialContext<'a> {
    /// It is its share of the look-ups that is used.
    pub owner: &'a ShareOwner,
    /// What consistent hashing has hashed.
    pub hash: Option<u64>,
    /// Where it is dialled from.
    pub from: Option<&'a EgressAddresses>,
}

impl<'a> From<&'a ShareOwner> for DialContext<'a> {
    fn from(owner: &'a ShareOwner) -> Self {
        Self { owner, hash: None, from: None }
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
        let (random, lists) = (Random::default(), Lists::default());
        Self { resolver, connector, states, random, lists }
    }

    /// Load and health of all clusters.
    #[must_use]
    pub fn states(&self) -> Arc<ClusterStates> {
        Arc::clone(&self.states)
    }

    /// The cluster's endpoints, as of the last dial.
    #[must_use]
    pub fn membership(&self, cluster: &Cluster) -> Membership {
        self.states.of(cluster).membership()
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
        asker: impl Into<DialContext<'_>>,
    ) -> Result<Upstream, DialError> {
        let asker = asker.into();
        let plan = self.plan(policy, cluster, host, asker).await?;
        let patience = WaitPolicy::Share(Instant::now() + cluster.pool.connect_timeout);
        let connected = self.connect(cluster, &plan, asker.owner, patience).await;
        self.done(plan);
        let mut upstream = connected?;
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
        asker: impl Into<DialContext<'_>>,
    ) -> Result<Plan, DialError> {
        let DialContext { owner, hash, from } = asker.into();
        let mut candidates = self.lists.take();
        self.candidates(cluster, host, owner, &mut candidates).await?;
        let refused = candidates.iter().find(|endpoint| !policy.may_dial(endpoint.addr.ip()));
        let refused = refused.map(|endpoint| endpoint.addr.ip());
        candidates.retain(|endpoint| policy.may_dial(endpoint.addr.ip()));
        if let (Some(addr), true) = (refused, candidates.is_empty()) {
            let host = host.map_or_else(|| cluster.name.to_string(), Host::to_string);
            return Err(DialError::AddressRefused { host, addr });
        }
        if let Some(from) = from {
            candidates.retain(|endpoint| from.has(endpoint.addr.is_ipv6()));
            if candidates.is_empty() {
                let what = format!("{} has no address of the family of the endpoints", from.name);
                return Err(DialError::From { what, cluster: cluster.name.to_string() });
            }
        }
        // Balancing is among the first family; the other one is used when it fails.
        let first_is_v6 = candidates.first().is_some_and(|endpoint| endpoint.addr.is_ipv6());
        let is_first = |endpoint: &Endpoint| endpoint.addr.is_ipv6() == first_is_v6;
        let mut other = Vec::new();
        if !candidates.iter().all(is_first) {
            other = self.lists.take();
            other.extend(candidates.iter().filter(|endpoint| !is_first(endpoint)).cloned());
            candidates.retain(is_first);
        }
        let mut order = candidates;
        let states = self.states.of(cluster);
        states.order(&mut order, cluster, hash, &self.random, policy.origin());
        order::interleave(&mut order, &mut other);
        self.lists.keep(other);
        if order.is_empty() {
            return Err(DialError::NoHealthyUpstream { cluster: cluster.name.to_string() });
        }
        let from = from.map(|from| [false, true].map(|is_ipv6| from.choose(owner, is_ipv6)));
        Ok(Plan { order, from })
    }

    /// The plan is not needed any more: the next one takes its memory.
    pub fn done(&self, plan: Plan) {
        self.lists.keep(plan.order);
    }

    /// Connects to the first endpoint of the plan that answers. The connection is part of the share of `owner`.
    ///
    /// # Errors
    /// [`DialError`]; nothing was sent.
    pub async fn connect(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        owner: &ShareOwner,
        patience: WaitPolicy,
    ) -> Result<Upstream, DialError> {
        let state = self.states.of(cluster);
        let lease = self.states.place(&state, cluster, owner, patience).await;
        let Some(lease) = lease else {
            return Err(DialError::Overflow {
                cluster: cluster.name.to_string(),
                limit: cluster.pool.max_connections,
            });
        };
        self.attempt(cluster, plan, lease).await
    }

    /// Tries the addresses in their order, as RFC 8305 §5 has it: the next one as soon as one failed, or
    /// has not answered for a while. The first connection counts, all within `connectTimeout`.
    async fn attempt(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        mut lease: Lease,
    ) -> Result<Upstream, DialError> {
        let order = &plan.order;
        let limit = cluster.pool.connect_timeout;
        let deadline = Instant::now() + limit;
        let stagger = stagger(limit, order.len());
        let mut last = DialError::NoHealthyUpstream { cluster: cluster.name.to_string() };
        let mut left = order.iter().map(|endpoint| UpstreamAddr(endpoint.addr));
        let mut racing = FuturesUnordered::new();
        let mut under_way: Vec<UpstreamAddr> = Vec::new();
        let mut failed_attempts = 0;
        let mut next = left.next();
        let mut due = Instant::now();
        loop {
            if let Some(addr) = next.filter(|_| racing.is_empty() || due <= Instant::now()) {
                lease.bind(addr);
                let connector = &self.connector;
                let from = plan.from(addr);
                racing.push(async move { (addr, connector.connect(addr, from).await) });
                under_way.push(addr);
                next = left.next();
                due = Instant::now() + stagger;
            }
            let (addr, connected) = tokio::select! {
                biased;
                Some(ended) = racing.next() => ended,
                () = sleep_until(deadline), if !under_way.is_empty() => {
                    for silent in &under_way {
                        lease.report_failed(*silent);
                    }
                    return Err(match under_way.last() {
                        Some(addr) => DialError::Timeout { addr: *addr, after: limit },
                        None => last,
                    });
                }
                () = sleep_until(due), if next.is_some() => continue,
                else => return Err(last),
            };
            let before = under_way.iter().position(|its| *its == addr).unwrap_or(0);
            under_way.retain(|its| *its != addr);
            let result = match connected {
                Ok(stream) => stream.local_addr().map(|local| (stream, local)),
                Err(ConnectError::Io(source)) => Err(source),
                Err(error @ ConnectError::From(_)) => {
                    let (what, cluster) = (error.to_string(), cluster.name.to_string());
                    last = DialError::From { what, cluster };
                    due = Instant::now();
                    continue;
                }
                Err(ConnectError::Own) => {
                    let (host, addr) = (cluster.name.to_string(), addr.ip());
                    last = DialError::AddressRefused { host, addr };
                    due = Instant::now();
                    continue;
                }
            };
            match result {
                Ok((stream, local)) => {
                    let Keepalive { time, interval, probes } =
                        cluster.pool.keepalive.unwrap_or_default();
                    if let Err(error) = keep_alive(&stream, time, interval, probes) {
                        tracing::debug!(%error, "no keep-alive probes on a connection to {addr}");
                    }
                    // Those that began before it and have not answered.
                    for slower in under_way.iter().take(before) {
                        lease.report_failed(*slower);
                    }
                    lease.bind(addr);
                    let local = LocalAddr(local);
                    let in_flight = None;
                    return Ok(Upstream { stream, addr, local, lease, in_flight, failed_attempts });
                }
                Err(source) => {
                    lease.report_failed(addr);
                    failed_attempts += 1;
                    last = DialError::Connect { addr, source };
                    due = Instant::now();
                }
            }
        }
    }

    /// Adds where the cluster's endpoints are now. This is the only resolution for the dial.
    async fn candidates(
        &self,
        cluster: &Cluster,
        host: Option<&Host>,
        owner: &ShareOwner,
        endpoints: &mut Vec<Endpoint>,
    ) -> Result<(), DialError> {
        let limit = cluster.pool.connect_timeout;
        match &cluster.discovery {
            Discovery::Static(known) => endpoints.extend_from_slice(known),
            Discovery::Request(port) => {
                if let Some(host) = host {
                    self.addresses(host, *port, owner, limit, endpoints).await?;
                }
            }
            Discovery::Dns(names) => {
                if let [(host, port)] = &names[..] {
                    return self.addresses(host, *port, owner, limit, endpoints).await;
                }
                let lookups = (0..).zip(names).map(|(place, (host, port))| async move {
                    let mut found = Vec::new();
                    let looked_up = self.addresses(host, *port, owner, limit, &mut found).await;
                    found.iter_mut().for_each(|endpoint| endpoint.place = place);
                    looked_up.map(|()| found)
                });
                let mut failed = None;
                for result in future::join_all(lookups).await {
                    match result {
                        Ok(found) => endpoints.extend(found),
                        Err(error) => failed = Some(error),
                    }
                }
                if let Some(error) = failed.filter(|_| endpoints.is_empty()) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn addresses(
        &self,
        host: &Host,
        port: Port,
        owner: &ShareOwner,
        limit: Duration,
        endpoints: &mut Vec<Endpoint>,
    ) -> Result<(), DialError> {
        let endpoint = |ip: &IpAddr| {
            let addr = SocketAddr::new(*ip, port.get());
            Endpoint { addr, weight: 1, place: 0 }
        };
        let name = match host {
            Host::Ip(ip) => {
                endpoints.push(endpoint(ip));
                return Ok(());
            }
            Host::Name(name) => name,
        };
        let found = match self.resolver.resolve(DnsQuestion { owner, name, within: limit }) {
            // Nearly always: no timer is needed.
            Either::Left(known) => known.await,
            Either::Right(asked) => match timeout_at(Instant::now() + limit, asked).await {
                Ok(found) => found,
                Err(_) => Err(ResolveError::Timeout),
            },
        };
        match found {
            Ok(addresses) => {
                endpoints.extend(addresses.iter().map(endpoint));
                Ok(())
            }
            Err(why) => Err(DialError::Resolve { host: host.clone(), why }),
        }
    }
}

#[cfg(test)]
mod tests;
