//! What to enforce on, and how.

use std::{fmt, path::PathBuf};

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
    /// The whole host: what sockets workloads may make.
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
