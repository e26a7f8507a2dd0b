//! What pins are called, and what their names tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{
    table::by_name,
    targets::{Target, TcMode},
};
use crate::{
    bpf::{host, pins::Pins, socket_lsm},
    sys::netlink::filters::Direction,
};

/// What a program is attached to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::bpf) enum AttachPoint {
    /// A cgroup, by its id.
    Cgroup(u64),
    /// An interface, by its index.
    Interface(u32),
    /// The node's network namespace.
    Node,
}

/// bpffs refuses dots, and paths have slashes: pins are named by numbers.
pub(super) fn pin_name(program: &str, place: AttachPoint, tc: TcMode) -> String {
    match (place, tc) {
        (AttachPoint::Cgroup(id), _) => format!("{program}-cgroup-{id}"),
        (AttachPoint::Interface(index), TcMode::Tcx) => format!("{program}-if-{index}"),
        (AttachPoint::Interface(index), TcMode::Clsact) => format!("{program}-clsact-{index}"),
        (AttachPoint::Node, _) => format!("{program}-node-0"),
    }
}

/// What an earlier agent enforced on and this one's options do not name. It stays: only `detach`
/// removes enforcement. What is gone from the host leaves only a name, which is removed.
pub(super) fn report_strangers(pins: &Pins, ours: &[String]) {
    for name in pins.link_names() {
        if ours.contains(&name) || socket_lsm::is_pin(&name) {
            continue;
        }
        match PinnedPlace::parse(&name).and_then(|place| place.now()) {
            Some(target) => tracing::warn!(
                "{name}: {target} is no longer named by this agent's options; enforcement on it \
                 stays until `egress-agent detach`"
            ),
            None => {
                tracing::info!("{name}: what it was attached to is gone; removing the pin");
                remove_pin(&pins.links().join(&name));
            }
        }
    }
}

/// The cgroups that programs are attached to, an earlier agent's too: their ids, and their paths
/// below the mount.
pub(in crate::bpf) fn pinned_cgroups(pins: &Pins) -> BTreeMap<u64, PathBuf> {
    let names = pins.link_names();
    let ids: BTreeSet<u64> = names
        .iter()
        .filter_map(|name| match PinnedPlace::parse(name)?.place {
            AttachPoint::Cgroup(id) => Some(id),
            AttachPoint::Interface(_) | AttachPoint::Node => None,
        })
        .collect();
    ids.into_iter().filter_map(|id| Some((id, host::cgroup_path(id)?))).collect()
}

pub(super) fn remove_pin(path: &Path) {
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("can't remove {}: {error}", path.display());
    }
}

/// What a pin's name says.
pub(in crate::bpf) struct PinnedPlace<'a> {
    pub(in crate::bpf) program: &'a str,
    pub(in crate::bpf) place: AttachPoint,
    pub(in crate::bpf) clsact: bool,
}

impl<'a> PinnedPlace<'a> {
    pub(in crate::bpf) fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix("new-").unwrap_or(name);
        let (rest, number) = name.rsplit_once('-')?;
        let (program, kind) = rest.rsplit_once('-')?;
        let place = match kind {
            "cgroup" => AttachPoint::Cgroup(number.parse().ok()?),
            "if" | "clsact" => AttachPoint::Interface(number.parse().ok()?),
            "node" => AttachPoint::Node,
            _ => return None,
        };
        Some(Self { program, place, clsact: kind == "clsact" })
    }

    /// What it is attached to; `None` if that is gone.
    pub(in crate::bpf) fn now(&self) -> Option<String> {
        match self.place {
            AttachPoint::Cgroup(id) => {
                host::cgroup_path(id).map(|path| Target::Cgroup(path).to_string())
            }
            AttachPoint::Interface(index) => {
                host::ifname(index).map(|name| Target::Interface(name).to_string())
            }
            AttachPoint::Node => Some(Target::Host.to_string()),
        }
    }

    /// The interface with its name now.
    pub(in crate::bpf) fn interface(&self) -> Option<(u32, String)> {
        match self.place {
            AttachPoint::Interface(index) => host::ifname(index).map(|name| (index, name)),
            AttachPoint::Cgroup(_) | AttachPoint::Node => None,
        }
    }

    /// Which way; `None` for a program of another version.
    pub(in crate::bpf) fn direction(&self) -> Option<Direction> {
        by_name(self.program).map(|entry| entry.direction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pins_name_tells_its_place() {
        let name = pin_name("pod_ingress", AttachPoint::Interface(7), TcMode::Clsact);
        let place = PinnedPlace::parse(&name).unwrap();
        assert!(place.clsact && place.program == "pod_ingress");
        let name = format!("new-{}", pin_name("connect4", AttachPoint::Cgroup(1), TcMode::Tcx));
        let place = PinnedPlace::parse(&name).unwrap();
        assert!(!place.clsact && place.program == "connect4" && place.interface().is_none());
        assert!(PinnedPlace::parse("whatever").is_none());
        assert!(PinnedPlace::parse("a-b-c").is_none());
    }
}
