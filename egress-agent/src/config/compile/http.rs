//! Rules for HTTP: matches, answers, rewrites, retries.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    super::{
        decode::{At, Cx, RecordDict},
        names,
        virtual_service::{
            Abort, Delay, DerivePort, DirectResponse, Fault, HeaderChanges, Headers,
            HttpDestination, HttpMatch as Mirror, HttpRule as RuleMirror, Percentage,
            Redirect as RedirectMirror, RegexRewrite, Retries, Rewrite, StringMatch,
        },
    },
    Compiler,
    routes::{Scope, Stage, Traffic, check_stages, in_stage, only_port, shares, source},
};
use crate::policy::{
    HeaderOps, HttpAction, HttpMatch, HttpOutcome, HttpRule, PathRewrite, Redirect, RedirectPort,
    RetryOn, RetryPolicy, Target, TextMatch, Weighted,
};

impl Compiler<'_> {
    /// The rules for HTTP at a stage.
    pub(super) fn http_rules(
        &mut self,
        rules: &[RuleMirror],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<Arc<HttpRule>> {
        let mut read = Vec::new();
        let mut seen = HashSet::new();
        let mut matched = HashSet::new();
        let mut catch_all = false;
        for rule in rules {
            let mut cx = scope.meta.cx(self.report);
            for m in &rule.matches.0 {
                check_stages(&m.gateways, scope, &mut seen, &mut cx);
            }
            let here = rule.matches.0.iter().filter(|m| in_stage(&m.gateways, stage, scope));
            let here: Vec<&Mirror> = here.collect();
            if here.is_empty() && !rule.matches.0.is_empty() {
                continue;
            }
            if catch_all {
                let message = "an earlier rule matches everything, so this one is never reached";
                cx.warn(&rule.at, message).code = Some("IST0130");
            }
            let before = cx.report.problems.len();
            let compiled = self.http_rule(rule, &here, stage, scope);
            catch_all |= compiled.matches.is_empty();
            let mut cx = scope.meta.cx(self.report);
            // The compiled form holds no places, so two that say the same read the same.
            let texts = compiled.matches.iter().map(|m| format!("{m:?}"));
            let repeats: Vec<_> = texts.map(|text| !matched.insert(text)).collect();
            if !catch_all && cx.report.problems.len() == before {
                let all = repeats.iter().all(|repeat| *repeat);
                for (m, _) in here.iter().zip(&repeats).filter(|(_, repeat)| **repeat) {
                    let (code, message) = if all {
                        (
                            "IST0130",
                            "earlier rules have the same matches, so this one is never reached",
                        )
                    } else {
                        ("IST0131", "an earlier rule has the same match, so this one has no effect")
                    };
                    cx.warn(&m.at, message).code = Some(code);
                }
            }
            read.push(Arc::new(compiled));
        }
        read
    }

    fn http_rule(
        &mut self,
        rule: &RuleMirror,
        here: &[&Mirror],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> HttpRule {
        let RuleMirror {
            at,
            name,
            matches: _,
            route,
            redirect,
            direct_response,
            rewrite,
            timeout,
            retries,
            fault,
            headers,
            websocket_upgrade,
        } = rule;
        let mut cx = scope.meta.cx(self.report);
        let matches: Vec<_> = here.iter().filter_map(|m| http_match(m, &mut cx)).collect();
        // A rule none of whose matches can be read must not turn into one that matches everything;
        // the error forbids the snapshot anyway.
        let upgrade = websocket_upgrade.as_ref().is_some_and(|upgrade| upgrade.value)
            || matches
                .iter()
                .any(|m| m.headers.iter().any(|(name, _)| name == http::header::UPGRADE));
        let (request_headers, response_headers) = header_ops(headers.as_ref(), &mut cx);
        let base = HttpAction {
            rewrite_authority: rewrite
                .as_ref()
                .and_then(|rewrite| rewrite.authority.as_ref())
                .map(|authority| authority.value.as_str().into()),
            request_headers,
            response_headers,
            allow_upgrade: upgrade,
            ..HttpAction::default()
        };
        let path = rewrite.as_ref().map(|rewrite| path_rewrite(rewrite, &mut cx));
        let retry = retries.as_ref().map_or_else(Arc::default, |r| Arc::new(retry(r, &mut cx)));
        let (delay, abort) = fault.as_ref().map_or((None, None), |fault| faults(fault, &mut cx));
        let given = [!route.0.is_empty(), redirect.is_some(), direct_response.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            cx.wrong(
                at,
                "none or several of route, redirect, directResponse",
                "one of them",
                "a rule does one thing",
            );
        }
        let outcome = match (redirect, direct_response) {
            (Some(redirect), _) => HttpOutcome::Redirect(self::redirect(redirect, &mut cx)),
            (None, Some(response)) => direct(response, &mut cx),
            (None, None) => {
                let ports = here.iter().map(|m| m.port.as_ref());
                let port = only_port(ports);
                HttpOutcome::Route(self.http_targets(&route.0, rule, stage, port, &base, scope))
            }
        };
        if let HttpOutcome::Route(targets) = &outcome
            && targets.iter().any(|t| matches!(t.target, Target::Gateway { .. }))
        {
            let mut cx = scope.meta.cx(self.report);
            for (name, given) in [
                ("rewrite", rewrite.is_some()),
                ("timeout", timeout.is_some()),
                ("retries", retries.is_some()),
                ("fault", fault.is_some()),
                ("headers", headers.is_some()),
            ] {
                if given {
                    cx.warn(&at.field(name), "has no effect on the way to the gateway; put it in the rule that leads on from there");
                }
            }
        }
        HttpRule {
            name: name.as_ref().map(|name| name.value.as_str().into()),
            matches,
            outcome,
            timeout: timeout.as_ref().map(|t| t.value).filter(|t| !t.is_zero()),
            retry,
            action: Arc::new(base),
            path: path.unwrap_or_default(),
            delay,
            abort,
        }
    }

    fn http_targets(
        &mut self,
        route: &[HttpDestination],
        rule: &RuleMirror,
        stage: &Stage,
        port: Option<crate::types::Port>,
        base: &HttpAction,
        scope: &Scope<'_>,
    ) -> Vec<Weighted> {
        let weights: Vec<_> = route.iter().map(|to| to.weight.as_ref()).collect();
        let weights = match weights.as_slice() {
            [] => Vec::new(),
            weights => shares(weights, &rule.at, &mut scope.meta.cx(self.report)),
        };
        let mut targets = Vec::new();
        for (HttpDestination { at: _, destination, weight: _, headers }, weight) in
            route.iter().zip(weights)
        {
            let Some(destination) = destination else { continue };
            let (request, response) = header_ops(headers.as_ref(), &mut scope.meta.cx(self.report));
            let mut action = base.clone();
            append(&mut action.request_headers, request);
            append(&mut action.response_headers, response);
            let target = self.target(destination, stage, port, Traffic::Http, scope);
            targets.push(Weighted { weight, target, action: Arc::new(action) });
        }
        targets
    }
}

fn append(ops: &mut HeaderOps, more: HeaderOps) {
    let HeaderOps { set, add, remove } = more;
    ops.set.extend(set);
    ops.add.extend(add);
    ops.remove.extend(remove);
}

fn http_match(mirror: &Mirror, cx: &mut Cx<'_>) -> Option<HttpMatch> {
    let Mirror {
        at: _,
        gateways: _,
        port,
        uri,
        ignore_uri_case,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query_params,
        source_labels,
        source_namespace,
        name: _,
    } = mirror;
    let ignore_case = ignore_uri_case.as_ref().is_some_and(|ignore| ignore.value);
    let mut text = |wanted: &Option<StringMatch>| -> Option<Option<TextMatch>> {
        match wanted {
            None => Some(None),
            Some(wanted) => names::text_match(wanted, cx).map(Some),
        }
    };
    let (path, method, authority, scheme) =
        (text(uri)?, text(method)?, text(authority)?, text(scheme)?);
    let path = if ignore_case { path.map(lower) } else { path };
    Some(HttpMatch {
        port: port.as_ref().map(|port| port.value),
        path,
        ignore_case,
        method,
        authority,
        scheme,
        headers: header_matches(headers, cx)?,
        without_headers: header_matches(without_headers, cx)?,
        query: {
            let mut query = Vec::new();
            for (key, wanted) in &query_params.0.0 {
                query.push((key.value.as_str().into(), names::text_match(wanted, cx)?));
            }
            query
        },
        source: source(source_labels, source_namespace.as_ref()),
    })
}

fn lower(wanted: TextMatch) -> TextMatch {
    match wanted {
        TextMatch::Exact(text) => TextMatch::Exact(text.to_ascii_lowercase().into()),
        TextMatch::Prefix(text) => TextMatch::Prefix(text.to_ascii_lowercase().into()),
        // Istio documents that only these two ignore case; an expression says so itself.
        TextMatch::Present | TextMatch::Regex(_) => wanted,
    }
}

fn header_matches(
    wanted: &RecordDict<StringMatch>,
    cx: &mut Cx<'_>,
) -> Option<Vec<(http::HeaderName, TextMatch)>> {
    let mut read = Vec::new();
    for (name, wanted) in &wanted.0.0 {
        read.push((names::header_name(name, cx)?, names::text_match(wanted, cx)?));
    }
    Some(read)
}

fn header_ops(headers: Option<&Headers>, cx: &mut Cx<'_>) -> (HeaderOps, HeaderOps) {
    let Some(Headers { at: _, request, response }) = headers else {
        return (HeaderOps::default(), HeaderOps::default());
    };
    let mut one = |changes: &Option<HeaderChanges>| {
        let Some(HeaderChanges { at: _, set, add, remove }) = changes else {
            return HeaderOps::default();
        };
        HeaderOps {
            set: set.0.iter().filter_map(|(name, value)| header(name, value, cx)).collect(),
            add: add.0.iter().filter_map(|(name, value)| header(name, value, cx)).collect(),
            remove: remove.iter().filter_map(|name| changeable(name, cx)).collect(),
        }
    };
    (one(request), one(response))
}

fn header(
    name: &At<String>,
    value: &At<String>,
    cx: &mut Cx<'_>,
) -> Option<(http::HeaderName, http::HeaderValue)> {
    let name = changeable(name, cx)?;
    match http::HeaderValue::from_str(&value.value) {
        Ok(value) => Some((name, value)),
        Err(_) => {
            cx.wrong(
                &value.at,
                format!("{:?}", value.value),
                "visible ASCII characters",
                "not a header value",
            );
            None
        }
    }
}

/// Headers that frame a message are the proxy's own.
fn changeable(text: &At<String>, cx: &mut Cx<'_>) -> Option<http::HeaderName> {
    let name = names::header_name(text, cx)?;
    const FRAMING: [&str; 7] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "keep-alive",
    ];
    if FRAMING.contains(&name.as_str()) {
        let hint = if name == "host" { "; use rewrite.authority" } else { "" };
        cx.error(
            &text.at,
            format!("the header {name} can't be changed: it frames the message{hint}"),
        );
        return None;
    }
    Some(name)
}

fn path_rewrite(rewrite: &Rewrite, cx: &mut Cx<'_>) -> PathRewrite {
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

fn redirect(mirror: &RedirectMirror, cx: &mut Cx<'_>) -> Redirect {
    let RedirectMirror { at: _, uri, authority, port, derive_port, scheme, redirect_code } = mirror;
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

fn direct(response: &DirectResponse, cx: &mut Cx<'_>) -> HttpOutcome {
    let DirectResponse { at: _, status, body } = response;
    let status = status
        .as_ref()
        .map_or(http::StatusCode::INTERNAL_SERVER_ERROR, |status| final_status(status, cx));
    let text = body.as_ref().and_then(|body| body.string.as_ref());
    HttpOutcome::Respond(status, text.map_or("", |text| text.value.as_str()).into())
}

fn retry(retries: &Retries, cx: &mut Cx<'_>) -> RetryPolicy {
    let Retries { at: _, attempts, per_try_timeout, retry_on } = retries;
    let default = RetryPolicy::default();
    RetryPolicy {
        attempts: attempts.as_ref().map_or(default.attempts, |attempts| {
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
            number if number.parse::<u32>().ok().and_then(status_code).is_some() => {
                on.statuses.extend(number.parse::<u16>());
            }
            unknown => {
                let hint = super::nearest(unknown, KNOWN.into_iter());
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

type Faults = (Option<(Duration, f64)>, Option<(http::StatusCode, f64)>);

fn faults(fault: &Fault, cx: &mut Cx<'_>) -> Faults {
    let Fault { at: _, delay, abort } = fault;
    let delay = delay.as_ref().and_then(|delay| {
        let Delay { at: _, fixed_delay, percentage, percent } = delay;
        let share = share(percentage.as_ref(), percent.as_ref(), cx);
        Some((fixed_delay.as_ref()?.value, share))
    });
    let abort = abort.as_ref().and_then(|abort| {
        let Abort { at: _, http_status, percentage, percent } = abort;
        let share = share(percentage.as_ref(), percent.as_ref(), cx);
        Some((final_status(http_status.as_ref()?, cx), share))
    });
    (delay, abort)
}

/// A percentage as a share from 0 to 1.
fn share(percentage: Option<&Percentage>, percent: Option<&At<u32>>, cx: &mut Cx<'_>) -> f64 {
    let given = percentage.and_then(|percentage| percentage.value.as_ref());
    let (value, at) = match (given, percent) {
        (Some(value), _) => (value.value, &value.at),
        (None, Some(percent)) => (f64::from(percent.value), &percent.at),
        (None, None) => return 1.0,
    };
    if !(0.0..=100.0).contains(&value) {
        cx.wrong(at, value.to_string(), "0 to 100", "not a percentage");
    }
    value / 100.0
}
