//! The parts that both forms of a suggestion share.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::observed_traffic::{Evidence, Group, ObservedTraffic};
use crate::types::Labels;

/// What stands above all.
pub(super) fn head(seen: &ObservedTraffic) -> String {
    let all = seen.groups.values().flat_map(|wanted| wanted.values());
    let count: u64 = all.map(|evidence| evidence.count).sum();
    let flows = if count == 1 { "flow" } else { "flows" };
    let mut text = format!(
        "# Suggested by `egress-agent suggest` from {count} {flows} that no resource allows.\n\
         # Hosts are what the workloads asked for: read it before you apply it.\n"
    );
    for (why, count) in &seen.left_out {
        let flows = if *count == 1 { "flow" } else { "flows" };
        writeln!(text, "# Left out: {count} {flows} {why}.").ok();
    }
    text
}

/// `3 times, first 2026-11-29T12:00:00Z, last 2026-11-29T13:00:00Z`
pub(super) fn evidence(evidence: Evidence) -> String {
    let Evidence { count, first, last } = evidence;
    let time = |time| {
        let time = Timestamp::try_from(time).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    match count {
        1 => format!("once, {}", time(first)),
        n => format!("{n} times, first {}, last {}", time(first), time(last)),
    }
}

/// Lines of a mapping of labels.
pub(super) fn labels(labels: &Labels, indent: &str) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{indent}{}: {}\n", quoted(key), quoted(value)))
        .collect()
}

/// A name for a resource of the group: that of its `app` label or of its only workload.
pub(super) fn name(group: &Group, seen: &ObservedTraffic) -> String {
    let label = ["app.kubernetes.io/name", "app"].iter().find_map(|key| group.labels.get(*key));
    let names = seen.names.get(group);
    let only = names.filter(|names| names.len() == 1).and_then(|names| names.first());
    let text = match (label, only) {
        (Some(label), _) => label.as_str(),
        (None, Some(only)) if !group.labels.is_empty() => only.as_str(),
        _ => "all",
    };
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(allowed).take(40).collect();
    match text.trim_matches('-') {
        "" => "suggested".to_owned(),
        text => format!("suggested-{text}"),
    }
}

/// Six letters and digits that stand for a text: the same for the same text.
pub(super) fn mark(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().take(3).map(|b| format!("{b:02x}")).collect()
}

/// A text that YAML reads as a text, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'/' | b'_');
    let letter = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
    );
    if letter && !word && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}
