//! `connectionPool` and `outlierDetection` of a traffic policy.

use std::time::Duration;

use super::{
    super::{
        decode::{Cx, Spanned},
        destination_rule::{
            ConnectionPoolSettings, H2Upgrade, HttpPool, OutlierSettings,
            RetryBudget as RetryBudgetMirror, TcpPool,
        },
    },
    durations::{self, SHORTEST},
    keepalive::keepalive,
};
use crate::policy::{ConnectionPool, HttpVersion, OutlierDetection, RetryBudget};

/// And the version of HTTP that is asked for, where one is.
pub(super) fn connection_pool_of(
    settings: &ConnectionPoolSettings,
    cx: &mut Cx<'_>,
) -> (ConnectionPool, Option<HttpVersion>) {
    let mut pool = ConnectionPool::default();
    let mut version = None;
    let not_zero = |limit: &Option<Spanned<u32>>, cx: &mut Cx<'_>| {
        let limit = limit.as_ref()?;
        if limit.value == 0 {
            cx.wrong(&limit.at, "0", "a number above 0", "this would refuse everything");
        }
        Some(limit.value)
    };
    if let Some(tcp) = &settings.tcp {
        let TcpPool {
            at: _,
            max_connections,
            connect_timeout,
            idle_timeout,
            tcp_keepalive,
            max_connection_duration,
        } = tcp;
        pool.max_connections = not_zero(max_connections, cx).unwrap_or(pool.max_connections);
        if let Some(timeout) = connect_timeout {
            if timeout.value < SHORTEST {
                let found = format!("{:?}", timeout.value);
                cx.wrong(&timeout.at, found, "at least 1ms", "no connection could be made");
            } else {
                durations::warn_of_parts(Some(timeout), cx);
            }
            pool.connect_timeout = timeout.value;
        }
        durations::warn_of(idle_timeout.as_ref(), cx);
        if let Some(timeout) = idle_timeout {
            pool.idle_timeout = timeout.value;
            pool.tcp_idle_timeout = (!timeout.value.is_zero()).then_some(timeout.value);
        }
        pool.keepalive = tcp_keepalive.as_ref().map(|settings| keepalive(settings, cx));
        pool.max_connection_duration = max_connection_duration.as_ref().map(|most| {
            if most.value < SHORTEST {
                let found = format!("{:?}", most.value);
                cx.wrong(&most.at, found, "at least 1ms", "no connection could be used");
            } else {
                durations::warn_of_parts(Some(most), cx);
            }
            most.value
        });
    }
    if let Some(http) = &settings.http {
        let HttpPool {
            at: _,
            http2_max_requests,
            http1_max_pending_requests,
            max_requests_per_connection,
            idle_timeout,
            h2_upgrade_policy,
            use_client_protocol,
            max_concurrent_streams,
            max_retries,
        } = http;
        let pending = not_zero(http1_max_pending_requests, cx);
        pool.max_requests =
            not_zero(http2_max_requests, cx).or(pending).unwrap_or(pool.max_requests);
        pool.max_requests_per_connection =
            max_requests_per_connection.as_ref().map_or(0, |max| max.value);
        durations::warn_of(idle_timeout.as_ref(), cx);
        pool.idle_timeout = idle_timeout.as_ref().map_or(pool.idle_timeout, |t| t.value);
        pool.max_concurrent_streams =
            not_zero(max_concurrent_streams, cx).unwrap_or(pool.max_concurrent_streams);
        // Zero is Istio's default, which is no limit.
        let retries = max_retries.as_ref().filter(|retries| retries.value != 0);
        pool.max_retries = retries.map_or(u32::MAX, |retries| retries.value);
        let upgrade = h2_upgrade_policy.as_ref().filter(|p| p.value == H2Upgrade::Upgrade);
        let client = use_client_protocol.as_ref().is_some_and(|client| client.value);
        if let Some(upgrade) = upgrade.filter(|_| client) {
            cx.warn(&upgrade.at, "has no effect beside useClientProtocol");
        }
        version = match (client, upgrade) {
            (true, _) => Some(HttpVersion::Client),
            (false, Some(_)) => Some(HttpVersion::Http2),
            (false, None) => None,
        };
    }
    (pool, version)
}

pub(super) fn retry_budget_of(settings: &RetryBudgetMirror, cx: &mut Cx<'_>) -> RetryBudget {
    let RetryBudgetMirror { at: _, percent, min_retry_concurrency } = settings;
    let percent = percent.as_ref().map_or(20.0, |percent| {
        if !(0.0..=100.0).contains(&percent.value) {
            cx.wrong(&percent.at, percent.value.to_string(), "0 to 100", "not a percentage");
        }
        percent.value.clamp(0.0, 100.0)
    });
    let minimum = min_retry_concurrency.as_ref().map_or(3, |minimum| minimum.value);
    RetryBudget { percent, minimum }
}

pub(super) fn outlier_detection_of(
    settings: &OutlierSettings,
    cx: &mut Cx<'_>,
) -> Option<OutlierDetection> {
    let OutlierSettings {
        at: _,
        consecutive_5xx_errors,
        consecutive_gateway_errors,
        consecutive_errors,
        base_ejection_time,
        max_ejection_percent,
        split_local_origin,
        consecutive_local_origin,
    } = settings;
    let splits = split_local_origin.as_ref().is_some_and(|split| split.value);
    let own = consecutive_local_origin.as_ref().filter(|own| own.value > 0);
    if let Some(own) = own.filter(|_| !splits) {
        let message = "such failures count by themselves only with splitExternalLocalOriginErrors";
        cx.wrong(&own.at, own.value.to_string(), "splitExternalLocalOriginErrors: true", message);
    }
    let local_origin_failures = splits.then(|| own.map_or(5, |own| own.value));
    // Zero is no number in the API that had it.
    let old = consecutive_errors.as_ref().filter(|errors| errors.value > 0);
    if let Some(old) = old {
        let message = match consecutive_5xx_errors {
            Some(_) => "has no effect beside consecutive5xxErrors",
            None => "Istio ignores this field; here it counts as consecutive5xxErrors",
        };
        cx.warn(&old.at, message);
    }
    let errors = consecutive_5xx_errors.as_ref().or(old).map_or(5, |errors| errors.value);
    let gateway_errors = consecutive_gateway_errors.as_ref().map_or(0, |errors| errors.value);
    let percent = max_ejection_percent.as_ref();
    let max_ejection_percent = percent.map_or(10, |percent| {
        u8::try_from(percent.value).ok().filter(|p| *p <= 100).unwrap_or_else(|| {
            cx.wrong(&percent.at, percent.value.to_string(), "0 to 100", "not a percentage");
            100
        })
    });
    let base = base_ejection_time.as_ref();
    durations::warn_of(base, cx);
    (errors > 0 || gateway_errors > 0 || splits).then(|| OutlierDetection {
        consecutive_errors: errors,
        gateway_errors,
        local_origin_failures,
        base_ejection_time: base.map_or(Duration::from_secs(30), |t| t.value),
        max_ejection_percent,
    })
}
