//! Which tries are followed by another.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use super::{failure::Failure, response::Response};
use crate::{net::DialError, policy::RetryOn, tls::TlsError};

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
        Failure::Dial(DialError::Connect { .. } | DialError::Timeout { .. })
        | Failure::Tls { error: TlsError::Broken { .. } | TlsError::Timeout { .. }, .. } => {
            on.connect_failure || on.server_error || on.gateway_error
        }
        Failure::RefusedStream | Failure::LeftOut => on.refused_stream || reset,
        Failure::Closed | Failure::Reset(_) | Failure::Broken(_) | Failure::TryTimeout => reset,
        Failure::Bad(_)
        | Failure::HeadTimeout
        | Failure::Denied(_)
        | Failure::Upgrade(_)
        | Failure::Overflow { .. }
        | Failure::SourceOverflow
        | Failure::StreamOverflow { .. }
        | Failure::RateLimited(_)
        // Another try would find the same: the policy, the limit, the certificate.
        | Failure::Dial(
            DialError::Resolve { .. }
            | DialError::AddressRefused { .. }
            | DialError::NoHealthyUpstream { .. }
            | DialError::From { .. }
            | DialError::Overflow { .. },
        )
        | Failure::Tls { .. }
        | Failure::NotHttp2 { .. }
        | Failure::Protocol(_)
        | Failure::RetriableStatus(_)
        | Failure::Timeout
        | Failure::StreamIdle
        | Failure::BodyTimeout
        | Failure::Body(_)
        | Failure::Gone
        | Failure::Panicked => false,
    }
}

/// A random part of `pause`, so that clients don't return in step.
pub(super) fn jitter(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 256;
    pause.mul_f64((random as f64) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UpstreamAddr;

    #[test]
    fn a_failed_dial_is_retried_but_not_a_refused_one() {
        let on = RetryOn { connect_failure: true, server_error: true, ..RetryOn::default() };
        let cluster = || "outbound|443||a.example".to_owned();
        let silent = UpstreamAddr("192.0.2.1:80".parse().unwrap());
        let timeout = DialError::Timeout { addr: silent, after: Duration::from_secs(1) };
        assert!(on_failure(&on, &Failure::Dial(timeout)));
        let unhealthy = Failure::Dial(DialError::NoHealthyUpstream { cluster: cluster() });
        assert!(!on_failure(&on, &unhealthy));
        let addr = std::net::Ipv4Addr::LOCALHOST.into();
        let refused = Failure::Dial(DialError::AddressRefused { host: "a.example".into(), addr });
        assert!(!on_failure(&on, &refused));
        let full = Failure::Dial(DialError::Overflow { cluster: cluster(), limit: 1 });
        assert!(!on_failure(&on, &full));
    }
}
