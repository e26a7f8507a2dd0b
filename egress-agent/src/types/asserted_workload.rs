//! Whom a tunnel's client says it speaks for.

use std::sync::Arc;

use super::{Namespace, Workload};

/// What the `baggage` of a tunnelled connection says of the workload that it is from. Nothing of it
/// is proven: the gateway accepts it only from a client that may speak for that workload.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AssertedWorkload {
    /// The cluster, where it is named.
    pub cluster: Option<Arc<str>>,
    /// The workload's namespace.
    pub namespace: Namespace,
    /// The workload's name.
    pub name: Arc<str>,
    /// Its service account, where it is named.
    pub service_account: Option<Arc<str>>,
}

impl AssertedWorkload {
    /// What a node says of a workload of its own.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        Self {
            cluster: None,
            namespace: workload.namespace.clone(),
            name: Arc::clone(&workload.name),
            service_account: Some(Arc::clone(&workload.service_account)),
        }
    }

    /// Whether it is about this workload.
    #[must_use]
    pub fn is_about(&self, workload: &Workload) -> bool {
        let Self { cluster: _, namespace, name, service_account } = self;
        let account = service_account.as_ref();
        *namespace == workload.namespace
            && *name == workload.name
            && account.is_none_or(|account| *account == workload.service_account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DEFAULT_SERVICE_ACCOUNT, Labels};

    #[test]
    fn a_claim_is_about_one_workload() {
        let workload = Workload {
            name: "sleep".into(),
            namespace: Namespace("apps".into()),
            labels: Labels::new(),
            addresses: Vec::new(),
            cgroups: Vec::new(),
            interface: None,
            node: None,
            service_account: DEFAULT_SERVICE_ACCOUNT.into(),
        };
        let claim = AssertedWorkload::of(&workload);
        assert!(claim.is_about(&workload));
        assert!(AssertedWorkload { service_account: None, ..claim.clone() }.is_about(&workload));
        for other in [
            AssertedWorkload { namespace: Namespace("other".into()), ..claim.clone() },
            AssertedWorkload { name: "curl".into(), ..claim.clone() },
            AssertedWorkload { service_account: Some("admin".into()), ..claim },
        ] {
            assert!(!other.is_about(&workload), "{other:?}");
        }
    }
}
