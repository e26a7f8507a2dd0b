//! The `reasons` command: the page on reasons, at hand on a node.

use std::{io::Write as _, process::ExitCode};

use egress_ebpf::reason::Reason;

use super::{
    output::stdout,
    wrap::{WIDTH, wrap},
};
use crate::telemetry::ResponseFlag;

/// What code is indented by.
const CODE: &str = "    ";
/// The page that the documentation has; one text for both.
const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// Options of `reasons`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # Every reason and every response flag in a line.
  egress-agent reasons

  # What one means, and what to do about it.
  egress-agent reasons no_route

  # What a flag in the access log means.
  egress-agent reasons NR")]
pub(super) struct ReasonsArgs {
    /// The reason, as `flows`, the metrics and the answer to a refused request name it, or its number,
    /// or a response flag of the access log.
    #[arg(value_name = "NAME", value_parser = topic)]
    name: Option<Topic>,
}

/// How like a name must be to be named (Jaro-Winkler).
const LIKE: f64 = 0.8;

/// What is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topic {
    Reason(Reason),
    Flag(ResponseFlag),
}

/// The reason or the flag of this name, or an error that names the nearest.
fn topic(text: &str) -> Result<Topic, String> {
    if let Some(flag) = flag(text) {
        return Ok(Topic::Flag(flag));
    }
    let number = |reason: &&Reason| text.parse() == Ok(**reason as u8);
    if let Some(reason) = Reason::ALL.iter().find(number) {
        return Ok(Topic::Reason(*reason));
    }
    reason(&text.to_ascii_lowercase().replace('-', "_")).map(Topic::Reason)
}

/// The reason of this name, or an error that names the nearest.
pub(super) fn reason(text: &str) -> Result<Reason, String> {
    let same = |reason: &&Reason| reason.name() == text;
    if let Some(reason) = Reason::ALL.iter().find(same) {
        return Ok(*reason);
    }
    if let Some(flag) = flag(text) {
        let code = flag.code();
        return Err(format!(
            "{code} is a response flag: `egress-agent reasons {code}` lists the reasons that it stands for"
        ));
    }
    let likeness = |reason: &Reason| strsim::jaro_winkler(text, reason.name());
    let likest = Reason::ALL.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let nearest = likest.filter(|reason| likeness(reason) > LIKE);
    let hint = nearest.map(|near| format!(" Did you mean {}?", near.name())).unwrap_or_default();
    Err(format!("there is no reason `{text}`.{hint} `egress-agent reasons` lists them all"))
}

/// The response flag of this code, however it is written.
fn flag(text: &str) -> Option<ResponseFlag> {
    ResponseFlag::ALL.iter().find(|flag| flag.code().eq_ignore_ascii_case(text)).copied()
}

/// Prints what the page says.
///
/// # Errors
/// Standard output is gone.
pub(super) fn run(args: ReasonsArgs) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    match args.name {
        Some(topic) => write!(out, "{}", explained(topic))?,
        None => write!(out, "{}", list())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// All that the page says about a reason or a flag.
fn explained(topic: Topic) -> String {
    let (title, heading) = match topic {
        Topic::Reason(reason) => {
            let name = reason.name();
            (format!("{name} ({}, number {})", class(reason), reason as u8), name.to_owned())
        }
        Topic::Flag(flag) => {
            let heading = flag_heading(flag);
            (format!("{heading} (response flag)"), heading.to_owned())
        }
    };
    let text = section(PAGE, &heading).map_or_else(|| "It isn't documented.".into(), plain);
    let also = elsewhere(&text).map(|reason| format!("\n{}", explained(Topic::Reason(reason))));
    format!("{title}\n\n{}{}", fit(&text), also.unwrap_or_default())
}

/// The reason that a section has nothing but a reference to.
fn elsewhere(text: &str) -> Option<Reason> {
    let name = text.trim().strip_prefix("See `")?.strip_suffix("`.")?;
    Reason::ALL.iter().find(|reason| reason.name() == name).copied()
}

/// Every reason and every flag in a line.
fn list() -> String {
    let width = Reason::ALL.iter().map(|reason| reason.name().len()).max().unwrap_or(0);
    let line = |name: &str, meaning: &str| {
        let (first, next) = (format!("  {name:width$}  "), " ".repeat(width + 4));
        wrap(meaning, &first, &next, WIDTH)
    };
    let mut text = String::new();
    let mut last = "";
    for reason in Reason::ALL {
        let class = class(*reason);
        if class != last {
            let before = if last.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{before}{class}:\n"));
            last = class;
        }
        text.push_str(&line(reason.name(), &meaning(reason.name())));
    }
    text.push_str("\nresponse flags of the access log:\n");
    for flag in ResponseFlag::ALL {
        let heading = flag_heading(*flag);
        text.push_str(&line(flag.code(), heading.split_once(": ").map_or("", |(_, title)| title)));
    }
    text.push_str("\n`egress-agent reasons NAME` says more about one, and what to do.\n");
    text
}

/// The heading of a flag: `NR: no route`.
fn flag_heading(flag: ResponseFlag) -> &'static str {
    let start = format!("### {}: ", flag.code());
    let heading = PAGE.lines().find(|line| line.starts_with(&start));
    heading.map_or(flag.code(), |heading| heading.trim_start_matches('#').trim())
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

/// Paragraphs in lines of 80 columns; what is indented and fits stays as it is, so that it can be copied.
fn fit(text: &str) -> String {
    let mut fitted = String::new();
    for paragraph in text.split("\n\n") {
        if !fitted.is_empty() {
            fitted.push('\n');
        }
        if paragraph.starts_with(CODE) {
            for line in paragraph.lines() {
                if line.chars().count() <= WIDTH {
                    fitted.push_str(line);
                    fitted.push('\n');
                } else {
                    fitted.push_str(&wrap(line, CODE, "      ", WIDTH));
                }
            }
        } else {
            // Items of a list are paragraphs of their own.
            let (first, items) = match paragraph.strip_prefix("- ") {
                Some(items) => ("", Some(items)),
                None => match paragraph.split_once("\n- ") {
                    Some((first, items)) => (first, Some(items)),
                    None => (paragraph, None),
                },
            };
            if !first.is_empty() {
                fitted.push_str(&wrap(first, "", "", WIDTH));
            }
            for item in items.into_iter().flat_map(|items| items.split("\n- ")) {
                fitted.push_str(&wrap(item, "- ", "  ", WIDTH));
            }
        }
    }
    fitted
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

/// Markdown for a terminal: links are their texts, code is indented instead of fenced.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            text.push_str(&format!("{CODE}{line}\n"));
            continue;
        }
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
    use super::{super::testing::golden, *};
    use crate::types::testing::page;

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
        assert_eq!(text, "See `x` and y [z], `a[0]`.\n\n    code\nend");
    }

    #[test]
    fn every_reason_is_explained_in_a_line_and_in_full() {
        for reason in Reason::ALL {
            let line = meaning(reason.name());
            assert!(line.len() > 20 && line.ends_with(['.', ':']), "{}: {line:?}", reason.name());
            let text = explained(Topic::Reason(*reason));
            assert!(!text.contains("](") && !text.contains("```"), "{text}");
            assert!(!text.contains("It isn't documented"), "{text}");
            let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(one_line(&list()).contains(&one_line(&line)), "{line}");
        }
    }

    /// The answer is shown, and not where it is to be found.
    #[test]
    fn a_section_that_only_refers_to_another_shows_it() {
        for flag in ResponseFlag::ALL {
            let text = explained(Topic::Flag(*flag));
            assert!(text.lines().count() > 4 || !text.contains("\nSee `"), "{text}");
        }
        let text = explained(Topic::Flag(ResponseFlag::NoHealthyUpstream));
        assert!(text.contains(&explained(Topic::Reason(Reason::NoHealthyUpstream))), "{text}");
        assert_eq!(elsewhere("See `no_route`. And more."), None);
        assert_eq!(elsewhere("See `nothing`."), None);
    }

    #[test]
    fn a_flag_is_found_as_the_log_has_it() {
        let found = |text: &str| explained(topic(text).unwrap());
        assert!(found("NR").starts_with("NR: no route (response flag)\n\nPolicy refused"));
        assert_eq!(found("nr"), found("NR"));
        for flag in ResponseFlag::ALL {
            let text = found(flag.code());
            assert!(!text.contains("It isn't documented"), "{text}");
        }
        // A number is one of the events', and case and hyphens are a matter of taste.
        assert_eq!(topic("18"), Ok(Topic::Reason(Reason::NoRoute)));
        assert_eq!(topic("No-Route"), Ok(Topic::Reason(Reason::NoRoute)));
        assert!(topic("255").is_err());
    }

    #[test]
    fn the_outputs_fit_a_terminal() {
        golden("reasons.txt", &list());
        golden("reasons-flag.txt", &explained(Topic::Flag(ResponseFlag::NoRouteFound)));
        golden("reasons-node.txt", &explained(Topic::Reason(Reason::NoHealthyGateway)));
        for reason in Reason::ALL {
            let text = explained(Topic::Reason(*reason));
            // A word that is longer has a line of its own.
            let lines = text.lines().filter(|line| line.trim().contains(' '));
            let widest = lines.map(|line| line.chars().count()).max();
            assert!(widest <= Some(WIDTH), "{text}");
        }
    }

    #[test]
    fn the_reference_lists_them_all() {
        let mut text = String::from(
            "# Reasons\n\n<!-- Generated: `cargo xtask references`. -->\n\nWhy traffic passed or was refused, as flow \
             events, the access log and metrics name it. [Troubleshooting](../troubleshooting.md#reasons) and \
             `egress-agent reasons NAME` say what to do about each. Numbers are those of the map ABI and are never \
             used twice.\n\n| reason | number | | meaning |\n|---|---|---|---|\n",
        );
        for reason in Reason::ALL {
            let (name, number) = (reason.name(), *reason as u8);
            let (class, meaning) = (class(*reason), meaning(name));
            let link = format!("[`{name}`](../troubleshooting.md#{name})");
            text.push_str(&format!("| {link} | {number} | {class} | {meaning} |\n"));
        }
        text.push_str(
            "\n## Response flags\n\nEnvoy's flags in the access log (`%RESPONSE_FLAGS%`), and two of our own.\n\n\
             | flag | meaning |\n|---|---|\n",
        );
        for flag in ResponseFlag::ALL {
            let heading = flag_heading(*flag);
            let meaning = heading.split_once(": ").map_or("", |(_, title)| title);
            text.push_str(&format!("| `{}` | {meaning} |\n", flag.code()));
        }
        page("reasons.md", &text);
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest() {
        assert_eq!(reason("no_route"), Ok(Reason::NoRoute));
        assert!(reason("no_rote").unwrap_err().contains("Did you mean no_route?"));
        assert!(reason("").is_err());
    }
}
