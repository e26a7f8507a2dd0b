//! What a connection that isn't HTTP leaves behind: one line of the access log, and counters.

use std::{borrow::Cow, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{
    Downstream, Worker,
    details::{NO_LONGER_VALID, OVERFLOW, OVERFLOW_SENTENCE, RATE_LIMITED},
    rates::Limited,
};
use crate::{
    net::{DialError, ResolveError},
    policy::{ClusterName, Denied},
    telemetry::{AccessLogEntry, ClusterStats, ResponseFlag, ResponseFlags},
    tls::PeerEnded,
    types::{LocalAddr, UpstreamAddr},
};

/// How a connection went, gathered while it runs.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// SNI as the policy read it.
    pub(super) server_name: Option<Arc<str>>,
    /// Where it went; `BlackHoleCluster` if nowhere.
    pub(super) cluster: Option<ClusterName>,
    pub(super) upstream: Option<UpstreamAddr>,
    pub(super) upstream_local: Option<LocalAddr>,
    /// The group of the key exchange with it.
    pub(super) upstream_tls_group: Option<&'static str>,
    pub(super) flags: ResponseFlags,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub(super) details: Option<Cow<'static, str>>,
    /// The authorization policy that marks it.
    pub(super) audit: Option<Arc<str>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(super) failure: Option<String>,
    pub(super) reason: Option<Reason>,
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(super) downstream_failure: Option<String>,
    /// The refusal as a sentence.
    pub(super) detail: Option<String>,
    /// Bytes from the client.
    pub(super) received: u64,
    /// Bytes to the client.
    pub(super) sent: u64,
}

impl Record {
    /// Refused before it went anywhere: counted in `BlackHoleCluster` and by reason.
    pub(super) fn black_hole(worker: &Worker, downstream: &Downstream, reason: Reason) -> Self {
        let stats = &worker.telemetry.stats;
        let cluster = ClusterName::black_hole();
        stats.denied(reason);
        drop(stats.black_hole().connection());
        let workload = downstream.source.workload.as_deref();
        stats.connection_opened(workload, downstream.tls.as_deref(), &cluster);
        Self { cluster: Some(cluster), reason: Some(reason), ..Self::default() }
    }

    /// Refused by policy.
    pub(super) fn denied(worker: &Worker, downstream: &Downstream, denied: &Denied) -> Self {
        let mut record = Self::black_hole(worker, downstream, denied.reason);
        match &denied.matched {
            // Envoy has no flag for it.
            Some(matched) => record.details = Some(matched.to_string().into()),
            None => {
                record.flags.set(ResponseFlag::NoRouteFound);
                record.details = Some("filter_chain_not_found".into());
            }
        }
        record.detail = Some(denied.detail.clone());
        record
    }

    /// Refused because of what the client did, or didn't do in time.
    pub(super) fn local(worker: &Worker, downstream: &Downstream, reason: Reason) -> Self {
        let mut record = Self::black_hole(worker, downstream, reason);
        record.flags.set(ResponseFlag::LocalReset);
        record
    }

    /// Refused or ended because its source has its share of what all sources use.
    pub(super) fn overflow(worker: &Worker, downstream: &Downstream) -> Self {
        let mut record = Self::local(worker, downstream, Reason::Overflow);
        record.details = Some(OVERFLOW.into());
        record.detail = Some(OVERFLOW_SENTENCE.into());
        record
    }

    /// Ended although both ends were content.
    pub(super) fn ended(&mut self, ended: &PeerEnded) {
        self.flags.set(ResponseFlag::LocalReset);
        self.details = Some(NO_LONGER_VALID.into());
        self.downstream_failure = Some(ended.to_string());
        self.detail = Some(ended.to_string());
        self.reason = Some(ended.reason());
    }

    /// What was on its way is refused or ended for another source's sake.
    pub(super) fn overflowed(&mut self, worker: &Worker) -> Reason {
        worker.telemetry.stats.denied(Reason::Overflow);
        self.flags.set(ResponseFlag::LocalReset);
        self.details = Some(OVERFLOW.into());
        self.reason = Some(Reason::Overflow);
        self.detail = Some(OVERFLOW_SENTENCE.into());
        Reason::Overflow
    }

    /// Its workload has as many connections to the host as a limit allows.
    pub(super) fn rate_limited(&mut self, worker: &Worker, limited: &Limited) -> Reason {
        worker.telemetry.stats.denied(Reason::RateLimited);
        self.flags.set(ResponseFlag::RateLimited);
        self.details = Some(RATE_LIMITED.into());
        self.reason = Some(Reason::RateLimited);
        self.detail = Some(limited.to_string());
        Reason::RateLimited
    }

    /// It is on its way to this cluster.
    pub(super) fn opened(worker: &Worker, downstream: &Downstream, cluster: ClusterName) -> Self {
        let workload = downstream.source.workload.as_deref();
        let tls = downstream.tls.as_deref();
        worker.telemetry.stats.connection_opened(workload, tls, &cluster);
        Self { cluster: Some(cluster), ..Self::default() }
    }

    /// The upstream couldn't be had.
    pub(super) fn dial_failed(&mut self, worker: &Worker, stats: &ClusterStats, error: &DialError) {
        worker.telemetry.stats.denied(error.reason());
        self.flags.set(count_dial(stats, error));
        self.upstream = error.upstream();
        self.reason = Some(error.reason());
        self.failure = Some(error.to_string());
    }

    /// Writes the line.
    pub(super) fn finish(self, worker: &Worker, downstream: Downstream) {
        worker.telemetry.connection_finished(&AccessLogEntry {
            duration: downstream.start.elapsed(),
            response_flags: self.flags,
            connection_termination_details: self.details,
            upstream_failure: self.failure,
            bytes_received: self.received,
            bytes_sent: self.sent,
            upstream_host: self.upstream,
            upstream_cluster: self.cluster,
            upstream_local: self.upstream_local,
            upstream_tls_group: self.upstream_tls_group,
            requested_server_name: self.server_name,
            encrypted_hello: downstream.encrypted_hello,
            downstream_tls: downstream.tls,
            downstream_failure: self.downstream_failure,
            reason: self.reason,
            audit: self.audit,
            detail: self.detail,
            workload: downstream.source.workload,
            ..AccessLogEntry::new(downstream.start_time, downstream.local, downstream.peer)
        });
    }
}

/// Counts a failed dial as Envoy does, and names its flag.
fn count_dial(stats: &ClusterStats, error: &DialError) -> ResponseFlag {
    match error {
        DialError::Resolve { why: ResolveError::Overflow, .. } => ResponseFlag::DropOverload,
        DialError::Resolve { .. } | DialError::From { .. } => {
            ResponseFlag::UpstreamConnectionFailure
        }
        DialError::AddressRefused { .. } => ResponseFlag::NoRouteFound,
        DialError::NoHealthyUpstream { .. } => {
            stats.inc_upstream_cx_none_healthy();
            ResponseFlag::NoHealthyUpstream
        }
        DialError::Overflow { .. } => {
            stats.inc_upstream_cx_overflow();
            ResponseFlag::UpstreamOverflow
        }
        DialError::Timeout { .. } => {
            stats.inc_upstream_cx_connect_fail();
            stats.inc_upstream_cx_connect_timeout();
            ResponseFlag::UpstreamConnectionFailure
        }
        DialError::Connect { .. } => {
            stats.inc_upstream_cx_connect_fail();
            ResponseFlag::UpstreamConnectionFailure
        }
    }
}
