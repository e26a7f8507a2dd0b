//! What belongs to every connection to an upstream, whatever it speaks.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    net::{InFlight, Lease},
    telemetry::{ClusterStats, ConnectionGuard, EndpointGuard, EndpointStats},
    types::{LocalAddr, UpstreamAddr},
};

/// A connection's two ends, its place in the limits, and its place in the statistics.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) addr: UpstreamAddr,
    pub(super) local: LocalAddr,
    pub(super) lease: Lease,
    /// The group of TLS's key exchange, by BoringSSL's name.
    pub(super) tls_group: Option<&'static str>,
    pub(super) endpoint: Arc<EndpointStats>,
    since: Instant,
    guards: (ConnectionGuard, EndpointGuard),
}

impl Link {
    pub(super) fn new(
        addr: UpstreamAddr,
        local: LocalAddr,
        lease: Lease,
        stats: &Arc<ClusterStats>,
    ) -> Self {
        let endpoint = stats.endpoint(addr);
        let guards = (stats.connection(), endpoint.connection());
        let since = Instant::now();
        Self { addr, local, lease, tls_group: None, endpoint, since, guards }
    }

    /// Whether it has been open for as long as it may be: it takes no further request.
    pub(super) fn is_aged(&self, most: Option<Duration>) -> bool {
        most.is_some_and(|most| self.since.elapsed() >= most)
    }

    /// Counts bytes from and to the upstream.
    pub(super) fn count(&self, received: u64, sent: u64) {
        let cluster = self.guards.0.cluster();
        cluster.add_rx(received);
        cluster.add_tx(sent);
    }
}

/// A request under way, in its endpoint's load and statistics.
#[derive(Debug)]
pub(super) struct RequestInFlight {
    pub(super) _load: Option<InFlight>,
    pub(super) _counted: EndpointGuard,
}
