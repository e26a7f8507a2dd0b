//! The table of bypass techniques: what it names is there, and nothing that is tested is missing
//! from it.

use std::{collections::BTreeSet, fs, path::Path};

use egress_ebpf::reason::Reason;

use crate::markdown::root;

const DOCUMENT: &str = "docs/ways-around.md";

/// Tests of these belong to a row each.
const TESTS: [&str; 12] = [
    "sockets",
    "packets",
    "lifetime",
    "endurance",
    "cluster",
    "attacker",
    "groups",
    "inbound",
    "families",
    "answers",
    "hardware",
    "unfinished",
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the tests in a source text.
pub(crate) fn tests(source: &str) -> BTreeSet<&str> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let after = |at: usize| {
        let line = lines[at..].iter().find(|line| line.contains("fn "))?;
        line.split_once("fn ")?.1.split_once('(').map(|(name, _)| name)
    };
    let marks = ["#[test]", "#[tokio::test]"];
    let marked = lines.iter().enumerate().filter(|(_, line)| marks.contains(line));
    marked.filter_map(|(at, _)| after(at)).collect()
}

/// What is between back-ticks.
fn codes(cell: &str) -> impl Iterator<Item = &str> + Clone {
    cell.split('`').skip(1).step_by(2)
}

/// Links whose label is code: label, and path from the root.
fn links(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("[`").skip(1);
    let link = |part| {
        let (label, rest): (&str, &str) = str::split_once(part, "`](")?;
        Some((label, rest.split_once(')')?.0.strip_prefix("../")?))
    };
    parts.filter_map(link).collect()
}

/// The cells of each row of its tables.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines = document.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells.filter(|cells: &Vec<&str>| cells.last() != Some(&"shown by")).collect()
}

/// The attempts of the probe that the tests have a verdict on.
fn attempts(source: &str) -> BTreeSet<&str> {
    let parts = source.split("way(\"").skip(1);
    parts.filter_map(|part| Some(part.split_once('"')?.0)).collect()
}

#[test]
fn each_way_around_is_stopped_for_a_reason_that_a_test_shows() {
    let (document, ways) = (read(DOCUMENT), read("tests/src/ways.rs"));
    let attempts = attempts(&ways);
    let rows = rows(&document);
    assert!(rows.len() > 40 && attempts.len() > 100, "{} {}", rows.len(), attempts.len());
    let mut faults = Vec::new();
    for row in &rows {
        let [what, _stopped_by, reasons, shown_by] = row[..] else {
            panic!("{DOCUMENT}: not four cells: {row:?}");
        };
        for reason in codes(reasons) {
            if !Reason::ALL.iter().any(|known| known.name() == reason) {
                faults.push(format!("{what}: `{reason}` is no reason"));
            }
        }
        let linked = links(shown_by);
        let tried = codes(shown_by).filter(|code| !linked.iter().any(|(label, _)| label == code));
        let unknown: Vec<_> = tried.clone().filter(|name| !attempts.contains(name)).collect();
        if !unknown.is_empty() {
            faults.push(format!("{what}: {unknown:?} are no attempts of the probe"));
        }
        if linked.is_empty() && tried.count() == 0 && !shown_by.starts_with("not yet: ") {
            faults.push(format!("{what}: nothing shows it"));
        }
    }
    for (name, path) in links(&document) {
        if !tests(&read(path)).contains(name) {
            faults.push(format!("{path} has no test {name}"));
        }
    }
    assert!(faults.is_empty(), "{DOCUMENT}:\n{}", faults.join("\n"));
}

#[test]
fn no_way_around_that_is_tested_is_missing() {
    let (document, ways) = (read(DOCUMENT), read("tests/src/ways.rs"));
    let named: BTreeSet<&str> = codes(&document).collect();
    let missing: Vec<_> = attempts(&ways).difference(&named).copied().collect();
    assert!(missing.is_empty(), "{DOCUMENT} doesn't name the attempts {missing:?}");
    let linked = links(&document);
    for name in TESTS {
        let path = Path::new("tests/tests").join(name).with_extension("rs");
        let path = path.to_string_lossy();
        for test in tests(&read(&path)) {
            assert!(linked.contains(&(test, &*path)), "{DOCUMENT} doesn't name {test} of {path}");
        }
    }
}

#[test]
fn a_row_is_taken_apart() {
    let document = "| way | stopped by | reason | shown by |\n|---|---|---|---|\n\
                    | `a` | P | `b`, `c` | `d`, [`e`](../f.rs); [`g`](../h/i.rs) |\n";
    let rows = rows(document);
    assert_eq!(rows.len(), 1);
    assert_eq!(codes(rows[0][2]).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(codes(rows[0][3]).collect::<Vec<_>>(), ["d", "e", "g"]);
    assert_eq!(links(rows[0][3]), [("e", "f.rs"), ("g", "h/i.rs")]);
    let source =
        "fn no() {}\n#[test]\n#[ignore]\nfn one() {\n\n    #[tokio::test]\n    async fn two() {";
    assert_eq!(tests(source).into_iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(attempts("way(\"x\", y), way(\"z\")").len(), 2);
}
