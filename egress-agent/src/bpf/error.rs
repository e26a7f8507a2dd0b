//! What can go wrong with the kernel, and whose fault it is.

use std::{fmt::Write as _, io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use rustix::io::Errno;
use thiserror::Error;

/// Why enforcement couldn't be set up or changed. Each says what to do about it.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel lacks what the programs need.
    #[error(
        "kernel {found} is too old: Linux {minimum} or later is needed \
         (5.18 for meaningful connect errors, 6.6 for tcx)"
    )]
    KernelTooOld {
        /// `uname -r`.
        found: String,
        /// The oldest that works.
        minimum: String,
    },
    /// Nobody has tested the programs on this kernel.
    #[error(
        "kernel {found} is not tested: Linux {tested} or later is needed; --allow-untested-kernel accepts \
         {minimum} and later, where nobody has seen that everything is enforced"
    )]
    KernelUntested {
        /// `uname -r`.
        found: String,
        /// The oldest one that is tested.
        tested: String,
        /// The oldest one that is accepted on request.
        minimum: String,
    },
    /// The kernel doesn't say where it keeps what the programs have to see.
    #[error(
        "the kernel doesn't describe its own types as expected in {path}: who made a packet, and what is \
         still done to it, couldn't be recognised; use a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
    )]
    Types {
        /// The description.
        path: &'static str,
    },
    /// The process may not do it.
    #[error(
        "missing privilege: {missing}; run as root, or give the process CAP_BPF, CAP_PERFMON and \
         CAP_NET_ADMIN (and CAP_SYS_ADMIN to mount bpffs)"
    )]
    Privilege {
        /// The capabilities that are missing.
        missing: String,
    },
    /// There is no place for pins.
    #[error("can't pin below {}: {problem}", dir.display())]
    Bpffs {
        /// The directory that was asked for.
        dir: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Another agent owns the pins.
    #[error(
        "another egress-agent{} owns {}; only one may enforce with the same pins: stop it first, \
         or choose another --bpffs", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), dir.display()
    )]
    Owned {
        /// The directory.
        dir: PathBuf,
        /// Who, if the kernel tells.
        pid: Option<u32>,
    },
    /// A path isn't a cgroup.
    #[error("--cgroup {}: {problem}", path.display())]
    Cgroup {
        /// The path.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name}{}", nearest(known))]
    Interface {
        /// What was asked for.
        name: String,
        /// The nearest first.
        known: Vec<String>,
    },
    /// Loopback was named.
    #[error("lo is the loopback interface; expected a pod's interface or one that leads outside")]
    Loopback,
    /// The programs of this binary are not for this kernel, or damaged.
    #[error("can't load the eBPF programs: {}", chain(.0))]
    Load(#[from] EbpfError),
    /// The object lacks a program or map: the binary was built wrongly.
    #[error("the eBPF object has no {what} {name}; the binary was built wrongly")]
    Missing {
        /// `program` or `map`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses program {program}: {}", chain(error))]
    Verify {
        /// Which.
        program: String,
        /// Why.
        error: ProgramError,
    },
    /// A program couldn't be attached.
    #[error("can't attach {program} to {target}: {error}")]
    Attach {
        /// Which.
        program: &'static str,
        /// Where.
        target: String,
        /// Why.
        error: String,
    },
    /// A map couldn't be used.
    #[error("map {map}: {}", chain(error))]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        error: MapError,
    },
    /// There are more interfaces than slots, or many came and went a moment ago.
    #[error(
        "the interface of index {ifindex} finds no free slot: there are {slots}, and one that is given back is \
         free again after five minutes; nothing of its pod passes until then"
    )]
    NoSlot {
        /// The interface.
        ifindex: u32,
        /// How many there are.
        slots: u32,
    },
    /// A pinned map isn't what this agent expects under the same ABI version.
    #[error(
        "the pinned map {} has another layout ({found}) than this agent's ({expected}), though both \
         are of ABI version {version}",
        path.display()
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Sizes that were found.
        found: String,
        /// Sizes that were expected.
        expected: String,
        /// The version of the ABI.
        version: u32,
    },
    /// The system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl Error {
    /// Whether another agent owns the pins.
    #[must_use]
    pub const fn is_owned(&self) -> bool {
        matches!(self, Self::Owned { .. })
    }

    /// The map that has no place for an entry, if that is what is wrong: a hash says `E2BIG`, a
    /// trie `ENOSPC`, and slots are given by the agent itself.
    #[must_use]
    pub fn full_map(&self) -> Option<&'static str> {
        if let Self::NoSlot { .. } = self {
            return Some("SLOTS");
        }
        let Self::Map { map, error: MapError::SyscallError(error) } = self else { return None };
        let full = [Errno::TOOBIG, Errno::NOSPC].map(|errno| Some(errno.raw_os_error()));
        full.contains(&error.io_error.raw_os_error()).then_some(map)
    }

    /// For `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |error| Self::Io { what, error }
    }
}

fn nearest(known: &[String]) -> String {
    match known {
        [] => "; there are no interfaces at all".into(),
        [nearest, rest @ ..] => {
            let rest = rest.iter().take(8).fold(String::new(), |mut list, name| {
                // Writing to a string can't fail.
                write!(list, ", {name}").ok();
                list
            });
            format!("; did you mean {nearest}? There are: {nearest}{rest}")
        }
    }
}

/// An error with its causes: aya's own messages leave them out. The verifier's log is long; its
/// end says what was wrong.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    const TAIL: usize = 2000;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    match text.char_indices().nth_back(TAIL) {
        Some((at, _)) => format!("…{}", &text[at..]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_interface_is_suggested() {
        assert_eq!(
            nearest(&["eth0".into(), "veth1".into()]),
            "; did you mean eth0? There are: eth0, veth1"
        );
        assert_eq!(nearest(&[]), "; there are no interfaces at all");
    }
}
