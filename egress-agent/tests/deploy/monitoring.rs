//! Alerts and dashboards ask for metrics that exist.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use regex::Regex;
use serde_json::Value;

use crate::helm::{chart, rendered, root, sets};

fn rules() -> PathBuf {
    chart().join("files/rules.yaml")
}

fn dashboards() -> Vec<(String, Value)> {
    let directory = fs::read_dir(chart().join("files/dashboards")).expect("dashboards");
    let files = directory.flatten().map(|file| file.path());
    files
        .map(|path| {
            let text = fs::read(&path).expect("a dashboard");
            (path.display().to_string(), serde_json::from_slice(&text).expect("JSON"))
        })
        .collect()
}

/// Every expression in a document of any shape.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("expr", Some(text)) => found.push(text.to_owned()),
                    ("query", Some(text)) if text.starts_with("label_values(") => {
                        found.push(text.to_owned());
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The metrics that are asked for in an expression.
fn asked(expression: &str) -> BTreeSet<String> {
    let names = Regex::new(r"\b(egress|istio|envoy)_[a-z0-9_]+").expect("a pattern");
    let all = names.find_iter(expression).map(|name| {
        let name = name.as_str();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.unwrap_or(name).to_owned()
    });
    all.collect()
}

/// The metrics that docs/telemetry.md describes.
fn described() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/telemetry.md")).expect("docs/telemetry.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let first = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default().to_owned();
        asked(&first)
    })
    .collect()
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let text = fs::read_to_string(rules()).expect("rules");
    let rules: Value = serde_saphyr::from_str(&text).expect("YAML");
    let described = described();
    assert!(described.contains("egress_gateway_healthy"), "{described:?}");
    assert!(!described.contains("egress_gateway_unhealthy"), "{described:?}");
    for (name, document) in dashboards().into_iter().chain([("rules.yaml".to_owned(), rules)]) {
        let mut all = Vec::new();
        expressions(&document, &mut all);
        assert!(all.len() > 9, "{name}: {all:?}");
        for expression in all {
            // `up` is Prometheus' own.
            let asked = asked(&expression);
            assert!(!asked.is_empty() || expression.starts_with("up{"), "{name}: {expression}");
            for metric in asked {
                assert!(described.contains(&metric), "{name}: there is no {metric}");
            }
        }
    }
}

#[test]
fn prometheus_takes_the_rules() {
    let check = |path: &std::path::Path| {
        Command::new("promtool").args(["check", "rules"]).arg(path).output().expect("promtool")
    };
    let good = check(&rules());
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules.yaml");
    let text =
        fs::read_to_string(rules()).expect("rules").replace("egress_ready == 0", "egress_ready ==");
    fs::write(&path, text).expect("a file");
    assert!(!check(&path).status.success(), "a broken expression is found");
}

/// Each alert of the rules' tests fires where it should, and not before.
#[test]
fn alerts_fire_and_do_not_fire() {
    let tests = root().join("egress-agent/tests/deploy/alerts.yaml");
    let directory = tempfile::tempdir().expect("a directory");
    fs::copy(rules(), directory.path().join("rules.yaml")).expect("the rules");
    fs::copy(tests, directory.path().join("alerts.yaml")).expect("the tests");
    let output = Command::new("promtool")
        .current_dir(directory.path())
        .args(["test", "rules", "alerts.yaml"])
        .output()
        .expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The rules and dashboards that are installed are those files, as they are.
#[test]
fn the_chart_installs_them_unchanged() {
    let (_, values) = sets().into_iter().find(|set| set.0 == "monitoring").expect("a set");
    let objects = rendered(values.as_deref());
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").expect("rules");
    let text = fs::read_to_string(rules()).expect("rules");
    let expected: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(rule["spec"], expected);
    for (path, dashboard) in dashboards() {
        let name = path.rsplit('/').next().expect("a name");
        let installed = objects.iter().find_map(|object| object["data"][name].as_str());
        let installed: Value = serde_json::from_str(installed.expect(name)).expect("JSON");
        assert_eq!(installed, dashboard, "{name}");
    }
    let default = rendered(None);
    assert!(default.iter().all(|object| object["kind"] != "PrometheusRule"));
}
