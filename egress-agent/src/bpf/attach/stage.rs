//! Attaching one program: first under a temporary name, then in its place.
//!
//! A newer program comes beside the older one, and only then the older one goes. `bpf_link_update`,
//! which swaps the program of a link in one step, was weighed and isn't used: a start with many
//! places could then fail half-way with some swapped and no way back, a swapped tc program would
//! stay where it is in its chain instead of coming first, and aya offers it for tc alone. Two of
//! ours at a time do no harm: both let pass or both refuse, and what the first one redirected is
//! a gateway's address to the second.

use std::{
    fs::{self, File},
    mem,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
        cgroup_skb::CgroupSkbAttachType,
        links::{FdLink, LinkError},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use super::{
    attach_point::{AttachPoint, pin_name, remove_pin},
    attach_targets::Hook,
    table::attach_type,
    targets::{Target, TcMode},
};
use crate::{
    bpf::{Error, load},
    sys::netlink::filters::{self, Direction, Filter},
};

/// The first priority that tc knows.
const CLSACT_PRIORITY: u16 = 1;
/// Handles of our filter at that priority. The kernel puts a new filter before the others of its
/// priority; with two handles a new one can come before the one that it replaces.
const CLSACT_HANDLES: [TcHandle; 2] = [TcHandle::new(0, 0xe9), TcHandle::new(0, 0xea)];

/// An attachment that isn't committed: it is undone when this is dropped.
pub(super) struct PendingAttachment {
    /// Name of its pin.
    pub(super) name: String,
    program: u32,
    link: StagedLink,
}

enum StagedLink {
    /// Pinned under a temporary name; committed if there is none.
    Pinned { path: Option<PathBuf>, link: Option<FdLink>, id: u32 },
    /// A filter, which detaches itself when it is dropped.
    Clsact {
        link: Option<SchedClassifierLink>,
        interface: String,
        direction: TcAttachType,
        handle: TcHandle,
    },
}

/// An attachment in force.
#[derive(Debug)]
pub(super) enum ActiveAttachment {
    /// A link, which this process holds besides its pin: removing the pin ends nothing.
    Link {
        /// `None` for the moment in which it is pinned anew.
        link: Option<FdLink>,
        /// The link's id.
        id: u32,
        /// The id of its program.
        program: u32,
    },
    /// A filter of an interface.
    Clsact {
        /// The id of its program.
        program: u32,
    },
}

/// Attaches one program; the link is pinned under a temporary name.
pub(super) fn stage(
    ebpf: &mut Ebpf,
    links: &Path,
    hook: Hook,
    target: &Target,
    tc: TcMode,
) -> Result<PendingAttachment, Error> {
    let name = hook.entry.program;
    attach(ebpf, links, hook, target, tc).map_err(|error| match error {
        Failure::Ours(error) => error,
        Failure::Kernel(error) => {
            Error::Attach { program: name, target: target.to_string(), error }
        }
    })
}

enum Failure {
    Ours(Error),
    Kernel(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        Self::Kernel(with_cause(&error))
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn attach(
    ebpf: &mut Ebpf,
    links: &Path,
    hook: Hook,
    target: &Target,
    tc: TcMode,
) -> Result<PendingAttachment, Failure> {
    let entry = hook.entry;
    let name = pin_name(entry.program, hook.place, tc);
    let program = load::program(ebpf, entry.program)?;
    let (link, id) = match (target, program) {
        (Target::Cgroup(path), program) => {
            let cgroup = File::open(path).map_err(|error| Failure::Kernel(error.to_string()))?;
            let link = attach_cgroup(program, &cgroup, entry.direction)?;
            (pin(link, links, &name)?, program_id(program)?)
        }
        (Target::Interface(interface), Program::SchedClassifier(program)) => {
            let direction = attach_type(entry.direction);
            let link = match (tc, hook.place) {
                (TcMode::Clsact, AttachPoint::Interface(index)) => {
                    attach_clsact(program, index, interface, entry.direction)?
                }
                _ => pin(attach_tcx(program, interface, direction)?, links, &name)?,
            };
            (link, program.info()?.id())
        }
        (Target::Host, Program::SkLookup(program)) => {
            let network = File::open("/proc/thread-self/ns/net")
                .map_err(|error| Failure::Kernel(error.to_string()))?;
            let link = program.attach(&network)?;
            let link = program.take_link(link)?.into();
            (pin(link, links, &name)?, program.info()?.id())
        }
        (Target::Interface(_) | Target::Map(_) | Target::Host, _) => {
            return Err(ProgramError::UnexpectedProgramType.into());
        }
    };
    Ok(PendingAttachment { name, program: id, link })
}

fn program_id(program: &Program) -> Result<u32, ProgramError> {
    Ok(program.info()?.id())
}

/// Links to a cgroup are many by nature; the kernel refuses other modes for them.
#[expect(clippy::wildcard_enum_match_arm, reason = "the object has programs of no other kind")]
fn attach_cgroup(
    program: &mut Program,
    cgroup: &File,
    direction: Direction,
) -> Result<FdLink, ProgramError> {
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(cgroup, mode)?;
            Ok(program.take_link(link)?.try_into().map_err(link_error)?)
        }
        Program::CgroupSkb(program) => {
            let direction = match direction {
                Direction::Ingress => CgroupSkbAttachType::Ingress,
                Direction::Egress => CgroupSkbAttachType::Egress,
            };
            let link = program.attach(cgroup, direction, mode)?;
            Ok(program.take_link(link)?.try_into().map_err(link_error)?)
        }
        Program::SockOps(program) => {
            let link = program.attach(cgroup, mode)?;
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

/// Adds our filter before all others.
fn attach_clsact(
    program: &mut SchedClassifier,
    index: u32,
    interface: &str,
    direction: Direction,
) -> Result<StagedLink, Failure> {
    // It may be there already; if it can't be made, adding the filter says why.
    if let Err(error) = qdisc_add_clsact(interface) {
        tracing::debug!("clsact on {interface}: {error}");
    }
    let filters = filters::list(index, direction)
        .map_err(|error| Failure::Kernel(format!("can't list the filters: {error}")))?;
    let direction = attach_type(direction);
    let ours: Vec<TcHandle> =
        CLSACT_HANDLES.into_iter().filter(|handle| holds(&filters, *handle)).collect();
    let handle = match ours[..] {
        // Both: a replacement was cut short. The one that runs later goes.
        [first, second] => {
            let later =
                if position(&filters, first) < position(&filters, second) { second } else { first };
            detach_clsact(interface, direction, later)?;
            later
        }
        [taken] => CLSACT_HANDLES.into_iter().find(|handle| *handle != taken).unwrap_or(taken),
        _ => CLSACT_HANDLES[0],
    };
    let options = NlOptions { priority: CLSACT_PRIORITY, handle, classid: None };
    let link =
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))?;
    let link = Some(program.take_link(link)?);
    Ok(StagedLink::Clsact { link, interface: interface.to_owned(), direction, handle })
}

fn position(filters: &[Filter], handle: TcHandle) -> Option<usize> {
    filters.iter().position(|filter| is(filter, handle))
}

fn holds(filters: &[Filter], handle: TcHandle) -> bool {
    position(filters, handle).is_some()
}

/// Whether a filter is one of ours, by its place.
fn is(filter: &Filter, handle: TcHandle) -> bool {
    filter.chain == 0
        && filter.priority == u32::from(CLSACT_PRIORITY)
        && filter.kind == "bpf"
        && filter.handle == u32::from(handle)
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => error.into(),
        LinkError::InvalidLink | LinkError::UnknownLinkType(_) => ProgramError::NotAttached,
    }
}

/// Pins under a temporary name. A leftover of that name is a link of a start that was killed; it
/// is let go only now that ours is attached.
fn pin(link: FdLink, links: &Path, name: &str) -> Result<StagedLink, Failure> {
    let path = links.join(format!("new-{name}"));
    fs::remove_file(&path).ok();
    let link = FdLink::from(link.pin(&path).map_err(|error| Failure::Kernel(with_cause(&error)))?);
    match link.info() {
        Ok(info) => {
            let id = info.id();
            Ok(StagedLink::Pinned { path: Some(path), link: Some(link), id })
        }
        Err(error) => {
            remove_pin(&path);
            Err(link_error(error).into())
        }
    }
}

impl PendingAttachment {
    /// Makes it last, in place of an earlier agent's.
    pub(super) fn commit(mut self, links: &Path) -> Result<ActiveAttachment, Error> {
        let place = links.join(&self.name);
        let program = self.program;
        match &mut self.link {
            StagedLink::Pinned { path, link, id } => {
                if let Some(temporary) = path {
                    // Renaming over the old pin drops the old link: the new one is attached already.
                    let moved = fs::rename(temporary, &place);
                    moved.map_err(Error::io(format!("can't pin {}", place.display())))?;
                }
                *path = None;
                Ok(ActiveAttachment::Link { link: link.take(), id: *id, program })
            }
            StagedLink::Clsact { link, interface, direction, handle } => {
                mark(&place)?;
                // Dropping it would remove the filter.
                mem::forget(link.take());
                for other in CLSACT_HANDLES.into_iter().filter(|other| other != handle) {
                    // Most often there is none to replace.
                    if let Err(error) = detach_clsact(interface, *direction, other) {
                        tracing::trace!("no earlier filter on {interface}: {error}");
                    }
                }
                Ok(ActiveAttachment::Clsact { program })
            }
        }
    }
}

/// A directory on bpffs marks a filter for `detach`.
pub(super) fn mark(place: &Path) -> Result<(), Error> {
    fs::create_dir_all(place).map_err(Error::io(format!("can't make {}", place.display())))
}

impl Drop for PendingAttachment {
    fn drop(&mut self) {
        // A filter that wasn't committed detaches itself.
        if let StagedLink::Pinned { path: Some(path), .. } = &self.link {
            remove_pin(path);
        }
    }
}

/// Removes our filters of kernels without tcx; the interface's other filters stay.
pub(in crate::bpf) fn remove_clsact(
    index: u32,
    interface: &str,
    direction: Direction,
) -> Result<(), Error> {
    let what = || format!("can't remove the filter on {interface}");
    let filters = filters::list(index, direction).map_err(Error::io(what()))?;
    for handle in CLSACT_HANDLES.into_iter().filter(|handle| holds(&filters, *handle)) {
        detach_clsact(interface, attach_type(direction), handle).map_err(|error| Error::Io {
            what: what(),
            error: std::io::Error::other(error.to_string()),
        })?;
    }
    Ok(())
}

/// The id of our filter's program on a kernel without tcx; `None` where it is gone.
///
/// # Errors
/// The kernel can't be asked.
pub(in crate::bpf) fn clsact_program(
    index: u32,
    direction: Direction,
) -> std::io::Result<Option<u32>> {
    let filters = filters::list(index, direction)?;
    let ours = |filter: &&Filter| CLSACT_HANDLES.into_iter().any(|handle| is(filter, handle));
    Ok(filters.iter().find(ours).and_then(|filter| filter.program))
}

fn detach_clsact(
    interface: &str,
    direction: TcAttachType,
    handle: TcHandle,
) -> Result<(), ProgramError> {
    let link = SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, handle, None)
        .map_err(aya::programs::tc::TcError::IoError)?;
    aya::programs::Link::detach(link)
}
