//! What is in force, read from the pins alone: it needs no agent, and changes nothing.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use aya::{
    maps::{Array, Map, MapError},
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use egress_ebpf::abi::{ABI_VERSION, Globals, Policy, PolicyId, UNKNOWN_POLICY, mode};

use super::{
    Counters, Error, Lost, Verdicts,
    attach::{PinnedPlace, clsact_program},
    host,
    map_fill::{self, MapFill},
    pinned::{below, open},
    pod::Raw,
};
use crate::types::ConfigurationStamp;

/// Programs without which a cgroup isn't under enforcement; the others are a convenience, or depend
/// on the kernel.
const ON_CGROUP: [&str; 5] = ["cgroup_egress", "connect4", "connect6", "sendmsg4", "sendmsg6"];
/// What records, for the tunnel, where its connections were to go.
const RECORDS: &str = "sock_ops";
/// The same of an interface: programs that begin so, and the one that must be among them.
const ON_INTERFACE: [(&str, &str); 2] = [("pod_", "pod_ingress"), ("uplink_", ON_UPLINK)];
const ON_UPLINK: &str = "uplink_egress";
/// What judges who asks the node's own sockets, where there is an uplink.
const ON_NODE: &str = "node_lookup";

/// Everything that the pins tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Versions of the map ABI that something is pinned for.
    pub versions: Vec<u32>,
    /// What is attached.
    pub programs: Vec<AttachedProgram>,
    /// The maps of this agent's version.
    pub maps: Vec<MapFill>,
    /// Which configuration the maps hold; `None` before the first one.
    pub held: Option<ConfigurationStamp>,
    /// Modes other than `enforce`, by policy: `audit`, `audit_redirect`, `exempt`.
    pub modes: BTreeMap<PolicyId, &'static str>,
    /// What was counted.
    pub verdicts: Vec<Verdicts>,
    /// Events that nobody saw.
    pub lost: Lost,
    /// What is wrong with the pins, a sentence each.
    pub problems: Vec<String>,
}

/// A program in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttachedProgram {
    /// Its name in the object.
    pub name: String,
    /// Its id in the kernel; `None` where it is gone, with its interface or alone.
    pub id: Option<u32>,
    /// `cgroup /pods/web`, `interface veth-web`; `None` if that is gone.
    pub target: Option<String>,
    /// The id of the link that holds it; `None` for a filter of clsact.
    pub link: Option<u32>,
    /// When it was loaded.
    pub loaded_at: Option<SystemTime>,
    /// The kernel's hash of its instructions.
    pub tag: Option<u64>,
    /// The version of the map ABI that it is of.
    pub version: u32,
}

/// Reads the pins below `dir`; nothing there is an empty [`Inspection`].
///
/// # Errors
/// The directory can't be read. What is wrong with single pins is in
/// [`problems`](Inspection::problems).
pub fn inspect(dir: &Path) -> Result<Inspection, Error> {
    let mut found = Inspection::default();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(Error::io(format!("can't read {}", dir.display())))?,
    };
    let versions = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix('v')?.parse().ok()
    });
    found.versions = versions.collect();
    found.versions.sort_unstable();
    let infos: BTreeMap<u32, ProgramInfo> =
        loaded_programs().flatten().map(|info| (info.id(), info)).collect();
    for version in found.versions.clone() {
        found.read_links(&dir.join(format!("v{version}")).join("links"), version, &infos);
    }
    found.programs.sort_by(|a, b| (&a.target, &a.name).cmp(&(&b.target, &b.name)));
    let maps = dir.join(format!("v{ABI_VERSION}")).join("maps");
    if maps.is_dir() {
        found.read_maps(&maps);
    }
    if !found.programs.is_empty() {
        found.problems.extend(missing(&found.programs, host::has_lookup_interface()));
    }
    Ok(found)
}

/// The program of a filter that a pin's name stands for; `None` where the interface is gone.
fn filter_program(place: &PinnedPlace<'_>) -> Result<Option<u32>, String> {
    let (Some((index, interface)), Some(direction)) = (place.interface(), place.direction()) else {
        return Ok(None);
    };
    match clsact_program(index, direction) {
        Ok(Some(id)) => Ok(Some(id)),
        Ok(None) => Err(format!("the filter of {} is gone from {interface}", place.program)),
        Err(error) => Err(format!("the filters of {interface} can't be listed: {error}")),
    }
}

impl Inspection {
    /// Whether the pins are another version's alone, so that nothing is known of what the maps hold:
    /// [`maps`](Self::maps), [`held`](Self::held), [`modes`](Self::modes), [`verdicts`](Self::verdicts)
    /// and [`lost`](Self::lost) are empty then.
    #[must_use]
    pub fn is_of_another_layout(&self) -> bool {
        !self.versions.is_empty() && !self.versions.contains(&ABI_VERSION)
    }

    fn read_links(&mut self, links: &Path, version: u32, infos: &BTreeMap<u32, ProgramInfo>) {
        for path in below(links) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(place) = PinnedPlace::parse(&name) else { continue };
            let (id, link) = if place.clsact {
                match filter_program(&place) {
                    Ok(id) => (id, None),
                    Err(problem) => {
                        self.problems.push(problem);
                        (None, None)
                    }
                }
            } else {
                match PinnedLink::from_pin(&path).and_then(|link| FdLink::from(link).info()) {
                    Ok(info) => (Some(info.program_id()), Some(info.id())),
                    Err(error) => {
                        self.problems.push(format!("{} can't be read: {error}", path.display()));
                        continue;
                    }
                }
            };
            let info = id.and_then(|id| infos.get(&id));
            self.programs.push(AttachedProgram {
                name: place.program.to_owned(),
                id,
                target: place.now(),
                link,
                loaded_at: info.and_then(ProgramInfo::loaded_at),
                tag: info.map(ProgramInfo::tag),
                version,
            });
        }
    }

    fn read_maps(&mut self, maps: &Path) {
        for path in below(maps) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match map_fill::of(&path, name.clone()) {
                Ok(fill) => self.maps.push(fill),
                Err(error) => self.problems.push(format!("map {name} can't be read: {error}")),
            }
        }
        self.maps.sort_by(|a, b| a.name.cmp(&b.name));
        if let Err(error) = self.read_contents(maps) {
            self.problems.push(error.to_string());
        }
    }

    fn read_contents(&mut self, maps: &Path) -> Result<(), Error> {
        let globals: Array<_, Raw<Globals>> = typed(maps, "GLOBALS")?;
        let globals = globals.get(&0, 0).map_err(|error| Error::Map { map: "GLOBALS", error })?;
        self.held = ConfigurationStamp::of(&globals.0);
        let policies: Array<_, Raw<Policy>> = typed(maps, "POLICIES")?;
        for (id, policy) in (0..).zip(policies.iter()) {
            let policy = policy.map_err(|error| Error::Map { map: "POLICIES", error })?.0;
            let name = match policy.mode {
                // Audited only where every set is, and those are listed.
                mode::AUDIT if id == UNKNOWN_POLICY => continue,
                mode::AUDIT => "audit",
                mode::AUDIT_REDIRECT => "audit_redirect",
                mode::EXEMPT => "exempt",
                // An unknown mode enforces.
                _ => continue,
            };
            self.modes.insert(id, name);
        }
        let counters = Counters::open(open(maps, "COUNTERS")?, open(maps, "LOST")?)?;
        self.verdicts = counters.verdicts()?;
        self.lost = counters.lost()?;
        Ok(())
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(maps: &Path, name: &'static str) -> Result<T, Error> {
    T::try_from(open(maps, name)?).map_err(|error| Error::Map { map: name, error })
}

/// What isn't attached where other programs of ours are. `node_sockets` tells whether the kernel can have one that
/// judges who asks the node's own sockets.
fn missing(programs: &[AttachedProgram], node_sockets: bool) -> Vec<String> {
    const REFUSES: &str = "what it would refuse there may pass";
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for program in programs {
        if let Some(target) = &program.target {
            targets.entry(target).or_default().push(&program.name);
        }
    }
    let mut missing = Vec::new();
    for (target, names) in targets {
        let mut tell = |program: &str, lost: &str| {
            if !names.contains(&program) {
                missing.push(format!("{program} isn't attached to {target}: {lost}"));
            }
        };
        if target.starts_with("cgroup ") {
            ON_CGROUP.iter().for_each(|program| tell(program, REFUSES));
            tell(RECORDS, "connections through the tunnel are reset");
        }
        for (prefix, program) in ON_INTERFACE {
            if names.iter().any(|name| name.starts_with(prefix)) {
                tell(program, REFUSES);
            }
        }
    }
    let has = |name: &str| programs.iter().any(|it| it.name == name && it.target.is_some());
    if node_sockets && has(ON_UPLINK) && !has(ON_NODE) {
        missing.push(format!("{ON_NODE} isn't attached to the host: {REFUSES}"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(name: &str, target: &str) -> AttachedProgram {
        AttachedProgram {
            name: name.into(),
            id: Some(1),
            target: Some(target.into()),
            link: Some(2),
            loaded_at: None,
            tag: None,
            version: ABI_VERSION,
        }
    }

    #[test]
    fn a_hole_in_the_wall_is_named() {
        let mut programs: Vec<_> =
            ON_CGROUP.iter().map(|name| attached(name, "cgroup /pods/web")).collect();
        programs.push(attached(RECORDS, "cgroup /pods/web"));
        programs.push(attached("pod_ingress", "interface veth-web"));
        programs.push(attached("uplink_egress", "interface eth0"));
        assert_eq!(missing(&programs, false), Vec::<String>::new(), "an old kernel");
        let told = missing(&programs, true);
        assert!(told[0].starts_with("node_lookup isn't attached to the host"), "{told:?}");
        programs.push(attached("node_lookup", "the host"));
        assert_eq!(missing(&programs, true), Vec::<String>::new());
        let without = |name: &str| {
            let mut programs = programs.clone();
            programs.retain(|program| program.name != name);
            programs.push(attached("pod_egress", "interface veth-web"));
            missing(&programs, true)
        };
        let told = without("connect6");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("connect6 isn't attached to cgroup /pods/web"), "{told:?}");
        assert!(without(RECORDS)[0].ends_with("through the tunnel are reset"));
        assert!(without("pod_ingress")[0].contains("pod_ingress isn't attached to interface veth"));
    }

    #[test]
    fn nothing_pinned_is_nothing_attached() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(inspect(&dir.path().join("none")).unwrap(), Inspection::default());
    }
}
