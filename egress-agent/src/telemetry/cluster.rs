//! What is counted for a destination (Envoy's cluster) and for each of its endpoints.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::shard::Counters;
use crate::types::UpstreamAddr;

macro_rules! counters {
    (
        $(#[$enum_doc:meta])* $enum:ident, $count:ident, $stats:ident;
        $($(#[$doc:meta])* $variant:ident = $name:literal $(, $inc:ident)?;)*
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum $enum { $($(#[$doc])* $variant,)* }

        impl $enum {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, as Envoy writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        const $count: usize = $enum::ALL.len();

        impl $stats {
            $($(
                #[doc = concat!("Adds one to `", $name, "`.")]
                pub fn $inc(&self) {
                    self.counters.add($enum::$variant as usize, 1);
                }
            )?)*

            /// The present value.
            #[must_use]
            pub fn get(&self, counter: $enum) -> u64 {
                self.counters.get(counter as usize)
            }
        }
    };
}

counters! {
    /// The counters of a cluster.
    ClusterCounter, CLUSTER_COUNTERS, ClusterStats;
    /// Connections opened; [`ClusterStats::connection`] counts it.
    CxTotal = "upstream_cx_total";
    /// Connections open now (a gauge).
    CxActive = "upstream_cx_active";
    /// A connection couldn't be made.
    CxConnectFail = "upstream_cx_connect_fail", inc_upstream_cx_connect_fail;
    /// A connection took longer than `connectTimeout`; count `upstream_cx_connect_fail` with it.
    CxConnectTimeout = "upstream_cx_connect_timeout", inc_upstream_cx_connect_timeout;
    /// `maxConnections` was reached.
    CxOverflow = "upstream_cx_overflow", inc_upstream_cx_overflow;
    /// No endpoint was healthy, or there is none.
    CxNoneHealthy = "upstream_cx_none_healthy", inc_upstream_cx_none_healthy;
    /// Bytes that came from the upstream.
    CxRxBytes = "upstream_cx_rx_bytes_total";
    /// Bytes that went to the upstream.
    CxTxBytes = "upstream_cx_tx_bytes_total";
    /// Requests; [`ClusterStats::request`] counts it.
    RqTotal = "upstream_rq_total";
    /// Requests under way (a gauge).
    RqActive = "upstream_rq_active";
    /// Responses 200 to 299.
    Rq2xx = "upstream_rq_2xx";
    /// Responses 300 to 399.
    Rq3xx = "upstream_rq_3xx";
    /// Responses 400 to 499.
    Rq4xx = "upstream_rq_4xx";
    /// Responses 500 to 599.
    Rq5xx = "upstream_rq_5xx";
    /// A request ran into its timeout.
    RqTimeout = "upstream_rq_timeout", inc_upstream_rq_timeout;
    /// A request was tried once more.
    RqRetry = "upstream_rq_retry", inc_upstream_rq_retry;
    /// A request was not tried once more, because too many were.
    RqRetryOverflow = "upstream_rq_retry_overflow", inc_upstream_rq_retry_overflow;
    /// A request was refused because a limit was reached.
    RqPendingOverflow = "upstream_rq_pending_overflow", inc_upstream_rq_pending_overflow;
    /// A TLS handshake with the upstream succeeded.
    SslHandshake = "ssl.handshake", inc_ssl_handshake;
    /// A TLS handshake failed; a certificate that isn't accepted is counted here too.
    SslConnectionError = "ssl.connection_error", inc_ssl_connection_error;
}

impl ClusterCounter {
    /// What it counts, for Prometheus. The classes of responses are one family there.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::CxTotal => "Connections that were opened.",
            Self::CxActive => "Connections that are open.",
            Self::CxConnectFail => "Connections that could not be opened.",
            Self::CxConnectTimeout => "Connections that took longer than connectTimeout.",
            Self::CxOverflow => "Connections that were refused because of maxConnections.",
            Self::CxNoneHealthy => "Connections that were refused because no endpoint is healthy.",
            Self::CxRxBytes => "Bytes from external hosts.",
            Self::CxTxBytes => "Bytes to external hosts.",
            Self::RqTotal => "HTTP requests.",
            Self::RqActive => "HTTP requests that are under way.",
            Self::Rq2xx | Self::Rq3xx | Self::Rq4xx | Self::Rq5xx => "Responses, by class.",
            Self::RqTimeout => "HTTP requests that ran into their timeout.",
            Self::RqRetry => "Tries of HTTP requests after the first.",
            Self::RqRetryOverflow => {
                "HTTP requests that were not tried again: too many tries are under way."
            }
            Self::RqPendingOverflow => "HTTP requests that were refused because of a limit.",
            Self::SslHandshake => "TLS handshakes with external hosts that succeeded.",
            Self::SslConnectionError => "TLS handshakes with external hosts that failed.",
        }
    }

    /// Whether the value may fall.
    #[must_use]
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::CxActive | Self::RqActive)
    }
}

/// What is counted for one cluster. Look it up once a connection or route, and keep it.
#[derive(Debug, Default)]
pub struct ClusterStats {
    counters: Counters<CLUSTER_COUNTERS>,
    membership_healthy: AtomicU64,
    membership_total: AtomicU64,
    ejections_active: AtomicU64,
    /// Retries under way.
    pub(super) retries: AtomicU64,
    endpoints: Mutex<HashMap<UpstreamAddr, Arc<EndpointStats>>>,
}

/// Endpoints remembered for a cluster. Names that resolve to ever new addresses must not fill the
/// memory: beyond this, those that nobody uses are forgotten.
const MAX_ENDPOINTS: usize = 256;

impl ClusterStats {
    /// A connection to the upstream was opened; dropping the guard says that it is closed.
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.counters.add(ClusterCounter::CxTotal as usize, 1);
        self.counters.add(ClusterCounter::CxActive as usize, 1);
        ConnectionGuard(Arc::clone(self))
    }

    /// A request goes to the upstream; dropping the guard says that it is over.
    pub fn request(self: &Arc<Self>) -> RequestGuard {
        self.counters.add(ClusterCounter::RqTotal as usize, 1);
        self.counters.add(ClusterCounter::RqActive as usize, 1);
        RequestGuard(Arc::clone(self))
    }

    /// Bytes came from the upstream.
    pub fn add_rx(&self, bytes: u64) {
        self.counters.add(ClusterCounter::CxRxBytes as usize, bytes);
    }

    /// Bytes went to the upstream.
    pub fn add_tx(&self, bytes: u64) {
        self.counters.add(ClusterCounter::CxTxBytes as usize, bytes);
    }

    /// The final response to a request, the gateway's own (503, 504) included.
    pub fn response(&self, status: http::StatusCode) {
        let counter = match status.as_u16() {
            200..=299 => ClusterCounter::Rq2xx,
            300..=399 => ClusterCounter::Rq3xx,
            400..=499 => ClusterCounter::Rq4xx,
            500..=599 => ClusterCounter::Rq5xx,
            _ => return,
        };
        self.counters.add(counter as usize, 1);
    }

    /// How many endpoints there are, and how many of them are healthy.
    pub fn set_membership(&self, healthy: u64, total: u64) {
        self.membership_healthy.store(healthy, Relaxed);
        self.membership_total.store(total, Relaxed);
    }

    /// How many endpoints are set aside by outlier detection.
    pub fn set_ejections_active(&self, ejected: u64) {
        self.ejections_active.store(ejected, Relaxed);
    }

    /// Gauges that are set as a whole.
    #[must_use]
    pub fn gauges(&self) -> [(&'static str, u64); 3] {
        [
            ("membership_healthy", self.membership_healthy.load(Relaxed)),
            ("membership_total", self.membership_total.load(Relaxed)),
            ("outlier_detection.ejections_active", self.ejections_active.load(Relaxed)),
        ]
    }

    /// What is counted for one of its endpoints.
    #[must_use]
    pub fn endpoint(&self, addr: UpstreamAddr) -> Arc<EndpointStats> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(&addr) {
            return Arc::clone(endpoint);
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let endpoint = Arc::new(EndpointStats::default());
        if endpoints.len() < MAX_ENDPOINTS {
            endpoints.insert(addr, Arc::clone(&endpoint));
        }
        endpoint
    }

    /// Every endpoint that is remembered, sorted by address.
    #[must_use]
    pub fn endpoints(&self) -> Vec<(UpstreamAddr, Arc<EndpointStats>)> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            endpoints.iter().map(|(addr, stats)| (*addr, Arc::clone(stats))).collect();
        all.sort_by_key(|(addr, _)| (addr.ip(), addr.0.port()));
        all
    }

    /// Whether something is still counted in it.
    pub(super) fn is_active(&self) -> bool {
        self.get(ClusterCounter::CxActive) != 0 || self.get(ClusterCounter::RqActive) != 0
    }
}

/// One open connection.
#[derive(Debug)]
#[must_use = "dropping it says that the connection is closed"]
pub struct ConnectionGuard(Arc<ClusterStats>);

impl ConnectionGuard {
    /// The cluster that it counts in.
    #[must_use]
    pub fn cluster(&self) -> &Arc<ClusterStats> {
        &self.0
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.counters.sub(ClusterCounter::CxActive as usize, 1);
    }
}

/// One request under way.
#[derive(Debug)]
#[must_use = "dropping it says that the request is over"]
pub struct RequestGuard(Arc<ClusterStats>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.counters.sub(ClusterCounter::RqActive as usize, 1);
    }
}

counters! {
    /// The counters of an endpoint.
    EndpointCounter, ENDPOINT_COUNTERS, EndpointStats;
    /// Connections open now (a gauge).
    CxActive = "cx_active";
    /// A connection couldn't be made.
    CxConnectFail = "cx_connect_fail", inc_cx_connect_fail;
    /// Connections opened; [`EndpointStats::connection`] counts it.
    CxTotal = "cx_total";
    /// Requests under way (a gauge).
    RqActive = "rq_active";
    /// Responses 500 to 599, and requests that got none.
    RqError = "rq_error", inc_rq_error;
    /// All other responses.
    RqSuccess = "rq_success", inc_rq_success;
    /// A request ran into its timeout.
    RqTimeout = "rq_timeout", inc_rq_timeout;
    /// Requests; [`EndpointStats::request`] counts it.
    RqTotal = "rq_total";
}

/// What is counted for one address of a cluster.
#[derive(Debug, Default)]
pub struct EndpointStats {
    counters: Counters<ENDPOINT_COUNTERS>,
}

impl EndpointStats {
    /// A connection to it was opened; dropping the guard says that it is closed.
    pub fn connection(self: &Arc<Self>) -> EndpointGuard {
        self.counters.add(EndpointCounter::CxTotal as usize, 1);
        self.counters.add(EndpointCounter::CxActive as usize, 1);
        EndpointGuard { stats: Arc::clone(self), gauge: EndpointCounter::CxActive }
    }

    /// A request goes to it; dropping the guard says that it is over.
    pub fn request(self: &Arc<Self>) -> EndpointGuard {
        self.counters.add(EndpointCounter::RqTotal as usize, 1);
        self.counters.add(EndpointCounter::RqActive as usize, 1);
        EndpointGuard { stats: Arc::clone(self), gauge: EndpointCounter::RqActive }
    }

    /// The response to a request.
    pub fn response(&self, status: http::StatusCode) {
        if status.is_server_error() {
            self.inc_rq_error();
        } else {
            self.inc_rq_success();
        }
    }
}

/// One connection or request at an endpoint.
#[derive(Debug)]
#[must_use = "dropping it says that the connection or request is over"]
pub struct EndpointGuard {
    stats: Arc<EndpointStats>,
    gauge: EndpointCounter,
}

impl Drop for EndpointGuard {
    fn drop(&mut self) {
        self.stats.counters.sub(self.gauge as usize, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn addr(n: u16) -> UpstreamAddr {
        UpstreamAddr(SocketAddr::from(([198, 51, 100, 1], n)))
    }

    #[test]
    fn guards_count_in_and_out() {
        let stats = Arc::new(ClusterStats::default());
        let connection = stats.connection();
        let request = stats.request();
        assert_eq!(stats.get(ClusterCounter::CxTotal), 1);
        assert_eq!(stats.get(ClusterCounter::CxActive), 1);
        assert_eq!(stats.get(ClusterCounter::RqActive), 1);
        assert!(stats.is_active());
        drop(request);
        drop(connection);
        assert_eq!(stats.get(ClusterCounter::CxTotal), 1);
        assert_eq!(stats.get(ClusterCounter::CxActive), 0);
        assert_eq!(stats.get(ClusterCounter::RqTotal), 1);
        assert_eq!(stats.get(ClusterCounter::RqActive), 0);
        assert!(!stats.is_active());
    }

    #[test]
    fn responses_are_counted_by_class() {
        let stats = ClusterStats::default();
        for status in [101, 200, 204, 301, 403, 404, 503, 999] {
            stats.response(http::StatusCode::from_u16(status).unwrap());
        }
        let counts = [
            ClusterCounter::Rq2xx,
            ClusterCounter::Rq3xx,
            ClusterCounter::Rq4xx,
            ClusterCounter::Rq5xx,
        ]
        .map(|counter| stats.get(counter));
        assert_eq!(counts, [2, 1, 2, 1]);
    }

    #[test]
    fn endpoints_are_remembered_within_bounds() {
        let stats = ClusterStats::default();
        let held = stats.endpoint(addr(1));
        held.inc_cx_connect_fail();
        for n in 2..2000 {
            stats.endpoint(addr(n)).inc_rq_success();
        }
        assert!(stats.endpoints().len() <= MAX_ENDPOINTS);
        // What somebody holds isn't forgotten.
        assert_eq!(stats.endpoint(addr(1)).get(EndpointCounter::CxConnectFail), 1);
    }
}
