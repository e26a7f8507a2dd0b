//! What is logged about a failure.

use egress_ebpf::reason::Reason;
use http::StatusCode;

use crate::{
    net::{DialError, ResolveError},
    telemetry::ResponseFlag,
};

/// What is logged about a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct FailureSummary {
    /// What the client is told; `None` where there is nobody to tell.
    pub(in super::super) status: Option<StatusCode>,
    pub(in super::super) flag: ResponseFlag,
    /// In Envoy's words.
    pub(in super::super) details: &'static str,
    pub(in super::super) reason: Reason,
}

/// That of a connection to an upstream that could not be made.
pub(super) fn dial_account(error: &DialError) -> FailureSummary {
    use ResponseFlag as Flag;
    let (status, flag, details) = match error {
        DialError::AddressRefused { .. } => {
            (StatusCode::FORBIDDEN, Flag::NoRouteFound, "route_not_found")
        }
        DialError::NoHealthyUpstream { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, Flag::NoHealthyUpstream, "no_healthy_upstream")
        }
        DialError::Resolve { why: ResolveError::Overflow, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, Flag::DropOverload, "dns_resolution_overload")
        }
        DialError::Resolve { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectionFailure,
            "dns_resolution_failure",
        ),
        // What Envoy says where a connection can't be bound.
        DialError::From { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{local_connection_failure}",
        ),
        DialError::Overflow { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamOverflow,
            "upstream_reset_before_response_started{overflow}",
        ),
        DialError::Timeout { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{connection_timeout}",
        ),
        DialError::Connect { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            Flag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure}",
        ),
    };
    FailureSummary { status: Some(status), flag, details, reason: error.reason() }
}
