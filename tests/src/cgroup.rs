//! Groups of processes under cgroup2.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::wait;

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `unified` below it on hybrid machines.
///
/// # Errors
/// It isn't mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    // proc(5): `… mount-point options [optional fields] - type source super-options`
    let found = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    });
    match found {
        Some(path) => Ok(path.into()),
        None => bail!("no cgroup2 in /proc/self/mountinfo: mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

/// The path of a cgroup as `mesh.yaml` wants it: below the mount.
///
/// # Errors
/// It isn't below the mount.
pub fn below_mount(path: &Path) -> Result<String> {
    let mount = mount_point()?;
    let below = path.strip_prefix(&mount).with_context(|| path.display().to_string())?;
    Ok(format!("/{}", below.display()))
}

/// Makes a cgroup below another.
///
/// # Errors
/// The kernel refuses.
pub fn create(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot make cgroup {}", path.display()))?;
    Ok(path.to_owned())
}

/// Kills every process in the cgroup and below, and removes it. Nothing there is fine.
///
/// # Errors
/// Something survives.
pub fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    kill(path)?;
    wait::until(wait::SOON, &format!("processes in {} to end", path.display()), || {
        remove_tree(path).ok()
    })
}

/// `cgroup.kill` is there from kernel 5.14 on; before that, one by one.
fn kill(path: &Path) -> Result<()> {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.path().is_dir() {
            kill(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(path.join("cgroup.procs"))?.lines() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
