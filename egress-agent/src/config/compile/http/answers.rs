//! What a rule does with a request: rewrite, answer, retry, faults.

use bytes::Bytes;
use data_encoding::BASE64;

use super::super::durations::{self, SHORTEST};
use crate::config::{
    decode::{Cx, SourcePosition, Spanned, nearest},
    fault::{Abort as AbortMirror, Delay as DelayMirror, Fault, Percentage},
    names,
    virtual_service::{DirectResponse, RegexRewrite, ResponseBody, Retries, Rewrite},
};
use crate::policy::{Abort, Delay, HttpOutcome, PathRewrite, RetryOn, RetryPolicy};

pub(super) fn path_rewrite(rewrite: &Rewrite, cx: &mut Cx<'_>) -> PathRewrite {
    let Rewrite { at, uri, authority: _, uri_regex_rewrite } = rewrite;
    match (uri, uri_regex_rewrite) {
        (None, None) => PathRewrite::Keep,
        (Some(uri), None) => {
            if !is_path(&uri.value) {
                cx.wrong(&uri.at, format!("{:?}", uri.value), "a path", "not a path");
            }
            PathRewrite::Replace(uri.value.as_str().into())
        }
        (None, Some(RegexRewrite { at: _, pattern, rewrite })) => match (pattern, rewrite) {
            (Some(pattern), Some(rewrite)) => match names::regex(pattern, cx) {
                Some(regex) => PathRewrite::Regex(regex, substitution(&rewrite.value).into()),
                None => PathRewrite::Keep,
            },
            _ => PathRewrite::Keep,
        },
        (Some(_), Some(_)) => {
            cx.wrong(at, "uri and uriRegexRewrite", "one of them", "a path is rewritten once");
            PathRewrite::Keep
        }
    }
}

/// Printable ASCII without spaces, so that it can stand in a request line.
pub(super) fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// RE2's `\1` to `${1}`.
fn substitution(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

pub(super) fn status_code(number: u32) -> Option<http::StatusCode> {
    http::StatusCode::from_u16(u16::try_from(number).ok()?).ok()
}

/// Whether a status is registered, as Istio asks of those to retry on.
fn is_known(status: http::StatusCode) -> bool {
    status.canonical_reason().is_some()
}

/// A status of a final response.
fn final_status(number: &Spanned<u32>, cx: &mut Cx<'_>) -> http::StatusCode {
    match status_code(number.value).filter(|status| (200..600).contains(&status.as_u16())) {
        Some(status) => status,
        None => {
            cx.wrong(
                &number.at,
                number.value.to_string(),
                "200 to 599",
                "not the status of a response",
            );
            http::StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

pub(super) fn direct(response: &DirectResponse, cx: &mut Cx<'_>) -> HttpOutcome {
    let DirectResponse { at: _, status, body } = response;
    let status = status
        .as_ref()
        .map_or(http::StatusCode::INTERNAL_SERVER_ERROR, |status| final_status(status, cx));
    HttpOutcome::Respond(status, body.as_ref().map_or_else(Bytes::new, |body| content(body, cx)))
}

fn content(body: &ResponseBody, cx: &mut Cx<'_>) -> Bytes {
    let ResponseBody { at, string, bytes } = body;
    if string.is_some() && bytes.is_some() {
        cx.wrong(at, "string and bytes", "one of them", "there is one body");
    }
    match (string, bytes) {
        (Some(text), _) => text.value.clone().into(),
        (None, Some(encoded)) => match BASE64.decode(encoded.value.as_bytes()) {
            Ok(bytes) => bytes.into(),
            Err(_) => {
                let found = format!("{:?}", encoded.value);
                cx.wrong(&encoded.at, found, "base64 with padding", "not the bytes of a body");
                Bytes::new()
            }
        },
        (None, None) => Bytes::new(),
    }
}

pub(super) fn retry(retries: &Retries, cx: &mut Cx<'_>) -> RetryPolicy {
    let Retries { at, attempts, per_try_timeout, retry_on, backoff } = retries;
    let default = RetryPolicy::default();
    durations::warn_of(per_try_timeout.as_ref(), cx);
    durations::warn_of_parts(backoff.as_ref().filter(|backoff| backoff.value >= SHORTEST), cx);
    if let Some(short) = backoff.as_ref().filter(|backoff| backoff.value < SHORTEST) {
        let found = format!("{:?}", short.value);
        cx.wrong(&short.at, found, "at least 1ms", "an upstream in trouble would be flooded");
    }
    let conditional = per_try_timeout.is_some() || retry_on.is_some() || backoff.is_some();
    if conditional && attempts.as_ref().is_none_or(|attempts| attempts.value == 0) {
        cx.wrong(
            &at.field("attempts"),
            attempts.as_ref().map_or("nothing, which is 0", |_| "0"),
            "a number above 0",
            "conditions for retries that are never made",
        );
    }
    RetryPolicy {
        attempts: attempts.as_ref().map_or(0, |attempts| {
            if attempts.value > 100 {
                cx.wrong(
                    &attempts.at,
                    attempts.value.to_string(),
                    "at most 100",
                    "too many attempts",
                );
            }
            attempts.value
        }),
        per_try_timeout: per_try_timeout.as_ref().map(|t| t.value).filter(|t| !t.is_zero()),
        retry_on: retry_on.as_ref().map_or(default.retry_on, |text| conditions(text, cx)),
        backoff: backoff.as_ref().map_or(default.backoff, |backoff| backoff.value.max(SHORTEST)),
    }
}

fn conditions(text: &Spanned<String>, cx: &mut Cx<'_>) -> RetryOn {
    const KNOWN: [&str; 12] = [
        "connect-failure",
        "refused-stream",
        "reset",
        "5xx",
        "gateway-error",
        "retriable-4xx",
        "retriable-status-codes",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let mut on = RetryOn::default();
    for word in text.value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "reset" | "reset-before-request" => on.reset = true,
            // Envoy counts the absence of a response as a server's error.
            "5xx" => {
                on.server_error = true;
                on.reset = true;
                on.connect_failure = true;
                on.refused_stream = true;
            }
            "gateway-error" => {
                on.gateway_error = true;
                on.reset = true;
                on.connect_failure = true;
            }
            "retriable-4xx" => on.retriable_4xx = true,
            "retriable-status-codes" => on.statuses.push(503),
            "cancelled" => on.grpc_statuses.push(1),
            "deadline-exceeded" => on.grpc_statuses.push(4),
            "resource-exhausted" => on.grpc_statuses.push(8),
            "internal" => on.grpc_statuses.push(13),
            "unavailable" => on.grpc_statuses.push(14),
            number if number.parse().ok().and_then(status_code).is_some_and(is_known) => {
                on.statuses.extend(number.parse::<u16>());
            }
            unknown => {
                let hint = nearest(unknown, KNOWN.into_iter());
                let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
                let expected = format!("a status code or one of {}", KNOWN.join(", "));
                cx.wrong(
                    &text.at,
                    format!("{unknown:?}"),
                    expected,
                    format!("unknown condition{hint}"),
                );
            }
        }
    }
    on
}

pub(super) type Faults = (Option<(Delay, f64)>, Option<(Abort, f64)>);

pub(super) fn faults(fault: &Fault, cx: &mut Cx<'_>) -> Faults {
    let Fault { at: _, delay, abort } = fault;
    let delay = delay.as_ref().and_then(|delay| {
        let share = share(&delay.at, delay.percentage.as_ref(), delay.percent.as_ref(), cx);
        Some((delayed(delay, cx)?, share))
    });
    let abort = abort.as_ref().and_then(|abort| {
        if let Some(percent) = &abort.percent {
            let message = "the current API has no such field here, and an API server drops it; \
                           write percentage: {value}";
            cx.warn(&percent.at, message);
        }
        let share = share(&abort.at, abort.percentage.as_ref(), abort.percent.as_ref(), cx);
        Some((aborted(abort, cx)?, share))
    });
    (delay, abort)
}

fn delayed(delay: &DelayMirror, cx: &mut Cx<'_>) -> Option<Delay> {
    let DelayMirror { at, fixed_delay, exponential_delay, percentage: _, percent: _ } = delay;
    durations::warn_of(fixed_delay.as_ref().or(exponential_delay.as_ref()), cx);
    match (fixed_delay, exponential_delay) {
        (Some(fixed), None) => Some(Delay::Fixed(fixed.value)),
        (None, Some(mean)) => Some(Delay::Exponential(mean.value)),
        (None, None) => {
            cx.wrong(at, "neither", "fixedDelay or exponentialDelay", "no delay is given");
            None
        }
        (Some(_), Some(_)) => {
            let found = "fixedDelay and exponentialDelay";
            cx.wrong(at, found, "one of them", "a request waits once");
            None
        }
    }
}

fn aborted(abort: &AbortMirror, cx: &mut Cx<'_>) -> Option<Abort> {
    let AbortMirror { at, http_status, grpc_status, percentage: _, percent: _ } = abort;
    match (http_status, grpc_status) {
        (Some(status), None) => Some(Abort::Http(final_status(status, cx))),
        (None, Some(status)) => grpc(status, cx).map(Abort::Grpc),
        (None, None) => {
            cx.wrong(at, "neither", "httpStatus or grpcStatus", "no status is given");
            None
        }
        (Some(_), Some(_)) => {
            cx.wrong(at, "httpStatus and grpcStatus", "one of them", "there is one answer");
            None
        }
    }
}

/// The codes of gRPC, by number (`doc/statuscodes.md` of grpc/grpc).
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc(status: &Spanned<String>, cx: &mut Cx<'_>) -> Option<u8> {
    let named = GRPC_STATUSES.iter().position(|name| *name == status.value);
    let number = named.or_else(|| status.value.parse().ok());
    let known = number.filter(|number| *number < GRPC_STATUSES.len());
    let code = known.and_then(|number| u8::try_from(number).ok());
    if code.is_none() {
        let near = nearest(&status.value, GRPC_STATUSES.into_iter());
        let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
        let expected = format!("0 to 16, or one of {}", GRPC_STATUSES.join(", "));
        let message = format!("not a status of gRPC{hint}");
        cx.wrong(&status.at, format!("{:?}", status.value), expected, message);
    }
    code
}

/// A percentage as a share from 0 to 1. Without one it is 0, as Istio reads it.
fn share(
    fault: &SourcePosition,
    percentage: Option<&Percentage>,
    percent: Option<&Spanned<u32>>,
    cx: &mut Cx<'_>,
) -> f64 {
    let given = percentage.and_then(|percentage| percentage.value.as_ref());
    let (value, at) = match (given, percent) {
        (Some(value), _) => (value.value, &value.at),
        (None, Some(percent)) => (f64::from(percent.value), &percent.at),
        (None, None) => {
            let message = "has no effect: without percentage.value the fault is for no request, \
                           as in Istio";
            cx.warn(fault, message);
            return 0.0;
        }
    };
    if !(0.0..=100.0).contains(&value) {
        cx.wrong(at, value.to_string(), "0 to 100", "not a percentage");
    }
    value / 100.0
}
