//! As `EgressPolicy`: one for each group of workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    seen::{Evidence, Group, Seen, Spoken, Wanted},
    yaml::{evidence, head, labels, name, quoted},
};

/// Rules of a policy, and hosts of a rule, at most.
const RULES: usize = 64;
const HOSTS: usize = 64;

/// The resources, as one file.
#[must_use]
pub fn policies(seen: &Seen) -> String {
    let mut text = head(seen);
    let mut names = Names::of(seen);
    for (group, wanted) in &seen.groups {
        for rules in rules(wanted).chunks(RULES) {
            let name = names.next(group, seen);
            text.push_str("---\n");
            text.push_str(&policy(group, seen, &name, rules));
        }
    }
    text
}

/// The names of the policies: none has the name of another one of its namespace.
struct Names<'a> {
    /// Namespaces and names that groups have by themselves, and whether they were given.
    own: BTreeMap<(&'a str, String), bool>,
    /// Others that were given.
    numbered: BTreeSet<(&'a str, String)>,
}

impl<'a> Names<'a> {
    fn of(seen: &'a Seen) -> Self {
        let own =
            seen.groups.keys().map(|group| ((group.namespace.as_str(), name(group, seen)), false));
        Self { own: own.collect(), numbered: BTreeSet::new() }
    }

    /// The name of the group, or where another policy has it, the next number behind it.
    fn next(&mut self, group: &'a Group, seen: &Seen) -> String {
        let (namespace, own) = (group.namespace.as_str(), name(group, seen));
        if let Some(given @ false) = self.own.get_mut(&(namespace, own.clone())) {
            *given = true;
            return own;
        }
        let mut number = 2_u32;
        loop {
            let key = (namespace, format!("{own}-{number}"));
            if !self.own.contains_key(&key) && self.numbered.insert(key.clone()) {
                return key.1;
            }
            number += 1;
        }
    }
}

/// A rule: hosts of one port.
type Rule = ((u16, Spoken), Vec<(String, Evidence)>);

fn rules(wanted: &BTreeMap<Wanted, Evidence>) -> Vec<Rule> {
    let mut by_port: BTreeMap<(u16, Spoken), Vec<(String, Evidence)>> = BTreeMap::new();
    for (Wanted { port, spoken, host }, evidence) in wanted {
        by_port.entry((*port, *spoken)).or_default().push((host.clone(), *evidence));
    }
    let chunks = by_port.into_iter().flat_map(|(port, hosts)| {
        let chunks: Vec<Rule> = hosts.chunks(HOSTS).map(|hosts| (port, hosts.to_vec())).collect();
        chunks
    });
    chunks.collect()
}

fn policy(group: &Group, seen: &Seen, name: &str, rules: &[Rule]) -> String {
    let mut text = String::new();
    if group.labels.is_empty() {
        let names = seen.names.get(group).into_iter().flatten().cloned();
        let names = names.collect::<Vec<_>>().join(", ");
        writeln!(text, "# For every pod of the namespace: no labels are known of {names}.").ok();
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
            writeln!(text, "    # {}\n    - {}", evidence(*seen), quoted(host)).ok();
        }
        let spoken = spoken.name();
        writeln!(text, "    ports:\n    - port: {port}\n      protocol: {spoken}").ok();
    }
    text
}
