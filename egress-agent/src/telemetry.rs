//! Metrics, access log, flow events.

mod access_log;
mod cluster;
mod entry;
mod flow;
mod handshakes;
mod limits;
mod log_filter;
mod node_sources;
mod normalized;
mod otlp;
mod panics;
mod retries;
mod series;
mod shard;
mod stats;
mod tunnels;

use std::sync::{Arc, OnceLock};

pub use access_log::{
    AccessLog, AccessLogCounts, AccessLogError, Heads, LineFate, UnwrittenLines, header_text,
};
pub use cluster::{
    ClusterCounter, ClusterStats, ConnectionGuard, EndpointCounter, EndpointGuard, EndpointStats,
    RequestGuard,
};
pub use entry::{AccessLogEntry, ForwardedFor, ResponseFlag, ResponseFlags};
pub use flow::{
    FlowLog, FlowRecord, FlowVerdict, FollowItem, Follower, GATEWAY_HOOK, TUNNEL_HOOK, rfc3339,
};
pub(crate) use flow::{cut, kept_labels};
pub use handshakes::{TlsPeer, count_handshake, handshakes};
pub use limits::{ADMIN_ENDPOINTS, AdminRefusal, AdminRefusals, LimitStats, Resource};
pub use log_filter::{LogFilter, log_filter, set_log_filter};
pub use node_sources::NodeSources;
pub use normalized::{Normalized, NormalizedKinds, count_normalized, normalized};
pub use otlp::{Batch, Exports, Loss, Queue, Root, Sampler, Signal, SignalReport, Span, Traces};
pub use panics::{panics, watch_panics};
pub use retries::RetryGuard;
pub use series::{DURATION_BUCKETS, RequestProtocol, Series, SeriesKey};
pub use stats::Stats;
pub use tunnels::{Open, TunnelStats};

#[cfg(test)]
pub(crate) use flow::tests as flow_tests;

/// What a process tells about itself; one a process, shared by its workers.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Counters and gauges.
    pub stats: Stats,
    /// The access log; off until it is configured.
    pub access_log: AccessLog,
    /// What it decided, for those who look.
    pub flows: Arc<FlowLog>,
    /// What is exported over OTLP; empty where nothing is.
    pub exports: OnceLock<Arc<Exports>>,
}

impl Telemetry {
    /// An HTTP request is over: counts and logs it. Call it once a request, refused ones too.
    pub fn request_finished(&self, entry: &AccessLogEntry) {
        self.stats.request_finished(entry);
        self.access_log.log(entry);
        self.flows.decided(entry);
        self.export(entry);
    }

    /// A TCP or TLS connection is over: counts and logs it. Call it once a connection, refused ones
    /// too, after [`Stats::connection_opened`].
    pub fn connection_finished(&self, entry: &AccessLogEntry) {
        self.stats.connection_finished(entry);
        self.access_log.log(entry);
        self.flows.decided(entry);
        self.export(entry);
    }

    fn export(&self, entry: &AccessLogEntry) {
        if let Some(exports) = self.exports.get() {
            exports.finished(entry, || self.access_log.line(entry));
        }
    }

    /// Where spans go, if anywhere.
    #[must_use]
    pub fn traces(&self) -> Option<&Traces> {
        self.exports.get()?.traces.as_ref()
    }
}
