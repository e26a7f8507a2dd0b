//! From the configuration, and what is known besides, to the maps.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;

use super::{Node, condition::summary, inside, plan};
use crate::bpf::{self, Contents, Facts, PlanProblem};

impl Node {
    /// Brings the maps up to date, if they aren't.
    pub(super) fn reconcile(&mut self) {
        let loaded = self.loaded.borrow_and_update().clone();
        let healthy = self.checker.healthy.borrow_and_update().clone();
        let resolved = self.names.resolved.borrow_and_update().clone();
        let pods = plan::interfaces(&self.pods, &self.attachments);
        let found = plan::found(&pods);
        let cgroups = plan::cgroups(&self.strangers, &self.attachments);
        let mut planned = None;
        let desired = match &loaded.snapshot {
            Some(snapshot) => {
                self.ask(snapshot);
                self.tunnel.publish(snapshot, &healthy);
                let (mesh, own) = (&snapshot.mesh, plan::own());
                let facts = Facts {
                    resolved,
                    healthy,
                    tunnel: plan::listeners(&self.tunnel.addresses, own.as_ref()),
                    pods: bpf::pod_interfaces(mesh, found).into_iter().chain(own).collect(),
                    workloads: bpf::cgroups(mesh, &cgroups, bpf::find_cgroup()),
                    generation: loaded.accepted,
                    held: loaded.held,
                    events_per_second: self.events_per_second,
                    max_groups: self.maps.max_groups(),
                };
                self.records.set_ends(bpf::Ends::new(&facts.pods));
                let behind = self.tally.behind.load(Ordering::Relaxed) != 0;
                if self.ready && !behind && self.planned.is(snapshot, &facts) {
                    return self.hear();
                }
                let (desired, mut problems) = Contents::desired(snapshot, &facts);
                problems.extend(bpf::not_attached(mesh, &cgroups));
                self.report(problems);
                self.condition.set_routes(inside::warnings(&mesh.cluster_cidrs));
                planned = Some((Arc::clone(snapshot), facts));
                desired
            }
            // Nothing accepted yet: what an earlier agent left stays, only what is attached is
            // known anew.
            None => plan::adopted(self.maps.current(), &pods, &cgroups),
        };
        let configured = loaded.snapshot.is_some();
        let behind = match self.maps.reconcile(&desired) {
            Ok(changes) => {
                tracing::debug!("{changes} changes in the maps");
                self.closer.request(changes > 0);
                self.condition.set_maps(&[], configured);
                false
            }
            Err(errors) => {
                self.condition.set_maps(&errors, configured);
                self.tally.failures.fetch_add(1, Ordering::Relaxed);
                // They recur with every attempt.
                if self.tally.behind.load(Ordering::Relaxed) == 0 {
                    for error in summary(&errors) {
                        tracing::error!("{error}");
                    }
                    tracing::error!(
                        "the maps don't hold the whole configuration; what is missing is denied, \
                         and it is tried again"
                    );
                }
                true
            }
        };
        if let Some((snapshot, facts)) = planned.filter(|_| !behind) {
            self.planned.set(snapshot, facts);
        }
        self.hear();
        if self.tally.behind.swap(u64::from(behind), Ordering::Relaxed) == 1 && !behind {
            tracing::info!("the maps hold the whole configuration again");
        }
        if let Some(snapshot) = &loaded.snapshot
            && !behind
            && !self.ready
            && {
                let informed = self.is_informed(snapshot);
                self.take_over.attempt(&mut self.attachments, &self.pins, informed)
            }
        {
            self.ready = true;
            self.closer.request(true);
            self.pins.remove_other_versions();
            tracing::info!("ready");
        }
    }

    fn report(&mut self, problems: Vec<PlanProblem>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            tracing::error!("{problem}");
        }
        self.condition.set_plan(&problems);
        self.problems = problems;
    }

    /// Says what is not enforced.
    fn hear(&mut self) {
        let policies = &self.maps.current().policies;
        self.shout.hear(Instant::now(), self.planned.snapshot(), policies);
    }
}
