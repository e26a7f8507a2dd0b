//! Which sets of workloads are in which mode, as the kernel has it, and reminders of audit mode in the log: whenever
//! it changes, and again and again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use egress_ebpf::{
    abi::{OWN_POLICY, Policy, PolicyId, UNKNOWN_POLICY},
    verdict::Mode,
};
use tokio::{sync::watch, time::Instant};

use crate::policy::{DEFAULT_SET, Snapshot};

/// Between two reminders.
const REMINDER: Duration = Duration::from_secs(600);

/// Workloads that are not known yet, instead of a set's name, which has no spaces. They are listed where they
/// are not under enforcement.
const UNKNOWN_WORKLOADS: &str = "unknown workloads";

/// A set and how verdicts on it are carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SetMode {
    /// The set's name; of a policy that an earlier agent left, its number.
    pub name: Arc<str>,
    /// The mode, read from the map.
    pub mode: Mode,
}

/// All modes in force.
pub(crate) type Modes = Vec<SetMode>;

/// The name of a mode in metrics and the log.
pub(crate) const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
        Mode::AuditRedirect => "audit_redirect",
        Mode::Exempt => "exempt",
    }
}

/// Publishes the modes, and says which of them let pass what should not.
pub(crate) struct AuditReminder {
    modes: watch::Sender<Modes>,
    reminded: Option<Instant>,
}

impl AuditReminder {
    pub(crate) fn new() -> (Self, watch::Receiver<Modes>) {
        let (modes, receiver) = watch::channel(Modes::new());
        (Self { modes, reminded: None }, receiver)
    }

    /// Takes note of what is in force now.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        snapshot: Option<&Snapshot>,
        policies: &BTreeMap<PolicyId, Policy>,
    ) {
        let modes = in_force(snapshot, policies);
        let lenient = lenient(&modes);
        let changed = self.modes.send_if_modified(|old| {
            let changed = *old != modes;
            *old = modes;
            changed
        });
        let due = self.reminded.is_none_or(|last| now.duration_since(last) >= REMINDER);
        match lenient {
            Some(sets) if changed || due => {
                tracing::warn!("not enforced: {sets}; what should be refused there passes");
                self.reminded = Some(now);
            }
            Some(_) => {}
            None => {
                if self.reminded.take().is_some() {
                    tracing::info!("every set of workloads is enforced on");
                }
            }
        }
    }
}

/// The sets of the snapshot with the modes of the map, and whatever else the map doesn't enforce.
fn in_force(snapshot: Option<&Snapshot>, policies: &BTreeMap<PolicyId, Policy>) -> Modes {
    let of = |id| policies.get(&id).map_or(Mode::Enforce, |policy| Mode::from_raw(policy.mode));
    let names: Vec<Arc<str>> = match snapshot {
        Some(snapshot) => snapshot.mesh.sets().map(|set| set.name.into()).collect(),
        None => vec![DEFAULT_SET.into()],
    };
    let known = PolicyId::try_from(names.len()).unwrap_or(PolicyId::MAX);
    // The agent's own is no set of workloads.
    let others = policies.keys().filter(|id| **id >= known && **id != OWN_POLICY);
    let others = others.filter(|id| of(**id) != Mode::Enforce);
    let name_of = |id| match id {
        UNKNOWN_POLICY => UNKNOWN_WORKLOADS.into(),
        id => format!("policy {id}").into(),
    };
    let others = others.map(|id| SetMode { name: name_of(*id), mode: of(*id) });
    let sets = names.into_iter().zip(0..).map(|(name, id)| SetMode { name, mode: of(id) });
    sets.chain(others).collect()
}

/// `audit: batch, jobs`, where anything isn't enforced.
fn lenient(modes: &[SetMode]) -> Option<String> {
    let of = |mode: Mode| {
        let names: Vec<&str> =
            modes.iter().filter(|set| set.mode == mode).map(|set| &*set.name).collect();
        (!names.is_empty()).then(|| format!("{}: {}", name(mode), names.join(", ")))
    };
    let lenient = [Mode::Audit, Mode::AuditRedirect, Mode::Exempt];
    let parts: Vec<String> = lenient.into_iter().filter_map(of).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use egress_ebpf::abi::mode;

    use super::*;
    use crate::policy::{Enforcement, EnforcementOverride};

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.mesh.overrides = vec![EnforcementOverride {
            name: "batch".into(),
            selector: Default::default(),
            mode: Enforcement::Audit,
        }];
        snapshot
    }

    fn policies(modes: &[u32]) -> BTreeMap<PolicyId, Policy> {
        (0..).zip(modes.iter().map(|mode| Policy { mode: *mode, table: 0 })).collect()
    }

    fn shown(snapshot: Option<&Snapshot>, modes: &[u32]) -> Vec<(String, &'static str)> {
        let modes = in_force(snapshot, &policies(modes));
        modes.into_iter().map(|set| (set.name.to_string(), name(set.mode))).collect()
    }

    #[test]
    fn the_kernels_word_counts() {
        let all = |list: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
            list.iter().map(|(name, mode)| ((*name).into(), *mode)).collect()
        };
        let snapshot = snapshot();
        let both = all(&[("default", "enforce"), ("batch", "audit")]);
        assert_eq!(shown(Some(&snapshot), &[mode::ENFORCE, mode::AUDIT]), both);
        // Not in the map yet: enforced.
        let none = all(&[("default", "enforce"), ("batch", "enforce")]);
        assert_eq!(shown(Some(&snapshot), &[]), none);
        assert_eq!(shown(Some(&snapshot), &[mode::ENFORCE, 77]), none, "an unknown number");
        // What an earlier agent left, before there is a configuration.
        let left = all(&[
            ("default", "audit"),
            ("policy 2", "audit"),
            ("policy 3", "exempt"),
            ("policy 4", "audit_redirect"),
        ]);
        assert_eq!(
            shown(
                None,
                &[mode::AUDIT, mode::ENFORCE, mode::AUDIT, mode::EXEMPT, mode::AUDIT_REDIRECT]
            ),
            left
        );
        // Workloads that are not known have no set.
        let unknown = |mode| {
            let policies =
                [(0, Policy { mode, table: 0 }), (UNKNOWN_POLICY, Policy { mode, table: 1 })];
            in_force(None, &policies.into()).into_iter().map(|set| set.name.to_string()).collect()
        };
        let names: Vec<String> = unknown(mode::AUDIT);
        assert_eq!(names, ["default", "unknown workloads"]);
        let names: Vec<String> = unknown(mode::ENFORCE);
        assert_eq!(names, ["default"]);
    }

    #[test]
    fn only_what_is_not_enforced_is_shouted() {
        let modes = |of: &[u32]| in_force(Some(&snapshot()), &policies(of));
        assert_eq!(lenient(&modes(&[0, 0])), None);
        assert_eq!(lenient(&modes(&[mode::AUDIT, mode::AUDIT])).unwrap(), "audit: default, batch");
        let mixed = lenient(&modes(&[mode::AUDIT_REDIRECT, mode::AUDIT])).unwrap();
        assert_eq!(mixed, "audit: batch; audit_redirect: default");
    }

    #[tokio::test]
    async fn a_reminder_is_due_every_ten_minutes_and_no_sooner() {
        let (mut shout, receiver) = AuditReminder::new();
        let (snapshot, start) = (snapshot(), Instant::now());
        let mut at = |seconds, modes: &[u32]| {
            let now = start + Duration::from_secs(seconds);
            shout.hear(now, Some(&snapshot), &policies(modes));
            shout.reminded.map(|last| last.duration_since(start).as_secs())
        };
        assert_eq!(at(0, &[0, mode::AUDIT]), Some(0));
        assert_eq!(at(599, &[0, mode::AUDIT]), Some(0));
        assert_eq!(at(600, &[0, mode::AUDIT]), Some(600));
        assert_eq!(at(601, &[mode::AUDIT, mode::AUDIT]), Some(601), "a change is said at once");
        assert_eq!(at(602, &[0, 0]), None);
        assert_eq!(at(603, &[0, mode::AUDIT]), Some(603));
        assert_eq!(receiver.borrow().len(), 2);
    }
}
