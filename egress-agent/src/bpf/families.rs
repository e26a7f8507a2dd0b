//! Which sockets workloads may make: a program of the kernel's security modules (LSM) refuses those
//! that no other hook judges.
//!
//! Most of all it is for workloads on the host's network: a packet socket there can send past `tc`.
//! Where the kernel has no active BPF LSM the rest of enforcement holds, and this gap is told.

use std::{fs, mem, num::NonZeroU32, os::unix::fs::MetadataExt, path::Path, sync::OnceLock};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Lsm, Program, ProgramError, links::FdLink},
};
use egress_ebpf::abi::SOCKET_PROBE;
use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, SocketType, socket},
};

use super::{
    Change, Error, Repair, Target,
    btf::{Types, VMLINUX},
    pins::{Pins, is_link},
};

pub(super) const PROGRAM: &str = "socket_create";
/// The pin's name: it is the whole host's.
pub(super) const PIN: &str = "socket_create-host";

/// Whether workloads are kept from making sockets that no hook judges.
#[derive(Debug)]
pub enum Families {
    /// They are, for as long as the pin is there.
    Judged {
        /// Held so that it outlives somebody who removes the pin.
        link: FdLink,
        /// The link's, in the kernel.
        id: u32,
    },
    /// They aren't.
    Open {
        /// Why.
        why: String,
    },
}

impl Families {
    /// What is missing, and what to do about it.
    #[must_use]
    pub fn gap(&self) -> Option<String> {
        match self {
            Self::Judged { .. } => None,
            Self::Open { why } => Some(format!(
                "packet sockets of workloads on the host's network are NOT refused: {why}. Such a \
                 workload with CAP_NET_RAW can send past enforcement. Boot the kernel with bpf among \
                 its security modules (lsm=...,bpf), or take CAP_NET_RAW from workloads on the \
                 host's network"
            )),
        }
    }

    /// Attaches the program; what an earlier agent attached is let go once ours is in place. Its
    /// failure is no reason not to enforce everything else.
    pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Self {
        let families = attach(ebpf, pins).unwrap_or_else(|why| Self::Open { why });
        if let Some(gap) = families.gap() {
            tracing::warn!("{gap}");
        }
        families
    }

    /// Pins the program's link again, if somebody removed its pin.
    pub fn repair(&mut self, pins: &Pins) -> Option<Result<Change, Error>> {
        let Self::Judged { id, .. } = self else { return None };
        if is_link(&pins.links().join(PIN), *id) {
            return None;
        }
        if let Err(error) = pins.create() {
            return Some(Err(error));
        }
        let why = "its pin was removed, and it couldn't be pinned again".to_owned();
        let Self::Judged { link, .. } = mem::replace(self, Self::Open { why }) else { return None };
        Some(match pin(link, &pins.links()) {
            Ok(judged) => {
                *self = judged;
                Ok(Change::Repaired { target: Target::Host, repair: Repair::Pin })
            }
            // The link is gone with its pin; the next agent attaches the program again.
            Err(why) => Err(Error::Attach { program: PROGRAM, target: PIN.into(), error: why }),
        })
    }
}

fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<Families, String> {
    if fields().is_none() {
        return Err(format!("{VMLINUX} doesn't tell where the kernel keeps network namespaces"));
    }
    let Some(Program::Lsm(program)) = ebpf.program_mut(PROGRAM) else {
        return Err(format!("the object has no LSM program {PROGRAM}"));
    };
    if program.fd().is_err() {
        load(program).map_err(|error| text(&error))?;
    }
    let link = program.attach().map_err(|error| text(&error))?;
    let link: FdLink = program.take_link(link).map_err(|error| text(&error))?.into();
    // Attached is not yet called: that takes BPF among the active modules.
    if !is_active() {
        return Err("BPF is not among the kernel's active security modules".into());
    }
    pin(link, &pins.links())
}

/// An error with its cause.
fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Hands the program's code to the kernel.
pub(super) fn load(program: &mut Lsm) -> Result<(), ProgramError> {
    program.load(PROGRAM, &Btf::from_sys_fs()?)
}

/// Why a kernel doesn't take such a program at all; `None` where the verifier refuses this one.
pub(super) fn missing(error: &ProgramError) -> Option<String> {
    match error {
        // The kernel doesn't describe its types, or has no such hook.
        ProgramError::Btf(error) => Some(error.to_string()),
        ProgramError::LoadError { io_error, verifier_log }
            if verifier_log.to_string().is_empty() =>
        {
            Some(io_error.to_string())
        }
        _ => None,
    }
}

/// Pins under a temporary name, then in the place of an earlier agent's.
fn pin(link: FdLink, links: &Path) -> Result<Families, String> {
    let id = link.info().map_err(|error| text(&error))?.id();
    let (fresh, place) = (links.join(format!("new-{PIN}")), links.join(PIN));
    fs::remove_file(&fresh).ok();
    let link = link.pin(&fresh).map_err(|error| error.to_string())?;
    fs::rename(&fresh, &place)
        .map_err(|error| format!("can't pin {}: {error}", place.display()))?;
    Ok(Families::Judged { link: link.into(), id })
}

/// Whether the kernel asks the program: it refuses this socket with an error of its own.
fn is_active() -> bool {
    let protocol = NonZeroU32::new(SOCKET_PROBE).map(Protocol::from_raw);
    socket(AddressFamily::UNSPEC, SocketType::DGRAM, protocol).err() == Some(Errno::PERM)
}

/// Where the kernel keeps what, and the number of the agent's network namespace, which is the
/// host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fields {
    task_nsproxy: u32,
    nsproxy_net: u32,
    net_inum: u32,
    host_netns: u32,
}

/// Read once: the description is some megabytes.
fn fields() -> Option<&'static Fields> {
    static FIELDS: OnceLock<Option<Fields>> = OnceLock::new();
    FIELDS.get_or_init(|| read(&fs::read(VMLINUX).ok()?)).as_ref()
}

fn read(description: &[u8]) -> Option<Fields> {
    let types = Types::new(description)?;
    let namespace = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    Some(Fields {
        task_nsproxy: types.offset("task_struct", "nsproxy")?,
        nsproxy_net: types.offset("nsproxy", "net_ns")?,
        net_inum: types.offset("net", "ns")? + types.offset("ns_common", "inum")?,
        host_netns: u32::try_from(namespace).ok()?,
    })
}

/// Tells the program about this kernel, before it is loaded.
pub(super) fn tell(loader: &mut EbpfLoader<'_>) {
    let Some(fields) = fields() else { return };
    loader
        .override_global("TASK_NSPROXY", &fields.task_nsproxy, true)
        .override_global("NSPROXY_NET", &fields.nsproxy_net, true)
        .override_global("NET_INUM", &fields.net_inum, true)
        .override_global("HOST_NETNS", &fields.host_netns, true);
}
