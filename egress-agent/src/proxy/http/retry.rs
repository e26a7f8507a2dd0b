//! Which tries are followed by another.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use super::{failure::Failure, response::Response};
use crate::policy::RetryOn;

/// Whether a response is to be tried again.
pub(super) fn on_response(on: &RetryOn, response: &Response) -> bool {
    let grpc = || {
        let status = response.headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        Some(on.grpc_statuses.contains(&status))
    };
    on.status(response.status) || grpc().unwrap_or(false)
}

/// Whether a try that brought no response is to be made again.
pub(super) fn on_failure(on: &RetryOn, failure: &Failure) -> bool {
    let reset = on.reset || on.server_error || on.gateway_error;
    match failure {
        Failure::Dial(_) | Failure::Tls { .. } | Failure::NotHttp2 { .. } => {
            on.connect_failure || on.server_error || on.gateway_error
        }
        Failure::RefusedStream => on.refused_stream || reset,
        Failure::Closed | Failure::Reset(_) | Failure::TryTimeout => reset,
        Failure::Bad(_)
        | Failure::HeadTimeout
        | Failure::Denied(_)
        | Failure::Upgrade(_)
        | Failure::Overflow { .. }
        | Failure::Protocol(_)
        | Failure::RetriableStatus(_)
        | Failure::Timeout
        | Failure::StreamIdle
        | Failure::Body(_)
        | Failure::Gone => false,
    }
}

/// A random part of `pause`, so that clients don't return in step.
pub(super) fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 256;
    pause.mul_f64((random as f64) / 256.0)
}
