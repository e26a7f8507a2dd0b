//! What a page shows of the agents' output has the form that they write.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::LazyLock};

use egress_agent::{
    bpf::Hook,
    telemetry::{ResponseFlag, TUNNEL_HOOK},
};
use egress_ebpf::reason::Reason;
use regex::Regex;

use crate::markdown::{Block, collect, root};

/// What is wrong with a block of text; `None` where it is nothing that is known.
pub(crate) fn faults(block: &Block) -> Option<Vec<String>> {
    let text = &*block.text;
    // A part of a file that a test compares with what the agent writes, or a source whose words it has.
    if let Some(file) = block.value("file") {
        return Some(same(file, text).err().into_iter().collect());
    }
    if let Some(file) = block.value("by") {
        return Some(text.lines().filter_map(|line| worded(file, line).err()).collect());
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.first()?;
    // A drawing.
    if text.contains('─') {
        return Some(Vec::new());
    }
    if first.starts_with("[%START_TIME%]") {
        return Some(format(&lines.join(" ")).err().into_iter().collect());
    }
    let check: fn(&str) -> Result<(), String> = if first.starts_with("[20") {
        log_line
    } else if first.contains(" -> ") {
        flow
    } else if Regex::new(r"^(sum by|rate|increase|sum|max)? ?\(?.*(egress|envoy|istio)_[a-z_]+")
        .ok()?
        .is_match(first)
    {
        expression
    } else {
        return None;
    };
    Some(lines.iter().filter_map(|line| check(line).err()).collect())
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let path = root().join(path);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The block is a part of the file, whole lines.
fn same(file: &str, text: &str) -> Result<(), String> {
    let whole = format!("\n{}", read(file)?);
    let is_part = whole.contains(&format!("\n{text}"));
    if is_part { Ok(()) } else { Err(format!("{file} has no such lines")) }
}

/// Words of the line are in the module that writes it.
pub(crate) fn worded(file: &str, line: &str) -> Result<(), String> {
    // A module is a file, a directory, or both.
    let mut paths = vec![root().join(file), root().join(format!("{file}.rs"))];
    if root().join(file).is_dir() {
        collect(&root().join(file), "rs", &mut paths);
    }
    let source: String = paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    if source.is_empty() {
        return Err(format!("there is no {file}"));
    }
    let words: Vec<&str> = line.split_whitespace().flat_map(|word| word.split("::")).collect();
    let known = (1..=3).rev().flat_map(|count| words.windows(count)).any(|part| {
        let part = part.join(" ");
        let letters = part.chars().filter(|c| c.is_ascii_alphabetic()).count();
        letters >= 4 && source.contains(&part)
    });
    // A word alone is a name or a heading.
    if known || words.len() < 2 {
        Ok(())
    } else {
        Err(format!("{file} writes nothing like {line:?}"))
    }
}

/// A format of the access log is one of those that have a name.
fn format(text: &str) -> Result<(), String> {
    let source = read("egress-agent/src/config/log_format.rs")?;
    let source = Regex::new(r"\\\n\s*").expect("a pattern").replace_all(&source, "");
    let source = source.replace("\\\"", "\"");
    if source.contains(&format!("\"{text}")) {
        Ok(())
    } else {
        Err("no format has this form".into())
    }
}

/// A line's fields: words, or what is between brackets or quotation marks.
fn fields(line: &str) -> usize {
    static FIELD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"\[[^\]]*\]|"[^"]*"|[^ ]+"#).expect("a pattern"));
    FIELD.find_iter(line).count()
}

/// A line of the access log has the fields of the default format, or those of a summary.
fn log_line(line: &str) -> Result<(), String> {
    let source = read("docs/telemetry.md")?;
    let default = source.split("```text\n").nth(1).and_then(|rest| rest.split("\n```").next());
    let default = default.ok_or("docs/telemetry.md has no format")?.replace('\n', " ");
    if line.contains("] aggregated=") {
        let keys = line.split(' ').skip(1).filter_map(|word| word.split('=').next());
        let source = crate::sources::is_in_sources;
        let unknown = keys
            .into_iter()
            .find(|key| !source(&format!("{key}=")) && !source(&format!("\"{key}\"")));
        return unknown.map_or(Ok(()), |key| Err(format!("no summary has {key}")));
    }
    let (expected, found) = (fields(&default), fields(line));
    if expected == found {
        Ok(())
    } else {
        Err(format!("{found} fields, expected {expected}: {line}"))
    }
}

/// Verdicts as `flows` names them.
const VERBS: [&str; 8] = [
    "ALLOWED",
    "REDIRECTED",
    "DENIED",
    "FAILED",
    "AUDIT would deny",
    "AUDIT would redirect",
    "AUDIT would allow",
    "AUDIT would fail",
];
/// What follows the place of a verdict, each with a value of its own, or alone.
const DETAILS: [&str; 9] = [
    "cgroup ",
    "interface ",
    "gateway ",
    "upstream ",
    "trace ",
    "container ",
    "process ",
    "set ",
    "ech",
];

/// A line of `flows`: verdict, reason and place exist, and what follows has a known name.
pub(crate) fn flow(line: &str) -> Result<(), String> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        let time = r"(?:[A-Z][a-z]{2} [ 0-9]\d \d{2}:\d{2}:\d{2}\.\d{3}: )?";
        let form = format!(
            r"^{time}\S.* -> \S.* ({}) \(([a-z0-9_]+)\) at ([a-z0-9_]+)(.*)$",
            VERBS.join("|")
        );
        Regex::new(&form).expect("a pattern")
    });
    let parts = FORM.captures(line).ok_or_else(|| format!("no flow looks like {line:?}"))?;
    let (reason, place) = (&parts[2], &parts[3]);
    if !Reason::ALL.iter().any(|known| known.name() == reason) {
        return Err(format!("{reason} is no reason"));
    }
    let mut places: BTreeSet<&str> = Hook::ALL.iter().map(|hook| hook.name()).collect();
    places.extend([TUNNEL_HOOK, "gateway"]);
    if !places.contains(place) {
        return Err(format!("there is no {place}"));
    }
    let (named, _) = parts[4].split_once(": ").unwrap_or((&parts[4], ""));
    for detail in named.split(", ").map(|detail| detail.trim_start_matches(',').trim()) {
        let is_status = detail.len() == 3 && detail.bytes().all(|b| b.is_ascii_digit());
        let is_flag = ResponseFlag::ALL.iter().any(|flag| flag.code() == detail);
        let is_named = DETAILS.iter().any(|name| detail.starts_with(name));
        if !(detail.is_empty() || is_status || is_flag || is_named) {
            return Err(format!("no flow has {detail:?}"));
        }
    }
    Ok(())
}

/// The families of the metrics' reference.
pub(crate) fn metrics() -> &'static BTreeSet<String> {
    static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let page = read("docs/reference/metrics.md").expect("the reference of metrics");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        rows.map(str::to_owned).collect()
    });
    &NAMES
}

/// The metrics that a text names, without the ends of a histogram's series.
pub(crate) fn asked(text: &str) -> Vec<String> {
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(egress|istio|envoy|process)_[a-z0-9_]+").expect("a pattern")
    });
    let all = NAME.find_iter(text).map(|found| {
        let name = found.as_str();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.unwrap_or(name).to_owned()
    });
    all.collect()
}

/// An expression of Prometheus': it is one, and its metrics exist. A single series is one too.
fn expression(line: &str) -> Result<(), String> {
    if let Some(unknown) = asked(line).into_iter().find(|name| !metrics().contains(name)) {
        return Err(format!("there is no metric {unknown}"));
    }
    static LABEL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"[{,] ?([a-z_]+)(?:=|!=|=~|!~)""#).expect("a pattern"));
    for label in LABEL.captures_iter(line).map(|parts| parts[1].to_owned()) {
        let forms = [format!("{label}=\\\""), format!("\"{label}\"")];
        if !forms.iter().any(|form| crate::sources::is_in_sources(form)) {
            return Err(format!("no metric has the label {label}"));
        }
    }
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = directory.path().join("rules.yaml");
    let rules = serde_json::json!({"groups": [{"name": "shown", "rules": [{"alert": "Shown", "expr": line}]}]});
    fs::write(&path, rules.to_string()).map_err(|error| error.to_string())?;
    let done = Command::new("promtool").args(["check", "rules"]).arg(&path).output();
    let done = done.map_err(|error| format!("promtool: {error}"))?;
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    if done.status.success() { Ok(()) } else { Err(format!("{line}: {said}")) }
}
