//! Rules for HTTP: matches, answers, rewrites, retries.

use std::{collections::HashSet, sync::Arc};

mod answers;
mod cors;
mod delegates;
mod headers;
mod mirrors;
mod redirects;

use super::{
    super::{
        decode::{Cx, RecordDict},
        names,
        problem::Problem,
        text::StringMatch,
        virtual_service::{HttpDestination, HttpMatch as Mirror, HttpRule as RuleMirror},
    },
    Compiler, durations,
    lookup::Traffic,
    places,
    routes::{Scope, Stage, check_stages, in_stage, only_port, shares, source},
};
use delegates::LocatedRule;
use headers::{authority, header_ops};

use crate::policy::{
    HttpAction, HttpMatch, HttpOutcome, HttpRule, Target, TextMatch, Upgrades, WeightedDestination,
    is_unseen,
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
        for LocatedRule { rule, origin, told } in self.delegated(rules, stage, scope) {
            let merged = origin.or(rule.origin.as_deref()).map(|meta| scope.within(meta));
            let scope = merged.as_ref().unwrap_or(scope);
            let rule = &*rule;
            let begin = self.report.problems.len();
            let mut cx = scope.meta.cx(self.report);
            for m in &rule.matches.0 {
                check_stages(&m.gateways, scope, &mut seen, &mut cx);
            }
            let here = rule.matches.0.iter().filter(|m| in_stage(&m.gateways, stage, scope));
            let here: Vec<&Mirror> = here.collect();
            if here.is_empty() && !rule.matches.0.is_empty() {
                continue;
            }
            // Routes of the Gateway API are put in order here, not by who writes them.
            let is_ordered = rule.origin.is_none();
            if catch_all && is_ordered {
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
            if is_ordered && !catch_all && cx.report.problems.len() == before {
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
            // What a merged rule has from the other one was told with its place already.
            let own = self.report.problems.split_off(begin);
            let fresh =
                own.into_iter().filter(|problem| !told.iter().any(|t| same_message(t, problem)));
            self.report.problems.extend(fresh);
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
            delegate,
            rewrite,
            timeout,
            retries,
            fault,
            headers,
            websocket_upgrade,
            mirror,
            mirrors: _,
            mirror_percentage: _,
            mirror_percent: _,
            mirror_percent_old: _,
            cors_policy,
            origin: _,
        } = rule;
        let mut cx = scope.meta.cx(self.report);
        let matches: Vec<_> = here.iter().filter_map(|m| http_match(m, &mut cx)).collect();
        // A rule none of whose matches can be read must not turn into one that matches everything;
        // the error forbids the snapshot anyway.
        let names_upgrade =
            |m: &HttpMatch| m.headers.iter().any(|(name, _)| *name == http::header::UPGRADE);
        let upgrades = match websocket_upgrade.as_ref().map(|upgrade| upgrade.value) {
            Some(true) => Upgrades::Anything,
            _ if matches.iter().any(names_upgrade) => Upgrades::Anything,
            Some(false) => Upgrades::Nothing,
            None => self.mesh.upgrades,
        };
        if let Some(upgrade) = websocket_upgrade {
            cx.warn(&upgrade.at, "the current API has no such field, and an API server refuses it");
        }
        durations::warn_of(timeout.as_ref(), &mut cx);
        let (request_headers, response_headers) = header_ops(headers.as_ref(), &mut cx);
        let base = HttpAction {
            // As in Istio, the rewrite counts for more than the header.
            rewrite_authority: rewrite
                .as_ref()
                .and_then(|rewrite| rewrite.authority.as_ref())
                .or_else(|| authority(headers.as_ref()))
                .map(|authority| authority.value.as_str().into()),
            request_headers,
            response_headers,
            upgrades,
            cors: cors_policy.as_ref().map(|policy| Arc::new(cors::policy(policy, &mut cx))),
            ..HttpAction::default()
        };
        let path = match redirect {
            Some(redirect) if redirect.prefix_rewrite.is_some() => {
                Some(redirects::redirected_path(redirect, &matches, &mut cx))
            }
            Some(_) | None => {
                rewrite.as_ref().map(|rewrite| answers::path_rewrite(rewrite, &mut cx))
            }
        };
        let retry =
            retries.as_ref().map_or_else(Arc::default, |r| Arc::new(answers::retry(r, &mut cx)));
        let (delay, abort) =
            fault.as_ref().map_or((None, None), |fault| answers::faults(fault, &mut cx));
        let given = [
            !route.0.is_empty(),
            redirect.is_some(),
            direct_response.is_some(),
            delegate.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            cx.wrong(
                at,
                "none or several of route, redirect, directResponse, delegate",
                "one of them",
                "a rule does one thing",
            );
        }
        let outcome = match (redirect, direct_response) {
            (Some(redirect), _) => HttpOutcome::Redirect(redirects::redirect(redirect, &mut cx)),
            (None, Some(response)) => answers::direct(response, &mut cx),
            (None, None) if delegate.is_some() => HttpOutcome::Route(vec![delegates::missing()]),
            (None, None) => {
                let ports = here.iter().map(|m| m.port.as_ref());
                let port = only_port(ports);
                HttpOutcome::Route(self.http_targets(&route.0, rule, stage, port, &base, scope))
            }
        };
        let mirrors = self.mirrors(rule, &outcome, here, stage, scope);
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
                ("mirror", mirror.is_some()),
                ("mirrors", !rule.mirrors.0.is_empty()),
                ("corsPolicy", cors_policy.is_some()),
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
            mirrors,
            place: places::at(scope.meta, at),
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
    ) -> Vec<WeightedDestination> {
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
            // As Envoy has it: those of one destination come after the rule's, those of one of several before.
            let join = if route.len() > 1 { headers::prepend } else { headers::append };
            join(&mut action.request_headers, request);
            join(&mut action.response_headers, response);
            if action.rewrite_authority.is_none() {
                let own = authority(headers.as_ref());
                action.rewrite_authority = own.map(|authority| authority.value.as_str().into());
            }
            let target = self.target(destination, stage, port, Traffic::Http, scope);
            targets.push(WeightedDestination { weight, target, action: Arc::new(action) });
        }
        targets
    }
}

/// Reads a match for what is wrong with it.
pub(super) fn try_match(mirror: &Mirror, cx: &mut Cx<'_>) {
    drop(http_match(mirror, cx));
}

/// Reads what a rule does, without its matches and destinations, for what is wrong with it.
pub(super) fn try_rule(rule: &RuleMirror, cx: &mut Cx<'_>) {
    let RuleMirror { route, redirect, rewrite, retries, headers, cors_policy, .. } = rule;
    let own = route.0.iter().map(|to| to.headers.as_ref());
    for headers in own.chain([headers.as_ref()]) {
        drop(header_ops(headers, cx));
        if let Some(authority) = authority(headers) {
            names::host(authority, cx);
        }
    }
    if let Some(rewrite) = rewrite {
        drop(answers::path_rewrite(rewrite, cx));
        if let Some(authority) = &rewrite.authority {
            names::host(authority, cx);
        }
    }
    if let Some(redirect) = redirect {
        drop(redirects::redirect(redirect, cx));
    }
    if let Some(retries) = retries {
        drop(answers::retry(retries, cx));
    }
    if let Some(policy) = cors_policy {
        drop(cors::policy(policy, cx));
    }
}

/// Whether two problems say the same of the same place in a resource.
fn same_message(a: &Problem, b: &Problem) -> bool {
    (&a.line, &a.field, &a.message) == (&b.line, &b.field, &b.message)
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
        headers: header_matches(headers, Presence::Wanted, cx)?,
        without_headers: header_matches(without_headers, Presence::Unwanted, cx)?,
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

/// Whether a condition is that a request has such a header, or that it has none.
#[derive(Clone, Copy)]
enum Presence {
    Wanted,
    Unwanted,
}

fn header_matches(
    wanted: &RecordDict<StringMatch>,
    presence: Presence,
    cx: &mut Cx<'_>,
) -> Option<Vec<(http::HeaderName, TextMatch)>> {
    let mut read = Vec::new();
    for (name, wanted) in &wanted.0.0 {
        let header = names::header_name(name, cx)?;
        if is_unseen(&header) {
            let message = "the gateway takes this header out before rules see a request";
            match presence {
                Presence::Wanted => {
                    cx.warn(&name.at, format!("{message}: the condition never holds"));
                }
                // It would match whatever the header says.
                Presence::Unwanted => {
                    let expected = "a header that reaches the upstream";
                    cx.wrong(&name.at, name.value.clone(), expected, message);
                    return None;
                }
            }
        }
        read.push((header, names::text_match(wanted, cx)?));
    }
    Some(read)
}
