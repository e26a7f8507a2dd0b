//! Attaching the programs and keeping them attached.
//!
//! Every attachment outlives the process: links are pinned, and filters of kernels without tcx
//! belong to the interface. A newer program is attached before the older one is let go, so there
//! is no moment without one; and either all of a start's attachments are made or none.

mod attach_point;
mod attach_targets;
mod change;
mod check;
mod pattern;
mod stage;
mod table;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::Ebpf;

use self::{
    attach_point::{AttachPoint, pin_name, remove_pin, report_strangers},
    attach_targets::{AttachTargets, Hook},
    check::{Links, fault, pin_again},
    stage::{ActiveAttachment, stage},
};
pub(super) use self::{
    attach_point::{PinnedPlace, pinned_cgroups},
    stage::{clsact_program, remove_clsact},
};
pub use self::{
    change::{Change, Repair},
    pattern::Pattern,
    targets::{FirstStart, PendingReason, Target, Targets, TcMode},
};
use super::{Error, epoch, host, load, pinned_maps::PinnedMaps, pins::Pins, workloads};
use crate::sys::netlink::links;

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Attachments {
    ebpf: Ebpf,
    tc: TcMode,
    targets: Targets,
    survey: AttachTargets,
    held: BTreeMap<Hook, ActiveAttachment>,
    /// Named ones that aren't there.
    missing: BTreeSet<Target>,
    maps: PinnedMaps,
    /// Where ours aren't in force yet.
    waiting: BTreeSet<AttachPoint>,
    /// What they wait for there.
    waits_for: PendingReason,
}

impl Attachments {
    /// Attaches everything or nothing. What an earlier agent attached stays until its replacement
    /// is in place. `empty` tells that the maps hold no configuration.
    ///
    /// # Errors
    /// A target that doesn't exist, or the kernel's refusal; then all is as it was before.
    pub(super) fn attach(
        ebpf: Ebpf,
        pins: &Pins,
        targets: Targets,
        tc: TcMode,
        empty: bool,
        begin: FirstStart,
    ) -> Result<Self, Error> {
        let survey = find_targets(&targets, &AttachTargets::default())?;
        let places = |names: Vec<String>| -> BTreeSet<AttachPoint> {
            let pinned = names.iter().filter_map(|name| PinnedPlace::parse(name));
            pinned.map(|pin| pin.place).collect()
        };
        let replaced = if empty { places(pins.other_link_names()) } else { BTreeSet::new() };
        let is_first = empty && places(pins.link_names()).is_empty();
        let (waiting, waits_for) = if !replaced.is_empty() {
            (replaced, PendingReason::OtherVersion)
        } else if is_first && begin == FirstStart::WhenFilled {
            (survey.places().into_keys().collect(), PendingReason::FirstStart)
        } else {
            (BTreeSet::new(), PendingReason::FirstStart)
        };
        let missing = survey.missing(&targets);
        let mut all = Self {
            ebpf,
            tc,
            targets,
            survey,
            held: BTreeMap::new(),
            missing,
            maps: PinnedMaps::open(pins)?,
            waiting,
            waits_for,
        };
        // They were there a moment ago.
        for target in &all.missing {
            match target {
                Target::Interface(name) => drop(host::require_interface(name)?),
                Target::Cgroup(path) => drop(host::cgroup_id(path)?),
                Target::Map(_) | Target::Host => {}
            }
        }
        all.attach_missing(pins, None)?;
        let ours: Vec<String> =
            all.held.keys().map(|hook| pin_name(hook.entry.program, hook.place, tc)).collect();
        report_strangers(pins, &ours);
        Ok(all)
    }

    /// What keeps ours from being in force everywhere; `None` where they are.
    #[must_use]
    pub fn waiting(&self) -> Option<PendingReason> {
        (!self.waiting.is_empty()).then_some(self.waits_for)
    }

    /// Puts ours in force everywhere, beside another version's, which may go then. To be called
    /// when the maps hold a configuration.
    ///
    /// # Errors
    /// The kernel's refusal; then nothing has changed.
    pub fn take_over(&mut self, pins: &Pins) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        self.attach_missing(pins, None).inspect_err(|_| self.waiting = waiting)
    }

    /// The index of an interface that is under enforcement, by name.
    #[must_use]
    pub fn ifindex(&self, interface: &str) -> Option<u32> {
        self.survey.ifindex(interface)
    }

    /// The interfaces of pods that are under enforcement: index and name.
    pub fn pods(&self) -> impl Iterator<Item = (u32, &str)> {
        self.survey.pods()
    }

    /// The interfaces that are no pod's, and may forward: their indices.
    #[must_use]
    pub fn forwarders(&self) -> &BTreeSet<u32> {
        self.survey.forwarders()
    }

    /// What is to be under enforcement, was named by itself, and isn't there.
    #[must_use]
    pub fn missing(&self) -> Vec<Target> {
        self.missing.iter().cloned().collect()
    }

    /// The cgroups that are under enforcement, by their ids; those below them are too.
    #[must_use]
    pub fn cgroups(&self) -> &BTreeMap<u64, PathBuf> {
        self.survey.cgroups()
    }

    /// Attaches to what came, forgets what went. Quick enough for every word of the kernel.
    pub fn follow(&mut self, pins: &Pins) -> Vec<Result<Change, Error>> {
        let survey = match find_targets(&self.targets, &self.survey) {
            Ok(survey) => survey,
            Err(error) => return vec![Err(error)],
        };
        let mut changes = Vec::new();
        let before = std::mem::replace(&mut self.survey, survey).places();
        let now = self.survey.places();
        let missing = self.survey.missing(&self.targets);
        for (place, target) in before.iter().filter(|(place, _)| !now.contains_key(place)) {
            self.remove(pins, *place);
            let named = missing.contains(target);
            // Its name may belong to another one already.
            if named || !now.values().any(|other| other == target) {
                changes.push(Ok(Change::Gone { target: target.clone(), named }));
            }
        }
        for (place, target) in now {
            let fresh = !before.contains_key(&place);
            if !fresh && !self.lacks(place) {
                continue;
            }
            changes.push(match self.attach_missing(pins, Some(place)) {
                Ok(()) => Ok(self.appeared(&before, target)),
                // It may have gone this very moment; then there is nothing to attach to.
                Err(_) if !is_there(place, &target) => continue,
                Err(error) => Err(error),
            });
        }
        self.missing = missing;
        changes
    }

    /// The same, and looks at every attachment: repairs what others did to it.
    pub fn refresh(&mut self, pins: &Pins) -> Vec<Result<Change, Error>> {
        let mut changes = self.follow(pins);
        // The maps first: a program that is loaded below must find them.
        changes.extend(self.maps.repair(pins).into_iter().map(|map| {
            map.map(|name| Change::Repaired { target: Target::Map(name), repair: Repair::Pin })
        }));
        let links = Links::ask().inspect_err(|error| tracing::debug!("no links' state: {error}"));
        let faults: Vec<(Hook, Target, Repair)> = self
            .survey
            .hooks()
            .into_iter()
            .filter_map(|(hook, target)| {
                let held = self.held.get(&hook)?;
                let repair =
                    fault(links.as_ref().ok(), &pins.links(), hook, &target, held, self.tc)?;
                Some((hook, target, repair))
            })
            .collect();
        for (hook, target, repair) in faults {
            match self.repair(pins, hook, &target, repair) {
                Ok(()) => {
                    let change = Change::Repaired { target, repair };
                    // One word for all the programs of a place.
                    if !changes.iter().any(|known| known.as_ref().is_ok_and(|c| *c == change)) {
                        changes.push(Ok(change));
                    }
                }
                Err(_) if !is_there(hook.place, &target) => {}
                Err(error) => changes.push(Err(error)),
            }
        }
        changes
    }

    /// What it means that something came.
    fn appeared(&self, before: &BTreeMap<AttachPoint, Target>, target: Target) -> Change {
        let again = self.missing.contains(&target) || before.values().any(|old| *old == target);
        let repair = match &target {
            Target::Cgroup(_) => Repair::Cgroup,
            Target::Interface(name) if again || self.is_named(name) => Repair::Interface,
            Target::Interface(_) | Target::Map(_) | Target::Host => {
                return Change::Appeared { target };
            }
        };
        Change::Repaired { target, repair }
    }

    fn is_named(&self, interface: &str) -> bool {
        let mut exact = self.targets.pod_interfaces.iter().filter_map(Pattern::exact);
        exact.any(|name| name == interface)
            || self.targets.uplinks.iter().any(|name| name == interface)
    }

    /// Whether a program that belongs there isn't.
    fn lacks(&self, place: AttachPoint) -> bool {
        let hooks = self.survey.hooks();
        let missing = |hook: &Hook| !self.held.contains_key(hook) && !self.waiting.contains(&place);
        hooks.iter().any(|(hook, _)| hook.place == place && missing(hook))
    }

    /// Attaches what is wanted and isn't held: everywhere or at one place, all or nothing.
    fn attach_missing(&mut self, pins: &Pins, only: Option<AttachPoint>) -> Result<(), Error> {
        let links = pins.links();
        let mut staged = Vec::new();
        for (hook, target) in self.survey.hooks() {
            let wanted = only.is_none_or(|place| place == hook.place);
            if !wanted || self.held.contains_key(&hook) || self.waiting.contains(&hook.place) {
                continue;
            }
            staged.push((hook, stage(&mut self.ebpf, &links, hook, &target, self.tc)?));
        }
        // The uplink's program is told before the cgroup's hooks are in force.
        let cgroups: Vec<u64> = staged
            .iter()
            .filter_map(|(hook, _)| match hook.place {
                AttachPoint::Cgroup(id) => Some(id),
                AttachPoint::Interface(_) | AttachPoint::Node => None,
            })
            .collect();
        if !cgroups.is_empty() {
            let (ebpf, unnamed) = (&mut self.ebpf, self.targets.unnamed);
            epoch::around(pins, || workloads::claim(ebpf, &cgroups, unnamed))?;
        }
        for (hook, staged) in staged {
            let held = staged.commit(&links)?;
            self.held.insert(hook, held);
        }
        Ok(())
    }

    /// The place is gone, and what was attached to it; only names are left.
    fn remove(&mut self, pins: &Pins, place: AttachPoint) {
        self.held.retain(|hook, _| {
            let here = hook.place == place;
            if here {
                remove_pin(&pins.links().join(pin_name(hook.entry.program, place, self.tc)));
            }
            !here
        });
    }

    fn repair(
        &mut self,
        pins: &Pins,
        hook: Hook,
        target: &Target,
        repair: Repair,
    ) -> Result<(), Error> {
        pins.create()?;
        let links = pins.links();
        let staged = match repair {
            Repair::Pin => {
                let Some(held) = self.held.get_mut(&hook) else { return Ok(()) };
                let result = pin_again(&links, hook, held, self.tc);
                if result.is_err() {
                    // Without its pin it is gone; the next look attaches it again.
                    self.held.remove(&hook);
                }
                return result;
            }
            // A tcx chain takes no program twice, and ours is in it already: so a second copy
            // comes first, and the other one leaves.
            Repair::Order if self.tc == TcMode::Tcx => {
                stage(&mut load::node(pins)?, &links, hook, target, self.tc)?
            }
            Repair::Order | Repair::Detached | Repair::Interface | Repair::Cgroup => {
                stage(&mut self.ebpf, &links, hook, target, self.tc)?
            }
        };
        let held = staged.commit(&links)?;
        self.held.insert(hook, held);
        Ok(())
    }
}

fn find_targets(targets: &Targets, before: &AttachTargets) -> Result<AttachTargets, Error> {
    let links = links::list().map_err(Error::io("can't list the interfaces"))?;
    Ok(AttachTargets::new(targets, before, &links, |path: &Path| host::cgroup_id(path).ok()))
}

fn is_there(place: AttachPoint, target: &Target) -> bool {
    match (place, target) {
        (AttachPoint::Interface(index), _) => host::ifname(index).is_some(),
        (AttachPoint::Cgroup(id), Target::Cgroup(path)) => {
            host::cgroup_id(path).is_ok_and(|now| now == id)
        }
        (AttachPoint::Cgroup(_), Target::Interface(_) | Target::Map(_) | Target::Host) => false,
        (AttachPoint::Node, _) => true,
    }
}
