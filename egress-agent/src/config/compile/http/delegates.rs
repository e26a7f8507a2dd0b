//! `delegate`: rules of a virtual service without hosts, in the place of a rule that leads to it.
//!
//! As in Istio, a merged rule has the conditions of both. Each match of the delegate's rule must lie
//! within one of the rule that delegates, otherwise the delegate's rule is left out.

use std::{borrow::Cow, collections::HashSet, rc::Rc, sync::Arc};

use egress_ebpf::reason::Reason;

use super::super::{
    super::{
        decode::{Dict, List, RecordDict, Records, Spanned},
        names,
        problem::{Problem, Severity},
        resource::{Meta, Resource},
        text::StringMatch,
        virtual_service::{Delegate, HttpMatch as Match, HttpRule as Rule, VirtualService},
    },
    Compiler,
    routes::{Scope, Stage, in_stage},
};
use crate::{
    policy::{Target, WeightedDestination},
    types::Namespace,
};

/// Merged rules that one virtual service may come to.
const MAX_MERGED: usize = 10_000;

/// A rule, and where it is from.
pub(super) struct LocatedRule<'a> {
    pub(super) rule: Cow<'a, Rule>,
    /// The virtual service that wrote it, where that is another one.
    pub(super) origin: Option<&'a Meta>,
    /// What was said about the rule that leads to it.
    pub(super) told: Rc<[Problem]>,
}

/// The target of a rule that delegates to nothing.
pub(super) fn missing() -> WeightedDestination {
    let detail = "a VirtualService delegates to another that does not exist".into();
    let target = Target::Refused { reason: Reason::NoGatewayRoute, detail };
    WeightedDestination { weight: 1, target, action: Arc::default() }
}

impl<'r> Compiler<'r> {
    /// The rules, with those of delegates in the places of the rules that lead to them.
    pub(super) fn delegated<'a>(
        &mut self,
        rules: &'a [Rule],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<LocatedRule<'a>>
    where
        'r: 'a,
    {
        let mut all = Vec::with_capacity(rules.len());
        for rule in rules {
            let as_written =
                || LocatedRule { rule: Cow::Borrowed(rule), origin: None, told: Rc::from([]) };
            // `http_rule` reports a rule that has a route as well.
            let alone = rule.route.0.is_empty()
                && rule.redirect.is_none()
                && rule.direct_response.is_none();
            let Some(delegate) = rule.delegate.as_ref().filter(|_| alone) else {
                all.push(as_written());
                continue;
            };
            let Some(found) = self.delegate(delegate, scope) else {
                all.push(as_written());
                continue;
            };
            // What is wrong with the rule is said of it, and not of each rule that it leads to.
            let begin = self.report.problems.len();
            let matches = rule.matches.0.iter().filter(|m| in_stage(&m.gateways, stage, scope));
            let matches: Vec<&Match> = matches.collect();
            self.http_rule(rule, &matches, stage, scope);
            let told: Rc<[Problem]> = self.report.problems.get(begin..).unwrap_or_default().into();
            if told.iter().any(|problem| problem.severity == Severity::Error) {
                all.push(as_written());
                continue;
            }
            for own in &found.spec.http.0 {
                if all.len() >= MAX_MERGED {
                    let message = format!("delegates make more than {MAX_MERGED} rules of it");
                    scope.meta.cx(self.report).error(&delegate.at, message);
                    return all;
                }
                let Some(merged) = merge((rule, scope.meta), (own, &found.meta)) else {
                    let message = format!(
                        "left out where {} delegates: a match of it does not lie within those of \
                         the rule there",
                        scope.meta.label
                    );
                    found.meta.cx(self.report).warn(&own.at, message);
                    continue;
                };
                let (rule, told) = (Cow::Owned(merged), Rc::clone(&told));
                all.push(LocatedRule { rule, origin: Some(&found.meta), told });
            }
        }
        all
    }

    /// The virtual service that is delegated to, if it is there and exported to the one that asks.
    fn delegate(
        &mut self,
        delegate: &Delegate,
        scope: &Scope<'_>,
    ) -> Option<&'r Resource<VirtualService>> {
        let Delegate { at, name, namespace } = delegate;
        let name = name.as_ref()?;
        let full = full_name(delegate, scope.meta)?;
        let found = self.delegates_by_name.get(&full).copied();
        let mut cx = scope.meta.cx(self.report);
        let Some(found) = found else {
            let message = format!(
                "there is no VirtualService {full} without hosts; what would go by its rules is \
                 refused"
            );
            cx.dangling(&name.at, message);
            return None;
        };
        let (list, own) = (&found.spec.export_to, &found.meta.namespace);
        let exported = names::exported(list, own, false, &mut found.meta.cx(self.report));
        if !exported.includes(Some(&scope.meta.namespace)) {
            let at = namespace.as_ref().map_or(at, |namespace| &namespace.at);
            let message = format!(
                "VirtualService {full} is not exported to namespace {}; what would go by its rules \
                 is refused",
                scope.meta.namespace.0
            );
            scope.meta.cx(self.report).dangling(at, message);
            return None;
        }
        Some(found)
    }

    /// Checks what delegates may not hold, and that each is of use.
    pub(in crate::config::compile) fn check_delegates(
        &mut self,
        routes: &[Resource<VirtualService>],
    ) {
        let used: HashSet<String> = routes
            .iter()
            .flat_map(|route| route.spec.http.0.iter().map(|rule| (&route.meta, rule)))
            .filter_map(|(meta, rule)| full_name(rule.delegate.as_ref()?, meta))
            .collect();
        for Resource { meta, spec } in self.delegates {
            let VirtualService {
                at,
                hosts: _,
                gateways,
                http,
                tls,
                tcp,
                export_to: _,
                is_translated: _,
            } = spec;
            let mut cx = meta.cx(self.report);
            if http.0.is_empty() || !(tls.0.is_empty() && tcp.0.is_empty()) {
                let message = "a VirtualService without hosts is for others to delegate to, and \
                               only rules for HTTP are; add hosts, or move the rules";
                cx.wrong(at, "no hosts", "hosts, or rules for http alone", message);
            }
            if let Some(gateway) = gateways.first() {
                let message = "has no effect: the gateways are those of the VirtualService that \
                               delegates";
                cx.warn(&gateway.at, message);
            }
            for rule in http.0.iter().filter(|rule| rule.delegate.is_some()) {
                let message = "a VirtualService that is delegated to cannot delegate again";
                cx.wrong(&rule.at.field("delegate"), "delegate", "a route", message);
            }
            if !used.contains(&meta.full_name()) {
                let message =
                    "has no effect: it has no hosts, and no VirtualService delegates to it";
                cx.warn(at, message);
            }
        }
    }
}

/// `namespace/name` of what a rule of this virtual service delegates to.
fn full_name(delegate: &Delegate, own: &Meta) -> Option<String> {
    let given = delegate.namespace.as_ref().filter(|namespace| !namespace.value.is_empty());
    let namespace = given.map_or(&*own.namespace.0, |namespace| namespace.value.as_str());
    Some(format!("{namespace}/{}", delegate.name.as_ref()?.value))
}

/// A delegate's rule with the conditions of the rule that leads to it, each with the virtual service
/// that wrote it. `None` where a match of the delegate's is not within the other rule's.
fn merge((rule, root): (&Rule, &Meta), (own, leaf): (&Rule, &Meta)) -> Option<Rule> {
    let mut merged = own.clone();
    let of_root = |m: &Match| {
        let mut m = m.clone();
        m.gateways = qualified(&m.gateways, &root.namespace);
        m
    };
    merged.matches = Records(match (rule.matches.0.as_slice(), own.matches.0.as_slice()) {
        ([], leaves) => leaves.to_vec(),
        (roots, []) => roots.iter().map(of_root).collect(),
        (roots, leaves) => {
            let mut all = Vec::new();
            for m in leaves {
                let before = all.len();
                let mut m = m.clone();
                m.gateways = qualified(&m.gateways, &leaf.namespace);
                all.extend(roots.iter().filter_map(|root| merge_match(&of_root(root), &m)));
                if all.len() == before {
                    return None;
                }
            }
            all
        }
    });
    merged.name = joined(rule.name.as_ref(), own.name.as_ref());
    merged.rewrite = merged.rewrite.or_else(|| rule.rewrite.clone());
    merged.timeout = merged.timeout.or_else(|| rule.timeout.clone());
    merged.retries = merged.retries.or_else(|| rule.retries.clone());
    merged.fault = merged.fault.or_else(|| rule.fault.clone());
    merged.headers = merged.headers.or_else(|| rule.headers.clone());
    if merged.mirror.is_none() && merged.mirrors.0.is_empty() {
        merged.mirror = rule.mirror.clone();
        merged.mirrors = rule.mirrors.clone();
        merged.mirror_percentage = rule.mirror_percentage.clone();
        merged.mirror_percent = rule.mirror_percent.clone();
        merged.mirror_percent_old = rule.mirror_percent_old.clone();
    }
    merged.cors_policy = merged.cors_policy.or_else(|| rule.cors_policy.clone());
    merged.websocket_upgrade = merged.websocket_upgrade.or_else(|| rule.websocket_upgrade.clone());
    Some(merged)
}

/// Both matches as one, if the second lies within the first.
fn merge_match(root: &Match, leaf: &Match) -> Option<Match> {
    let case = |m: &Match| m.ignore_uri_case.as_ref().is_some_and(|ignore| ignore.value);
    if case(root) != case(leaf) {
        return None;
    }
    Some(Match {
        at: leaf.at.clone(),
        gateways: common(&root.gateways, &leaf.gateways)?,
        port: same(root.port.as_ref(), leaf.port.as_ref())?,
        uri: narrower(root.uri.as_ref(), leaf.uri.as_ref())?,
        ignore_uri_case: leaf.ignore_uri_case.clone(),
        method: narrower(root.method.as_ref(), leaf.method.as_ref())?,
        authority: narrower(root.authority.as_ref(), leaf.authority.as_ref())?,
        scheme: narrower(root.scheme.as_ref(), leaf.scheme.as_ref())?,
        headers: narrower_all(&root.headers, &leaf.headers)?,
        // Each of them excludes more.
        without_headers: RecordDict(Dict(
            [&root.without_headers, &leaf.without_headers]
                .into_iter()
                .flat_map(|all| all.0.0.iter().cloned())
                .collect(),
        )),
        query_params: narrower_all(&root.query_params, &leaf.query_params)?,
        source_labels: all_labels(&root.source_labels, &leaf.source_labels)?,
        source_namespace: same(root.source_namespace.as_ref(), leaf.source_namespace.as_ref())?,
        name: joined(root.name.as_ref(), leaf.name.as_ref()),
    })
}

/// The one that is given; of two, if they are equal.
fn same<T: Clone + PartialEq>(
    root: Option<&Spanned<T>>,
    leaf: Option<&Spanned<T>>,
) -> Option<Option<Spanned<T>>> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if root.value != leaf.value => None,
        (root, leaf) => Some(leaf.or(root).cloned()),
    }
}

/// The one that is given; of two the second, if it lies within the first.
fn narrower(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if !is_within(leaf, root) => None,
        (root, leaf) => Some(leaf.or(root).cloned()),
    }
}

/// Whether all texts of the first are among those of the second. Nobody can tell with regular
/// expressions, nor, in Istio, with a match that only asks for presence.
fn is_within(leaf: &StringMatch, root: &StringMatch) -> bool {
    if leaf.regex.is_some() || root.regex.is_some() {
        return false;
    }
    let text = leaf.exact.as_ref().or(leaf.prefix.as_ref());
    let text = text.map_or("", |text| text.value.as_str());
    match (&root.exact, &root.prefix) {
        (Some(exact), _) => leaf.exact.is_some() && text == exact.value,
        (None, Some(prefix)) => text.starts_with(prefix.value.as_str()),
        (None, None) => false,
    }
}

fn narrower_all(
    root: &RecordDict<StringMatch>,
    leaf: &RecordDict<StringMatch>,
) -> Option<RecordDict<StringMatch>> {
    let same = |a: &Spanned<String>, b: &Spanned<String>| a.value.eq_ignore_ascii_case(&b.value);
    let mut all = leaf.0.0.clone();
    for (key, wanted) in &root.0.0 {
        let mut own = leaf.0.0.iter().filter(|(other, _)| same(other, key)).peekable();
        if own.peek().is_none() {
            all.push((key.clone(), wanted.clone()));
        } else if !own.all(|(_, leaf)| is_within(leaf, wanted)) {
            return None;
        }
    }
    Some(RecordDict(Dict(all)))
}

fn all_labels(
    root: &Dict<Spanned<String>>,
    leaf: &Dict<Spanned<String>>,
) -> Option<Dict<Spanned<String>>> {
    let mut all = leaf.0.clone();
    for (key, value) in &root.0 {
        match leaf.0.iter().find(|(other, _)| other.value == key.value) {
            Some((_, own)) if own.value != value.value => return None,
            Some(_) => {}
            None => all.push((key.clone(), value.clone())),
        }
    }
    Some(Dict(all))
}

/// Names of gateways with their namespace, so that they mean the same in another resource.
fn qualified(gateways: &List<String>, namespace: &Namespace) -> List<String> {
    let each = gateways.iter().map(|name| {
        let value = match name.value.as_str() {
            "mesh" => "mesh".to_owned(),
            full if full.contains('/') => full.to_owned(),
            short => format!("{}/{short}", namespace.0),
        };
        Spanned { value, at: name.at.clone() }
    });
    each.collect()
}

/// Names in both lists, where an empty one stands for all.
fn common(root: &List<String>, leaf: &List<String>) -> Option<List<String>> {
    match (root.as_slice(), leaf.as_slice()) {
        ([], all) | (all, []) => Some(all.to_vec()),
        (root, leaf) => {
            let is_in_root = |name: &&Spanned<String>| root.iter().any(|r| r.value == name.value);
            let both: Vec<_> = leaf.iter().filter(is_in_root).cloned().collect();
            (!both.is_empty()).then_some(both)
        }
    }
}

/// `root-leaf`, or the one that is given.
fn joined(
    root: Option<&Spanned<String>>,
    leaf: Option<&Spanned<String>>,
) -> Option<Spanned<String>> {
    match (root, leaf) {
        (Some(root), Some(leaf)) => {
            Some(Spanned { value: format!("{}-{}", root.value, leaf.value), at: leaf.at.clone() })
        }
        (root, leaf) => leaf.or(root).cloned(),
    }
}
