//! `docs/reference/metrics.md`, from what the two roles write.

use std::collections::BTreeMap;

use super::{
    node_metrics::families,
    prometheus,
    tests::{status, telemetry},
};
use crate::types::testing::page;

const HEAD: &str = "\
# Metrics reference

<!-- Generated: `cargo xtask references`. -->

Every metric of the two roles, with its type and the text of its `HELP`. [Telemetry](../telemetry.md) says where they
are served and what their labels hold.

| metric | type | role | meaning |
|---|---|---|---|
";

/// A family as the exposition has it.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    roles: Vec<&'static str>,
}

/// The families of a text, added to those of the other role.
fn add(role: &'static str, text: &str, all: &mut BTreeMap<String, Family>) {
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let family = all.entry(name.to_owned()).or_default();
        match what {
            "HELP" => {
                // What one role counts of the other's ends is said in its own words.
                if family.help.is_empty() {
                    family.help = rest.to_owned();
                } else if family.help != rest {
                    family.help.push_str(&format!(" On a {role}: {rest}"));
                }
                if !family.roles.contains(&role) {
                    family.roles.push(role);
                }
            }
            "TYPE" => family.kind = rest.to_owned(),
            other => panic!("{other} in {line}"),
        }
    }
}

#[test]
fn the_page_lists_every_metric() {
    let mut all = BTreeMap::new();
    add("gateway", &prometheus::text(&telemetry(), &status()), &mut all);
    add("node", &families(), &mut all);
    assert!(all.len() > 40, "{}", all.len());
    let mut text = String::from(HEAD);
    for (name, Family { kind, help, roles }) in &all {
        assert!(!kind.is_empty() && !help.is_empty(), "{name}");
        text.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", roles.join(", ")));
    }
    page("metrics.md", &text);
}
