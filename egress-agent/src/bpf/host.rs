//! What the host has: kernel version, privileges, cgroups, interfaces. Asked before anything is
//! touched, so that a start which can't succeed changes nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::statfs,
    net::{AddressFamily, SocketType, netdevice, socket},
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};

use super::Error;
use crate::sys::netns;

/// Linux 6.1: the oldest kernel that the tests run on. Older ones are refused, or accepted on request
/// ([`allow_untested_kernel`]).
pub const OLDEST_TESTED_KERNEL: Kernel = Kernel(6, 1);
/// Linux 5.12: pointers for functions of programs that are verified by themselves, and atomic operations
/// that fetch. The oldest kernel that may have all that the programs use.
pub const MINIMUM_KERNEL: Kernel = Kernel(5, 12);
/// tcx: links for tc programs, which can be pinned and keep their place.
pub(super) const TCX: Kernel = Kernel(6, 6);
/// By which interface a look-up for a socket came (`bpf_sk_lookup::ingress_ifindex`).
const LOOKUP_INTERFACE: Kernel = Kernel(5, 17);

/// `CGROUP2_SUPER_MAGIC`, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// A kernel's version, major and minor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kernel(pub u32, pub u32);

impl Kernel {
    /// From `uname -r`: `6.18.0-1-amd64`, `5.10.0`, `6.6`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    fn running() -> (String, Option<Self>) {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = Self::parse(&release);
        (release, kernel)
    }

    /// Refuses a kernel that is too old, and an untested one unless that is allowed. One that calls itself
    /// something unreadable is tried.
    fn check(release: &str, allows_untested: bool) -> Result<(), Error> {
        let found = || release.to_owned();
        let named = |Self(major, minor): Self| format!("{major}.{minor}");
        let (minimum, tested) = (named(MINIMUM_KERNEL), named(OLDEST_TESTED_KERNEL));
        match Self::parse(release) {
            Some(kernel) if kernel < MINIMUM_KERNEL => {
                Err(Error::KernelTooOld { found: found(), minimum: tested })
            }
            Some(kernel) if kernel < OLDEST_TESTED_KERNEL && !allows_untested => {
                Err(Error::KernelUntested { found: found(), tested, minimum })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether this process may enforce on a kernel that was never tested.
static ALLOWS_UNTESTED: AtomicBool = AtomicBool::new(false);

/// From now on this process accepts kernels from [`MINIMUM_KERNEL`] on, which nobody has tested.
pub fn allow_untested_kernel() {
    ALLOWS_UNTESTED.store(true, Ordering::Relaxed);
}

/// The running kernel's release, as `uname -r` says.
#[must_use]
pub fn release() -> String {
    Kernel::running().0
}

/// Whether the running kernel is at least this.
pub(super) fn kernel_at_least(minimum: Kernel) -> bool {
    Kernel::running().1.is_some_and(|kernel| kernel >= minimum)
}

/// Whether the kernel tells by which interface a socket of the node is asked.
#[must_use]
pub fn has_lookup_interface() -> bool {
    kernel_at_least(LOOKUP_INTERFACE)
}

/// Refuses a host that can't enforce, and lifts the limit on locked memory.
pub(super) fn check() -> Result<(), Error> {
    Kernel::check(&Kernel::running().0, ALLOWS_UNTESTED.load(Ordering::Relaxed))?;
    let sets = capabilities(None)
        .map_err(io::Error::from)
        .map_err(Error::io("can't read the process's capabilities"))?;
    privileges(sets.effective)?;
    // Kernels before 5.11 account maps to it; later ones ignore it, so a refusal is no error.
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!("can't lift the limit on locked memory: {error}");
    }
    Ok(())
}

fn privileges(effective: CapabilitySet) -> Result<(), Error> {
    // CAP_SYS_ADMIN implies CAP_BPF and CAP_PERFMON, but not CAP_NET_ADMIN. Without CAP_PERFMON the
    // verifier refuses to compute with pointers (`bpf_allow_ptr_leaks`, Linux 5.8).
    let bpf = effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let perfmon = effective.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN);
    let net = effective.contains(CapabilitySet::NET_ADMIN);
    let missing: Vec<&str> = [(bpf, "CAP_BPF"), (perfmon, "CAP_PERFMON"), (net, "CAP_NET_ADMIN")]
        .into_iter()
        .filter_map(|(has, name)| (!has).then_some(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Privilege { missing: missing.join(", ") })
}

/// The id of a cgroup2 directory, which is its inode number.
pub(super) fn cgroup_id(path: &Path) -> Result<u64, Error> {
    let failed = |problem: String| Error::Cgroup { path: path.to_owned(), problem };
    let mounted = || match cgroup2_mount() {
        Some(mount) => format!("cgroup2 is mounted at {}", mount.display()),
        None => "no cgroup2 file system is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup".into(),
    };
    let metadata = fs::metadata(path).map_err(|error| failed(format!("{error}; {}", mounted())))?;
    let is_cgroup2 = statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC);
    if !is_cgroup2 || !metadata.is_dir() {
        return Err(failed(format!("it isn't a cgroup2 directory; {}", mounted())));
    }
    Ok(metadata.ino())
}

/// Where cgroup2 is mounted, by /proc/self/mountinfo (proc(5)).
#[must_use]
pub fn cgroup2_mount() -> Option<PathBuf> {
    cgroup2_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The path of the cgroup with this id, relative to the mount; `None` where it is gone.
#[must_use]
pub fn cgroup_path(id: u64) -> Option<PathBuf> {
    fn find(dir: &Path, id: u64) -> Option<PathBuf> {
        if fs::metadata(dir).ok()?.ino() == id {
            return Some(dir.to_owned());
        }
        let below = fs::read_dir(dir).ok()?.flatten();
        let dirs = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.path()).find_map(|dir| find(&dir, id))
    }
    let mount = cgroup2_mount()?;
    find(&mount, id).map(|path| match path.strip_prefix(&mount) {
        Ok(relative) => Path::new("/").join(relative),
        Err(_) => path,
    })
}

/// The interface's index in this process's network namespace; `None` where it is gone. Not read
/// from /sys, which may show another namespace's interfaces.
pub(super) fn ifindex(name: &str) -> Option<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(&socket, name).ok()
}

/// The interface with this index now.
#[must_use]
pub fn ifname(index: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(&socket, index).ok()
}

/// The interface's index, or an error that names those there are, the most similar first. Loopback
/// is refused: it is neither a pod's nor an uplink, and the node itself would stop working.
pub(super) fn require_interface(name: &str) -> Result<u32, Error> {
    if name == "lo" {
        return Err(Error::Loopback);
    }
    ifindex(name).ok_or_else(|| {
        let list = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let mut known = interfaces_in(&list);
        known.retain(|other| other != "lo");
        known.sort_by_cached_key(|other| strsim::damerau_levenshtein(name, other));
        Error::Interface { name: name.to_owned(), known }
    })
}

/// Names in /proc/net/dev: `  eth0: 1 2 3`.
fn interfaces_in(list: &str) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// The node's network namespace, as the programs know it; zero where the kernel doesn't tell.
pub(super) fn node_network() -> u64 {
    static COOKIE: OnceLock<u64> = OnceLock::new();
    *COOKIE.get_or_init(|| netns::cookie().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_and_an_untested_one_unless_it_is_allowed() {
        for (release, parsed) in [
            ("6.18.0-1-cloud-amd64", Some(Kernel(6, 18))),
            ("6.1.0-57-amd64", Some(Kernel(6, 1))),
            ("6.6-rc1", Some(Kernel(6, 6))),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(Kernel::parse(release), parsed, "{release}");
            assert!(Kernel::check(release, false).is_ok(), "{release}");
            assert!(Kernel::check(release, true).is_ok(), "{release}");
        }
        for release in ["6.0.19", "5.15.0-91-generic", "5.12.0"] {
            let error = Kernel::check(release, false).unwrap_err().to_string();
            for part in [release, "not tested", "Linux 6.1", "--allow-untested-kernel"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(Kernel::check(release, true).is_ok(), "{release}");
        }
        for release in ["5.10.0-30-amd64", "4.19.0-27-amd64", "3.10"] {
            for allows_untested in [false, true] {
                let error = Kernel::check(release, allows_untested).unwrap_err().to_string();
                assert!(error.contains(release) && error.contains("Linux 6.1"), "{error}");
                assert!(!error.contains("--allow"), "{error}");
            }
        }
    }

    #[test]
    fn the_missing_capability_is_named() {
        let all = CapabilitySet::all();
        assert!(privileges(all).is_ok());
        let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert!(privileges(bpf | CapabilitySet::NET_ADMIN).is_ok());
        assert!(privileges(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN).is_ok());
        let missing = |set| privileges(set).unwrap_err().to_string();
        assert!(missing(all - CapabilitySet::NET_ADMIN).contains("privilege: CAP_NET_ADMIN;"));
        assert!(missing(all - CapabilitySet::SYS_ADMIN - bpf).contains(": CAP_BPF, CAP_PERFMON;"));
        assert!(missing(CapabilitySet::BPF | CapabilitySet::NET_ADMIN).contains(": CAP_PERFMON;"));
        let none = missing(CapabilitySet::empty());
        assert!(none.contains("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN;"), "{none}");
    }

    #[test]
    fn cgroup2_is_found_among_the_mounts() {
        let hybrid = "25 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      26 25 0:23 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_in("25 1 0:22 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn a_path_that_is_no_cgroup_is_refused() {
        for path in ["/tmp", "/nowhere/at/all"] {
            let error = cgroup_id(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains("cgroup2"), "{error}");
        }
        let mount = cgroup2_mount().expect("cgroup2 is mounted here");
        let id = cgroup_id(&mount).unwrap();
        assert_eq!(cgroup_path(id), Some("/".into()));
    }

    #[test]
    fn an_unknown_interface_is_answered_with_the_nearest() {
        let names = interfaces_in("Inter-|  \n face |\n    lo: 1 2\n  eth0: 1\neth0.100: 3\n");
        assert_eq!(names, ["lo", "eth0", "eth0.100"]);
        let error = require_interface("no-such-one").unwrap_err().to_string();
        assert!(error.contains("no interface no-such-one"), "{error}");
        assert!(matches!(require_interface("lo"), Err(Error::Loopback)));
    }
}
