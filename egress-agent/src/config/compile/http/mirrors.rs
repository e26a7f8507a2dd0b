//! `mirror` and `mirrors`: copies of requests for other destinations.

use super::{
    super::{
        Compiler,
        lookup::Traffic,
        routes::{Scope, Stage, only_port},
    },
    HttpOutcome,
};
use crate::{
    config::{
        decode::{Cx, SourcePosition, Spanned},
        fault::Percentage,
        virtual_service::{Destination, HttpMatch, HttpMirror, HttpRule as RuleMirror},
    },
    policy::{Mirror, Target},
};

impl Compiler<'_> {
    /// The copies that a rule makes. On the way to a gateway it makes none.
    pub(super) fn mirrors(
        &mut self,
        rule: &RuleMirror,
        outcome: &HttpOutcome,
        here: &[&HttpMatch],
        stage: &Stage,
        scope: &Scope<'_>,
    ) -> Vec<Mirror> {
        let mut cx = scope.meta.cx(self.report);
        let wanted = wanted(rule, &mut cx);
        let HttpOutcome::Route(targets) = outcome else {
            if !wanted.is_empty() {
                cx.warn(&rule.at, "mirrors nothing: the gateway answers by itself");
            }
            return Vec::new();
        };
        if targets.iter().any(|to| matches!(to.target, Target::Gateway { .. })) {
            return Vec::new();
        }
        let port = only_port(here.iter().map(|m| m.port.as_ref()));
        let copies = wanted.into_iter().filter_map(|(destination, share)| {
            let target = self.target(destination, stage, port, Traffic::Http, scope);
            if matches!(target, Target::Gateway { .. }) {
                let message = "a copy is sent to a host of a ServiceEntry, not to a gateway";
                scope.meta.cx(self.report).warn(&destination.at, message);
                return None;
            }
            Some(Mirror { target, share })
        });
        copies.collect()
    }
}

/// The destinations, each with its share of the requests.
fn wanted<'r>(rule: &'r RuleMirror, cx: &mut Cx<'_>) -> Vec<(&'r Destination, f64)> {
    let RuleMirror {
        at,
        mirror,
        mirrors,
        mirror_percentage,
        mirror_percent,
        mirror_percent_old,
        ..
    } = rule;
    let old = mirror_percent.as_ref().or(mirror_percent_old.as_ref());
    if mirror.is_some() && !mirrors.0.is_empty() {
        cx.wrong(at, "mirror and mirrors", "one of them", "copies are listed in one place");
    }
    if mirror.is_none() {
        let shares = [mirror_percentage.as_ref().map(|share| &share.at), old.map(|old| &old.at)];
        for share in shares.into_iter().flatten() {
            cx.warn(
                share,
                "has no effect without mirror; an entry of mirrors has its own percentage",
            );
        }
    }
    let only = mirror.iter().map(|to| (to, mirror_percentage.as_ref(), old));
    let listed = mirrors.0.iter().filter_map(|HttpMirror { at: _, destination, percentage }| {
        Some((destination.as_ref()?, percentage.as_ref(), None))
    });
    only.chain(listed)
        .map(|(to, percentage, old)| (to, share(percentage, old, cx)))
        .filter(|(_, share)| *share > 0.0)
        .collect()
}

/// From 0 to 1; all where nothing is said.
fn share(percentage: Option<&Percentage>, old: Option<&Spanned<u32>>, cx: &mut Cx<'_>) -> f64 {
    let mut checked = |value: f64, at: &SourcePosition| {
        if !(0.0..=100.0).contains(&value) {
            cx.wrong(at, value.to_string(), "0 to 100", "not a percentage");
        }
        value / 100.0
    };
    match (percentage, old) {
        (Some(Percentage { at: _, value: Some(value) }), _) => checked(value.value, &value.at),
        // A percentage without a value is 0, as in Istio.
        (Some(_), _) => 0.0,
        (None, Some(old)) => checked(f64::from(old.value), &old.at),
        (None, None) => 1.0,
    }
}
