//! Which sockets workloads may make, and what they may ask of the kernel by them: programs of the
//! kernel's security modules (LSM) refuse what no other hook judges.
//!
//! Most of all the first is for workloads on the host's network: a packet socket there can send past
//! `tc`. The second is for pods that have `CAP_NET_ADMIN` without a user namespace of their own: over
//! netlink they could act in the node's network namespace. Where the kernel has no active BPF LSM the
//! rest of enforcement holds, and these gaps are reported.

use std::{fs, mem, num::NonZeroU32, path::Path, sync::OnceLock};

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
    btf::{self, Types, VMLINUX},
    pins::{Pins, is_link},
};

/// The programs, each by the name of its hook.
pub(super) const PROGRAMS: [&str; 2] = [SOCKETS, MESSAGES];
const SOCKETS: &str = "socket_create";
const MESSAGES: &str = "netlink_send";
/// How the pins' names end: they are the whole host's.
const HOST: &str = "-host";

/// What the kernel's security modules keep workloads from.
#[derive(Debug)]
pub struct Families {
    /// Making sockets that no other hook judges.
    sockets: Guard,
    /// Messages to the kernel that name another network namespace.
    messages: Guard,
}

/// One program.
#[derive(Debug)]
enum Guard {
    /// It is asked, for as long as the pin is there.
    Asked {
        /// Held so that it outlives somebody who removes the pin.
        link: FdLink,
        /// The link's, in the kernel.
        id: u32,
    },
    /// It isn't.
    Open {
        /// Why.
        why: String,
    },
}

/// What isn't kept from workloads, each with the cause.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LsmGaps {
    /// Making sockets that no other hook judges.
    pub sockets: Option<String>,
    /// Messages to the kernel that name another network namespace.
    pub messages: Option<String>,
}

impl Guard {
    fn gap(&self) -> Option<&str> {
        match self {
            Self::Asked { .. } => None,
            Self::Open { why } => Some(why),
        }
    }

    /// Pins the program's link again, if somebody removed its pin.
    fn repair(&mut self, program: &'static str, pins: &Pins) -> Option<Result<Change, Error>> {
        let Self::Asked { id, .. } = self else { return None };
        if is_link(&pins.links().join(pin_name(program)), *id) {
            return None;
        }
        if let Err(error) = pins.create() {
            return Some(Err(error));
        }
        let why = "its pin was removed, and it couldn't be pinned again".to_owned();
        let Self::Asked { link, .. } = mem::replace(self, Self::Open { why }) else { return None };
        Some(match pin(program, link, &pins.links()) {
            Ok(asked) => {
                *self = asked;
                Ok(Change::Repaired { target: Target::Host, repair: Repair::Pin })
            }
            // The link is gone with its pin; the next agent attaches the program again.
            Err(why) => Err(Error::Attach { program, target: pin_name(program), error: why }),
        })
    }
}

impl Families {
    /// What is missing.
    #[must_use]
    pub fn gaps(&self) -> LsmGaps {
        let told = |guard: &Guard| guard.gap().map(str::to_owned);
        LsmGaps { sockets: told(&self.sockets), messages: told(&self.messages) }
    }

    /// Attaches the programs; what an earlier agent attached is let go once ours is in place. Their
    /// failure is no reason not to enforce everything else.
    pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Self {
        let mut guard =
            |program| attach(program, ebpf, pins).unwrap_or_else(|why| Guard::Open { why });
        Self { sockets: guard(SOCKETS), messages: guard(MESSAGES) }
    }

    /// Pins the programs' links again, if somebody removed their pins.
    pub fn repair(&mut self, pins: &Pins) -> Vec<Result<Change, Error>> {
        let sockets = self.sockets.repair(SOCKETS, pins);
        let messages = self.messages.repair(MESSAGES, pins);
        match (sockets, messages) {
            // One word for the host.
            (Some(Ok(change)), Some(Ok(_))) => vec![Ok(change)],
            (sockets, messages) => sockets.into_iter().chain(messages).collect(),
        }
    }
}

fn pin_name(program: &str) -> String {
    format!("{program}{HOST}")
}

/// Whether a pin is one of these programs'.
pub(super) fn is_pin(name: &str) -> bool {
    PROGRAMS.iter().any(|program| name.strip_prefix(program) == Some(HOST))
}

fn attach(name: &'static str, ebpf: &mut Ebpf, pins: &Pins) -> Result<Guard, String> {
    if fields().is_none() {
        return Err(format!(
            "{VMLINUX} doesn't tell where the kernel keeps what the program reads"
        ));
    }
    let Some(Program::Lsm(program)) = ebpf.program_mut(name) else {
        return Err(format!("the object has no LSM program {name}"));
    };
    if program.fd().is_err() {
        load(program, name).map_err(|error| text(&error))?;
    }
    let link = program.attach().map_err(|error| text(&error))?;
    let link: FdLink = program.take_link(link).map_err(|error| text(&error))?.into();
    // Attached is not yet called: that takes BPF among the active modules. The program for sockets,
    // which comes first, tells for both.
    if !is_active() {
        return Err("BPF is not among the kernel's active security modules".into());
    }
    pin(name, link, &pins.links())
}

/// An error with its cause.
fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Hands a program's code to the kernel.
pub(super) fn load(program: &mut Lsm, name: &str) -> Result<(), ProgramError> {
    program.load(name, &Btf::from_sys_fs()?)
}

/// Why a kernel doesn't take such a program at all; `None` where the verifier refuses this one.
#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
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
fn pin(program: &str, link: FdLink, links: &Path) -> Result<Guard, String> {
    let id = link.info().map_err(|error| text(&error))?.id();
    let name = pin_name(program);
    let (fresh, place) = (links.join(format!("new-{name}")), links.join(&name));
    fs::remove_file(&fresh).ok();
    let link = link.pin(&fresh).map_err(|error| error.to_string())?;
    fs::rename(&fresh, &place)
        .map_err(|error| format!("can't pin {}: {error}", place.display()))?;
    Ok(Guard::Asked { link: link.into(), id })
}

/// Whether the kernel asks the programs: that for sockets refuses this socket with an error of its own.
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
    sock_protocol: u32,
    skb_length: u32,
    skb_data: u32,
}

fn fields() -> Option<&'static Fields> {
    static FIELDS: OnceLock<Option<Fields>> = OnceLock::new();
    btf::once(&FIELDS, read)
}

fn read(description: &[u8]) -> Option<Fields> {
    let types = Types::new(description)?;
    Some(Fields {
        task_nsproxy: types.offset("task_struct", "nsproxy")?,
        nsproxy_net: types.offset("nsproxy", "net_ns")?,
        net_inum: types.namespace_number()?,
        host_netns: btf::own_network_namespace()?,
        sock_protocol: types.offset("sock", "sk_protocol")?,
        skb_length: types.offset("sk_buff", "len")?,
        skb_data: types.offset("sk_buff", "data")?,
    })
}

/// Tells the programs about this kernel, before it is loaded.
pub(super) fn set_globals(loader: &mut EbpfLoader<'_>) {
    let Some(fields) = fields() else { return };
    loader
        .override_global("TASK_NSPROXY", &fields.task_nsproxy, true)
        .override_global("NSPROXY_NET", &fields.nsproxy_net, true)
        .override_global("NET_INUM", &fields.net_inum, true)
        .override_global("HOST_NETNS", &fields.host_netns, true)
        .override_global("SOCK_PROTOCOL", &fields.sock_protocol, true)
        .override_global("SKB_LENGTH", &fields.skb_length, true)
        .override_global("SKB_DATA", &fields.skb_data, true);
}
