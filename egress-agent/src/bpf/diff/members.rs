//! Which workloads and pods get another policy, and when.

use egress_ebpf::abi::{PodPort, PolicyId, UNKNOWN_TABLE};

use super::change::{Change, differences, is_strict};
use crate::bpf::plan::Contents;

/// Whether a policy is one of workloads that are not known, which have no routes.
fn is_unknown(contents: &Contents, policy: PolicyId) -> bool {
    contents.policies.get(&policy).is_some_and(|policy| policy.table == UNKNOWN_TABLE)
}

/// Whether cgroups may get routes that they had not: where one had a policy of unknown workloads, so may
/// those below it.
fn has_unknown(old: &Contents) -> bool {
    old.workloads.values().any(|policy| is_unknown(old, *policy))
}

/// Changes of cgroups.
#[derive(Default)]
pub(super) struct WorkloadChanges {
    /// To a policy of unknown workloads that enforces.
    pub(super) secluded: Vec<Change<u64, PolicyId>>,
    /// To another one that enforces.
    pub(super) strict_puts: Vec<Change<u64, PolicyId>>,
    pub(super) lenient_puts: Vec<Change<u64, PolicyId>>,
    pub(super) lenient_removes: Vec<Change<u64, PolicyId>>,
    /// To a policy that enforces, and may have routes that the cgroup had not.
    pub(super) opening: Vec<Change<u64, PolicyId>>,
    pub(super) strict_removes: Vec<Change<u64, PolicyId>>,
}

/// A policy of unknown workloads that enforces, which a cgroup gets that loses its own: what is above it
/// may have that.
fn strictly_unknown(new: &Contents) -> Option<PolicyId> {
    let mut policies = new.workloads.values().copied();
    policies.find(|policy| is_unknown(new, *policy) && is_strict(new, *policy))
}

pub(super) fn workloads(old: &Contents, new: &Contents) -> WorkloadChanges {
    let mut changes = WorkloadChanges::default();
    let (opens, unknown) = (has_unknown(old), strictly_unknown(new));
    differences(&old.workloads, &new.workloads, |id, before, after| match (before, after) {
        (_, Some(policy)) if is_strict(new, *policy) => {
            let changes = if is_unknown(new, *policy) {
                &mut changes.secluded
            } else if opens && before.is_none_or(|policy| is_strict(old, *policy)) {
                &mut changes.opening
            } else {
                &mut changes.strict_puts
            };
            changes.push(Change::Put(*id, *policy));
        }
        (_, Some(policy)) => changes.lenient_puts.push(Change::Put(*id, *policy)),
        (Some(policy), None) if is_strict(old, *policy) => {
            let secluded = unknown.filter(|_| !is_unknown(old, *policy));
            changes.secluded.extend(secluded.map(|policy| Change::Put(*id, policy)));
            changes.strict_removes.push(Change::Remove(*id));
        }
        (Some(_), None) => changes.lenient_removes.push(Change::Remove(*id)),
        (None, None) => {}
    });
    changes
}

/// Changes of pods' interfaces.
#[derive(Default)]
pub(super) struct InterfaceChanges {
    /// Of listed ones, to a policy of unknown workloads that enforces.
    pub(super) secluded: Vec<Change<u32, PodPort>>,
    /// An interface that isn't listed is denied.
    pub(super) removes: Vec<Change<u32, PodPort>>,
    /// Of listed ones, to another policy that enforces and has no routes that the old one had not.
    pub(super) strict_moves: Vec<Change<u32, PodPort>>,
    pub(super) puts: Vec<Change<u32, PodPort>>,
}

pub(super) fn interfaces(old: &Contents, new: &Contents) -> InterfaceChanges {
    let mut changes = InterfaceChanges::default();
    differences(&old.pod_interfaces, &new.pod_interfaces, |index, before, after| {
        match (before, after) {
            (Some(_), Some(port))
                if is_strict(new, port.policy) && is_unknown(new, port.policy) =>
            {
                changes.secluded.push(Change::Put(*index, *port));
            }
            (Some(before), Some(port))
                if is_strict(new, port.policy) && !is_unknown(old, before.policy) =>
            {
                changes.strict_moves.push(Change::Put(*index, *port));
            }
            (_, Some(port)) => changes.puts.push(Change::Put(*index, *port)),
            (_, None) => changes.removes.push(Change::Remove(*index)),
        }
    });
    changes
}
