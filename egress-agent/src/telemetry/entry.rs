//! What one request or connection leaves behind.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_ebpf::reason::Reason;

use crate::{
    policy::ClusterName,
    types::{ClientAddr, LocalAddr, UpstreamAddr, Workload},
};

/// Envoy's response flags, those that can occur here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ResponseFlag {
    /// `UH`: no healthy upstream.
    NoHealthyUpstream,
    /// `UF`: upstream connection failure.
    UpstreamConnectionFailure,
    /// `UO`: upstream overflow.
    UpstreamOverflow,
    /// `NR`: no route.
    NoRouteFound,
    /// `UT`: upstream request timeout.
    UpstreamRequestTimeout,
    /// `LR`: connection local reset.
    LocalReset,
    /// `UR`: upstream remote reset.
    UpstreamRemoteReset,
    /// `UC`: upstream connection termination.
    UpstreamConnectionTermination,
    /// `DC`: downstream connection termination.
    DownstreamConnectionTermination,
    /// `DI`: delayed by fault injection.
    DelayInjected,
    /// `FI`: aborted by fault injection.
    FaultInjected,
    /// `RL`: rate limited.
    RateLimited,
    /// `DPE`: downstream protocol error.
    DownstreamProtocolError,
}

/// A set of [`ResponseFlag`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ResponseFlags(u16);

impl ResponseFlags {
    /// Adds a flag.
    pub fn set(&mut self, flag: ResponseFlag) {
        self.0 |= 1 << flag as u8;
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(self, flag: ResponseFlag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }
}

/// One line of the access log, as values. What is `None` is logged as `-`.
#[derive(Clone, Debug)]
pub struct AccessLogEntry {
    /// `%START_TIME%`.
    pub start_time: SystemTime,
    /// `%DURATION%`.
    pub duration: Duration,
    /// `%PROTOCOL%`; `None` for TCP and passthrough.
    pub protocol: Option<http::Version>,
    /// `%REQ(:METHOD)%`.
    pub method: Option<http::Method>,
    /// `%REQ(:PATH)%`, as the client sent it.
    pub path: Option<String>,
    /// `%REQ(:AUTHORITY)%`.
    pub authority: Option<String>,
    /// `%REQ(USER-AGENT)%`.
    pub user_agent: Option<String>,
    /// `%REQ(X-FORWARDED-FOR)%`.
    pub forwarded_for: Option<String>,
    /// `%REQ(X-REQUEST-ID)%`.
    pub request_id: Option<String>,
    /// `%RESPONSE_CODE%`; 0 where there was none.
    pub response_code: u16,
    /// `%RESPONSE_FLAGS%`.
    pub response_flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub response_code_details: Option<&'static str>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub connection_termination_details: Option<&'static str>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub upstream_failure: Option<String>,
    /// `%BYTES_RECEIVED%`: body bytes, or all bytes of a TCP connection, from the client.
    pub bytes_received: u64,
    /// `%BYTES_SENT%`: the same towards the client.
    pub bytes_sent: u64,
    /// `%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%`: from request sent to response head.
    pub upstream_service_time: Option<Duration>,
    /// `%UPSTREAM_HOST%`.
    pub upstream_host: Option<UpstreamAddr>,
    /// `%UPSTREAM_CLUSTER_RAW%`.
    pub upstream_cluster: Option<ClusterName>,
    /// `%UPSTREAM_LOCAL_ADDRESS%`.
    pub upstream_local: Option<LocalAddr>,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`.
    pub downstream_local: LocalAddr,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub downstream_remote: ClientAddr,
    /// `%REQUESTED_SERVER_NAME%`.
    pub requested_server_name: Option<String>,
    /// `%ROUTE_NAME%`.
    pub route_name: Option<Arc<str>>,
    /// Why it was refused; JSON only.
    pub reason: Option<Reason>,
    /// Who asked; JSON only.
    pub workload: Option<Arc<Workload>>,
}
