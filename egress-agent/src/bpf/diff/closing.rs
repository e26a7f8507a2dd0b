//! Changes of tables: an exempt workload's routes are in a table of its own. While one table's routes are changed, a
//! workload that comes from another table, or goes to one, would meet a mixture of the two.
//!
//! So each workload whose table changes first gets a policy like that of unknown workloads: it has no routes, and no
//! gateway is open to it. Where there are such tables, a workload that comes or goes gets it too. Then the other
//! changes are made: a workload's table is the same before and after them, or nothing external is open to it. Last,
//! each workload gets the desired policy, all of whose routes are there by then. In-cluster traffic passes all the
//! time. A table's number follows from its routes, so a table that stays in use never changes.

use std::collections::BTreeSet;

use egress_ebpf::abi::{Policy, PolicyId, UNKNOWN_TABLE, mode};

use super::{
    change::{Change, UNWRITTEN, differences},
    op::Op,
};
use crate::bpf::plan::{CLOSED, Contents};

/// What somebody's policy says; one that isn't there enforces the table that all share.
fn rules(contents: &Contents, policy: PolicyId) -> Policy {
    contents.policies.get(&policy).copied().unwrap_or(UNWRITTEN)
}

/// Whether the policy has routes of its own.
fn has_table(contents: &Contents, policy: PolicyId) -> bool {
    ![UNWRITTEN.table, UNKNOWN_TABLE].contains(&rules(contents, policy).table)
}

/// Whether somebody has such a table.
fn has_tables(contents: &Contents) -> bool {
    let ports = contents.pod_interfaces.values().map(|port| port.policy);
    contents.workloads.values().copied().chain(ports).any(|policy| has_table(contents, policy))
}

/// Whether a policy gets such a table, or loses one.
fn tables_change(old: &Contents, new: &Contents) -> bool {
    let mut ids = old.policies.keys().chain(new.policies.keys());
    ids.any(|id| rules(old, *id) != rules(new, *id) && (has_table(old, *id) || has_table(new, *id)))
}

/// Whether someone with these policies has to be closed in between.
fn moves(
    old: &Contents,
    before: Option<PolicyId>,
    new: &Contents,
    after: Option<PolicyId>,
) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            let table = |contents, policy| rules(contents, policy).table;
            let now = table(old, before);
            // The number that it had may be another set's by now, and the one that it gets may have been.
            [table(new, before), table(old, after), table(new, after)].iter().any(|at| *at != now)
        }
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

/// Both contents, with the workloads closed whose tables change; `None` where none does.
pub(super) fn closed(old: &Contents, new: &Contents) -> Option<(Contents, Contents)> {
    if !has_tables(old) && !has_tables(new) && !tables_change(old, new) {
        return None;
    }
    let ids: BTreeSet<u64> = old.workloads.keys().chain(new.workloads.keys()).copied().collect();
    let workloads: Vec<u64> = ids
        .into_iter()
        .filter(|id| {
            let of = |contents: &Contents| contents.workloads.get(id).copied();
            moves(old, of(old), new, of(new))
        })
        .collect();
    let indices: BTreeSet<u32> =
        old.pod_interfaces.keys().chain(new.pod_interfaces.keys()).copied().collect();
    let interfaces: Vec<u32> = indices
        .into_iter()
        .filter(|index| {
            let of =
                |contents: &Contents| contents.pod_interfaces.get(index).map(|port| port.policy);
            moves(old, of(old), new, of(new))
        })
        .collect();
    if workloads.is_empty() && interfaces.is_empty() {
        return None;
    }
    let close = |contents: &Contents| {
        let mut contents = contents.clone();
        contents.policies.insert(CLOSED, Policy { mode: mode::ENFORCE, table: UNKNOWN_TABLE });
        // A cgroup without an entry has its parent's policy, so each gets one.
        contents.workloads.extend(workloads.iter().map(|id| (*id, CLOSED)));
        // An interface that isn't known is denied altogether.
        for index in &interfaces {
            if let Some(port) = contents.pod_interfaces.get_mut(index) {
                port.policy = CLOSED;
            }
        }
        contents
    };
    Some((close(old), close(new)))
}

/// From the old contents to those with everybody closed.
pub(super) fn close(old: &Contents, closed: &Contents) -> Vec<Op> {
    let policy = rules(closed, CLOSED);
    let first = (rules(old, CLOSED) != policy).then_some(Op::Policy(CLOSED, policy));
    first.into_iter().chain(assignments(old, closed)).collect()
}

/// From everybody closed to the new contents.
pub(super) fn open(closed: &Contents, new: &Contents) -> Vec<Op> {
    let mut ops = assignments(closed, new);
    let policy = rules(new, CLOSED);
    ops.extend((rules(closed, CLOSED) != policy).then_some(Op::Policy(CLOSED, policy)));
    ops
}

/// Who has which policy.
fn assignments(from: &Contents, to: &Contents) -> Vec<Op> {
    let mut ops = Vec::new();
    differences(&from.workloads, &to.workloads, |id, _, after| {
        ops.push(Op::Workload(match after {
            Some(policy) => Change::Put(*id, *policy),
            None => Change::Remove(*id),
        }));
    });
    differences(&from.pod_interfaces, &to.pod_interfaces, |index, _, after| {
        ops.push(Op::PodInterface(match after {
            Some(port) => Change::Put(*index, *port),
            None => Change::Remove(*index),
        }));
    });
    ops
}
