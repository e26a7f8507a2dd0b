//! `EgressPolicy`, `ClusterEgressPolicy` and the namespaces that the latter selects.
//!
//! A policy that is not valid, or has a field that is not known, allows nothing: the field may have been
//! a limit. It holds nothing else back, because another tenant's resources must not wait for it.

use std::rc::Rc;

use super::{
    decode::{Cx, Report, SourcePosition},
    egress_policy::{ClusterEgressPolicy, EgressPolicy},
    meta::{Meta, warn_about_unknown},
    problem::{Problem, Severity},
    yaml::{Node, Value},
};
use crate::types::{Labels, Namespace};

/// The group of the kinds that are this product's own.
pub(super) const GROUP: &str = "egress-enforcer.io";
/// Their versions.
pub(super) const VERSIONS: &[&str] = &["v1alpha1"];
/// A policy for pods of its own namespace.
pub(super) const NAMESPACED: &str = "EgressPolicy";
/// A policy for pods of namespaces that it selects.
pub(super) const CLUSTER: &str = "ClusterEgressPolicy";

/// A policy of either kind, read.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Who it is.
    pub(super) meta: Meta,
    /// What it says, as far as it could be read.
    pub(super) spec: Option<Spec>,
    /// Whether it is for the whole cluster.
    pub(super) cluster: bool,
    /// What was wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// What a policy of either kind says.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// In which namespaces its pods are; `None` for those of its own.
    pub(super) namespaces: Option<super::egress_policy::PodSelector>,
    /// Everything else.
    pub(super) policy: EgressPolicy,
}

/// The kinds: group, name, versions.
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])>
{
    [NAMESPACED, CLUSTER].into_iter().map(|kind| (GROUP, kind, VERSIONS))
}

impl Policy {
    /// Reads it.
    pub(super) fn read(meta: Meta, node: &Node, cluster: bool) -> Self {
        let mut report = Report::default();
        let file = Rc::clone(&meta.file);
        let mut cx = Cx { report: &mut report, file: &file, resource: Some(&meta.label) };
        warn_about_unknown(node, &mut cx);
        let spec = node.get("spec").filter(|spec| spec.value != Value::Null);
        let at = SourcePosition::root(spec.map_or(node.line, |spec| spec.line), "spec");
        let decoded = match spec {
            None => {
                cx.wrong(&at, "nothing", "a mapping", "the field \"spec\" is missing");
                None
            }
            Some(node) if cluster => {
                ClusterEgressPolicy::decode_record(node, &at, &mut cx).map(Spec::from)
            }
            Some(node) => EgressPolicy::decode_record(node, &at, &mut cx)
                .map(|policy| Spec { namespaces: None, policy }),
        };
        let problems = report.problems.into_iter().map(refusal).collect();
        Self { spec: decoded, cluster, problems, meta }
    }
}

impl From<ClusterEgressPolicy> for Spec {
    fn from(spec: ClusterEgressPolicy) -> Self {
        let ClusterEgressPolicy { at, namespace_selector, pod_selector, mode, gateway, rules } =
            spec;
        Self {
            namespaces: namespace_selector,
            policy: EgressPolicy { at, pod_selector, mode, gateway, rules },
        }
    }
}

/// What is wrong with a policy, answered by denying.
fn refusal(mut problem: Problem) -> Problem {
    const IGNORED: &str = "; it has no effect";
    problem.severity = Severity::Refusal;
    problem.message =
        problem.message.replace(IGNORED, ", which may be a limit, so the policy allows nothing");
    problem
}

/// A `Namespace` of Kubernetes with its labels.
pub(super) fn namespace(meta: &Meta, node: &Node) -> (Namespace, Labels) {
    let labels = node.get("metadata").and_then(|metadata| metadata.get("labels"));
    let entries = match labels.map(|labels| &labels.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    let labels = entries.iter().filter_map(|(key, value)| {
        let Value::Text(text) = &value.value else { return None };
        Some((key.text.clone(), text.clone()))
    });
    (Namespace(meta.name.as_str().into()), labels.collect())
}

/// The cluster's first: a namespace's must not come before them. Then the oldest.
pub(super) fn sort(all: &mut [Policy]) {
    all.sort_by(|a, b| {
        let order = |policy: &Policy| {
            let created = &policy.meta.created;
            (!policy.cluster, created.is_none(), created.clone())
        };
        order(a).cmp(&order(b))
    });
}
