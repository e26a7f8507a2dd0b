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

/// Each alert fires where it should, and not before or elsewhere.
#[test]
fn alerts_fire_and_do_not_fire() {
    let tests = root().join("egress-agent/tests/deploy/alerts.yaml");
    let [named, tried] = [&rules(), &tests].map(|path| fs::read_to_string(path).expect("a file"));
    for alert in named.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let asked = format!("    alertname: {alert}\n");
        let fires = tried.matches(&format!("{asked}    exp_alerts:\n")).count();
        assert!(fires > 0 && tried.matches(&asked).count() > fires, "{alert}");
    }
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

/// What Grafana reads of a dashboard. It ignores what it does not know, so a misspelt field is lost there.
mod grafana {
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Dashboard {
        pub(super) uid: String,
        pub(super) title: String,
        pub(super) tags: Vec<String>,
        pub(super) schema_version: u32,
        #[serde(rename = "editable")]
        _editable: bool,
        pub(super) time: Range,
        pub(super) refresh: String,
        pub(super) templating: Templating,
        pub(super) panels: Vec<Panel>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Range {
        pub(super) from: String,
        pub(super) to: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Templating {
        pub(super) list: Vec<Variable>,
    }

    /// A variable, of data sources or of a query's values.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase", tag = "type")]
    pub(super) enum Variable {
        #[serde(rename = "datasource")]
        DataSource { name: String, query: String, label: String },
        #[serde(rename = "query", rename_all = "camelCase")]
        Query {
            name: String,
            label: String,
            datasource: DataSource,
            query: String,
            include_all: bool,
            multi: bool,
            refresh: u8,
            all_value: String,
            current: Current,
        },
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Current {
        pub(super) text: String,
        pub(super) value: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct DataSource {
        #[serde(rename = "type")]
        pub(super) kind: String,
        pub(super) uid: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Panel {
        pub(super) id: u32,
        pub(super) title: String,
        pub(super) description: Option<String>,
        #[serde(rename = "type")]
        pub(super) kind: Kind,
        pub(super) datasource: DataSource,
        pub(super) grid_pos: Place,
        pub(super) field_config: FieldConfig,
        pub(super) targets: Vec<Target>,
    }

    #[derive(Deserialize, PartialEq, Eq, Debug)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Kind {
        Stat,
        TimeSeries,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Place {
        pub(super) x: u32,
        pub(super) y: u32,
        pub(super) w: u32,
        pub(super) h: u32,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct FieldConfig {
        pub(super) defaults: Defaults,
        pub(super) overrides: [(); 0],
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Defaults {
        pub(super) unit: Unit,
    }

    /// Grafana's own names. One that it does not know is shown as it is, behind each value.
    #[derive(Deserialize, PartialEq, Eq, Debug)]
    pub(super) enum Unit {
        Bps,
        #[serde(rename = "d")]
        Days,
        #[serde(rename = "ms")]
        Milliseconds,
        #[serde(rename = "ops")]
        Operations,
        #[serde(rename = "percentunit")]
        Share,
        #[serde(rename = "reqps")]
        Requests,
        #[serde(rename = "short")]
        Number,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Target {
        pub(super) ref_id: String,
        pub(super) expr: String,
        pub(super) legend_format: String,
    }
}

/// What Grafana would lose or show wrong of a dashboard; nothing where it is in order.
fn faults(dashboard: &Value) -> Vec<String> {
    use grafana::{Dashboard, DataSource, Defaults, FieldConfig, Kind, Unit, Variable};
    let read: Dashboard = match serde_json::from_value(dashboard.clone()) {
        Ok(read) => read,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    expect((1..=40).contains(&read.uid.len()) && !read.title.is_empty(), "uid and title");
    // What Grafana 10 and later write; older ones it converts.
    expect(read.schema_version >= 39, "schemaVersion");
    expect(!read.tags.is_empty() && !read.refresh.is_empty(), "tags and refresh");
    expect(read.time.from.starts_with("now-") && read.time.to == "now", "time");
    let ours = |of: &DataSource| of.kind == "prometheus" && of.uid == "${datasource}";
    let mut variables = BTreeSet::new();
    for variable in &read.templating.list {
        match variable {
            Variable::DataSource { name, query, label } => {
                expect(query == "prometheus" && !label.is_empty(), "the data source");
                variables.insert(name.as_str());
            }
            Variable::Query {
                name,
                label,
                datasource,
                query,
                include_all,
                multi,
                refresh,
                all_value,
                current,
            } => {
                expect(
                    query.starts_with("label_values(") && !label.is_empty(),
                    "a variable's query",
                );
                expect(ours(datasource) && *refresh == 2, "a variable's data source");
                let all = *include_all && *multi && all_value == ".*" && current.text == "All";
                expect(all && current.value == "$__all", "a variable's choice of all");
                variables.insert(name.as_str());
            }
        }
    }
    expect(variables.contains("datasource"), "a variable of data sources");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    let used = Regex::new(r"\$\{?([a-z_]+)").expect("a pattern");
    for panel in &read.panels {
        let at = |what: &str| format!("{}: {what}", panel.title);
        expect(ids.insert(panel.id) && panel.id > 0, &at("its id is another's"));
        expect(
            !panel.title.is_empty() && panel.description.as_deref() != Some(""),
            &at("title and description"),
        );
        expect(ours(&panel.datasource), &at("its data source"));
        let FieldConfig { defaults: Defaults { unit }, overrides: [] } = &panel.field_config;
        let is_plain = panel.kind == Kind::TimeSeries || *unit == Unit::Number;
        expect(is_plain, &at("a rate or a share is drawn over time"));
        let place = &panel.grid_pos;
        // Grafana's grid has 24 columns.
        expect(place.w > 0 && place.h > 0 && place.x + place.w <= 24, &at("its place"));
        for x in place.x..place.x + place.w {
            for y in place.y..place.y + place.h {
                expect(cells.insert((x, y)), &at("another panel is there"));
            }
        }
        let mut letters = BTreeSet::new();
        for target in &panel.targets {
            expect(letters.insert(&target.ref_id), &at("two queries of one letter"));
            expect(!target.legend_format.is_empty(), &at("a query's legend"));
            let unknown =
                used.captures_iter(&target.expr).find(|name| !variables.contains(&name[1]));
            expect(unknown.is_none(), &at("a variable that is not there"));
        }
        expect(!panel.targets.is_empty(), &at("no query"));
    }
    expect(!read.panels.is_empty(), "no panel");
    faults.dedup();
    faults
}

#[test]
fn dashboards_are_what_grafana_reads() {
    type Change = dyn Fn(&mut Value);
    let all = dashboards();
    let uids: BTreeSet<String> = all.iter().map(|(_, one)| one["uid"].to_string()).collect();
    assert!(all.len() >= 2 && uids.len() == all.len(), "{uids:?}");
    for (name, dashboard) in &all {
        assert_eq!(faults(dashboard), Vec::<String>::new(), "{name}");
    }
    // The twins: what is wrong is found.
    let (_, good) = &all[0];
    let broken: [(&str, &Change); 7] = [
        ("unknown field `exprs`", &|one| one["panels"][0]["targets"][0]["exprs"] = "up".into()),
        ("missing field `title`", &|one| {
            one["panels"][1].as_object_mut().expect("a panel").remove("title");
        }),
        ("unknown variant `graph`", &|one| one["panels"][0]["type"] = "graph".into()),
        ("unknown variant `seconds`", &|one| {
            one["panels"][0]["fieldConfig"]["defaults"]["unit"] = "seconds".into();
        }),
        ("another panel is there", &|one| {
            one["panels"][1]["gridPos"] = one["panels"][0]["gridPos"].clone();
        }),
        ("a variable that is not there", &|one| {
            one["panels"][0]["targets"][0]["expr"] = "egress_ready{job=~\"$job\"}".into();
        }),
        ("its id is another's", &|one| one["panels"][1]["id"] = one["panels"][0]["id"].clone()),
    ];
    for (expected, change) in broken {
        let mut one = good.clone();
        change(&mut one);
        let found = faults(&one);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
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
