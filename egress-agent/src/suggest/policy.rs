//! As `EgressPolicy`: one for each group of workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    InForce, Part, Suggestion,
    observed_traffic::{Evidence, Group, ObservedTraffic, SuggestedDestination, SuggestedProtocol},
    yaml::{comment, evidence, head, labels, mark, name, quoted},
};
use crate::policy::{EgressPolicy, Snapshot};

/// Rules of a policy, and hosts of a rule, at most.
const RULES: usize = 64;
const HOSTS: usize = 64;

/// Policies that have the name of a suggestion, as `shop/suggested-web-0a1b2c`, each with its place.
#[must_use]
pub fn applied(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let one = |policy: &EgressPolicy| {
        let of = policy.label.strip_prefix("EgressPolicy ")?;
        let (_, name) = of.split_once('/')?;
        let place = snapshot.places.get(&policy.label);
        let place = place.map(|place| format!("{}:{}", place.file, place.line));
        name.starts_with("suggested-").then(|| (of.to_owned(), place.unwrap_or_default()))
    };
    snapshot.rules.egress.iter().filter_map(|policy| one(policy)).collect()
}

/// The resources, in parts of one policy. `applied` is what earlier suggestions there are in force: a policy that has
/// the same name allows the same, and is not suggested again.
#[must_use]
pub fn policies(seen: &ObservedTraffic, applied: &BTreeMap<String, String>) -> Suggestion {
    let mut head = head(seen);
    let mut parts = Vec::new();
    let mut names = Names::default();
    for (group, wanted) in &seen.groups {
        for rules in rules(wanted).chunks(RULES) {
            let name = names.next(group, seen, rules);
            let resource = format!("{}/{name}", group.namespace);
            if let Some(place) = applied.get(&resource) {
                let there =
                    InForce { resource: format!("EgressPolicy {resource}"), place: place.clone() };
                head += &comment("", &format!("Left out: {there} is in force."));
                continue;
            }
            let text = format!("---\n{}", policy(group, seen, &name, rules));
            parts.push(Part::new(&group.namespace, &name, text));
        }
    }
    Suggestion { head, parts }
}

/// The names of the policies: none has the name of another one of its namespace, nor that of an earlier suggestion
/// that allows something else, which it would replace.
#[derive(Default)]
struct Names<'a>(BTreeSet<(&'a str, String)>);

impl<'a> Names<'a> {
    /// The name of the group and what tells these rules from others; the next number behind it where another policy has
    /// that.
    fn next(&mut self, group: &'a Group, seen: &ObservedTraffic, rules: &[Rule]) -> String {
        let mut allowed = format!("{:?}", group.labels);
        for ((port, spoken), hosts) in rules {
            write!(allowed, "\n{port} {}", spoken.name()).ok();
            for (host, _) in hosts {
                write!(allowed, " {host}").ok();
            }
        }
        let own = format!("{}-{}", name(group, seen), mark(&allowed));
        let namespace = group.namespace.as_str();
        if self.0.insert((namespace, own.clone())) {
            return own;
        }
        let mut number = 2_u32;
        loop {
            let numbered = format!("{own}-{number}");
            if self.0.insert((namespace, numbered.clone())) {
                return numbered;
            }
            number += 1;
        }
    }
}

/// A rule: hosts of one port.
type Rule = ((u16, SuggestedProtocol), Vec<(String, Evidence)>);

fn rules(wanted: &BTreeMap<SuggestedDestination, Evidence>) -> Vec<Rule> {
    let mut by_port: BTreeMap<(u16, SuggestedProtocol), Vec<(String, Evidence)>> = BTreeMap::new();
    for (SuggestedDestination { port, spoken, host }, evidence) in wanted {
        by_port.entry((*port, *spoken)).or_default().push((host.clone(), *evidence));
    }
    let chunks = by_port.into_iter().flat_map(|(port, hosts)| {
        let chunks: Vec<Rule> = hosts.chunks(HOSTS).map(|hosts| (port, hosts.to_vec())).collect();
        chunks
    });
    chunks.collect()
}

fn policy(group: &Group, seen: &ObservedTraffic, name: &str, rules: &[Rule]) -> String {
    let mut text = String::new();
    if group.labels.is_empty() {
        let names = seen.names.get(group).into_iter().flatten().cloned();
        let names = names.collect::<Vec<_>>().join(", ");
        let why = format!("For every pod of the namespace: no labels are known of {names}.");
        text += &comment("", &why);
    }
    writeln!(
        text,
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata:\n  name: {}\n  \
         namespace: {}\nspec:",
        quoted(name),
        quoted(&group.namespace)
    )
    .ok();
    if !group.labels.is_empty() {
        let labels = labels(&group.labels, "      ");
        write!(text, "  podSelector:\n    matchLabels:\n{labels}").ok();
    }
    text.push_str("  rules:\n");
    for ((port, spoken), hosts) in rules {
        text.push_str("  - hosts:\n");
        for (host, seen) in hosts {
            text += &comment("    ", &evidence(*seen));
            writeln!(text, "    - {}", quoted(host)).ok();
        }
        let spoken = spoken.name();
        writeln!(text, "    ports:\n    - port: {port}\n      protocol: {spoken}").ok();
    }
    text
}
