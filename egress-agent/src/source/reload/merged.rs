//! The configuration with pods in it.

use std::sync::Arc;

use super::Loaded;
use crate::{policy::Snapshot, types::Workload};

/// The last snapshot with pods in it. It is made again only when something differs, so that whoever
/// compares snapshots by their address sees no news where there is none.
#[derive(Debug, Default)]
pub struct Merged(Option<LastMerge>);

/// What was merged, and what came of it.
#[derive(Debug)]
struct LastMerge {
    snapshot: Arc<Snapshot>,
    workloads: Vec<Arc<Workload>>,
    merged: Arc<Snapshot>,
}

impl Merged {
    /// The snapshot with these workloads besides its own.
    pub fn with(&mut self, snapshot: &Arc<Snapshot>, workloads: &[Arc<Workload>]) -> Arc<Snapshot> {
        if let Some(last) = &self.0
            && Arc::ptr_eq(&last.snapshot, snapshot)
            && last.workloads == workloads
        {
            return Arc::clone(&last.merged);
        }
        let merged = if workloads.is_empty() {
            Arc::clone(snapshot)
        } else {
            let mut merged = Snapshot::clone(snapshot);
            merged.mesh.workloads.extend(workloads.iter().cloned());
            Arc::new(merged)
        };
        self.0 = Some(LastMerge {
            snapshot: Arc::clone(snapshot),
            workloads: workloads.to_vec(),
            merged: Arc::clone(&merged),
        });
        merged
    }
}

impl Loaded {
    /// Whether nothing differs from what is loaded, with this snapshot.
    pub fn is_same(&self, loaded: &Self, snapshot: Option<&Arc<Snapshot>>) -> bool {
        let same = match (&self.snapshot, snapshot) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        let read = match (&self.last, &loaded.last) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        same && read && self.accepted == loaded.accepted && self.rejected == loaded.rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Namespace;

    #[test]
    fn a_snapshot_is_merged_again_only_when_something_differs() {
        let workload = |name: &str| {
            Arc::new(Workload {
                name: name.into(),
                namespace: Namespace("shop".into()),
                labels: Default::default(),
                addresses: Vec::new(),
                cgroups: Vec::new(),
                interface: None,
                node: None,
                service_account: "default".into(),
            })
        };
        let (mut merged, snapshot) = (Merged::default(), Arc::new(Snapshot::default()));
        assert!(Arc::ptr_eq(&merged.with(&snapshot, &[]), &snapshot));
        let first = merged.with(&snapshot, &[workload("web")]);
        assert_eq!(first.mesh.workloads.len(), 1);
        assert!(Arc::ptr_eq(&merged.with(&snapshot, &[workload("web")]), &first));
        let second = merged.with(&snapshot, &[workload("api")]);
        assert_eq!(&*second.mesh.workloads[0].name, "api");
        let other = merged.with(&Arc::new(Snapshot::default()), &[workload("api")]);
        assert!(!Arc::ptr_eq(&other, &second));
    }
}
