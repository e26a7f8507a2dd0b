//! A request or connection at the gateway as a log record.

use std::time::Duration;

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attributes::{Attributes, body, nanoseconds};
use crate::telemetry::{AccessLogEntry, ResponseFlags};

/// The record. `line` is the access log's.
pub(super) fn record(entry: &AccessLogEntry, line: &str) -> LogRecord {
    let (severity, text) = match entry.reason {
        None => (SeverityNumber::Info, "INFO"),
        Some(_) => (SeverityNumber::Warn, "WARN"),
    };
    let span = entry.span.as_deref();
    LogRecord {
        time_unix_nano: nanoseconds(entry.start_time),
        observed_time_unix_nano: nanoseconds(entry.start_time + entry.duration),
        severity_number: severity.into(),
        severity_text: text.into(),
        body: body(line),
        attributes: attributes(entry).into_pairs(),
        flags: span.map_or(0, |span| u32::from(span.sampled)),
        trace_id: span.map(|span| span.trace_id.into()).unwrap_or_default(),
        span_id: span.map(|span| span.span_id.into()).unwrap_or_default(),
        event_name: match entry.protocol {
            Some(_) => "egress.request".into(),
            None => "egress.connection".into(),
        },
        ..LogRecord::default()
    }
}

/// What is known of it: the names of OpenTelemetry's semantic conventions where there is one, and `egress.…`
/// for the rest.
pub(super) fn attributes(entry: &AccessLogEntry) -> Attributes {
    let mut all = Attributes::default();
    let path = entry.path.as_deref().map(|path| path.split_once('?').unwrap_or((path, "")));
    let host = entry.authority.as_deref().or(entry.requested_server_name.as_deref());
    let version = match entry.protocol {
        Some(http::Version::HTTP_10) => Some("1.0"),
        Some(http::Version::HTTP_11) => Some("1.1"),
        Some(http::Version::HTTP_2) => Some("2"),
        _ => None,
    };
    let client = entry.downstream_remote;
    let upstream = entry.upstream_host.map(|upstream| upstream.0);
    all.text("http.request.method", entry.method.as_ref().map(http::Method::as_str));
    all.text("url.path", path.map(|(path, _)| path));
    all.text("url.query", path.map(|(_, query)| query));
    all.text("server.address", host);
    all.number("server.port", Some(entry.downstream_local.0.port()));
    let status = (entry.response_code != 0).then_some(entry.response_code);
    all.number("http.response.status_code", status);
    all.text("user_agent.original", entry.user_agent.as_deref());
    all.text("network.protocol.name", entry.protocol.map(|_| "http"));
    all.text("network.protocol.version", version);
    all.shown("client.address", Some(client.ip().to_canonical()));
    all.number("client.port", Some(client.0.port()));
    all.shown("network.peer.address", upstream.map(|upstream| upstream.ip().to_canonical()));
    all.number("network.peer.port", upstream.map(|upstream| upstream.port()));
    all.text("tls.client.server_name", entry.requested_server_name.as_deref());
    let workload = entry.workload.as_deref();
    all.text("egress.workload", workload.map(|workload| &*workload.name));
    all.text("egress.workload_namespace", workload.map(|workload| &*workload.namespace.0));
    all.text("egress.reason", entry.reason.map(|reason| reason.name()));
    all.text("egress.detail", entry.detail.as_deref());
    all.text("egress.audit", entry.audit.as_deref());
    let flags = (entry.response_flags != ResponseFlags::default()).then_some(entry.response_flags);
    all.shown("egress.response_flags", flags);
    all.text("egress.response_code_details", entry.response_code_details.as_deref());
    let details = entry.connection_termination_details.as_deref();
    all.text("egress.connection_termination_details", details);
    all.text("egress.upstream_cluster", entry.upstream_cluster.as_ref().map(|name| &*name.0));
    all.text("egress.upstream_failure", entry.upstream_failure.as_deref());
    all.text("egress.downstream_failure", entry.downstream_failure.as_deref());
    all.text("egress.route", entry.route_name.as_deref());
    all.text("egress.request_id", entry.request_id.as_deref());
    all.shown("egress.trace_id", entry.trace_id());
    all.number("egress.bytes_received", Some(entry.bytes_received));
    all.number("egress.bytes_sent", Some(entry.bytes_sent));
    all.number("egress.duration_ms", Some(milliseconds(entry.duration)));
    all.number("egress.upstream_service_time_ms", entry.upstream_service_time.map(milliseconds));
    all.holds("egress.encrypted_client_hello", entry.encrypted_hello);
    all
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
