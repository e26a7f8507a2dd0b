//! Whether what was attached is still in force, and first in its chain.

use std::{collections::HashMap, fs, io, path::Path};

use aya::programs::SchedClassifier;

use super::{
    attach_point::{AttachPoint, pin_name, remove_pin},
    attach_targets::Hook,
    change::Repair,
    stage::{ActiveAttachment, mark},
    table::{TargetKind, attach_type},
    targets::{Target, TcMode},
};
use crate::{
    bpf::{Error, pins::is_link},
    sys::netlink::filters::{self, Direction, Filter},
};

/// What the kernel says of the links that this process holds, by their ids.
pub(super) struct Links(HashMap<u32, LinkState>);

/// One link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LinkState {
    /// What it is attached to; zero once it is detached or its place is gone.
    cgroup: Option<u64>,
    interface: Option<u32>,
    network: Option<u32>,
}

impl Links {
    /// Asks. The kernel shows a link's place in `/proc/PID/fdinfo` (bpf_link_show_fdinfo, cgroups
    /// since Linux 5.7, tcx since 6.6).
    ///
    /// # Errors
    /// proc(5) isn't there.
    pub(super) fn ask() -> io::Result<Self> {
        let mut links = HashMap::new();
        for entry in fs::read_dir("/proc/self/fdinfo")? {
            // A descriptor that was closed this moment can't be read.
            if let Ok(text) = fs::read_to_string(entry?.path())
                && let Some((id, state)) = link_state(&text)
            {
                links.insert(id, state);
            }
        }
        Ok(Self(links))
    }

    fn is_attached(&self, id: u32, place: AttachPoint) -> bool {
        let Some(state) = self.0.get(&id) else { return false };
        match place {
            AttachPoint::Cgroup(cgroup) => state.cgroup == Some(cgroup),
            AttachPoint::Interface(index) => state.interface == Some(index),
            AttachPoint::Node => state.network.is_some_and(|network| network != 0),
        }
    }
}

/// From fdinfo's `key:\tvalue` lines; `None` for what isn't a link.
fn link_state(text: &str) -> Option<(u32, LinkState)> {
    let fields = || text.lines().filter_map(|line| line.split_once(':'));
    let find = |key: &str| fields().find(|(name, _)| *name == key).map(|(_, value)| value.trim());
    let id = find("link_id")?.parse().ok()?;
    let cgroup = find("cgroup_id").and_then(|value| value.parse().ok());
    let interface = find("ifindex").and_then(|value| value.parse().ok());
    let network = find("netns_ino").and_then(|value| value.parse().ok());
    Some((id, LinkState { cgroup, interface, network }))
}

/// What is wrong with an attachment, if anything.
pub(super) fn fault(
    links: Option<&Links>,
    pins: &Path,
    hook: Hook,
    target: &Target,
    held: &ActiveAttachment,
    tc: TcMode,
) -> Option<Repair> {
    let pin = pins.join(pin_name(hook.entry.program, hook.place, tc));
    match held {
        ActiveAttachment::Link { id, program, .. } => {
            if links.is_some_and(|links| !links.is_attached(*id, hook.place)) {
                return Some(Repair::Detached);
            }
            if let (TargetKind::Pod | TargetKind::Uplink, Target::Interface(name)) =
                (hook.entry.on, target)
                && !is_first(name, hook.entry.direction, *program)
            {
                return Some(Repair::Order);
            }
            (!is_link(&pin, *id)).then_some(Repair::Pin)
        }
        ActiveAttachment::Clsact { program } => {
            let AttachPoint::Interface(index) = hook.place else { return None };
            match filters::list(index, hook.entry.direction) {
                Ok(filters) => judge_filters(&filters, *program),
                Err(error) => {
                    tracing::debug!("can't list the filters on {target}: {error}");
                    None
                }
            }
            .or_else(|| (!pin.is_dir()).then_some(Repair::Pin))
        }
    }
}

/// What a chain of filters says about our program. Only chain 0 runs by itself.
fn judge_filters(filters: &[Filter], program: u32) -> Option<Repair> {
    let ours = |filter: &Filter| filter.program == Some(program);
    let mut chain = filters.iter().filter(|filter| filter.chain == 0);
    match chain.next() {
        Some(first) if ours(first) => None,
        Some(_) if chain.any(ours) => Some(Repair::Order),
        _ => Some(Repair::Detached),
    }
}

fn is_first(interface: &str, direction: Direction, program: u32) -> bool {
    match SchedClassifier::query_tcx(interface, attach_type(direction)) {
        Ok((_, chain)) => chain.first().is_some_and(|first| first.id() == program),
        // Not allowed to ask (that takes CAP_SYS_ADMIN), or the interface went this moment.
        Err(error) => {
            tracing::debug!("can't ask for the programs on {interface}: {error}");
            true
        }
    }
}

/// Pins what this process still holds.
///
/// # Errors
/// The kernel refuses; a link is then lost with its pin, and has to be attached again.
pub(super) fn pin_again(
    pins: &Path,
    hook: Hook,
    held: &mut ActiveAttachment,
    tc: TcMode,
) -> Result<(), Error> {
    let path = pins.join(pin_name(hook.entry.program, hook.place, tc));
    match held {
        ActiveAttachment::Clsact { .. } => mark(&path),
        ActiveAttachment::Link { link, .. } => {
            remove_pin(&path);
            let Some(taken) = link.take() else { return Ok(()) };
            let pinned = taken.pin(&path).map_err(|error| Error::Attach {
                program: hook.entry.program,
                target: path.display().to_string(),
                error: error.to_string(),
            })?;
            *link = Some(pinned.into());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_place_is_read_from_its_fdinfo() {
        let cgroup = "pos:\t0\nflags:\t02000000\nlink_type:\tcgroup\nlink_id:\t17\n\
                      prog_tag:\tabc\nprog_id:\t5\ncgroup_id:\t4321\nattach_type:\t10\n";
        let tcx = "pos:\t0\nlink_type:\ttcx\nlink_id:\t18\nprog_id:\t6\nifindex:\t7\n";
        let links = Links([cgroup, tcx].into_iter().filter_map(link_state).collect());
        assert!(links.is_attached(17, AttachPoint::Cgroup(4321)));
        assert!(links.is_attached(18, AttachPoint::Interface(7)));
        // Somewhere else, unknown, and detached, which the kernel shows as zero.
        assert!(!links.is_attached(17, AttachPoint::Cgroup(1)));
        assert!(!links.is_attached(18, AttachPoint::Interface(8)));
        assert!(!links.is_attached(19, AttachPoint::Interface(7)));
        let gone = cgroup.replace("4321", "0");
        let links = Links(link_state(&gone).into_iter().collect());
        assert!(!links.is_attached(17, AttachPoint::Cgroup(4321)));
        assert_eq!(link_state("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn a_chain_of_filters_is_ours_only_if_we_are_first() {
        let filter = |chain, program| Filter {
            chain,
            priority: 1,
            handle: 1,
            kind: "bpf".into(),
            name: String::new(),
            program: Some(program),
        };
        assert_eq!(judge_filters(&[filter(0, 5), filter(0, 6)], 5), None);
        assert_eq!(judge_filters(&[filter(0, 6), filter(0, 5)], 5), Some(Repair::Order));
        assert_eq!(judge_filters(&[filter(0, 6)], 5), Some(Repair::Detached));
        assert_eq!(judge_filters(&[], 5), Some(Repair::Detached));
        assert_eq!(
            judge_filters(&[filter(1, 5)], 5),
            Some(Repair::Detached),
            "no chain of its own"
        );
    }
}
