//! `redirect` of a rule.

use super::answers::{is_path, status_code};
use crate::config::{
    decode::{Cx, Spanned},
    virtual_service::{DerivePort, Redirect as RedirectMirror},
};
use crate::policy::{HttpMatch, PathRewrite, Redirect, RedirectPort, TextMatch};

pub(super) fn redirect(mirror: &RedirectMirror, cx: &mut Cx<'_>) -> Redirect {
    let RedirectMirror {
        at,
        uri,
        prefix_rewrite,
        authority,
        port,
        derive_port,
        scheme,
        redirect_code,
    } = mirror;
    let prefix = prefix_rewrite.as_ref().filter(|prefix| !prefix.value.is_empty());
    let changes = [uri, authority, scheme].into_iter().flatten().any(|text| !text.value.is_empty());
    if !changes && prefix.is_none() && port.is_none() && derive_port.is_none() {
        let expected = "uri, prefixRewrite, authority, scheme, port or derivePort";
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
    let text =
        |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.as_str().into());
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

/// What a redirect makes of the path before it.
pub(super) fn redirected_path(
    mirror: &RedirectMirror,
    matches: &[HttpMatch],
    cx: &mut Cx<'_>,
) -> PathRewrite {
    let prefix = mirror.prefix_rewrite.as_ref().filter(|prefix| !prefix.value.is_empty());
    let Some(prefix) = prefix else { return PathRewrite::Keep };
    let found = || format!("{:?}", prefix.value);
    if mirror.uri.as_ref().is_some_and(|uri| !uri.value.is_empty()) {
        cx.wrong(&prefix.at, found(), "nothing", "uri and prefixRewrite: give one");
    }
    let is_prefix = |one: &HttpMatch| matches!(one.path, None | Some(TextMatch::Prefix(_)));
    if !matches.iter().all(is_prefix) {
        let message = "prefixRewrite is for rules whose matches are prefixes";
        cx.wrong(&prefix.at, found(), "prefix in every uri of match", message);
    }
    if !is_path(&prefix.value) {
        cx.wrong(&prefix.at, found(), "a path", "not a path");
    }
    PathRewrite::Replace(prefix.value.as_str().into())
}
