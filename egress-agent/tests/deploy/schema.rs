//! What an object may hold in a version of Kubernetes: the schemas that the set-up installs.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::helm;

/// The minor versions that there are schemas of.
pub(crate) const MINORS: [&str; 8] =
    ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36"];

/// Kinds, and what their types are called.
const KINDS: [(&str, &str, &str); 17] = [
    ("apps/v1", "DaemonSet", "V1DaemonSet"),
    ("apps/v1", "Deployment", "V1Deployment"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "V2HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy", "V1NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget", "V1PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "V1ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "V1ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role", "V1Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "V1RoleBinding"),
    ("v1", "ConfigMap", "V1ConfigMap"),
    ("v1", "Pod", "V1Pod"),
    ("v1", "Service", "V1Service"),
    ("v1", "ServiceAccount", "V1ServiceAccount"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "V1CustomResourceDefinition"),
    ("v1", "Namespace", "V1Namespace"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "V1ValidatingAdmissionPolicy"),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "V1ValidatingAdmissionPolicyBinding",
    ),
];

/// Of the Prometheus operator. There is no schema of it here: only that nothing else is there.
pub(crate) const UNCHECKED: [(&str, &str); 2] = [
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
];

#[derive(Deserialize)]
struct Field {
    #[serde(rename = "type")]
    kind: String,
    required: bool,
}

/// The types of a version.
#[derive(Deserialize)]
pub(crate) struct Schema(BTreeMap<String, BTreeMap<String, Field>>);

impl Schema {
    pub(crate) fn of(minor: &str) -> Self {
        let path = helm::tools().join(format!("schemas/{minor}.json"));
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&text).expect("a schema")
    }

    /// Everything in an object that this version does not know, or lacks.
    pub(crate) fn problems(&self, object: &Value) -> Vec<String> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if UNCHECKED.contains(&(version, kind)) {
            return Vec::new();
        }
        let Some((_, _, name)) = KINDS.iter().find(|known| (known.0, known.1) == (version, kind))
        else {
            return vec![format!("no kind {kind} in {version}")];
        };
        let mut problems = Vec::new();
        self.check(name, object, kind, &mut problems);
        problems
    }

    /// `kind` as the schema writes it: `str`, `V1Pod`, `list[str]`, `dict(str, V1Pod)`, `dict[str, str]`.
    fn check(&self, kind: &str, value: &Value, at: &str, problems: &mut Vec<String>) {
        let wrong = || format!("{at}: found {value}, expected {kind}");
        if let Some(item) = kind.strip_prefix("list[").and_then(|rest| rest.strip_suffix(']')) {
            let Some(items) = value.as_array() else { return problems.push(wrong()) };
            for (number, value) in items.iter().enumerate() {
                self.check(item, value, &format!("{at}[{number}]"), problems);
            }
            return;
        }
        if let Some(item) = kind.strip_prefix("dict").and_then(|rest| rest.split_once(", ")) {
            let item = item.1.trim_end_matches([')', ']']);
            // `list[str]` has lost its bracket.
            let item = if item.contains('[') { format!("{item}]") } else { item.to_owned() };
            let Some(items) = value.as_object() else { return problems.push(wrong()) };
            for (key, value) in items {
                self.check(&item, value, &format!("{at}.{key}"), problems);
            }
            return;
        }
        let fits = match kind {
            "object" => true,
            "str" | "datetime" => value.is_string(),
            "int" => value.is_i64() || value.is_u64(),
            "float" => value.is_number(),
            "bool" => value.is_boolean(),
            _ => match (self.0.get(kind), value.as_object()) {
                (Some(fields), Some(object)) => {
                    Self::fields(fields, object, at, problems);
                    for (name, value) in object {
                        if let Some(field) = fields.get(name) {
                            self.check(&field.kind, value, &format!("{at}.{name}"), problems);
                        }
                    }
                    return;
                }
                (Some(_), None) => false,
                (None, _) => return problems.push(format!("{at}: the schema has no type {kind}")),
            },
        };
        if !fits {
            problems.push(wrong());
        }
    }

    fn fields(
        fields: &BTreeMap<String, Field>,
        object: &Map<String, Value>,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        let unknown = object.keys().filter(|name| !fields.contains_key(*name));
        problems.extend(unknown.map(|name| format!("{at}: no field {name}")));
        let missing =
            fields.iter().filter(|(name, field)| field.required && !object.contains_key(*name));
        problems.extend(missing.map(|(name, _)| format!("{at}: {name} is missing")));
    }
}
