//! The directory on bpffs that holds enforcement: `DIR/v<ABI>/maps/NAME`, `DIR/v<ABI>/links/NAME`.
//!
//! Whoever holds its lock owns it. The lock is the kernel's (`flock` on the directory), so a
//! killed agent holds none, and a stale file can't lock anybody out.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, PinnedLink};
use egress_ebpf::abi::ABI_VERSION;
use rustix::{
    fs::{FlockOperation, flock, statfs},
    mount::{MountFlags, mount},
};

use super::Error;

/// Where pins are by default.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/egress-agent";
/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where systemd and everybody else mount it.
const STANDARD_MOUNT: &str = "/sys/fs/bpf";

/// Whether this link is pinned there.
pub(super) fn is_link(path: &Path, id: u32) -> bool {
    let Ok(pinned) = PinnedLink::from_pin(path) else { return false };
    FdLink::from(pinned).info().is_ok_and(|info| info.id() == id)
}

/// The pins' directory, owned by this process for as long as this value lives.
#[derive(Debug)]
pub struct Pins {
    dir: PathBuf,
    /// Its lock is released when it is closed.
    _lock: File,
}

impl Pins {
    /// Makes the directory if needed (mounting bpffs at its standard place if nobody did) and takes
    /// ownership of it.
    ///
    /// # Errors
    /// [`Error::Owned`] if another agent lives, [`Error::Bpffs`] if there is no bpffs.
    pub fn own(dir: &Path) -> Result<Self, Error> {
        prepare(dir)?;
        let lock = lock(dir)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The same for a directory that must be there already.
    ///
    /// # Errors
    /// Those of [`Self::own`]; `None` if there is no such directory.
    pub fn own_existing(dir: &Path) -> Result<Option<Self>, Error> {
        if dir.is_dir() { Self::own(dir).map(Some) } else { Ok(None) }
    }

    fn version(&self) -> PathBuf {
        self.dir.join(format!("v{ABI_VERSION}"))
    }

    /// Where maps are pinned.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Where links are pinned.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Makes the directories for maps and links.
    pub(super) fn create(&self) -> Result<(), Error> {
        for dir in [self.maps(), self.links()] {
            fs::create_dir_all(&dir).map_err(Error::io(format!("can't make {}", dir.display())))?;
        }
        Ok(())
    }

    /// Whether an agent enforced here before.
    #[must_use]
    pub fn in_use(&self) -> bool {
        names(&self.links()).next().is_some()
    }

    /// Names of pinned links.
    pub(super) fn link_names(&self) -> Vec<String> {
        names(&self.links()).collect()
    }

    /// Where agents with another layout of the maps pinned.
    fn other_versions(&self) -> impl Iterator<Item = PathBuf> {
        let (dir, ours) = (self.dir.clone(), self.version());
        names(&self.dir).map(move |name| dir.join(name)).filter(move |dir| *dir != ours)
    }

    /// Names of the links that those pinned.
    pub(super) fn other_link_names(&self) -> Vec<String> {
        self.other_versions().flat_map(|version| names(&version.join("links"))).collect()
    }

    /// Makes another version of what is pinned under ours: its maps have another layout, though
    /// they claim the same version. Its programs go on to enforce.
    ///
    /// # Errors
    /// It can't be renamed.
    pub(super) fn set_aside(&self) -> Result<PathBuf, Error> {
        let ours = self.version();
        let free = |number| {
            let dir = self.dir.join(format!("v{ABI_VERSION}-before-{number}"));
            (!dir.exists()).then_some(dir)
        };
        // As many as there are names; one of them is free.
        let aside = (1_u32..).find_map(free).unwrap_or_else(|| ours.clone());
        fs::rename(&ours, &aside).map_err(Error::io(format!(
            "can't rename {} to {}",
            ours.display(),
            aside.display()
        )))?;
        Ok(aside)
    }

    /// Undoes [`Self::set_aside`], after a start that failed.
    pub(super) fn bring_back(&self, aside: &Path) {
        if let Err(error) = fs::rename(aside, self.version()) {
            tracing::warn!("{} keeps its name: {error}", aside.display());
        }
    }

    /// Removes what agents with another version of the ABI left. To be called when this one's policy
    /// is in force.
    pub fn remove_other_versions(&self) {
        for other in self.other_versions() {
            match remove_tree(&other, &mut Vec::new()) {
                Ok(()) => tracing::info!("removed {}, of another version", other.display()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Names of the pinned links of all versions of the ABI.
    pub(super) fn all_link_names(&self) -> Vec<String> {
        names(&self.dir).flat_map(|version| names(&self.dir.join(version).join("links"))).collect()
    }

    /// Paths of the same.
    pub(super) fn link_paths(&self) -> Vec<PathBuf> {
        let links = names(&self.dir).map(|version| self.dir.join(version).join("links"));
        links.flat_map(|links| names(&links).map(move |name| links.join(name))).collect()
    }

    /// Removes everything, links first, and the directory itself.
    ///
    /// # Errors
    /// The first pin that can't be removed; what comes after it is left.
    pub fn remove_all(self) -> Result<Vec<PathBuf>, Error> {
        let mut removed = Vec::new();
        remove_tree(&self.dir, &mut removed)?;
        Ok(removed)
    }

    /// Removes a first start's traces, after it failed.
    pub(super) fn undo(&self) {
        if let Err(error) = remove_tree(&self.version(), &mut Vec::new()) {
            tracing::warn!("cleaning up after the failed start: {error}");
        }
    }
}

/// Removes a directory with all that is in it; `links` come before `maps` by their names, so no
/// program runs with a map gone.
pub(super) fn remove_tree(path: &Path, removed: &mut Vec<PathBuf>) -> Result<(), Error> {
    let mut below: Vec<String> = names(path).collect();
    below.sort();
    for name in below {
        remove_tree(&path.join(name), removed)?;
    }
    let result = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    result.map_err(Error::io(format!("can't remove {}", path.display())))?;
    removed.push(path.to_owned());
    Ok(())
}

fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC)
}

/// Makes `dir` on a bpffs.
fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |problem: String| Error::Bpffs { dir: dir.to_owned(), problem };
    let Some(existing) = dir.ancestors().find(|path| path.exists()) else {
        return Err(failed("the path is empty".into()));
    };
    if !is_bpffs(existing) {
        if !dir.starts_with(STANDARD_MOUNT) {
            return Err(failed(format!(
                "{0} isn't on a bpf file system; choose a directory below {STANDARD_MOUNT}, or \
                 mount one: mount -t bpf bpf {0}",
                existing.display()
            )));
        }
        mount_bpffs().map_err(|error| {
            failed(format!(
                "no bpf file system is mounted at {STANDARD_MOUNT}, and mounting it failed \
                 ({error}); mount it: mount -t bpf bpf {STANDARD_MOUNT}"
            ))
        })?;
    }
    if dir.to_string_lossy().contains('.') {
        return Err(failed("bpffs refuses names with a dot; choose another directory".into()));
    }
    fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))
}

/// Mounts bpffs at its standard place, unless another process does so at the same time.
fn mount_bpffs() -> io::Result<()> {
    let place = File::open(STANDARD_MOUNT)?;
    flock(&place, FlockOperation::LockExclusive)?;
    if is_bpffs(Path::new(STANDARD_MOUNT)) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", STANDARD_MOUNT, "bpf", flags, Some(c"mode=0700"))?;
    tracing::info!("mounted bpffs at {STANDARD_MOUNT}");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    if namespace("self") != namespace("1") {
        tracing::warn!(
            "this mount namespace isn't the host's: the pins, and enforcement with them, end with \
             it; mount bpffs on the host and share it"
        );
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, Error> {
    let failed = || Error::io(format!("can't lock {}", dir.display()));
    loop {
        let file = File::open(dir).map_err(failed())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = file.metadata().ok().and_then(|metadata| owner(metadata.ino()));
                return Err(Error::Owned { dir: dir.to_owned(), pid });
            }
            Err(error) => return Err(failed()(error.into())),
        }
        // A `detach` may have removed the directory between opening and locking it.
        let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| (m.dev(), m.ino())).ok();
        if inode(file.metadata()) == inode(fs::metadata(dir)) {
            return Ok(file);
        }
        fs::create_dir_all(dir).map_err(failed())?;
    }
}

/// Who owns this directory, without taking the lock for a moment: an agent that starts just then
/// would think that there is another.
pub(super) fn owner_of(dir: &Path) -> Option<u32> {
    owner(fs::metadata(dir).ok()?.ino())
}

/// Who holds the lock on this inode, by /proc/locks (proc(5)):
/// `1: FLOCK  ADVISORY  WRITE 1234 00:2f:10 0 EOF`.
fn owner(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    owner_in(&locks, inode)
}

fn owner_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        if fields.next() != Some("FLOCK") {
            return None;
        }
        let pid = fields.nth(2)?.parse().ok()?;
        let locked: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        // A holder in a PID namespace that we don't see is shown as zero.
        (locked == inode && pid != 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_found_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:2f:10 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 1234 00:2f:10 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 99 00:2f:10 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:2f:11 0 EOF\n";
        assert_eq!(owner_in(locks, 10), Some(1234));
        assert_eq!(owner_in(locks, 11), None);
        assert_eq!(owner_in(locks, 12), None);
        assert_eq!(owner_in("garbage", 10), None);
    }

    #[test]
    fn a_directory_elsewhere_is_refused_with_the_command_to_mount() {
        let dir = tempfile::TempDir::new().unwrap();
        let error = Pins::own(&dir.path().join("pins")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf"), "{error}");
    }
}
