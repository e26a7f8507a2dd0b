//! The agent's own cgroup, where the agent is a pod. Below a cgroup under enforcement the agent would
//! refuse itself the gateways' health and their tunnels, and an API server outside of the cluster.
//!
//! It is found by this process's number in `cgroup.procs`, which the kernel writes, so no other cgroup can
//! pass for it. It is the container's cgroup, not the pod's: nothing else in the pod is exempt.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

use egress_ebpf::abi::{OWN_POLICY, Policy, mode};

use crate::{
    bpf::{Contents, cgroup2_mount},
    types::printable,
};

/// Cgroups that are looked at.
const MOST: usize = 65_536;

/// The agent's own cgroup, where it is below one that is under enforcement: its id, and its path.
#[derive(Debug, Default)]
pub(crate) struct OwnCgroup(Option<(u64, String)>);

impl OwnCgroup {
    /// Looks below these, whose paths are below the mount.
    pub(crate) fn find(enforced: &BTreeMap<u64, PathBuf>) -> Self {
        let Some(mount) = cgroup2_mount() else { return Self::default() };
        let roots =
            enforced.values().map(|path| mount.join(path.strip_prefix("/").unwrap_or(path)));
        let Some((id, path)) = holder(process::id(), roots.collect()) else {
            return Self::default();
        };
        let path = path.strip_prefix(&mount).unwrap_or(&path).display().to_string();
        Self(Some((id, path)))
    }

    /// What is exempt.
    pub(crate) fn sentence(&self) -> Option<String> {
        let (_, path) = self.0.as_ref()?;
        Some(format!("this agent's own cgroup /{}", printable(path)))
    }

    /// Exempts it. A set of workloads that has the number already keeps it: then nothing is exempt.
    pub(crate) fn exempt(&self, contents: &mut Contents) {
        let exempt = Policy { mode: mode::EXEMPT, table: 0 };
        let Some((id, _)) = self.0 else { return };
        // What an earlier agent left has its exemption in it.
        if *contents.policies.entry(OWN_POLICY).or_insert(exempt) == exempt {
            contents.workloads.retain(|_, policy| *policy != OWN_POLICY);
            contents.workloads.insert(id, OWN_POLICY);
        }
    }
}

/// The cgroup at or below these that holds the process, with its id.
fn holder(process: u32, mut left: Vec<PathBuf>) -> Option<(u64, PathBuf)> {
    for _ in 0..MOST {
        let directory = left.pop()?;
        if holds(&directory, process) {
            return Some((fs::metadata(&directory).ok()?.ino(), directory));
        }
        let children = fs::read_dir(&directory).into_iter().flatten().flatten();
        let directories =
            children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(directories.map(|child| child.path()));
    }
    tracing::warn!("more than {MOST} cgroups; this agent's own is not found, and not exempt");
    None
}

/// Processes of another process namespace are listed as 0.
fn holds(directory: &Path, process: u32) -> bool {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    listed.lines().any(|line| line.parse() == Ok(process))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn tree() -> TempDir {
        let tree = TempDir::new().unwrap();
        for (path, processes) in
            [("pod1/agent", "0\n41\n"), ("pod1/other", "42\n"), ("pod2/web", "411\n")]
        {
            fs::create_dir_all(tree.path().join(path)).unwrap();
            fs::write(tree.path().join(path).join("cgroup.procs"), processes).unwrap();
        }
        tree
    }

    #[test]
    fn the_container_is_found_and_neither_its_pod_nor_its_neighbours() {
        let tree = tree();
        let found = |process| holder(process, vec![tree.path().to_owned()]).map(|(_, path)| path);
        assert_eq!(found(41), Some(tree.path().join("pod1/agent")));
        assert_eq!(found(42), Some(tree.path().join("pod1/other")));
        assert_eq!(found(4), None, "numbers are compared as a whole");
        assert_eq!(holder(41, vec![tree.path().join("pod2")]), None);
    }

    #[test]
    fn one_cgroup_is_exempt_and_an_earlier_agents_is_not_any_more() {
        let (web, earlier, own) = (7, 8, 9);
        let workloads = [(web, 0), (earlier, OWN_POLICY)].into();
        let mut contents = Contents { workloads, ..Contents::default() };
        OwnCgroup(Some((own, "pod/agent".into()))).exempt(&mut contents);
        assert_eq!(contents.workloads, [(web, 0), (own, OWN_POLICY)].into());
        assert_eq!(contents.policies[&OWN_POLICY].mode, mode::EXEMPT);
        assert!(!contents.policies.contains_key(&0), "nobody else's policy is changed");
    }

    #[test]
    fn an_agent_on_the_host_exempts_nothing() {
        let mut contents = Contents::default();
        OwnCgroup(None).exempt(&mut contents);
        assert_eq!(contents, Contents::default());
    }

    #[test]
    fn a_set_with_its_number_stays_as_it_is() {
        let enforced = Policy { mode: mode::ENFORCE, table: 0 };
        let mut contents = Contents::default();
        contents.policies.insert(OWN_POLICY, enforced);
        contents.workloads.insert(7, OWN_POLICY);
        let before = contents.clone();
        OwnCgroup(Some((9, "pod/agent".into()))).exempt(&mut contents);
        assert_eq!(contents, before);
    }
}
