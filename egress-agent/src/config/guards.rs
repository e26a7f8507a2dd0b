//! Resources that restrict what gateways let through. One that cannot be honoured is never passed
//! over: it would allow more than it says.

use std::rc::Rc;

use super::{
    authorization_policy::AuthorizationPolicy,
    decode::{Cx, Report, SourcePosition},
    meta::Meta,
    problem::Problem,
    yaml::{Node, Value},
};
use crate::types::Labels;

/// A resource that restricts.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Who it is.
    pub(super) meta: Meta,
    /// What it says.
    pub(super) what: GuardKind,
    /// Labels of the workloads that it is for.
    pub(super) labels: Labels,
    /// What it names in `targetRefs`, by kind and name.
    pub(super) targets: Vec<(String, String)>,
    /// It is only tried out (`istio.io/dry-run`).
    pub(super) dry_run: bool,
    /// What was wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) enum GuardKind {
    /// An `AuthorizationPolicy`.
    Policy(AuthorizationPolicy),
    /// An `AuthorizationPolicy` that cannot be read.
    Unreadable,
    /// A `Sidecar`.
    Sidecar(Outbound),
    /// Something that only Envoy can carry out: `EnvoyFilter`, `WasmPlugin`, `RequestAuthentication`.
    Envoy(&'static str),
}

/// What a `Sidecar` does to what its workloads may reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outbound {
    /// `egress` leaves hosts out.
    pub(super) hides: bool,
    /// `outboundTrafficPolicy` is `REGISTRY_ONLY`.
    pub(super) registry_only: bool,
}

/// Kinds that restrict: group, name, versions.
pub(super) const KINDS: [(&str, &str, &[&str]); 5] = [
    ("security.istio.io", "AuthorizationPolicy", &["v1", "v1beta1"]),
    ("security.istio.io", "RequestAuthentication", &["v1", "v1beta1"]),
    ("extensions.istio.io", "WasmPlugin", &["v1alpha1"]),
    ("networking.istio.io", "EnvoyFilter", &["v1alpha3"]),
    ("networking.istio.io", "Sidecar", &["v1", "v1beta1", "v1alpha3"]),
];

/// Whether it is one of these kinds; then the versions that it has.
pub(super) fn versions(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    let known = KINDS.iter().find(|(known, name, _)| (*known, *name) == (group, kind));
    known.map(|(.., versions)| *versions)
}

impl Guard {
    /// Reads it.
    pub(super) fn read(kind: &str, meta: Meta, node: &Node) -> Self {
        let spec = node.get("spec").filter(|spec| spec.value != Value::Null);
        let selector = spec.and_then(|spec| match kind {
            "EnvoyFilter" | "Sidecar" => spec.get("workloadSelector")?.get("labels"),
            _ => spec.get("selector")?.get("matchLabels"),
        });
        let annotations = node.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let mut report = Report::default();
        let what = match kind {
            "AuthorizationPolicy" => {
                let file = Rc::clone(&meta.file);
                let mut cx = Cx { report: &mut report, file: &file, resource: Some(&meta.label) };
                let nothing = Node { value: Value::Map(Vec::new()), line: node.line };
                let spec = spec.unwrap_or(&nothing);
                let at = SourcePosition::root(spec.line, "spec");
                AuthorizationPolicy::decode_record(spec, &at, &mut cx)
                    .map_or(GuardKind::Unreadable, GuardKind::Policy)
            }
            "Sidecar" => GuardKind::Sidecar(outbound(spec)),
            "RequestAuthentication" => {
                GuardKind::Envoy("requests with invalid tokens are rejected")
            }
            "WasmPlugin" => GuardKind::Envoy("its module may reject requests"),
            _ => GuardKind::Envoy("it may add filters that reject requests"),
        };
        Self {
            labels: selector.map(labels).unwrap_or_default(),
            targets: spec.map(targets).unwrap_or_default(),
            dry_run: annotations.and_then(|all| all.text("istio.io/dry-run")) == Some("true"),
            problems: report.problems,
            what,
            meta,
        }
    }
}

/// What is no label selects nothing, so that the rest selects more.
fn labels(node: &Node) -> Labels {
    let Value::Map(entries) = &node.value else { return Labels::new() };
    let entries = entries.iter().filter_map(|(key, value)| {
        let Value::Text(text) = &value.value else { return None };
        Some((key.text.clone(), text.clone()))
    });
    entries.collect()
}

fn targets(spec: &Node) -> Vec<(String, String)> {
    let mut all: Vec<&Node> = spec.get("targetRef").into_iter().collect();
    if let Some(Value::List(items)) = spec.get("targetRefs").map(|refs| &refs.value) {
        all.extend(items);
    }
    let text = |node: &Node, key: &str| node.text(key).unwrap_or_default().to_owned();
    all.into_iter().map(|node| (text(node, "kind"), text(node, "name"))).collect()
}

fn outbound(spec: Option<&Node>) -> Outbound {
    let policy = spec.and_then(|spec| spec.get("outboundTrafficPolicy"));
    let registry_only = policy.is_some_and(|policy| policy.text("mode") != Some("ALLOW_ANY"));
    let hides = match spec.and_then(|spec| spec.get("egress")).map(|egress| &egress.value) {
        None | Some(Value::Null) => false,
        Some(Value::List(listeners)) => listeners.iter().any(|listener| {
            let hosts = listener.get("hosts").map(|hosts| &hosts.value);
            let Some(Value::List(hosts)) = hosts else { return true };
            !hosts.iter().any(|host| host.value == Value::Text("*/*".into()))
                || listener.get("port").is_some()
        }),
        Some(_) => true,
    };
    Outbound { hides, registry_only }
}
