//! Which program a process runs, for events of system calls.

use std::{
    collections::HashMap,
    fmt::Display,
    fs,
    hash::Hash,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    bpf::cgroup_path,
    pods::{PodCgroup, unified_path},
    telemetry::cut,
};

/// Paths of cgroups that are remembered.
const REMEMBERED: usize = 4096;
/// Processes of a cgroup whose programs are asked for within one second.
const PROCESSES: usize = 64;
/// A path may have 4096 bytes, which the workload chooses.
const PATH_BYTES: usize = 255;

/// The programs of processes that made events within one second, each asked for once, and of a cgroup's at most
/// [`PROCESSES`]: whoever floods with events must not keep the agent busy with them.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Since the Unix epoch.
    second: u64,
    /// By cgroup, and in it by process.
    known: HashMap<u64, HashMap<u32, Option<String>>>,
}

impl Programs {
    /// The program of a process in the cgroup of this number and path, at the time of its event.
    pub(super) fn of(&mut self, at: SystemTime, pid: u32, cgroup: (u64, &str)) -> Option<String> {
        let second = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.known.clear();
            self.second = second;
        }
        let (id, path) = cgroup;
        let known = self.known.entry(id).or_default();
        match known.get(&pid) {
            Some(program) => program.clone(),
            None if known.len() >= PROCESSES => None,
            None => known.entry(pid).or_insert_with(|| executable(pid, path)).clone(),
        }
    }
}

/// The paths of cgroups by their numbers. Looking one up walks the file system, so it is done once.
#[derive(Debug, Default)]
pub(super) struct CgroupPaths(pub(super) HashMap<u64, Arc<str>>);

impl CgroupPaths {
    /// The path below the cgroup2 mount. What is gone keeps its number as its name.
    pub(super) fn of(&mut self, id: u64) -> Arc<str> {
        remembered(&mut self.0, id, |id| cgroup_path(id).map(|path| path.display().to_string()))
    }
}

/// Looking a name up walks the file system or asks the kernel, so it is done once. What is gone
/// keeps its number as its name.
pub(super) fn remembered<K: Copy + Eq + Hash + Display>(
    names: &mut HashMap<K, Arc<str>>,
    key: K,
    find: impl FnOnce(K) -> Option<String>,
) -> Arc<str> {
    if let Some(name) = names.get(&key) {
        return Arc::clone(name);
    }
    // A number is not given to another one, so what is gone stays gone.
    let name = find(key).unwrap_or_else(|| format!("#{key}"));
    if names.len() >= REMEMBERED {
        names.clear();
    }
    let name: Arc<str> = name.into();
    names.insert(key, Arc::clone(&name));
    name
}

/// The container that a cgroup is of, if it is one of a pod's.
pub(super) fn container_of(cgroup: &str) -> Option<String> {
    let container = PodCgroup::parse(Path::new(cgroup))?.container?;
    Some(container.as_str().to_owned())
}

/// The program of a process (`/proc/<pid>/exe`), where the process is in this cgroup. `None` where it has
/// ended already, or where this agent sees another PID namespace than the kernel's first.
fn executable(pid: u32, cgroup: &str) -> Option<String> {
    let process = Path::new("/proc").join(pid.to_string());
    let program = fs::read_link(process.join("exe")).ok()?;
    // Asked afterwards: a number that was given to another process meanwhile leads to another cgroup, or
    // to a process of the same workload.
    let text = fs::read_to_string(process.join("cgroup")).ok()?;
    let found = unified_path(&text)?;
    is_same(Path::new(cgroup), found).then(|| cut(&program.to_string_lossy(), PATH_BYTES))
}

/// Whether both are one cgroup. An agent in a cgroup namespace of its own sees other cgroups' paths from
/// its own root, with `/..` for each level up (cgroup_namespaces(7)): then what follows is compared.
fn is_same(cgroup: &Path, found: &Path) -> bool {
    if !found.components().any(|part| part == Component::ParentDir) {
        return cgroup == found;
    }
    let below = found.components().filter(|part| matches!(part, Component::Normal(_)));
    let below: PathBuf = below.collect();
    below.file_name().is_some() && cgroup.ends_with(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_recognised_from_another_namespace_too() {
        let same = |cgroup: &str, found: &str| is_same(Path::new(cgroup), Path::new(found));
        assert!(same("/kubepods/poda/x", "/kubepods/poda/x"));
        assert!(same("/kubepods/poda/x", "/../../poda/x"));
        assert!(same("/", "/"));
        for (cgroup, found) in [
            ("/kubepods/poda/x", "/kubepods/poda"),
            ("/kubepods/poda/x", "/poda/x"),
            ("/kubepods/poda/x", "/../../podb/x"),
            ("/kubepods/poda/x", "/../.."),
            ("/kubepods/poda/x", "/"),
        ] {
            assert!(!same(cgroup, found), "{cgroup} {found}");
        }
    }

    #[test]
    fn a_process_is_asked_for_once_a_second() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = unified_path(&own).unwrap().display().to_string();
        let (mut programs, at) = (Programs::default(), UNIX_EPOCH);
        let pid = std::process::id();
        let program = programs.of(at, pid, (7, &own));
        assert!(program.is_some());
        assert_eq!(programs.of(at, pid, (7, "/elsewhere")), program, "it is known");
        assert_eq!(programs.of(at, pid, (8, "/elsewhere")), None);
        let later = at + std::time::Duration::from_secs(1);
        assert_eq!(programs.of(later, pid, (7, "/elsewhere")), None);
    }

    /// One cgroup's flood of processes takes no other cgroup's names.
    #[test]
    fn a_cgroup_has_a_share_of_the_programs_that_are_asked_for() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = unified_path(&own).unwrap().display().to_string();
        let (mut programs, at) = (Programs::default(), UNIX_EPOCH);
        let pid = std::process::id();
        for ended in 0..PROCESSES {
            let ended = (1 << 22) + 1 + u32::try_from(ended).unwrap();
            assert_eq!(programs.of(at, ended, (7, &own)), None);
        }
        assert_eq!(programs.of(at, pid, (7, &own)), None, "the share is used up");
        assert!(programs.of(at, pid, (8, &own)).is_some());
        assert!(programs.of(at + std::time::Duration::from_secs(1), pid, (7, &own)).is_some());
    }

    #[test]
    fn a_process_that_has_ended_has_no_program() {
        // Above the kernel's greatest number, PID_MAX_LIMIT.
        assert_eq!(executable((1 << 22) + 1, "/"), None);
    }
}
