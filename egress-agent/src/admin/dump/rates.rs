//! Rate limits in `/config_dump`.

use serde_json::{Value, json};

use crate::policy::{Rate, RateLimit};

/// A limit, and who sets it.
pub(super) fn rate_limit(limit: &RateLimit) -> Value {
    let rate = |rate: &Rate| json!({ "perSecond": rate.per_second, "burst": rate.burst });
    json!({
        "name": &*limit.label,
        "requests": limit.requests.as_ref().map(rate),
        "connections": limit.connections.as_ref().map(rate),
        "bytes": limit.bytes.as_ref().map(rate),
    })
}
