//! The rules of egress policies that are nearest to what no rule allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    policy::{EgressPolicy, EgressRule, HostPattern},
    types::{Host, OriginalPort, Source},
};

/// What tells a rule from what was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Difference {
    /// Its policy is for other pods.
    Pods,
    /// It names the host with another port.
    Port,
    /// It names a host that is spelt almost alike.
    Name,
}

/// A policy that names something like what was asked.
#[derive(Debug)]
pub(super) struct NearPolicy {
    pub(super) difference: Difference,
    /// `EgressPolicy shop/payments`.
    pub(super) policy: Arc<str>,
    /// What it names, as a sentence.
    pub(super) text: String,
    /// Whether it is for other namespaces.
    is_foreign: bool,
}

/// The policies that name something like the host and port, the nearest first; none where a policy of the source names
/// just that: then the refusal is about what that one allows there.
pub(super) fn near_policies(
    policies: &[Arc<EgressPolicy>],
    (host, port): (&Host, OriginalPort),
    source: &Source,
) -> Vec<NearPolicy> {
    let mut near = Vec::new();
    for policy in policies {
        let label = &policy.label;
        let is_foreign = !source.namespace().is_some_and(|own| policy.scope.includes(own));
        let mut add = |difference, text: String| {
            near.push(NearPolicy { difference, policy: Arc::clone(label), text, is_foreign });
        };
        let is_named = policy.rules.iter().any(|rule| rule.port == port && rule.host.matches(host));
        match (is_named, policy.selects(source)) {
            (true, true) => return Vec::new(),
            (true, false) => {
                add(Difference::Pods, format!("{label} names this host and port, for other pods"));
            }
            (false, false) => {}
            (false, true) => {
                let mut ports: BTreeMap<String, BTreeSet<OriginalPort>> = BTreeMap::new();
                for rule in policy.rules.iter().filter(|rule| rule.host.matches(host)) {
                    ports.entry(rule.host.to_string()).or_default().insert(rule.port);
                }
                for (named, ports) in ports {
                    let ports: Vec<_> = ports.iter().map(|port| format!("port {port}")).collect();
                    let text = format!("{label} names {named} with {}", ports.join(" and "));
                    add(Difference::Port, text);
                }
                let is_other = |rule: &&Arc<EgressRule>| !rule.host.matches(host);
                let others = policy.rules.iter().filter(is_other);
                let typos = others.filter(|rule| is_typo(&rule.host, host));
                let typos: BTreeSet<String> = typos.map(|rule| rule.host.to_string()).collect();
                for named in typos {
                    let text = format!("{label} names {named}; is {host} a typing error?");
                    add(Difference::Name, text);
                }
            }
        }
    }
    // Those of the source's own namespace come first.
    near.sort_by_key(|near| (near.difference, near.is_foreign));
    near
}

/// Whether a host that is declared differs from another by a letter or two.
pub(super) fn is_typo(declared: &HostPattern, asked: &Host) -> bool {
    let (Some(Host::Name(declared)), Host::Name(asked)) = (declared.exact(), asked) else {
        return false;
    };
    strsim::damerau_levenshtein(declared, asked) <= 2
}
