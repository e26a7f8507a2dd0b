//! Which pod's interface a cgroup's processes are behind, for events that have a cgroup and no
//! interface: a system call is judged before there is a packet.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{bpf::cgroup2_mount, sys::netlink::namespaces};

/// Cgroups that are remembered.
const REMEMBERED: usize = 4096;
/// Processes of a cgroup that are asked; the first ones may have ended.
const ASKED: usize = 8;
/// For how long an answer holds. A cgroup's processes may come and go.
const FRESH: Duration = Duration::from_secs(10);
/// The same, where nothing was found.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What was found, by cgroup.
#[derive(Debug, Default)]
pub(crate) struct InterfacesByCgroup(HashMap<u64, (Instant, Option<Arc<str>>)>);

impl InterfacesByCgroup {
    /// The name of the interface, `None` where it isn't known: on the host's network, or where the
    /// processes have ended.
    pub(crate) fn interface(&mut self, id: u64, path: &str) -> Option<Arc<str>> {
        self.interface_at(id, Instant::now(), || find(path))
    }

    fn interface_at(
        &mut self,
        id: u64,
        now: Instant,
        find: impl FnOnce() -> Option<String>,
    ) -> Option<Arc<str>> {
        if let Some((at, found)) = self.0.get(&id) {
            let limit = if found.is_some() { FRESH } else { UNKNOWN };
            if now.duration_since(*at) < limit {
                return found.clone();
            }
        }
        let earlier = self.0.get(&id).and_then(|(_, found)| found.clone());
        // The processes that told have ended; the cgroup is the same.
        let found = find().map(Arc::from).or(earlier);
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(id, (now, found.clone()));
        found
    }
}

/// By the network namespace of one of the cgroup's processes, and the kernel's number for it.
fn find(path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?;
    let processes = fs::read_to_string(cgroup2_mount()?.join(path).join("cgroup.procs")).ok()?;
    let number = processes.lines().take(ASKED).find_map(|pid| {
        let namespace = File::open(Path::new("/proc").join(pid).join("ns/net")).ok()?;
        namespaces::number_of(&namespace).ok()?
    })?;
    namespaces::interface_into(number).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_a_while_and_outlives_its_processes() {
        let (mut behind, start) = (InterfacesByCgroup::default(), Instant::now());
        let mut ask = |after: u64, found: Option<&str>| {
            let now = start + Duration::from_secs(after);
            let mut asked = false;
            let answer = behind.interface_at(7, now, || {
                asked = true;
                found.map(str::to_owned)
            });
            (answer.as_deref().map(str::to_owned), asked)
        };
        assert_eq!(ask(0, None), (None, true));
        assert_eq!(ask(0, Some("pod0")), (None, false));
        assert_eq!(ask(2, Some("pod0")), (Some("pod0".into()), true));
        assert_eq!(ask(3, Some("pod1")), (Some("pod0".into()), false));
        assert_eq!(ask(20, None), (Some("pod0".into()), true));
        assert_eq!(ask(40, Some("pod1")), (Some("pod1".into()), true));
    }

    #[test]
    fn a_process_on_the_hosts_network_is_behind_none() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert_eq!(find(own), None);
        assert_eq!(find("/no/such/cgroup"), None);
    }
}
