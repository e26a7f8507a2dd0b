//! JSON forms of lists and durations.

use std::time::Duration;

use serde_json::Value;

pub(super) fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    items.iter().map(one).collect()
}

/// Protobuf's JSON form, as in Istio's resources.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
