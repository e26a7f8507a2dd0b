//! Which endpoint comes next: load balancing, limits and outlier detection, shared by all workers.

mod endpoints;
mod fair;
mod hashed;
mod locality;
mod places;
mod random;
mod warmup;
mod wishes;

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::{sync::watch, time::Instant};

use self::{
    endpoints::{EndpointState, Endpoints, Exchange},
    fair::{FairLimit, FairPermit},
    hashed::Hashed,
    locality::LocalityBalancer,
    warmup::EndpointAges,
    wishes::IdleConnections,
};
use crate::{
    policy::{
        Cluster, ClusterName, ConsistentHash, Discovery, Endpoint, HandleKind, HandleOwner,
        LoadBalancer, Origin, OutlierDetection,
    },
    types::{ShareOwner, UpstreamAddr},
};

pub use self::places::WaitPolicy;
pub(super) use self::random::Random;

/// Load and health of all clusters. They outlive a change of configuration as long as the
/// cluster's name stays.
#[derive(Debug, Default)]
pub struct ClusterStates {
    keeper: HandleOwner,
    /// The clusters of the configuration, replaced as a whole.
    configured: ArcSwap<ByName>,
    /// Clusters that no configuration names (any more): `PassthroughCluster`, and those of requests that
    /// were decided by an earlier configuration.
    others: ArcSwap<ByName>,
    /// Changes when somebody wishes for a place.
    wishes: watch::Sender<()>,
}

type ByName = HashMap<ClusterName, Arc<ClusterState>>;

#[derive(Debug, Default)]
pub(super) struct ClusterState {
    /// `maxConnections`.
    connections: Arc<FairLimit>,
    /// `http2MaxRequests`.
    requests: Arc<FairLimit>,
    places: IdleConnections,
    turn: AtomicUsize,
    total: AtomicUsize,
    /// Whether the cluster has had outlier detection since ejections were last cleared.
    may_eject: AtomicBool,
    endpoints: Endpoints,
    /// The last tables of consistent hashing: for the endpoints that are healthy, and for each namespace's rule.
    hashed: ArcSwap<Vec<Arc<Hashed>>>,
    newcomers: EndpointAges,
    near: LocalityBalancer,
}

/// A request's part of its endpoint's load; given back on drop.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointState>);

impl InFlight {
    fn new(endpoint: &Arc<EndpointState>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many endpoints a cluster has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// All that were last known.
    pub total: usize,
    /// Those of them that are ejected now.
    pub ejected: usize,
}

impl ClusterStates {
    /// Takes the clusters of a configuration that is about to be in force. Those of the last one that
    /// still have connections stay.
    pub fn configure<'a>(&self, names: impl IntoIterator<Item = &'a ClusterName>) {
        let (before, others) = (self.configured.load(), self.others.load());
        let known = |name| before.get(name).or_else(|| others.get(name));
        let mut now: ByName = names
            .into_iter()
            .map(|name| (name.clone(), known(name).map(Arc::clone).unwrap_or_default()))
            .collect();
        let used = before.iter().filter(|(_, state)| state.has_connections());
        for (name, state) in used {
            now.entry(name.clone()).or_insert_with(|| Arc::clone(state));
        }
        self.configured.store(Arc::new(now));
        self.others.rcu(|others| {
            let used = others.iter().filter(|(_, state)| state.has_connections());
            used.map(|(name, state)| (name.clone(), Arc::clone(state))).collect::<ByName>()
        });
    }

    /// The state of a configuration's cluster, looked up once.
    pub(super) fn of(&self, cluster: &Cluster) -> Arc<ClusterState> {
        cluster.kept.get(HandleKind::State, self.keeper, || self.get(&cluster.name))
    }

    pub(super) fn get(&self, name: &ClusterName) -> Arc<ClusterState> {
        if let Some(known) = self.known(name) {
            return known;
        }
        let new = Arc::<ClusterState>::default();
        self.others.rcu(|others| {
            let mut others = ByName::clone(others);
            others.entry(name.clone()).or_insert_with(|| Arc::clone(&new));
            others
        });
        self.known(name).unwrap_or(new)
    }

    fn known(&self, name: &ClusterName) -> Option<Arc<ClusterState>> {
        let configured = self.configured.load().get(name).map(Arc::clone);
        configured.or_else(|| self.others.load().get(name).map(Arc::clone))
    }

    /// The endpoints of a cluster, as of the last dial; zero before the first.
    #[must_use]
    pub fn membership(&self, name: &ClusterName) -> Membership {
        self.known(name).map_or_else(Membership::default, |state| state.membership())
    }
}

/// A connection's place in its cluster's limits and among its endpoint's connections; given back on
/// drop.
#[derive(Debug)]
pub struct Lease {
    cluster: Arc<ClusterState>,
    /// `None` once it is given back.
    place: Option<FairPermit>,
    endpoint: Option<Arc<EndpointState>>,
    outlier: Option<OutlierDetection>,
    /// Whether it carries nothing and waits for work.
    idle: Cell<bool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.count_idle(false);
        // Before the look at who waits: see `IdleConnections`.
        self.place = None;
        self.cluster.places.freed();
        if let Some(endpoint) = &self.endpoint {
            endpoint.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Lease {
    /// Counts a request on the connection for its endpoint's load.
    #[must_use]
    pub fn request(&self) -> Option<InFlight> {
        self.endpoint.as_ref().map(InFlight::new)
    }

    fn new(state: &Arc<ClusterState>, cluster: &Cluster, place: FairPermit) -> Self {
        let (endpoint, idle) = (None, Cell::new(false));
        let outlier = cluster.outlier;
        Self { cluster: Arc::clone(state), place: Some(place), endpoint, outlier, idle }
    }

    /// The connection carries something of this source, or nothing: then it is part of no share, and may be closed
    /// for its place.
    pub fn set_owner(&self, owner: Option<&ShareOwner>) {
        if let Some(place) = &self.place {
            place.set_owner(owner);
        }
        self.count_idle(owner.is_none());
    }

    fn count_idle(&self, idle: bool) {
        if self.idle.replace(idle) != idle {
            self.cluster.places.set_idle(idle);
        }
    }

    /// Counts it for this endpoint from here on.
    pub(super) fn bind(&mut self, addr: UpstreamAddr) {
        let endpoint = self.cluster.endpoints.get(addr);
        endpoint.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.endpoint.replace(endpoint) {
            before.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Reports to outlier detection how an exchange with the endpoint ended: `false` for a reset, a failed connect
    /// or failed TLS.
    pub fn report(&self, good: bool) {
        if let Some(endpoint) = &self.endpoint {
            self.judge(endpoint, if good { Exchange::Good } else { Exchange::Failed });
        }
    }

    /// Reports that the endpoint answered with this status.
    pub fn report_answer(&self, status: StatusCode) {
        let how = match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Exchange::GatewayError,
            status if status.is_server_error() => Exchange::ServerError,
            _ => Exchange::Good,
        };
        if let Some(endpoint) = &self.endpoint {
            self.judge(endpoint, how);
        }
    }

    /// The same about an endpoint that the connection was not made to in the end.
    pub(super) fn report_failed(&self, addr: UpstreamAddr) {
        self.judge(&self.cluster.endpoints.get(addr), Exchange::Failed);
    }

    fn judge(&self, endpoint: &EndpointState, how: Exchange) {
        let Some(outlier) = self.outlier else { return };
        let total = self.cluster.total.load(Ordering::Relaxed);
        self.cluster.endpoints.judge(endpoint, how, outlier, total);
    }
}

impl ClusterState {
    pub(super) fn membership(&self) -> Membership {
        let total = self.total.load(Ordering::Relaxed);
        Membership { total, ejected: self.endpoints.ejected() }
    }

    fn has_connections(&self) -> bool {
        self.connections.taken() > 0
    }

    /// Puts candidates into the order in which to try them for one request: the balancer's choice, then
    /// the other healthy ones; where localities are preferred, those of the one that the request goes to. None is left
    /// if none is healthy.
    pub(super) fn order(
        &self,
        healthy: &mut Vec<Endpoint>,
        cluster: &Cluster,
        hash: Option<u64>,
        random: &Random,
        origin: &Arc<Origin>,
    ) {
        set(&self.total, healthy.len());
        match cluster.outlier {
            Some(_) => {
                if !self.may_eject.load(Ordering::Relaxed) {
                    self.may_eject.store(true, Ordering::Relaxed);
                }
            }
            None => {
                if self.may_eject.load(Ordering::Relaxed)
                    && self.may_eject.swap(false, Ordering::Relaxed)
                {
                    self.endpoints.restore();
                }
            }
        }
        let mut balancer = cluster.load_balancer;
        // The endpoints of a wildcard are those of many hosts.
        if let Some(warmup) = cluster.warmup
            && cluster.hash.is_none()
            && matches!(balancer, LoadBalancer::RoundRobin | LoadBalancer::LeastRequest)
            && !matches!(cluster.discovery, Discovery::Request(_))
            && self.newcomers.weigh(healthy, warmup, Instant::now())
            && balancer == LoadBalancer::RoundRobin
        {
            // Turns follow weights only as long as these stay.
            balancer = LoadBalancer::Random;
        }
        let rule = cluster.locality.as_ref();
        let groups = rule.and_then(|rule| self.near.groups(rule, origin, healthy));
        self.endpoints.retain_healthy(healthy, |endpoint| UpstreamAddr(endpoint.addr));
        let mut turns = &self.turn;
        if let Some(groups) = groups {
            let hash = hash.filter(|_| cluster.hash.is_some());
            turns = self.near.narrow(groups, healthy, hash).unwrap_or(turns);
        }
        if healthy.len() <= 1 {
            return;
        }
        let total: u64 = healthy.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        if total == 0 {
            return;
        }
        if let Some(wanted) = &cluster.hash {
            let hash = hash.unwrap_or_else(|| random.draw());
            let chosen = match cluster.discovery {
                // A table each would be made anew for every host that is asked for.
                Discovery::Request(_) => hashed::rendezvous(healthy, hash),
                Discovery::Dns(_) | Discovery::Static(_) => self.hashed(healthy, wanted, hash),
            };
            healthy.swap(0, chosen);
            return;
        }
        let chosen = match balancer {
            LoadBalancer::RoundRobin => {
                let turn = turns.fetch_add(1, Ordering::Relaxed);
                by_weight(healthy, u64::try_from(turn).unwrap_or(0) % total)
            }
            LoadBalancer::Random => by_weight(healthy, random.below(total)),
            LoadBalancer::First => 0,
            LoadBalancer::LeastRequest => {
                let first = by_weight(healthy, random.below(total));
                let second = by_weight(healthy, random.below(total));
                let load = |at: usize| self.endpoints.load(UpstreamAddr(healthy[at].addr));
                if first != second && load(second) < load(first) { second } else { first }
            }
        };
        healthy.swap(0, chosen);
    }
}

/// Tables that a cluster keeps. Namespaces may have rules of their own, and endpoints come and go.
const TABLES: usize = 4;

impl ClusterState {
    /// The index of the endpoint for a hash.
    fn hashed(&self, healthy: &[Endpoint], wanted: &ConsistentHash, hash: u64) -> usize {
        let mut sorted = healthy.to_vec();
        sorted.sort_unstable_by_key(|endpoint| endpoint.addr);
        let known = self.hashed.load();
        let chosen = match known.iter().find(|table| table.is_for(&sorted, wanted.table)) {
            Some(table) => table.choose(hash),
            None => {
                let table = Arc::new(Hashed::new(&sorted, wanted.table));
                let chosen = table.choose(hash);
                let others = known.iter().take(TABLES - 1).cloned();
                self.hashed.store(Arc::new(std::iter::once(table).chain(others).collect()));
                chosen
            }
        };
        let at = healthy.iter().position(|endpoint| Some(UpstreamAddr(endpoint.addr)) == chosen);
        at.unwrap_or(0)
    }
}

/// Stores a number that is mostly there already, without taking its cache line from all others.
fn set(number: &AtomicUsize, value: usize) {
    if number.load(Ordering::Relaxed) != value {
        number.store(value, Ordering::Relaxed);
    }
}

/// The index of the endpoint at `point` when each takes as much of the line as it weighs.
fn by_weight(endpoints: &[Endpoint], point: u64) -> usize {
    let mut end = 0;
    let at = endpoints.iter().position(|endpoint| {
        end += u64::from(endpoint.weight);
        point < end
    });
    at.unwrap_or(0)
}

#[cfg(test)]
mod tests;
