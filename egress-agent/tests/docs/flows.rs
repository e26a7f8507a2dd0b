//! Each reason's section shows how it looks where a user meets it: a line of `flows`, or the counter
//! where no event is made.

use std::fs;

use egress_agent::{bpf::Hook, telemetry::TUNNEL_HOOK};
use egress_ebpf::reason::Reason;

use super::{TROUBLESHOOTING, markdown::root};

/// What stands under the reason's heading.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let heading = format!("\n#### {name}\n");
    let (_, rest) = page.split_once(&*heading).unwrap_or_else(|| panic!("no heading `{name}`"));
    rest.split("\n#").next().expect("a first part")
}

/// The one line of the section's one block.
fn shown<'a>(section: &'a str, name: &str) -> &'a str {
    let block = section.split_once("```text\n").and_then(|(_, rest)| rest.split_once("\n```"));
    let (line, _) = block.unwrap_or_else(|| panic!("`{name}` doesn't show how it looks in flows"));
    assert_eq!(line.lines().count(), 1, "`{name}` shows more than a line");
    line
}

#[test]
fn every_reason_shows_how_it_looks() {
    let page = fs::read_to_string(root().join(TROUBLESHOOTING)).expect(TROUBLESHOOTING);
    for reason in Reason::ALL {
        let name = reason.name();
        let line = shown(section(&page, name), name);
        // Who gives a reason, and whether it lets pass: the ranges are the map ABI's.
        let (verbs, hooks): (&[&str], Vec<&str>) = match *reason as u8 {
            0..16 => (&["ALLOWED", "REDIRECTED"], Hook::ALL.map(Hook::name).into()),
            // The node's tunnel refuses too, and may fail.
            16..64 => {
                let hooks = Hook::ALL.map(Hook::name).into_iter().chain([TUNNEL_HOOK]);
                (&["DENIED", "FAILED"], hooks.collect())
            }
            64.. => (&["DENIED", "FAILED"], vec!["gateway"]),
        };
        let is_counter = line.starts_with("egress_verdicts_total{hook=\"")
            && line.contains(&format!("reason=\"{name}\""))
            && hooks.iter().any(|hook| line.contains(&format!("hook=\"{hook}\"")));
        let is_flow = line.contains(" -> ")
            && verbs.iter().any(|verb| {
                hooks.iter().any(|hook| {
                    let middle = format!(" {verb} ({name}) at {hook}");
                    line.split_once(&*middle).is_some_and(|(_, rest)| rest.starts_with([',', ':']))
                })
            });
        assert!(is_counter || is_flow, "`{name}`: {line}");
    }
}
