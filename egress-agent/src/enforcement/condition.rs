//! What is wrong with the enforcement now, for those who ask: readiness and `status`. The main loop
//! tells; nothing here holds it up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::exposure::{Exposure, Processes, exposures};
use crate::{
    bpf::{Error, LsmGaps, PlanProblem, Target},
    source::Loaded,
};

/// Different errors of one attempt that are shown; a broken map can give thousands.
const MOST: usize = 8;

/// Shared by the main loop and the servers.
#[derive(Debug, Default)]
pub(crate) struct Condition(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    maps: Vec<String>,
    /// Named interfaces that are gone: a pod may delete its own, and nothing can pass one that isn't
    /// there. So they are reported, and readiness doesn't depend on them.
    gone: Vec<String>,
    attachments: Vec<String>,
    plan: Vec<String>,
    routes: Vec<String>,
    /// Interfaces whose pods are not known, a sentence each.
    unknown: Vec<String>,
    /// What is exempt, a sentence each.
    exemptions: Vec<String>,
    gaps: LsmGaps,
    processes: Processes,
    /// How often processes were looked at.
    looks: u64,
    /// Whether a configuration has been put into the maps since the start.
    filled: bool,
    /// Whether what ran before the first start is not under enforcement yet.
    waiting: bool,
}

impl Condition {
    /// The errors of the last attempt to bring the maps up to date; none if it succeeded.
    /// `configured`: to what a configuration says, rather than what an earlier agent left.
    pub(crate) fn set_maps(&self, errors: &[Error], configured: bool) {
        let told = summary(errors);
        let mut inner = self.lock();
        inner.filled |= configured && told.is_empty();
        inner.maps = told;
    }

    /// Interfaces and cgroups that are gone, and what went wrong at the last look at those that are there.
    pub(crate) fn set_attachments(&self, missing: &[Target], failures: &[String]) {
        let (gone, absent): (Vec<&Target>, Vec<&Target>) =
            missing.iter().partition(|target| matches!(target, Target::Interface(_)));
        let told = |target: &&Target| {
            format!("{target} is gone; the programs are attached when it comes back")
        };
        let mut inner = self.lock();
        inner.gone = gone.iter().map(told).collect();
        inner.attachments = absent.iter().map(told).chain(failures.iter().cloned()).collect();
    }

    /// What of the configuration can't be carried out.
    pub(crate) fn set_plan(&self, problems: &[PlanProblem]) {
        let told = problems.iter().map(ToString::to_string).collect();
        self.lock().plan = told;
    }

    /// What this kernel can't enforce.
    pub(crate) fn set_gaps(&self, gaps: LsmGaps) {
        self.lock().gaps = gaps;
    }

    /// What processes of workloads may do.
    pub(crate) fn set_processes(&self, processes: Processes) {
        let mut inner = self.lock();
        inner.looks += 1;
        if inner.processes == processes {
            return;
        }
        let before = exposures(&inner.gaps, &inner.processes);
        inner.processes = processes;
        let now = exposures(&inner.gaps, &inner.processes);
        drop(inner);
        for exposure in now.iter().filter(|exposure| !before.contains(exposure)) {
            tracing::warn!("exposed: {exposure}");
        }
    }

    /// How often processes were looked at.
    pub(crate) fn looks(&self) -> u64 {
        self.lock().looks
    }

    /// The promises that don't hold. They say nothing against readiness: what can be enforced is.
    pub(crate) fn exposures(&self) -> Vec<Exposure> {
        let inner = self.lock();
        exposures(&inner.gaps, &inner.processes)
    }

    /// What of the inside has no route of its own. What is new is logged.
    pub(crate) fn set_routes(&self, warnings: Vec<String>) {
        let mut inner = self.lock();
        for warning in warnings.iter().filter(|warning| !inner.routes.contains(warning)) {
            tracing::warn!("{warning}");
        }
        inner.routes = warnings;
    }

    /// Interfaces whose pods are not known, a sentence each. What is new is logged.
    pub(crate) fn set_unknown(&self, warnings: Vec<String>) {
        let mut inner = self.lock();
        for warning in warnings.iter().filter(|warning| !inner.unknown.contains(warning)) {
            tracing::warn!("{warning}");
        }
        inner.unknown = warnings;
    }

    /// Whether what ran before the first start is not under enforcement yet.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.lock().waiting = waiting;
    }

    /// Whether what ran before the first start is not under enforcement yet.
    pub(crate) fn waiting(&self) -> bool {
        self.lock().waiting
    }

    /// What is exempt from enforcement, a sentence each.
    pub(crate) fn set_exemptions(&self, exemptions: Vec<String>) {
        self.lock().exemptions = exemptions;
    }

    /// What is exempt from enforcement.
    pub(crate) fn exemptions(&self) -> Vec<String> {
        self.lock().exemptions.clone()
    }

    /// Interfaces whose pods are not known.
    pub(crate) fn unknown(&self) -> Vec<String> {
        self.lock().unknown.clone()
    }

    /// Why the node isn't ready: sentences, none if it is.
    pub(crate) fn unready(&self, loaded: &Loaded) -> Vec<String> {
        let inner = self.lock();
        let not_yet = match &loaded.snapshot {
            // What an earlier agent left is in force; without one everything is denied.
            None => Some("no configuration has been accepted yet".to_owned()),
            Some(_) if !inner.filled && inner.maps.is_empty() => {
                Some("the configuration isn't in the maps yet".to_owned())
            }
            Some(_) => None,
        };
        let waiting = inner
            .waiting
            .then(|| "what ran before the first start is not under enforcement yet".to_owned());
        let not_yet = not_yet.into_iter().chain(waiting);
        not_yet.chain(inner.maps.clone()).chain(inner.attachments.clone()).collect()
    }

    /// All that is wrong apart from the configuration.
    pub(crate) fn problems(&self) -> Vec<String> {
        let inner = self.lock();
        let all = [&inner.maps, &inner.gone, &inner.attachments, &inner.plan];
        all.into_iter().flatten().cloned().collect()
    }

    /// What to know of a node that does all it can.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let inner = self.lock();
        inner.routes.iter().chain(&inner.unknown).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sentence for each full map and each kind of error.
pub(crate) fn summary(errors: &[Error]) -> Vec<String> {
    let mut full: BTreeMap<&str, usize> = BTreeMap::new();
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for error in errors {
        match error.full_map() {
            Some(map) => *full.entry(map).or_default() += 1,
            None => *others.entry(error.to_string()).or_default() += 1,
        }
    }
    let more = others.len().saturating_sub(MOST);
    let full = full.into_iter().map(|(map, count)| {
        format!(
            "map {map} is full: {count} more entries don't fit. Nothing new is allowed until they \
             do: {}",
            remedy(map)
        )
    });
    let others = others.into_iter().take(MOST).map(|(error, count)| match count {
        1 => error,
        count => format!("{error} ({count} times)"),
    });
    let more = (more > 0).then(|| format!("and {more} other errors; see the agent's log"));
    full.chain(others).chain(more).collect()
}

/// What fills a map, and so what to shorten.
fn remedy(map: &str) -> &'static str {
    match map {
        "DENIED" => "shorten deniedCidrs in mesh.yaml, or join its prefixes",
        "INTERNAL" => "shorten clusterCidrs in mesh.yaml, or join its prefixes",
        "ROUTES" => "use fewer ServiceEntries with addresses, or wider ones",
        "GATEWAYS" => "name fewer gateways or ports",
        "POD_ADDRESSES" | "SLOTS" | "MOVED_SLOTS" | "WORKLOADS" => {
            "there are too many pods on this node"
        }
        _ => "see the agent's log",
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use aya::{maps::MapError, sys::SyscallError};

    use super::*;
    use crate::policy::Snapshot;

    fn refused(errno: i32) -> Error {
        let io_error = io::Error::from_raw_os_error(errno);
        let call = "bpf_map_update_elem";
        Error::Map { map: "DENIED", error: MapError::SyscallError(SyscallError { call, io_error }) }
    }

    #[test]
    fn thousands_of_errors_are_told_in_a_sentence() {
        const ENOSPC: i32 = 28;
        const EPERM: i32 = 1;
        let full: Vec<Error> = (0..3616).map(|_| refused(ENOSPC)).collect();
        let told = summary(&full);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("map DENIED is full: 3616 more entries"), "{told:?}");
        assert!(told[0].contains("deniedCidrs"), "{told:?}");
        let told = summary(&[refused(EPERM), refused(EPERM)]);
        assert!(told[0].ends_with("(2 times)") && !told[0].contains("full"), "{told:?}");
        assert!(summary(&[]).is_empty());
    }

    #[test]
    fn ready_is_a_configuration_in_the_maps_and_every_program_in_its_place() {
        let condition = Condition::default();
        let mut loaded = Loaded::default();
        assert_eq!(condition.unready(&loaded).len(), 1);
        loaded.snapshot = Some(Arc::new(Snapshot::default()));
        condition.set_maps(&[], false);
        assert_eq!(condition.unready(&loaded), ["the configuration isn't in the maps yet"]);
        condition.set_maps(&[], true);
        assert!(condition.unready(&loaded).is_empty());

        condition.set_maps(&[refused(28)], true);
        assert_eq!(condition.unready(&loaded).len(), 1);
        condition.set_maps(&[], true);
        condition.set_attachments(&[], &["can't attach to interface veth-web".into()]);
        assert!(condition.unready(&loaded)[0].contains("veth-web"), "there, and not attached to");
        condition.set_attachments(&[Target::Cgroup("/pods".into())], &[]);
        assert!(condition.unready(&loaded)[0].contains("cgroup /pods"));
        // A pod may delete its own interface. That is reported, and nobody else suffers.
        condition.set_attachments(&[Target::Interface("veth-web".into())], &[]);
        assert!(condition.unready(&loaded).is_empty());
        assert!(condition.problems()[0].contains("interface veth-web is gone"));
        condition.set_attachments(&[], &[]);
        assert!(condition.problems().is_empty());
        // What can't be carried out is a problem, but what can be is in force.
        condition.set_plan(&[PlanProblem::AdminPort { port: 15021 }]);
        assert!(condition.unready(&loaded).is_empty());
        assert_eq!(condition.problems().len(), 1);
        // Nor does what the kernel can't do keep the rest from being in force.
        let why = Some("BPF is not active".to_owned());
        condition.set_gaps(LsmGaps { sockets: why, ..LsmGaps::default() });
        assert!(condition.unready(&loaded).is_empty());
        assert_eq!((condition.problems().len(), condition.exposures().len()), (1, 1));
        condition.set_routes(vec!["no route covers 10.96.0.0/12".to_owned()]);
        assert_eq!((condition.problems().len(), condition.warnings().len()), (1, 1));
        condition.set_routes(Vec::new());
        assert!(condition.warnings().is_empty());
    }
}
