//! Attaching one program: first under a temporary name, then in its place.

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
        links::{FdLink, LinkError, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use super::{
    Attached, Hook, TcMode,
    place::{Place, pin_name},
    table::Direction,
};
use crate::bpf::{Error, host, load};

/// The first priority that tc knows.
const CLSACT_PRIORITY: u16 = 1;
/// Our filter's handle at that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xe9);

/// An attachment that isn't committed: it is undone when this is dropped.
pub(super) struct Staged {
    /// Name of its pin.
    pub(super) name: String,
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

/// Attaches one program; the link is pinned under a temporary name.
pub(super) fn stage(
    ebpf: &mut Ebpf,
    links: &Path,
    hook: &Hook,
    tc: TcMode,
) -> Result<(Staged, Option<Attached>), Error> {
    match hook {
        Hook::Cgroup { entry, path } => {
            let program = entry.program;
            let id = host::cgroup_id(path)?;
            let name = pin_name(program, Place::Cgroup(id), tc);
            let target = || format!("cgroup {}", path.display());
            let cgroup = File::open(path).map_err(|error| failed(program, target(), &error))?;
            let link = attach_cgroup(load::program(ebpf, program)?, &cgroup, entry.direction)
                .map_err(|error| failed(program, target(), &error))?;
            let link =
                pin(link, links, &name).map_err(|error| failed(program, target(), &error))?;
            Ok((Staged { name, link }, None))
        }
        Hook::Interface { entry, name: interface } => {
            let (program, direction) = (entry.program, entry.direction.tc());
            let ifindex = host::require_interface(interface)?;
            let name = pin_name(program, Place::Interface(ifindex), tc);
            let target = || format!("interface {interface}");
            let Program::SchedClassifier(classifier) = load::program(ebpf, program)? else {
                return Err(failed(program, target(), &ProgramError::UnexpectedProgramType));
            };
            let link = match tc {
                TcMode::Tcx => attach_tcx(classifier, interface, direction)
                    .map_err(|error| failed(program, target(), &error))
                    .and_then(|link| {
                        pin(link, links, &name).map_err(|error| failed(program, target(), &error))
                    })?,
                TcMode::Clsact => {
                    let replaces = links.join(&name).exists();
                    attach_clsact(classifier, interface, direction, replaces)
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
    pub(super) fn commit(mut self, links: &Path) -> Result<(), Error> {
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

pub(in crate::bpf) fn remove_pin(path: &Path) {
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("can't remove {}: {error}", path.display());
    }
}

/// Removes our filter of kernels without tcx.
pub(in crate::bpf) fn remove_clsact(interface: &str, direction: TcAttachType) -> Result<(), Error> {
    let what = || format!("can't remove the filter on {interface}");
    let link =
        SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
            .map_err(Error::io(what()))?;
    aya::programs::Link::detach(link)
        .map_err(|error| Error::Io { what: what(), error: std::io::Error::other(error) })
}
