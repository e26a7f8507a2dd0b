//! The definitions in `deploy/crds` say what the types say: the fields, which of them are required, their values
//! and their bounds. What an API server with them would refuse, `check` refuses too.

use regex::Regex;
use serde_json::Value;

use super::{
    compile::{MAX_HOSTS, MAX_METHODS, MAX_PATH, MAX_PATHS, MAX_PORTS, MAX_RATE, MAX_RULES},
    decode::{FieldDoc, RecordDoc},
    egress_policy::{ClusterEgressPolicy, EgressPolicy},
    label_selector::{MAX_EXPRESSIONS, MAX_LABELS, MAX_VALUES},
    testing::errors,
};

const NAMESPACED: &str = include_str!("../../../deploy/crds/egresspolicies.yaml");
const CLUSTER: &str = include_str!("../../../deploy/crds/clusteregresspolicies.yaml");

fn definition(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn specification(text: &str) -> Value {
    let definition = definition(text);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

#[test]
fn the_definitions_have_the_fields_of_the_types() {
    for (text, doc) in [(NAMESPACED, EgressPolicy::doc()), (CLUSTER, ClusterEgressPolicy::doc())] {
        same(&specification(text), &doc, "spec");
    }
}

fn same(schema: &Value, record: &RecordDoc, place: &str) {
    assert_eq!(schema["type"], "object", "{place}");
    let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{place}"));
    let fields = (record.fields)();
    let mut here: Vec<_> = properties.keys().map(String::as_str).collect();
    let mut there: Vec<_> = fields.iter().map(|field| field.key).collect();
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there, "{place}");
    for FieldDoc { key, type_name, default, nested, .. } in fields {
        let place = format!("{place}.{key}");
        let required = schema["required"].as_array().into_iter().flatten();
        let is_required = required.into_iter().any(|required| required == key);
        assert_eq!(is_required, default == "required", "{place}");
        let own = &properties[key];
        let list = type_name.starts_with("list");
        let own = if list { &own["items"] } else { own };
        match nested {
            Some(nested) => same(own, &nested, &place),
            None => scalar(own, &type_name, default, &place),
        }
    }
}

fn scalar(schema: &Value, type_name: &str, default: &str, place: &str) {
    let kind = if type_name.starts_with("mapping") {
        "object"
    } else if type_name == "port number" {
        assert_eq!((&schema["minimum"], &schema["maximum"]), (&1.into(), &65535.into()), "{place}");
        "integer"
    } else if type_name == "whole number" {
        assert_eq!(
            (&schema["minimum"], &schema["maximum"]),
            (&1.into(), &MAX_RATE.into()),
            "{place}"
        );
        "integer"
    } else {
        "string"
    };
    assert_eq!(schema["type"], kind, "{place}");
    if let Some(values) = schema["enum"].as_array() {
        let names: Vec<_> = values.iter().map(|v| format!("`{}`", v.as_str().unwrap())).collect();
        assert_eq!(type_name, names.join(", "), "{place}");
    }
    if let Some(given) = schema.get("default") {
        let text = given.as_str().map_or_else(|| given.to_string(), |text| format!("`{text}`"));
        assert_eq!(text, default, "{place}");
    }
}

#[test]
fn the_bounds_are_the_same() {
    for text in [NAMESPACED, CLUSTER] {
        let spec = specification(text);
        let rules = &spec["properties"]["rules"];
        let rule = &rules["items"]["properties"];
        let http = &rule["http"]["properties"];
        let selector = &spec["properties"]["podSelector"]["properties"];
        let expressions = &selector["matchExpressions"];
        for (found, most) in [
            (&rules["maxItems"], MAX_RULES),
            (&rule["hosts"]["maxItems"], MAX_HOSTS),
            (&rule["ports"]["maxItems"], MAX_PORTS),
            (&http["methods"]["maxItems"], MAX_METHODS),
            (&http["paths"]["maxItems"], MAX_PATHS),
            (&http["paths"]["items"]["maxLength"], MAX_PATH),
            (&selector["matchLabels"]["maxProperties"], MAX_LABELS),
            (&expressions["maxItems"], MAX_EXPRESSIONS),
            (&expressions["items"]["properties"]["values"]["maxItems"], MAX_VALUES),
            (&rule["hosts"]["minItems"], 1),
            (&rule["ports"]["minItems"], 1),
        ] {
            assert_eq!(found, most);
        }
    }
}

/// A policy with one rule.
fn policy(host: &str, path: &str, label: &str) -> String {
    format!(
        "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: a}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: '{label}'}}}}\n  rules:\n  - hosts: ['{host}']\n    \
         ports: [{{port: 80, protocol: HTTP}}]\n    http: {{paths: ['{path}']}}\n"
    )
}

/// What a pattern of the definition refuses is told by `check`: nobody learns it only from the API server.
#[test]
fn what_a_pattern_refuses_is_told() {
    let spec = specification(NAMESPACED);
    let rule = &spec["properties"]["rules"]["items"]["properties"];
    let pattern = |schema: &Value| Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
    let hosts = pattern(&rule["hosts"]["items"]);
    let paths = pattern(&rule["http"]["properties"]["paths"]["items"]);
    let selector = &spec["properties"]["podSelector"]["properties"];
    let labels = pattern(&selector["matchLabels"]["additionalProperties"]);
    let told = |host: &str, path: &str, label: &str| {
        let text = policy(host, path, label);
        !super::testing::problems(&[&text], "").is_empty()
    };
    let mut refused = 0;
    for host in [
        "a.example",
        "*.example.com",
        "a_b.example",
        "203.0.113.1",
        "2001:db8::1",
        "A.example",
        "a.example.",
        "*",
        "*.*.example",
        "a..example",
        "-a.example",
        "a.example/",
        "a b",
        "",
        "*example.com",
        "[2001:db8::1]",
        "http://a.example",
        "a.example:80",
    ] {
        refused += usize::from(!hosts.is_match(host));
        assert!(hosts.is_match(host) || told(host, "/a", "web"), "host {host:?}");
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/a-b_c.d~e",
        "/v1//x",
        "v1",
        "",
        "/a?b",
        "/a*",
        "/a;b",
        "/a%20b",
        "/ä",
    ] {
        refused += usize::from(!paths.is_match(path));
        assert!(paths.is_match(path) || told("a.example", path, "web"), "path {path:?}");
    }
    for label in ["web", "", "a.b_c-d", "-web", "web-", "a b", "ä"] {
        refused += usize::from(!labels.is_match(label));
        assert!(labels.is_match(label) || told("a.example", "/a", label), "label {label:?}");
    }
    assert!(refused > 15, "{refused}");
    assert_eq!(errors(&[&policy("a.example", "/a", "web")]), []);
}

#[test]
fn the_definitions_are_whole() {
    for (text, kind, scope, short) in [
        (NAMESPACED, "EgressPolicy", "Namespaced", "egp"),
        (CLUSTER, "ClusterEgressPolicy", "Cluster", "cegp"),
    ] {
        let definition = definition(text);
        let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
        assert_eq!((&names["kind"], &spec["scope"]), (&kind.into(), &scope.into()));
        assert_eq!(names["shortNames"][0], short);
        let full =
            format!("{}.{}", names["plural"].as_str().unwrap(), spec["group"].as_str().unwrap());
        assert_eq!(definition["metadata"]["name"], full);
        let known = super::kinds().find(|(_, name, _)| *name == kind).unwrap();
        assert_eq!(
            (spec["group"].as_str(), &spec["versions"][0]["name"]),
            (Some(known.0), &known.2[0].into())
        );
        assert!(spec["versions"][0]["subresources"]["status"].is_object());
    }
}
