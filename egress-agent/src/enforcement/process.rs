//! Which program a process runs, for events of system calls.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{pods::unified_path, telemetry::cut};

/// A path may have 4096 bytes, which the workload chooses.
const PATH_BYTES: usize = 255;

/// The programs of processes that made events within one second, each asked for once: whoever floods with events
/// must not keep the agent busy with them.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Since the Unix epoch.
    second: u64,
    known: HashMap<(u32, u64), Option<String>>,
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
        self.known.entry((pid, id)).or_insert_with(|| executable(pid, path)).clone()
    }
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

    #[test]
    fn a_process_that_has_ended_has_no_program() {
        // Above the kernel's greatest number, PID_MAX_LIMIT.
        assert_eq!(executable((1 << 22) + 1, "/"), None);
    }
}
