//! Values that a page gives: defaults of options, ports, label values, response flags, settings of units and of the
//! kernel, error numbers, annotations, statistics, names of files, pages of a port, the layout of the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use clap::{Command, CommandFactory as _};
use egress_agent::{cli::Cli, telemetry::ResponseFlag, types::parse_duration};
use egress_ebpf::{abi::ABI_VERSION, reason::Reason};
use regex::Regex;

use crate::{
    markdown::{collect, documents, root},
    names::{page, shipped},
    places,
    shown::asked,
    sources::is_in_sources,
    spans::spans,
};

/// Of the changes of earlier versions, which name what is no longer there.
const HISTORY: &str = "CHANGELOG.md";
/// The agents' own ports, as long as nobody gives others, and Istio's for HBONE.
const PORTS: [&str; 6] = ["15000", "15001", "15008", "15020", "15021", "15090"];
/// The gateway's port of a database, in an example.
const EXAMPLE_PORT: &str = "15432";
/// Words of two or three capitals that are no response flags.
const NO_FLAGS: [&str; 12] =
    ["ADD", "BPF", "DEL", "DNS", "GC", "GET", "REQ", "TCP", "TLS", "UDP", "URI", "URL"];
/// Label values that a page gives as an example of a reader's own.
const EXAMPLE_LABELS: [&str; 1] = ["2xx"];

/// Each option's defaults, by the command that has it.
type Defaults = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn all_defaults() -> &'static Defaults {
    fn add(command: &Command, found: &mut Defaults) {
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let help = argument.get_long_help().or_else(|| argument.get_help());
            let help = help.map(ToString::to_string).unwrap_or_default();
            // Where the code computes it, the help says it.
            let said = help.split("[default: ").nth(1).and_then(|rest| rest.split(']').next());
            let own = argument.get_default_values().iter().filter_map(|value| value.to_str());
            let own = own.chain(said).map(plain);
            let by_command = found.entry(format!("--{long}")).or_default();
            by_command.entry(command.get_name().to_owned()).or_default().extend(own);
        }
        command.get_subcommands().for_each(|below| add(below, found));
    }
    static ALL: LazyLock<Defaults> = LazyLock::new(|| {
        let mut found = BTreeMap::new();
        add(&Cli::command(), &mut found);
        found
    });
    &ALL
}

/// An option's defaults: of the role that `about` names first, if it has the option, and otherwise of all commands.
fn defaults(option: &str, about: &str) -> BTreeSet<String> {
    static ROLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\b(?:(gateway)|node|agent)").expect("a pattern"));
    let Some(by_command) = all_defaults().get(option) else { return BTreeSet::new() };
    let role = ROLE.captures(about).map(|parts| parts.get(1).map_or("node", |_| "gateway"));
    match role.and_then(|role| by_command.get(role)).filter(|own| !own.is_empty()) {
        Some(own) => own.clone(),
        None => by_command.values().flatten().cloned().collect(),
    }
}

/// A value without what a page writes around it: `16,384` is `16384`.
fn plain(text: &str) -> String {
    text.trim().trim_matches('`').replace(',', "")
}

/// The cells of a table's row.
fn cells(line: &str) -> Vec<&str> {
    let row = line.trim().trim_start_matches('|').trim_end_matches('|');
    row.split(" | ").map(str::trim).collect()
}

/// The rows of tables of options that give another default than the program has.
fn wrong_defaults(text: &str, checked: &mut usize) -> Vec<String> {
    let (mut column, mut faults, mut heading) = (None, Vec::new(), "");
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            heading = line;
        }
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let row = cells(line);
        if row.first() == Some(&"option") {
            column = row.iter().position(|cell| *cell == "default");
            continue;
        }
        let Some(given) = column.and_then(|column| row.get(column)) else { continue };
        let Some(option) = row[0].split('`').nth(1).filter(|word| word.starts_with("--")) else {
            continue;
        };
        let own = defaults(option, heading);
        if own.is_empty() {
            continue;
        }
        // In words, where it depends on the machine.
        let in_words = own.iter().any(|value| value.contains(' '));
        if in_words {
            continue;
        }
        *checked += 1;
        if !own.contains(&plain(given)) {
            faults.push(format!("{}: {option} has the default {own:?}, not {given}", number + 1));
        }
    }
    faults
}

/// `--option` (10 s): the default of the role that the paragraph is about.
fn wrong_durations(text: &str, checked: &mut usize) -> Vec<String> {
    static FORM: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"`(--[a-z-]+)`\s+\((\d+) (ms|s|min|h)\b").expect("a pattern"));
    let mut faults = Vec::new();
    for parts in FORM.captures_iter(text) {
        *checked += 1;
        let unit = if &parts[3] == "min" { "m" } else { &parts[3] };
        let given = parse_duration(&format!("{}{unit}", &parts[2]));
        let before = &text[..parts.get_match().start()];
        let paragraph = before.rsplit("\n\n").next().unwrap_or_default();
        let own = defaults(&parts[1], paragraph);
        if given.is_none() || !own.iter().any(|own| parse_duration(own) == given) {
            faults.push(format!(
                "{} has another default than {} {}",
                &parts[1], &parts[2], &parts[3]
            ));
        }
    }
    faults
}

/// Ports of the agents' range that none of them has.
fn wrong_ports(text: &str) -> Vec<String> {
    static PORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b15\d{3}\b").expect("a pattern"));
    let all = PORT.find_iter(text).map(|found| found.as_str());
    let wrong = all.filter(|port| !PORTS.contains(port) && *port != EXAMPLE_PORT);
    wrong.map(|port| format!("nothing of ours has the port {port}")).collect()
}

/// `map layout N`, which `status` shows, is this program's.
fn wrong_layouts(text: &str) -> Vec<String> {
    static LAYOUT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"map layout\s+(\d+)").expect("a pattern"));
    let own = ABI_VERSION.to_string();
    let given = LAYOUT.captures_iter(text).map(|parts| parts[1].to_owned());
    let wrong = given.filter(|given| *given != own);
    wrong.map(|given| format!("the maps have the layout {own}, not {given}")).collect()
}

/// Values of labels in expressions and series, of which a program writes none. One with `…` stands for any.
fn wrong_labels(text: &str) -> Vec<String> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"[{,]\s?[a-z_]+(?:=~|!~|!=|=)"([^"]*)""#).expect("a pattern")
    });
    let is_known = |value: &str| {
        value.contains('…')
            || EXAMPLE_LABELS.contains(&value)
            || Reason::ALL.iter().any(|reason| reason.name() == value)
            || is_in_sources(&format!("\"{value}\""))
    };
    let lines = text.lines().filter(|line| !asked(line).is_empty());
    let values = lines.flat_map(|line| LABEL.captures_iter(line)).map(|parts| parts[1].to_owned());
    let all: Vec<String> = values.collect();
    let alternatives = all.iter().flat_map(|value| value.split('|'));
    let wrong = alternatives.filter(|value| !is_known(value));
    wrong.map(|value| format!("no label has the value {value:?}")).collect()
}

fn units() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut paths = Vec::new();
        for extension in ["service", "conf", "slice"] {
            collect(&root().join("deploy/systemd"), extension, &mut paths);
        }
        paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    });
    &TEXT
}

/// A word between back-ticks that is a value of some kind.
fn wrong_span(span: &str) -> Option<String> {
    static SYSCTL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(net|kernel|vm|fs|user)(\.[a-z0-9_]+)+$").expect("a pattern")
    });
    static SETTING: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[A-Z][A-Za-z]+=[a-z0-9]+$").expect("a pattern"));
    static ERROR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^E[A-Z0-9]{4,}$").expect("a pattern"));
    if let Some(fault) = wrong_name(span) {
        return Some(fault);
    }
    let is_capital = span.bytes().all(|b| b.is_ascii_uppercase());
    if SYSCTL.is_match(span) {
        let path = Path::new("/proc/sys").join(span.replace('.', "/"));
        return (!path.exists()).then(|| format!("the kernel has no setting {span}"));
    }
    if SETTING.is_match(span) {
        let is_there = units().lines().any(|line| line == span);
        return (!is_there).then(|| format!("no unit has {span}"));
    }
    if ERROR.is_match(span) {
        return (!is_in_sources(span)).then(|| format!("nothing answers {span}"));
    }
    if is_capital && (2..=3).contains(&span.len()) {
        let is_flag = ResponseFlag::ALL.iter().any(|flag| flag.code() == span);
        return (!is_flag && !NO_FLAGS.contains(&span)).then(|| format!("{span} is no flag"));
    }
    None
}

/// Files of the reader's own, as examples.
const READERS: [&str; 2] = ["my-values.yaml", "rules.yaml"];
/// Where paths begin that are no pages of a port, and a page of another program's.
const NO_PAGES: [&str; 9] =
    ["/dev/", "/etc", "/opt/", "/pods/", "/proc/", "/readyz", "/run/", "/sys/", "/usr/"];

/// A word between back-ticks that is a name of something of ours.
fn wrong_name(span: &str) -> Option<String> {
    static FILE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[A-Za-z0-9-]+\.(env|yaml)$").expect("a pattern"));
    static STATISTIC: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[a-z]+_[a-z_]+\.[a-z_]+$").expect("a pattern"));
    static PAGE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^/[a-z_]+(/[a-z_]+)*$").expect("a pattern"));
    let is_there = |text: &str| is_in_sources(text) || shipped().contains(text);
    let first = span.split(' ').next().unwrap_or_default();
    let name = first.split(['=', ':']).next().unwrap_or_default();
    if name.starts_with("egress-enforcer.io/") {
        return (!is_there(name)).then(|| format!("nothing reads {name}"));
    }
    if name.starts_with("egress-") && !name.contains('/') {
        return (!is_there(name)).then(|| format!("nothing is named {name}"));
    }
    if FILE.is_match(span) {
        let mut paths = Vec::new();
        let extension = span.rsplit('.').next().unwrap_or_default();
        collect(&root().join("deploy"), extension, &mut paths);
        let is_file = paths.iter().any(|path| path.ends_with(span)) || READERS.contains(&span);
        return (!is_file && !is_there(span)).then(|| format!("there is no {span}"));
    }
    if STATISTIC.is_match(span) {
        return (!is_there(span)).then(|| format!("nothing counts {span}"));
    }
    if PAGE.is_match(span) && !NO_PAGES.iter().any(|start| span.starts_with(start)) {
        return page(span).err();
    }
    if span.starts_with("/sys/fs/cgroup") && !span.contains("NAME") {
        return places::word(span).err();
    }
    None
}

fn faults(text: &str, checked: &mut usize) -> Vec<String> {
    let mut faults = wrong_defaults(text, checked);
    faults.extend(wrong_durations(text, checked));
    faults.extend(wrong_ports(text));
    faults.extend(wrong_layouts(text));
    faults.extend(wrong_labels(text));
    let wrong = spans(text)
        .into_iter()
        .filter_map(|(line, span)| wrong_span(&span).map(|fault| format!("{line}: {fault}")));
    faults.extend(wrong);
    faults
}

#[test]
fn values_of_the_pages_are_those_of_the_programs() {
    let (mut checked, mut all) = (0, Vec::new());
    for document in documents() {
        let name = document.path.display().to_string();
        if name == HISTORY {
            continue;
        }
        let text = fs::read_to_string(root().join(&document.path)).expect("a document");
        all.extend(faults(&text, &mut checked).into_iter().map(|fault| format!("{name}:{fault}")));
    }
    assert!(checked > 15, "{checked} defaults");
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_value_that_no_program_has_is_found() {
    let of = |text: &str| faults(text, &mut 0);
    let table =
        |row: &str| format!("| option | unit | default | bounds |\n|---|---|---|---|\n{row}\n");
    for good in [
        &*table("| `--max-headers` | number | 100 | headers |"),
        &table("| `--max-cached-names` | number | 16,384 | names |"),
        "`--drain-timeout` (10 s)",
        "**Node.** It asks gateways. It ends after `--drain-timeout` (10 s)",
        "The gateway asks no node. It ends after `--drain-timeout` (45 s)",
        "`--upgrade-drain-timeout`\n(900 s)",
        "Ports 15021 and 15090",
        "egress_enforcement_mode{mode=~\"audit|audit_redirect\"} == 1",
        "`net.core.somaxconn`",
        "`Type=notify`",
        "`EACCES`",
        "`NR`",
        "`egress-enforcer.io/egress-address`",
        "`egress-agent status`",
        "`egress-gateway.env`",
        "`outlier_detection.ejections_active`",
        "`/config_dump`",
        "`/sys/fs/cgroup/workloads.slice`",
        &format!("pins  /sys/fs/bpf/egress-agent (map layout {ABI_VERSION})"),
    ] {
        assert_eq!(of(good), [""; 0], "{good}");
    }
    for wrong in [
        &*table("| `--max-headers` | number | 200 | headers |"),
        &table("| `--max-cached-names` | number | 16,383 | names |"),
        "`--drain-timeout` (20 s)",
        "**Node.** It asks gateways. It ends after `--drain-timeout` (45 s)",
        "The gateway asks no node. It ends after `--drain-timeout` (10 s)",
        "`--upgrade-drain-timeout`\n(800 s)",
        "Ports 15021 and 15091",
        "egress_enforcement_mode{mode=~\"audit|audit_redirct\"} == 1",
        "`net.core.somaxcon`",
        "`Type=notfy`",
        "`EACCESS`",
        "`NX`",
        "`egress-enforcer.io/egres-address`",
        "`egress-agnet status`",
        "`egress-gateways.env`",
        "`outlier_detection.ejection_active`",
        "`/config_dumps`",
        "`/sys/fs/cgroup/workload.slice`",
        &format!("pins  /sys/fs/bpf/egress-agent (map layout {})", ABI_VERSION - 1),
    ] {
        assert_eq!(of(wrong).len(), 1, "{wrong}: {:?}", of(wrong));
    }
}
