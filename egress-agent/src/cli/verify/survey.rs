//! What is enforced for which pod: from the configuration and the pods, without I/O.

use std::net::{IpAddr, Ipv4Addr};

use super::super::wrap::wrap;
use crate::{
    pods::Pod,
    policy::{MeshConfig, Snapshot},
    types::{Source, Workload},
};

/// A pod of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) pod: String,
    pub(super) node: String,
    /// `enforce`, `audit` or `exempt`, or that nothing is known of it yet.
    pub(super) mode: &'static str,
    /// The policies that select it.
    pub(super) policies: Vec<String>,
}

/// The pods of a namespace, by name.
pub(super) fn rows(snapshot: &Snapshot, namespace: &str, pods: &[Pod]) -> Vec<Row> {
    let own = pods.iter().filter(|pod| &*pod.namespace.0 == namespace && !pod.finished);
    let mut rows: Vec<Row> = own.map(|pod| row(snapshot, pod)).collect();
    rows.sort_by(|a, b| a.pod.cmp(&b.pod));
    rows
}

fn row(snapshot: &Snapshot, pod: &Pod) -> Row {
    let mut known = snapshot.mesh.workloads.iter();
    let workload = known.find(|one| one.namespace == pod.namespace && one.name == pod.name);
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let source = workload.map(|workload| Source::unauthenticated(nobody, Some(workload.clone())));
    let selecting = |source: &Source| {
        let all = snapshot.rules.egress.iter().filter(|policy| policy.selects(source));
        all.map(|policy| policy.label.to_string()).collect()
    };
    Row {
        pod: pod.name.to_string(),
        node: pod.node.as_deref().unwrap_or("none yet").to_owned(),
        mode: workload.map_or("no address yet", |workload| mode(&snapshot.mesh, workload)),
        policies: source.as_ref().map(selecting).unwrap_or_default(),
    }
}

fn mode(mesh: &MeshConfig, workload: &Workload) -> &'static str {
    let mode = mesh.sets().nth(mesh.set_of(workload)).map(|set| set.mode);
    mode.unwrap_or(mesh.enforcement).name()
}

/// As a table. The list of policies goes on below itself where it is wider than `width`.
pub(super) fn text(namespace: &str, rows: &[Row], width: usize) -> String {
    if rows.is_empty() {
        return format!("no pods in {namespace}\n");
    }
    let widest = |of: fn(&Row) -> &str, least: usize| {
        rows.iter().map(|row| of(row).len()).max().unwrap_or(0).max(least)
    };
    let pod = widest(|row| &row.pod, 3);
    let node = widest(|row| &row.node, 4);
    let mode = widest(|row| row.mode, 4);
    let mut text = format!("{:pod$}  {:node$}  {:mode$}  POLICIES\n", "POD", "NODE", "MODE");
    for row in rows {
        let policies = match row.policies.as_slice() {
            [] => "none: Istio's resources decide, if any".to_owned(),
            some => some.join(", "),
        };
        let first = format!("{:pod$}  {:node$}  {:mode$}  ", row.pod, row.node, row.mode);
        let next = " ".repeat(pod + node + mode + 6);
        text += &wrap(&policies, &first, &next, width);
    }
    text
}
