//! A look at the processes of workloads: which capabilities they have, and in which namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Process, Processes};
use crate::{
    bpf::cgroup2_mount, enforcement::condition::Condition, policy::Snapshot, types::printable,
};

/// Between two looks. A process that comes and goes in between isn't seen.
const PAUSE: Duration = Duration::from_secs(5);
/// Cgroups and processes that a look takes time for. Whose are more are told as unseen.
const MOST: usize = 65_536;

/// Looks now and then, on a thread of its own: a node may have thousands of processes.
#[derive(Debug, Default)]
pub(crate) struct ExposureScanner {
    last: Option<Instant>,
    busy: Arc<AtomicBool>,
    confirmed: Arc<Mutex<ConfirmedExposures>>,
}

impl ExposureScanner {
    /// Begins a look, if it is time for one. `roots` are the enforced cgroups, below the mount.
    pub(crate) fn begin(
        &mut self,
        roots: &BTreeMap<u64, PathBuf>,
        snapshot: Option<&Arc<Snapshot>>,
        condition: &Arc<Condition>,
    ) {
        let due = self.last.is_none_or(|last| last.elapsed() >= PAUSE);
        if !due || self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        self.last = Some(Instant::now());
        let roots = roots.values().cloned().collect();
        let snapshot = snapshot.cloned();
        let (busy, condition) = (Arc::clone(&self.busy), Arc::clone(condition));
        let confirmed = Arc::clone(&self.confirmed);
        tokio::task::spawn_blocking(move || {
            let found = look(roots, snapshot.as_deref());
            let mut confirmed = confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            condition.set_processes(confirmed.after(found));
            busy.store(false, Ordering::Release);
        });
    }
}

/// What counts of what was seen. A container runtime starts a container with all capabilities in the pod's cgroup, and
/// takes them away before the container's own program runs. So what is new counts when the next look finds it too.
#[derive(Debug, Default)]
struct ConfirmedExposures {
    last: Option<Processes>,
}

impl ConfirmedExposures {
    /// What counts after this look. The first one counts as it is.
    fn after(&mut self, found: Processes) -> Processes {
        match self.last.replace(found.clone()) {
            None => found,
            Some(Processes { seen, unseen }) => Processes {
                seen: found.seen.intersection(&seen).cloned().collect(),
                unseen: found.unseen.intersection(&unseen).cloned().collect(),
            },
        }
    }
}

/// Looks at the processes of the enforced cgroups, and of those that workloads name. The agent's own cgroup is left out:
/// it is [exempt](super::super::own), and what it may do is what enforcement is made with.
fn look(roots: Vec<PathBuf>, snapshot: Option<&Snapshot>) -> Processes {
    let mut names: BTreeMap<&Path, String> = BTreeMap::new();
    for workload in snapshot.into_iter().flat_map(|snapshot| &snapshot.mesh.workloads) {
        let name = format!("{}/{}", workload.namespace.0, workload.name);
        names.extend(workload.cgroups.iter().map(|path| (path.as_path(), name.clone())));
    }
    let mut found = Processes::default();
    let Some(mount) = cgroup2_mount() else { return found };
    let node = Namespaces::of("self");
    let named = names.keys().map(|path| path.to_path_buf());
    let mut left: Vec<PathBuf> = roots.into_iter().chain(named).collect();
    let (mut seen, mut most) = (BTreeSet::new(), MOST);
    while let Some(path) = left.pop() {
        let below = path.strip_prefix("/").unwrap_or(&path);
        let directory = mount.join(below);
        let Ok(id) = fs::metadata(&directory) else { continue };
        if !seen.insert(id.ino()) {
            continue;
        }
        let workload = || {
            let known = path.ancestors().find_map(|above| names.get(above));
            known.cloned().unwrap_or_else(|| printable(&path.display().to_string()).into_owned())
        };
        let Some(rest) = most.checked_sub(1) else {
            found.unseen.insert(workload());
            continue;
        };
        most = rest;
        for process in others(processes(&directory), std::process::id()) {
            let Some(rest) = most.checked_sub(1) else {
                found.unseen.insert(workload());
                break;
            };
            most = rest;
            // It is of another process namespace than the agent's.
            if process == "0" {
                found.unseen.insert(workload());
                continue;
            }
            match inspect(&process, &node, workload) {
                Some(process) => drop(found.seen.insert(process)),
                // Most likely it has ended.
                None if fs::exists(format!("/proc/{process}/status")).unwrap_or(true) => {
                    found.unseen.insert(workload());
                }
                None => {}
            }
        }
        let children = fs::read_dir(&directory).into_iter().flatten().flatten();
        left.extend(
            children
                .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|child| path.join(child.file_name())),
        );
    }
    found
}

/// The processes of a cgroup; of a threaded one its threads, whose processes are elsewhere.
fn processes(directory: &Path) -> Vec<String> {
    let listed = fs::read_to_string(directory.join("cgroup.procs"))
        .or_else(|_| fs::read_to_string(directory.join("cgroup.threads")));
    listed.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The processes of a cgroup, if this one is not among them.
fn others(processes: Vec<String>, own: u32) -> Vec<String> {
    let is_own = processes.iter().any(|process| process.parse() == Ok(own));
    if is_own { Vec::new() } else { processes }
}

/// The namespaces of a process, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Namespaces {
    network: Option<u64>,
    processes: Option<u64>,
    users: Option<u64>,
}

impl Namespaces {
    fn of(process: &str) -> Self {
        let number = |kind: &str| {
            fs::metadata(format!("/proc/{process}/ns/{kind}")).ok().map(|file| file.ino())
        };
        Self { network: number("net"), processes: number("pid"), users: number("user") }
    }
}

/// `None` where it has ended, or can't be looked at. One that has ended and waits for its parent has
/// no namespaces, and does nothing any more.
fn inspect(process: &str, node: &Namespaces, workload: impl Fn() -> String) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let namespaces = Namespaces::of(process);
    if is_over(&status) {
        return Some(Process {
            workload: workload(),
            capabilities: 0,
            host_network: false,
            host_processes: false,
        });
    }
    let own_users = namespaces.users? != node.users?;
    Some(Process {
        workload: workload(),
        capabilities: if own_users { 0 } else { capabilities(&status)? },
        host_network: namespaces.network? == node.network?,
        host_processes: namespaces.processes? == node.processes?,
    })
}

/// Whether a process has ended and is still listed.
fn is_over(status: &str) -> bool {
    value(status, "State").is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// What a process has, and what a program that it starts could get: that is bounded by `CapBnd`,
/// unless it may gain nothing any more (`no_new_privs`).
fn capabilities(status: &str) -> Option<u64> {
    let set = |name| u64::from_str_radix(value(status, name)?, 16).ok();
    let has = set("CapInh")? | set("CapPrm")? | set("CapEff")? | set("CapAmb").unwrap_or(0);
    let gains = value(status, "NoNewPrivs") != Some("1");
    Some(if gains { has | set("CapBnd")? } else { has })
}

fn value<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsleep\nState:\tS (sleeping)\nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t00000000a80425fb\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";

    #[test]
    fn what_can_be_gained_counts() {
        assert_eq!(capabilities(STATUS), Some(0xa804_25fb));
        let fixed = STATUS.replace("NoNewPrivs:\t0", "NoNewPrivs:\t1");
        assert_eq!(capabilities(&fixed), Some(0x2000));
        assert_eq!(capabilities("Name:\tsleep\n"), None);
        assert!(!is_over(STATUS) && is_over(&STATUS.replace("S (sleeping)", "Z (zombie)")));
    }

    #[test]
    fn the_agents_own_cgroup_is_left_out_and_no_other() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(others(list("7 42 8"), 42), Vec::<String>::new());
        assert_eq!(others(list("7 420 8"), 42), list("7 420 8"));
        // Of another process namespace.
        assert_eq!(others(list("0 0"), 42), list("0 0"));
    }

    #[test]
    fn what_is_new_counts_when_it_is_seen_again() {
        let seen = |names: &[&str]| {
            let process = |name: &&str| Process {
                workload: (*name).to_owned(),
                capabilities: 1 << 21,
                host_network: false,
                host_processes: false,
            };
            let unseen = names.iter().map(|name| (*name).to_owned()).collect();
            Processes { seen: names.iter().map(process).collect(), unseen }
        };
        let mut confirmed = ConfirmedExposures::default();
        assert_eq!(confirmed.after(seen(&["old"])), seen(&["old"]), "there before the agent");
        // A container that starts: the runtime is in its cgroup for a moment.
        assert_eq!(confirmed.after(seen(&["old", "starts"])), seen(&["old"]));
        assert_eq!(confirmed.after(seen(&["old", "stays"])), seen(&["old"]));
        assert_eq!(confirmed.after(seen(&["old", "stays"])), seen(&["old", "stays"]));
        assert_eq!(
            confirmed.after(seen(&["stays"])),
            seen(&["stays"]),
            "what ends is gone at once"
        );
    }

    #[test]
    fn the_own_process_is_in_the_nodes_namespaces() {
        let node = Namespaces::of("self");
        let own = std::process::id().to_string();
        let seen = inspect(&own, &node, || "shop/web".into()).unwrap();
        assert!(seen.host_network && seen.host_processes);
        assert_eq!(seen.workload, "shop/web");
        let elsewhere = Namespaces { users: Some(1), network: Some(1), ..node };
        let seen = inspect(&own, &elsewhere, || "shop/web".into()).unwrap();
        assert_eq!((seen.capabilities, seen.host_network), (0, false));
        assert_eq!(inspect("0", &node, || "shop/web".into()), None);
    }
}
