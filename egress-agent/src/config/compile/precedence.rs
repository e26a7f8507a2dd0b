//! Which destination rules count, and several of them as one.

use super::{rule::Rule, traffic::Settings};
use crate::{
    policy::HostPattern,
    types::{Labels, Port},
};

/// Several rules as one: the subsets of all, and the first traffic policy. What one that is only about TLS leaves
/// open is the next one's.
pub(super) struct Merged<'a> {
    pub(super) settings: Settings,
    pub(super) labels: Labels,
    pub(super) has_subset: bool,
    /// The rule whose own traffic policy counts.
    pub(super) base: Option<&'a Rule>,
}

impl<'a> Merged<'a> {
    pub(super) fn of(rules: &[&'a Rule], port: Port, subset: &str) -> Self {
        let (mut base, mut own) = (None, Settings::default());
        for rule in rules.iter().copied() {
            let Some(policy) = &rule.policy else { continue };
            let settings = policy.on(port);
            if base.is_none() || own.tls.is_none() && settings.tls.is_some() {
                base = Some(rule);
            }
            own = own.or(settings);
            if !rule.is_only_tls {
                break;
            }
        }
        let chosen = rules.iter().find_map(|rule| rule.subset(subset));
        let labels = chosen.map(|subset| subset.labels.clone()).unwrap_or_default();
        let settings = match chosen {
            // The subset's own settings for the port replace everything, as the rule's do.
            Some(subset) if subset.policy.ports.iter().any(|(number, _)| *number == port) => {
                subset.policy.on(port)
            }
            Some(subset) => subset.policy.settings.clone().or(own),
            None => own,
        };
        Self { settings, labels, has_subset: chosen.is_some(), base }
    }
}

/// The rules for a host, of those that count: all of the most specific one that covers it.
pub(super) fn most_specific<'a>(
    rules: &[&'a Rule],
    host: &HostPattern,
    counts: impl Fn(&Rule) -> bool,
) -> Vec<&'a Rule> {
    let mut found: Vec<&Rule> = Vec::new();
    for rule in rules.iter().filter(|rule| rule.covers(host) && counts(rule)) {
        match found.first() {
            Some(best) if best.host == rule.host => found.push(rule),
            Some(best) if !best.covers(&rule.host) => {}
            _ => found = vec![rule],
        }
    }
    found
}

/// What holds for a host's port and subset under these rules.
pub(super) fn merged(rules: &[&Rule], port: Port, subset: &str) -> Settings {
    Merged::of(rules, port, subset).settings
}
