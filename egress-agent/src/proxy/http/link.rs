//! What belongs to every connection to an upstream, whatever it speaks.

use std::sync::Arc;

use crate::{
    net::Lease,
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
        Self { addr, local, lease, tls_group: None, endpoint, guards }
    }

    /// Counts bytes from and to the upstream.
    pub(super) fn count(&self, received: u64, sent: u64) {
        let cluster = self.guards.0.cluster();
        cluster.add_rx(received);
        cluster.add_tx(sent);
    }
}
