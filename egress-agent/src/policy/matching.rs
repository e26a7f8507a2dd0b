//! Whether a rule is for a request, and what becomes of the request's path.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use super::{
    HttpMatch, HttpRequest, HttpRule, PathRewrite, Redirect, RedirectPort, TcpRule, TextMatch,
    TlsRule, WeightedDestination,
    path::{self, AmbiguousPath},
    trace::{self, Step},
};
use crate::types::{Host, Port, Source};

/// Whether the rule is for this request, at a stage where the port is `port`; the match that says
/// so, where the rule has any.
pub(super) fn http<'r>(
    rule: &'r HttpRule,
    request: &HttpRequest<'_>,
    port: Port,
) -> Result<Option<Option<&'r HttpMatch>>, AmbiguousPath> {
    if rule.matches.is_empty() {
        return Ok(Some(None));
    }
    for wanted in &rule.matches {
        if matches_http(wanted, request, port)? {
            return Ok(Some(Some(wanted)));
        }
    }
    Ok(None)
}

fn matches_http(
    wanted: &HttpMatch,
    request: &HttpRequest<'_>,
    port: Port,
) -> Result<bool, AmbiguousPath> {
    let HttpMatch {
        port: wanted_port,
        path,
        ignore_case,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        source,
    } = wanted;
    let (uri, parameters) = path::split_query(request.path_and_query);
    let parameters = parameters.unwrap_or_default();
    let text = |wanted: &Option<TextMatch>, text: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted.matches(text))
    };
    let holds = wanted_port.is_none_or(|wanted| wanted == port)
        && text(method, request.method.as_str())
        && text(authority, request.authority)
        && text(scheme, request.scheme)
        && headers.iter().all(|(name, wanted)| has_header(request, name, wanted))
        && !without_headers.iter().any(|(name, wanted)| has_header(request, name, wanted))
        && query.iter().all(|(name, wanted)| has_parameter(parameters, name, wanted))
        && source.matches(request.source);
    let Some(wanted) = path.as_ref().filter(|_| holds) else { return Ok(holds) };
    path::matches(wanted, uri, *ignore_case)
}

/// Several lines of one header count as one, joined by commas (RFC 9110 §5.3). Bytes that are no UTF-8 are no reason to
/// take a value for another: each counts as U+FFFD.
pub(super) fn has_header(
    request: &HttpRequest<'_>,
    name: &http::HeaderName,
    wanted: &TextMatch,
) -> bool {
    let mut values = request.headers.get_all(name).iter();
    let Some(first) = values.next() else { return false };
    if matches!(wanted, TextMatch::Present) {
        return true;
    }
    let mut joined = String::from_utf8_lossy(first.as_bytes());
    for value in values {
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    wanted.matches(&joined)
}

/// The first parameter of that name decides, undecoded.
pub(super) fn has_parameter(parameters: &str, name: &str, wanted: &TextMatch) -> bool {
    let value = parameters.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    value.is_some_and(|value| wanted.matches(value))
}

/// Whether the rule is for this server name.
pub(super) fn tls(rule: &TlsRule, server_name: &Host, port: Port, source: &Source) -> bool {
    rule.matches.iter().any(|wanted| {
        wanted.port.is_none_or(|wanted| wanted == port)
            && wanted.server_names.iter().any(|pattern| pattern.rules_host(server_name))
            && wanted.source.matches(source)
    })
}

/// Whether the rule is for this source. Subnets were matched by the node, which saw the address.
pub(super) fn tcp(rule: &TcpRule, port: Option<Port>, source: &Source) -> bool {
    rule.matches.is_empty()
        || rule.matches.iter().any(|wanted| {
            wanted.port.is_none_or(|wanted| port.is_none_or(|port| wanted == port))
                && wanted.source.matches(source)
        })
}

/// One of the destinations, by weight.
pub(super) fn pick(targets: &[WeightedDestination]) -> Option<&WeightedDestination> {
    if let [only] = targets {
        return Some(only);
    }
    let total: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
    if trace::is_asked() {
        // The first of the heaviest.
        let heaviest = targets.iter().rev().max_by_key(|target| target.weight)?;
        trace::note(|| Step::Share { weight: heaviest.weight.into(), total });
        return (total > 0).then_some(heaviest);
    }
    let mut at = random().checked_rem(total)?;
    targets.iter().find(|target| match at.checked_sub(u64::from(target.weight)) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

/// True this often, from never (0) to always (1).
pub(super) fn chance(share: f64) -> bool {
    share >= 1.0 || fraction() <= share && share > 0.0
}

/// A random time with this mean, exponentially distributed, at most ten times as long.
pub(super) fn exponential(mean: Duration) -> Duration {
    // From 0 to 1, without 0, whose logarithm is infinite.
    let fraction = 1.0 - fraction();
    mean.mul_f64(-fraction.ln()).min(mean.saturating_mul(10))
}

/// From 0 to 1, without 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn fraction() -> f64 {
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Xorshift64* (Vigna 2016), for spreading load: nothing secret depends on it.
fn random() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1));
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

/// The path and query after `rewrite`, where it changes them.
///
/// # Errors
/// [`AmbiguousPath`]: the result would lead out of what the rule put the path into.
pub(super) fn rewrite(
    rewrite: &PathRewrite,
    matched: Option<&HttpMatch>,
    path_and_query: &str,
) -> Result<Option<Arc<str>>, AmbiguousPath> {
    let (path, query) = path::split_query(path_and_query);
    let new = match rewrite {
        PathRewrite::Keep => return Ok(None),
        PathRewrite::Replace(new) => {
            // Only a prefix is replaced alone. A rule that asks nothing of the path is for the prefix
            // `/` to Envoy.
            let rest = match matched.map(|m| (m.path.as_ref(), m.ignore_case)) {
                Some((Some(TextMatch::Prefix(prefix)), ignore_case)) => {
                    path::after_prefix(path, prefix, ignore_case)
                }
                Some((Some(TextMatch::Exact(_) | TextMatch::Regex(_)), _)) => String::new(),
                Some((Some(TextMatch::Present) | None, _)) | None => {
                    path::check(path)?;
                    path.strip_prefix('/').unwrap_or(path).to_owned()
                }
            };
            format!("{new}{rest}")
        }
        // All matches, as Envoy's `regex_rewrite`.
        PathRewrite::Regex(regex, new) => {
            path::check(path)?;
            regex.replace_all(path, &**new).into_owned()
        }
    };
    let new = if new.starts_with('/') { new } else { format!("/{new}") };
    if path::climbs(&new) {
        return Err(AmbiguousPath);
    }
    Ok(Some(match query {
        Some(query) => format!("{new}?{query}").into(),
        None => new.into(),
    }))
}

/// `Location` of a redirect.
pub(super) fn location(redirect: &Redirect, request: &HttpRequest<'_>) -> Arc<str> {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme);
    let bare = |authority: &str| -> String {
        let end = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        end.map_or(authority, |at| &authority[..at]).into()
    };
    let asked = redirect.authority.as_deref().unwrap_or(request.authority);
    let default = if scheme == "https" { 443 } else { 80 };
    let port = match redirect.port {
        RedirectPort::Port(port) => Some(port.get()),
        RedirectPort::Request => Some(request.port.0.get()),
        RedirectPort::Default => None,
    };
    let host = match (port, &redirect.authority) {
        (None, Some(authority)) => authority.to_string(),
        (None, None) if redirect.scheme.is_none() => asked.into(),
        (None, None) => bare(asked),
        (Some(port), _) if port == default => bare(asked),
        (Some(port), _) => format!("{}:{port}", bare(asked)),
    };
    let path = redirect.path.as_deref().unwrap_or(request.path_and_query);
    format!("{scheme}://{host}{path}").into()
}
