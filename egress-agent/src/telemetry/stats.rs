//! All counters of the process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use egress_ebpf::reason::Reason;

use super::{
    AccessLogEntry, AdminRefusals, ClusterStats, EndpointStats, LimitStats, NodeSources, Series,
    SeriesKey, TunnelStats, series::SeriesTable,
};
use crate::{
    policy::{Cluster, ClusterName, HandleKind, HandleOwner},
    types::{DownstreamTls, UpstreamAddr, Workload},
};

/// All counters of the process, shared by its workers.
#[derive(Debug)]
pub struct Stats {
    keeper: HandleOwner,
    /// Replaced as a whole, so that looking a cluster up takes no lock.
    clusters: ArcSwap<HashMap<ClusterName, Arc<ClusterStats>>>,
    /// Held while `clusters` is replaced.
    writing: Mutex<()>,
    black_hole: Arc<ClusterStats>,
    passthrough: Arc<ClusterStats>,
    /// By number of the reason.
    denied: [AtomicU64; 256],
    series: SeriesTable,
    tunnels: Arc<TunnelStats>,
    limits: Arc<LimitStats>,
    node_sources: NodeSources,
    admin_refusals: AdminRefusals,
    started: Instant,
}

impl Default for Stats {
    fn default() -> Self {
        let black_hole = Arc::new(ClusterStats::default());
        let passthrough = Arc::new(ClusterStats::default());
        let clusters = [
            (ClusterName::black_hole(), Arc::clone(&black_hole)),
            (ClusterName::passthrough(), Arc::clone(&passthrough)),
        ];
        Self {
            keeper: HandleOwner::default(),
            clusters: ArcSwap::from_pointee(clusters.into()),
            writing: Mutex::new(()),
            black_hole,
            passthrough,
            denied: [const { AtomicU64::new(0) }; 256],
            series: SeriesTable::default(),
            tunnels: Arc::default(),
            limits: Arc::default(),
            node_sources: NodeSources::default(),
            admin_refusals: AdminRefusals::default(),
            started: Instant::now(),
        }
    }
}

impl Stats {
    /// Connections from nodes' addresses.
    #[must_use]
    pub fn node_sources(&self) -> &NodeSources {
        &self.node_sources
    }

    /// The counters of a cluster; made if there are none yet. Look it up once a connection or
    /// route, and keep it.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Arc<ClusterStats> {
        if let Some(stats) = self.clusters.load().get(name) {
            return Arc::clone(stats);
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clusters = HashMap::clone(&self.clusters.load());
        let stats = Arc::clone(clusters.entry(name.clone()).or_default());
        self.clusters.store(Arc::new(clusters));
        stats
    }

    /// The counters of a configuration's cluster, looked up once.
    #[must_use]
    pub fn of(&self, cluster: &Cluster) -> Arc<ClusterStats> {
        cluster.kept.get(HandleKind::Stats, self.keeper, || self.cluster(&cluster.name))
    }

    /// A new configuration has these clusters: they show up with zeros at once, and those that are
    /// gone disappear as soon as nothing more is counted in them.
    pub fn configure<'a>(&self, names: impl IntoIterator<Item = &'a ClusterName>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.clusters.load_full();
        let mut new: HashMap<_, _> = names
            .into_iter()
            .map(|name| (name.clone(), old.get(name).cloned().unwrap_or_default()))
            .collect();
        new.insert(ClusterName::black_hole(), Arc::clone(&self.black_hole));
        new.insert(ClusterName::passthrough(), Arc::clone(&self.passthrough));
        for (name, stats) in old.iter() {
            if stats.is_active() {
                new.entry(name.clone()).or_insert_with(|| Arc::clone(stats));
            }
        }
        self.clusters.store(Arc::new(new));
    }

    /// Every cluster with its counters, sorted by name.
    #[must_use]
    pub fn clusters(&self) -> Vec<(ClusterName, Arc<ClusterStats>)> {
        let clusters = self.clusters.load();
        let mut all: Vec<_> =
            clusters.iter().map(|(name, stats)| (name.clone(), Arc::clone(stats))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// The counters of one endpoint of a cluster. Look it up once a connection.
    #[must_use]
    pub fn endpoint(&self, cluster: &ClusterName, addr: UpstreamAddr) -> Arc<EndpointStats> {
        self.cluster(cluster).endpoint(addr)
    }

    /// Where what policy refuses is counted, besides [`Stats::denied`]: a refused HTTP request as
    /// `request()` and `response(403)`, a refused connection as `connection()`.
    #[must_use]
    pub fn black_hole(&self) -> Arc<ClusterStats> {
        Arc::clone(&self.black_hole)
    }

    /// Where hosts outside the registry are counted under `ALLOW_ANY`.
    #[must_use]
    pub fn passthrough(&self) -> Arc<ClusterStats> {
        Arc::clone(&self.passthrough)
    }

    /// Something was refused or failed for this reason.
    pub fn denied(&self, reason: Reason) {
        self.denied[usize::from(reason as u8)].fetch_add(1, Relaxed);
    }

    /// How often something was refused for this reason.
    #[must_use]
    pub fn denied_total(&self, reason: Reason) -> u64 {
        self.denied[usize::from(reason as u8)].load(Relaxed)
    }

    /// An HTTP request is over (`istio_requests_total`). [`super::Telemetry::request_finished`]
    /// calls it.
    pub fn request_finished(&self, entry: &AccessLogEntry) {
        self.series.with(&SeriesKey::request(entry), |series| series.request(entry.duration));
    }

    /// A TCP or TLS connection was decided about; [`Stats::connection_finished`] must follow. What
    /// is refused belongs to [`ClusterName::black_hole`].
    pub fn connection_opened(
        &self,
        workload: Option<&Workload>,
        tls: Option<&DownstreamTls>,
        cluster: &ClusterName,
    ) {
        self.series.with(&SeriesKey::opened(workload, tls, cluster), Series::opened);
    }

    /// A TCP or TLS connection is over. [`super::Telemetry::connection_finished`] calls it.
    pub fn connection_finished(&self, entry: &AccessLogEntry) {
        self.series.with(&SeriesKey::closed(entry), |series| {
            series.closed(entry.bytes_received, entry.bytes_sent);
        });
    }

    /// Every series of requests and connections, sorted by its labels.
    #[must_use]
    pub fn series(&self) -> Vec<Arc<Series>> {
        self.series.all()
    }

    /// Tunnels of nodes.
    #[must_use]
    pub fn tunnels(&self) -> &Arc<TunnelStats> {
        &self.tunnels
    }

    /// Shared resources: bounds, use, refusals.
    #[must_use]
    pub fn limits(&self) -> &Arc<LimitStats> {
        &self.limits
    }

    /// Connections to admin endpoints that were not served.
    #[must_use]
    pub fn admin_refusals(&self) -> &AdminRefusals {
        &self.admin_refusals
    }

    /// Seconds since start.
    #[must_use]
    pub fn uptime(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ClusterCounter;

    fn name(text: &str) -> ClusterName {
        ClusterName(text.into())
    }

    #[test]
    fn a_cluster_is_the_same_for_everybody() {
        let stats = Stats::default();
        let guard = stats.cluster(&name("outbound|80||a.example")).connection();
        let again = stats.cluster(&name("outbound|80||a.example"));
        assert_eq!(again.get(ClusterCounter::CxActive), 1);
        drop(guard);
        assert_eq!(again.get(ClusterCounter::CxActive), 0);
        assert!(Arc::ptr_eq(&stats.black_hole(), &stats.cluster(&ClusterName::black_hole())));
        assert!(Arc::ptr_eq(&stats.passthrough(), &stats.cluster(&ClusterName::passthrough())));
    }

    #[test]
    fn a_new_configuration_keeps_counts_and_forgets_the_idle() {
        let stats = Stats::default();
        let (kept, busy, idle) = (name("kept"), name("busy"), name("idle"));
        stats.configure([&kept, &busy, &idle]);
        stats.cluster(&kept).inc_ssl_handshake();
        let connection = stats.cluster(&busy).connection();
        stats.configure([&kept]);
        let names = |stats: &Stats| -> Vec<String> {
            stats.clusters().into_iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(&stats), ["BlackHoleCluster", "PassthroughCluster", "busy", "kept"]);
        assert_eq!(stats.cluster(&kept).get(ClusterCounter::SslHandshake), 1);
        drop(connection);
        stats.configure([&kept]);
        assert_eq!(names(&stats), ["BlackHoleCluster", "PassthroughCluster", "kept"]);
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let stats = Stats::default();
        stats.denied(Reason::HostNotInRegistry);
        stats.denied(Reason::HostNotInRegistry);
        assert_eq!(stats.denied_total(Reason::HostNotInRegistry), 2);
        assert_eq!(stats.denied_total(Reason::NoGatewayRoute), 0);
    }
}
