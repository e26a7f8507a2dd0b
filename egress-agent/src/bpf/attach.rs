//! Attaching the programs and keeping them attached.
//!
//! Every attachment outlives the process: links are pinned, and filters of kernels without tcx
//! belong to the interface. A newer program is attached before the older one is let go, so there
//! is no moment without one; and either all of a start's attachments are made or none.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    mem,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        cgroup_skb::CgroupSkbAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use super::{Error, host, load, pins::Pins};

/// Programs of a cgroup. The second line (`cgroup_egress`) first: it needs no socket's consent.
const CGROUP_PROGRAMS: [&str; 9] = [
    "cgroup_egress",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];
/// The program of a pod's host-side interface.
const POD_PROGRAM: &str = "pod_ingress";
/// The program of an uplink.
const UPLINK_PROGRAM: &str = "uplink_egress";

/// The first priority that tc knows.
const CLSACT_PRIORITY: u16 = 1;
/// Our filter's handle at that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xe9);

/// How a program is attached to an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcMode {
    /// A tcx link (Linux 6.6), pinned, first in its chain.
    Tcx,
    /// A clsact filter of priority 1, which belongs to the interface.
    Clsact,
}

impl TcMode {
    /// The better one of those that the kernel has.
    #[must_use]
    pub fn detect() -> Self {
        if host::kernel_at_least(host::TCX) { Self::Tcx } else { Self::Clsact }
    }
}

/// What to enforce on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Targets {
    /// cgroup2 directories.
    pub cgroups: Vec<PathBuf>,
    /// Names of pods' host-side interfaces.
    pub pod_interfaces: Vec<String>,
    /// Names of uplinks.
    pub uplinks: Vec<String>,
}

/// One attachment that is wanted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hook {
    Cgroup { program: &'static str, path: PathBuf },
    Interface { program: &'static str, name: String },
}

/// What became of an interface since the last look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is gone; nothing can pass it.
    Gone {
        /// Its name.
        interface: String,
    },
    /// It came back, or its program was gone: the program is attached again.
    Attached {
        /// Its name.
        interface: String,
        /// Its index now.
        ifindex: u32,
    },
    /// Another program had come before ours, or ours was removed; ours is first again.
    Repaired {
        /// Its name.
        interface: String,
    },
}

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Attachments {
    ebpf: Ebpf,
    tc: TcMode,
    /// Where each interface was attached; `None` while it is gone.
    interfaces: BTreeMap<Hook, Option<Attached>>,
}

/// An interface with our program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Attached {
    ifindex: u32,
    /// The program's id in the kernel.
    program: u32,
}

/// An attachment that isn't committed: it is undone when this is dropped.
struct Staged {
    /// Name of its pin.
    name: String,
    link: StagedLink,
}

enum StagedLink {
    /// Pinned under a temporary name.
    Pinned {
        path: PathBuf,
        _link: PinnedLink,
    },
    Clsact {
        link: Option<SchedClassifierLink>,
        replaced: bool,
    },
}

impl Attachments {
    /// Attaches everything or nothing. What an earlier agent attached stays until its replacement
    /// is in place.
    ///
    /// # Errors
    /// A target that doesn't exist, or the kernel's refusal; then all is as it was before.
    pub fn attach(
        mut ebpf: Ebpf,
        pins: &Pins,
        targets: &Targets,
        tc: TcMode,
    ) -> Result<Self, Error> {
        let hooks = hooks(targets);
        let links = pins.links();
        let mut staged = Vec::new();
        let mut interfaces = BTreeMap::new();
        for hook in hooks {
            let (stage, attached) = stage(&mut ebpf, &links, &hook, tc)?;
            staged.push(stage);
            if let Hook::Interface { .. } = hook {
                interfaces.insert(hook, attached);
            }
        }
        let ours: Vec<String> = staged.iter().map(|staged| staged.name.clone()).collect();
        for staged in staged {
            staged.commit(&links)?;
        }
        report_strangers(pins, &ours);
        Ok(Self { ebpf, tc, interfaces })
    }

    /// The index of an interface that is attached, by name.
    #[must_use]
    pub fn ifindex(&self, interface: &str) -> Option<u32> {
        let mut all = self.interfaces.iter();
        all.find_map(|(hook, attached)| match hook {
            Hook::Interface { name, .. } if name == interface => attached.map(|at| at.ifindex),
            Hook::Interface { .. } | Hook::Cgroup { .. } => None,
        })
    }

    /// Looks at every interface: attaches to those that came back, and repairs what others did to
    /// our place in the chain.
    pub fn refresh(&mut self, pins: &Pins) -> Vec<Result<Change, Error>> {
        let hooks: Vec<(Hook, Option<Attached>)> =
            self.interfaces.iter().map(|(hook, attached)| (hook.clone(), *attached)).collect();
        let changes = hooks
            .into_iter()
            .filter_map(|(hook, attached)| self.refresh_one(pins, hook, attached).transpose());
        changes.collect()
    }

    fn refresh_one(
        &mut self,
        pins: &Pins,
        hook: Hook,
        attached: Option<Attached>,
    ) -> Result<Option<Change>, Error> {
        let Hook::Interface { program, name } = &hook else { return Ok(None) };
        let interface = name.clone();
        let now = host::ifindex(name);
        let same = attached.filter(|attached| now == Some(attached.ifindex));
        if now == attached.map(|attached| attached.ifindex)
            && attached.is_none_or(|attached| self.in_place(program, name, attached.program))
        {
            return Ok(None);
        }
        if let Some(before) = attached.filter(|_| same.is_none()) {
            // The link's interface is gone, and the link with it; only its name is left.
            let place = Place::Interface(before.ifindex);
            remove_pin(&pins.links().join(pin_name(program, place, self.tc)));
            // Should attaching fail below, the next look tries again.
            self.interfaces.insert(hook.clone(), None);
        }
        let Some(ifindex) = now else { return Ok(Some(Change::Gone { interface })) };
        let (staged, attached) = if same.is_some() {
            // A chain takes no program twice, and ours is in it already: so a second copy comes
            // first, and the other one leaves.
            stage(&mut load::node(pins)?, &pins.links(), &hook, self.tc)?
        } else {
            stage(&mut self.ebpf, &pins.links(), &hook, self.tc)?
        };
        staged.commit(&pins.links())?;
        self.interfaces.insert(hook, attached);
        Ok(Some(match same {
            Some(_) => Change::Repaired { interface },
            None => Change::Attached { interface, ifindex },
        }))
    }

    /// Whether our program is the first of the interface's chain.
    fn in_place(&self, program: &'static str, interface: &str, id: u32) -> bool {
        if self.tc == TcMode::Clsact {
            // Without tcx the chain can't be asked for programs by their ids.
            return true;
        }
        match SchedClassifier::query_tcx(interface, direction(program)) {
            Ok((_, chain)) => chain.first().is_some_and(|first| first.id() == id),
            // Not allowed to ask (that takes CAP_SYS_ADMIN), or the interface went this moment.
            Err(error) => {
                tracing::debug!("can't ask for the programs on {interface}: {error}");
                true
            }
        }
    }
}

fn hooks(targets: &Targets) -> Vec<Hook> {
    // The walls first: they hold whatever the cgroups' programs miss.
    let interface = |program: &'static str| {
        move |name: &String| Hook::Interface { program, name: name.clone() }
    };
    let pods = targets.pod_interfaces.iter().map(interface(POD_PROGRAM));
    let uplinks = targets.uplinks.iter().map(interface(UPLINK_PROGRAM));
    let cgroups = targets.cgroups.iter().flat_map(|path| {
        CGROUP_PROGRAMS.map(|program| Hook::Cgroup { program, path: path.clone() })
    });
    let mut hooks: Vec<Hook> = pods.chain(uplinks).chain(cgroups).collect();
    let mut seen = std::collections::BTreeSet::new();
    hooks.retain(|hook| seen.insert(hook.clone()));
    hooks
}

fn direction(program: &str) -> TcAttachType {
    if program == POD_PROGRAM { TcAttachType::Ingress } else { TcAttachType::Egress }
}

#[derive(Clone, Copy)]
enum Place {
    Cgroup(u64),
    Interface(u32),
}

/// bpffs refuses dots, and paths have slashes: pins are named by numbers.
fn pin_name(program: &str, place: Place, tc: TcMode) -> String {
    match (place, tc) {
        (Place::Cgroup(id), _) => format!("{program}-cgroup-{id}"),
        (Place::Interface(index), TcMode::Tcx) => format!("{program}-if-{index}"),
        (Place::Interface(index), TcMode::Clsact) => format!("{program}-clsact-{index}"),
    }
}

/// Attaches one program; the link is pinned under a temporary name.
fn stage(
    ebpf: &mut Ebpf,
    links: &Path,
    hook: &Hook,
    tc: TcMode,
) -> Result<(Staged, Option<Attached>), Error> {
    match hook {
        Hook::Cgroup { program, path } => {
            let id = host::cgroup_id(path)?;
            let name = pin_name(program, Place::Cgroup(id), tc);
            let target = || format!("cgroup {}", path.display());
            let cgroup = File::open(path).map_err(|error| failed(program, target(), &error))?;
            let link = attach_cgroup(load::program(ebpf, program)?, &cgroup)
                .map_err(|error| failed(program, target(), &error))?;
            let link =
                pin(link, links, &name).map_err(|error| failed(program, target(), &error))?;
            Ok((Staged { name, link }, None))
        }
        Hook::Interface { program, name: interface } => {
            let ifindex = host::require_interface(interface)?;
            let name = pin_name(program, Place::Interface(ifindex), tc);
            let target = || format!("interface {interface}");
            let Program::SchedClassifier(classifier) = load::program(ebpf, program)? else {
                return Err(failed(program, target(), &ProgramError::UnexpectedProgramType));
            };
            let link = match tc {
                TcMode::Tcx => attach_tcx(classifier, interface, direction(program))
                    .map_err(|error| failed(program, target(), &error))
                    .and_then(|link| {
                        pin(link, links, &name).map_err(|error| failed(program, target(), &error))
                    })?,
                TcMode::Clsact => {
                    let replaces = links.join(&name).exists();
                    attach_clsact(classifier, interface, direction(program), replaces)
                        .map_err(|error| failed(program, target(), &error))?
                }
            };
            let id = classifier.info().map_err(|error| failed(program, target(), &error))?.id();
            Ok((Staged { name, link }, Some(Attached { ifindex, program: id })))
        }
    }
}

fn failed(program: &'static str, target: String, error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    Error::Attach { program, target, error: text }
}

/// Links to a cgroup are many by nature; the kernel refuses other modes for them.
fn attach_cgroup(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(cgroup, mode)?;
            Ok(program.take_link(link)?.try_into().map_err(link_error)?)
        }
        Program::CgroupSkb(program) => {
            let link = program.attach(cgroup, CgroupSkbAttachType::Egress, mode)?;
            Ok(program.take_link(link)?.try_into().map_err(link_error)?)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<FdLink, ProgramError> {
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(interface, direction, first)?;
    program.take_link(link)?.try_into().map_err(link_error)
}

/// Replaces the earlier agent's filter in one step, or adds ours.
fn attach_clsact(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    replaces: bool,
) -> Result<StagedLink, ProgramError> {
    // It may be there already; if it can't be made, adding the filter says why.
    if let Err(error) = qdisc_add_clsact(interface) {
        tracing::debug!("clsact on {interface}: {error}");
    }
    let link = if replaces {
        let earlier = SchedClassifierLink::attached(
            interface,
            direction,
            CLSACT_PRIORITY,
            CLSACT_HANDLE,
            None,
        )
        .map_err(aya::programs::tc::TcError::IoError)?;
        program.attach_to_link(earlier)?
    } else {
        let options = NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))?
    };
    Ok(StagedLink::Clsact { link: Some(program.take_link(link)?), replaced: replaces })
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => error.into(),
        LinkError::InvalidLink | LinkError::UnknownLinkType(_) => ProgramError::NotAttached,
    }
}

/// Pins under a temporary name. A leftover of that name is a link of a start that was killed; it
/// is let go only now that ours is attached.
fn pin(link: FdLink, links: &Path, name: &str) -> Result<StagedLink, aya::pin::PinError> {
    let path = links.join(format!("new-{name}"));
    fs::remove_file(&path).ok();
    let link = link.pin(&path)?;
    Ok(StagedLink::Pinned { path, _link: link })
}

impl Staged {
    /// Makes it last, in place of an earlier agent's.
    fn commit(mut self, links: &Path) -> Result<(), Error> {
        let place = links.join(&self.name);
        match &mut self.link {
            StagedLink::Pinned { path, .. } => {
                // Renaming over the old pin drops the old link: the new one is attached already.
                let moved = fs::rename(&path, &place);
                moved.map_err(Error::io(format!("can't pin {}", place.display())))?;
                *path = PathBuf::new();
            }
            StagedLink::Clsact { link, .. } => {
                // A directory on bpffs marks it for `detach`.
                fs::create_dir_all(&place)
                    .map_err(Error::io(format!("can't make {}", place.display())))?;
                // Dropping it would remove the filter.
                mem::forget(link.take());
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match &mut self.link {
            StagedLink::Pinned { path, .. } if path.as_os_str().is_empty() => {}
            StagedLink::Pinned { path, .. } => remove_pin(path),
            StagedLink::Clsact { link, replaced } => {
                // The filter that it replaced is gone; removing it would open the interface.
                if *replaced {
                    mem::forget(link.take());
                }
            }
        }
    }
}

pub(super) fn remove_pin(path: &Path) {
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("can't remove {}: {error}", path.display());
    }
}

/// Removes our filter of kernels without tcx.
pub(super) fn remove_clsact(interface: &str, direction: TcAttachType) -> Result<(), Error> {
    let what = || format!("can't remove the filter on {interface}");
    let link =
        SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
            .map_err(Error::io(what()))?;
    aya::programs::Link::detach(link)
        .map_err(|error| Error::Io { what: what(), error: std::io::Error::other(error) })
}

/// What an earlier agent enforced on and this one wasn't told of. It stays: only `detach` removes
/// enforcement. What is gone from the host leaves only a name, which is removed.
fn report_strangers(pins: &Pins, ours: &[String]) {
    for name in pins.link_names() {
        if ours.contains(&name) {
            continue;
        }
        match PinnedPlace::parse(&name).and_then(|place| place.now()) {
            Some(target) => tracing::warn!(
                "{name}: {target} isn't named by this agent's options any more; enforcement on it \
                 stays until `egress-agent detach`"
            ),
            None => {
                tracing::info!("{name}: what it was attached to is gone; removing the pin");
                remove_pin(&pins.links().join(&name));
            }
        }
    }
}

/// What a pin's name says.
pub(super) struct PinnedPlace<'a> {
    pub(super) program: &'a str,
    place: Place,
    pub(super) clsact: bool,
}

impl<'a> PinnedPlace<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix("new-").unwrap_or(name);
        let (rest, number) = name.rsplit_once('-')?;
        let (program, kind) = rest.rsplit_once('-')?;
        let place = match kind {
            "cgroup" => Place::Cgroup(number.parse().ok()?),
            "if" | "clsact" => Place::Interface(number.parse().ok()?),
            _ => return None,
        };
        Some(Self { program, place, clsact: kind == "clsact" })
    }

    /// What it is attached to; `None` if that is gone.
    pub(super) fn now(&self) -> Option<String> {
        match self.place {
            Place::Cgroup(id) => {
                host::cgroup_path(id).map(|path| format!("cgroup {}", path.display()))
            }
            Place::Interface(index) => host::ifname(index).map(|name| format!("interface {name}")),
        }
    }

    pub(super) fn interface(&self) -> Option<String> {
        match self.place {
            Place::Interface(index) => host::ifname(index),
            Place::Cgroup(_) => None,
        }
    }

    pub(super) fn direction(&self) -> TcAttachType {
        direction(self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pins_name_tells_its_place() {
        let name = pin_name("pod_ingress", Place::Interface(7), TcMode::Clsact);
        let place = PinnedPlace::parse(&name).unwrap();
        assert!(place.clsact && place.program == "pod_ingress");
        let name = format!("new-{}", pin_name("connect4", Place::Cgroup(1), TcMode::Tcx));
        let place = PinnedPlace::parse(&name).unwrap();
        assert!(!place.clsact && place.program == "connect4" && place.interface().is_none());
        assert!(PinnedPlace::parse("whatever").is_none());
        assert!(PinnedPlace::parse("a-b-c").is_none());
    }

    #[test]
    fn walls_come_first_and_nothing_twice() {
        let targets = Targets {
            cgroups: vec!["/a".into(), "/a".into()],
            pod_interfaces: vec!["p".into()],
            uplinks: vec!["u".into()],
        };
        let hooks = hooks(&targets);
        assert_eq!(hooks.len(), 2 + CGROUP_PROGRAMS.len());
        assert!(matches!(&hooks[0], Hook::Interface { program: POD_PROGRAM, .. }));
    }
}
