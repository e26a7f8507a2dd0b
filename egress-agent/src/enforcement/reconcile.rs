//! The node's reconciler: from the configuration, and what is known besides, to the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use egress_ebpf::abi::{UNKNOWN_POLICY, mode};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    changes::{Reporter, changed, listen},
    cluster_routes,
    condition::{Condition, summary},
    counters::NodeCounters,
    dns::Names,
    exemptions::Exemptions,
    exposure::scan::ExposureScanner,
    health::Checker,
    inputs,
    known::KnownPods,
    modes::AuditReminder,
    notify::{self, Manager},
    plan::{self, Planned},
    pods::Pod,
    sockets::Closer,
    takeover::{self, Progress, Takeover},
    tunnel::NodeTunnel,
};
use crate::{
    bpf::{self, Contents, PendingReason, PlanInputs, PlanProblem},
    source::Loaded,
    sys::netlink::links::Watch,
    types::{ConfigurationStamp, Revisions},
};

/// Between two looks at the interfaces, and two attempts to bring the maps up to date.
const LOOK: Duration = Duration::from_secs(1);

/// What a reconciler is made of.
pub(crate) struct ReconcilerInputs {
    pub(crate) attachments: bpf::Attachments,
    pub(crate) families: bpf::Families,
    pub(crate) maps: bpf::Maps,
    pub(crate) pins: bpf::Pins,
    pub(crate) records: bpf::Records,
    /// The cgroups that an earlier agent attached to, and that this one's options don't name.
    pub(crate) strangers: BTreeMap<u64, PathBuf>,
    pub(crate) shout: AuditReminder,
    pub(crate) pods: Vec<Pod>,
    pub(crate) known: KnownPods,
    pub(crate) tunnel: NodeTunnel,
    pub(crate) events_per_second: u32,
    pub(crate) loaded: watch::Receiver<Loaded>,
    pub(crate) checker: Checker,
    pub(crate) names: Names,
    pub(crate) tally: Arc<NodeCounters>,
    pub(crate) condition: Arc<Condition>,
    /// Told once enforcement stands.
    pub(crate) ready: watch::Sender<bool>,
    /// The revisions that the maps hold as a whole; `None` where they are behind.
    pub(crate) in_force: watch::Sender<Option<Arc<Revisions>>>,
    /// The interfaces whose pods the maps know.
    pub(crate) in_maps: watch::Sender<BTreeSet<u32>>,
}

/// What keeps the kernel equal to the configuration.
pub(crate) struct Reconciler {
    attachments: bpf::Attachments,
    families: bpf::Families,
    /// `None` where the kernel doesn't tell of interfaces.
    watch: Option<Watch>,
    maps: bpf::Maps,
    pins: bpf::Pins,
    records: bpf::Records,
    /// The cgroups that an earlier agent attached to, and that this one's options don't name.
    strangers: BTreeMap<u64, PathBuf>,
    exemptions: Exemptions,
    planned: Planned,
    shout: AuditReminder,
    pods: Vec<Pod>,
    known: KnownPods,
    tunnel: NodeTunnel,
    events_per_second: u32,
    loaded: watch::Receiver<Loaded>,
    checker: Checker,
    names: Names,
    tally: Arc<NodeCounters>,
    condition: Arc<Condition>,
    /// Those that were logged already.
    problems: Vec<PlanProblem>,
    reporter: Reporter,
    take_over: Takeover,
    closer: Closer,
    looks: ExposureScanner,
    ready: bool,
    stands: watch::Sender<bool>,
    in_force: watch::Sender<Option<Arc<Revisions>>>,
    in_maps: watch::Sender<BTreeSet<u32>>,
    manager: Manager,
}

impl Reconciler {
    /// The programs are attached.
    pub(crate) fn new(parts: ReconcilerInputs) -> Self {
        let ReconcilerInputs {
            attachments,
            families,
            maps,
            pins,
            records,
            strangers,
            shout,
            pods,
            known,
            tunnel,
            events_per_second,
            loaded,
            checker,
            names,
            tally,
            condition,
            ready: stands,
            in_force,
            in_maps,
        } = parts;
        let exemptions = Exemptions::find(&plan::cgroups(&strangers, &attachments));
        Self {
            exemptions,
            attachments,
            families,
            watch: listen(),
            maps,
            pins,
            records,
            strangers,
            planned: Planned::default(),
            shout,
            pods,
            known,
            tunnel,
            events_per_second,
            loaded,
            checker,
            names,
            tally,
            condition,
            problems: Vec::new(),
            reporter: Reporter::default(),
            take_over: Takeover::default(),
            closer: Closer::default(),
            looks: ExposureScanner::default(),
            ready: false,
            stands,
            in_force,
            in_maps,
            manager: Manager::new(Instant::now()),
        }
    }

    /// Runs until every sender of changes is gone.
    pub(crate) async fn run(&mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.reconcile();
            self.tell_manager();
            tokio::select! {
                changed = self.loaded.changed() => if changed.is_err() { return },
                changed = self.checker.healthy.changed() => if changed.is_err() { return },
                changed = self.names.resolved.changed() => if changed.is_err() { return },
                changed = self.known.seen.changed() => if changed.is_err() { return },
                () = changed(&mut self.watch) => self.follow(),
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// Says to systemd how the node fares.
    fn tell_manager(&mut self) {
        let loaded = self.loaded.borrow().clone();
        let behind = self.tally.behind.load(Ordering::Relaxed) != 0;
        let refused = loaded.last.as_ref().is_some_and(|last| !last.accepted);
        let held = self.maps.current().globals.as_ref().and_then(ConfigurationStamp::of);
        let waiting = self.attachments.waiting();
        let status = match waiting {
            Some(PendingReason::FirstStart) => {
                let accepted = loaded.last.as_ref().map(|last| last.accepted);
                notify::first_start(accepted).to_owned()
            }
            Some(PendingReason::OtherVersion) | None => {
                let held = takeover::inherited(waiting, held);
                notify::sentence(&loaded, held.as_deref(), &self.condition.unready(&loaded))
            }
        };
        self.manager.send(self.ready || behind || refused, status);
    }

    /// Looks at what came and went.
    fn follow(&mut self) {
        let changes = self.attachments.follow(&self.pins);
        self.report_changes(changes);
    }

    /// Looks at everything that is attached, and for sockets that aren't allowed any more.
    async fn look(&mut self) {
        let mut changes = self.attachments.refresh(&self.pins);
        changes.extend(self.families.repair(&self.pins));
        self.condition.set_gaps(self.families.gaps());
        let unknown = self.maps.current().policies.get(&UNKNOWN_POLICY);
        let audited = unknown.is_some_and(|policy| policy.mode == mode::AUDIT);
        self.condition.set_unknown(self.known.warnings(audited));
        let cgroups = plan::cgroups(&self.strangers, &self.attachments);
        let snapshot = self.loaded.borrow().snapshot.clone();
        self.looks.begin(&cgroups, snapshot.as_ref(), &self.condition);
        self.report_changes(changes);
        if self.ready {
            let (cgroups, count) = (self.attachments.cgroups(), &self.tally.sockets_destroyed);
            self.closer.look(self.maps.current(), cgroups, count).await;
        }
    }

    fn report_changes(&mut self, changes: Vec<Result<bpf::Change, bpf::Error>>) {
        self.reporter.report(changes, &self.tally);
        self.condition.set_attachments(&self.attachments.missing(), self.reporter.failures());
    }

    /// Brings the maps up to date, if they aren't.
    fn reconcile(&mut self) {
        let loaded = self.loaded.borrow_and_update().clone();
        let healthy = self.checker.healthy.borrow_and_update().clone();
        let resolved = self.names.resolved.borrow_and_update().clone();
        let pods = plan::interfaces(&self.pods, &self.attachments);
        self.known.want(&pods);
        let seen = self.known.seen.borrow_and_update().clone();
        let found = plan::found(&pods, &seen);
        let cgroups = plan::cgroups(&self.strangers, &self.attachments);
        let mut planned = None;
        let mut desired = match &loaded.snapshot {
            Some(snapshot) => {
                inputs::ask(snapshot, &self.checker, &self.names);
                self.tunnel.publish(snapshot, &healthy);
                let (mesh, own) = (&snapshot.mesh, plan::own());
                let mut interfaces = bpf::pod_interfaces(mesh, found);
                bpf::learn_hardware(&mut interfaces, self.maps.current());
                let facts = PlanInputs {
                    resolved,
                    healthy,
                    tunnel: plan::listeners(&self.tunnel.addresses, own.as_ref()),
                    pods: interfaces.into_iter().chain(own).collect(),
                    forwarders: self.attachments.forwarders().clone(),
                    workloads: bpf::cgroups(
                        mesh,
                        &cgroups,
                        self.known.unnamed(),
                        bpf::find_cgroup(),
                    ),
                    generation: loaded.accepted,
                    held: loaded.held,
                    events_per_second: self.events_per_second,
                    max_groups: self.maps.max_groups(),
                };
                self.records.set_ends(bpf::KnownAddresses::new(&facts.pods));
                let behind = self.tally.behind.load(Ordering::Relaxed) != 0;
                if self.ready && !behind && self.planned.is(snapshot, &facts) {
                    return self.hear();
                }
                let (desired, mut problems) = Contents::desired(snapshot, &facts);
                problems.extend(bpf::not_attached(mesh, &cgroups));
                self.report(problems);
                self.condition.set_routes(cluster_routes::warnings(&mesh.cluster_cidrs));
                planned = Some((Arc::clone(snapshot), facts));
                desired
            }
            // Nothing accepted yet: what an earlier agent left stays, only what is attached is
            // known anew.
            None => {
                let unnamed = self.known.unnamed();
                let left = self.maps.current();
                let mut adopted = plan::adopted(left, &pods, &seen, &cgroups, unnamed);
                adopted.set_forwarders(self.attachments.forwarders());
                adopted
            }
        };
        self.exemptions.exempt(&mut desired);
        self.condition.set_exemptions(self.exemptions.changes(loaded.snapshot.as_deref()));
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
        let is_filled = configured && !behind;
        if !self.ready && self.is_in_force(&loaded, is_filled) && is_filled {
            self.ready = true;
            self.stands.send_replace(true);
            self.closer.request(true);
            self.pins.remove_other_versions();
            tracing::info!("ready");
        }
        let waiting = self.attachments.waiting() == Some(PendingReason::FirstStart);
        self.condition.set_waiting(waiting);
        self.tell_revisions(behind);
    }

    /// Says which revisions are in force, and at which interfaces, if that is news.
    fn tell_revisions(&self, behind: bool) {
        let whole = self.planned.snapshot().filter(|_| self.ready && !behind);
        let now = whole.map(|snapshot| Arc::clone(&snapshot.revisions));
        let known = self.maps.current().pod_interfaces.iter();
        let known = known.filter(|(_, port)| now.is_some() && port.policy != UNKNOWN_POLICY);
        let known: BTreeSet<u32> = known.map(|(ifindex, _)| *ifindex).collect();
        self.in_maps.send_if_modified(|old| {
            let changed = *old != known;
            *old = known;
            changed
        });
        self.in_force.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
    }

    /// Whether ours are in force, now at the latest if it is time.
    fn is_in_force(&mut self, loaded: &Loaded, is_filled: bool) -> bool {
        let is_informed = loaded
            .snapshot
            .as_ref()
            .is_some_and(|of| inputs::is_informed(of, &self.checker, &self.names));
        let is_refused =
            loaded.snapshot.is_none() && loaded.last.as_ref().is_some_and(|last| !last.accepted);
        let is_behind = !is_filled && loaded.snapshot.as_ref().is_some_and(|of| of.mesh.enforces());
        let progress = Progress { is_filled, is_refused, is_behind, is_informed };
        self.take_over.attempt(&mut self.attachments, &self.pins, progress)
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
