//! The chart's values: the schema knows each, refuses every other, and the documentation names all.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::helm::{NEWEST, chart, render, root};

fn schema() -> Value {
    let text = fs::read(chart().join("values.schema.json")).expect("the schema");
    serde_json::from_slice(&text).expect("JSON")
}

fn values() -> Value {
    let text = fs::read_to_string(chart().join("values.yaml")).expect("the values");
    serde_saphyr::from_str(&text).expect("YAML")
}

/// Mappings that the schema closes, by path, with their fields.
fn closed(schema: &Value, path: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    let Some(fields) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] == false {
        found.push((path.to_owned(), fields.keys().cloned().collect()));
    }
    for (name, field) in fields {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        closed(field, &below, found);
    }
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    let mut all = Vec::new();
    closed(&schema(), "", &mut all);
    assert!(all.len() > 20, "{all:?}");
    for (path, _) in &all {
        let name = if path.is_empty() { "tyop".into() } else { format!("{path}.tyop") };
        let given = format!("{name}=1");
        let error = render(None, NEWEST, &["--set", &given]).expect_err(&given);
        assert!(error.contains("tyop"), "{given}: {error}");
    }
}

#[test]
fn a_value_of_another_kind_is_refused() {
    for given in [
        "node.mode=off",
        "node.cgroups={kubepods.slice}",
        "node.podInterfaces={eth0}",
        "node.maxUnavailable=200%",
        "node.events=yaml",
        "gateway.capture=tproxy",
        "gateway.replicas=0",
        "gateway.tunnelPort=65536",
        "gateway.identity.source=istio",
        "gateway.metricsFrom={10.0.0.1}",
        "image.digest=sha256:0",
        "image.repository=",
        "mesh.settings.outboundTraffic=x",
        "mesh.settings.clusterCidrs=10.96.0.0/12",
    ] {
        let error = render(None, NEWEST, &["--set", given]).expect_err(given);
        assert!(error.contains("schema") || error.contains("specification"), "{given}: {error}");
    }
    for given in [
        "node.mode=enforce",
        "node.cgroups={/sys/fs/cgroup/kubepods.slice}",
        "node.podInterfaces={cali*}",
        "node.maxUnavailable=2",
        "node.events=off",
        "gateway.replicas=1",
        "gateway.metricsFrom={10.0.0.0/24}",
        "mesh.settings.enforcement=audit",
    ] {
        assert!(render(None, NEWEST, &["--set", given]).is_ok(), "{given}");
    }
}

/// What the schema cannot say.
#[test]
fn values_that_contradict_each_other_are_refused() {
    for (given, what) in [
        ("monitoring.serviceMonitor.enabled=true", "node.metrics.listen"),
        ("node.identity.source=secret", "secretName"),
    ] {
        let error = render(None, NEWEST, &["--set", given]).expect_err(given);
        assert!(error.contains(what), "{given}: {error}");
    }
}

/// Each value has a default where users look for it, and the schema has no other.
#[test]
fn the_schema_knows_every_value() {
    let mut all = Vec::new();
    closed(&schema(), "", &mut all);
    let values = values();
    for (path, mut fields) in all {
        let mut here = &values;
        path.split('.').filter(|name| !name.is_empty()).for_each(|name| here = &here[name]);
        // Helm's own, and resources that have no limit.
        fields.retain(|name| name != "global" && !(path.contains("resources")));
        let Some(given) = here.as_object() else { panic!("values.yaml has no {path}") };
        for field in &fields {
            assert!(given.contains_key(field), "values.yaml has no {path}.{field}");
        }
    }
}

/// The names of the mesh-wide settings are those that the agent reads.
#[test]
fn the_schema_knows_every_setting() {
    let reference = fs::read_to_string(root().join("docs/configuration.md")).expect("it");
    let (_, mesh) = reference.split_once("### `top level`").expect("the mesh's fields");
    let table = mesh.split("\n#").next().expect("a table");
    let fields: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(fields.contains("clusterCidrs"), "{fields:?}");
    let schema = schema();
    let known = &schema["properties"]["mesh"]["properties"]["settings"]["propertyNames"]["enum"];
    let known: BTreeSet<&str> =
        known.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert_eq!(fields, known);
}

/// Each value, with its default and its meaning.
fn rows(schema: &Value, values: &Value, path: &str, text: &mut String) {
    let Some(fields) = schema["properties"].as_object() else { return };
    for (name, field) in fields.iter().filter(|(name, _)| !path.is_empty() || *name != "global") {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let closed = field["additionalProperties"] == false && name != "resources";
        if closed {
            rows(field, &values[name], &below, text);
            continue;
        }
        let meaning = field["description"].as_str().unwrap_or_else(|| panic!("{below} has none"));
        let allowed = field["enum"].as_array().into_iter().flatten();
        let allowed: Vec<_> = allowed.map(|value| format!("`{value}`").replace('"', "")).collect();
        let allowed = match allowed.is_empty() {
            true => String::new(),
            false => format!(" One of {}.", allowed.join(", ")),
        };
        let default = values[name].to_string().replace('|', "\\|");
        text.push_str(&format!("| `{below}` | `{default}` | {meaning}{allowed} |\n"));
    }
}

/// docs/helm-values.md is made of the schema and the defaults; `EGRESS_BLESS=1` writes it.
#[test]
fn the_reference_of_values_is_current() {
    let mut text = String::from(
        "# Helm values\n\n\
         Every value of the chart, [`deploy/chart/egress-enforcer`](../deploy/chart/egress-enforcer), with its \
         default. The chart's schema refuses every other name. [Kubernetes](kubernetes.md) says how it is \
         installed. This page is made of the schema: `EGRESS_BLESS=1 cargo test -p egress-agent --test deploy` \
         renews it.\n\n\
         | value | default | meaning |\n|---|---|---|\n",
    );
    rows(&schema(), &values(), "", &mut text);
    let path = root().join("docs/helm-values.md");
    if std::env::var_os("EGRESS_BLESS").is_some() {
        fs::write(&path, &text).expect("the page");
    }
    let now = fs::read_to_string(&path).unwrap_or_default();
    assert!(now == text, "{} is not what EGRESS_BLESS=1 writes", path.display());
}
