//! What one request or connection leaves behind.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use egress_ebpf::reason::Reason;

use super::Span;
use crate::{
    policy::ClusterName,
    types::{
        ClientAddr, DownstreamTls, LocalAddr, PeerCertificate, ShareOwner, Text, TraceId,
        UpstreamAddr, Workload,
    },
};

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Envoy's response flags, those that can occur here, in Envoy's order.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum ResponseFlag { $($(#[$doc])* $name,)* }

        impl ResponseFlag {
            /// Every flag, in the order in which they are written.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The short form in logs and metrics.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

flags! {
    /// No healthy upstream.
    NoHealthyUpstream = "UH";
    /// Upstream request timeout.
    UpstreamRequestTimeout = "UT";
    /// Connection local reset.
    LocalReset = "LR";
    /// Upstream remote reset.
    UpstreamRemoteReset = "UR";
    /// Upstream connection failure.
    UpstreamConnectionFailure = "UF";
    /// Upstream connection termination.
    UpstreamConnectionTermination = "UC";
    /// Upstream overflow.
    UpstreamOverflow = "UO";
    /// No route.
    NoRouteFound = "NR";
    /// Delayed by fault injection.
    DelayInjected = "DI";
    /// Aborted by fault injection.
    FaultInjected = "FI";
    /// Rate limited.
    RateLimited = "RL";
    /// Downstream connection termination.
    DownstreamConnectionTermination = "DC";
    /// Every retry failed too.
    UpstreamRetryLimitExceeded = "URX";
    /// Nothing moved for too long.
    StreamIdleTimeout = "SI";
    /// Downstream protocol error.
    DownstreamProtocolError = "DPE";
    /// Upstream protocol error.
    UpstreamProtocolError = "UPE";
    /// Dropped because of overload.
    DropOverload = "DO";
    /// It was open for as long as it may be.
    DurationTimeout = "DT";
}

/// A set of [`ResponseFlag`]s; displayed as `UF,URX`, the empty set as `-`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ResponseFlags(u32);

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

    /// Those that are there, in Envoy's order.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        ResponseFlag::ALL.iter().copied().filter(move |flag| self.has(*flag))
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }
}

impl From<ResponseFlag> for ResponseFlags {
    fn from(flag: ResponseFlag) -> Self {
        let mut flags = Self::default();
        flags.set(flag);
        flags
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.code())?;
        }
        Ok(())
    }
}

/// Where a request comes from, by those that passed it on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForwardedFor {
    /// From the connection's client.
    Client,
    /// Through it: what trusted proxies have said of those before it.
    After(Text),
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
    /// `%REQ(:PATH)%`, normalised, before a route rewrites it.
    pub path: Option<Text>,
    /// `%REQ(X-ENVOY-ORIGINAL-PATH)%`: the path as the client sent it, where normalisation changed it.
    pub original_path: Option<Text>,
    /// `%REQ(:AUTHORITY)%`.
    pub authority: Option<Text>,
    /// `%REQ(USER-AGENT)%`.
    pub user_agent: Option<Text>,
    /// `%REQ(X-FORWARDED-FOR)%`, the client's own address appended.
    pub forwarded_for: Option<ForwardedFor>,
    /// `%REQ(X-REQUEST-ID)%`.
    pub request_id: Option<Text>,
    /// `%RESPONSE_CODE%`; 0 where there was none.
    pub response_code: u16,
    /// Whether the request is of gRPC.
    pub is_grpc: bool,
    /// `%GRPC_STATUS%`: of an answer to a request of gRPC.
    pub grpc_status: Option<u8>,
    /// `%RESPONSE_FLAGS%`.
    pub response_flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub response_code_details: Option<Cow<'static, str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub connection_termination_details: Option<Cow<'static, str>>,
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
    /// `%UPSTREAM_TLS_GROUP%`: the group of the key exchange, where TLS was originated.
    pub upstream_tls_group: Option<&'static str>,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`.
    pub downstream_local: LocalAddr,
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub downstream_remote: ClientAddr,
    /// `%REQUESTED_SERVER_NAME%`.
    pub requested_server_name: Option<Arc<str>>,
    /// `%ROUTE_NAME%`.
    pub route_name: Option<Arc<str>>,
    /// The ClientHello had the extension of Encrypted Client Hello; JSON and flows only.
    pub encrypted_hello: bool,
    /// TLS that the gateway terminated, and the client's certificate.
    pub downstream_tls: Option<Arc<DownstreamTls>>,
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`: why TLS with the client failed.
    pub downstream_failure: Option<String>,
    /// Why it was refused; JSON only.
    pub reason: Option<Reason>,
    /// The authorization policy that marks it (`AUDIT`); JSON only.
    pub audit: Option<Arc<str>>,
    /// A sentence that says more about it; for flows, not for the log.
    pub detail: Option<String>,
    /// Who asked; JSON only.
    pub workload: Option<Arc<Workload>>,
    /// Its span, where tracing is on; for export alone.
    pub span: Option<Box<Span>>,
}

impl AccessLogEntry {
    /// Of what began at this time, of which nothing else is known yet.
    #[must_use]
    pub fn new(
        start_time: SystemTime,
        downstream_local: LocalAddr,
        downstream_remote: ClientAddr,
    ) -> Self {
        Self {
            start_time,
            duration: Duration::ZERO,
            protocol: None,
            method: None,
            path: None,
            original_path: None,
            authority: None,
            user_agent: None,
            forwarded_for: None,
            request_id: None,
            response_code: 0,
            is_grpc: false,
            grpc_status: None,
            response_flags: ResponseFlags::default(),
            response_code_details: None,
            connection_termination_details: None,
            upstream_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_service_time: None,
            upstream_host: None,
            upstream_cluster: None,
            upstream_local: None,
            upstream_tls_group: None,
            downstream_local,
            downstream_remote,
            requested_server_name: None,
            route_name: None,
            encrypted_hello: false,
            downstream_tls: None,
            downstream_failure: None,
            reason: None,
            audit: None,
            detail: None,
            workload: None,
            span: None,
        }
    }

    /// Whose line it is.
    #[must_use]
    pub fn owner(&self) -> ShareOwner {
        ShareOwner::of(self.workload.as_deref(), self.downstream_remote.ip())
    }

    /// What the client's node calls the connection, too.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        TraceId::of(self.downstream_remote.0, self.downstream_local.0.port())
    }

    /// Whether it got as far as a connection to an upstream, whatever became of it there.
    #[must_use]
    pub fn was_forwarded(&self) -> bool {
        self.upstream_local.is_some()
    }

    /// The client's certificate, if it showed one.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerCertificate> {
        self.downstream_tls.as_ref()?.peer.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_envoy_does() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "URX");
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
        assert!(flags.has(ResponseFlag::UpstreamConnectionFailure));
        assert!(!flags.has(ResponseFlag::NoRouteFound));
        // The set is 32 bits wide.
        assert!(ResponseFlag::ALL.len() <= 32);
    }
}
