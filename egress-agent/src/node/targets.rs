//! The words of `--cgroup` and `--uplink` that stand for what this node has.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::sys::netlink::{links, routes};

/// For `--cgroup`: the cgroup of kubelet's pods.
const KUBEPODS: &str = "kubepods";
/// What it is called with systemd's cgroup driver and with cgroupfs. A node may have both: one of another
/// driver, earlier, is left empty.
const KUBEPODS_CGROUPS: [&str; 2] = ["kubepods.slice", "kubepods"];
/// For `--uplink`: the interfaces of the default routes.
const AUTO: &str = "auto";

/// The directories. `mount` is where cgroup2 is mounted.
///
/// # Errors
/// The word is given, and kubelet has made no cgroup.
pub(super) fn cgroups(given: Vec<PathBuf>, mount: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in given {
        if path != Path::new(KUBEPODS) {
            found.push(path);
            continue;
        }
        let mount = mount.context("--cgroup kubepods: no cgroup2 file system is mounted")?;
        let all = KUBEPODS_CGROUPS.map(|name| mount.join(name));
        let there: Vec<PathBuf> = all.into_iter().filter(|path| path.is_dir()).collect();
        if there.is_empty() {
            bail!(
                "--cgroup {KUBEPODS}: {} has neither {}; give the path of the cgroup that kubelet puts \
                 pods into (cgroupRoot in its configuration)",
                mount.display(),
                KUBEPODS_CGROUPS.join(" nor ")
            );
        }
        found.extend(there);
    }
    Ok(found)
}

/// The interfaces.
///
/// # Errors
/// The word is given, and there is no default route.
pub(super) fn uplinks(given: Vec<String>) -> anyhow::Result<Vec<String>> {
    if !given.iter().any(|name| name == AUTO) {
        return Ok(given);
    }
    let default =
        routes::default_interfaces().context("--uplink auto: can't ask for the routes")?;
    let links = links::list().context("--uplink auto: can't ask for the interfaces")?;
    let names = links.into_iter().filter(|link| default.contains(&link.index));
    let found = with_default(given, names.map(|link| link.name).collect())?;
    tracing::info!("uplinks: {}", found.join(", "));
    Ok(found)
}

fn with_default(given: Vec<String>, default: Vec<String>) -> anyhow::Result<Vec<String>> {
    if default.is_empty() {
        bail!("--uplink {AUTO}: there is no default route; name the interfaces that lead out");
    }
    let mut found: Vec<String> = given.into_iter().filter(|name| name != AUTO).collect();
    for name in default {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_word_stands_for_either_drivers_cgroup() {
        let mount = TempDir::new().unwrap();
        let of = |given: &str| cgroups(vec![given.into()], Some(mount.path()));
        let error = of("kubepods").unwrap_err().to_string();
        assert!(error.contains("kubepods.slice nor kubepods"), "{error}");
        fs::create_dir(mount.path().join("kubepods")).unwrap();
        assert_eq!(of("kubepods").unwrap(), [mount.path().join("kubepods")]);
        fs::create_dir(mount.path().join("kubepods.slice")).unwrap();
        let both = ["kubepods.slice", "kubepods"].map(|name| mount.path().join(name));
        assert_eq!(of("kubepods").unwrap(), both);
        // Only the word: a path is what it says, whether it is there or not.
        assert_eq!(of("/sys/fs/cgroup/kubepods").unwrap(), [Path::new("/sys/fs/cgroup/kubepods")]);
        assert!(cgroups(vec!["kubepods".into()], None).is_err());
    }

    #[test]
    fn default_routes_add_to_what_is_named() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let with = |given, default| with_default(names(given), names(default)).unwrap();
        assert_eq!(with(&["auto"], &["eth0"]), ["eth0"]);
        assert_eq!(with(&["eth1", "auto"], &["eth0", "eth1"]), ["eth1", "eth0"]);
        let error = with_default(names(&["auto", "eth1"]), Vec::new()).unwrap_err().to_string();
        assert!(error.contains("no default route"), "{error}");
        assert_eq!(uplinks(names(&["eth7"])).unwrap(), ["eth7"]);
    }
}
