//! An HTTP request at the gateway as a span.

use opentelemetry_proto::tonic::trace::v1::{self as proto, span::SpanKind, status::StatusCode};

use super::{Span, attributes::nanoseconds, entries::attributes};
use crate::telemetry::AccessLogEntry;

/// Says that the next flag is known, and that the parent is of another process.
const HAS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The span.
pub(super) fn span(entry: &AccessLogEntry, span: &Span) -> proto::Span {
    let Span { trace_id, span_id, parent_id, sampled, state } = span;
    let remote = if parent_id.is_some() { IS_REMOTE } else { 0 };
    proto::Span {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        trace_state: state.clone(),
        parent_span_id: parent_id.map(Vec::from).unwrap_or_default(),
        flags: u32::from(*sampled) | HAS_REMOTE | remote,
        name: name(entry.method.as_ref()).into(),
        // As Envoy's spans of requests that leave the mesh.
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanoseconds(entry.start_time),
        end_time_unix_nano: nanoseconds(entry.start_time + entry.duration),
        attributes: attributes(entry).into_pairs(),
        status: status(entry),
        ..proto::Span::default()
    }
}

/// The method, where it is one of the standard: a client can send any word.
fn name(method: Option<&http::Method>) -> &'static str {
    match method.map(http::Method::as_str) {
        Some("GET") => "GET",
        Some("HEAD") => "HEAD",
        Some("POST") => "POST",
        Some("PUT") => "PUT",
        Some("DELETE") => "DELETE",
        Some("CONNECT") => "CONNECT",
        Some("OPTIONS") => "OPTIONS",
        Some("TRACE") => "TRACE",
        Some("PATCH") => "PATCH",
        Some(_) | None => "HTTP",
    }
}

/// An error where the request failed or was refused, as the conventions have it for clients (status 400
/// and above).
fn status(entry: &AccessLogEntry) -> Option<proto::Status> {
    if entry.reason.is_none() && entry.response_code < 400 && entry.response_code != 0 {
        return None;
    }
    let detail = entry.detail.as_deref().or(entry.upstream_failure.as_deref());
    let message = detail.unwrap_or_default().to_owned();
    Some(proto::Status { message, code: StatusCode::Error.into() })
}
