//! What is found out about the host.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use rustix::fs::statfs;

use super::dns;
use crate::{
    bpf::{DEFAULT_BPFFS, VerifierReport, cgroup2_mount, kernel_release},
    sys::netlink::{
        filters::{self, Direction},
        links,
    },
};

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// What the host is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// An application node.
    Node,
    /// A gateway node.
    Gateway,
}

impl Role {
    /// The ports that its agent listens on by default, and what for.
    pub(super) const fn ports(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Node => &[(15001, "the tunnel"), (15020, "metrics")],
            Self::Gateway => &[
                (15000, "the admin port"),
                (15008, "tunnels of nodes"),
                (15021, "health"),
                (15090, "metrics"),
            ],
        }
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostFacts {
    pub(super) role: Role,
    /// `uname -r`.
    pub(super) release: String,
    /// What the verifier says: instructions in all, and why there are no security modules' programs.
    pub(super) programs: Result<(usize, Option<String>), String>,
    /// The kernel's security modules; `None` where it does not say.
    pub(super) modules: Option<String>,
    /// Where cgroup2 is mounted.
    pub(super) cgroup2: Option<PathBuf>,
    /// Whether `net_cls` or `net_prio` of cgroup1 is in use besides.
    pub(super) cgroup1: bool,
    /// Whether a bpffs is where the pins would be.
    pub(super) bpffs: bool,
    /// Versions of the map ABI that an agent has pinned already.
    pub(super) pinned: Vec<String>,
    /// Other programs on interfaces: `eth0 ingress: cil_from_netdev`.
    pub(super) filters: Vec<String>,
    /// Ports that cannot be had, and why.
    pub(super) ports: Vec<(u16, &'static str, String)>,
    /// Name servers, and what is wrong with them.
    pub(super) servers: Vec<(IpAddr, Option<String>)>,
}

impl HostFacts {
    /// Finds out.
    #[must_use]
    pub fn of(role: Role) -> Self {
        let programs = VerifierReport::run().map_err(|error| error.to_string());
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let controllers = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            role,
            release: kernel_release(),
            programs: programs.map(|trial| (trial.programs.len(), trial.no_lsm)),
            modules: fs::read_to_string("/sys/kernel/security/lsm").ok(),
            cgroup2: cgroup2_mount(),
            cgroup1: controllers.contains("net_cls") || controllers.contains("net_prio"),
            bpffs: is_bpffs(Path::new(DEFAULT_BPFFS)),
            pinned: pinned(Path::new(DEFAULT_BPFFS)),
            filters: others(),
            ports: role.ports().iter().filter_map(|(port, what)| taken(*port, what)).collect(),
            servers: dns::servers(&resolv_conf).into_iter().map(|ip| (ip, dns::ask(ip))).collect(),
        }
    }
}

/// Whether the nearest directory that exists is on a bpffs.
fn is_bpffs(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|dir| statfs(dir).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC))
}

fn pinned(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.strip_prefix('v').is_some_and(|v| v.parse::<u32>().is_ok()));
    names.sort();
    names
}

/// Programs at tc hooks, which see packets before or after ours.
fn others() -> Vec<String> {
    let mut found = Vec::new();
    for link in links::list().unwrap_or_default() {
        for (direction, name) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
            for filter in filters::list(link.index, direction).unwrap_or_default() {
                let program = if filter.name.is_empty() { &filter.kind } else { &filter.name };
                found.push(format!("{} {name}: {program}", link.name));
            }
        }
    }
    found
}

/// Why a port cannot be had, if it cannot. No privilege is needed to ask.
fn taken(port: u16, what: &'static str) -> Option<(u16, &'static str, String)> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Some((port, what, "another process listens on it".into()))
        }
        Err(error) => Some((port, what, error.to_string())),
    }
}
