//! What a rule does with a request: rewrite, redirect, answer, retry, faults.

use std::time::Duration;

use crate::config::{
    decode::{At, Cx, Spot, nearest},
    names,
    virtual_service::{
        Abort, Delay, DerivePort, DirectResponse, Fault, Percentage, Redirect as RedirectMirror,
        RegexRewrite, Retries, Rewrite,
    },
};
use crate::policy::{HttpOutcome, PathRewrite, Redirect, RedirectPort, RetryOn, RetryPolicy};

/// Warns of a duration of zero, which stands for none here.
pub(super) fn zero(at: &Spot, cx: &mut Cx<'_>) {
    let message = "a current API server refuses durations below 1ms; leave the field out";
    cx.warn(at, message).found = Some("0s".into());
}

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
fn is_path(text: &str) -> bool {
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

pub(super) fn redirect(mirror: &RedirectMirror, cx: &mut Cx<'_>) -> Redirect {
    let RedirectMirror { at, uri, authority, port, derive_port, scheme, redirect_code } = mirror;
    let changes = [uri, authority, scheme].into_iter().flatten().any(|text| !text.value.is_empty());
    if !changes && port.is_none() && derive_port.is_none() {
        let expected = "uri, authority, scheme, port or derivePort";
        cx.wrong(at, "none of them", expected, "a redirect to the very same place");
    }
    if let (Some(_), Some(derive)) = (port, derive_port) {
        cx.warn(&derive.at, "has no effect beside port; the current API takes one of the two");
    }
    let status = redirect_code.as_ref().map_or(301, |code| {
        if !matches!(code.value, 301 | 302 | 303 | 307 | 308) {
            let found = code.value.to_string();
            cx.wrong(&code.at, found, "301, 302, 303, 307 or 308", "not a redirect's status");
        }
        code.value
    });
    if let Some(scheme) = scheme.as_ref().filter(|s| !matches!(s.value.as_str(), "http" | "https"))
    {
        cx.wrong(&scheme.at, format!("{:?}", scheme.value), "http or https", "unknown scheme");
    }
    for text in [uri, authority].into_iter().flatten().filter(|text| !is_path(&text.value)) {
        cx.wrong(
            &text.at,
            format!("{:?}", text.value),
            "characters that a URL may hold",
            "not part of a URL",
        );
    }
    let text = |text: &Option<At<String>>| text.as_ref().map(|text| text.value.as_str().into());
    Redirect {
        status: status_code(status).unwrap_or(http::StatusCode::MOVED_PERMANENTLY),
        scheme: text(scheme),
        authority: text(authority),
        port: match (port, derive_port.as_ref().map(|derive| derive.value)) {
            (Some(port), _) => RedirectPort::Port(port.value),
            (None, Some(DerivePort::FromRequestPort)) => RedirectPort::Request,
            (None, None | Some(DerivePort::FromProtocolDefault)) => RedirectPort::Default,
        },
        path: text(uri),
    }
}

fn status_code(number: u32) -> Option<http::StatusCode> {
    http::StatusCode::from_u16(u16::try_from(number).ok()?).ok()
}

/// Whether a status is registered, as Istio asks of those to retry on.
fn is_known(status: http::StatusCode) -> bool {
    status.canonical_reason().is_some()
}

/// A status of a final response.
fn final_status(number: &At<u32>, cx: &mut Cx<'_>) -> http::StatusCode {
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
    let text = body.as_ref().and_then(|body| body.string.as_ref());
    HttpOutcome::Respond(status, text.map_or("", |text| text.value.as_str()).into())
}

pub(super) fn retry(retries: &Retries, cx: &mut Cx<'_>) -> RetryPolicy {
    let Retries { at, attempts, per_try_timeout, retry_on } = retries;
    let default = RetryPolicy::default();
    if let Some(none) = per_try_timeout.as_ref().filter(|timeout| timeout.value.is_zero()) {
        zero(&none.at, cx);
    }
    let conditional = per_try_timeout.is_some() || retry_on.is_some();
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
    }
}

fn conditions(text: &At<String>, cx: &mut Cx<'_>) -> RetryOn {
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

pub(super) type Faults = (Option<(Duration, f64)>, Option<(http::StatusCode, f64)>);

pub(super) fn faults(fault: &Fault, cx: &mut Cx<'_>) -> Faults {
    let Fault { at: _, delay, abort } = fault;
    let delay = delay.as_ref().and_then(|delay| {
        let Delay { at, fixed_delay, percentage, percent } = delay;
        let share = share(at, percentage.as_ref(), percent.as_ref(), cx);
        Some((fixed_delay.as_ref()?.value, share))
    });
    let abort = abort.as_ref().and_then(|abort| {
        let Abort { at, http_status, percentage, percent } = abort;
        let share = share(at, percentage.as_ref(), percent.as_ref(), cx);
        Some((final_status(http_status.as_ref()?, cx), share))
    });
    (delay, abort)
}

/// A percentage as a share from 0 to 1. Without one it is 0, as Istio reads it.
fn share(
    fault: &Spot,
    percentage: Option<&Percentage>,
    percent: Option<&At<u32>>,
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
