//! Which endpoint comes next: load balancing, limits and outlier detection, shared by all workers.

mod places;

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use self::places::Places;
use crate::{
    policy::{Cluster, ClusterName, Endpoint, LoadBalancer, OutlierDetection},
    types::UpstreamAddr,
};

/// Endpoints remembered per cluster before those without load or ejection are forgotten.
const ENDPOINTS: usize = 4096;
/// An ejection never lasts longer (Envoy's `max_ejection_time`).
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// Load and health of all clusters. They outlive a change of configuration as long as the
/// cluster's name stays.
#[derive(Debug, Default)]
pub struct ClusterStates {
    by_name: Mutex<HashMap<ClusterName, Arc<ClusterState>>>,
    /// Changes when somebody wishes for a place.
    wishes: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct ClusterState {
    connections: AtomicU32,
    places: Places,
    turn: AtomicUsize,
    total: AtomicUsize,
    /// Whether the cluster has had outlier detection since ejections were last cleared.
    may_eject: AtomicBool,
    endpoints: Mutex<HashMap<UpstreamAddr, Arc<EndpointState>>>,
}

#[derive(Debug, Default)]
struct EndpointState {
    /// Connections that stand.
    connections: AtomicU32,
    /// Requests under way, and connections that carry something other than HTTP.
    active: AtomicU32,
    health: Mutex<Health>,
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

#[derive(Debug, Default)]
struct Health {
    errors: u32,
    ejections: u32,
    ejected_until: Option<Instant>,
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
    pub(super) fn get(&self, name: &ClusterName) -> Arc<ClusterState> {
        let mut states = lock(&self.by_name);
        match states.get(name) {
            Some(state) => Arc::clone(state),
            None => Arc::clone(states.entry(name.clone()).or_default()),
        }
    }

    /// The endpoints of a cluster, as of the last dial; zero before the first.
    #[must_use]
    pub fn membership(&self, name: &ClusterName) -> Membership {
        let state = lock(&self.by_name).get(name).map(Arc::clone);
        state.map_or_else(Membership::default, |state| Membership {
            total: state.total.load(Ordering::Relaxed),
            ejected: state.ejected(),
        })
    }
}

/// A connection's place in its cluster's limits and among its endpoint's connections; given back on
/// drop.
#[derive(Debug)]
pub struct Lease {
    cluster: Arc<ClusterState>,
    endpoint: Option<Arc<EndpointState>>,
    outlier: Option<OutlierDetection>,
    /// Whether it carries nothing and waits for work.
    idle: Cell<bool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set_idle(false);
        self.cluster.connections.fetch_sub(1, Ordering::Relaxed);
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

    /// A place in the cluster, unless `maxConnections` are taken.
    pub(super) fn take(state: &Arc<ClusterState>, cluster: &Cluster) -> Option<Self> {
        let max = cluster.pool.max_connections;
        let more = |count: u32| (count < max).then(|| count + 1);
        state.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let idle = Cell::new(false);
        Some(Self { cluster: Arc::clone(state), endpoint: None, outlier: cluster.outlier, idle })
    }

    /// The connection waits for work, or has some: one that waits may be closed for its place.
    pub fn set_idle(&self, idle: bool) {
        if self.idle.replace(idle) != idle {
            self.cluster.places.set_idle(idle);
        }
    }

    /// Counts it for this endpoint from here on.
    pub(super) fn bind(&mut self, addr: UpstreamAddr) {
        let endpoint = self.cluster.endpoint(addr);
        endpoint.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.endpoint.replace(endpoint) {
            before.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Tells outlier detection how an exchange with the endpoint ended: `false` for a `5xx`, a
    /// reset, a failed connect or failed TLS.
    pub fn report(&self, good: bool) {
        if let Some(endpoint) = &self.endpoint {
            self.judge(endpoint, good);
        }
    }

    /// The same about an endpoint that the connection was not made to in the end.
    pub(super) fn report_failed(&self, addr: UpstreamAddr) {
        self.judge(&self.cluster.endpoint(addr), false);
    }

    fn judge(&self, endpoint: &EndpointState, good: bool) {
        let Some(outlier) = self.outlier else { return };
        let mut health = lock(&endpoint.health);
        if good {
            health.errors = 0;
            return;
        }
        health.errors = health.errors.saturating_add(1);
        let now = Instant::now();
        if health.errors < outlier.consecutive_errors || health.is_ejected(now) {
            return;
        }
        drop(health);
        // At least one may always go, as in Envoy; more only up to the percentage.
        let (ejected, total) = (self.cluster.ejected(), self.cluster.total.load(Ordering::Relaxed));
        if ejected > 0 && (ejected + 1) * 100 > total * usize::from(outlier.max_ejection_percent) {
            return;
        }
        let mut health = lock(&endpoint.health);
        health.errors = 0;
        health.ejections = health.ejections.saturating_add(1);
        let time = outlier.base_ejection_time.saturating_mul(health.ejections);
        let longest = LONGEST_EJECTION.max(outlier.base_ejection_time);
        health.ejected_until = Some(now + time.min(longest));
    }
}

impl Health {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| until > now)
    }
}

impl ClusterState {
    fn endpoint(&self, addr: UpstreamAddr) -> Arc<EndpointState> {
        let mut endpoints = lock(&self.endpoints);
        if endpoints.len() >= ENDPOINTS {
            let now = Instant::now();
            endpoints.retain(|_, endpoint| {
                endpoint.connections.load(Ordering::Relaxed) > 0
                    || endpoint.active.load(Ordering::Relaxed) > 0
                    || lock(&endpoint.health).is_ejected(now)
            });
        }
        Arc::clone(endpoints.entry(addr).or_default())
    }

    fn ejected(&self) -> usize {
        let now = Instant::now();
        let endpoints = lock(&self.endpoints);
        endpoints.values().filter(|endpoint| lock(&endpoint.health).is_ejected(now)).count()
    }

    /// Ends all ejections: the rule that they came from is gone.
    fn restore(&self) {
        for endpoint in lock(&self.endpoints).values() {
            *lock(&endpoint.health) = Health::default();
        }
    }

    /// The order in which to try `candidates` for one request: the balancer's choice, then the
    /// other healthy ones. Empty if none is healthy.
    pub(super) fn order(
        &self,
        candidates: &[Endpoint],
        cluster: &Cluster,
        random: &Random,
    ) -> Vec<Endpoint> {
        self.total.store(candidates.len(), Ordering::Relaxed);
        if cluster.outlier.is_none() && self.may_eject.swap(false, Ordering::Relaxed) {
            self.restore();
        }
        if cluster.outlier.is_some() {
            self.may_eject.store(true, Ordering::Relaxed);
        }
        let balancer = cluster.load_balancer;
        if let [only] = candidates {
            let healthy = !self.is_ejected(UpstreamAddr(only.addr));
            return if healthy { vec![*only] } else { Vec::new() };
        }
        let mut healthy: Vec<Endpoint> = candidates.to_vec();
        healthy.retain(|endpoint| !self.is_ejected(UpstreamAddr(endpoint.addr)));
        let total: u64 = healthy.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        if total == 0 {
            return healthy;
        }
        let chosen = match balancer {
            LoadBalancer::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                by_weight(&healthy, u64::try_from(turn).unwrap_or(0) % total)
            }
            LoadBalancer::Random => by_weight(&healthy, random.below(total)),
            LoadBalancer::First => 0,
            LoadBalancer::LeastRequest => {
                let first = by_weight(&healthy, random.below(total));
                let second = by_weight(&healthy, random.below(total));
                if self.load(&healthy[second]) < self.load(&healthy[first]) {
                    second
                } else {
                    first
                }
            }
        };
        healthy.swap(0, chosen);
        healthy
    }

    fn load(&self, endpoint: &Endpoint) -> u32 {
        let endpoints = lock(&self.endpoints);
        let state = endpoints.get(&UpstreamAddr(endpoint.addr));
        state.map_or(0, |state| state.active.load(Ordering::Relaxed))
    }

    fn is_ejected(&self, addr: UpstreamAddr) -> bool {
        let now = Instant::now();
        let endpoints = lock(&self.endpoints);
        endpoints.get(&addr).is_some_and(|endpoint| lock(&endpoint.health).is_ejected(now))
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

/// Numbers that spread load; nothing secret depends on them (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(AtomicU64);

impl Default for Random {
    fn default() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(0)))
    }
}

impl Random {
    fn below(&self, limit: u64) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What a panicking thread left behind here are numbers, still right enough.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
