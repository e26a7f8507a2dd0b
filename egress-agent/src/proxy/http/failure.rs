//! Everything that can end an exchange without the upstream's response: whose fault it was, what
//! the client is told, and what is logged.

mod account;

use egress_ebpf::reason::Reason;
use http::StatusCode;
use thiserror::Error;

pub(super) use self::account::FailureSummary;
use self::account::dial_account;
use super::{bad::BadMessage, body::RecvError};
use crate::{
    net::DialError,
    policy::Denied,
    proxy::{
        details::{OVERFLOW, OVERFLOW_SENTENCE, RATE_LIMITED},
        rates::Limited,
    },
    telemetry::ResponseFlag,
    tls::TlsError,
    types::{Host, UpstreamAddr},
};

/// What is logged where this program failed.
pub(super) const INTERNAL_ERROR: &str = "internal_error";

/// What is logged where a client has too many requests under way on one connection.
const STREAM_OVERFLOW: &str = "http2.refused_stream";

/// Why a request wasn't answered by the upstream. Displayed as a sentence for people.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The client's message.
    #[error("{0}")]
    Bad(BadMessage),
    /// The client's head took too long.
    #[error("the request head did not arrive in time")]
    HeadTimeout,
    /// Policy.
    #[error("{} ({})", .0.detail, .0.reason.name())]
    Denied(Denied),
    /// `CONNECT` or `Upgrade` without permission.
    #[error("{0} is not allowed by any route (upgrade_refused)")]
    Upgrade(&'static str),
    /// `maxRequests`.
    #[error("{cluster} has its limit of {limit} requests under way")]
    Overflow { cluster: String, limit: u32 },
    /// Its source has its share of what all sources use.
    #[error("{OVERFLOW_SENTENCE}")]
    SourceOverflow,
    /// More requests at once on an HTTP/2 connection than its settings allow.
    #[error("its HTTP/2 connection has its limit of {limit} requests under way")]
    StreamOverflow { limit: u32 },
    /// A rate limit.
    #[error("{0} (rate_limited)")]
    RateLimited(Limited),
    /// No connection.
    #[error("{0}")]
    Dial(DialError),
    /// No TLS. Without an address no connection was opened: what the rule asks for is missing.
    #[error("{error}")]
    Tls { error: TlsError, addr: Option<UpstreamAddr> },
    /// HTTP/2 was needed, and the upstream doesn't speak it.
    #[error("{host} does not speak HTTP/2: {why}")]
    NotHttp2 { host: Host, addr: UpstreamAddr, why: String },
    /// The connection ended before a byte of the response.
    #[error("the upstream closed the connection before it answered")]
    Closed,
    /// The connection or stream broke before the response's head was complete.
    #[error("the upstream reset the connection before it answered: {0}")]
    Reset(String),
    /// The response broke off in the middle of its head.
    #[error("the upstream's answer broke off in its head: {0}")]
    Broken(String),
    /// The connection ended (HTTP/2 GOAWAY) before the upstream took the request.
    #[error("the upstream closed the connection before it took the request")]
    LeftOut,
    /// HTTP/2 `REFUSED_STREAM`.
    #[error("the upstream refused the stream")]
    RefusedStream,
    /// The upstream's message.
    #[error("the upstream's response can't be read: {0}")]
    Protocol(BadMessage),
    /// A status that the route tries again.
    #[error("the upstream answered {0}, which the route tries again")]
    RetriableStatus(StatusCode),
    /// The route's timeout.
    #[error("the upstream did not answer within the route's timeout")]
    Timeout,
    /// One try's timeout.
    #[error("the upstream did not answer within the time of one try")]
    TryTimeout,
    /// Nothing moved.
    #[error("nothing moved for too long")]
    StreamIdle,
    /// The client stopped sending.
    #[error("the request's body stopped arriving")]
    BodyTimeout,
    /// The client's body.
    #[error("the request's body: {0}")]
    Body(RecvError),
    /// The client went away.
    #[error("the client went away")]
    Gone,
    /// A fault of this program.
    #[error("the gateway failed; its log says why")]
    Panicked,
}

impl Failure {
    /// What happened, without the reason's name beside it.
    pub(super) fn sentence(&self) -> String {
        if let Self::Denied(denied) = self {
            return denied.detail.clone();
        }
        if let Self::RateLimited(limited) = self {
            return limited.to_string();
        }
        self.to_string()
    }

    /// Whether the upstream has processed nothing of the request (RFC 9113 §6.8, §8.7): then sending it
    /// again is safe, whatever its method.
    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::LeftOut | Self::RefusedStream)
    }

    /// Status, flag, details and reason.
    pub(super) fn account(&self) -> FailureSummary {
        use ResponseFlag as Flag;
        let (status, flag, details, reason) = match self {
            Self::Bad(bad) => {
                (bad.status(), Flag::DownstreamProtocolError, bad.details(), Reason::BadRequest)
            }
            Self::HeadTimeout => (
                Some(StatusCode::REQUEST_TIMEOUT),
                Flag::DownstreamProtocolError,
                "request_header_timeout",
                Reason::Timeout,
            ),
            // Nothing is forbidden to ask here: as in Istio, the rules have no answer to it.
            Self::Denied(denied) if denied.reason == Reason::NoMatchingRule => {
                (Some(StatusCode::NOT_FOUND), Flag::NoRouteFound, "route_not_found", denied.reason)
            }
            // As the Gateway API has it for references that are not valid.
            Self::Denied(denied) if denied.reason == Reason::InvalidRoute => (
                Some(StatusCode::INTERNAL_SERVER_ERROR),
                Flag::NoRouteFound,
                "route_not_found",
                denied.reason,
            ),
            // The path has no single meaning, as Envoy says it.
            Self::Denied(denied) if denied.reason == Reason::BadRequest => (
                Some(StatusCode::BAD_REQUEST),
                Flag::DownstreamProtocolError,
                "path_normalization_failed",
                denied.reason,
            ),
            Self::Denied(denied) => {
                (Some(StatusCode::FORBIDDEN), Flag::NoRouteFound, "route_not_found", denied.reason)
            }
            Self::Upgrade(_) => (
                Some(StatusCode::FORBIDDEN),
                Flag::NoRouteFound,
                "upgrade_failed",
                Reason::UpgradeRefused,
            ),
            Self::Overflow { .. } => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamOverflow,
                "upstream_reset_before_response_started{overflow}",
                Reason::Overflow,
            ),
            Self::SourceOverflow => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamOverflow,
                OVERFLOW,
                Reason::Overflow,
            ),
            // The library resets it, which says that it may be sent again (RFC 9113 §8.7).
            Self::StreamOverflow { .. } => {
                (None, Flag::UpstreamOverflow, STREAM_OVERFLOW, Reason::Overflow)
            }
            Self::RateLimited(_) => (
                Some(StatusCode::TOO_MANY_REQUESTS),
                Flag::RateLimited,
                RATE_LIMITED,
                Reason::RateLimited,
            ),
            Self::Dial(error) => return dial_account(error),
            Self::Tls { error, .. } => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamConnectionFailure,
                "upstream_reset_before_response_started{connection_failure}",
                error.reason(),
            ),
            Self::NotHttp2 { .. } => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamConnectionFailure,
                "upstream_reset_before_response_started{connection_failure}",
                Reason::WrongProtocol,
            ),
            Self::Closed | Self::LeftOut => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamConnectionTermination,
                "upstream_reset_before_response_started{connection_termination}",
                Reason::Reset,
            ),
            Self::Reset(_) | Self::Broken(_) => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamConnectionTermination,
                "upstream_reset_before_response_started{connection_termination}",
                Reason::Reset,
            ),
            Self::RefusedStream => (
                Some(StatusCode::SERVICE_UNAVAILABLE),
                Flag::UpstreamRemoteReset,
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
                Reason::Reset,
            ),
            Self::Protocol(_) => (
                Some(StatusCode::BAD_GATEWAY),
                Flag::UpstreamProtocolError,
                "upstream_reset_before_response_started{protocol_error}",
                Reason::BadRequest,
            ),
            Self::RetriableStatus(status) => {
                (Some(*status), Flag::UpstreamRetryLimitExceeded, "via_upstream", Reason::Reset)
            }
            Self::Timeout => (
                Some(StatusCode::GATEWAY_TIMEOUT),
                Flag::UpstreamRequestTimeout,
                "response_timeout",
                Reason::Timeout,
            ),
            Self::TryTimeout => (
                Some(StatusCode::GATEWAY_TIMEOUT),
                Flag::UpstreamRequestTimeout,
                "upstream_per_try_timeout",
                Reason::Timeout,
            ),
            Self::StreamIdle => (
                Some(StatusCode::GATEWAY_TIMEOUT),
                Flag::StreamIdleTimeout,
                "stream_idle_timeout",
                Reason::Timeout,
            ),
            Self::BodyTimeout => (
                Some(StatusCode::REQUEST_TIMEOUT),
                Flag::StreamIdleTimeout,
                "stream_idle_timeout",
                Reason::Timeout,
            ),
            Self::Body(RecvError::Bad(bad)) => {
                (bad.status(), Flag::DownstreamProtocolError, bad.details(), Reason::BadRequest)
            }
            Self::Body(RecvError::Truncated | RecvError::Io(_)) | Self::Gone => (
                None,
                Flag::DownstreamConnectionTermination,
                "downstream_remote_disconnect",
                Reason::Reset,
            ),
            Self::Panicked => (
                Some(StatusCode::INTERNAL_SERVER_ERROR),
                Flag::LocalReset,
                INTERNAL_ERROR,
                Reason::Reset,
            ),
        };
        FailureSummary { status, flag, details, reason }
    }

    /// The address that was tried, where there is no connection that knows it.
    pub(super) fn upstream(&self) -> Option<UpstreamAddr> {
        match self {
            Self::Dial(error) => error.upstream(),
            Self::Tls { addr, .. } => *addr,
            Self::NotHttp2 { addr, .. } => Some(*addr),
            Self::Bad(_)
            | Self::HeadTimeout
            | Self::Denied(_)
            | Self::Upgrade(_)
            | Self::Overflow { .. }
            | Self::SourceOverflow
            | Self::StreamOverflow { .. }
            | Self::RateLimited(_)
            | Self::Closed
            | Self::Reset(_)
            | Self::Broken(_)
            | Self::LeftOut
            | Self::RefusedStream
            | Self::Protocol(_)
            | Self::RetriableStatus(_)
            | Self::Timeout
            | Self::TryTimeout
            | Self::StreamIdle
            | Self::BodyTimeout
            | Self::Body(_)
            | Self::Gone
            | Self::Panicked => None,
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(super) fn transport(&self) -> Option<String> {
        match self {
            Self::Dial(_)
            | Self::Tls { .. }
            | Self::NotHttp2 { .. }
            | Self::Closed
            | Self::Reset(_)
            | Self::Broken(_)
            | Self::LeftOut
            | Self::RefusedStream
            | Self::Protocol(_) => Some(self.to_string()),
            Self::Bad(_)
            | Self::HeadTimeout
            | Self::Denied(_)
            | Self::Upgrade(_)
            | Self::Overflow { .. }
            | Self::SourceOverflow
            | Self::StreamOverflow { .. }
            | Self::RateLimited(_)
            | Self::RetriableStatus(_)
            | Self::Timeout
            | Self::TryTimeout
            | Self::StreamIdle
            | Self::BodyTimeout
            | Self::Body(_)
            | Self::Gone
            | Self::Panicked => None,
        }
    }

    /// Whether policy refuses it.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Denied(_)
                | Self::Upgrade(_)
                | Self::RateLimited(_)
                | Self::Dial(DialError::AddressRefused { .. })
        )
    }

    /// The answer's one line, for the person who sent the request.
    pub(super) fn body(&self, authority: Option<&str>) -> String {
        let host = authority.unwrap_or("this request");
        if self.is_refusal() {
            return format!("{host} is refused by the egress gateway: {self}\n");
        }
        match self {
            Self::Bad(_) | Self::HeadTimeout | Self::BodyTimeout | Self::Body(_) => {
                format!("bad request: {self}\n")
            }
            Self::Denied(_)
            | Self::Upgrade(_)
            | Self::RateLimited(_)
            | Self::Overflow { .. }
            | Self::SourceOverflow
            | Self::StreamOverflow { .. }
            | Self::Dial(_)
            | Self::Tls { .. }
            | Self::NotHttp2 { .. }
            | Self::Closed
            | Self::Reset(_)
            | Self::Broken(_)
            | Self::LeftOut
            | Self::RefusedStream
            | Self::Protocol(_)
            | Self::RetriableStatus(_)
            | Self::Timeout
            | Self::TryTimeout
            | Self::StreamIdle
            | Self::Gone
            | Self::Panicked => {
                format!("{host} can't be reached through the egress gateway: {self}\n")
            }
        }
    }
}
