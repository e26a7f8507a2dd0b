//! The `reasons` command: the page on reasons, at hand on a node.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use egress_ebpf::reason::Reason;

/// The page that the documentation has; one text for both.
const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// Options of `reasons`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # Every reason in a line.
  egress-agent reasons

  # What one means, and what to do about it.
  egress-agent reasons no_route")]
pub(super) struct ReasonsArgs {
    /// The reason, as `flows`, the metrics and the answer to a refused request name it.
    #[arg(value_name = "NAME", value_parser = reason)]
    name: Option<Reason>,
}

/// The reason of this name, or an error that names the nearest.
pub(super) fn reason(text: &str) -> Result<Reason, String> {
    let same = |reason: &&Reason| reason.name() == text;
    if let Some(reason) = Reason::ALL.iter().find(same) {
        return Ok(*reason);
    }
    let distance = |reason: &&Reason| strsim::damerau_levenshtein(text, reason.name());
    let nearest = Reason::ALL.iter().min_by_key(distance).map_or("", |reason| reason.name());
    Err(format!(
        "there is no reason `{text}`. Did you mean {nearest}? `egress-agent reasons` lists them all"
    ))
}

/// Prints what the page says.
///
/// # Errors
/// Standard output is gone.
pub(super) fn run(args: ReasonsArgs) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.name {
        Some(reason) => writeln!(out, "{}", explained(reason))?,
        None => writeln!(out, "{}", list())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// All that the page says about a reason.
fn explained(reason: Reason) -> String {
    let name = reason.name();
    let text = section(PAGE, name).map_or_else(|| "It isn't documented.".into(), plain);
    format!("{name} ({}, number {})\n\n{text}", class(reason), reason as u8)
}

/// Every reason in a line.
fn list() -> String {
    let width = Reason::ALL.iter().map(|reason| reason.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut last = "";
    for reason in Reason::ALL {
        let class = class(*reason);
        if class != last {
            let before = if last.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{before}{class}:\n"));
            last = class;
        }
        text.push_str(&format!("  {:width$}  {}\n", reason.name(), meaning(reason.name())));
    }
    text.push_str("\n`egress-agent reasons NAME` says more about one, and what to do.");
    text
}

/// Who gives it; the ranges are the map ABI's.
fn class(reason: Reason) -> &'static str {
    match reason as u8 {
        0..16 => "let pass",
        16..64 => "refused by the node",
        64.. => "refused by the gateway",
    }
}

/// The first sentence on a reason; empty where there is none.
pub(super) fn meaning(name: &str) -> String {
    let text = section(PAGE, name).map(plain).unwrap_or_default();
    let paragraph = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    match paragraph.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => paragraph,
    }
}

/// What stands under the heading of this text, up to the next heading of whatever level. Number
/// signs inside of code are no headings.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let mut in_code = false;
    let mut start = None;
    let mut at = 0;
    for line in page.split_inclusive('\n') {
        let begins = at;
        at += line.len();
        if line.starts_with("```") {
            in_code = !in_code;
        }
        if in_code || !line.starts_with('#') {
            continue;
        }
        match start {
            Some(start) => return Some(page[start..begins].trim()),
            None if line.trim_start_matches('#').trim() == heading => start = Some(at),
            None => {}
        }
    }
    start.map(|start| page[start..].trim())
}

/// Markdown for a terminal: links are their texts, fences are gone.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    for line in markdown.lines().filter(|line| !line.starts_with("```")) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('[') {
            let link = after.split_once("](").and_then(|(label, target)| {
                let (_, after) = target.split_once(')')?;
                (!label.contains('[')).then_some((label, after))
            });
            text.push_str(before);
            match link {
                Some((label, after)) => {
                    text.push_str(label);
                    rest = after;
                }
                None => {
                    text.push('[');
                    rest = after;
                }
            }
        }
        text.push_str(rest);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_at_the_next_heading_of_whatever_level() {
        let page = "# Page\n\n## a\nx\n\n#### no_route\n\nOne. Two\n```sh\n# no heading\n```\n\n\
                    ### Next\nmore\n#### last\nend";
        let body = "One. Two\n```sh\n# no heading\n```";
        assert_eq!(section(page, "no_route"), Some(body));
        assert_eq!(section(page, "last"), Some("end"));
        assert_eq!(section(page, "a"), Some("x"));
        assert_eq!(section(page, "no heading"), None);
        assert_eq!(section(page, "route"), None);
    }

    #[test]
    fn markdown_is_made_readable() {
        let text = plain("See [`x`](#x) and [y](z.md) [z], `a[0]`.\n\n```text\ncode\n```\nend\n");
        assert_eq!(text, "See `x` and y [z], `a[0]`.\n\ncode\nend");
    }

    #[test]
    fn every_reason_is_explained_in_a_line_and_in_full() {
        for reason in Reason::ALL {
            let line = meaning(reason.name());
            assert!(line.len() > 20 && line.ends_with(['.', ':']), "{}: {line:?}", reason.name());
            let text = explained(*reason);
            assert!(!text.contains("](") && !text.contains("```"), "{text}");
            assert!(list().contains(&line));
        }
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest() {
        assert_eq!(reason("no_route"), Ok(Reason::NoRoute));
        assert!(reason("no_rote").unwrap_err().contains("Did you mean no_route?"));
        assert!(reason("").is_err());
    }
}
