//! `corsPolicy`.

use std::fmt::Display;

use crate::{
    config::{
        cors::{CorsPolicy as Mirror, UnmatchedPreflights},
        decode::{Cx, List, Spanned},
        names,
        text::StringMatch,
    },
    policy::{CorsPolicy, TextMatch},
};

/// What Istio takes for methods here.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) fn policy(mirror: &Mirror, cx: &mut Cx<'_>) -> CorsPolicy {
    let Mirror {
        at: _,
        allow_origins,
        allow_origin,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = mirror;
    let mut origins: Vec<_> =
        allow_origins.0.iter().filter_map(|origin| self::origin(origin, cx)).collect();
    if let Some(old) = allow_origin.first() {
        if allow_origins.0.is_empty() {
            cx.warn(&old.at, "old field; use allowOrigins");
        } else {
            cx.warn(&old.at, "has no effect beside allowOrigins");
        }
    }
    if allow_origins.0.is_empty() {
        origins
            .extend(allow_origin.iter().map(|text| TextMatch::Exact(text.value.as_str().into())));
    }
    for text in allow_methods.iter().filter(|text| !METHODS.contains(&text.value.as_str())) {
        let found = format!("{:?}", text.value);
        cx.wrong(&text.at, found, format!("one of {}", METHODS.join(" ")), "not a method");
    }
    for text in allow_headers.iter().chain(expose_headers).filter(|text| text.value != "*") {
        if http::HeaderName::from_bytes(text.value.as_bytes()).is_err() {
            let found = format!("{:?}", text.value);
            cx.wrong(&text.at, found, "a header's name, or *", "not a header name");
        }
    }
    if let Some(age) = max_age.as_ref().filter(|age| age.value.subsec_nanos() > 0) {
        cx.wrong(&age.at, format!("{:?}", age.value), "whole seconds", "browsers count seconds");
    }
    if let Some(age) = max_age.as_ref().filter(|age| age.value.is_zero()) {
        let message = "a current API server refuses durations below 1ms; 1s is the shortest here";
        cx.warn(&age.at, message).found = Some("0s".to_owned());
    }
    CorsPolicy {
        origins,
        methods: list(allow_methods),
        headers: list(allow_headers),
        exposed: list(expose_headers),
        max_age: max_age.as_ref().and_then(|age| value(age.value.as_secs())),
        credentials: allow_credentials.as_ref().is_some_and(|allow| allow.value),
        answers_unmatched: unmatched_preflights
            .as_ref()
            .is_some_and(|what| what.value == UnmatchedPreflights::Ignore),
    }
}

/// Istio takes no origin that any text, or only the empty one, matches.
fn origin(wanted: &StringMatch, cx: &mut Cx<'_>) -> Option<TextMatch> {
    let none = wanted.exact.is_none() && wanted.prefix.is_none() && wanted.regex.is_none();
    let empty = wanted.exact.as_ref().is_some_and(|exact| exact.value.is_empty());
    if none || empty {
        cx.wrong(&wanted.at, "nothing", "exact, prefix or regex", "no origin is allowed by it");
        return None;
    }
    names::text_match(wanted, cx)
}

fn list(texts: &List<String>) -> Option<http::HeaderValue> {
    let texts: Vec<_> = texts.iter().map(|Spanned { value, .. }| value.as_str()).collect();
    (!texts.is_empty()).then(|| value(texts.join(",")))?
}

fn value(text: impl Display) -> Option<http::HeaderValue> {
    http::HeaderValue::from_str(&text.to_string()).ok()
}
