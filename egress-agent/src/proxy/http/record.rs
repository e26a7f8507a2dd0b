//! What one request leaves behind. It is logged and counted when the record is dropped, so a
//! request can't end without it.

use std::{
    rc::Rc,
    time::{Instant, SystemTime},
};

use egress_ebpf::reason::Reason;
use http::{StatusCode, header};

use super::{
    Connection,
    failure::{Failure, FailureSummary, INTERNAL_ERROR},
    link::Link,
    request::Request,
};
use crate::{
    net::now,
    policy::{ClusterName, HttpRoute},
    proxy::{
        Work, Worker,
        details::NO_LONGER_VALID,
        rates::{Meters, Pace},
    },
    telemetry::{AccessLogEntry, ForwardedFor, ResponseFlag, ResponseFlags},
    tls::RevocationSignal,
    types::{Host, Text},
};

/// When a request's first byte arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    pub(super) at: Instant,
    pub(super) time: SystemTime,
}

impl Started {
    pub(super) fn now() -> Self {
        Self { at: now().into_std(), time: SystemTime::now() }
    }
}

/// The access log's line and the statistics of one request.
#[derive(Debug)]
pub(super) struct Record {
    worker: Rc<Worker>,
    started: Instant,
    complete: bool,
    ending: Option<RevocationSignal>,
    /// Its place, as long as anything of it is under way.
    pub(super) work: Option<Work>,
    /// Its rate limits.
    pub(super) meters: Meters,
    /// The request's body, in their pace.
    pub(super) upload: Pace,
    /// The response's body.
    pub(super) download: Pace,
    pub(super) entry: AccessLogEntry,
}

impl Record {
    /// Of a request that may turn out to be unreadable.
    pub(super) fn new(connection: &Connection, started: Started, version: http::Version) -> Self {
        let downstream = &connection.downstream;
        let entry = AccessLogEntry {
            protocol: Some(version),
            requested_server_name: connection.server_name().map(Host::text),
            encrypted_hello: downstream.encrypted_hello,
            downstream_tls: downstream.tls.clone(),
            workload: downstream.source.workload.clone(),
            ..AccessLogEntry::new(started.time, downstream.local, downstream.peer)
        };
        Self {
            worker: Rc::clone(&connection.worker),
            started: started.at,
            complete: false,
            ending: downstream.ending.clone(),
            work: None,
            meters: Meters::default(),
            upload: Pace::default(),
            download: Pace::default(),
            entry,
        }
    }

    /// The request. `received` is its path as the client sent it, where the normalised one differs;
    /// `forwarded` is what trusted proxies say of where it comes from.
    pub(super) fn request(
        &mut self,
        request: &Request,
        received: Option<Text>,
        forwarded: Option<String>,
    ) {
        let entry = &mut self.entry;
        entry.protocol = Some(request.version);
        entry.is_grpc = request.is_grpc();
        entry.method = Some(request.method.clone());
        entry.path = Some(request.path.clone());
        entry.original_path = received;
        entry.authority = Some(request.authority.text.clone());
        entry.user_agent = request.text(&header::USER_AGENT);
        // As Envoy's header after it appended the client (`use_remote_address`); only the log has it.
        // What nobody vouches for is not in it.
        entry.forwarded_for = Some(
            forwarded.map_or(ForwardedFor::Client, |before| ForwardedFor::After(before.into())),
        );
        entry.request_id = request.id.clone();
    }

    /// Where it goes.
    pub(super) fn route(&mut self, route: &HttpRoute) {
        self.entry.upstream_cluster = Some(route.cluster.name.clone());
        self.entry.route_name = route.name.clone();
        self.entry.audit = route.audit.clone();
    }

    /// The limits that hold for it.
    pub(super) fn limit(&mut self, meters: Meters) {
        self.upload = Pace::new(&meters);
        self.download = Pace::new(&meters);
        self.meters = meters;
    }

    /// The connection that it was sent on.
    pub(super) fn link(&mut self, link: &Link) {
        self.entry.upstream_host = Some(link.addr);
        self.entry.upstream_local = Some(link.local);
        self.entry.upstream_tls_group = link.tls_group;
    }

    /// The upstream answered.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.entry.response_code = status.as_u16();
        self.entry.response_code_details = Some("via_upstream".into());
    }

    /// The gateway answers by itself.
    pub(super) fn local(&mut self, status: StatusCode, details: &'static str) {
        self.entry.response_code = status.as_u16();
        self.entry.response_code_details = Some(details.into());
    }

    /// Something else about the response.
    pub(super) fn flag(&mut self, flag: ResponseFlag) {
        self.entry.response_flags.set(flag);
    }

    /// The request failed before a response.
    pub(super) fn failed(&mut self, failure: &Failure) -> FailureSummary {
        let account = failure.account();
        let matched =
            if let Failure::Denied(denied) = failure { denied.matched.as_ref() } else { None };
        // Envoy has no flag for what its policies deny.
        if matched.is_none() {
            self.flag(account.flag);
        }
        let entry = &mut self.entry;
        entry.response_code = account.status.map_or(0, |status| status.as_u16());
        entry.response_code_details =
            Some(matched.map_or(account.details.into(), |matched| matched.to_string().into()));
        entry.upstream_failure = failure.transport();
        entry.upstream_host = failure.upstream().or(entry.upstream_host);
        entry.reason = Some(account.reason);
        entry.detail = Some(failure.sentence());
        if account.flag == ResponseFlag::DownstreamConnectionTermination && self.note_end() {
            return account;
        }
        let stats = &self.worker.telemetry.stats;
        stats.denied(account.reason);
        if let (Failure::Denied(_), Some(status)) = (failure, account.status) {
            let black_hole = stats.black_hole();
            let request = black_hole.request();
            black_hole.response(status);
            drop(request);
            self.entry.upstream_cluster = Some(ClusterName::black_hole());
        }
        account
    }

    /// All that the exchange had to say has been noted.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// The client went away, or was sent away.
    pub(super) fn gone(&mut self) {
        if !self.note_end() {
            let flag = ResponseFlag::DownstreamConnectionTermination;
            self.broken(flag, "downstream_remote_disconnect");
        }
    }

    /// Notes that the connection was ended because its client's certificates are no longer valid;
    /// `false` if it wasn't.
    fn note_end(&mut self) -> bool {
        let Some(ended) = self.ending.as_ref().and_then(RevocationSignal::get) else {
            return false;
        };
        let entry = &mut self.entry;
        entry.response_flags = ResponseFlags::default();
        entry.response_flags.set(ResponseFlag::LocalReset);
        entry.response_code_details = Some(NO_LONGER_VALID.into());
        entry.downstream_failure = Some(ended.to_string());
        entry.detail = Some(ended.to_string());
        entry.reason = Some(ended.reason());
        self.worker.telemetry.stats.denied(ended.reason());
        true
    }

    /// The response broke off after its head.
    pub(super) fn broken(&mut self, flag: ResponseFlag, details: &'static str) {
        self.flag(flag);
        self.entry.response_code_details = Some(details.into());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete {
            // Dropped in the middle: the worker ends, or this program failed.
            self.flag(ResponseFlag::LocalReset);
            if std::thread::panicking() {
                self.entry.response_code = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
                self.entry.response_code_details = Some(INTERNAL_ERROR.into());
                self.entry.reason = Some(Reason::Reset);
                self.worker.telemetry.stats.denied(Reason::Reset);
            }
        }
        self.entry.duration = self.started.elapsed();
        self.worker.telemetry.request_finished(&self.entry);
    }
}
