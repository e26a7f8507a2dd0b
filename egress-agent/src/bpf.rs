//! Loading, attaching and pinning the eBPF programs; keeping the maps equal to the snapshot.

mod attach;
mod btf;
mod counters;
mod detach;
pub mod diff;
mod epoch;
mod error;
mod events;
mod handle;
mod hardware;
mod host;
mod inspect;
mod load;
mod logs;
pub mod lookup;
mod map_fill;
pub mod object;
mod offload;
mod packet_origin;
mod pinned;
mod pinned_maps;
mod pins;
pub mod plan;
mod pod;
mod policy_evaluator;
mod reconcile;
mod records;
mod shares;
mod slots;
mod socket_lsm;
mod verifier_report;
mod workloads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use attach::{
    Attachments, Change, FirstStart, Pattern, PendingReason, Repair, Target, Targets, TcMode,
};
pub use counters::{Counters, Lost, Verdicts};
pub use detach::detach;
pub use error::Error;
pub use events::{Action, Events, Flow, Hook};
pub use hardware::learn as learn_hardware;
pub use host::{
    Kernel, MINIMUM_KERNEL, OLDEST_TESTED_KERNEL, allow_untested_kernel, cgroup_path,
    cgroup2_mount, has_lookup_interface, ifname, release as kernel_release,
};
pub use inspect::{AttachedProgram, Inspection, inspect};
pub use map_fill::{MapFill, map_fills};
pub use offload::set_globals as tell_offload;
pub use packet_origin::set_globals as tell_maker;
pub use pinned::{orphaned, pins_owner};
pub use pins::{DEFAULT_BPFFS, Pins};
pub use plan::{
    Contents, NO_INTERFACE, PlanInputs, PlanProblem, PodHardware, PodInterface, policy_id,
    routes::specificity,
};
pub use policy_evaluator::PolicyEvaluator;
pub use reconcile::Maps;
pub use records::{ConnectingProcess, KnownAddresses, Record, Records};
pub use shares::{EventOrigin, Shares};
pub use socket_lsm::{Families, LsmGaps};
pub use verifier_report::VerifierReport;
pub use workloads::{Interface, adopted, cgroups, find_cgroup, not_attached, pod_interfaces};

/// Enforcement on this node, in force from the moment that [`Enforcer::start`] returns, or from
/// [`Attachments::take_over`] where something is [waited for](Attachments::waiting), and until
/// [`detach()`], however the process ends.
pub struct Enforcer {
    /// What is attached where.
    pub attachments: Attachments,
    /// The policy maps.
    pub maps: Maps,
    /// What was counted.
    pub counters: Counters,
    /// What of that nobody saw, by workload.
    pub shares: Shares,
    /// What happens.
    pub events: Events,
    /// What connections to the tunnel listener were meant for.
    pub records: Records,
    /// The cgroups that programs are attached to, an earlier agent's too: their ids, and their paths
    /// below the cgroup2 mount.
    pub cgroups: BTreeMap<u64, PathBuf>,
    /// What the kernel's security modules keep workloads from.
    pub families: Families,
    /// Whether an earlier agent's enforcement was taken over.
    pub adopted: bool,
    /// The pins, owned for as long as this value lives.
    pub pins: Pins,
}

/// What was loaded and attached.
struct Loaded {
    attachments: Attachments,
    maps: Maps,
    counters: Counters,
    shares: Shares,
    events: Events,
    records: Records,
    families: Families,
}

/// Refuses a host that can't enforce: an old kernel, or a process without the privileges. Lifts the
/// limit on locked memory.
///
/// # Errors
/// What is missing, and what to do about it.
pub fn check_host() -> Result<(), Error> {
    host::check()
}

impl Enforcer {
    /// Loads and attaches everything, with the maps as an earlier agent left them; without one they
    /// are empty, which denies. Either all of it is done or nothing. Must be called inside a
    /// runtime.
    ///
    /// Where an agent with other maps (another version, older or newer) enforces, its programs
    /// stay and ours aren't attached until [`Attachments::take_over`]: ours would deny everything
    /// until a configuration is in the maps. `begin` says the same of a node where nothing is enforced.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn start(
        bpffs: &Path,
        targets: &Targets,
        tc: TcMode,
        begin: FirstStart,
    ) -> Result<Self, Error> {
        host::check()?;
        // Wrong targets are found before a program is loaded.
        for cgroup in &targets.cgroups {
            host::cgroup_id(cgroup)?;
        }
        let pods = targets.pod_interfaces.iter().filter_map(Pattern::exact);
        for interface in pods.chain(targets.uplinks.iter().map(String::as_str)) {
            host::require_interface(interface)?;
        }
        let pins = Pins::own(bpffs)?;
        // A first start that was cut short has left its maps: nothing waits twice.
        let begin = if pins.maps().exists() { FirstStart::AtOnce } else { begin };
        let aside = match load::check(&pins) {
            Err(error @ Error::Layout { .. }) => {
                tracing::warn!("{error}; taking it for another version's");
                Some(pins.set_aside()?)
            }
            result => result.map(|()| None)?,
        };
        let adopted = pins.in_use();
        let result = Self::load(&pins, targets, tc, begin);
        if result.is_err() && !adopted {
            pins.undo();
        }
        if let Some(aside) = aside.filter(|_| result.is_err()) {
            pins.bring_back(&aside);
        }
        let Loaded { attachments, maps, counters, shares, events, records, families } = result?;
        let cgroups = attach::pinned_cgroups(&pins);
        Ok(Self {
            attachments,
            maps,
            counters,
            shares,
            events,
            records,
            cgroups,
            families,
            adopted,
            pins,
        })
    }

    fn load(
        pins: &Pins,
        targets: &Targets,
        tc: TcMode,
        begin: FirstStart,
    ) -> Result<Loaded, Error> {
        pins.create()?;
        let mut ebpf = load::node(pins)?;
        // The maps first: if one can't be used, nothing is attached yet.
        let maps = Maps::take(&mut ebpf, pins)?;
        let counters = Counters::take(&mut ebpf)?;
        let shares = Shares::take_from(&mut ebpf)?;
        let events = Events::take(&mut ebpf)?;
        let records = Records::take_from(&mut ebpf)?;
        logs::forward(&mut ebpf)?;
        // Filled maps are those of a take-over that was cut short: ours may enforce at once.
        let empty = maps.current().globals.is_none();
        let families = Families::attach(&mut ebpf, pins);
        let attachments = Attachments::attach(ebpf, pins, targets.clone(), tc, empty, begin)?;
        Ok(Loaded { attachments, maps, counters, shares, events, records, families })
    }
}
