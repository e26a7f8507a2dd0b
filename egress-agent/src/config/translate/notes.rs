//! What is said of resources, and what of a route is refused for it.

use std::{collections::HashMap, rc::Rc};

use super::super::{
    decode::{Report, SourcePosition, Spanned},
    meta::Meta,
    problem::{Problem, Severity, StatusReason},
    virtual_service::Destination,
};
use crate::policy::HostPattern;

/// A value at a place of the resource that it was made of.
pub(super) fn at<T>(value: T, spot: &SourcePosition) -> Spanned<T> {
    Spanned { value, at: spot.clone() }
}

/// Notes that a part of a resource is refused.
pub(super) fn refuse(
    meta: &Meta,
    spot: &SourcePosition,
    message: impl Into<String>,
    report: &mut Report,
) {
    meta.cx(report).note(Severity::Refusal, spot, message);
}

/// Notes that a route or a listener is refused, and the reason that its conditions show.
pub(super) fn refuse_for(
    reason: StatusReason,
    meta: &Meta,
    spot: &SourcePosition,
    message: impl Into<String>,
    report: &mut Report,
) {
    meta.cx(report).note(Severity::Refusal, spot, message).status_reason = Some(reason);
}

/// Takes over what was noted when a resource was read.
pub(super) fn take(problems: &[Problem], report: &mut Report) {
    report.problems.extend(problems.iter().cloned());
}

/// Whether references could not be read: then nobody knows whose the resource is. `field` is what they are called,
/// or how that begins.
pub(super) fn are_unread(problems: &[Problem], field: &str) -> bool {
    let wrong = problems.iter().filter(|problem| problem.severity != Severity::Warning);
    let mut below = wrong.filter_map(|problem| problem.field.as_deref()?.strip_prefix("spec"));
    below.any(|rest| rest.trim_start_matches(['.', '[', '"']).starts_with(field))
}

/// The hosts that a route names. Where one of them is none, nobody knows what the route is for.
pub(super) fn hosts(
    names: &[Spanned<String>],
    meta: &Meta,
    verdict: &mut Verdict,
    problems: &mut Vec<Problem>,
) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    let mut report = Report::default();
    for text in names {
        match HostPattern::parse(&text.value) {
            Ok(host @ (HostPattern::Exact(_) | HostPattern::Below(_))) => hosts.push(host),
            Ok(_) | Err(_) => {
                let why = format!(
                    "{:?} is no host that a route can be for; the route is refused",
                    text.value
                );
                refuse(meta, &text.at, why.as_str(), &mut report);
                verdict.whole.get_or_insert_with(|| why.into());
            }
        }
    }
    problems.append(&mut report.problems);
    hosts
}

/// A destination that is refused.
pub(super) fn refused(why: &str, spot: &SourcePosition) -> Destination {
    Destination { refused: Some(why.into()), ..Destination::empty(spot) }
}

/// What of a route cannot be carried out.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// All of it: a condition could not be read, so nobody knows what its rules are for.
    pub(super) whole: Option<Rc<str>>,
    /// Rules, by their number.
    pub(super) rules: HashMap<usize, Rc<str>>,
}

impl Verdict {
    /// What follows from the problems of reading it.
    pub(super) fn of(problems: &[Problem]) -> Self {
        let mut verdict = Self::default();
        for problem in problems.iter().filter(|p| p.severity != Severity::Warning) {
            let field = problem.field.as_deref().unwrap_or_default();
            let why = format!("{field}: {}", problem.message);
            let rule = field.strip_prefix("spec.rules[").and_then(|rest| rest.split_once(']'));
            let number = rule.and_then(|(number, rest)| {
                let is_condition = rest.starts_with(".matches");
                number.parse().ok().filter(|_| !is_condition)
            });
            match number {
                Some(number) => drop(verdict.rules.entry(number).or_insert_with(|| why.into())),
                None => drop(verdict.whole.get_or_insert_with(|| why.into())),
            }
        }
        verdict
    }

    /// Why a rule is refused.
    pub(super) fn rule(&self, number: usize) -> Option<&Rc<str>> {
        self.whole.as_ref().or_else(|| self.rules.get(&number))
    }
}
