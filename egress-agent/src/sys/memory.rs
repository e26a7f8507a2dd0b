//! What this process may use of memory and descriptors, and what it uses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The smallest memory limit of the process's cgroup and those above it, in bytes; without one, the
/// machine's memory.
///
/// # Errors
/// `/proc` cannot be read.
pub fn memory_limit() -> io::Result<u64> {
    let total = kib_field(&fs::read_to_string("/proc/meminfo")?, "MemTotal:");
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let limits = cgroup_files(&cgroups, &mounts).into_iter().filter_map(|file| {
        // v2 says `max` and v1 a number near 2^63 where there is no limit.
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    let limit = limits.chain(total).min();
    limit.ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

/// The files that hold limits: of the process's own cgroup first, then of each one above.
fn cgroup_files(cgroups: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        // `0::/path` (v2), `7:memory:/path` (v1).
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (file, kind) = match controllers {
            "" => ("memory.max", "cgroup2"),
            list if list.split(',').any(|name| name == "memory") => {
                ("memory.limit_in_bytes", "cgroup")
            }
            _ => continue,
        };
        let Some((root, mount)) = mounted(mountinfo, kind, controllers) else { continue };
        // In a container the path may be one above what is mounted; then the mount is the cgroup.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let full = Path::new(mount).join(below);
        let up = full.ancestors().take_while(|dir| dir.starts_with(mount));
        files.extend(up.map(|dir| dir.join(file)));
    }
    files
}

/// Root and mount point of the hierarchy (`proc(5)`: the fourth and fifth field).
fn mounted<'a>(mountinfo: &'a str, kind: &str, controllers: &str) -> Option<(&'a str, &'a str)> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let (found, _, options) = (rest.next()?, rest.next()?, rest.next().unwrap_or(""));
        let mine = found == kind
            && (controllers.is_empty() || options.split(',').any(|name| name == "memory"));
        let mut fields = fields.split(' ').skip(3);
        mine.then_some((fields.next()?, fields.next()?))
    })
}

/// A number in KiB, as bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Memory of the process that no file backs, in bytes.
///
/// # Errors
/// `/proc` cannot be read.
pub fn memory_used() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    kib_field(&text, "RssAnon:").ok_or_else(|| io::Error::other("/proc/self/status has no RssAnon"))
}

/// Open descriptors of the process.
///
/// # Errors
/// `/proc` cannot be read.
pub fn descriptors_used() -> io::Result<u64> {
    // Linux 6.2 has the number as the directory's size; before, it is zero.
    match fs::metadata("/proc/self/fd")?.len() {
        0 => {
            let count = fs::read_dir("/proc/self/fd")?.count();
            // One of them is the directory itself.
            Ok(u64::try_from(count).unwrap_or(u64::MAX).saturating_sub(1))
        }
        size => Ok(size),
    }
}

/// Gives memory that the allocator holds without use back to the kernel.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's allocator has no other interface")]
pub fn trim() {
    // SAFETY: it touches nothing but the allocator's own free lists, under the allocator's locks, and
    // may be called from any thread at any time (malloc_trim(3): MT-Safe).
    let _released: i32 = unsafe { libc::malloc_trim(0) };
}

/// Gives memory that the allocator holds without use back to the kernel; other C libraries do so by
/// themselves.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_every_cgroup_from_the_process_up() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let found = cgroup_files("0::/system.slice/gw.service\n", v2);
        let expected = [
            "/sys/fs/cgroup/system.slice/gw.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        // Hybrid: the memory controller is of v1.
        let v1 = format!(
            "{v2}31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        );
        let found = cgroup_files("7:memory:/a\n3:cpu:/b\n", &v1);
        let expected = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        // A container without a cgroup namespace: its own cgroup is what is mounted.
        let inner = "40 23 0:26 /pods/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let found = cgroup_files("0::/pods/x\n", inner);
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/memory.max")]);
        assert_eq!(cgroup_files("garbage\n", "garbage\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_the_process_uses_can_be_read() {
        let text = "Name: x\nMemTotal:       24593428 kB\n";
        assert_eq!(kib_field(text, "MemTotal:"), Some(24_593_428 * 1024));
        let limit = memory_limit().unwrap();
        let used = memory_used().unwrap();
        assert!(used > 0 && used < limit, "{used} of {limit}");
        let before = descriptors_used().unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors_used().unwrap() >= before.saturating_sub(20) + 30);
        drop(files);
        trim();
    }
}
