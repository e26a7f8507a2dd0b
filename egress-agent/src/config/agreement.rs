//! `check` beside Istio's own validation, on resources that were written for this.

use super::testing::problems;
use crate::config::Severity;

/// What current definitions or Istio's webhook refuse, and is in force here all the same.
const REFUSED_BY_API_SERVERS: &str = "API server refuses";

/// What rules are about.
const REGISTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: base, namespace: apps}\n\
spec: {hosts: [a.example, b.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n";

/// A line of the list.
struct Case<'a> {
    /// Whether Istio accepts it.
    accepted: bool,
    /// Whether `check` says the contrary, on purpose.
    differs: bool,
    kind: &'a str,
    spec: &'a str,
}

fn cases() -> Vec<Case<'static>> {
    let lines = include_str!("testdata/agreement.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &'static str| {
        let (mark, rest) = line.split_once(' ').unwrap();
        let (kind, spec) = rest.split_once(' ').unwrap();
        let accepted = match mark {
            "+" | "+!" => true,
            "-" | "-!" => false,
            _ => panic!("{line}"),
        };
        Case { accepted, differs: mark.ends_with('!'), kind, spec }
    };
    lines.map(case).collect()
}

#[test]
fn check_agrees_with_istios_validation() {
    let (mut agree, mut wrong) = (0, Vec::new());
    let cases = cases();
    for Case { accepted, differs, kind, spec } in &cases {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: apps}}\n\
             spec: {spec}\n"
        );
        let found = problems(&[REGISTRY, &text], "");
        let rejects = found.iter().any(|problem| {
            problem.severity == Severity::Error || problem.message.contains(REFUSED_BY_API_SERVERS)
        });
        agree += usize::from(rejects != *accepted);
        if (rejects == *accepted) != *differs {
            let said: Vec<_> = found.iter().map(ToString::to_string).collect();
            wrong.push(format!("{kind} {spec}\n{}", said.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
    let share = agree * 100 / cases.len();
    assert!(share >= 95, "{agree} of {}", cases.len());
}
