//! What to enforce on, and how.

use std::{fmt, path::PathBuf};

use egress_ebpf::abi::PolicyId;

use super::pattern::Pattern;
use crate::{bpf::host, types::printable};

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
    /// Names of pods' host-side interfaces, or patterns of them.
    pub pod_interfaces: Vec<Pattern>,
    /// Names of uplinks.
    pub uplinks: Vec<String>,
    /// The policy of cgroups that no workload names.
    pub unnamed: PolicyId,
    /// Whether to judge who asks the sockets of the node itself, where there is an uplink: see
    /// [`has_lookup_interface`](crate::bpf::has_lookup_interface).
    pub node_sockets: bool,
}

/// When the programs of a first start come into force, on a node where nothing is enforced yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstStart {
    /// At once: everything external is denied until the maps hold a configuration, and everything
    /// in-cluster too.
    AtOnce,
    /// What is there already goes on as before until [`Attachments::take_over`](super::Attachments::take_over). What appears later is
    /// enforced at once.
    WhenFilled,
}

/// What the programs wait for where they are not in force yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingReason {
    /// Another version's are in force there, and stay until the maps hold a configuration.
    OtherVersion,
    /// Nothing is enforced there: see [`FirstStart::WhenFilled`].
    FirstStart,
}

/// What a place is called at the moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A cgroup2 directory.
    Cgroup(PathBuf),
    /// An interface's name.
    Interface(String),
    /// A pinned map.
    Map(&'static str),
    /// The whole host: what sockets workloads may make, and who may ask its own.
    Host,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => {
                write!(f, "cgroup {}", printable(&path.display().to_string()))
            }
            Self::Interface(name) => write!(f, "interface {}", printable(name)),
            Self::Map(name) => write!(f, "map {name}"),
            Self::Host => f.write_str("the host"),
        }
    }
}
