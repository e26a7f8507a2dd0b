//! The parts that both forms of a suggestion share.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::observed_traffic::{Evidence, Group, ObservedTraffic};
use crate::types::{Labels, printable};

/// Columns of a comment at most, but for a word that is longer.
const WIDTH: usize = 80;

/// What stands above all.
pub(super) fn head(seen: &ObservedTraffic) -> String {
    let all = seen.groups.values().flat_map(|wanted| wanted.values());
    let count: u64 = all.map(|evidence| evidence.count).sum();
    let flows = if count == 1 { "flow" } else { "flows" };
    let from = format!(
        "Suggested by `egress-agent suggest` from {count} {flows} that no resource allows."
    );
    let mut text = comment("", &from);
    text += &comment("", "Hosts are what the workloads asked for: read it before you apply it.");
    for (why, count) in &seen.left_out {
        let flows = if *count == 1 { "flow" } else { "flows" };
        text += &comment("", &format!("Left out: {count} {flows} {why}."));
    }
    text
}

/// A comment that no word of it can end, in lines that fit a page. Names in it may come from workloads.
pub(super) fn comment(indent: &str, text: &str) -> String {
    let text = printable(text);
    let mut all = String::new();
    let mut line = format!("{indent}#");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            all = all + &line + "\n";
            line = format!("{indent}#  ");
        }
        line = line + " " + word;
        is_empty = false;
    }
    all + &line + "\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_fits_a_page_and_stays_one() {
        assert_eq!(comment("  ", "short"), "  # short\n");
        let long = comment("    ", &"word ".repeat(40));
        assert!(long.lines().count() > 2 && long.lines().all(|line| line.len() <= WIDTH), "{long}");
        let lines: Vec<&str> = long.lines().collect();
        assert!(lines[0].starts_with("    # word"), "{long}");
        assert!(lines[1..].iter().all(|line| line.starts_with("    #   word")), "{long}");
        // A word that is longer has a line of its own.
        let word = "w".repeat(100);
        assert_eq!(comment("", &format!("a {word} b")), format!("# a\n#   {word}\n#   b\n"));
        // The twin: a line that just fits.
        let fits = "w".repeat(WIDTH - 4);
        assert_eq!(comment("", &format!("a {fits}")), format!("# a {fits}\n"));
        // What a name has in it is no line of YAML.
        assert_eq!(
            comment("", "of a\nkind: Secret\r\u{85}"),
            "# of a\\u{a}kind: Secret\\u{d}\\u{85}\n"
        );
    }
}
