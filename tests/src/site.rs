//! What a testbed leaves on the machine, under one prefix: namespaces `PREFIX-…`, the cgroup
//! `PREFIX`, the directory `/run/PREFIX` with a BPF file system in it. All of it goes when the
//! [`Site`] is dropped, and when its process dies in whatever way.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{cgroup, netns::NetNs, sh};

/// Prefix of the demo: fixed, so that `--down` finds it.
pub const DEMO: &str = "egress-demo";
/// Prefix of tests; the process id and a number follow.
const TEST: &str = "egress-test-";

/// Everything under one prefix.
#[derive(Debug)]
pub struct Site {
    prefix: String,
    cgroup: PathBuf,
    janitor: Option<(Child, ChildStdin)>,
}

impl Site {
    /// A site for a test, named after this process. Sites of test processes that are gone are
    /// removed first.
    ///
    /// # Errors
    /// No root, no cgroup2, or the kernel refuses something.
    pub fn test() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep_dead_tests()?;
        }
        Self::create(format!("{TEST}{}-{number}", std::process::id()))
    }

    /// The demo's site.
    ///
    /// # Errors
    /// As for [`Self::test`]; or a demo is up.
    pub fn demo() -> Result<Self> {
        if exists(DEMO) {
            bail!(
                "a demo is up already (or was killed): `cargo xtask demo --shell` gets you into its \
                 pod, `cargo xtask demo --down` removes it"
            );
        }
        Self::create(DEMO.to_owned())
    }

    fn create(prefix: String) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces, cgroups and eBPF need root: run this as root");
        }
        let cgroup = cgroup::mount_point()?.join(&prefix);
        // The janitor first: from here on everything is removed, come what may.
        let janitor = Some(start_janitor(&prefix)?);
        let site = Self { prefix, cgroup, janitor };
        cgroup::create(&site.cgroup)?;
        let bpf = site.bpffs();
        fs::create_dir_all(&bpf).with_context(|| bpf.display().to_string())?;
        sh("mount", &["-t", "bpf", "bpf", &bpf.to_string_lossy()])?;
        Ok(site)
    }

    /// What everything of this site is named after.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn netns(&self, host: &str) -> Result<NetNs> {
        NetNs::create(format!("{}-{host}", self.prefix))
    }

    /// A new cgroup.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn cgroup(&self, name: &str) -> Result<PathBuf> {
        cgroup::create(&self.cgroup.join(name))
    }

    /// Files of this site.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        dir(&self.prefix)
    }

    /// A BPF file system of its own: unmounting it lets go of every pin.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.dir().join("bpf")
    }

    /// Leaves everything up.
    pub fn keep(mut self) {
        if let Some((mut child, mut stdin)) = self.janitor.take() {
            // Told so, the janitor leaves without cleaning.
            stdin.write_all(b"keep").ok();
            drop(stdin);
            child.wait().ok();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Some((mut child, stdin)) = self.janitor.take() else { return };
        if let Err(error) = sweep(&self.prefix) {
            eprintln!("clean-up of {}: {error:#}", self.prefix);
        }
        drop(stdin);
        child.wait().ok();
    }
}

/// Where the files of this site are.
#[must_use]
pub fn dir(prefix: &str) -> PathBuf {
    Path::new("/run").join(prefix)
}

/// Whether anything of this site is there.
#[must_use]
pub fn exists(prefix: &str) -> bool {
    dir(prefix).exists()
        || cgroup::mount_point().is_ok_and(|root| root.join(prefix).exists())
        || namespaces(prefix).next().is_some()
}

/// Removes everything of this site, its processes first. Nothing there is fine.
///
/// # Errors
/// Something can't be removed.
pub fn sweep(prefix: &str) -> Result<()> {
    cgroup::remove(&cgroup::mount_point()?.join(prefix))?;
    // A host with systemd has its own there too, on a hybrid hierarchy.
    cgroup::remove(&Path::new("/sys/fs/cgroup/systemd").join(prefix))?;
    for name in namespaces(prefix) {
        sh("ip", &["netns", "del", &name])?;
    }
    let dir = dir(prefix);
    let below = format!("{}/", dir.display());
    let mounted = fs::read_to_string("/proc/self/mounts")?;
    // What was mounted last goes first.
    for line in mounted.lines().rev() {
        if let Some(place) = line.split(' ').nth(1).filter(|place| place.starts_with(&below)) {
            sh("umount", &[place])?;
        }
    }
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

fn namespaces(prefix: &str) -> impl Iterator<Item = String> {
    let start = format!("{prefix}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(move |name| name.starts_with(&start))
}

fn sweep_dead_tests() -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    for dir in ["/run".into(), PathBuf::from("/run/netns"), cgroup::mount_point()?] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let mut prefixes: Vec<String> = names.iter().filter_map(|name| dead_prefix(name)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.iter().try_for_each(|prefix| sweep(prefix))
}

/// `egress-test-PID-N` of `egress-test-PID-N-host`, if no process has that id.
fn dead_prefix(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(TEST)?.split('-');
    let (pid, number) = (parts.next()?, parts.next()?);
    let _: u32 = pid.parse().ok()?;
    (!Path::new("/proc").join(pid).exists()).then(|| format!("{TEST}{pid}-{number}"))
}

/// A process of its own session that waits for this one to end. A signal to this process's group
/// doesn't reach it.
fn start_janitor(prefix: &str) -> Result<(Child, ChildStdin)> {
    let program = demo_program()?;
    let mut child = Command::new(&program)
        .args(["--janitor", prefix])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let stdin = child.stdin.take().context("the janitor has no standard input")?;
    Ok((child, stdin))
}

/// What the janitor does: waits for the end of its standard input, then cleans, unless told to keep.
///
/// # Errors
/// Something can't be removed.
pub fn janitor(prefix: &str) -> Result<()> {
    let mut told = Vec::new();
    std::io::stdin().read_to_end(&mut told)?;
    if told.is_empty() { sweep(prefix) } else { Ok(()) }
}

/// `target/debug/egress-demo`, beside this program or, from a test, one directory above.
///
/// # Errors
/// It isn't there.
pub fn demo_program() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("egress-demo"));
    found
        .into_iter()
        .find(|path| path.is_file())
        .context("egress-demo isn't built: cargo build --package egress-tests --bins")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sites_of_dead_processes_are_swept() {
        let me = std::process::id();
        assert_eq!(dead_prefix(&format!("egress-test-{me}-0-pod")), None);
        // Above the kernel's largest process id (2^22).
        let dead = "egress-test-99999999-3";
        assert_eq!(dead_prefix(&format!("{dead}-pod")).as_deref(), Some(dead));
        assert_eq!(dead_prefix(dead).as_deref(), Some(dead));
        assert_eq!(dead_prefix("egress-test-x-0"), None);
        assert_eq!(dead_prefix("egress-demo-pod"), None);
    }
}
