//! How long to wait after an error.

use std::time::Duration;

/// The first pause, and the longest.
pub(super) const SOONEST: Duration = Duration::from_millis(200);
pub(super) const LATEST: Duration = Duration::from_secs(5);

/// After so many errors in a row. Thousands of agents must not come back at one moment, so it is partly random.
pub(super) fn pause(errors: u32) -> Duration {
    let doubled = SOONEST * 2_u32.saturating_pow(errors.min(10));
    let random = uuid::Uuid::new_v4().as_u128() % 256;
    doubled.min(LATEST).mul_f64(0.5 + f64::from(u8::try_from(random).unwrap_or(0)) / 512.0)
}
