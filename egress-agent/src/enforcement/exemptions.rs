//! All that is exempt from enforcement on this node, in one list: the agent itself, and what `exemptions` of the
//! settings names. Nothing else is.

use std::{collections::BTreeMap, path::PathBuf};

use super::own::OwnCgroup;
use crate::{bpf::Contents, policy::Snapshot};

/// What is exempt, and what was logged of it.
#[derive(Debug, Default)]
pub(crate) struct Exemptions {
    own: OwnCgroup,
    told: Vec<String>,
}

impl Exemptions {
    /// Looks for the agent's own cgroup below these.
    pub(crate) fn find(enforced: &BTreeMap<u64, PathBuf>) -> Self {
        Self { own: OwnCgroup::find(enforced), told: Vec::new() }
    }

    /// Exempts the agent itself. Exemptions of the settings are policies of their own already.
    pub(crate) fn exempt(&self, contents: &mut Contents) {
        self.own.exempt(contents);
    }

    /// All of them, a sentence each; logs what is new, and what is gone.
    pub(crate) fn changes(&mut self, snapshot: Option<&Snapshot>) -> Vec<String> {
        let now = self.list(snapshot);
        for one in now.iter().filter(|one| !self.told.contains(one)) {
            tracing::info!("exempt from enforcement: {one}");
        }
        for one in self.told.iter().filter(|one| !now.contains(one)) {
            tracing::info!("no longer exempt from enforcement: {one}");
        }
        self.told.clone_from(&now);
        now
    }

    fn list(&self, snapshot: Option<&Snapshot>) -> Vec<String> {
        let configured = snapshot.iter().flat_map(|snapshot| &snapshot.mesh.exemptions);
        self.own.sentence().into_iter().chain(configured.map(ToString::to_string)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Exemption;

    #[test]
    fn all_are_listed_as_long_as_they_hold() {
        let mut exemptions = Exemptions::default();
        assert_eq!(exemptions.changes(None), Vec::<String>::new());
        let mut snapshot = Snapshot::default();
        snapshot.mesh.exemptions.push(Exemption {
            name: "cni".into(),
            selector: Default::default(),
            service_accounts: vec!["cni".into()],
            to: None,
        });
        let told = exemptions.changes(Some(&snapshot));
        assert!(told.len() == 1 && told[0].starts_with("cni ("), "{told:?}");
        assert_eq!(exemptions.told, told);
        assert_eq!(exemptions.changes(Some(&Snapshot::default())), Vec::<String>::new());
        assert_eq!(exemptions.told, Vec::<String>::new());
    }
}
